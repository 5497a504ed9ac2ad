//! A STUN/TURN relay: sockets, threads and counters around the machine of `portway-relay-proto`.
//!
//! - [`Relay`]: starts, tells, ends. [`config`]: what it is told. [`admin`]: who is there, revocation, drain.
//! - `worker`: one thread with a machine, a poller and sockets of its own; the kernel spreads clients
//!   over workers by their five-tuple, so that no packet needs a lock.
//! - `listener`, `stream`: where clients come, over UDP, TCP and TLS. `ports`, `peers`: relay sockets and
//!   what goes out of them; [`LocalPeer`]: a peer in the same process. `icmp`: what did not arrive.
//!   `batch`: packets of one flow leave together.
//! - `failure`: a thread that ends by itself is told to who waits for [`Relay::lost`].
//! - [`metrics`]: what has passed, and what has not and why; [`users`]: by whom.

pub mod admin;
mod batch;
pub mod config;
mod failure;
mod icmp;
mod listener;
mod local;
pub mod metrics;
mod peers;
mod ports;
mod stream;
pub mod users;
mod worker;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use mio::Waker;
use portway_relay_proto::quota::Ledger;

use config::{Config, ConfigError, Listen};
use failure::Failure;
pub use failure::WorkerLost;
pub use local::{Attachment, LocalPeer};
use local::{Inbox, Relayed};
use metrics::{Counters, Snapshot};
use ports::Kept;
pub use stream::Arrived;
use worker::{Order, Reload, Shared, Worker};

/// Orders that may wait for a worker.
const ORDERS: usize = 64;

/// Sessions that live: by user and session, until when.
pub type Sessions = HashMap<(Arc<str>, Arc<str>), u64>;

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was told what cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system's.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A running relay. Ends when dropped.
#[derive(Debug)]
pub struct Relay {
    /// Which run this is: a random number in the names of its sessions.
    run: u32,
    is_draining: AtomicBool,
    workers: Arc<[Handle]>,
    threads: Vec<JoinHandle<()>>,
    failure: Failure,
    tcp_allocations: bool,
    relayed: Arc<Relayed>,
    listening: Vec<Listen>,
    /// Whose turn it is to take a connection.
    next: AtomicUsize,
}

#[derive(Debug)]
struct Handle {
    orders: SyncSender<Order>,
    waker: Arc<Waker>,
    counters: Arc<Counters>,
    inbox: Arc<Inbox>,
}

impl Handle {
    /// Whether the worker is there to take it.
    fn order(&self, order: Order) -> bool {
        self.orders.send(order).is_ok() && self.waker.wake().is_ok()
    }
}

impl Relay {
    /// Binds everything, then starts its threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: &Config) -> Result<Self, StartError> {
        config.check()?;
        let (ledger, kept) = (Arc::new(Ledger::default()), Arc::new(Kept::default()));
        let (mut nonce_key, mut run) = ([0; 32], [0; 4]);
        getrandom::fill(&mut nonce_key).map_err(io::Error::other)?;
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        let mut listening = config.listeners();
        if config.workers.get() > 1 {
            listener::probe(config)?;
        }
        let relayed = Arc::new(Relayed::default());
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        let failure = Failure::default();
        for index in 0..config.workers.get() {
            let shared = Shared {
                index,
                nonce_key,
                ledger: ledger.clone(),
                kept: kept.clone(),
                counters: Arc::default(),
                inbox: Arc::default(),
                relayed: relayed.clone(),
            };
            let (counters, inbox) = (shared.counters.clone(), shared.inbox.clone());
            let (orders, receiver): (_, Receiver<Order>) = sync_channel(ORDERS);
            let worker = Worker::new(config, &mut listening, shared, receiver)?;
            let waker = worker.waker();
            let watched = failure.watch(index);
            let thread = std::thread::Builder::new()
                .name(format!("relay-{index}"))
                .spawn(move || match worker.run() {
                    Ok(()) => watched.end(),
                    Err(error) => tracing::error!(%error, "a relay thread cannot wait for packets"),
                })?;
            workers.push(Handle {
                orders,
                waker,
                counters,
                inbox,
            });
            threads.push(thread);
        }
        Ok(Self {
            run: u32::from_ne_bytes(run),
            is_draining: AtomicBool::new(false),
            workers: workers.into(),
            threads,
            failure,
            tcp_allocations: config.tcp_allocations,
            relayed,
            listening,
            next: AtomicUsize::new(0),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn listening(&self) -> &[Listen] {
        &self.listening
    }

    /// Takes users, secrets, rules, quotas and the certificate of another configuration; addresses stay.
    /// Allocations live on, unless their users or peers are not welcome any more.
    ///
    /// # Errors
    /// If that configuration cannot be; nothing has changed then.
    pub fn reload(&self, config: &Config) -> Result<(), ConfigError> {
        // Whether there are TCP allocations is as it was.
        let judged = Config {
            tcp_allocations: self.tcp_allocations,
            ..config.clone()
        };
        judged.check()?;
        for worker in &*self.workers {
            worker.order(Order::Reload(Box::new(Reload {
                users: config.users(),
                peers: config.peers.clone(),
                quota: config.quota,
                tls: config.tls.clone(),
            })));
        }
        Ok(())
    }

    /// Makes a peer in this process known, whose packets then take no way through the kernel.
    #[must_use]
    pub fn attach(&self, address: SocketAddr, peer: Arc<dyn LocalPeer>) -> Attachment {
        Attachment::new(address, peer, self.workers.clone(), self.relayed.clone())
    }

    /// Serves a connection that somebody else has accepted: one port can speak more than STUN.
    pub fn take(&self, arrived: Arrived) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        self.workers[turn].order(Order::Take(arrived));
    }

    /// Prolongs the ephemeral credentials of sessions that live, for those who hold allocations by
    /// them: from user and session to the time, seconds since 1970.
    pub fn prolong(&self, sessions: Sessions) {
        let sessions = Arc::new(sessions);
        for worker in &*self.workers {
            worker.order(Order::Prolong(sessions.clone()));
        }
    }

    /// Waits until a thread ends by itself, be it by a panic; for ever, if none does. The relay cannot go
    /// on then: its process is to end with an error, so that it is started anew.
    pub fn lost(&self) -> impl Future<Output = WorkerLost> + Send + use<> {
        self.failure.clone().lost()
    }

    /// What has passed so far.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for worker in &*self.workers {
            worker.counters.add_to(&mut sum);
        }
        sum
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for worker in &*self.workers {
            worker.order(Order::End);
        }
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                tracing::error!(?panic, "a relay thread has panicked");
            }
        }
    }
}
