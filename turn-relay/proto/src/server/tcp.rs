//! TCP allocations (RFC 6062): connections with peers, and the connections of clients that belong to
//! them. Off unless the configuration names listeners for it.

use std::net::SocketAddr;

use stun_types::message::{Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};
use turn_types::attribute::{ConnectionId as ConnectionIdAttribute, XorPeerAddress};

use super::{Deadline, Server};
use crate::Now;
use crate::allocation::AllocationId;
use crate::auth::Identity;
use crate::command::{Command, Family, RelayId};
use crate::five_tuple::FiveTuple;
use crate::limits::CONNECT_TIMEOUT;
use crate::request::Refusal;
use crate::response::Response;
use crate::tcp::{CONNECTION_ATTEMPT, ConnectionId, PeerConnection, Progress};

impl Server {
    /// RFC 6062 §5.2. The answer follows when the peer has been reached, or not.
    pub(super) fn connect(
        &mut self,
        client: &FiveTuple,
        message: &Message<'_>,
        peer: SocketAddr,
        identity: &Identity,
        now: Now,
    ) -> Result<(), Refusal> {
        self.check_peer(client, &peer, identity)?;
        let limit = self.quota.channels;
        let (allocation, held) = self.theirs(client, identity)?;
        let connections = held.tcp.as_mut().ok_or(Refusal::AllocationMismatch)?;
        if connections.has_peer(&peer) {
            return Err(Refusal::ConnectionAlreadyExists);
        }
        if connections.0.len() >= limit {
            return Err(Refusal::InsufficientCapacity);
        }
        let until = now.monotonic + CONNECT_TIMEOUT;
        let request = message.as_bytes().to_vec();
        let id = self.connection(allocation, peer, Progress::Connecting { request, until });
        self.schedule(until, Deadline::Connection(id));
        let relay = RelayId {
            allocation,
            family: Family::of(&peer),
        };
        let connection = id;
        self.commands.push_back(Command::Connect {
            relay,
            connection,
            peer,
        });
        Ok(())
    }

    /// A peer has been reached, or cannot be.
    pub fn peer_connected(&mut self, id: ConnectionId, is_reached: bool, now: Now) {
        let Some((owner, connection)) = self.peer_connection(id) else {
            self.commands.push_back(Command::CloseConnection(id));
            return;
        };
        let Progress::Connecting { request, .. } = &mut connection.state else {
            return;
        };
        let request = std::mem::take(request);
        let until = now.monotonic + CONNECT_TIMEOUT;
        connection.state = Progress::Waiting { until };
        let message = Message::from_bytes(&request).expect("it was parsed before");
        let response = if is_reached {
            self.schedule(until, Deadline::Connection(id));
            Response::success(&message).with(&ConnectionIdAttribute::new(id.0))
        } else {
            self.forget(id);
            self.refused(&Refusal::ConnectionFailed);
            Response::error(&message, &Refusal::ConnectionFailed)
        };
        let Some(allocation) = self.allocations.get(owner) else {
            return;
        };
        let (to, key) = (allocation.client, allocation.identity.key.clone());
        self.reply(to, response.finish(Some(&key), &message));
    }

    /// A peer has connected to a relayed address (RFC 6062 §5.3); `None`: it must be turned away.
    pub fn peer_arrived(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        now: Now,
    ) -> Option<ConnectionId> {
        let limit = self.quota.channels;
        let allocation = self.allocations.get(relay.allocation)?;
        let connections = allocation.tcp.as_ref()?;
        if !allocation.permissions.allows(peer.ip(), now.monotonic)
            || connections.has_peer(&peer)
            || connections.0.len() >= limit
        {
            return None;
        }
        let to = allocation.client;
        let until = now.monotonic + CONNECT_TIMEOUT;
        let id = self.connection(relay.allocation, peer, Progress::Waiting { until });
        self.schedule(until, Deadline::Connection(id));
        let mut attempt = Message::builder_indication(CONNECTION_ATTEMPT, MessageWriteVec::new());
        let transaction = attempt.transaction_id();
        attempt
            .add_attribute(&ConnectionIdAttribute::new(id.0))
            .and_then(|()| attempt.add_attribute(&XorPeerAddress::new(peer, transaction)))
            .expect("two short attributes");
        let message = attempt.finish();
        self.commands.push_back(Command::Reply { to, message });
        Some(id)
    }

