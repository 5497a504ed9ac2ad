//! Peer connections that offers have started: one task each, from offer until no session uses it. A session
//! is known to signaling by the id of the introduction that brought its present channel.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portway_protocol::id::SessionId;
use portway_protocol::limits::{HANDSHAKE_TIMEOUT, MAX_CANDIDATES, MAX_UNAUTHENTICATED};
use portway_protocol::reason::Reason;
use portway_protocol::signal::{Answer, Bye, Call, Candidate, Envelope, IceCandidate, Offer};
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent, PeerEvents};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::order::Order;
use crate::session::{self, Context, SessionError};

/// Sessions at a time, authenticated or not.
const MAX_SESSIONS: usize = 1024;

/// Time from the first offer to an open channel: ICE, DTLS, SCTP.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// A signaling service, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Via(pub(super) usize);

/// All peers of a gateway. What one signaling service has introduced, no other one can reach; limits
/// count all.
pub(super) type Table = Arc<Mutex<HashMap<(Via, SessionId), Known>>>;

/// The peers that come through one signaling service.
pub(super) struct Peers {
    context: Arc<Context>,
    via: Via,
    outgoing: mpsc::Sender<Envelope>,
    peers: Table,
}

/// The way to a peer's task.
pub(super) struct Known {
    inbox: mpsc::Sender<Option<IceCandidate>>,
    ended: CancellationToken,
    authenticated: bool,
}

impl Peers {
    pub(super) fn new(
        context: Arc<Context>,
        via: Via,
        peers: Table,
        outgoing: mpsc::Sender<Envelope>,
    ) -> Self {
        Self {
            context,
            via,
            outgoing,
            peers,
        }
    }

    /// Through which signaling service they come.
    pub(super) const fn via(&self) -> Via {
        self.via
    }

    /// A new peer. The answer follows as a notification.
    pub(super) fn offer(&self, offer: Offer) -> Result<(), Reason> {
        if self.context.draining.is_cancelled() {
            return Err(Reason::Draining);
        }
        if self.context.services.get(&offer.service).is_none() {
            return Err(Reason::ServiceUnknown);
        }
        let (inbox, candidates) = mpsc::channel(MAX_CANDIDATES);
        let ended = CancellationToken::new();
        {
            let mut peers = self.lock();
            let waiting = peers.values().filter(|known| !known.authenticated).count();
            if waiting >= MAX_UNAUTHENTICATED || peers.len() >= MAX_SESSIONS {
                return Err(Reason::RateLimited);
            }
            let known = Known {
                inbox,
                ended: ended.clone(),
                authenticated: false,
            };
            match peers.entry((self.via, offer.session)) {
                Entry::Vacant(entry) => entry.insert(known),
                Entry::Occupied(_) => return Err(Reason::PermissionDenied),
            };
        }
        let task = PeerTask {
            session: offer.session,
            via: self.via,
            context: self.context.clone(),
            outgoing: self.outgoing.clone(),
            peers: self.peers.clone(),
            ended,
        };
        drop(self.context.tasks.spawn(task.run(offer, candidates)));
        Ok(())
    }

    pub(super) fn candidate(&self, candidate: Candidate) {
        let known = self
            .lock()
            .get(&(self.via, candidate.session))
            .map(|known| known.inbox.clone());
        if let Some(inbox) = known
            && inbox.try_send(candidate.candidate).is_err()
        {
            tracing::debug!("a candidate was dropped");
        }
    }

