//! What passes between our peer connection and the gateway's, by way of signaling.
//!
//! The contract of the loop: an owner awaits [`Exchange::event`], which may be cancelled, then calls
//! [`Exchange::handle`], which may not.
//!
//! While the session's path is silent the owner calls [`Exchange::restart`] again and again. The socket
//! may have been on the same path: it must answer soon then, or another one takes its place.

use std::sync::Arc;
use std::time::Duration;

use portway_protocol::id::{NodeId, SessionId};
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Bye, Call, Candidate, Envelope, Generation, Heartbeat, IceServer, NodeStatus, Offer,
    SessionDescription,
};
use portway_transport::webrtc::{Peer, PeerEvent, PeerEvents};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval};

use super::connect::meet;
use super::{ClientError, Target};
use crate::signaling::connection::{Socket, SocketError};
use crate::signaling::{PROBE_PATIENCE, until};

/// Id of our offer.
const OFFER_ID: &str = "offer";

/// Id of our heartbeats.
const HEARTBEAT_ID: &str = "heartbeat";

/// Time for a new socket; another one may do better.
const SOCKET_PATIENCE: Duration = Duration::from_secs(4);

/// How long a node may be away from signaling before its session is given up: a new one may find another.
const NODE_PATIENCE: Duration = Duration::from_secs(12);

type Met = Result<(Socket, Duration, Vec<IceServer>), SocketError>;

/// Both ends of one session's introduction.
pub(super) struct Exchange {
    id: SessionId,
    target: Target,
    /// The node that has the session, once there is one.
    node: Option<NodeId>,
    generation: Generation,
    /// Since when another path is looked for.
    silent: Option<Instant>,
    /// Until it is lost.
    socket: Option<Socket>,
    /// When it must have answered.
    probe: Option<Instant>,
    /// One to take its place.
    meeting: JoinSet<Met>,
    peer: Arc<Peer>,
    events: PeerEvents,
    heartbeats: Interval,
}

/// Something to handle.
pub(super) enum Event {
    Signaling(Result<Envelope, SocketError>),
    Peer(Option<PeerEvent>),
    Heartbeat,
    Met(Met),
    Unanswered,
}

/// What an event means to the owner.
pub(super) enum News {
    Nothing,
    /// The gateway's answer is applied.
    Answered,
    /// Packets flow.
    Connected,
    /// The peer connection is over.
    PeerEnded,
    /// A node of the service has gone.
    NodeOffline,
    /// One has come, maybe the same by another socket.
    NodeOnline,
    /// The socket is closed; what is connected stays so.
    SignalingLost(SocketError),
}

impl Exchange {
    pub(super) fn new(
        id: SessionId,
        target: Target,
        socket: Socket,
        (peer, events): (Peer, PeerEvents),
        heartbeat: Duration,
    ) -> Self {
        let mut heartbeats = tokio::time::interval(heartbeat);
        heartbeats.reset();
        Self {
            id,
            node: target.node.clone(),
            target,
            generation: Generation::FIRST,
            silent: None,
            socket: Some(socket),
            probe: None,
            meeting: JoinSet::new(),
            peer: Arc::new(peer),
            events,
            heartbeats,
        }
    }

