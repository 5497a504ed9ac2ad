//! One thread: a machine, a poller, and the sockets of the clients that the kernel gives it. Hot path.
//!
//! ```text
//! poll ─► read bursts of ready sockets ─► machine ─► batches out ─► commands ─► deadlines ─┐
//!   ▲                                                                                      │
//!   └──────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Sockets are edge-triggered: one that still has something after its share waits in `ready`, so that a
//! busy flow does not starve the others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll, Token, Waker};
use portway_relay_proto::Now;
use portway_relay_proto::auth::Users;
use portway_relay_proto::command::Command;
use portway_relay_proto::event::Event;
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::limits::MAX_CONTROL;
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::{Ledger, Quota};
use portway_relay_proto::server::{self, FromClient, FromPeer, Server};
use portway_relay_proto::tcp::RelayTransport;
use quinn_udp::RecvMeta;

use crate::batch::{Ahead, Batch, Batches, Flow};
use crate::config::{Config, Listen, Transport};
use crate::icmp;
use crate::listener::{self, GIVEN, Listener, UdpListener};
use crate::local::{Inbox, LocalPeer, Relayed};
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::ports::{Kept, Ports, Slot};
use crate::stream::{self, Arrived, Connection, Connections, Read};
use crate::{Sessions, StartError};

mod splice;

use splice::PeerStreams;

/// Buffers of one read. Each holds what the kernel has put together of one flow (UDP_GRO): 64 KiB, and
/// a little more, so that their beginnings do not share the same few lines of the caches.
const BURST: usize = 16;
const BURST_BYTES: usize = 64 * 1024 + 1536;

/// Buffers of the first read of a relay socket: most hold few packets, and a buffer that stays
/// empty tells that there are no more.
const FIRST_BURST: usize = 4;

/// ICMP errors of one socket that are read at a time.
const ICMP_ERRORS: usize = 256;

/// Reads of one socket before the next one has its turn.
const READS: usize = 4;

/// Events of one look at the poller.
const EVENTS: usize = 256;

/// Listeners have the tokens below this one, relay sockets those above.
const FIRST_RELAY: usize = 1024;

/// Connections of clients have the tokens from this one on.
const FIRST_CONNECTION: usize = 1 << 32;

/// Connections with peers have the tokens from this one on, and their listeners from the next.
const FIRST_PEER_STREAM: usize = 1 << 40;
const FIRST_TCP_LISTENER: usize = 1 << 48;

/// How often connections without an allocation are looked for.
const SWEEP: Duration = Duration::from_secs(5);

const WAKER: Token = Token(usize::MAX);

/// What a worker is asked from outside.
pub(crate) enum Order {
    /// Serve a connection.
    Take(Arrived),
    /// This peer is in the same process.
    Attach(SocketAddr, Arc<dyn LocalPeer>),
    /// It is not any more.
    Detach(SocketAddr),
    /// Prolong the credentials of these sessions.
    Prolong(Arc<Sessions>),
    /// Do this with the machine.
    Ask(Question),
    /// Let in others, by other rules.
    Reload(Box<Reload>),
    /// End.
    End,
}

/// Something that is done with the machine between two packets; its answer is its own affair.
pub(crate) type Question = Box<dyn FnOnce(&mut Server, Now) + Send>;

/// What may change while a worker runs.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) users: Users,
    pub(crate) peers: PeerPolicy,
    pub(crate) quota: Quota,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// What a worker shares with others.
pub(crate) struct Shared {
    /// Its number.
    pub(crate) index: usize,
    pub(crate) nonce_key: [u8; 32],
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) relayed: Arc<Relayed>,
}

/// A worker.
pub(crate) struct Worker {
    poll: Poll,
    waker: Arc<Waker>,
    orders: Receiver<Order>,
    ready: VecDeque<Token>,
    buffer: Vec<u8>,
    core: Core,
}

