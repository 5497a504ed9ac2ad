//! The local socket of a service that speaks UDP: a flow for each address that sends to it.
//!
//! Security: whoever can send to it has the rights of the link, so it is bound on loopback unless told otherwise.
//! A web page cannot make a browser send datagrams of its choice.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Request};
use http_body_util::BodyExt as _;
use portway_protocol::datagram::{FLOW_HEADER, FlowId, capsule};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::ClientError;
use crate::client::keeper::Current;
use crate::client::session::{RequestBody, Requests};
use crate::client::stream;
use crate::flows::counters::Loss;
use crate::flows::{BUFFER, Capsule, Counters, MAX_FLOWS, Outlet, Registered, capsules};
use crate::limits::Limits;

/// Time for which datagrams of an address are dropped after its flow was refused.
const REFUSED: Duration = Duration::from_secs(1);

/// Pause after the system could not give us a datagram.
const RECEIVE_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket.
pub struct UdpListener {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    limits: Limits,
}

/// Who has ended: the name tells one flow of an address from the next.
type Ended = (SocketAddr, FlowId);

/// What is running.
struct Running {
    socket: Arc<UdpSocket>,
    service: ServiceName,
    current: watch::Receiver<Current>,
    counters: Arc<Counters>,
    flows: HashMap<SocketAddr, Arc<Registered>>,
    /// The stream of each.
    streams: JoinSet<Ended>,
    /// Flows at a time.
    max_flows: usize,
    /// Silence after which one ends.
    idle_timeout: Duration,
}

impl UdpListener {
    /// Binds; nothing is served yet.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let socket = UdpSocket::bind(address).await?;
        // Before the runtime has asked the system, it takes the socket for one that is full.
        socket.writable().await?;
        Ok(Self {
            address: socket.local_addr()?,
            socket: Arc::new(socket),
            limits,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `service` over whatever session there is, until cancelled. What comes while there is none is
    /// dropped, and counted.
    pub async fn run(
        self,
        service: ServiceName,
        current: watch::Receiver<Current>,
        counters: Arc<Counters>,
        cancel: CancellationToken,
    ) {
        let wanted = usize::try_from(self.limits.connections.get());
        let running = Running {
            socket: self.socket,
            service,
            current,
            counters,
            flows: HashMap::new(),
            streams: JoinSet::new(),
            max_flows: wanted.map_or(MAX_FLOWS, |wanted| wanted.min(MAX_FLOWS)),
            idle_timeout: self.limits.flow_idle_timeout(),
        };
        cancel.run_until_cancelled(running.run()).await;
    }
}

impl Running {
    async fn run(mut self) {
        let socket = self.socket.clone();
        let mut buffer = vec![0; BUFFER];
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((len, source)) => self.forward(source, &buffer[..len]).await,
                    Err(error) => {
                        tracing::warn!(%error, "a local datagram could not be received");
                        tokio::time::sleep(RECEIVE_PAUSE).await;
                    }
                },
                // One that has panicked is forgotten when its address is needed.
                Some(Ok((source, id))) = self.streams.join_next() => {
                    let known = self.flows.get(&source);
                    if known.is_some_and(|known| known.flow().id() == id) {
                        self.flows.remove(&source);
                    }
                }
            }
        }
    }

    async fn forward(&mut self, source: SocketAddr, payload: &[u8]) {
        let flow = match self.flows.get(&source) {
            Some(flow) => Some(flow.clone()),
            None => self.open(source),
        };
        match flow {
            Some(flow) => flow.send(payload).await,
            None => self.counters.lost(Loss::NoPath),
        }
    }

    /// A flow for an address, if there is a session.
    fn open(&mut self, source: SocketAddr) -> Option<Arc<Registered>> {
        let (requests, flows) = {
            let current = self.current.borrow();
            (current.requests.clone()?, current.flows.clone()?)
        };
        if requests.is_closed() {
            return None;
        }
        if self.flows.len() >= self.max_flows {
            self.end_the_idlest();
        }
        let outlet = Outlet::To(self.socket.clone(), source);
        let (flow, said) = flows.open(outlet)?;
        let flow = Arc::new(flow);
        self.flows.insert(source, flow.clone());
        let (service, opened) = (self.service.clone(), flow.clone());
        let idle_timeout = self.idle_timeout;
        self.streams.spawn(async move {
            let id = flow.flow().id();
            let outcome = tokio::select! {
                outcome = converse(requests, &flow, said) => outcome,
                () = flow.flow().over(idle_timeout) => Ok(()),
            };
            if let Err(error) = outcome {
                let reason = error.reason();
                tracing::warn!(%service, %reason, %error, "a flow was cut off");
                if reason != Reason::SessionLost {
                    // Not again for each datagram.
                    tokio::time::sleep(REFUSED).await;
                }
            }
            (source, id)
        });
        Some(opened)
    }

    /// Makes room for another one.
    fn end_the_idlest(&mut self) {
        let idlest = self.flows.iter().min_by_key(|(_, it)| it.flow().active());
        if let Some(source) = idlest.map(|(source, _)| *source)
            && let Some(flow) = self.flows.remove(&source)
        {
            tracing::debug!(flow = %flow.flow().id(), "a flow gives way to a newer one");
            flow.flow().end();
        }
    }
}

/// Opens a flow at the gateway and takes what comes on its stream, until the gateway ends it.
async fn converse(
    mut requests: Requests,
    flow: &Registered,
    said: mpsc::Receiver<Capsule>,
) -> Result<(), ClientError> {
    let response = requests.send(request(flow.flow().id(), said)).await?;
    let mut body = stream::opened(response)?;
    flow.flow().known();
    let mut reader = capsule::Reader::default();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            flow.receive(&mut reader, &data);
        }
    }
    Ok(())
}

/// Asks for a flow; what is said already goes with it.
fn request(id: FlowId, said: mpsc::Receiver<Capsule>) -> Request<RequestBody> {
    let mut request = stream::opening(capsules(said).boxed_unsync());
    let headers = request.headers_mut();
    let value = HeaderValue::from_static(capsule::PROTOCOL_VALUE);
    headers.insert(capsule::PROTOCOL_HEADER, value);
    let id = HeaderValue::try_from(id.to_string());
    headers.insert(FLOW_HEADER, id.expect("digits are a value"));
    request
}