    pub(super) fn bye(&self, bye: &Bye) {
        match self.lock().get(&(self.via, bye.session)) {
            Some(known) => known.ended.cancel(),
            // The connection's own end was here first.
            None => self.context.table.goodbye(&bye.session),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Via, SessionId), Known>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One peer, from offer to end.
struct PeerTask {
    session: SessionId,
    via: Via,
    context: Arc<Context>,
    outgoing: mpsc::Sender<Envelope>,
    peers: Table,
    ended: CancellationToken,
}

impl PeerTask {
    async fn run(self, offer: Offer, candidates: mpsc::Receiver<Option<IceCandidate>>) {
        let config = PeerConfig {
            ice_servers: offer.ice_servers.clone(),
            shortcut: self.context.shortcut.clone(),
            stream_relays: self.context.stream_relays.clone(),
            ..PeerConfig::default()
        };
        match Peer::answer(&config, &offer.description).await {
            Ok((peer, answer, events)) => {
                self.say(Call::Answer(Answer {
                    session: self.session,
                    description: answer,
                }));
                let asks = !offer.ice_servers.is_empty();
                self.converse(&peer, events, candidates, asks).await;
                peer.close().await;
            }
            Err(error) => {
                tracing::warn!(session = %self.session, %error, "an offer could not be answered");
                self.say(Call::Bye(Bye {
                    session: self.session,
                    reason: Reason::IceFailed,
                }));
            }
        }
    }

    /// Candidates both ways while the session runs. `asks`: whether a server tells us our address as
    /// others see it.
    async fn converse(
        &self,
        peer: &Peer,
        mut events: PeerEvents,
        mut candidates: mpsc::Receiver<Option<IceCandidate>>,
        asks: bool,
    ) {
        let session = self.session(peer);
        tokio::pin!(session);
        let started = Instant::now();
        let mut order = Order::new(asks, Duration::ZERO);
        loop {
            while let Some(candidate) = order.pop() {
                self.say(Call::Candidate(Candidate {
                    session: self.session,
                    candidate,
                }));
            }
            let deadline = order.deadline();
            let release = tokio::time::sleep_until(started + deadline.unwrap_or_default());
            tokio::select! {
                () = release, if deadline.is_some() => order.release(),
                () = &mut session => return,
                () = self.ended.cancelled() => return,
                Some(candidate) = candidates.recv() => {
                    if let Err(error) = peer.add_candidate(candidate.as_ref()).await {
                        tracing::info!(session = %self.session, %error, "a candidate of a client was refused");
                    }
                }
                Some(event) = events.recv() => match event {
                    PeerEvent::Candidate(candidate) => order.push(candidate),
                    PeerEvent::Connected => tracing::debug!(session = %self.session, "connected"),
                    PeerEvent::Disconnected => tracing::info!(session = %self.session, "path silent"),
                    PeerEvent::Ended => return,
                },
            }
        }
    }

    async fn session(&self, peer: &Peer) {
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPEN_TIMEOUT, peer.open()) => opened,
            () = self.context.draining.cancelled() => return,
        };
        let Ok(Ok(channel)) = opened else {
            tracing::info!(session = %self.session, "no path to a client");
            return;
        };
        let Some(binding) = peer.binding() else {
            return;
        };
        let path = peer.path().await;
        let ended = self.ended.clone();
        let run = session::run(self.context.clone(), channel, binding, path, ended);
        tokio::pin!(run);
        let outcome = tokio::select! {
            outcome = &mut run => outcome,
            () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => {
                // Whoever is still here has authenticated; the session enforces that itself.
                if let Some(known) = self.peers.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&(self.via, self.session)) {
                    known.authenticated = true;
                }
                run.await
            }
        };
        match outcome {
            Ok(()) => tracing::debug!(session = %self.session, "a channel is no more used"),
            Err(SessionError::Refused(reason)) => {
                tracing::info!(session = %self.session, %reason, "a client was refused");
            }
            Err(error) => tracing::info!(session = %self.session, %error, "no session"),
        }
    }

    /// Queues a notification. While signaling is away the queue fills up, and then nobody is there
    /// to read it anyway.
    fn say(&self, call: Call) {
        let queued = self.outgoing.try_send(Envelope::call(None, &call));
        if queued.is_err() {
            tracing::debug!(session = %self.session, "signaling is away; a message was dropped");
        }
    }
}

impl Drop for PeerTask {
    fn drop(&mut self) {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(self.via, self.session));
    }
}
