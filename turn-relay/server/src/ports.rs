//! Relay sockets: bound when an allocation begins, found by its number.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use nix::sys::socket::{setsockopt, sockopt};
use portway_relay_proto::command::{Family, PortWish, RelayId, ReservationId};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Socket, Type};

use crate::config::Config;
use crate::icmp;
use crate::local::Relayed;

/// Receive buffer of a relay socket, bytes: a burst of a peer must fit while the worker is elsewhere.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// Ports that are tried at random: in a range that is mostly free, nobody can tell which comes next.
const RANDOM_TRIES: u32 = 8;

/// Ports that are then tried in their order. A range up to this size is used to its last port; one that
/// is larger and as good as full refuses after about 1 ms.
const MAX_WALK: u32 = 2048;

/// Place of a relay socket in the table: two for each allocation.
pub(crate) type Slot = usize;

/// A bound socket with what `quinn_udp` knows of it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: UdpSocket,
    pub(crate) state: UdpSocketState,
}

impl Bound {
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        say_less(&socket)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into()),
            state,
        })
    }
}

/// Turns off what `quinn_udp` has the kernel tell about each packet and nobody here reads: 0.1 µs.
fn say_less(socket: &Socket) -> io::Result<()> {
    let address = socket.local_addr()?.as_socket();
    let is_wildcard = address.is_some_and(|address| address.ip().is_unspecified());
    #[cfg(target_os = "linux")]
    setsockopt(socket, sockopt::ReceiveTimestampns, &false)?;
    if address.is_some_and(|address| address.is_ipv4()) {
        socket.set_recv_tos_v4(false)?;
        setsockopt(socket, sockopt::Ipv4PacketInfo, &is_wildcard)?;
    } else {
        socket.set_recv_tclass_v6(false)?;
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &is_wildcard)?;
    }
    Ok(())
}

/// A relay socket.
#[derive(Debug)]
pub(crate) struct RelaySocket {
    pub(crate) id: RelayId,
    pub(crate) bound: Bound,
    /// As peers see it.
    pub(crate) public: SocketAddr,
    own: SocketAddr,
}

/// Sockets of ports that are kept beside even ones, of all workers: who asks for one may be led to
/// another worker than who had it kept.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<HashMap<ReservationId, (Socket, SocketAddr)>>);

impl Kept {
    fn lock(&self) -> MutexGuard<'_, HashMap<ReservationId, (Socket, SocketAddr)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All relay sockets of a worker.
#[derive(Debug)]
pub(crate) struct Ports {
    sockets: Vec<Option<RelaySocket>>,
    kept: Arc<Kept>,
    v4: Option<(IpAddr, IpAddr)>,
    v6: Option<(IpAddr, IpAddr)>,
    range: RangeInclusive<u16>,
    /// Sockets have the tokens from this one on.
    first_token: usize,
    /// Number of the worker whose they are, and where it tells their addresses.
    worker: usize,
    relayed: Arc<Relayed>,
}

impl Ports {
    pub(crate) fn new(
        config: &Config,
        first_token: usize,
        worker: usize,
        kept: Arc<Kept>,
        relayed: Arc<Relayed>,
    ) -> Self {
        Self {
            sockets: Vec::new(),
            kept,
            v4: config.relay_ip(Family::V4),
            v6: config.relay_ip(Family::V6),
            range: config.relay_ports.clone(),
            first_token,
            worker,
            relayed,
        }
    }

