//! What passes between our peer connection and the gateway's, by way of signaling.
//!
//! The contract of the loop: an owner awaits [`Exchange::event`], which may be cancelled, then calls
//! [`Exchange::handle`], which may not.
//!
//! What is connected does not need signaling any more: its socket serves to hear of the node as long as it
//! lasts, and a connection that takes this one's place brings its own.

use std::sync::Arc;
use std::time::Duration;

use portway_protocol::id::SessionId;
use portway_protocol::reason::Reason;
use portway_protocol::session::binding::Fingerprint;
use portway_protocol::session::introduction::Introduction;
use portway_protocol::session::party::Trust;
use portway_protocol::signal::{
    Answer, Bye, Call, Candidate, Envelope, Heartbeat, NodeStatus, Offer, SessionDescription,
    SignalError,
};
use portway_transport::webrtc::{Peer, PeerEvent, PeerEvents};
use tokio::time::Interval;

use super::{ClientError, Target};
use crate::session::unix_now;
use crate::signaling::connection::{Socket, SocketError};

/// Id of our offer.
const OFFER_ID: &str = "offer";

/// Id of our heartbeats.
const HEARTBEAT_ID: &str = "heartbeat";

/// Both ends of one session's introduction.
pub(super) struct Exchange {
    id: SessionId,
    target: Target,
    /// Until it is lost.
    socket: Option<Socket>,
    peer: Arc<Peer>,
    events: PeerEvents,
    heartbeats: Interval,
}

/// Something to handle.
pub(super) enum Event {
    Signaling(Result<Envelope, SocketError>),
    Peer(Option<PeerEvent>),
    Heartbeat,
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
            target,
            socket: Some(socket),
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
            event = self.events.recv() => Event::Peer(event),
            _tick = self.heartbeats.tick() => Event::Heartbeat,
        }
    }

    /// Does what an event asks for.
    ///
    /// # Errors
    /// The introduction has failed: it was refused, or signaling does not say what it should. What is
    /// connected goes on, see [`Exchange::hang_up`].
    pub(super) async fn handle(&mut self, event: Event) -> Result<News, ClientError> {
        match event {
            Event::Signaling(Ok(envelope)) => self.hear(envelope).await,
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

    /// Sends an offer.
    ///
    /// # Errors
    /// The socket is lost.
    pub(super) async fn offer(
        &mut self,
        description: SessionDescription,
    ) -> Result<(), ClientError> {
        let own = Fingerprint::of_description(&description.sdp)?;
        let credential = &self.target.address.credential;
        let holder = (&credential.grant, &credential.key);
        let offer = Call::Offer(Offer {
            session: self.id,
            service: self.target.address.site.service.clone(),
            node: self.target.node.clone(),
            grant: None,
            proof: self.introduction().sign_offer(holder, &own),
            description,
            ice_servers: Vec::new(),
        });
        match self.say(Some(OFFER_ID), &offer).await {
            News::SignalingLost(error) => Err(error.into()),
            News::Nothing
            | News::Answered
            | News::Connected
            | News::PeerEnded
            | News::NodeOffline
            | News::NodeOnline => Ok(()),
        }
    }

    /// Hears no more of signaling, which speaks for nobody but itself.
    pub(super) fn hang_up(&mut self) {
        self.socket = None;
    }

    /// Calls the introduction off.
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
                    Err(ClientError::Refused(error.reason()))
                }
                Some(_) | None => Ok(News::Nothing),
            };
        };
        match Call::from_parts(&method, envelope.params.as_deref()) {
            Ok(Call::Answer(answer)) if answer.session == self.id => {
                self.verify(&answer)?;
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
            Ok(Call::Revocations(list)) => {
                self.target.revocations.hear(&list);
                Ok(News::Nothing)
            }
            Ok(_) | Err(SignalError::Method) => Ok(News::Nothing),
            Err(SignalError::Params(_) | SignalError::Parse(_)) => {
                Err(SocketError::Violation.into())
            }
        }
    }

    fn verify(&self, answer: &Answer) -> Result<(), ClientError> {
        let revocations = self.target.revocations.get();
        let trust = Trust {
            cluster_key: self.target.address.credential.cluster_key,
            pinned: None,
            revocations: &revocations,
            node: self.target.node.as_ref(),
            binding: self.peer.bound_by(&answer.description)?,
            now: unix_now(),
        };
        self.introduction().verify_answer(answer, &trust)?;
        Ok(())
    }

    /// What we want.
    fn introduction(&self) -> Introduction<'_> {
        Introduction {
            cluster: &self.target.address.credential.cluster,
            service: &self.target.address.site.service,
            node: self.target.node.as_ref(),
            session: self.id,
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
