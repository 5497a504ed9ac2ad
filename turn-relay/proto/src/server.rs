//! The machine: packets and time in; packets, wishes for sockets and a deadline out.
//!
//! The contract of the loop. A shell calls
//! - [`Server::handle_client`] for each packet at a listener and [`Server::handle_peer`] for each at a
//!   relay socket, and forwards what they return; both are the hot path and neither allocates for data;
//! - [`Server::handle_timeout`] when [`Server::poll_timeout`] is due;
//! - after any of these, [`Server::next_command`] until it is empty. A [`Command::Bind`] is answered
//!   with [`Server::relay_bound`] before the next packet.
//!
//! Security, in this order: STUN that is malformed is dropped; a request without proof gets a small
//! error and leaves nothing behind; a peer address is judged before anything is installed for it; data
//! passes only with a permission, in both directions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use stun_types::message::{Message, MessageClass};

use crate::Now;
use crate::allocation::{Allocation, AllocationId, Allocations, State};
use crate::auth::Users;
use crate::command::{Command, Family, RelayId, ReservationId};
use crate::discovery::Discovery;
use crate::event::{Ending, Event};
use crate::expiry::Expiry;
use crate::five_tuple::{FiveTuple, ListenerId};
use crate::limits::MAX_CONTROL;
use crate::mobility::Tickets;
use crate::nonce::Nonces;
use crate::peer_policy::PeerPolicy;
use crate::quota::{Direction, Ledger, Quota};
use crate::request::Refusal;
use crate::revocation::Revocations;
use crate::strangers::Strangers;
use crate::tcp::{ConnectionId, Progress};
use crate::wire::indication::Prefix;
use crate::wire::{channel_data, indication};

mod authentication;
mod data;
mod operator;
mod requests;
mod tcp;

/// What a server is made of.
#[derive(Debug)]
pub struct Config {
    /// Who may come in.
    pub users: Users,
    /// Which peers may be named.
    pub peers: PeerPolicy,
    /// How much one may hold.
    pub quota: Quota,
    /// Families that there are relay addresses of.
    pub families: Vec<Family>,
    /// Whether SHA-256 is announced: 401s are 24 bytes larger then.
    pub announce_sha256: bool,
    /// Whether clients may move. Only of use where packets from anywhere come to this server: others
    /// know nothing of its allocations.
    pub mobility: bool,
    /// Listeners to which clients come by connections and may have TCP allocations (RFC 6062): none,
    /// and there are no such. Only of use where packets from anywhere come to this server.
    pub tcp_allocations: HashSet<ListenerId>,
    /// Listeners for the discovery of NATs, if there are.
    pub discovery: Option<Discovery>,
    /// Key of the nonces: this server's own, random.
    pub nonce_key: [u8; 32],
}

/// What to do with a packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// Send this part of the packet to a peer.
    ToPeer {
        /// From this relay socket.
        relay: RelayId,
        /// To this peer.
        peer: SocketAddr,
        /// The payload.
        payload: Range<usize>,
    },
    /// It was for the server itself: commands may follow.
    Answered,
    /// Nothing.
    Dropped(Drop),
}

/// What to do with a packet of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPeer {
    /// Send it to the client, after a prefix.
    ToClient {
        /// Whom.
        client: FiveTuple,
        /// What comes before it.
        prefix: Prefix,
    },
    /// Nothing.
    Dropped(Drop),
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Drop {
    /// Neither STUN nor ChannelData, or malformed.
    Malformed,
    /// Data of a client without an allocation.
    NoAllocation,
    /// No such channel.
    NoChannel,
    /// No permission for this peer.
    NoPermission,
    /// A peer address that nobody may name.
    Forbidden,
    /// Its network has had its share of answers without proof.
    TooMany,
    /// Its user or its source has had its share of the bandwidth.
    TooFast,
}

/// A STUN/TURN server.
#[derive(Debug)]
pub struct Server {
    users: Users,
    peers: PeerPolicy,
    quota: Quota,
    families: Vec<Family>,
    announce_sha256: bool,
    nonces: Nonces,
    tickets: Option<Tickets>,
    discovery: Option<Discovery>,
    streams: HashSet<ListenerId>,
    by_connection: HashMap<ConnectionId, AllocationId>,
    /// Connections of clients that belong to one with a peer.
    by_data: HashMap<FiveTuple, ConnectionId>,
    strangers: Strangers,
    ledger: Arc<Ledger>,
    allocations: Allocations,
    by_client: HashMap<FiveTuple, AllocationId>,
    revocations: Revocations,
    is_draining: bool,
    expiry: Expiry<Deadline>,
    commands: VecDeque<Command>,
    /// Numbers Data indications, and what is named by [`Server::unguessable`].
    counter: u64,
    names: hmac::Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Allocation(AllocationId),
    Reservation(ReservationId),
    Connection(ConnectionId),
}