/// Everything but what is being read.
struct Core {
    server: Server,
    listeners: Vec<Listener>,
    peers: Peers,
    inbox: Arc<Inbox>,
    connections: Connections,
    /// Connections with peers.
    streams: PeerStreams,
    /// What is to be looked at although no socket says so.
    wake: Vec<Token>,
    /// The first of the listeners of connections that were handed over, see [`GIVEN`].
    given: ListenerId,
    /// Connections that have something to send.
    unflushed: Vec<stream::Slot>,
    swept: Duration,
    registry: mio::Registry,
    to_peers: Batches<Slot>,
    to_clients: Batches<ListenerId>,
    counters: Arc<Counters>,
    started: Instant,
    now: Now,
}

impl Worker {
    /// Binds the listeners. Ports that were 0 are filled in, so that other workers share them.
    pub(crate) fn new(
        config: &Config,
        listen: &mut [Listen],
        shared: Shared,
        orders: Receiver<Order>,
    ) -> Result<Self, StartError> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(Waker::new(&registry, WAKER)?);
        let mut listeners = Vec::new();
        for (index, listen) in listen.iter_mut().enumerate() {
            let (listener, bound) =
                listener::listener(*listen, index, config, &registry).map_err(|source| {
                    StartError::Listen {
                        address: listen.address,
                        source,
                    }
                })?;
            listen.address = bound;
            listeners.push(listener);
        }
        let given = ListenerId(u16::try_from(listeners.len()).map_err(io::Error::other)?);
        listeners.extend(GIVEN.map(Listener::Given));
        let is_stream = |(index, listener): (usize, &Listener)| {
            let id = u16::try_from(index).ok().map(ListenerId)?;
            (listener.transport() != Transport::Udp).then_some(id)
        };
        let streams = if config.tcp_allocations {
            listeners.iter().enumerate().filter_map(is_stream).collect()
        } else {
            HashSet::new()
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let server = Server::new(
            server::Config {
                users: config.users(),
                peers: PeerPolicy {
                    listeners: config.own_addresses(listen),
                    ..config.peers.clone()
                },
                quota: config.quota,
                families: config.families(),
                announce_sha256: config.announce_sha256,
                mobility: config.workers.get() == 1,
                tcp_allocations: streams,
                discovery: config.discovery(),
                nonce_key: shared.nonce_key,
            },
            shared.ledger,
            u64::from_ne_bytes(seed),
        );
        let started = Instant::now();
        Ok(Self {
            poll,
            waker,
            orders,
            ready: VecDeque::new(),
            buffer: vec![0; BURST * BURST_BYTES],
            core: Core {
                server,
                listeners,
                peers: Peers {
                    ports: Ports::new(
                        config,
                        FIRST_RELAY,
                        shared.index,
                        shared.kept,
                        shared.relayed,
                    ),
                    attached: HashMap::new(),
                    attached_only: config.peers.attached_only,
                },
                inbox: shared.inbox,
                connections: Connections::new(FIRST_CONNECTION),
                streams: PeerStreams::default(),
                wake: Vec::new(),
                given,
                unflushed: Vec::new(),
                swept: Duration::ZERO,
                registry,
                to_peers: Batches::new(),
                to_clients: Batches::new(),
                counters: shared.counters,
                started,
                now: now(started),
            },
        })
    }

    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Works until it is told to end.
    ///
    /// # Errors
    /// If it cannot wait for packets.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = if self.ready.is_empty() {
                self.core.until_timeout()
            } else {
                Some(Duration::ZERO)
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.core.now = now(self.core.started);
            let mut is_woken = false;
            // One look gives each token once.
            let waiting = self.ready.len();
            for event in &events {
                let is_waiting = |token: &Token| *token == event.token();
                if event.is_error() {
                    self.core.hear_icmp(event.token());
                }
                if event.token() == WAKER {
                    is_woken = true;
                } else if !self.ready.iter().take(waiting).any(is_waiting) {
                    self.ready.push_back(event.token());
                }
            }
            if is_woken {
                if !self.obey() {
                    return Ok(());
                }
                self.core.hear_local_peers();
            }
            for _turn in 0..self.ready.len() {
                let Some(token) = self.ready.pop_front() else {
                    break;
                };
                if self.core.read(token, &mut self.buffer) == More::Perhaps {
                    self.ready.push_back(token);
                }
            }
            self.core.expire();
            self.core.flush_to_clients();
            self.core.flush_connections();
            self.ready.extend(self.core.wake.drain(..));
            self.core.sweep();
        }
    }

    /// Does what it is told; `false`: end.
    fn obey(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Ask(question) => {
                    question(&mut self.core.server, self.core.now);
                    self.core.settle();
                }
                Order::Take(arrived) => {
                    if let Some(slot) = self.core.take(arrived) {
                        self.ready.push_back(Token(FIRST_CONNECTION + slot));
                    }
                }
                Order::Attach(address, peer) => {
                    self.core.server.attach(address);
                    self.core.peers.attached.insert(address, peer);
                }
                Order::Detach(address) => {
                    self.core.server.detach(&address);
                    self.core.peers.attached.remove(&address);
                }
                Order::Prolong(sessions) => self.core.server.prolong(|identity| {
                    let session = identity.session.clone()?;
                    sessions.get(&(identity.user.clone(), session)).copied()
                }),
                Order::Reload(new) => self.core.reload(*new),
                Order::End => return false,
            }
        }
        true
    }
}

