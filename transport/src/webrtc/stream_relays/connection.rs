//! One connection to a relay: to the first URL of its that answers, and what passes there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::framing::{self, Garbage, MAX_PACKET};
use crate::webrtc::shortcut::Inbox;

/// Time for all ways to a relay together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Head start of a way before the next one is tried beside it (RFC 8305 §8 recommends 250 ms; these wait
/// for a network that may drop what it does not like, and have waited before).
const STAGGER: Duration = Duration::from_millis(150);

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Packets that are written at once.
const BATCH: usize = 32;

/// Room that a read has at least.
const READ: usize = 16 * 1024;

/// Ports of `turn` and `turns` if the URL has none (RFC 7065 §3.1).
const TURN_PORT: u16 = 3478;
const TURNS_PORT: u16 = 5349;

/// Why a relay is not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// No way in time.
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    /// The last of its ways failed like this.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The socket that it was for is gone.
    #[error("its socket is gone")]
    ByUs,
    /// The relay has closed it.
    #[error("closed by the relay")]
    ByRelay,
    /// It broke.
    #[error("broken: {0}")]
    Broken(#[from] io::Error),
    /// The relay does not speak TURN.
    #[error(transparent)]
    Garbage(#[from] Garbage),
}

/// What protects a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Nothing: what passes is encrypted from end to end, credentials are not sent.
    None,
    /// TLS.
    Tls,
}

/// One URL of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    pub(super) security: Security,
}

impl Endpoint {
    /// Reads a URL (RFC 7065); `None`: it is not one of TURN by TCP or TLS.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (security, default) = match (scheme, query) {
            ("turn", "transport=tcp") => (Security::None, TURN_PORT),
            ("turns", "transport=tcp" | "") => (Security::Tls, TURNS_PORT),
            _ => return None,
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map_or(Ok(default), str::parse).ok()?;
        let is_named = !host.is_empty() && port != 0;
        is_named.then(|| Self {
            host: host.to_owned(),
            port,
            security,
        })
    }
}

/// TCP, or TLS over it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects by the first way that works. With `tls_first`, ways of TLS come before others.
pub(super) async fn connect(
    endpoints: &[Endpoint],
    tls: Option<Arc<rustls::ClientConfig>>,
    tls_first: bool,
) -> Result<(Box<dyn Stream>, Security), ConnectError> {
    let mut endpoints: Vec<&Endpoint> = endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| (endpoint.security == Security::Tls) != tls_first);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, race(&endpoints, tls.as_ref()));
    connected.await.unwrap_or(Err(ConnectError::Timeout))
}

async fn race(
    endpoints: &[&Endpoint],
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> Result<(Box<dyn Stream>, Security), ConnectError> {
    let mut ways = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    let mut known: Option<(&str, Vec<SocketAddr>)> = None;
    for &endpoint in endpoints {
        // The URLs of a server differ in port and scheme: its name is asked for once.
        let addresses = match &known {
            Some((host, addresses)) if *host == endpoint.host => addresses.clone(),
            Some(_) | None => match tokio::net::lookup_host((&*endpoint.host, 0)).await {
                Ok(addresses) => addresses.take(MAX_ADDRESSES).collect(),
                Err(error) => {
                    failure = error;
                    continue;
                }
            },
        };
        let reach = |mut address: SocketAddr| {
            address.set_port(endpoint.port);
            reach(endpoint, address, tls)
        };
        ways.extend(addresses.iter().copied().map(reach));
        known = Some((&endpoint.host, addresses));
    }
    let mut ways = ways.into_iter();
    let mut racing = FuturesUnordered::new();
    loop {
        let has_more = match ways.next() {
            Some(way) => {
                racing.push(way);
                true
            }
            None => false,
        };
        tokio::select! {
            outcome = racing.next() => match outcome {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => failure = error,
                None => return Err(failure.into()),
            },
            () = tokio::time::sleep(STAGGER), if has_more => {}
        }
    }
}

/// Connects to one address.
async fn reach(
    endpoint: &Endpoint,
    address: SocketAddr,
    tls: Option<&Arc<rustls::ClientConfig>>,
) -> io::Result<(Box<dyn Stream>, Security)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match (endpoint.security, tls) {
        (Security::None, _) => Box::new(stream),
        (Security::Tls, Some(tls)) => {
            let name = endpoint
                .host
                .clone()
                .try_into()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let connector = TlsConnector::from(tls.clone());
            Box::new(connector.connect(name, stream).await?)
        }
        (Security::Tls, None) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok((stream, endpoint.security))
}

/// Passes packets both ways until one end is gone. What comes seems to come `from` there.
pub(super) async fn carry(
    stream: Box<dyn Stream>,
    packets: mpsc::Receiver<Bytes>,
    inbox: &Inbox,
    from: SocketAddr,
) -> Ended {
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        ended = receive(reader, inbox, from) => ended,
        ended = send(writer, packets) => ended.map_or_else(Into::into, |()| Ended::ByUs),
    }
}

