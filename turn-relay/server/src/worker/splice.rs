//! TCP allocations (RFC 6062): connections with peers, and bytes between them and those of clients.
//!
//! ```text
//! client ══► connection ──► to_peer ──► peer          a side is read only while there is room for what
//! client ◄══ connection ◄── outgoing ◄─ peer          comes of it, and its end is passed on
//! ```

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use portway_relay_proto::command::RelayId;
use portway_relay_proto::five_tuple::FiveTuple;
use portway_relay_proto::tcp::ConnectionId;
use socket2::{Socket, Type};

use super::{Core, FIRST_PEER_STREAM, FIRST_TCP_LISTENER, More, READS};
use crate::ports;
use crate::stream::{Read, write_some};

/// Bytes that wait for either side of a pair before the other is not read any more.
const ROOM: usize = 64 * 1024;

/// Connections that wait to be accepted at a relayed address.
const BACKLOG: i32 = 16;

/// Place of a connection with a peer in the table.
type Slot = usize;

/// A connection with a peer.
#[derive(Debug)]
struct PeerStream {
    id: ConnectionId,
    socket: TcpStream,
    is_connecting: bool,
    /// The connection of the client that belongs to it, when there is one.
    client: Option<FiveTuple>,
    to_peer: Vec<u8>,
    /// Whether nothing comes any more from the peer, from the client; and whether that is passed on.
    peer_ended: bool,
    client_ended: bool,
    told_peer: bool,
    told_client: bool,
}

/// All connections with peers, and the relayed addresses that await some.
#[derive(Debug, Default)]
pub(super) struct PeerStreams {
    slots: Vec<Option<PeerStream>>,
    free: Vec<Slot>,
    by_id: HashMap<ConnectionId, Slot>,
    listeners: HashMap<ports::Slot, (RelayId, TcpListener)>,
}

/// How a pair goes on.
enum Pumped {
    /// There may be more at once.
    More,
    /// Nothing until one of the sockets says so.
    Waits,
    /// It is over.
    Over,
}

impl Core {
    /// Awaits peers at a new relayed address; returns it as they see it.
    pub(super) fn listen(&mut self, relay: RelayId) -> io::Result<SocketAddr> {
        let (own, public) = self.peers.ports.free_tcp_address(relay.family, |address| {
            let socket = socket_at(address)?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })?;
        let slot = ports::Ports::slot(relay);
        let mut listener = TcpListener::from_std(own.into());
        let token = Token(FIRST_TCP_LISTENER + slot);
        self.registry
            .register(&mut listener, token, Interest::READABLE)?;
        self.streams.listeners.insert(slot, (relay, listener));
        Ok(public)
    }

    pub(super) fn close_listener(&mut self, relay: RelayId) {
        let slot = ports::Ports::slot(relay);
        let is_its = |(id, _): &(RelayId, TcpListener)| *id == relay;
        if self.streams.listeners.get(&slot).is_some_and(is_its) {
            // Closing it takes it out of the poller.
            self.streams.listeners.remove(&slot);
        }
    }