/// Whether a socket may have more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Perhaps,
    No,
}

impl Core {
    fn reload(&mut self, new: Reload) {
        self.server.reload(new.users, new.peers, new.quota);
        self.settle();
        for listener in &mut self.listeners {
            if let (Listener::Stream(listener), Some(tls)) = (listener, &new.tls) {
                listener.renew(tls);
            }
        }
    }

    /// Reads a share of what a socket has, and sends what comes of it.
    fn read(&mut self, token: Token, buffer: &mut [u8]) -> More {
        let more = if let Some(slot) = token.0.checked_sub(FIRST_TCP_LISTENER) {
            Some(self.accept_peers(slot))
        } else if let Some(slot) = token.0.checked_sub(FIRST_PEER_STREAM) {
            Some(self.pump(slot, buffer))
        } else if let Some(slot) = token.0.checked_sub(FIRST_CONNECTION) {
            (0..READS).find_map(|_turn| self.read_connection(slot, buffer))
        } else {
            (0..READS).find_map(|turn| {
                if turn == 0 && token.0 >= FIRST_RELAY {
                    self.read_burst::<FIRST_BURST>(token, buffer)
                } else {
                    self.read_burst::<BURST>(token, buffer)
                }
            })
        };
        self.flush_to_peers();
        self.flush_to_clients();
        self.flush_connections();
        more.unwrap_or(More::Perhaps)
    }

    /// One read of a connection, or a chance to write. `None`: there may be more.
    fn read_connection(&mut self, slot: stream::Slot, buffer: &mut [u8]) -> Option<More> {
        let Some(connection) = self.connections.get_mut(slot) else {
            return Some(More::No);
        };
        if let Some(peer) = connection.spliced {
            return Some(self.pump(peer, buffer));
        }
        let read = connection.read(buffer);
        let client = connection.client;
        let limit = if self.server.has_allocation(&client) {
            stream::MAX_FRAME
        } else {
            MAX_CONTROL
        };
        let Ok(frames) = connection.frames(limit) else {
            self.counters.dropped(server::Drop::Malformed);
            self.close_connection(slot);
            return Some(More::No);
        };
        for range in frames.ranges {
            self.hear_client(client, &frames.bytes[range], Ahead::More);
        }
        // It may be writable again.
        self.unflushed.push(slot);
        match read {
            Read::More => None,
            Read::Drained => Some(More::No),
            Read::Closed => {
                self.flush_to_peers();
                self.close_connection(slot);
                Some(More::No)
            }
        }
    }

