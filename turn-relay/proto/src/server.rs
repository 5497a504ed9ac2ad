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

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use stun_types::attribute::{
    Attribute as _, ErrorCode, Nonce, PasswordAlgorithmValue, PasswordAlgorithms, Realm, Userhash,
    Username, XorMappedAddress,
};
use stun_types::message::{BINDING, Message, MessageClass};
use turn_types::attribute::{AddressErrorCode, Lifetime, ReservationToken, XorRelayedAddress};

use crate::Now;
use crate::allocation::{Allocation, AllocationId, Allocations, Pending, Relays, State};
use crate::auth::{Identity, Users};
use crate::channel::{ChannelNumber, Channels, Conflict};
use crate::command::{Command, Family, PortWish, RelayId, ReservationId};
use crate::event::{Ending, Event};
use crate::expiry::Expiry;
use crate::five_tuple::FiveTuple;
use crate::limits::{DEFAULT_LIFETIME, MAX_CONTROL, MAX_LIFETIME, RESERVATION_LIFETIME};
use crate::nonce::Nonces;
use crate::peer_policy::PeerPolicy;
use crate::permission::Permissions;
use crate::quota::{Ledger, Quota};
use crate::request::{Allocate, Families, Port, Refusal, Request};
use crate::response::Response;
use crate::revocation::{Revocations, Revoked};
use crate::session::{Session, Traffic};
use crate::strangers::Strangers;
use crate::wire::indication::Prefix;
use crate::wire::{channel_data, indication};

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
    strangers: Strangers,
    ledger: Arc<Ledger>,
    allocations: Allocations,
    by_client: HashMap<FiveTuple, AllocationId>,
    revocations: Revocations,
    is_draining: bool,
    expiry: Expiry<Deadline>,
    commands: VecDeque<Command>,
    /// Names of reservations and Data indications; unguessable is only the nonce.
    counter: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Allocation(AllocationId),
    Reservation(ReservationId),
}

