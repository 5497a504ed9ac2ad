//! Clients over TCP and TLS: frames out of a stream of bytes, and back (RFC 8656 §3.1, §12.5).
//!
//! Security: a client that does not read has its packets dropped, as UDP would; one that sends what is
//! no frame is cut off; a connection without an allocation ends by [`IDLE`], and until then no frame of
//! it is longer than a control message, so that strangers cannot fill memory. One source has a part of
//! the connections only, [`MAX_OF_SOURCE`], so that it cannot shut out the others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::wire::channel_data;
use rustls::{ServerConfig, ServerConnection};
use socket2::Type;

use crate::config::Transport;
use crate::ports;

/// Connections of a worker at a time.
const MAX_CONNECTIONS: usize = 8192;

/// Those of one source: twice the allocations that it may hold by default, for many may be behind one
/// NAT. With allocations or without: who has credentials could shut out others too.
const MAX_OF_SOURCE: usize = 512;

const _: () = assert!(
    MAX_OF_SOURCE * 8 <= MAX_CONNECTIONS,
    "a few sources shut out the others"
);

/// Bytes that wait for a client which does not read.
const MAX_OUTGOING: usize = 512 * 1024;

/// Bytes taken from a connection at a time.
const READ_CHUNK: usize = 64 * 1024;

/// Largest frame: a message or ChannelData with all that their 16 bits of length allow.
pub(crate) const MAX_FRAME: usize = STUN_HEADER + 65_535 + 3;

const STUN_HEADER: usize = 20;

/// How long a connection may be without an allocation.
pub(crate) const IDLE: Duration = Duration::from_secs(30);

const BACKLOG: i32 = 1024;

/// Place of a connection in the table.
pub(crate) type Slot = usize;

/// A connection that somebody else has accepted.
#[derive(Debug)]
pub struct Arrived {
    /// The socket, not blocking.
    pub socket: std::net::TcpStream,
    /// What it speaks within, after the handshake.
    pub tls: Option<Box<ServerConnection>>,
    /// The client.
    pub client: SocketAddr,
}

/// A connection of a client.
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    pub(crate) client: FiveTuple,
    /// Since when it has had no allocation.
    pub(crate) idle_since: Duration,
    pub(crate) incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// The connection with a peer whose bytes it carries, when it does (RFC 6062).
    pub(crate) spliced: Option<usize>,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// It may have more.
    More,
    /// It has nothing now.
    Drained,
    /// It is over.
    Closed,
}

impl Connection {
    /// Takes what has come.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Read {
        let outcome = match &mut self.tls {
            None => self.socket.read(&mut buffer[..READ_CHUNK]),
            Some(tls) => read_tls(tls, &mut self.socket, &mut buffer[..READ_CHUNK]),
        };
        match outcome {
            Ok(0) => Read::Closed,
            Ok(count) => {
                self.incoming.extend_from_slice(&buffer[..count]);
                Read::More
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Read::More,
            Err(_) => Read::Closed,
        }
    }

    /// Takes all whole frames out of what has come, none longer than `limit`.
    ///
    /// # Errors
    /// If it is no such frame.
    pub(crate) fn frames(&mut self, limit: usize) -> Result<Frames, NoFrame> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(frame) = next_frame(&self.incoming[at..], limit)? {
            ranges.push(at + frame.start..at + frame.end);
            at += frame.end.next_multiple_of(4).min(self.incoming.len() - at);
        }
        let rest = self.incoming.split_off(at);
        let bytes = std::mem::replace(&mut self.incoming, rest);
        Ok(Frames { bytes, ranges })
    }

    /// Queues a frame made of these parts, padded to four bytes; `false`: there is no room.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> bool {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.outgoing.len() + length + 3 > MAX_OUTGOING {
            return false;
        }
        for part in parts {
            self.outgoing.extend_from_slice(part);
        }
        let padding = length.next_multiple_of(4) - length;
        self.outgoing.extend_from_slice(&[0; 3][..padding]);
        true
    }

    /// Queues bytes as they are.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// Bytes that wait to be sent, what TLS has taken apart.
    pub(crate) const fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// Says that nothing more comes, when all has been sent; whether that is said.
    ///
    /// # Errors
    /// If the connection is over.
    pub(crate) fn end(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls
            && self.outgoing.is_empty()
        {
            tls.send_close_notify();
        }
        self.flush()?;
        let is_sent = self.tls.as_ref().is_none_or(|tls| !tls.wants_write());
        if is_sent {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(is_sent)
    }

    /// Sends what waits, as far as the system takes it.
    ///
    /// # Errors
    /// If the connection is over.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let result = match &mut self.tls {
            None => write_some(&mut self.socket, &mut self.outgoing),
            Some(tls) => write_tls(tls, &mut self.socket, &mut self.outgoing),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

/// Frames and the bytes that they are in.
pub(crate) struct Frames {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ranges: Vec<Range<usize>>,
}

/// What came is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoFrame;

/// The frame at the beginning, if it is whole.
fn next_frame(bytes: &[u8], limit: usize) -> Result<Option<Range<usize>>, NoFrame> {
    let Some([a, _, c, d]) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([*c, *d]));
    let total = if channel_data::is_channel_data(bytes) {
        channel_data::HEADER + length
    } else if a >> 6 == 0 && length % 4 == 0 {
        STUN_HEADER + length
    } else {
        return Err(NoFrame);
    };
    if total > limit {
        return Err(NoFrame);
    }
    // Padding belongs to the frame: without it the next one cannot be found.
    Ok((bytes.len() >= total.next_multiple_of(4)).then_some(0..total))
}

