//! Peer connections that offers have started: one task each, from offer until no session uses it. A session
//! is known to signaling by the id of the introduction that brought its present channel.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portway_protocol::check::Check;
use portway_protocol::id::SessionId;
use portway_protocol::limits::{MAX_CANDIDATES, MAX_UNAUTHENTICATED};
use portway_protocol::reason::Reason;
use portway_protocol::session::binding::{Binding, Fingerprint};
use portway_protocol::session::introduction::Introduction;
use portway_protocol::session::party::Node;
use portway_protocol::signal::{
    Answer, Bye, Call, Candidate, Envelope, IceCandidate, Offer, SessionDescription,
};
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent, PeerEvents};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::order::Order;
use super::seen::Seen;
use crate::flows::{self, Flows};
use crate::session::{self, Arrival, Context, Identity, SessionError};

/// Sessions at a time, authenticated or not.
const MAX_SESSIONS: usize = 1024;

/// Time from the first offer to an open channel: ICE, DTLS, SCTP.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between looks at the path of a channel.
const LOOK_AT_PATH: Duration = Duration::from_secs(5);

/// A signaling service, by its place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Via(pub(crate) usize);

/// All peers of a gateway. What one signaling service has introduced, no other one can reach; limits
/// count all.
pub(super) type Table = Arc<Mutex<Introduced>>;