    fn close_connection(&mut self, slot: stream::Slot) {
        if let Some(client) = self.connections.close(slot, &self.registry) {
            self.server.client_gone(&client);
            self.settle();
        }
    }

    fn flush_connections(&mut self) {
        while let Some(slot) = self.unflushed.pop() {
            let flushed = self.connections.get_mut(slot).map(Connection::flush);
            if let Some(Err(error)) = flushed {
                tracing::trace!(%error, "a connection is over");
                self.close_connection(slot);
            }
        }
    }

    /// Ends connections that have been without an allocation for too long.
    fn sweep(&mut self) {
        let now = self.now.monotonic;
        if now.saturating_sub(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let mut idle = Vec::new();
        for (slot, connection) in self.connections.iter_mut() {
            if self.server.has_allocation(&connection.client) {
                connection.idle_since = now;
            } else if now.saturating_sub(connection.idle_since) > stream::IDLE {
                idle.push(slot);
            }
        }
        for slot in idle {
            self.close_connection(slot);
        }
    }

    /// Takes a connection that somebody else has accepted; returns its place.
    fn take(&mut self, arrived: Arrived) -> Option<stream::Slot> {
        let now = self.now.monotonic;
        let listener = ListenerId(self.given.0 + u16::from(arrived.tls.is_some()));
        let added = self.connections.add(arrived, listener, &self.registry, now);
        added.unwrap_or_else(|error| {
            tracing::warn!(%error, "a connection was not taken over");
            None
        })
    }

    /// Takes the connections that wait at a listener.
    fn accept(&mut self, listener: usize) -> More {
        let Some(Listener::Stream(listener)) = self.listeners.get(listener) else {
            return More::No;
        };
        for _connection in 0..READS {
            let now = self.now.monotonic;
            match self.connections.accept(listener, &self.registry, now) {
                Ok(true) => {}
                Ok(false) => return More::No,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    return More::No;
                }
            }
        }
        More::Perhaps
    }

