//! A STUN/TURN relay: sockets, threads and counters around the machine of `portway-relay-proto`.
//!
//! - [`Relay`]: starts, tells, ends. [`config`]: what it is told. [`admin`]: who is there, revocation, drain.
//! - `worker`: one thread with a machine, a poller and sockets of its own; the kernel spreads clients
//!   over workers by their five-tuple, so that no packet needs a lock.
//! - `ports`: relay sockets. `batch`: packets of one flow leave together. `stream`: TCP and TLS.
//! - [`metrics`]: what has passed, and what has not and why; [`users`]: by whom.

pub mod admin;
mod batch;
pub mod config;
pub mod metrics;
mod ports;
mod stream;
pub mod users;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use mio::Waker;
use portway_relay_proto::quota::Ledger;

use config::{Config, ConfigError, Listen};
use metrics::{Counters, Snapshot};
use worker::{Order, Reload, Worker};

/// Orders that may wait for a worker.
const ORDERS: usize = 64;

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
    workers: Vec<Handle>,
    listening: Vec<Listen>,
    is_draining: AtomicBool,
}

#[derive(Debug)]
struct Handle {
    orders: SyncSender<Order>,
    waker: Arc<Waker>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
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
        let ledger = Arc::new(Ledger::default());
        let (mut nonce_key, mut run) = ([0; 32], [0; 4]);
        getrandom::fill(&mut nonce_key).map_err(io::Error::other)?;
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        let mut listening = config.listen.clone();
        if config.workers.get() > 1 {
            worker::probe(config)?;
        }
        let mut workers = Vec::new();
        for index in 0..config.workers.get() {
            let counters = Arc::new(Counters::default());
            let (orders, receiver): (_, Receiver<Order>) = sync_channel(ORDERS);
            let worker = Worker::new(
                config,
                &mut listening,
                nonce_key,
                ledger.clone(),
                counters.clone(),
                receiver,
            )?;
            let waker = worker.waker();
            let thread = std::thread::Builder::new()
                .name(format!("relay-{index}"))
                .spawn(move || worker.run())?;
            workers.push(Handle {
                orders,
                waker,
                counters,
                thread: Some(thread),
            });
        }
        Ok(Self {
            run: u32::from_ne_bytes(run),
            workers,
            listening,
            is_draining: AtomicBool::new(false),
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
        config.check()?;
        for worker in &self.workers {
            worker.order(Order::Reload(Box::new(Reload {
                users: config.users(),
                peers: config.peers.clone(),
                quota: config.quota,
                tls: config.tls.clone(),
            })));
        }
        Ok(())
    }

    /// What has passed so far.
    #[must_use]
    pub fn metrics(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for worker in &self.workers {
            worker.counters.add_to(&mut sum);
        }
        sum
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.order(Order::End);
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && let Err(panic) = thread.join()
            {
                tracing::error!(?panic, "a relay thread has panicked");
            }
        }
    }
}