    pub(crate) const fn slot(relay: RelayId) -> Slot {
        let family = match relay.family {
            Family::V4 => 0,
            Family::V6 => 1,
        };
        relay.allocation.index() * 2 + family
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&RelaySocket> {
        self.sockets.get(slot)?.as_ref()
    }

    /// Where sockets of a family are bound, and as what peers see it.
    fn addresses(&self, family: Family) -> io::Result<(IpAddr, IpAddr)> {
        let addresses = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        addresses.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Binds a socket; returns its address as peers see it.
    pub(crate) fn bind(
        &mut self,
        relay: RelayId,
        wish: PortWish,
        registry: &Registry,
    ) -> io::Result<SocketAddr> {
        let (own, public) = self.addresses(relay.family)?;
        let (socket, address) = match wish {
            PortWish::Any => self.any(own, 1, |_| Ok(()))?.0,
            PortWish::Even => self.any(own, 2, |_| Ok(()))?.0,
            PortWish::EvenAndNext(id) => {
                let (bound, next) =
                    self.any(own, 2, |even| socket(SocketAddr::new(own, even + 1)))?;
                let address = SocketAddr::new(own, bound.1.port() + 1);
                self.kept.lock().insert(id, (next, address));
                bound
            }
            PortWish::Reserved(id) => self
                .kept
                .lock()
                .remove(&id)
                .ok_or(io::ErrorKind::AddrNotAvailable)?,
        };
        let slot = Self::slot(relay);
        icmp::keep(&socket, relay.family)?;
        let mut bound = Bound::new(socket)?;
        let token = Token(self.first_token + slot);
        registry.register(&mut bound.socket, token, Interest::READABLE)?;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        let public = SocketAddr::new(public, address.port());
        self.sockets[slot] = Some(RelaySocket {
            id: relay,
            bound,
            public,
            own: address,
        });
        let mut relayed = self.relayed.write().unwrap_or_else(PoisonError::into_inner);
        for address in [public, address] {
            relayed.insert(address, (self.worker, slot));
        }
        Ok(public)
    }

    /// A free TCP address to relay from: what `bind` makes of it, and how peers see it.
    pub(crate) fn free_tcp_address<T>(
        &self,
        family: Family,
        bind: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> io::Result<(T, SocketAddr)> {
        let (own, public) = self.addresses(family)?;
        let candidates = Candidates::new(&self.range, 1);
        let walk = candidates.random()?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for steps in 0..candidates.count.min(MAX_WALK) {
            let port = candidates.at(walk + steps);
            // Nobody must be there: connections to peers leave from there, too, and share the address.
            let probe = unbound(SocketAddr::new(own, port), Type::STREAM)?;
            let free = probe.bind(&SocketAddr::new(own, port).into());
            drop(probe);
            match free.and_then(|()| bind(SocketAddr::new(own, port))) {
                Ok(bound) => return Ok((bound, SocketAddr::new(public, port))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn close(&mut self, relay: RelayId, registry: &Registry) {
        let slot = self.sockets.get_mut(Self::slot(relay));
        let is_its = |socket: &RelaySocket| socket.id == relay;
        if let Some(slot) = slot
            && slot.as_ref().is_some_and(is_its)
            && let Some(mut socket) = slot.take()
        {
            let mut relayed = self.relayed.write().unwrap_or_else(PoisonError::into_inner);
            for address in [socket.public, socket.own] {
                relayed.remove(&address);
            }
            if let Err(error) = registry.deregister(&mut socket.bound.socket) {
                tracing::debug!(%error, "a relay socket was not known to the poller");
            }
        }
    }

    pub(crate) fn release(&self, id: ReservationId) {
        self.kept.lock().remove(&id);
    }

    /// A socket on a random port that is a multiple of `step` and for which `also` can be had too.
    fn any<T>(
        &self,
        ip: IpAddr,
        step: u16,
        also: impl Fn(u16) -> io::Result<T>,
    ) -> io::Result<((Socket, SocketAddr), T)> {
        let candidates = Candidates::new(&self.range, step);
        let walk = candidates.random()?;
        // A socket that could not be bound can be bound elsewhere.
        let mut spare = None;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for attempt in 0..RANDOM_TRIES + candidates.count.min(MAX_WALK) {
            let port = match attempt.checked_sub(RANDOM_TRIES) {
                None => candidates.at(candidates.random()?),
                Some(steps) => candidates.at(walk + steps),
            };
            let address = SocketAddr::new(ip, port);
            let socket = match spare.take() {
                Some(socket) => socket,
                None => not_bound(address)?,
            };
            last = match socket.bind(&address.into()) {
                Ok(()) => match also(port) {
                    Ok(more) => return Ok(((socket, address), more)),
                    Err(error) => error,
                },
                Err(error) => {
                    spare = Some(socket);
                    error
                }
            };
            let is_of_this_port = [io::ErrorKind::AddrInUse, io::ErrorKind::PermissionDenied];
            if !is_of_this_port.contains(&last.kind()) {
                break;
            }
        }
        Err(last)
    }
}

/// Ports of a range that are multiples of a step and have as many neighbours within it.
struct Candidates {
    first: u32,
    step: u32,
    count: u32,
}

impl Candidates {
    fn new(range: &RangeInclusive<u16>, step: u16) -> Self {
        let step = u32::from(step);
        let first = u32::from(*range.start()).next_multiple_of(step);
        let count = (u32::from(*range.end()) + 1).saturating_sub(first) / step;
        Self { first, step, count }
    }

    fn random(&self) -> io::Result<u32> {
        if self.count == 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(u32::from_ne_bytes(bytes) % self.count)
    }

    /// One of them; after the last comes the first.
    fn at(&self, index: u32) -> u16 {
        let port = self.first + index % self.count * self.step;
        u16::try_from(port).expect("a multiple within the range")
    }
}

/// A socket for an address, which takes no other family; not bound yet.
pub(crate) fn unbound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A bound relay socket.
fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = not_bound(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A relay socket for an address of this family.
fn not_bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(address, Type::DGRAM)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(range: RangeInclusive<u16>) -> Ports {
        Ports {
            sockets: Vec::new(),
            kept: Arc::default(),
            v4: None,
            v6: None,
            range,
            first_token: 0,
            worker: 0,
            relayed: Arc::default(),
        }
    }

    #[test]
    fn the_last_port_of_all_can_be_had() {
        let ip = "127.0.0.1".parse().unwrap();
        let ports = ports(u16::MAX..=u16::MAX);
        let ((_socket, address), ()) = ports.any(ip, 1, |_| Ok(())).unwrap();
        assert_eq!(address.port(), u16::MAX);
    }

    #[test]
    fn the_only_free_port_is_found() {
        let ip = "127.8.8.1".parse().unwrap();
        let (range, ports) = (21_000..=21_007, ports(21_000..=21_007));
        let take = |port| socket(SocketAddr::new(ip, port)).unwrap();
        let mut taken: Vec<Option<Socket>> = range.clone().map(take).map(Some).collect();
        assert!(ports.any(ip, 1, |_| Ok(())).is_err(), "all are taken");
        for _round in 0..64 {
            for (place, free) in range.clone().enumerate() {
                taken[place] = None;
                let ((found, address), ()) = ports.any(ip, 1, |_| Ok(())).unwrap();
                assert_eq!(address.port(), free);
                let even = ports.any(ip, 2, |_| Ok(()));
                assert!(even.is_err(), "it is taken or odd");
                drop(found);
                let even = ports.any(ip, 2, |_| Ok(()));
                assert_eq!(even.is_ok(), free % 2 == 0);
                let pair = ports.any(ip, 2, |even| socket(SocketAddr::new(ip, even + 1)));
                assert!(pair.is_err(), "its neighbour is taken");
                drop(even);
                taken[place] = Some(take(free));
            }
        }
    }

    #[test]
    fn the_only_free_pair_is_found() {
        let ip = "127.8.8.2".parse().unwrap();
        // Neither end is a pair's.
        let (range, ports) = (21_001..=21_008, ports(21_001..=21_008));
        let take = |port| socket(SocketAddr::new(ip, port)).unwrap();
        let mut taken: Vec<Option<Socket>> = range.map(take).map(Some).collect();
        for _round in 0..64 {
            for place in [1, 3, 5] {
                (taken[place], taken[place + 1]) = (None, None);
                let first = 21_001 + u16::try_from(place).unwrap();
                let pair = ports.any(ip, 2, |even| socket(SocketAddr::new(ip, even + 1)));
                assert_eq!(pair.unwrap().0.1.port(), first);
                (taken[place], taken[place + 1]) = (Some(take(first)), Some(take(first + 1)));
            }
        }
    }

    #[test]
    fn a_range_without_a_pair_has_none() {
        let ip = "127.8.8.3".parse().unwrap();
        assert!(ports(21_000..=21_000).any(ip, 2, |_| Ok(())).is_err());
        assert!(ports(21_001..=21_002).any(ip, 2, |_| Ok(())).is_err());
    }
}