impl Server {
    /// A server without clients. `ledger` is shared by the servers of a process; `seed` makes tokens
    /// hard to guess.
    #[must_use]
    pub fn new(config: Config, ledger: Arc<Ledger>, seed: u64) -> Self {
        Self {
            nonces: Nonces::new(&config.nonce_key, config.announce_sha256),
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

    /// Ends every allocation of a user, and refuses its ephemeral credentials that end at `until`
    /// (seconds since 1970) or before. `EXPIRY:NAME` is taken for NAME.
    pub fn revoke(&mut self, user: &str, until: u64, now: Now) -> Revoked {
        let user = self.users.user_of(user);
        let ids: Vec<AllocationId> = self
            .allocations
            .iter()
            .filter(|(_, allocation)| &*allocation.identity.user == user)
            .map(|(id, _)| id)
            .collect();
        for id in &ids {
            self.end(*id, Ending::Revoked);
        }
        Revoked {
            ended: ids.len(),
            is_remembered: self.revocations.add(user, until, now.unix),
            has_password: self.users.has_password(user),
        }
    }

    /// Ends one allocation; returns whose it was. Its user may come back.
    pub fn revoke_session(&mut self, id: AllocationId) -> Option<Arc<str>> {
        let user = self.allocations.get(id)?.identity.user.clone();
        self.end(id, Ending::Revoked);
        Some(user)
    }

    /// Who holds what.
    pub fn sessions(&self, now: Now) -> impl Iterator<Item = Session> {
        let now = now.monotonic;
        let allocations = self.allocations.iter();
        allocations.map(move |(id, allocation)| Session {
            id,
            user: allocation.identity.user.clone(),
            client: allocation.client,
            relayed: allocation.relays.iter().collect(),
            permissions: allocation.permissions.count(now),
            channels: allocation.channels.count(now),
            age: now.saturating_sub(allocation.started),
            expires_in: allocation.expires.saturating_sub(now),
            traffic: allocation.traffic,
        })
    }

    /// No allocation is made any more; those that are there go on. For good: its process is to end.
    pub const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Users whose ephemeral credentials are refused.
    #[must_use]
    pub fn revocation_count(&self, now: Now) -> usize {
        self.revocations.count(now.unix)
    }

    /// A peer says that it is one; [`PeerPolicy::attached`].
    pub fn attach(&mut self, peer: SocketAddr) {
        self.peers.attached.insert(peer);
    }

    /// It is none any more. What clients hold for it leads nowhere.
    pub fn detach(&mut self, peer: &SocketAddr) {
        self.peers.attached.remove(peer);
    }

    /// Prolongs credentials for those who hold an allocation by them: `until` tells for each until
    /// when (seconds since 1970), or nothing. Nobody can allocate by them after they have expired.
    pub fn prolong(&mut self, until: impl Fn(&Identity) -> Option<u64>) {
        for allocation in self.allocations.iter_mut() {
            let until = until(&allocation.identity);
            let identity = &mut allocation.identity;
            identity.expires = identity.expires.map(|own| own.max(until.unwrap_or(own)));
        }
    }

    /// Other users, rules and quotas from now on. Who would not come in any more loses its allocation;
    /// peers that may not be named any more are cut off.
    pub fn reload(&mut self, users: Users, peers: PeerPolicy, quota: Quota) {
        let attached = std::mem::take(&mut self.peers.attached);
        self.peers = PeerPolicy { attached, ..peers };
        (self.users, self.quota) = (users, quota);
        let gone: Vec<AllocationId> = self
            .allocations
            .iter()
            .filter(|(_, allocation)| !self.users.still_knows(&allocation.identity))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            self.end(id, Ending::Revoked);
        }
        for allocation in self.allocations.iter_mut() {
            allocation
                .permissions
                .retain(|ip| self.peers.permits_ip(ip));
            allocation.channels.retain(|peer| self.peers.permits(peer));
        }
    }

    /// The connection of a client has closed.
    pub fn client_gone(&mut self, client: &FiveTuple) {
        if let Some(id) = self.by_client.get(client) {
            self.end(*id, Ending::ClientGone);
        }
    }

    /// Whether a client has an allocation.
    #[must_use]
    pub fn has_allocation(&self, client: &FiveTuple) -> bool {
        self.by_client.contains_key(client)
    }

    /// How many allocations there are.
    #[must_use]
    pub fn allocation_count(&self) -> usize {
        self.allocations.len()
    }
}

/// Data.
impl Server {
    fn channel_data(&mut self, client: &FiveTuple, packet: &[u8], now: Duration) -> FromClient {
        let Some((number, payload)) = channel_data::parse(packet) else {
            return FromClient::Dropped(Drop::Malformed);
        };
        let Some((id, allocation)) = self.of_mut(client) else {
            return FromClient::Dropped(Drop::NoAllocation);
        };
        let Some(peer) = allocation.channels.peer(number, now) else {
            return FromClient::Dropped(Drop::NoChannel);
        };
        Self::to_peer(id, allocation, peer, payload, now)
    }

    fn send_indication(&mut self, client: &FiveTuple, packet: &[u8], now: Duration) -> FromClient {
        let Some((peer, payload)) = indication::parse_send(packet) else {
            return FromClient::Dropped(Drop::Malformed);
        };
        // A permission has been judged when it was installed; the rules may have changed since.
        let is_permitted = self.peers.permits(&peer);
        let Some((id, allocation)) = self.of_mut(client) else {
            return FromClient::Dropped(Drop::NoAllocation);
        };
        if !is_permitted {
            return FromClient::Dropped(Drop::Forbidden);
        }
        Self::to_peer(id, allocation, peer, payload, now)
    }

    fn to_peer(
        id: AllocationId,
        allocation: &mut Allocation,
        peer: SocketAddr,
        payload: Range<usize>,
        now: Duration,
    ) -> FromClient {
        if !allocation.permissions.allows(peer.ip(), now) {
            return FromClient::Dropped(Drop::NoPermission);
        }
        allocation.traffic.count_to_peer(payload.len());
        let relay = RelayId {
            allocation: id,
            family: Family::of(&peer),
        };
        FromClient::ToPeer {
            relay,
            peer,
            payload,
        }
    }

    fn of(&self, client: &FiveTuple) -> Option<(AllocationId, &Allocation)> {
        let id = *self.by_client.get(client)?;
        Some((id, self.allocations.get(id)?))
    }