    /// The next event. Nothing is lost if this is cancelled.
    pub(super) async fn event(&mut self) -> Event {
        let socket = &mut self.socket;
        let heard = async {
            match socket {
                Some(socket) => socket.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => Event::Signaling(heard),
            Some(met) = self.meeting.join_next() => {
                Event::Met(met.unwrap_or(Err(SocketError::Closed)))
            }
            () = until(self.probe) => Event::Unanswered,
            event = self.events.recv() => Event::Peer(event),
            _tick = self.heartbeats.tick() => Event::Heartbeat,
        }
    }

    /// Does what an event asks for.
    ///
    /// # Errors
    /// The other end refused, or has ended the session.
    pub(super) async fn handle(&mut self, event: Event) -> Result<News, ClientError> {
        match event {
            Event::Signaling(Ok(envelope)) => {
                self.probe = None;
                self.hear(envelope).await
            }
            Event::Unanswered => {
                self.meet();
                Ok(News::Nothing)
            }
            Event::Met(met) => {
                match met {
                    Ok((socket, ..)) => self.socket = Some(socket),
                    Err(error) => tracing::debug!(%error, "signaling is not reached"),
                }
                if self.socket.is_some() && self.silent.is_some() {
                    self.restart().await?;
                }
                Ok(News::Nothing)
            }
            Event::Signaling(Err(error)) => Ok(self.lose(error)),
            Event::Heartbeat => {
                let call = Call::Heartbeat(Heartbeat {});
                Ok(self.say(Some(HEARTBEAT_ID), &call).await)
            }
            Event::Peer(Some(PeerEvent::Candidate(candidate))) => {
                let session = self.id;
                let call = Call::Candidate(Candidate { session, candidate });
                Ok(self.say(None, &call).await)
            }
            Event::Peer(Some(PeerEvent::Connected)) => Ok(News::Connected),
            Event::Peer(Some(PeerEvent::Disconnected)) => {
                tracing::info!("path silent");
                Ok(News::Nothing)
            }
            Event::Peer(Some(PeerEvent::Ended) | None) => Ok(News::PeerEnded),
        }
    }

    /// The session is with this node.
    pub(super) fn is_with(&mut self, node: NodeId) {
        self.node = Some(node);
    }

    /// The path is silent: looks for another one.
    ///
    /// # Errors
    /// Our own end fails.
    pub(super) async fn restart(&mut self) -> Result<(), ClientError> {
        self.silent.get_or_insert_with(Instant::now);
        if self.socket.is_none() {
            self.meet();
            return Ok(());
        }
        self.generation = self.generation.next();
        let description = self.peer.restart().await?;
        if let Err(error) = self.offer(description).await {
            tracing::debug!(%error, "signaling is lost");
            self.meet();
            return Ok(());
        }
        self.probe
            .get_or_insert_with(|| Instant::now() + PROBE_PATIENCE);
        Ok(())
    }

    /// Something came by the path. Whether it was silent.
    pub(super) fn recovered(&mut self) -> bool {
        self.probe = None;
        self.silent.take().is_some()
    }

    /// Whether nothing comes by the path.
    pub(super) const fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// Sends an offer.
    ///
    /// # Errors
    /// The socket is lost.
    pub(super) async fn offer(
        &mut self,
        description: SessionDescription,
    ) -> Result<(), SocketError> {
        let offer = Call::Offer(Offer {
            session: self.id,
            service: self.target.address.service.clone(),
            node: self.node.clone(),
            generation: self.generation,
            grant: None,
            description,
            ice_servers: Vec::new(),
        });
        match self.say(Some(OFFER_ID), &offer).await {
            News::SignalingLost(error) => Err(error),
            News::Nothing
            | News::Answered
            | News::Connected
            | News::PeerEnded
            | News::NodeOffline
            | News::NodeOnline => Ok(()),
        }
    }

    /// Takes another socket.
    fn meet(&mut self) {
        self.socket = None;
        self.probe = None;
        if self.meeting.is_empty() {
            let (target, id) = (self.target.clone(), self.id);
            self.meeting.spawn(async move {
                tokio::time::timeout(SOCKET_PATIENCE, meet(&target, id))
                    .await
                    .unwrap_or(Err(SocketError::Timeout))
            });
        }
    }

    /// Whether a refused offer may succeed later.
    fn may_come_back(&self, reason: Reason) -> bool {
        let is_new = self
            .silent
            .is_none_or(|since| since.elapsed() < NODE_PATIENCE);
        !self.generation.is_first() && reason != Reason::SessionLost && is_new
    }

    /// Says goodbye by every way there is, and ends.
    pub(super) async fn leave(mut self, reason: Reason) {
        let session = self.id;
        let bye = Call::Bye(Bye { session, reason });
        if let News::SignalingLost(error) = self.say(None, &bye).await {
            tracing::debug!(%error, "nobody heard our goodbye");
        }
        self.peer.close().await;
    }

    /// Our end of the connection.
    pub(super) fn peer(&self) -> Arc<Peer> {
        self.peer.clone()
    }

    async fn hear(&self, envelope: Envelope) -> Result<News, ClientError> {
        let Some(method) = envelope.method else {
            return match envelope.error {
                Some(error) if envelope.id.as_deref() == Some(OFFER_ID) => {
                    let reason = error.reason();
                    if self.may_come_back(reason) {
                        return Ok(News::Nothing);
                    }
                    Err(ClientError::Refused(reason))
                }
                Some(_) | None => Ok(News::Nothing),
            };
        };
        match Call::from_parts(&method, envelope.params.as_deref()) {
            Ok(Call::Answer(answer))
                if answer.session == self.id && answer.generation == self.generation =>
            {
                self.peer.accept_answer(&answer.description).await?;
                Ok(News::Answered)
            }
            Ok(Call::Candidate(candidate)) if candidate.session == self.id => {
                let candidate = candidate.candidate;
                if let Err(error) = self.peer.add_candidate(candidate.as_ref()).await {
                    tracing::debug!(%error, "a candidate of the gateway was refused");
                }
                Ok(News::Nothing)
            }
            Ok(Call::Bye(bye)) if bye.session == self.id => Err(ClientError::Refused(bye.reason)),
            Ok(Call::Presence(presence)) if presence.status == NodeStatus::Offline => {
                Ok(News::NodeOffline)
            }
            Ok(Call::Presence(_)) => Ok(News::NodeOnline),
            Ok(_) | Err(_) => Ok(News::Nothing),
        }
    }

    async fn say(&mut self, id: Option<&str>, call: &Call) -> News {
        let Some(socket) = &mut self.socket else {
            return News::Nothing;
        };
        let envelope = Envelope::call(id.map(str::to_owned), call);
        match socket.send(&envelope).await {
            Ok(()) => News::Nothing,
            Err(error) => self.lose(error),
        }
    }

    fn lose(&mut self, error: SocketError) -> News {
        self.socket = None;
        News::SignalingLost(error)
    }
}