impl Server {
    /// A server without clients. `ledger` is shared by the servers of a process; `seed` makes tokens
    /// hard to guess.
    #[must_use]
    pub fn new(config: Config, ledger: Arc<Ledger>, seed: u64) -> Self {
        Self {
            nonces: Nonces::new(&config.nonce_key, config.announce_sha256),
            tickets: config.mobility.then(|| Tickets::new(&config.nonce_key)),
            discovery: config.discovery,
            streams: config.tcp_allocations,
            by_connection: HashMap::new(),
            by_data: HashMap::new(),
            strangers: Strangers::new(),
            users: config.users,
            peers: config.peers,
            quota: config.quota,
            families: config.families,
            announce_sha256: config.announce_sha256,
            ledger,
            allocations: Allocations::default(),
            by_client: HashMap::new(),
            revocations: Revocations::default(),
            is_draining: false,
            expiry: Expiry::new(),
            commands: VecDeque::new(),
            counter: seed,
            names: hmac::Key::new(hmac::HMAC_SHA256, &config.nonce_key),
        }
    }

    /// A packet of a client.
    pub fn handle_client(&mut self, client: FiveTuple, packet: &[u8], now: Now) -> FromClient {
        if channel_data::is_channel_data(packet) {
            return self.channel_data(&client, packet, now.monotonic);
        }
        if indication::is_send(packet) {
            return self.send_indication(&client, packet, now.monotonic);
        }
        let message = match Message::from_bytes(packet) {
            Ok(message) if packet.len() <= MAX_CONTROL => message,
            Ok(_) | Err(_) => return FromClient::Dropped(Drop::Malformed),
        };
        if message.class() != MessageClass::Request {
            return FromClient::Dropped(Drop::Malformed);
        }
        self.request(client, &message, now)
    }

    /// A packet of a peer, of this length.
    pub fn handle_peer(
        &mut self,
        relay: RelayId,
        peer: SocketAddr,
        length: usize,
        now: Now,
    ) -> FromPeer {
        let Some(allocation) = self.allocations.get_mut(relay.allocation) else {
            return FromPeer::Dropped(Drop::NoAllocation);
        };
        let now = now.monotonic;
        if !allocation.permissions.allows(peer.ip(), now) {
            return FromPeer::Dropped(Drop::NoPermission);
        }
        let client = allocation.client;
        let place = &allocation.place;
        if !place.may_pass(Direction::ToClient, length, &self.quota, now) {
            return FromPeer::Dropped(Drop::TooFast);
        }
        let prefix = match allocation.channels.number(&peer, now) {
            Some(number) => u16::try_from(length)
                .ok()
                .map(|length| Prefix::channel_data(channel_data::header(number, length))),
            None => {
                self.counter = self.counter.wrapping_add(1);
                Prefix::data_indication(peer, length, self.counter)
            }
        };
        let Some(prefix) = prefix else {
            return FromPeer::Dropped(Drop::Malformed);
        };
        allocation.traffic.count_to_client(length);
        FromPeer::ToClient { client, prefix }
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(deadline) = self.expiry.pop(now.monotonic) {
            match deadline {
                Deadline::Allocation(id) => match self.allocations.get_mut(id) {
                    // It was refreshed in the meantime.
                    Some(allocation) if allocation.expires > now.monotonic => {
                        allocation.scheduled = allocation.expires;
                        let due = allocation.expires;
                        self.schedule(due, deadline);
                    }
                    Some(_) => self.end(id, Ending::Expired),
                    None => {}
                },
                Deadline::Reservation(id) => {
                    if self.ledger.reservations.expire(id) {
                        self.commands.push_back(Command::Release(id));
                    }
                }
                Deadline::Connection(id) => self.connection_due(id, now),
            }
        }
    }