/// Whom signaling has introduced.
#[derive(Default)]
pub(super) struct Introduced {
    peers: HashMap<(Via, SessionId), Known>,
    seen: Seen,
}

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
    /// Cancelled by signaling, or whoever is behind it. Of no effect once they were let in.
    called_off: CancellationToken,
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
        let (service, grant) = (offer.service.clone(), offer.grant);
        self.take(offer).inspect_err(|reason| {
            let audit = &self.context.audit;
            audit.refused(Some(service), grant, *reason, None);
        })
    }

    fn take(&self, offer: Offer) -> Result<(), Reason> {
        if self.context.draining.is_cancelled() {
            return Err(Reason::Draining);
        }
        if self.context.services.get(&offer.service).is_none() {
            return Err(Reason::ServiceUnknown);
        }
        self.check(&offer)?;
        let (inbox, candidates) = mpsc::channel(MAX_CANDIDATES);
        let called_off = CancellationToken::new();
        {
            let mut introduced = self.lock();
            if !introduced.seen.is_first(offer.session) && Check::Replay.is_on() {
                return Err(Reason::OfferReplayed);
            }
            let peers = &mut introduced.peers;
            let waiting = peers.values().filter(|known| !known.authenticated).count();
            if waiting >= MAX_UNAUTHENTICATED || peers.len() >= MAX_SESSIONS {
                return Err(Reason::RateLimited);
            }
            let known = Known {
                inbox,
                called_off: called_off.clone(),
                authenticated: false,
            };
            match peers.entry((self.via, offer.session)) {
                Entry::Vacant(entry) => entry.insert(known),
                Entry::Occupied(_) => return Err(Reason::OfferReplayed),
            };
        }
        let task = PeerTask {
            session: offer.session,
            via: self.via,
            context: self.context.clone(),
            outgoing: self.outgoing.clone(),
            peers: self.peers.clone(),
            called_off,
        };
        drop(self.context.tasks.spawn(task.run(offer, candidates)));
        Ok(())
    }

    /// Whether the holder of a grant says so: nobody else makes us open a connection.
    fn check(&self, offer: &Offer) -> Result<(), Reason> {
        let identity = &self.context.identity;
        let named = Fingerprint::of_description(&offer.description.sdp);
        let client = named.map_err(|error| {
            tracing::warn!(session = %offer.session, %error, "an offer was refused");
            Reason::E2eAuthFailed
        })?;
        let grant = offer.grant.ok_or(Reason::GrantUnknown)?;
        let claims = self.context.claims(&grant, None, &offer.service)?;
        let proven = introduction(offer, identity).verify_offer(
            (&grant, &claims.cnf.ed25519),
            &client,
            &offer.proof,
        );
        let is_ours = offer
            .node
            .as_ref()
            .is_none_or(|node| *node == identity.node);
        if proven.is_err() || (!is_ours && Check::Node.is_on()) {
            tracing::warn!(session = %offer.session, "an offer is not its client's: signaling may have changed it");
            return Err(Reason::E2eAuthFailed);
        }
        Ok(())
    }

    pub(super) fn candidate(&self, candidate: Candidate) {
        let known = self
            .lock()
            .peers
            .get(&(self.via, candidate.session))
            .map(|known| known.inbox.clone());
        if let Some(inbox) = known
            && inbox.try_send(candidate.candidate).is_err()
        {
            tracing::debug!("a candidate was dropped");
        }
    }

    /// An introduction is called off. It may be signaling itself that says so: a session does not end by that.
    pub(super) fn bye(&self, bye: &Bye) {
        if let Some(known) = self.lock().peers.get(&(self.via, bye.session)) {
            known.called_off.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Introduced> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries the datagrams of a session for as long as its peer connection lasts.
async fn carry(peer: &Peer, flows: Arc<Flows>) {
    if let Ok(channel) = peer.open_datagrams().await {
        flows::carry(channel, flows).await;
    }
}

/// What an offer asks of us.
fn introduction<'a>(offer: &'a Offer, identity: &'a Identity) -> Introduction<'a> {
    Introduction {
        cluster: &identity.cluster,
        service: &offer.service,
        node: offer.node.as_ref(),
        session: offer.session,
    }
}

/// One peer, from offer to end.
struct PeerTask {
    session: SessionId,
    via: Via,
    context: Arc<Context>,
    outgoing: mpsc::Sender<Envelope>,
    peers: Table,
    called_off: CancellationToken,
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
            Ok((peer, description, events)) => {
                if let Some(binding) = peer.binding() {
                    self.answer(&offer, description, &binding);
                    let asks = !offer.ice_servers.is_empty();
                    self.converse(&peer, binding, events, candidates, asks)
                        .await;
                }
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

    fn answer(&self, offer: &Offer, description: SessionDescription, binding: &Binding) {
        let identity = &self.context.identity;
        let certificate = identity.certificate();
        let node = Node {
            cluster: &identity.cluster,
            id: &identity.node,
            certificate: certificate.shown(),
            key: &identity.key,
        };
        let proof = introduction(offer, identity).sign_answer(&node, binding);
        self.say(Call::Answer(Answer {
            session: self.session,
            description,
            node: identity.node.clone(),
            certificate: certificate.token.clone(),
            rotations: certificate.rotations.clone(),
            proof,
        }));
    }

    /// Candidates both ways while the session runs. `asks`: whether a server tells us our address as
    /// others see it.
    async fn converse(
        &self,
        peer: &Peer,
        binding: Binding,
        mut events: PeerEvents,
        mut candidates: mpsc::Receiver<Option<IceCandidate>>,
        asks: bool,
    ) {
        let session = self.session(peer, binding);
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

    /// From an open channel to the end of its use.
    async fn session(&self, peer: &Peer, binding: Binding) {
        let arrival = tokio::select! {
            arrival = self.arrival(peer, binding) => arrival,
            () = self.called_off.cancelled() => None,
        };
        let Some(arrival) = arrival else {
            return;
        };
        {
            let mut introduced = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let known = introduced.peers.get_mut(&(self.via, self.session));
            known.expect("known until this task ends").authenticated = true;
        }
        let entry = arrival.entry();
        tokio::select! {
            () = arrival.serve(&self.context, |flows| carry(peer, flows)) => {}
            () = self.look(peer, &entry) => {}
        }
        tracing::debug!(session = %self.session, "a channel is no more used");
    }

    /// Keeps in sight by which path the channel goes: ICE may choose another, or learn late what an address is.
    async fn look(&self, peer: &Peer, entry: &session::table::Entry) {
        let mut looks = tokio::time::interval(LOOK_AT_PATH);
        loop {
            looks.tick().await;
            if let Some(path) = peer.path().await {
                entry.reached(&self.session, path);
            }
        }
    }

    /// Waits for the channel, and for who proves to be let in.
    async fn arrival(&self, peer: &Peer, binding: Binding) -> Option<Arrival> {
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPEN_TIMEOUT, peer.open()) => opened,
            () = self.context.draining.cancelled() => return None,
        };
        let Ok(Ok(channel)) = opened else {
            tracing::info!(session = %self.session, "no path to a client");
            return None;
        };
        let path = peer.path().await;
        match session::admit(&self.context, channel, binding, path).await {
            Ok(arrival) => return Some(arrival),
            Err(SessionError::Refused(reason)) => {
                tracing::info!(session = %self.session, %reason, "a client was refused");
            }
            Err(error) => tracing::info!(session = %self.session, %error, "no session"),
        }
        None
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
            .peers
            .remove(&(self.via, self.session));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use portway_protocol::id::GrantId;
    use portway_protocol::key::SigningKey;
    use portway_protocol::secret::Secret;
    use serde_json::json;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::audit::{Event, Log};
    use crate::grants::{Grants, Issuers};
    use crate::revocations::KnownRevocations;
    use crate::service::Services;
    use crate::session::Audit;

    #[tokio::test]
    async fn an_offer_that_is_refused_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_seed(&Secret::new([3; 32]));
        let log = Log::open(dir.path(), "nas".parse().unwrap(), key.clone()).unwrap();
        let mut follower = log.follow();
        let cluster: portway_protocol::id::ClusterName = "home".parse().unwrap();
        let grants = dir.path().join("grants.json");
        let context = Context {
            grants: Grants::open(
                &grants,
                cluster.clone(),
                Issuers::new([key.public()], &[]),
                0,
            )
            .unwrap(),
            revocations: KnownRevocations::new(cluster.clone(), key.public()),
            identity: Identity {
                cluster,
                node: "nas".parse().unwrap(),
                key,
                certificate: RwLock::default(),
            },
            services: Services::default(),
            table: session::table::Table::default(),
            audit: Audit::new(log),
            shortcut: None,
            suspicion: tokio::sync::watch::Sender::default(),
            stream_relays: Arc::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        };
        let (outgoing, _said) = mpsc::channel(1);
        let peers = Peers::new(Arc::new(context), Via(0), Table::default(), outgoing);
        let grant = GrantId::from_bytes([7; 9]);
        let offer = json!({
            "session": SessionId::from_bytes([1; 16]), "service": "lab", "grant": grant,
            "description": {"type": "offer", "sdp": "v=0"},
            "proof": portway_protocol::key::Signature::from_bytes([0; 64]),
        });
        let refused = peers.offer(serde_json::from_value(offer).unwrap());
        assert_eq!(refused, Err(Reason::ServiceUnknown));
        let recorded = Event::SessionRefused {
            service: Some("lab".parse().unwrap()),
            grant: Some(grant),
            reason: Reason::ServiceUnknown,
            route: None,
            unrecorded: 0,
        };
        assert_eq!(follower.recv().await.unwrap().record.event, recorded);
    }
}
