//! The flows of a session to a `udp` service: the same at both ends.
//!
//! ```text
//! local socket ── flow ── datagram channel, while there is one ──► the other end
//!                    └─── else: capsules on the stream of the flow ─┘
//! ```
//! A flow is what goes between one address at the client and the service. It lives as long as the request that
//! opened it, whose bodies are its capsules. Nothing here waits for room: what finds a queue full is dropped,
//! and counted under a named reason.
//!
//! - [`counters`]: what was sent, what came, what was dropped and why. `flow`: one of them.
//!
//! Security: a datagram counts by the channel that it comes by. Only the channel of a peer connection whose
//! handshake has proven the session is ever read (`carry`), and it reaches the flows of this session alone.

pub mod counters;
mod flow;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use portway_protocol::datagram::{self, DatagramError, FlowId, MAX_PAYLOAD};
use portway_protocol::limits::MAX_STREAMS;
use portway_transport::webrtc::{DatagramChannel, NotSent};
use tokio::sync::{Semaphore, mpsc};

pub use counters::Counters;
use counters::Loss;
pub(crate) use flow::{Capsule, Flow, Outlet, capsules, is_refusal};

/// Flows of a session at a time. Each is a stream, and one that replaces another may overlap with it.
pub(crate) const MAX_FLOWS: usize = 240;

/// Datagrams of a flow that may wait for its stream.
const CAPSULES: usize = 64;

/// Bytes of all flows that may wait for their streams.
const WAITING: usize = 1024 * 1024;

/// Where a datagram is received, in bytes: what fills it is too large, or more of it is gone.
pub(crate) const BUFFER: usize = MAX_PAYLOAD + 1;

const _: () = assert!(MAX_FLOWS < MAX_STREAMS as usize);

/// All flows of one session.
#[derive(Debug)]
pub struct Flows {
    flows: Mutex<HashMap<FlowId, Arc<Flow>>>,
    /// The channel of the peer connection in use.
    channel: RwLock<Option<Arc<DatagramChannel>>>,
    counters: Arc<Counters>,
    /// Bytes that may still wait for a stream.
    room: Arc<Semaphore>,
    next: AtomicU32,
}

/// A flow of a session that lives until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    flows: Arc<Flows>,
    flow: Arc<Flow>,
}

impl Flows {
    /// None yet; counts there.
    #[must_use]
    pub fn new(counters: Arc<Counters>) -> Self {
        Self {
            flows: Mutex::default(),
            channel: RwLock::default(),
            counters,
            room: Arc::new(Semaphore::new(WAITING)),
            next: AtomicU32::new(0),
        }
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A flow of our own, under a new name. What it has to say on its stream is received from there.
    pub(crate) fn open(
        self: &Arc<Self>,
        outlet: Outlet,
    ) -> Option<(Registered, mpsc::Receiver<Capsule>)> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let id = FlowId::new(next).or_else(|| {
            self.next.store(0, Ordering::Relaxed);
            FlowId::new(0)
        });
        self.register(id?, outlet)
    }

    /// A flow that the other end has named; nothing if there is one of that name.
    pub(crate) fn register(
        self: &Arc<Self>,
        id: FlowId,
        outlet: Outlet,
    ) -> Option<(Registered, mpsc::Receiver<Capsule>)> {
        let (capsules, said) = mpsc::channel(CAPSULES);
        let flow = Arc::new(Flow::new(id, outlet, capsules));
        match self.lock().entry(id) {
            Entry::Vacant(slot) => slot.insert(flow.clone()),
            Entry::Occupied(_) => return None,
        };
        let registered = Registered {
            flows: self.clone(),
            flow,
        };
        Some((registered, said))
    }

    /// A message of the datagram channel.
    fn receive(&self, message: Bytes) {
        let (id, payload) = match datagram::parse(message) {
            Ok(parsed) => parsed,
            Err(error) => return self.refuse(error),
        };
        let flow = self.lock().get(&id).cloned();
        match flow {
            Some(flow) => flow.deliver(&payload, &self.counters),
            None => self.counters.lost(Loss::UnknownFlow),
        }
    }

    fn refuse(&self, error: DatagramError) {
        tracing::trace!(%error, "a datagram was refused");
        self.counters.lost(match error {
            DatagramError::TooLong(_) => Loss::TooLarge,
            DatagramError::Truncated | DatagramError::Flow | DatagramError::Context(_) => {
                Loss::Malformed
            }
        });
    }