    /// When [`Server::handle_timeout`] is due. It may turn out to be early.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.expiry.next()
    }

    /// What to do next.
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A relay socket is bound to this address, as peers see it, or cannot be had.
    pub fn relay_bound(&mut self, relay: RelayId, address: Option<SocketAddr>, now: Now) {
        let Some(allocation) = self.allocations.get_mut(relay.allocation) else {
            self.commands.push_back(Command::Close(relay));
            return;
        };
        let State::Binding(pending) = &mut allocation.state else {
            return;
        };
        pending.missing -= 1;
        match address {
            Some(address) => allocation.relays.set(relay.family, address),
            None => pending.failed = Some(relay.family),
        }
        if pending.missing == 0 {
            self.allocated(relay.allocation, now);
        }
    }

    /// The connection of a client has closed.
    pub fn client_gone(&mut self, client: &FiveTuple) {
        if let Some(id) = self.by_data.get(client).copied() {
            self.connection_closed(id);
            self.commands.push_back(Command::CloseConnection(id));
            return;
        }
        // Who may move has the rest of its time to come back by another connection.
        if let Some((id, Allocation { moves: None, .. })) = self.of(client) {
            self.end(id, Ending::ClientGone);
        }
    }

    /// Whether a client has an allocation, or a connection with a peer.
    #[must_use]
    pub fn has_allocation(&self, client: &FiveTuple) -> bool {
        self.by_client.contains_key(client) || self.by_data.contains_key(client)
    }

    /// How many allocations there are.
    #[must_use]
    pub fn allocation_count(&self) -> usize {
        self.allocations.len()
    }

    fn of(&self, client: &FiveTuple) -> Option<(AllocationId, &Allocation)> {
        let id = *self.by_client.get(client)?;
        Some((id, self.allocations.get(id)?))
    }

    fn of_mut(&mut self, client: &FiveTuple) -> Option<(AllocationId, &mut Allocation)> {
        let id = *self.by_client.get(client)?;
        Some((id, self.allocations.get_mut(id)?))
    }

    fn schedule(&mut self, due: Duration, deadline: Deadline) {
        let (allocations, reservations) = (&self.allocations, &self.ledger.reservations);
        let connections = &self.by_connection;
        let living = allocations.len() + reservations.len() + connections.len();
        self.expiry
            .schedule(due, deadline, living, |due, deadline| match deadline {
                Deadline::Allocation(id) => {
                    let allocation = allocations.get(id);
                    allocation.is_some_and(|allocation| allocation.scheduled == due)
                }
                Deadline::Reservation(id) => reservations.is_kept_until(id, due),
                Deadline::Connection(id) => {
                    connections
                        .get(&id)
                        .and_then(|owner| allocations.get(*owner)?.tcp.as_ref()?.get(id)?.until())
                        == Some(due)
                }
            });
    }

    fn end(&mut self, id: AllocationId, why: Ending) {
        let Some(allocation) = self.allocations.remove(id) else {
            return;
        };
        self.by_client.remove(&allocation.client);
        for connection in allocation.tcp.iter().flat_map(|held| &held.0) {
            self.by_connection.remove(&connection.id);
            if let Progress::Bound { client } = &connection.state {
                self.by_data.remove(client);
            }
            self.commands
                .push_back(Command::CloseConnection(connection.id));
        }
        if let State::Open { .. } = allocation.state {
            self.commands.push_back(Command::Tell(Event::Ended {
                user: allocation.identity.user.clone(),
                listener: allocation.client.listener,
                why,
                traffic: allocation.traffic,
            }));
        }
        for family in [Family::V4, Family::V6] {
            if allocation.relays.get(family).is_some() {
                let relay = RelayId {
                    allocation: id,
                    family,
                };
                self.commands.push_back(Command::Close(relay));
            }
        }
    }

    /// A number that says nothing of those before and after it.
    fn unguessable(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        let mut context = hmac::Context::with_key(&self.names);
        context.update(b"name");
        context.update(&self.counter.to_be_bytes());
        let hash = context.sign();
        let first = hash.as_ref().first_chunk().expect("32 bytes");
        u64::from_be_bytes(*first)
    }

    fn refused(&mut self, refusal: &Refusal) {
        let event = Event::Refused(refusal.code());
        self.commands.push_back(Command::Tell(event));
    }

    fn reply(&mut self, to: FiveTuple, message: Vec<u8>) {
        self.commands.push_back(Command::Reply { to, message });
    }
}
