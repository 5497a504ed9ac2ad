//! Who is online, what they offer, and who talks to whom.
//!
//! All of it lives in memory behind one lock that is never held across an await: a socket that
//! closes takes its entries with it, so there is nothing to expire but nodes that fell silent. Nodes
//! that are away are known from the [store](crate::store).
//!
//! Epochs fence a node: the gateway process that started last wins, the other is closed as replaced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use portway_protocol::id::{GrantId, NodeId, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::NODE_LEASE;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::RevocationList;
use portway_protocol::signal::news::{NodeEvent, Paths};
use portway_protocol::signal::{
    Announce, AnnouncedGrant, AnnouncedService, Call, Envelope, NodeStatus, Offer, Presence,
    RpcError,
};
use serde::Serialize;

use crate::bus::{Bus, Outgoing, SocketId};
use crate::news::News;
use crate::store::{ClientEvent, Event, KnownNode, MAX_KNOWN_NODES, Recorder};

/// Sessions that one client may have introduced at a time.
pub const MAX_SESSIONS_PER_CLIENT: usize = 64;

/// The way to a socket. One that does not read fast enough loses messages and is closed by its own
/// task, see `socket`.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// The socket.
    pub id: SocketId,
    /// What carries messages to it.
    pub bus: Arc<dyn Bus>,
}

impl Outbox {
    /// Queues a message without waiting.
    pub fn send(&self, envelope: &Envelope) {
        if let Err(error) = self.bus.send(self.id, Outgoing::Text(envelope.to_text())) {
            tracing::debug!(%error, "a message was dropped");
        }
    }

    fn close(&self, reason: Reason) {
        if let Err(error) = self.bus.send(self.id, Outgoing::Close(reason)) {
            tracing::debug!(%error, "a socket cannot be closed");
        }
    }
}

/// A node as others see it.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// Its name.
    pub node: NodeId,
    /// Its state.
    pub status: NodeStatus,
    /// Version of its gateway.
    pub version: String,
    /// Commit of its gateway.
    pub commit: String,
    /// Seconds since it came online; 0 if it is not.
    pub online_s: u64,
    /// Seconds since its last sign of life.
    pub heartbeat_age_s: u64,
    /// What it offers.
    pub services: Vec<AnnouncedService>,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    entries: Mutex<Entries>,
    recorder: Recorder,
    news: News,
}

#[derive(Debug, Default)]
struct Entries {
    nodes: HashMap<NodeId, Node>,
    /// What nodes announced last, whether or not they are there.
    known: HashMap<NodeId, KnownNode>,
    clients: HashMap<SocketId, Client>,
    sessions: HashMap<SessionId, Session>,
}

#[derive(Debug)]
struct Node {
    outbox: Outbox,
    /// Its key.
    key: PublicKey,
    announced: Announce,
    since: Instant,
    heartbeat: Instant,
}

#[derive(Debug)]
struct Client {
    outbox: Outbox,
    watching: Vec<ServiceName>,
}

#[derive(Debug)]
struct Session {
    client: SocketId,
    /// Of the client: another socket that has proved it may go on in its place.
    node: NodeId,
    /// Id of the client's request that the gateway has not answered yet.
    pending: Option<String>,
}

impl Node {
    fn status(&self, now: Instant) -> NodeStatus {
        if now.saturating_duration_since(self.heartbeat) > NODE_LEASE {
            NodeStatus::Offline
        } else {
            self.announced.status
        }
    }

    fn offers(&self, service: &ServiceName) -> bool {
        self.announced.services.iter().any(|s| s.name == *service)
    }

    fn knows(&self, grant: &GrantId) -> bool {
        self.announced.grants.iter().any(|it| it.id == *grant)
    }

    fn view(&self, name: &NodeId, now: Instant) -> NodeView {
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        NodeView {
            node: name.clone(),
            status: self.status(now),
            version: self.announced.version.clone(),
            commit: self.announced.commit.clone(),
            online_s: age(self.since),
            heartbeat_age_s: age(self.heartbeat),
            services: self.announced.services.clone(),
        }
    }
}

impl KnownNode {
    fn offers(&self, service: &ServiceName) -> bool {
        self.announced.services.iter().any(|s| s.name == *service)
    }

    fn view(&self, unix_now: u64) -> NodeView {
        NodeView {
            node: self.node.clone(),
            status: NodeStatus::Offline,
            version: self.announced.version.clone(),
            commit: self.announced.commit.clone(),
            online_s: 0,
            heartbeat_age_s: unix_now.saturating_sub(self.seen),
            services: self.announced.services.clone(),
        }
    }
}