    fn of_mut(&mut self, client: &FiveTuple) -> Option<(AllocationId, &mut Allocation)> {
        let id = *self.by_client.get(client)?;
        Some((id, self.allocations.get_mut(id)?))
    }
}

/// Requests.
impl Server {
    fn request(&mut self, client: FiveTuple, message: &Message<'_>, now: Now) -> FromClient {
        if message.method() == BINDING {
            if !self.may_hear(&client, now) {
                return FromClient::Dropped(Drop::TooMany);
            }
            let response = match Request::parse(message) {
                Ok(_) => Response::success(message).with(&mapped(message, client)),
                Err(refusal) => {
                    self.refused(&refusal);
                    Response::error(message, &refusal)
                }
            };
            self.reply(client, response.finish(None, message));
            return FromClient::Answered;
        }
        let identity = match self.authenticate(&client, message, now) {
            Ok(identity) => identity,
            Err(_) if !self.may_hear(&client, now) => {
                return FromClient::Dropped(Drop::TooMany);
            }
            Err(refusal) => {
                self.refused(&refusal);
                let response = self.challenge(&client, message, &refusal, now);
                self.reply(client, response.finish(None, message));
                return FromClient::Answered;
            }
        };
        let outcome = Request::parse(message).and_then(|request| match request {
            Request::Binding => Err(Refusal::BadRequest),
            Request::Allocate(wish) => self.allocate(client, message, wish, &identity, now),
            Request::Refresh { lifetime, family } => self
                .refresh(&client, lifetime, family, &identity, now)
                .map(|lifetime| Some(Response::success(message).with(&seconds(lifetime)))),
            Request::CreatePermission { peers } => self
                .create_permission(&client, &peers, &identity, now)
                .map(|()| Some(Response::success(message))),
            Request::ChannelBind { number, peer } => self
                .channel_bind(&client, number, peer, &identity, now)
                .map(|()| Some(Response::success(message))),
        });
        let response = match outcome {
            Ok(Some(response)) => response,
            // It follows when the sockets are bound, or has been repeated.
            Ok(None) => return FromClient::Answered,
            Err(refusal) => {
                self.refused(&refusal);
                Response::error(message, &refusal)
            }
        };
        self.reply(client, response.finish(Some(&identity.key), message));
        FromClient::Answered
    }

    /// Whether a client that has proved nothing is answered once more.
    fn may_hear(&mut self, client: &FiveTuple, now: Now) -> bool {
        let limit = self.quota.strangers_per_second;
        self.strangers
            .may_hear(client.client.ip(), limit, now.monotonic)
    }

    /// RFC 8489 §9.2.4.
    fn authenticate(
        &self,
        client: &FiveTuple,
        message: &Message<'_>,
        now: Now,
    ) -> Result<Identity, Refusal> {
        let is_signed = message
            .iter_attributes()
            .any(|(_, attribute)| is_integrity(attribute.get_type()));
        if !is_signed {
            return Err(Refusal::Unauthorized);
        }
        let (Ok(nonce), Ok(_realm)) = (message.attribute::<Nonce>(), message.attribute::<Realm>())
        else {
            return Err(Refusal::BadRequest);
        };
        let username = match (
            message.attribute::<Username>(),
            message.attribute::<Userhash>(),
        ) {
            (Ok(name), _) => name.username().to_owned(),
            (Err(_), Ok(hash)) => self
                .users
                .name_of(hash.hash())
                .ok_or(Refusal::Unauthorized)?
                .to_owned(),
            (Err(_), Err(_)) => return Err(Refusal::BadRequest),
        };
        if !self.nonces.is_valid(nonce.nonce(), client, now.unix) {
            return Err(Refusal::StaleNonce);
        }
        let prolonged = self
            .of(client)
            .filter(|(_, allocation)| *allocation.identity.username == *username)
            .and_then(|(_, allocation)| allocation.identity.expires);
        self.users
            .verify(message, &username, prolonged, now.unix)
            .filter(|identity| !self.revocations.refuses(identity))
            .ok_or(Refusal::Unauthorized)
    }