    /// One read of so many buffers. `None`: there may be more.
    fn read_burst<const BUFFERS: usize>(
        &mut self,
        token: Token,
        buffer: &mut [u8],
    ) -> Option<More> {
        let mut metas = [RecvMeta::default(); BUFFERS];
        let bound = match token.0.checked_sub(FIRST_RELAY) {
            None => match self.listeners.get(token.0)? {
                Listener::Udp(listener) => &listener.bound,
                Listener::Stream(_) => return Some(self.accept(token.0)),
                Listener::Given(_) => return Some(More::No),
            },
            // Closed since it was ready.
            Some(slot) => match self.peers.ports.get(slot) {
                Some(socket) => &socket.bound,
                None => return Some(More::No),
            },
        };
        let mut chunks = buffer.chunks_exact_mut(BURST_BYTES);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = bound
            .state
            .recv((&bound.socket).into(), &mut slices, &mut metas);
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(More::No),
            // An ICMP message about something sent before; the next read is of the next packet.
            Err(_) => return None,
        };
        let metas = &metas[..count];
        for (index, (meta, chunk)) in metas
            .iter()
            .zip(buffer.chunks_exact(BURST_BYTES))
            .enumerate()
        {
            let follows = |later: &RecvMeta| later.addr == meta.addr;
            let is_lone = meta.stride >= meta.len && !metas[index + 1..].iter().any(follows);
            let ahead = if is_lone { Ahead::Nothing } else { Ahead::More };
            for packet in packets(&chunk[..meta.len], meta.stride) {
                match token.0.checked_sub(FIRST_RELAY) {
                    None => self.client_packet(token.0, meta, packet, ahead),
                    Some(slot) => self.peer_packet(slot, meta.addr, packet),
                }
            }
        }
        // The queue was empty when the kernel stopped; what came since is an event of its own.
        (count < BUFFERS).then_some(More::No)
    }

    fn client_packet(&mut self, listener: usize, meta: &RecvMeta, packet: &[u8], ahead: Ahead) {
        let Ok(id) = u16::try_from(listener) else {
            return;
        };
        let is_wildcard = matches!(
            &self.listeners[listener],
            Listener::Udp(UdpListener {
                is_wildcard: true,
                ..
            })
        );
        let client = FiveTuple {
            listener: ListenerId(id),
            client: meta.addr,
            local: meta.dst_ip.filter(|_| is_wildcard),
        };
        self.hear_client(client, packet, ahead);
    }

    fn hear_client(&mut self, client: FiveTuple, packet: &[u8], ahead: Ahead) {
        match self.server.handle_client(client, packet, self.now) {
            FromClient::ToPeer {
                relay,
                peer,
                payload,
            } => {
                let flow = Flow {
                    socket: Ports::slot(relay),
                    to: peer,
                    from: None,
                };
                let payload = &packet[payload];
                let Some(socket) = self.peers.ports.get(flow.socket) else {
                    return;
                };
                if ahead == Ahead::Nothing && !self.to_peers.has(&flow) {
                    // Copied nowhere. 0.1 us, for what many flows touch does not fit the first cache.
                    self.peers.send_one(socket, peer, payload, &self.counters);
                } else {
                    let segments = socket.bound.state.max_gso_segments();
                    self.to_peers.push(flow, &[payload], segments, |batch| {
                        self.peers.send(batch, &self.counters);
                    });
                }
                self.counters.packets_to_peers.add(1);
                self.counters.bytes_to_peers.add(payload.len());
            }
            FromClient::Answered => self.settle(),
            FromClient::Dropped(why) => self.counters.dropped(why),
        }
    }

    fn peer_packet(&mut self, slot: Slot, peer: SocketAddr, packet: &[u8]) {
        let Some(socket) = self.peers.ports.get(slot) else {
            return;
        };
        match self
            .server
            .handle_peer(socket.id, peer, packet.len(), self.now)
        {
            FromPeer::ToClient { client, prefix } => {
                let padding = &[0; 4][..prefix.padding];
                self.send_to_client(client, &[prefix.as_bytes(), packet, padding]);
                self.counters.packets_to_clients.add(1);
                self.counters.bytes_to_clients.add(packet.len());
            }
            FromPeer::Dropped(why) => self.counters.dropped(why),
        }
    }

    /// Tells clients what is said of packets that did not arrive. What is left over comes with the next.
    fn hear_icmp(&mut self, token: Token) {
        let Some(slot) = token.0.checked_sub(FIRST_RELAY) else {
            return;
        };
        for _error in 0..ICMP_ERRORS {
            let Some(socket) = self.peers.ports.get(slot) else {
                return;
            };
            let relay = socket.id;
            let Some((peer, error)) = icmp::next(&socket.bound.socket, relay.family) else {
                return;
            };
            self.server.handle_icmp(relay, peer, error, self.now);
            self.settle();
        }
    }

    /// Forwards what peers in this process have sent.
    fn hear_local_peers(&mut self) {
        for burst in self.inbox.take() {
            for packet in packets(&burst.packets, burst.segment) {
                self.peer_packet(burst.slot, burst.peer, packet);
            }
        }
        self.flush_to_clients();
        self.flush_connections();
    }

    /// Sends a packet made of these parts, together with others of its flow.
    fn send_to_client(&mut self, client: FiveTuple, parts: &[&[u8]]) {
        match &self.listeners[usize::from(client.listener.0)] {
            Listener::Udp(listener) => {
                let flow = Flow {
                    socket: client.listener,
                    to: client.client,
                    from: client.local,
                };
                let segments = listener.bound.state.max_gso_segments();
                self.to_clients.push(flow, parts, segments, |batch| {
                    send_to_client(batch, &self.listeners, &self.counters);
                });
            }
            Listener::Stream(_) | Listener::Given(_) => {
                let Some((slot, connection)) = self.connections.of(&client) else {
                    return;
                };
                if !connection.push(parts) {
                    self.counters.dropped_unsent.add(1);
                }
                if self.unflushed.last() != Some(&slot) {
                    self.unflushed.push(slot);
                }
            }
        }
    }

    fn flush_to_peers(&mut self) {
        self.to_peers
            .flush(|batch| self.peers.send(batch, &self.counters));
    }

    fn flush_to_clients(&mut self) {
        self.to_clients
            .flush(|batch| send_to_client(batch, &self.listeners, &self.counters));
    }

    /// Does what the machine wants.
    fn settle(&mut self) {
        while let Some(command) = self.server.next_command() {
            match command {
                Command::Reply { to, message } => {
                    self.send_to_client(to, &[&message]);
                    self.counters.answers.add(1);
                }
                Command::Bind {
                    relay,
                    port,
                    transport,
                } => {
                    let address = match transport {
                        RelayTransport::Udp => self.peers.ports.bind(relay, port, &self.registry),
                        RelayTransport::Tcp => self.listen(relay),
                    };
                    match &address {
                        Ok(_) => self.counters.sockets_total.add(1),
                        Err(error) => tracing::warn!(%error, "no relay socket is to be had"),
                    }
                    self.server.relay_bound(relay, address.ok(), self.now);
                }
                Command::Close(relay) => {
                    self.close_listener(relay);
                    // What was read before is sent before.
                    self.flush_to_peers();
                    self.peers.ports.close(relay, &self.registry);
                }
                Command::Release(id) => self.peers.ports.release(id),
                Command::Connect {
                    relay,
                    connection,
                    peer,
                } => self.connect(relay, connection, peer),
                Command::Splice { connection, client } => self.splice(connection, client),
                Command::CloseConnection(id) => self.close_peer(id),
                Command::Tell(event) => self.count(event),
            }
        }
        self.counters
            .allocations
            .set(self.server.allocation_count());
    }

    fn count(&self, event: Event) {
        let transport = |listener: ListenerId| self.listeners[usize::from(listener.0)].transport();
        match event {
            Event::Allocated { user, listener } => {
                self.counters.allocations_started_total.add(1);
                self.counters.of(transport(listener)).add(1);
                self.counters.users().begin(user);
            }
            Event::Ended {
                user,
                listener,
                why,
                traffic,
            } => {
                self.counters.ended(why);
                self.counters.of(transport(listener)).less(1);
                self.counters.users().end(&user, &traffic);
            }
            Event::Moved => self.counters.allocations_moved_total.add(1),
            Event::Refused(code) => self.counters.refused(code),
        }
    }

    fn expire(&mut self) {
        if self
            .server
            .poll_timeout()
            .is_some_and(|due| due <= self.now.monotonic)
        {
            self.server.handle_timeout(self.now);
            self.settle();
        }
    }

    fn until_timeout(&self) -> Option<Duration> {
        let sweep = (!self.connections.is_empty()).then_some(self.swept + SWEEP);
        let due = self.server.poll_timeout().into_iter().chain(sweep).min()?;
        Some(due.saturating_sub(self.started.elapsed()))
    }
}

/// The packets of one read or burst; one that is empty is a packet too.
fn packets(read: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    let empty = read.is_empty().then_some(read);
    empty.into_iter().chain(read.chunks(stride.max(1)))
}

fn send_to_client(batch: &Batch<ListenerId>, listeners: &[Listener], counters: &Counters) {
    let listener = listeners.get(usize::from(batch.flow().socket.0));
    let Some(Listener::Udp(UdpListener { bound, .. })) = listener else {
        return;
    };
    if let Err(error) = batch.send(bound) {
        tracing::trace!(%error, "packets to a client were not sent");
        counters.dropped_unsent.add(batch.count());
    }
}

fn now(started: Instant) -> Now {
    Now {
        monotonic: started.elapsed(),
        unix: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    }
}
