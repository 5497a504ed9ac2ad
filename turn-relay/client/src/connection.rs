//! Packets to a server and back, over UDP, TCP or TLS. Blocking, with a deadline for each read.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Longest wait for a connection and for the handshake of TLS.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest packet.
const MAX_PACKET: usize = 65_535 + 20;

/// A way to a server.
pub(crate) struct Connection {
    socket: Socket,
    /// What has come over a stream and is no whole packet yet.
    incoming: Vec<u8>,
}

enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Connection {
    pub(crate) fn udp(server: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(Self::of(Socket::Udp(socket)))
    }

    pub(crate) fn tcp(server: SocketAddr) -> io::Result<Self> {
        Ok(Self::of(Socket::Tcp(connect(server)?)))
    }

    /// Only the connection below; then [`Connection::handshake`].
    pub(crate) fn tls(
        server: SocketAddr,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Self::of(Socket::Tls(Box::new(tls), connect(server)?)))
    }

    const fn of(socket: Socket) -> Self {
        Self {
            socket,
            incoming: Vec::new(),
        }
    }

    /// The handshake of TLS; returns the version. Nothing to do for others.
    pub(crate) fn handshake(&mut self) -> io::Result<Option<String>> {
        let Socket::Tls(tls, socket) = &mut self.socket else {
            return Ok(None);
        };
        socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        while tls.is_handshaking() {
            tls.complete_io(socket)?;
        }
        let version = tls.protocol_version();
        Ok(version.map(|version| format!("{version:?}").replace('_', ".")))
    }

    /// Whether packets may be lost on the way, so that they must be sent again.
    pub(crate) const fn is_lossy(&self) -> bool {
        matches!(self.socket, Socket::Udp(_))
    }

    /// Sends a packet; over a stream, padded to four bytes.
    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let padding = &[0; 3][..packet.len().next_multiple_of(4) - packet.len()];
        match &mut self.socket {
            Socket::Udp(socket) => socket.send(packet).map(drop),
            Socket::Tcp(socket) => socket.write_all(&[packet, padding].concat()),
            Socket::Tls(tls, socket) => {
                tls.writer().write_all(&[packet, padding].concat())?;
                while tls.wants_write() {
                    tls.write_tls(socket)?;
                }
                Ok(())
            }
        }
    }

    /// The next packet, if one comes until then.
    pub(crate) fn receive(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(packet) = self.packet() {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut buffer = vec![0; MAX_PACKET];
            let read = match &mut self.socket {
                Socket::Udp(socket) => {
                    socket.set_read_timeout(Some(left))?;
                    socket.recv(&mut buffer)
                }
                Socket::Tcp(socket) => {
                    socket.set_read_timeout(Some(left))?;
                    socket.read(&mut buffer)
                }
                Socket::Tls(tls, socket) => {
                    socket.set_read_timeout(Some(left))?;
                    read_tls(tls, socket, &mut buffer)
                }
            };
            match read {
                Ok(length) if self.is_lossy() => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole packet of a stream.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let (length, padded) = frame(&self.incoming)?;
        if self.incoming.len() < padded {
            return None;
        }
        let mut packet: Vec<u8> = self.incoming.drain(..padded).collect();
        packet.truncate(length);
        Some(packet)
    }
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    Ok(socket)
}

fn read_tls(
    tls: &mut ClientConnection,
    socket: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    match tls.reader().read(buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        done => return done,
    }
    if tls.read_tls(socket)? == 0 {
        return Ok(0);
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    tls.reader().read(buffer)
}

/// Length of the packet that a stream has next, alone and with its padding (RFC 8656 §3.1, §12.5).
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let [first, _, high, low] = *bytes.first_chunk()?;
    let body = usize::from(u16::from_be_bytes([high, low]));
    let is_channel = first & 0xc0 == 0x40;
    let length = if is_channel { 4 + body } else { 20 + body };
    Some((length, length.next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_into_packets() {
        assert_eq!(frame(&[0x40, 0, 0]), None);
        assert_eq!(frame(&[0x40, 0, 0, 5]), Some((9, 12)));
        assert_eq!(frame(&[0x01, 0x13, 0, 8]), Some((28, 28)));
    }
}
