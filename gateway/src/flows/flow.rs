//! One flow: its local socket on one side, channel or stream on the other. Hot path.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::StreamBody;
use hyper::body::Frame;
use portway_protocol::datagram::{self, FlowId, capsule};
use portway_transport::webrtc::DatagramChannel;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Loss, Way};
use crate::limits::activity::Activity;

/// Where what comes of a flow goes.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// To whom the socket is connected.
    Connected(Arc<UdpSocket>),
    /// To one of many.
    To(Arc<UdpSocket>, SocketAddr),
}

/// One flow of a session.
#[derive(Debug)]
pub(crate) struct Flow {
    id: FlowId,
    outlet: Outlet,
    capsules: mpsc::Sender<Capsule>,
    /// Whether the other end knows of it: until then, what is said goes behind the request that opens it.
    is_known: AtomicBool,
    activity: Activity,
    ended: CancellationToken,
}

impl Flow {
    pub(super) fn new(id: FlowId, outlet: Outlet, capsules: mpsc::Sender<Capsule>) -> Self {
        Self {
            id,
            outlet,
            capsules,
            is_known: AtomicBool::new(false),
            activity: Activity::begin(),
            ended: CancellationToken::new(),
        }
    }

    pub(crate) const fn id(&self) -> FlowId {
        self.id
    }

    /// The other end knows of it.
    pub(crate) fn known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Ends it.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// When something went either way.
    pub(crate) fn active(&self) -> Instant {
        self.activity.last()
    }

    /// Waits until somebody ends it, or nothing went either way for so long.
    pub(crate) async fn over(&self, idle_timeout: Duration) {
        let ended = self.ended.cancelled();
        if let Err(idle) = self.activity.unless_idle(Some(idle_timeout), ended).await {
            tracing::debug!(flow = %self.id, %idle, "a flow has ended");
        }
    }

    /// Sends a datagram to the other end, now or not at all.
    pub(super) async fn try_send(
        &self,
        payload: &[u8],
        channel: Option<Arc<DatagramChannel>>,
        room: &Arc<Semaphore>,
    ) -> Result<Way, Loss> {
        self.activity.note();
        let too_large = |_| Loss::TooLarge;
        match channel {
            Some(channel) if self.is_known.load(Ordering::Relaxed) => {
                let message = datagram::encode(self.id, payload).map_err(too_large)?;
                channel.try_send(message).await?;
                Ok(Way::Channel)
            }
            Some(_) | None => {
                let capsule = capsule::encode(payload).map_err(too_large)?;
                let bytes = u32::try_from(capsule.len()).map_err(|_| Loss::TooLarge)?;
                let space = room.clone().try_acquire_many_owned(bytes);
                let space = space.map_err(|_| Loss::QueueFull)?;
                let queued = self.capsules.try_send(Capsule(capsule, space));
                queued.map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => Loss::QueueFull,
                    mpsc::error::TrySendError::Closed(_) => Loss::NoPath,
                })?;
                Ok(Way::Stream)
            }
        }
    }

    /// Hands a datagram of the other end to the local socket, now or not at all.
    pub(super) fn deliver(&self, payload: &[u8], counters: &Counters) {
        self.activity.note();
        let mut sent = self.outlet.try_send(payload);
        if is_refusal(&sent) {
            // That of an earlier datagram: it is told in place of sending this one.
            counters.lost(Loss::Refused);
            sent = self.outlet.try_send(payload);
        }
        match sent {
            Ok(_) => counters.received(payload),
            Err(error) if error.kind() == ErrorKind::WouldBlock => counters.lost(Loss::QueueFull),
            Err(error) => {
                tracing::debug!(flow = %self.id, %error, "a datagram could not be delivered");
                counters.lost(Loss::NoPath);
            }
        }
    }
}

impl Outlet {
    fn try_send(&self, payload: &[u8]) -> io::Result<usize> {
        match self {
            Self::Connected(socket) => socket.try_send(payload),
            Self::To(socket, address) => socket.try_send_to(payload, *address),
        }
    }
}

/// Whether a socket tells that nobody was there for an earlier datagram.
pub(crate) fn is_refusal<T>(outcome: &io::Result<T>) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// A capsule that waits for a stream, with the room that it takes.
#[derive(Debug)]
pub(crate) struct Capsule(Bytes, OwnedSemaphorePermit);

/// The body of a request or a response: what a flow says on its stream.
pub(crate) fn capsules<E>(
    said: mpsc::Receiver<Capsule>,
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, E>>> {
    let said = futures_util::stream::unfold(said, async |mut said| {
        let Capsule(capsule, _space) = said.recv().await?;
        Some((capsule, said))
    });
    StreamBody::new(said.map(|capsule| Ok(Frame::data(capsule))))
}