    /// The error that asks for a proof, or says why a message proves nothing.
    fn challenge(
        &self,
        client: &FiveTuple,
        message: &Message<'_>,
        refusal: &Refusal,
        now: Now,
    ) -> Response {
        let mut response = Response::error(message, refusal);
        if matches!(refusal, Refusal::Unauthorized | Refusal::StaleNonce) {
            let nonce = self.nonces.issue(client, now.unix);
            let realm = Realm::new(self.users.realm()).expect("a realm is short");
            let nonce = Nonce::new(&nonce).expect("a nonce is short");
            response = response.with(&realm).with(&nonce);
            if self.announce_sha256 {
                response = response.with(&PasswordAlgorithms::new(&[
                    PasswordAlgorithmValue::SHA256,
                    PasswordAlgorithmValue::MD5,
                ]));
            }
        }
        response
    }

    /// RFC 8656 §7.2. The answer follows when the sockets are bound.
    fn allocate(
        &mut self,
        client: FiveTuple,
        message: &Message<'_>,
        wish: Allocate,
        identity: &Identity,
        now: Now,
    ) -> Result<Option<Response>, Refusal> {
        if let Some((_, allocation)) = self.of(&client) {
            return match &allocation.state {
                // The answer was lost: here it is again.
                State::Open {
                    transaction,
                    response,
                } if *transaction == u128::from(message.transaction_id()) => {
                    let response = response.clone();
                    self.reply(client, response);
                    Ok(None)
                }
                State::Open { .. } | State::Binding(_) => Err(Refusal::AllocationMismatch),
            };
        }
        if self.is_draining {
            // RFC 8656 §7.4: the client may look for another server, and waits a minute before it asks
            // this one again.
            return Err(Refusal::InsufficientCapacity);
        }
        let families = match wish.families {
            Families::One(family) => vec![family],
            Families::Both => vec![Family::V4, Family::V6],
        };
        if !families.iter().any(|family| self.families.contains(family)) {
            return Err(Refusal::AddressFamilyNotSupported);
        }
        let place = self
            .ledger
            .take(identity.user.clone(), client.client.ip(), &self.quota)
            .ok_or(Refusal::QuotaReached)?;
        // Last of what may fail: a port that was kept is given away here.
        let (port, reservation) = self.port(wish.port, identity)?;
        let lifetime = lifetime(wish.lifetime, identity, now);
        let allocation = Allocation {
            client,
            identity: identity.clone(),
            started: now.monotonic,
            expires: now.monotonic + lifetime,
            scheduled: now.monotonic + lifetime,
            relays: Relays::default(),
            permissions: Permissions::default(),
            channels: Channels::default(),
            traffic: Traffic::default(),
            state: State::Binding(Pending {
                request: message.as_bytes().to_vec(),
                missing: families.len(),
                failed: None,
                lifetime,
                reservation,
            }),
            _place: place,
        };
        let expires = allocation.expires;
        let id = self.allocations.insert(allocation);
        self.by_client.insert(client, id);
        self.schedule(expires, Deadline::Allocation(id));
        for family in families {
            let relay = RelayId {
                allocation: id,
                family,
            };
            if self.families.contains(&family) {
                self.commands.push_back(Command::Bind { relay, port });
            } else {
                self.relay_bound(relay, None, now);
            }
        }
        Ok(None)
    }

    /// What the shell is asked for, and the name under which it keeps a second port.
    fn port(
        &mut self,
        wish: Port,
        identity: &Identity,
    ) -> Result<(PortWish, Option<ReservationId>), Refusal> {
        match wish {
            Port::Any => Ok((PortWish::Any, None)),
            Port::Even { reserve: false } => Ok((PortWish::Even, None)),
            Port::Even { reserve: true } => {
                if self.ledger.reservations.is_full() {
                    return Err(Refusal::InsufficientCapacity);
                }
                self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let id = ReservationId(self.counter);
                Ok((PortWish::EvenAndNext(id), Some(id)))
            }
            Port::Reserved(id) => {
                if !self.ledger.reservations.claim(id, &identity.user) {
                    return Err(Refusal::InsufficientCapacity);
                }
                Ok((PortWish::Reserved(id), None))
            }
        }
    }