    /// Takes the peers that wait at a relayed address.
    pub(super) fn accept_peers(&mut self, slot: ports::Slot) -> More {
        for _peer in 0..READS {
            let Some((relay, listener)) = self.streams.listeners.get(&slot) else {
                return More::No;
            };
            let relay = *relay;
            match listener.accept() {
                Ok((socket, peer)) => {
                    let Some(id) = self.server.peer_arrived(relay, peer, self.now) else {
                        self.counters.dropped_no_permission.add(1);
                        continue;
                    };
                    self.settle();
                    if let Err(error) = self.add_peer(id, socket, false) {
                        tracing::debug!(%error, "a peer was not taken");
                        self.server.connection_closed(id);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return More::No,
                Err(error) => {
                    tracing::warn!(%error, "a peer was not accepted");
                    return More::No;
                }
            }
        }
        More::Perhaps
    }

    /// Connects to a peer from a relayed address.
    pub(super) fn connect(&mut self, relay: RelayId, id: ConnectionId, peer: SocketAddr) {
        let listener = self.streams.listeners.get(&ports::Ports::slot(relay));
        let connecting = listener
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
            .and_then(|(_, listener)| socket_at(listener.local_addr()?))
            .and_then(|socket| match socket.connect(&peer.into()) {
                Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(error),
                Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
            })
            .and_then(|socket| self.add_peer(id, socket, true));
        if let Err(error) = connecting {
            tracing::debug!(%error, "a peer is not reached");
            self.server.peer_connected(id, false, self.now);
        }
    }

    /// Joins a connection of a client to one with a peer.
    pub(super) fn splice(&mut self, id: ConnectionId, client: FiveTuple) {
        let Some(slot) = self.streams.by_id.get(&id).copied() else {
            return;
        };
        let peer = self.streams.slots[slot].as_mut();
        if let (Some(peer), Some((_, connection))) = (peer, self.connections.of(&client)) {
            connection.spliced = Some(slot);
            peer.client = Some(client);
            let early = connection.incoming.len();
            peer.to_peer.append(&mut connection.incoming);
            self.server.spliced(id, early, 0);
            self.counters.bytes_to_peers.add(early);
            self.wake.push(Token(FIRST_PEER_STREAM + slot));
        }
    }

    /// Something has happened to a connection with a peer, or to that of its client.
    pub(super) fn pump(&mut self, slot: Slot, buffer: &mut [u8]) -> More {
        let Some(peer) = self.streams.slots.get_mut(slot).and_then(Option::as_mut) else {
            return More::No;
        };
        if peer.is_connecting {
            let outcome = match peer.socket.take_error() {
                Ok(None) => match peer.socket.peer_addr() {
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => return More::No,
                    Err(error) => Err(error),
                },
                Ok(Some(error)) | Err(error) => Err(error),
            };
            peer.is_connecting = false;
            let id = peer.id;
            if outcome.is_err() {
                self.remove_peer(id);
            }
            self.server.peer_connected(id, outcome.is_ok(), self.now);
            self.settle();
            return More::No;
        }
        let Some((_, connection)) = peer.client.and_then(|client| self.connections.of(&client))
        else {
            return More::No;
        };
        let (mut to_peer, mut to_client) = (0, 0);
        let pumped = peer.pump(connection, buffer, &mut to_peer, &mut to_client);
        let id = peer.id;
        self.server.spliced(id, to_peer, to_client);
        self.counters.bytes_to_peers.add(to_peer);
        self.counters.bytes_to_clients.add(to_client);
        match pumped {
            Pumped::More => More::Perhaps,
            Pumped::Waits => More::No,
            Pumped::Over => {
                self.server.connection_closed(id);
                self.close_peer(id);
                More::No
            }
        }
    }

    /// Closes a connection with a peer and that of its client.
    pub(super) fn close_peer(&mut self, id: ConnectionId) {
        let Some(peer) = self.remove_peer(id) else {
            return;
        };
        let client = peer.client.and_then(|client| self.connections.of(&client));
        if let Some((slot, _)) = client {
            self.connections.close(slot, &self.registry);
        }
    }

    fn add_peer(
        &mut self,
        id: ConnectionId,
        mut socket: TcpStream,
        is_connecting: bool,
    ) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let streams = &mut self.streams;
        let slot = streams.free.pop().unwrap_or_else(|| {
            streams.slots.push(None);
            streams.slots.len() - 1
        });
        let token = Token(FIRST_PEER_STREAM + slot);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut socket, token, interest) {
            streams.free.push(slot);
            return Err(error);
        }
        streams.by_id.insert(id, slot);
        streams.slots[slot] = Some(PeerStream {
            id,
            socket,
            is_connecting,
            client: None,
            to_peer: Vec::new(),
            peer_ended: false,
            client_ended: false,
            told_peer: false,
            told_client: false,
        });
        Ok(())
    }

    fn remove_peer(&mut self, id: ConnectionId) -> Option<PeerStream> {
        let slot = self.streams.by_id.remove(&id)?;
        self.streams.free.push(slot);
        // Closing it takes it out of the poller.
        self.streams.slots[slot].take()
    }
}

impl PeerStream {
    /// Passes on what there is, as far as there is room.
    fn pump(
        &mut self,
        client: &mut crate::stream::Connection,
        buffer: &mut [u8],
        to_peer: &mut usize,
        to_client: &mut usize,
    ) -> Pumped {
        let mut may_have_more = false;
        let was_full = [self.to_peer.len() >= ROOM, client.waiting() >= ROOM];
        if !self.client_ended && !was_full[0] {
            match client.read(buffer) {
                Read::More => may_have_more = true,
                Read::Drained => {}
                Read::Closed => self.client_ended = true,
            }
            *to_peer += client.incoming.len();
            self.to_peer.append(&mut client.incoming);
        }
        if !self.peer_ended && !was_full[1] {
            match self.socket.read(&mut buffer[..ROOM]) {
                Ok(0) => self.peer_ended = true,
                Ok(count) => {
                    may_have_more = true;
                    *to_client += count;
                    client.push_raw(&buffer[..count]);
                }
                Err(error) if is_for_later(&error) => {}
                Err(_) => return Pumped::Over,
            }
        }
        let sent = write_some(&mut self.socket, &mut self.to_peer);
        if sent.is_err_and(|error| !is_for_later(&error)) || client.flush().is_err() {
            return Pumped::Over;
        }
        // No socket says that there is room in here again.
        let has_room = [self.to_peer.len() < ROOM, client.waiting() < ROOM];
        may_have_more |= (was_full[0] && has_room[0]) || (was_full[1] && has_room[1]);
        if self.client_ended && self.to_peer.is_empty() && !self.told_peer {
            self.told_peer = true;
            if self.socket.shutdown(Shutdown::Write).is_err() {
                return Pumped::Over;
            }
        }
        if self.peer_ended && client.waiting() == 0 && !self.told_client {
            match client.end() {
                Ok(is_told) => self.told_client = is_told,
                Err(_) => return Pumped::Over,
            }
        }
        if self.told_peer && self.told_client {
            Pumped::Over
        } else if may_have_more {
            Pumped::More
        } else {
            Pumped::Waits
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A socket at an address that others of this allocation have, too.
fn socket_at(address: SocketAddr) -> io::Result<Socket> {
    let socket = ports::unbound(address, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