impl Registry {
    /// Nobody is online; `known` were once.
    #[must_use]
    pub fn new(known: Vec<KnownNode>, recorder: Recorder) -> Self {
        let known = known.into_iter().map(|node| (node.node.clone(), node));
        let entries = Entries {
            known: known.collect(),
            ..Entries::default()
        };
        Self {
            entries: Mutex::new(entries),
            recorder,
            news: News::default(),
        }
    }

    /// What was stored, and will be.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Who is told what happens to nodes.
    pub(crate) const fn news(&self) -> &News {
        &self.news
    }

    /// Writes down and tells what has happened to a node.
    fn tell(&self, event: NodeEvent) {
        if event.is_kept() {
            self.recorder.event(Event::Node(event.clone()));
        }
        self.news.tell(event);
    }

    /// All nodes, by name, those that are away included.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let (now, unix_now) = (Instant::now(), unix_now());
        let entries = self.lock();
        let away = entries
            .known
            .values()
            .filter(|known| !entries.nodes.contains_key(&known.node))
            .map(|known| known.view(unix_now));
        let mut views: Vec<NodeView> = entries
            .nodes
            .iter()
            .map(|(name, node)| node.view(name, now))
            .chain(away)
            .collect();
        views.sort_by(|a, b| a.node.cmp(&b.node));
        views
    }

    /// Nodes that hold a socket.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().nodes.len()
    }

    /// The grant of an id, if an online node announced it and it is not past `unix_now`.
    ///
    /// # Errors
    /// Why nobody can be let in with it.
    pub fn grant(&self, id: &GrantId, unix_now: u64) -> Result<AnnouncedGrant, Reason> {
        let now = Instant::now();
        let entries = self.lock();
        let is_it = |grant: &&AnnouncedGrant| grant.id == *id;
        let online = entries
            .nodes
            .values()
            .filter(|node| node.status(now) != NodeStatus::Offline)
            .flat_map(|node| &node.announced.grants)
            .find(is_it);
        let known = || {
            let known = entries.known.values();
            known.flat_map(|node| &node.announced.grants).find(is_it)
        };
        match online.or_else(known) {
            Some(grant) if grant.expires <= unix_now => Err(Reason::GrantExpired),
            Some(grant) if online.is_some() => Ok(grant.clone()),
            Some(_) => Err(Reason::NodeOffline),
            // Before the first node has come, nobody can tell a wrong link from an early one.
            None if entries.known.is_empty() && entries.nodes.is_empty() => {
                Err(Reason::NodeOffline)
            }
            None => Err(Reason::GrantUnknown),
        }
    }

    /// A node, by the key that it has proven, says what it offers. `false` if a newer process of the same node is there.
    pub fn announce(
        &self,
        (name, key): (&NodeId, PublicKey),
        outbox: &Outbox,
        announced: Announce,
    ) -> bool {
        let now = Instant::now();
        let mut entries = self.lock();
        let known = KnownNode {
            node: name.clone(),
            announced: announced.clone(),
            seen: unix_now(),
        };
        let before: Vec<ServiceName> = match entries.nodes.get_mut(name) {
            Some(node) if node.outbox.id == outbox.id => {
                if node.announced.status != announced.status {
                    let (node, status) = (name.clone(), announced.status);
                    self.tell(NodeEvent::NodeStatus { node, status });
                }
                let before = node.announced.services.iter().map(|s| s.name.clone());
                let before = before.collect();
                node.announced = announced;
                node.heartbeat = now;
                before
            }
            Some(node) if node.announced.epoch > announced.epoch => return false,
            replaced => {
                let node = name.clone();
                let is_replaced = replaced.is_some();
                if let Some(old) = replaced {
                    old.outbox.close(Reason::Replaced);
                }
                if !entries.known.contains_key(name) {
                    self.tell(NodeEvent::NodeJoined { node: node.clone() });
                }
                self.tell(if is_replaced {
                    NodeEvent::NodeReplaced { node }
                } else {
                    let version = announced.version.clone();
                    NodeEvent::NodeOnline { node, version }
                });
                // What the old socket was asked, nobody answers any more.
                entries.fail_pending_of(name);
                entries.forget_sessions_of(name);
                let node = Node {
                    outbox: outbox.clone(),
                    key,
                    announced,
                    since: now,
                    heartbeat: now,
                };
                entries.nodes.insert(name.clone(), node);
                Vec::new()
            }
        };
        if entries.remember(&known) {
            self.recorder.node(known);
        }
        entries.tell_presence(name, &before);
        true
    }

    /// A sign of life of a node.
    pub fn heartbeat(&self, name: &NodeId, socket: SocketId) {
        if let Some(node) = self.lock().nodes.get_mut(name)
            && node.outbox.id == socket
        {
            node.heartbeat = Instant::now();
            let node = name.clone();
            self.news.tell(NodeEvent::NodeHeartbeat { node });
        }
    }

    /// A node says how its sessions are reached.
    pub(crate) fn paths(&self, node: &NodeId, paths: Paths) {
        for path in paths.paths {
            let node = node.clone();
            self.tell(NodeEvent::SessionPath { node, path });
        }
    }

    /// A node is none any more.
    pub(crate) fn forget_node(&self, name: &NodeId) {
        let known = self.lock().known.remove(name);
        if known.is_some() {
            self.recorder.forget(name.clone());
            self.tell(NodeEvent::NodeLeft { node: name.clone() });
        }
    }

    /// A client has authenticated.
    pub fn add_client(&self, outbox: &Outbox) {
        let client = Client {
            outbox: outbox.clone(),
            watching: Vec::new(),
        };
        self.lock().clients.insert(outbox.id, client);
    }

    /// A socket has closed: its node is offline, its sessions are forgotten.
    pub fn remove(&self, socket: SocketId) {
        self.news.remove(socket);
        let mut entries = self.lock();
        entries.clients.remove(&socket);
        entries
            .sessions
            .retain(|_, session| session.client != socket);
        let gone: Option<NodeId> = entries
            .nodes
            .iter()
            .find_map(|(name, node)| (node.outbox.id == socket).then(|| name.clone()));
        if let Some(name) = gone {
            let node = entries.nodes.remove(&name);
            if let Some(known) = entries.known.get_mut(&name) {
                known.seen = unix_now();
                self.recorder.node(known.clone());
            }
            self.tell(NodeEvent::NodeOffline { node: name.clone() });
            entries.fail_pending_of(&name);
            entries.forget_sessions_of(&name);
            let services: Vec<ServiceName> = node
                .into_iter()
                .flat_map(|node| node.announced.services)
                .map(|service| service.name)
                .collect();
            entries.tell_presence(&name, &services);
        }
    }

    /// Introduces a client, the holder of a grant, to a node that offers the service. The answer to
    /// `request` follows when the node has answered.
    ///
    /// # Errors
    /// Why nobody can be introduced.
    pub fn introduce(
        &self,
        (client, grant): (SocketId, GrantId),
        request: String,
        offer: &Offer,
    ) -> Result<Outbox, Reason> {
        let Offer {
            session, service, ..
        } = offer;
        let (session, wanted) = (*session, offer.node.as_ref());
        let now = Instant::now();
        let mut entries = self.lock();
        if let Some(watcher) = entries.clients.get_mut(&client)
            && !watcher.watching.contains(service)
        {
            watcher.watching.push(service.clone());
        }
        if entries.sessions.contains_key(&session) {
            return Err(Reason::PermissionDenied);
        }
        let under_way = entries
            .sessions
            .values()
            .filter(|session| session.client == client)
            .count();
        if under_way >= MAX_SESSIONS_PER_CLIENT {
            return Err(Reason::RateLimited);
        }
        let offering: Vec<(&NodeId, &Node)> = entries
            .nodes
            .iter()
            .filter(|(name, node)| {
                node.offers(service) && wanted.is_none_or(|wanted| wanted == *name)
            })
            .collect();
        // A link may be known at one of several nodes that offer its service.
        let (name, node) = offering
            .iter()
            .filter(|(_, node)| node.status(now) == NodeStatus::Online)
            .max_by_key(|(_, node)| node.knows(&grant))
            .ok_or_else(|| {
                let is_elsewhere = entries.nodes.values().any(|node| {
                    node.offers(service)
                        && node.knows(&grant)
                        && node.status(now) == NodeStatus::Online
                });
                let is_known = || entries.known.values().any(|known| known.offers(service));
                if is_elsewhere {
                    Reason::ServedElsewhere
                } else if !offering.is_empty() || is_known() {
                    Reason::NodeOffline
                } else {
                    Reason::ServiceUnknown
                }
            })?;
        let outbox = node.outbox.clone();
        let entry = Session {
            client,
            node: (*name).clone(),
            pending: Some(request),
        };
        self.recorder
            .event(Event::Client(ClientEvent::SessionIntroduced {
                session,
                service: service.clone(),
                node: entry.node.clone(),
                grant,
            }));
        entries.sessions.insert(session, entry);
        Ok(outbox)
    }

    /// An online node that waits for a guest of the service.
    #[must_use]
    pub fn waiting(&self, service: &ServiceName, wanted: Option<&NodeId>) -> Option<Outbox> {
        let now = Instant::now();
        let entries = self.lock();
        let mut meant = entries
            .nodes
            .iter()
            .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
        let waits = |node: &&Node| {
            node.status(now) == NodeStatus::Online && node.announced.pairing.contains(service)
        };
        meant.find_map(|(_, node)| waits(&node).then(|| node.outbox.clone()))
    }

    /// A gateway has answered the request behind an offer; passes the outcome on.
    pub fn answered(&self, node: &NodeId, session: SessionId, outcome: Result<(), RpcError>) {
        let mut entries = self.lock();
        let Some(entry) = entries.sessions.get_mut(&session) else {
            return;
        };
        if entry.node != *node {
            return;
        }
        let Some(request) = entry.pending.take() else {
            return;
        };
        let client = entry.client;
        let reply = match outcome {
            Ok(()) => Envelope::result(
                request,
                &portway_protocol::signal::Offered { node: node.clone() },
            ),
            Err(error) => {
                entries.sessions.remove(&session);
                Envelope::error(Some(request), error)
            }
        };
        if let Some(client) = entries.clients.get(&client) {
            client.outbox.send(&reply);
        }
    }

    /// The other end of a session, if `from` is one end of it.
    #[must_use]
    pub fn other_end(&self, session: &SessionId, from: SocketId) -> Option<Outbox> {
        let entries = self.lock();
        let entry = entries.sessions.get(session)?;
        let node = entries.nodes.get(&entry.node)?;
        if entry.client == from {
            Some(node.outbox.clone())
        } else if node.outbox.id == from {
            let client = entries.clients.get(&entry.client)?;
            Some(client.outbox.clone())
        } else {
            None
        }
    }

    /// Closes the sockets of revoked nodes, which nobody remembers then, and tells everybody else.
    pub(crate) fn shut_out(&self, list: &RevocationList) {
        let mut guard = self.lock();
        let entries = &mut *guard;
        let news = Envelope::call(None, &Call::Revocations(list.clone()));
        for (name, node) in &entries.nodes {
            // Whom it concerns is told, too.
            node.outbox.send(&news);
            if list.names(&node.key) {
                tracing::warn!(node = %name, "a revoked node is shut out");
                node.outbox.close(Reason::NodeRevoked);
                if entries.known.remove(name).is_some() {
                    self.recorder.forget(name.clone());
                    self.tell(NodeEvent::NodeLeft { node: name.clone() });
                }
            }
        }
        for client in entries.clients.values() {
            client.outbox.send(&news);
        }
    }

    /// A session is over.
    pub fn forget(&self, session: &SessionId) {
        self.lock().sessions.remove(session);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Whether there is something new to store.
    fn remember(&mut self, node: &KnownNode) -> bool {
        let before = self.known.get(&node.node);
        if before.is_none() && self.known.len() >= MAX_KNOWN_NODES {
            tracing::warn!(node = %node.node, "too many nodes: this one will be forgotten when it leaves");
            return false;
        }
        let is_new = before.is_none_or(|before| before.announced != node.announced);
        self.known.insert(node.node.clone(), node.clone());
        is_new
    }

    /// Tells the watchers of a node's services, and of those that it offered before, how it is.
    fn tell_presence(&self, name: &NodeId, before: &[ServiceName]) {
        let node = self.nodes.get(name);
        let online = |service: &ServiceName| {
            node.is_some_and(|node| {
                node.announced.status == NodeStatus::Online && node.offers(service)
            })
        };
        for client in self.clients.values() {
            for service in &client.watching {
                let is_online = online(service);
                if !is_online && !before.contains(service) {
                    continue;
                }
                let status = if is_online {
                    NodeStatus::Online
                } else {
                    NodeStatus::Offline
                };
                let presence = Call::Presence(Presence {
                    service: service.clone(),
                    node: name.clone(),
                    status,
                });
                client.outbox.send(&Envelope::call(None, &presence));
            }
        }
    }

    fn fail_pending_of(&mut self, node: &NodeId) {
        for (id, session) in &mut self.sessions {
            if session.node != *node {
                continue;
            }
            let Some(client) = self.clients.get(&session.client) else {
                continue;
            };
            match session.pending.take() {
                Some(request) => client.outbox.send(&Envelope::error(
                    Some(request),
                    RpcError::refused(Reason::NodeOffline),
                )),
                None => {
                    tracing::trace!(session = %id, "a node left; its session goes on without us")
                }
            }
        }
    }

    fn forget_sessions_of(&mut self, node: &NodeId) {
        self.sessions.retain(|_, session| session.node != *node);
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