    /// All sockets of an allocation are there, or are not to be had.
    fn allocated(&mut self, id: AllocationId, now: Now) {
        let Some(allocation) = self.allocations.get_mut(id) else {
            return;
        };
        let State::Binding(pending) = &allocation.state else {
            return;
        };
        let (client, key) = (allocation.client, allocation.identity.key.clone());
        let request = pending.request.clone();
        let message = Message::from_bytes(&request).expect("it was parsed before");
        let transaction = message.transaction_id();
        let addresses: Vec<SocketAddr> = allocation.relays.iter().collect();
        if addresses.is_empty() {
            let response = Response::error(&message, &Refusal::InsufficientCapacity);
            // Nobody was told of it: it does not count as one that ended.
            self.end(id, Ending::Deleted);
            self.refused(&Refusal::InsufficientCapacity);
            return self.reply(client, response.finish(Some(&key), &message));
        }
        let mut response = Response::success(&message);
        for address in addresses {
            response = response.with(&XorRelayedAddress::new(address, transaction));
        }
        response = response
            .with(&seconds(pending.lifetime))
            .with(&mapped(&message, client));
        if let Some(family) = pending.failed {
            response = response.with(&address_error(family, self.families.contains(&family)));
        }
        let reservation = pending.reservation;
        if let Some(ReservationId(token)) = reservation {
            response = response.with(&ReservationToken::new(token));
        }
        let response = response.finish(Some(&key), &message);
        allocation.state = State::Open {
            transaction: transaction.into(),
            response: response.clone(),
        };
        let user = allocation.identity.user.clone();
        self.commands.push_back(Command::Tell(Event::Allocated {
            user: user.clone(),
            listener: client.listener,
        }));
        if let Some(id) = reservation {
            let due = now.monotonic + RESERVATION_LIFETIME;
            self.ledger.reservations.keep(id, user, due);
            self.schedule(due, Deadline::Reservation(id));
        }
        self.reply(client, response);
    }

    /// RFC 8656 §8.2. Returns what is left.
    fn refresh(
        &mut self,
        client: &FiveTuple,
        wanted: Option<Duration>,
        family: Option<Family>,
        identity: &Identity,
        now: Now,
    ) -> Result<Duration, Refusal> {
        let (id, allocation) = self.theirs(client, identity)?;
        if family.is_some_and(|family| allocation.relays.get(family).is_none()) {
            return Err(Refusal::PeerFamilyMismatch);
        }
        if wanted == Some(Duration::ZERO) {
            self.end(id, Ending::Deleted);
            return Ok(Duration::ZERO);
        }
        let lifetime = lifetime(wanted, identity, now);
        allocation.expires = now.monotonic + lifetime;
        allocation.identity = identity.clone();
        // A shorter life needs a deadline of its own; a longer one is seen when the old one comes.
        if allocation.expires < allocation.scheduled {
            let due = allocation.expires;
            allocation.scheduled = due;
            self.schedule(due, Deadline::Allocation(id));
        }
        Ok(lifetime)
    }

    /// RFC 8656 §10.2: all or none.
    fn create_permission(
        &mut self,
        client: &FiveTuple,
        peers: &[SocketAddr],
        identity: &Identity,
        now: Now,
    ) -> Result<(), Refusal> {
        for peer in peers {
            self.check_family(client, peer, identity)?;
            if !self.peers.permits_ip(peer.ip()) {
                return Err(Refusal::Forbidden);
            }
        }
        let limit = self.quota.permissions;
        let (_, allocation) = self.theirs(client, identity)?;
        let ips: Vec<IpAddr> = peers.iter().map(SocketAddr::ip).collect();
        if !allocation.permissions.has_room(&ips, limit, now.monotonic) {
            return Err(Refusal::InsufficientCapacity);
        }
        for ip in ips {
            allocation.permissions.install(ip, now.monotonic);
        }
        Ok(())
    }

