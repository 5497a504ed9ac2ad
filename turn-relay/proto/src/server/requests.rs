//! What clients ask for (RFC 8656 §7 to §12, RFC 8016, RFC 5780).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use stun_types::attribute::{ErrorCode, XorMappedAddress};
use stun_types::message::{BINDING, Message};
use turn_types::attribute::{AddressErrorCode, Lifetime, ReservationToken, XorRelayedAddress};

use super::{Deadline, Drop, FromClient, Server};
use crate::Now;
use crate::allocation::{Allocation, AllocationId, Pending, Relays, State};
use crate::auth::Identity;
use crate::channel::{ChannelNumber, Channels, Conflict};
use crate::command::{Command, Family, PortWish, RelayId, ReservationId};
use crate::discovery::CHANGE_REQUEST;
use crate::event::{Ending, Event};
use crate::five_tuple::FiveTuple;
use crate::limits::{DEFAULT_LIFETIME, MAX_LIFETIME, RESERVATION_LIFETIME};
use crate::mobility::Mobility;
use crate::permission::Permissions;
use crate::request::{Allocate, Families, Port, Refusal, Request};
use crate::response::Response;
use crate::session::Traffic;
use crate::tcp::RelayTransport;

impl Server {
    pub(super) fn request(
        &mut self,
        client: FiveTuple,
        message: &Message<'_>,
        now: Now,
    ) -> FromClient {
        if message.method() == BINDING {
            if !self.may_hear(&client, now) {
                return FromClient::Dropped(Drop::TooMany);
            }
            let (to, response) = self.binding(client, message).unwrap_or_else(|refusal| {
                self.refused(&refusal);
                (client, Response::error(message, &refusal))
            });
            self.reply(to, response.finish(None, message));
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
            Request::Refresh {
                lifetime,
                family,
                mobility,
            } => self
                .follow(client, mobility, &identity)
                .and_then(|()| self.refresh(&client, lifetime, family, &identity, now))
                .map(|lifetime| {
                    let response = Response::success(message).with(&seconds(lifetime));
                    Some(self.ticketed(response, &client))
                }),
            Request::CreatePermission { peers } => self
                .create_permission(&client, &peers, &identity, now)
                .map(|()| Some(Response::success(message))),
            Request::ChannelBind { number, peer } => self
                .channel_bind(&client, number, peer, &identity, now)
                .map(|()| Some(Response::success(message))),
            Request::Connect { peer } => self
                .connect(&client, message, peer, &identity, now)
                .map(|()| None),
            Request::ConnectionBind { connection } => self
                .connection_bind(client, message, connection, &identity)
                .map(|()| None),
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

    /// RFC 8489 §12, RFC 5780 §6: whom to answer, and what.
    fn binding(
        &self,
        client: FiveTuple,
        message: &Message<'_>,
    ) -> Result<(FiveTuple, Response), Refusal> {
        Request::parse(message)?;
        let response = Response::success(message).with(&mapped(message, client));
        let origin = match &self.discovery {
            Some(discovery) => discovery.origin(client.listener, message)?,
            None => None,
        };
        let Some(origin) = origin else {
            if message.has_attribute(CHANGE_REQUEST) {
                return Err(Refusal::UnknownAttribute(vec![CHANGE_REQUEST.value()]));
            }
            return Ok((client, response));
        };
        let [from, other] = origin.attributes();
        let to = FiveTuple {
            listener: origin.listener,
            ..client
        };
        Ok((to, response.with(&from).with(&other)))
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
        let is_tcp = wish.transport == RelayTransport::Tcp;
        if is_tcp && self.streams.is_empty() {
            return Err(Refusal::UnsupportedTransport);
        }
        if self.by_data.contains_key(&client) || (is_tcp && !self.is_stream(&client)) {
            return Err(Refusal::BadRequest);
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
        let identity = self.users.holder(identity);
        let lifetime = lifetime(wish.lifetime, &identity, now);
        let allocation = Allocation {
            client,
            identity,
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
            place,
            tcp: is_tcp.then(Box::default),
            moves: (wish.is_mobile && self.tickets.is_some()).then_some(0),
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
                self.commands.push_back(Command::Bind {
                    relay,
                    port,
                    transport: wish.transport,
                });
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
                let id = ReservationId(self.unguessable());
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
    pub(super) fn allocated(&mut self, id: AllocationId, now: Now) {
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
        if let (Some(tickets), Some(moves)) = (&self.tickets, allocation.moves) {
            response = response.with(&tickets.issue(id, moves).attribute());
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

    /// RFC 8016 §3.2: a client that is heard from elsewhere takes with it what its ticket is for. From
    /// now on it is heard there only.
    fn follow(
        &mut self,
        client: FiveTuple,
        mobility: Mobility,
        identity: &Identity,
    ) -> Result<(), Refusal> {
        let (Mobility::Ticket(ticket), Some(tickets)) = (mobility, &self.tickets) else {
            return Ok(());
        };
        // It is there already: the answer was lost, or nothing has changed.
        if self.by_client.contains_key(&client) {
            return Ok(());
        }
        let (id, moves) = tickets.check(&ticket).ok_or(Refusal::BadRequest)?;
        let allocation = self.allocations.get_mut(id).ok_or(Refusal::BadRequest)?;
        if allocation.moves != Some(moves) {
            return Err(Refusal::BadRequest);
        }
        if allocation.identity.user != identity.user {
            return Err(Refusal::WrongCredentials);
        }
        allocation.moves = Some(moves.wrapping_add(1));
        let old = std::mem::replace(&mut allocation.client, client);
        self.by_client.remove(&old);
        self.by_client.insert(client, id);
        self.commands.push_back(Command::Tell(Event::Moved));
        Ok(())
    }

    /// With the ticket of a client that may move.
    fn ticketed(&self, response: Response, client: &FiveTuple) -> Response {
        match (&self.tickets, self.of(client)) {
            (
                Some(tickets),
                Some((
                    id,
                    Allocation {
                        moves: Some(moves), ..
                    },
                )),
            ) => response.with(&tickets.issue(id, *moves).attribute()),
            _ => response,
        }
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
        self.check_peer(client, &peer, identity)?;
        let quota = self.quota;
        let (_, allocation) = self.theirs(client, identity)?;
        if allocation.tcp.is_some() {
            return Err(Refusal::BadRequest);
        }
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

    /// Whether a client may send to this peer, of a family that its allocation has.
    pub(super) fn check_peer(
        &mut self,
        client: &FiveTuple,
        peer: &SocketAddr,
        identity: &Identity,
    ) -> Result<(), Refusal> {
        self.check_family(client, peer, identity)?;
        if self.peers.permits(peer) {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        }
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
    pub(super) fn theirs(
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
