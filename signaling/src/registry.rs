//! Who is online, what they offer, and who talks to whom.
//!
//! All of it lives in memory behind one lock that is never held across an await: a socket that
//! closes takes its entries with it, so there is nothing to expire but nodes that fell silent.
//!
//! Epochs fence a node: the gateway process that started last wins, the other is closed as replaced.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portway_protocol::id::{GrantId, NodeId, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::NODE_LEASE;
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Announce, AnnouncedGrant, AnnouncedService, Call, Envelope, NodeStatus, Presence, RpcError,
};
use serde::Serialize;
use tokio::sync::mpsc;

/// Sessions that one client may have introduced at a time.
pub const MAX_SESSIONS_PER_CLIENT: usize = 64;

/// Identity of a socket within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId(pub u64);

/// What a socket's task is told.
#[derive(Debug)]
pub enum Outgoing {
    /// Send this text.
    Text(String),
    /// Close for this reason.
    Close(Reason),
}

/// The way to a socket. A socket that does not read fast enough loses messages and is closed by its
/// own task, see `socket`.
#[derive(Debug, Clone)]
pub struct Outbox {
    /// The socket.
    pub id: SocketId,
    /// Its queue.
    pub queue: mpsc::Sender<Outgoing>,
}

impl Outbox {
    /// Queues a message without waiting.
    pub fn send(&self, envelope: &Envelope) {
        if self
            .queue
            .try_send(Outgoing::Text(envelope.to_text()))
            .is_err()
        {
            tracing::debug!("a message for a slow or closed socket was dropped");
        }
    }

    fn close(&self, reason: Reason) {
        if self.queue.try_send(Outgoing::Close(reason)).is_err() {
            tracing::debug!("a socket that is to be closed does not read");
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
    /// Seconds since it came online.
    pub online_s: u64,
    /// Seconds since its last sign of life.
    pub heartbeat_age_s: u64,
    /// What it offers.
    pub services: Vec<AnnouncedService>,
}

/// The registry.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    nodes: HashMap<NodeId, Node>,
    clients: HashMap<SocketId, Client>,
    sessions: HashMap<SessionId, Session>,
}

#[derive(Debug)]
struct Node {
    outbox: Outbox,
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
}

impl Registry {
    /// All nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let now = Instant::now();
        let age = |since: Instant| now.saturating_duration_since(since).as_secs();
        let mut views: Vec<NodeView> = self
            .lock()
            .nodes
            .iter()
            .map(|(name, node)| NodeView {
                node: name.clone(),
                status: node.status(now),
                version: node.announced.version.clone(),
                commit: node.announced.commit.clone(),
                online_s: age(node.since),
                heartbeat_age_s: age(node.heartbeat),
                services: node.announced.services.clone(),
            })
            .collect();
        views.sort_by(|a, b| a.node.cmp(&b.node));
        views
    }

    /// The grant of an id, if an online node announced it and it is not past `unix_now`.
    #[must_use]
    pub fn grant(&self, id: &GrantId, unix_now: u64) -> Option<AnnouncedGrant> {
        let now = Instant::now();
        self.lock()
            .nodes
            .values()
            .filter(|node| node.status(now) != NodeStatus::Offline)
            .flat_map(|node| &node.announced.grants)
            .find(|grant| grant.id == *id && grant.expires > unix_now)
            .cloned()
    }

    /// Key of a grant, whether or not it has expired: tells an expired link from an unknown one.
    #[must_use]
    pub fn expired_grant(&self, id: &GrantId) -> Option<PublicKey> {
        self.lock()
            .nodes
            .values()
            .flat_map(|node| &node.announced.grants)
            .find(|grant| grant.id == *id)
            .map(|grant| grant.key)
    }

    /// A node says what it offers. `false` if a newer process of the same node is there.
    pub fn announce(&self, name: &NodeId, outbox: &Outbox, announced: Announce) -> bool {
        let now = Instant::now();
        let mut entries = self.lock();
        let before: Vec<ServiceName> = match entries.nodes.get_mut(name) {
            Some(node) if node.outbox.id == outbox.id => {
                let before = node.announced.services.iter().map(|s| s.name.clone());
                let before = before.collect();
                node.announced = announced;
                node.heartbeat = now;
                before
            }
            Some(node) if node.announced.epoch > announced.epoch => return false,
            replaced => {
                if let Some(node) = replaced {
                    node.outbox.close(Reason::Replaced);
                }
                entries.forget_sessions_of(name);
                let node = Node {
                    outbox: outbox.clone(),
                    announced,
                    since: now,
                    heartbeat: now,
                };
                entries.nodes.insert(name.clone(), node);
                Vec::new()
            }
        };
        entries.tell_presence(name, &before);
        true
    }

    /// A sign of life of a node.
    pub fn heartbeat(&self, name: &NodeId, socket: SocketId) {
        if let Some(node) = self.lock().nodes.get_mut(name)
            && node.outbox.id == socket
        {
            node.heartbeat = Instant::now();
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

    /// Introduces a client to a node that offers the service. The answer to `request` follows when
    /// the node has answered.
    ///
    /// # Errors
    /// Why nobody can be introduced.
    pub fn introduce(
        &self,
        client: SocketId,
        request: String,
        session: SessionId,
        service: &ServiceName,
        wanted: Option<&NodeId>,
    ) -> Result<Outbox, Reason> {
        let now = Instant::now();
        let mut entries = self.lock();
        if let Some(watcher) = entries.clients.get_mut(&client)
            && !watcher.watching.contains(service)
        {
            watcher.watching.push(service.clone());
        }
        if let Some(known) = entries.sessions.get_mut(&session) {
            if known.client != client {
                return Err(Reason::PermissionDenied);
            }
            known.pending = Some(request);
            let node = known.node.clone();
            return entries
                .nodes
                .get(&node)
                .map(|node| node.outbox.clone())
                .ok_or(Reason::NodeOffline);
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
        let (name, node) = offering
            .iter()
            .find(|(_, node)| node.status(now) == NodeStatus::Online)
            .ok_or(if offering.is_empty() {
                Reason::ServiceUnknown
            } else {
                Reason::NodeOffline
            })?;
        let outbox = node.outbox.clone();
        let entry = Session {
            client,
            node: (*name).clone(),
            pending: Some(request),
        };
        entries.sessions.insert(session, entry);
        Ok(outbox)
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

    /// A session is over.
    pub fn forget(&self, session: &SessionId) {
        self.lock().sessions.remove(session);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
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