    /// RFC 8656 §12.2.
    fn channel_bind(
        &mut self,
        client: &FiveTuple,
        number: ChannelNumber,
        peer: SocketAddr,
        identity: &Identity,
        now: Now,
    ) -> Result<(), Refusal> {
        self.check_family(client, &peer, identity)?;
        if !self.peers.permits(&peer) {
            return Err(Refusal::Forbidden);
        }
        let quota = self.quota;
        let (_, allocation) = self.theirs(client, identity)?;
        let now = now.monotonic;
        allocation
            .channels
            .check(number, &peer, quota.channels, now)
            .map_err(|conflict| match conflict {
                Conflict::Taken => Refusal::BadRequest,
                Conflict::Full => Refusal::InsufficientCapacity,
            })?;
        if !allocation
            .permissions
            .has_room(&[peer.ip()], quota.permissions, now)
        {
            return Err(Refusal::InsufficientCapacity);
        }
        allocation.permissions.install(peer.ip(), now);
        allocation.channels.bind(number, peer, now);
        Ok(())
    }

    /// Whether a peer is of a family that the client's allocation has.
    fn check_family(
        &mut self,
        client: &FiveTuple,
        peer: &SocketAddr,
        identity: &Identity,
    ) -> Result<(), Refusal> {
        let (_, allocation) = self.theirs(client, identity)?;
        if allocation.relays.get(Family::of(peer)).is_none() {
            return Err(Refusal::PeerFamilyMismatch);
        }
        Ok(())
    }

    /// The allocation of a client, if it is this user's. A user may come back with ephemeral
    /// credentials that are newer.
    fn theirs(
        &mut self,
        client: &FiveTuple,
        identity: &Identity,
    ) -> Result<(AllocationId, &mut Allocation), Refusal> {
        let id = *self
            .by_client
            .get(client)
            .ok_or(Refusal::AllocationMismatch)?;
        let allocation = self
            .allocations
            .get_mut(id)
            .ok_or(Refusal::AllocationMismatch)?;
        if allocation.identity.user == identity.user {
            Ok((id, allocation))
        } else {
            Err(Refusal::WrongCredentials)
        }
    }

    fn schedule(&mut self, due: Duration, deadline: Deadline) {
        let (allocations, reservations) = (&self.allocations, &self.ledger.reservations);
        let living = allocations.len() + reservations.len();
        self.expiry
            .schedule(due, deadline, living, |due, deadline| match deadline {
                Deadline::Allocation(id) => {
                    let allocation = allocations.get(id);
                    allocation.is_some_and(|allocation| allocation.scheduled == due)
                }
                Deadline::Reservation(id) => reservations.is_kept_until(id, due),
            });
    }

    fn end(&mut self, id: AllocationId, why: Ending) {
        let Some(allocation) = self.allocations.remove(id) else {
            return;
        };
        self.by_client.remove(&allocation.client);
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

    fn refused(&mut self, refusal: &Refusal) {
        let event = Event::Refused(refusal.code());
        self.commands.push_back(Command::Tell(event));
    }

    fn reply(&mut self, to: FiveTuple, message: Vec<u8>) {
        self.commands.push_back(Command::Reply { to, message });
    }
}

fn is_integrity(kind: stun_types::attribute::AttributeType) -> bool {
    use stun_types::attribute::{
        AttributeStaticType as _, MessageIntegrity, MessageIntegritySha256,
    };
    kind == MessageIntegrity::TYPE || kind == MessageIntegritySha256::TYPE
}

/// How long an allocation lives from now: never beyond the credentials.
fn lifetime(wanted: Option<Duration>, identity: &Identity, now: Now) -> Duration {
    let granted = wanted
        .unwrap_or(DEFAULT_LIFETIME)
        .clamp(DEFAULT_LIFETIME, MAX_LIFETIME);
    match identity.expires {
        Some(expires) => granted.min(Duration::from_secs(expires.saturating_sub(now.unix))),
        None => granted,
    }
}

fn seconds(lifetime: Duration) -> Lifetime {
    Lifetime::new(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
}

fn mapped(message: &Message<'_>, client: FiveTuple) -> XorMappedAddress {
    XorMappedAddress::new(client.client, message.transaction_id())
}

fn address_error(family: Family, is_supported: bool) -> AddressErrorCode {
    let refusal = if is_supported {
        Refusal::InsufficientCapacity
    } else {
        Refusal::AddressFamilyNotSupported
    };
    let code = ErrorCode::new(refusal.code(), &refusal.to_string()).expect("short");
    let family = match family {
        Family::V4 => turn_types::AddressFamily::IPV4,
        Family::V6 => turn_types::AddressFamily::IPV6,
    };
    AddressErrorCode::new(family, code)
}