fn read_tls(
    tls: &mut ServerConnection,
    socket: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
        if tls.read_tls(socket)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        while tls.wants_write() {
            match tls.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn write_tls(
    tls: &mut ServerConnection,
    socket: &mut TcpStream,
    outgoing: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        // It takes as much as it may hold.
        let taken = tls.writer().write(outgoing)?;
        outgoing.drain(..taken);
        while tls.wants_write() {
            if tls.write_tls(socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        if outgoing.is_empty() || taken == 0 {
            return Ok(());
        }
    }
}

/// Writes from the front of a buffer until the system has enough.
pub(crate) fn write_some(to: &mut TcpStream, from: &mut Vec<u8>) -> io::Result<()> {
    let mut at = 0;
    let result = loop {
        if at == from.len() {
            break Ok(());
        }
        match to.write(&from[at..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => at += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    from.drain(..at);
    result
}

/// A listener for connections.
pub(crate) struct StreamListener {
    socket: TcpListener,
    id: ListenerId,
    tls: Option<Arc<ServerConfig>>,
}

impl StreamListener {
    pub(crate) const fn transport(&self) -> Transport {
        match self.tls {
            Some(_) => Transport::Tls,
            None => Transport::Tcp,
        }
    }

    pub(crate) fn bind(
        address: SocketAddr,
        id: ListenerId,
        tls: Option<Arc<ServerConfig>>,
        is_shared: bool,
    ) -> io::Result<Self> {
        let socket = ports::unbound(address, Type::STREAM)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(is_shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: TcpListener::from_std(socket.into()),
            id,
            tls,
        })
    }

    /// Greets newcomers with another certificate, if it speaks TLS.
    pub(crate) fn renew(&mut self, tls: &Arc<ServerConfig>) {
        if let Some(own) = &mut self.tls {
            *own = tls.clone();
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<SocketAddr> {
        registry.register(&mut self.socket, token, Interest::READABLE)?;
        self.socket.local_addr()
    }
}

/// All connections of a worker.
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<Slot>,
    by_client: HashMap<FiveTuple, Slot>,
    by_source: HashMap<Source, usize>,
    first_token: usize,
}

/// Who is counted as one: an IPv4 address, or the /64 of an IPv6 one, of which a single host has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(client: SocketAddr) -> Self {
        Self(match client.ip().to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl Connections {
    pub(crate) fn new(first_token: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_client: HashMap::new(),
            by_source: HashMap::new(),
            first_token,
        }
    }

    /// Accepts one connection; `Ok(false)`: there is none, or no room.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn accept(
        &mut self,
        listener: &StreamListener,
        registry: &Registry,
        now: Duration,
    ) -> io::Result<bool> {
        let (socket, client) = match listener.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        let tls = match &listener.tls {
            Some(config) => {
                let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Some(Box::new(connection))
            }
            None => None,
        };
        let arrived = Arrived {
            socket: socket.into(),
            tls,
            client,
        };
        self.add(arrived, listener.id, registry, now)?;
        Ok(true)
    }

    /// Adds a connection, if there is room; returns its place.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn add(
        &mut self,
        arrived: Arrived,
        listener: ListenerId,
        registry: &Registry,
        now: Duration,
    ) -> io::Result<Option<Slot>> {
        if self.by_client.len() >= MAX_CONNECTIONS {
            return Ok(None);
        }
        let source = Source::of(arrived.client);
        if self.by_source.get(&source).copied().unwrap_or_default() >= MAX_OF_SOURCE {
            tracing::debug!("a source has its share of the connections");
            return Ok(None);
        }
        let mut socket = TcpStream::from_std(arrived.socket);
        socket.set_nodelay(true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let token = Token(self.first_token + slot);
        if let Err(error) =
            registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)
        {
            self.free.push(slot);
            return Err(error);
        }
        let client = FiveTuple {
            listener,
            client: arrived.client,
            local: None,
        };
        self.by_client.insert(client, slot);
        *self.by_source.entry(source).or_default() += 1;
        self.slots[slot] = Some(Connection {
            socket,
            tls: arrived.tls,
            client,
            idle_since: now,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            spliced: None,
        });
        Ok(Some(slot))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn of(&mut self, client: &FiveTuple) -> Option<(Slot, &mut Connection)> {
        let slot = *self.by_client.get(client)?;
        Some((slot, self.slots.get_mut(slot)?.as_mut()?))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Connection)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter_map(|(slot, connection)| Some((slot, connection.as_mut()?)))
    }

    /// Ends one; returns whose it was.
    pub(crate) fn close(&mut self, slot: Slot, registry: &Registry) -> Option<FiveTuple> {
        let mut connection = self.slots.get_mut(slot)?.take()?;
        if let Err(error) = registry.deregister(&mut connection.socket) {
            tracing::debug!(%error, "a connection was not known to the poller");
        }
        self.free.push(slot);
        self.by_client.remove(&connection.client);
        if let Entry::Occupied(mut count) =
            self.by_source.entry(Source::of(connection.client.client))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(connection.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_share_of_the_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let poll = mio::Poll::new().unwrap();
        let mut connections = Connections::new(0);
        let add = |connections: &mut Connections, ip: &str, port: usize| {
            let port = u16::try_from(port).unwrap();
            let arrived = Arrived {
                socket: socket.try_clone().unwrap(),
                tls: None,
                client: SocketAddr::new(ip.parse().unwrap(), port),
            };
            let added =
                connections.add(arrived, ListenerId(0), poll.registry(), Duration::default());
            added.unwrap()
        };
        for [own, same, other] in [
            ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"],
        ] {
            let slots: Vec<_> = (1..=MAX_OF_SOURCE)
                .map(|port| add(&mut connections, own, port).expect("its share"))
                .collect();
            assert_eq!(add(&mut connections, same, 1000), None);
            assert!(add(&mut connections, other, 1000).is_some());
            assert!(connections.close(slots[0], poll.registry()).is_some());
            assert!(add(&mut connections, same, 1000).is_some());
            assert_eq!(add(&mut connections, own, 1001), None);
            for slot in 0..connections.slots.len() {
                connections.close(slot, poll.registry());
            }
            assert!(connections.by_source.is_empty());
        }
    }

    #[test]
    fn frames_are_found_with_their_padding() {
        assert_eq!(next_frame(&[0x40, 0, 0], MAX_FRAME), Ok(None));
        assert_eq!(
            next_frame(&[0x40, 0, 0, 1, 9], MAX_FRAME),
            Ok(None),
            "padding is missing"
        );
        assert_eq!(
            next_frame(&[0x40, 0, 0, 1, 9, 0, 0, 0], MAX_FRAME),
            Ok(Some(0..5))
        );
        let mut stun = [0; 20];
        assert_eq!(next_frame(&stun, MAX_FRAME), Ok(Some(0..20)));
        stun[3] = 4;
        assert_eq!(next_frame(&stun, MAX_FRAME), Ok(None));
        stun[3] = 3;
        assert_eq!(next_frame(&stun, MAX_FRAME), Err(NoFrame));
        assert_eq!(next_frame(&[0x40, 0, 0, 1, 9, 0, 0, 0], 4), Err(NoFrame));
        assert_eq!(next_frame(b"SSH-2.0-x", MAX_FRAME), Err(NoFrame));
    }
}
