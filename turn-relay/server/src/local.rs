//! Peers in the same process: what is for them does not pass through the kernel, nor what they send
//! to a relayed address. Permissions count as for any peer. Hot path.
//!
//! ```text
//! client ═UDP═► worker ──receive()──► LocalPeer
//! client ◄═UDP═ worker ◄──[`Inbox`]── Attachment::send()
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use mio::Waker;

use crate::Handle;
use crate::ports::Slot;
use crate::worker::Order;

/// Bytes that may wait for a worker, of all local peers; what a socket would hold. As there, each burst
/// counts as its own record too, so that empty packets are not without a bound.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// A peer in the same process.
pub trait LocalPeer: Send + Sync + fmt::Debug {
    /// Takes packets that come from a relayed address: `packets` is cut every `segment` bytes; if it is
    /// empty, it is one packet. Must not block; what there is no room for is dropped.
    fn receive(&self, from: SocketAddr, packets: &[u8], segment: usize);
}

/// Where relayed addresses are: the worker and its socket.
pub(crate) type Relayed = RwLock<HashMap<SocketAddr, (usize, Slot)>>;

/// Packets of a local peer on their way to a worker.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) slot: Slot,
    pub(crate) peer: SocketAddr,
    pub(crate) packets: Vec<u8>,
    pub(crate) segment: usize,
}

impl Burst {
    /// Bytes that it takes while it waits.
    const fn size(&self) -> usize {
        size_of::<Self>() + self.packets.len()
    }
}

/// What local peers have sent to a worker.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bursts: VecDeque<Burst>,
    bytes: usize,
}

impl Inbox {
    /// Adds a burst, unless there is no room; the worker is woken if it might not look.
    fn push(&self, burst: Burst, waker: &Waker) {
        let mut waiting = self.lock();
        if waiting.bytes + burst.size() > MAX_WAITING {
            return;
        }
        let was_empty = waiting.bursts.is_empty();
        waiting.bytes += burst.size();
        waiting.bursts.push_back(burst);
        drop(waiting);
        if was_empty && let Err(error) = waker.wake() {
            tracing::error!(%error, "a relay thread cannot be woken");
        }
    }

    /// Takes everything that waits.
    pub(crate) fn take(&self) -> VecDeque<Burst> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.bursts)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A local peer's place at the relay; detached when dropped.
#[derive(Debug)]
pub struct Attachment {
    address: SocketAddr,
    workers: Arc<[Handle]>,
    relayed: Arc<Relayed>,
}

impl Attachment {
    pub(crate) fn new(
        address: SocketAddr,
        peer: Arc<dyn LocalPeer>,
        workers: Arc<[Handle]>,
        relayed: Arc<Relayed>,
    ) -> Self {
        for worker in &*workers {
            worker.order(Order::Attach(address, peer.clone()));
        }
        Self {
            address,
            workers,
            relayed,
        }
    }

    /// Sends packets, cut every `segment` bytes, or an empty one, if `to` is a relayed address; `false` if
    /// it is none.
    #[must_use]
    pub fn send(&self, to: SocketAddr, packets: &[u8], segment: usize) -> bool {
        let relayed = self.relayed.read().unwrap_or_else(PoisonError::into_inner);
        let Some((worker, slot)) = relayed.get(&to).copied() else {
            return false;
        };
        drop(relayed);
        let worker = &self.workers[worker];
        let burst = Burst {
            slot,
            peer: self.address,
            packets: packets.to_vec(),
            segment,
        };
        worker.inbox.push(burst, &worker.waker);
        true
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for worker in &*self.workers {
            worker.order(Order::Detach(self.address));
        }
    }
}