    /// RFC 6062 §5.4: this connection of a client is for that connection with a peer. The answer is the
    /// last message on it.
    pub(super) fn connection_bind(
        &mut self,
        client: FiveTuple,
        message: &Message<'_>,
        id: ConnectionId,
        identity: &Identity,
    ) -> Result<(), Refusal> {
        let is_free = self.is_stream(&client) && !self.has_allocation(&client);
        let owner = self.by_connection.get(&id).copied();
        let owner = owner.filter(|_| is_free).ok_or(Refusal::BadRequest)?;
        let allocation = self.allocations.get_mut(owner).ok_or(Refusal::BadRequest)?;
        if allocation.identity.user != identity.user {
            return Err(Refusal::WrongCredentials);
        }
        let connections = allocation.tcp.as_mut().ok_or(Refusal::BadRequest)?;
        let connection = connections.get_mut(id).ok_or(Refusal::BadRequest)?;
        if !matches!(connection.state, Progress::Waiting { .. }) {
            return Err(Refusal::BadRequest);
        }
        connection.state = Progress::Bound { client };
        self.by_data.insert(client, id);
        let response = Response::success(message).with(&ConnectionIdAttribute::new(id.0));
        self.reply(client, response.finish(Some(&identity.key), message));
        self.commands.push_back(Command::Splice {
            connection: id,
            client,
        });
        Ok(())
    }

    /// Bytes have passed between a connection with a peer and that of its client.
    pub fn spliced(&mut self, id: ConnectionId, to_peer: usize, to_client: usize) {
        let Some(owner) = self.by_connection.get(&id) else {
            return;
        };
        if let Some(allocation) = self.allocations.get_mut(*owner) {
            allocation.traffic.bytes_to_peers += to_peer as u64;
            allocation.traffic.bytes_to_client += to_client as u64;
        }
    }

    /// A connection with a peer is over, or that of its client.
    pub fn connection_closed(&mut self, id: ConnectionId) {
        self.forget(id);
    }

    /// A connection that is not used in time is closed.
    pub(super) fn connection_due(&mut self, id: ConnectionId, now: Now) {
        let Some((_, connection)) = self.peer_connection(id) else {
            return;
        };
        if connection.until().is_none_or(|until| until > now.monotonic) {
            return;
        }
        if matches!(connection.state, Progress::Connecting { .. }) {
            self.peer_connected(id, false, now);
        }
        self.forget(id);
        self.commands.push_back(Command::CloseConnection(id));
    }

    /// Closes the connections with peers that may not be named any more.
    pub(super) fn cut_off_peers(&mut self) {
        let held = self
            .allocations
            .iter()
            .filter_map(|(_, held)| held.tcp.as_ref());
        let connections = held.flat_map(|connections| &connections.0);
        let gone: Vec<ConnectionId> = connections
            .filter(|connection| !self.peers.permits(&connection.peer))
            .map(|connection| connection.id)
            .collect();
        for id in gone {
            self.forget(id);
            self.commands.push_back(Command::CloseConnection(id));
        }
    }

    /// Whether clients come to this listener by connections, and may have allocations for such.
    pub(super) fn is_stream(&self, client: &FiveTuple) -> bool {
        self.streams.contains(&client.listener)
    }

    fn connection(
        &mut self,
        owner: AllocationId,
        peer: SocketAddr,
        state: Progress,
    ) -> ConnectionId {
        let id = loop {
            let id = ConnectionId((self.unguessable() >> 32) as u32);
            if !self.by_connection.contains_key(&id) {
                break id;
            }
        };
        self.by_connection.insert(id, owner);
        let allocation = self.allocations.get_mut(owner);
        if let Some(connections) = allocation.and_then(|held| held.tcp.as_mut()) {
            connections.0.push(PeerConnection { id, peer, state });
        }
        id
    }

    fn peer_connection(&mut self, id: ConnectionId) -> Option<(AllocationId, &mut PeerConnection)> {
        let owner = *self.by_connection.get(&id)?;
        let connections = self.allocations.get_mut(owner)?.tcp.as_mut()?;
        Some((owner, connections.get_mut(id)?))
    }

    fn forget(&mut self, id: ConnectionId) {
        let Some(owner) = self.by_connection.remove(&id) else {
            return;
        };
        let allocation = self.allocations.get_mut(owner);
        let connections = allocation.and_then(|held| held.tcp.as_mut());
        if let Some(PeerConnection {
            state: Progress::Bound { client },
            ..
        }) = connections.and_then(|connections| connections.remove(id))
        {
            self.by_data.remove(&client);
        }
    }
}