    fn channel(&self) -> Option<Arc<DatagramChannel>> {
        let channel = self.channel.read();
        channel.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FlowId, Arc<Flow>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// The flow itself.
    pub(crate) const fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Sends a datagram to the other end, or drops it.
    pub(crate) async fn send(&self, payload: &[u8]) {
        let Flows { room, .. } = &*self.flows;
        let sent = self.flow.try_send(payload, self.flows.channel(), room);
        let sent = sent.await;
        match sent {
            Ok(way) => self.flows.counters.sent(payload, way),
            Err(loss) => self.flows.counters.lost(loss),
        }
    }

    /// Takes what comes on the stream of the flow.
    pub(crate) fn receive(&self, capsules: &mut datagram::capsule::Reader, bytes: &[u8]) {
        capsules.push(bytes);
        loop {
            match capsules.take() {
                Ok(Some(payload)) => self.flow.deliver(&payload, &self.flows.counters),
                Ok(None) => return,
                Err(error) => self.flows.refuse(error),
            }
        }
    }

    /// Notes that the service was not there for a datagram.
    pub(crate) fn refused(&self) {
        self.flows.counters.lost(Loss::Refused);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.flows.lock().remove(&self.flow.id());
    }
}

/// Carries datagrams of a session over the channel of a peer connection that has proven it, until that ends or
/// this is dropped.
pub(crate) async fn carry(channel: DatagramChannel, flows: Arc<Flows>) {
    let carried = Carried {
        channel: Arc::new(channel),
        flows,
    };
    let Carried { channel, flows } = &carried;
    let slot = flows.channel.write();
    *slot.unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
    while let Some(message) = channel.recv().await {
        flows.receive(message);
    }
}

/// A channel that a session uses. It may have another one already when this ends.
struct Carried {
    channel: Arc<DatagramChannel>,
    flows: Arc<Flows>,
}

impl Drop for Carried {
    fn drop(&mut self) {
        let slot = self.flows.channel.write();
        let mut slot = slot.unwrap_or_else(PoisonError::into_inner);
        if slot
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, &self.channel))
        {
            *slot = None;
        }
    }
}

impl From<NotSent> for Loss {
    fn from(error: NotSent) -> Self {
        match error {
            NotSent::Full => Self::QueueFull,
            NotSent::Closed(_) => Self::NoPath,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UdpSocket;

    use super::*;

    /// Of nobody.
    async fn outlet() -> Outlet {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Outlet::Connected(Arc::new(socket))
    }

    fn flows() -> Arc<Flows> {
        Arc::new(Flows::new(Arc::default()))
    }

    #[tokio::test]
    async fn a_flow_has_its_name_alone_until_it_ends() {
        let flows = flows();
        let (first, _said) = flows.open(outlet().await).unwrap();
        let id = first.flow().id();
        assert!(flows.register(id, outlet().await).is_none());
        drop(first);
        assert!(flows.register(id, outlet().await).is_some());
    }

    #[tokio::test]
    async fn what_is_for_no_flow_is_dropped_and_counted() {
        let flows = flows();
        let message = datagram::encode(FlowId::MAX, b"hi").unwrap();
        flows.receive(message);
        flows.receive(Bytes::from_static(b"\x05\x07hi"));
        let dropped = flows.counters().tally().dropped;
        assert_eq!((dropped.unknown_flow, dropped.malformed), (1, 1));
        assert_eq!(dropped.total(), 2);
    }

    #[tokio::test]
    async fn what_waits_for_a_stream_is_bounded() {
        let flows = flows();
        let mut opened = Vec::new();
        for _ in 0..MAX_FLOWS {
            let (flow, said) = flows.open(outlet().await).unwrap();
            for _ in 0..2 * CAPSULES {
                flow.send(&[7; MAX_PAYLOAD]).await;
            }
            opened.push((flow, said));
        }
        let full = flows.counters().tally();
        assert!(full.sent_bytes <= WAITING as u64, "{full:?}");
        assert_eq!(full.dropped.queue_full, full.dropped.total());
        // There is room again when they have left.
        opened.clear();
        let (flow, _said) = flows.open(outlet().await).unwrap();
        flow.send(b"hi").await;
        let after = flows.counters().tally();
        assert_eq!(after.sent, full.sent + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_ends_when_it_is_idle_and_not_before() {
        let flows = flows();
        let (flow, _said) = flows.open(outlet().await).unwrap();
        let begun = tokio::time::Instant::now();
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let talk = async {
            tokio::time::sleep(minutes(4)).await;
            flow.send(b"hi").await;
            std::future::pending().await
        };
        tokio::select! {
            () = flow.flow().over(minutes(5)) => {}
            () = talk => {}
        }
        assert_eq!(begun.elapsed(), minutes(4 + 5));
    }
}