async fn receive(mut reader: impl AsyncRead + Unpin, inbox: &Inbox, from: SocketAddr) -> Ended {
    let mut stream = BytesMut::new();
    loop {
        loop {
            match framing::take(&mut stream) {
                Ok(Some(packet)) => inbox.push(from, &packet, packet.len()),
                Ok(None) => break,
                Err(garbage) => return garbage.into(),
            }
        }
        // What is left is a part of a packet, so this is bounded.
        debug_assert!(stream.len() < MAX_PACKET, "a whole packet is taken");
        stream.reserve(READ);
        match reader.read_buf(&mut stream).await {
            Ok(0) => return Ended::ByRelay,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut packets: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut stream = BytesMut::new();
    // The stack repeats its first request while it waits for an answer: one is enough.
    let mut waiting = packets.len();
    while packets.recv_many(&mut batch, BATCH).await > 0 {
        for packet in batch.drain(..) {
            waiting = waiting.saturating_sub(1);
            if waiting == 0 && framing::put(&packet, &mut stream).is_err() {
                tracing::debug!("a packet for a relay is none that a stream can carry");
            }
        }
        writer.write_all(&stream).await?;
        writer.flush().await?;
        stream.clear();
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16, security: Security) -> Option<Endpoint> {
        Some(Endpoint {
            host: host.into(),
            port,
            security,
        })
    }

    #[test]
    fn urls_of_streams_are_told_from_others() {
        for (url, expected) in [
            (
                "turn:a.test?transport=tcp",
                endpoint("a.test", 3478, Security::None),
            ),
            ("turns:a.test", endpoint("a.test", 5349, Security::Tls)),
            (
                "turns:a.test:443?transport=tcp",
                endpoint("a.test", 443, Security::Tls),
            ),
            (
                "turn:[2001:db8::1]:80?transport=tcp",
                endpoint("2001:db8::1", 80, Security::None),
            ),
            ("turns:[::1]", endpoint("::1", 5349, Security::Tls)),
            ("turn:a.test", None),
            ("turn:a.test?transport=udp", None),
            ("turns:a.test?transport=udp", None),
            ("stun:a.test", None),
            ("turns::443", None),
            ("turns:a.test:99999", None),
            ("turns:[::1", None),
            ("", None),
        ] {
            assert_eq!(Endpoint::parse(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn what_comes_seems_to_come_from_the_servers_address() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (packets, waiting) = mpsc::channel(4);
        let inbox = Inbox::default();
        let from = "192.0.0.8:1".parse().unwrap();
        packets
            .try_send(Bytes::from_static(b"\x40\x01\x00\x01a"))
            .unwrap();
        far.write_all(b"\x40\x01\x00\x01b\0\0\0HTTP").await.unwrap();
        let talk = async {
            let mut heard = [0; 8];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"\x40\x01\x00\x01a\0\0\0");
            drop(far);
        };
        let (ended, ()) = tokio::join!(carry(Box::new(near), waiting, &inbox, from), talk);
        assert!(matches!(ended, Ended::ByRelay), "{ended:?}");
        let mut buffer = [0; 16];
        let mut metas = [webrtc::runtime::RecvMeta::default()];
        let count = inbox.read(
            &std::task::Context::from_waker(std::task::Waker::noop()),
            &mut [io::IoSliceMut::new(&mut buffer)],
            &mut metas,
        );
        assert_eq!((count, metas[0].addr, metas[0].len), (1, from, 5));
    }
}
