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
//! handshake has proven the session is ever read ([`carry`]), and it reaches the flows of this session alone.

pub mod counters;
mod flow;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use portway_protocol::datagram::{self, DatagramError, FlowId};
use portway_protocol::limits::MAX_STREAMS;
use portway_transport::webrtc::{DatagramChannel, NotSent};
use tokio::sync::mpsc;

pub use counters::Counters;
use counters::Loss;
pub(crate) use flow::{Flow, Outlet, capsules, is_refusal};

/// Flows of a session at a time. Each is a stream, and one that replaces another may overlap with it.
pub(crate) const MAX_FLOWS: usize = 240;

/// Datagrams of a flow that may wait for its stream.
const CAPSULES: usize = 64;

const _: () = assert!(MAX_FLOWS < MAX_STREAMS as usize);

/// All flows of one session.
#[derive(Debug, Default)]
pub struct Flows {
    flows: Mutex<HashMap<FlowId, Arc<Flow>>>,
    /// The channel of the peer connection in use.
    channel: RwLock<Option<Arc<DatagramChannel>>>,
    counters: Arc<Counters>,
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
            counters,
            ..Self::default()
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
    ) -> Option<(Registered, mpsc::Receiver<Bytes>)> {
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
    ) -> Option<(Registered, mpsc::Receiver<Bytes>)> {
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
        let sent = self.flow.try_send(payload, self.flows.channel()).await;
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
