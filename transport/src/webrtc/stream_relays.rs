//! Relays by TCP and TLS (RFC 8656 §3.1), which the stack knows by UDP only.
//!
//! ```text
//! stack ── "UDP" to 192.0.0.8:n ─► Socket ─► Line ── one TCP or TLS connection ─► relay n
//!       ◄──────── Inbox ◄────────────────────┘
//! ```
//! For each server with such URLs the stack gets one more URL, at an address that no machine has. What it
//! sends there waits until UDP has turned out to be no way: a connection costs a handshake and an
//! allocation at each offer, and is for networks that let no UDP out. Then all URLs of the server race, and
//! the first connection carries. Towards the other end the candidate is one of a relay.
//!
//! - `framing`: packets in a stream. `connection`: to the first URL that answers, and what passes there.
//!
//! Security: TLS is checked against the authorities that [`StreamRelays`] was given; without any, `turns:`
//! is left out. Credentials stay with the stack.

mod connection;
mod framing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use portway_protocol::signal::IceServer;
use tokio::sync::{mpsc, watch};

use super::runtime::Tasks;
use super::shortcut::Inbox;
use connection::{Endpoint, Security};

/// Silence of UDP after which a relay is tried by other ways. Servers answer sooner, or the path that they
/// would make is a slow one.
const UDP_PATIENCE: Duration = Duration::from_millis(250);

/// Time without a path after which it is tried although UDP passes: not to where it is needed.
const PATH_PATIENCE: Duration = Duration::from_secs(2);

/// Packets that may wait for a connection. As with a socket's buffer, what finds no room is dropped.
const QUEUE: usize = 1024;

/// Servers of a peer that are reached like this.
const MAX_SERVERS: usize = 8;

/// Ports of the synthetic addresses are places in the list, from here on.
const FIRST_PORT: u16 = 1;

/// The dummy address (RFC 7600 §3.5): no machine has it.
const SYNTHETIC_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Of the prefix that discards (RFC 6666).
const SYNTHETIC_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// Name of the synthetic servers; it is never asked for.
const SYNTHETIC_NAME: &str = "stream.relay.invalid";

/// How relays are reached by TCP and TLS, for all peers of a process. Remembers what this network is like,
/// so that only the first peer waits to find out.
#[derive(Debug, Default)]
pub struct StreamRelays {
    tls: RwLock<Option<Arc<rustls::ClientConfig>>>,
    /// The last peer that listened for UDP heard none.
    is_silent: AtomicBool,
    /// The last connection was one of TLS, for which others had been no way.
    needs_tls: AtomicBool,
}

impl StreamRelays {
    /// With whom to believe.
    #[must_use]
    pub fn new(tls: rustls::ClientConfig) -> Self {
        let relays = Self::default();
        relays.trust(tls);
        relays
    }

    /// Believes others from the next connection on.
    pub fn trust(&self, mut tls: rustls::ClientConfig) {
        // A relay speaks none that could be negotiated.
        tls.alpn_protocols.clear();
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(tls));
    }

    fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The relays of one peer.
#[derive(Debug)]
pub(super) struct PeerRelays {
    shared: Arc<StreamRelays>,
    servers: Vec<Server>,
    /// Something has come by UDP.
    has_heard: AtomicBool,
    has_path: watch::Sender<bool>,
}

/// A server by all its URLs that are not of UDP.
#[derive(Debug)]
struct Server {
    endpoints: Vec<Endpoint>,
    /// A socket has a line to it. Others have none: the connection, and the allocation, is one.
    is_taken: AtomicBool,
    /// Packets that found no room.
    dropped: AtomicU64,
}

impl PeerRelays {
    /// Finds the relays among servers, and tells which servers the stack is to be given.
    pub(super) fn new(shared: Arc<StreamRelays>, servers: &[IceServer]) -> (Self, Vec<IceServer>) {
        let mut found = Vec::new();
        let mut given = Vec::with_capacity(servers.len());
        for server in servers {
            let mut server = server.clone();
            let mut endpoints = Vec::new();
            server.urls.retain(|url| match Endpoint::parse(url) {
                Some(endpoint) => {
                    endpoints.push(endpoint);
                    false
                }
                None => true,
            });
            endpoints
                .retain(|endpoint| endpoint.security == Security::None || shared.tls().is_some());
            if !endpoints.is_empty() && found.len() < MAX_SERVERS {
                let port = usize::from(FIRST_PORT) + found.len();
                server
                    .urls
                    .push(format!("turn:{SYNTHETIC_NAME}:{port}?transport=udp"));
                found.push(Server {
                    endpoints,
                    is_taken: AtomicBool::new(false),
                    dropped: AtomicU64::new(0),
                });
            }
            if !server.urls.is_empty() {
                given.push(server);
            }
        }
        let relays = Self {
            shared,
            servers: found,
            has_heard: AtomicBool::new(false),
            has_path: watch::Sender::new(false),
        };
        (relays, given)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The addresses of a synthetic server, of both families; `None`: it is a real one.
    pub(super) fn resolve(host: &str) -> Option<Vec<SocketAddr>> {
        let port = host.strip_prefix(SYNTHETIC_NAME)?.strip_prefix(':')?;
        let port = port.parse().ok()?;
        Some(vec![
            (SYNTHETIC_V4, port).into(),
            (SYNTHETIC_V6, port).into(),
        ])
    }

    /// Something has come by UDP.
    pub(super) fn hear(&self) {
        if !self.has_heard.load(Ordering::Relaxed) {
            self.has_heard.store(true, Ordering::Relaxed);
            self.shared.is_silent.store(false, Ordering::Relaxed);
        }
    }

    /// There is a path, or none any more.
    pub(super) fn has_path(&self, has_path: bool) {
        self.has_path.send_replace(has_path);
    }

    /// Waits until UDP has turned out to be no way.
    async fn need(&self) -> Need {
        if self.shared.is_silent.load(Ordering::Relaxed) {
            return Need::Given;
        }
        tokio::time::sleep(UDP_PATIENCE).await;
        let mut has_path = self.has_path.subscribe();
        if !*has_path.borrow() && !self.has_heard.load(Ordering::Relaxed) {
            self.shared.is_silent.store(true, Ordering::Relaxed);
            return Need::Given;
        }
        let path = has_path.wait_for(|has_path| *has_path);
        match tokio::time::timeout(PATH_PATIENCE - UDP_PATIENCE, path).await {
            Ok(_) => Need::None,
            Err(_) => Need::Given,
        }
    }
}

/// Whether a stream is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// UDP is no way.
    Given,
    /// There is a path.
    None,
}

/// What one socket sends to relays by streams.
#[derive(Debug)]
pub(super) struct Lines {
    relays: Arc<PeerRelays>,
    inbox: Arc<Inbox>,
    tasks: Tasks,
    lines: Box<[OnceLock<Option<Line>>]>,
}

/// A socket's way to one server. Its task ends when it is dropped, and has sent what waited.
#[derive(Debug)]
struct Line {
    packets: mpsc::Sender<Bytes>,
    relays: Arc<PeerRelays>,
    at: usize,
}

impl Lines {
    pub(super) fn new(relays: Arc<PeerRelays>, inbox: Arc<Inbox>, tasks: Tasks) -> Self {
        // Sockets are made anew when a network may have changed.
        relays.has_heard.store(false, Ordering::Relaxed);
        let lines = relays.servers.iter().map(|_| OnceLock::new()).collect();
        Self {
            relays,
            inbox,
            tasks,
            lines,
        }
    }

    /// Sends packets, cut every `segment` bytes; `None`: that is no address of ours.
    ///
    /// # Errors
    /// The server is not reached, or not needed: the stack gives it up, and gathering can end.
    pub(super) fn send(
        &self,
        to: SocketAddr,
        packets: &[u8],
        segment: usize,
    ) -> Option<std::io::Result<()>> {
        if to.ip() != IpAddr::V4(SYNTHETIC_V4) && to.ip() != IpAddr::V6(SYNTHETIC_V6) {
            return None;
        }
        let at = usize::from(to.port().checked_sub(FIRST_PORT)?);
        let line = self.lines.get(at)?.get_or_init(|| self.open(at, to));
        let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        let Some(line) = line else {
            return Some(Err(gone()));
        };
        for packet in packets.chunks(segment.max(1)) {
            match line.packets.try_send(Bytes::copy_from_slice(packet)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => line.server().drop_one(),
                Err(mpsc::error::TrySendError::Closed(_)) => return Some(Err(gone())),
            }
        }
        Some(Ok(()))
    }

    /// Something has come by UDP.
    pub(super) fn hear(&self) {
        self.relays.hear();
    }

    fn open(&self, at: usize, from: SocketAddr) -> Option<Line> {
        let server = &self.relays.servers[at];
        if server.is_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (packets, waiting) = mpsc::channel(QUEUE);
        let task = run(self.relays.clone(), at, from, self.inbox.clone(), waiting);
        self.tasks.spawn(task);
        Some(Line {
            packets,
            relays: self.relays.clone(),
            at,
        })
    }
}

impl Line {
    fn server(&self) -> &Server {
        &self.relays.servers[self.at]
    }
}

impl Server {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.server().is_taken.store(false, Ordering::Release);
    }
}

/// Carries what passes between a socket and a server, once it is needed.
async fn run(
    relays: Arc<PeerRelays>,
    at: usize,
    from: SocketAddr,
    inbox: Arc<Inbox>,
    packets: mpsc::Receiver<Bytes>,
) {
    if relays.need().await == Need::None {
        return;
    }
    let server = &relays.servers[at];
    let shared = &relays.shared;
    let needs_tls = shared.needs_tls.load(Ordering::Relaxed);
    match connection::connect(&server.endpoints, shared.tls(), needs_tls).await {
        Ok((stream, security)) => {
            let needs_tls = security == Security::Tls;
            shared.needs_tls.store(needs_tls, Ordering::Relaxed);
            let ended = connection::carry(stream, packets, &inbox, from).await;
            let dropped = server.dropped.load(Ordering::Relaxed);
            tracing::debug!(%ended, dropped, "a connection to a relay has ended");
        }
        Err(error) => tracing::info!(%error, "a relay is reached by no stream"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(urls: &[&str]) -> (PeerRelays, Vec<IceServer>) {
        let server = IceServer {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            username: Some("ann".into()),
            credential: Some("secret".into()),
        };
        PeerRelays::new(Arc::default(), &[server])
    }

    #[test]
    fn streams_of_a_server_become_one_more_server() {
        let (relays, given) = relays(&["turn:a.test?transport=udp", "turn:a.test?transport=tcp"]);
        assert_eq!(relays.servers.len(), 1);
        let urls = [
            "turn:a.test?transport=udp",
            "turn:stream.relay.invalid:1?transport=udp",
        ];
        assert_eq!(given[0].urls, urls);
        assert_eq!(given[0].credential.as_deref(), Some("secret"));
        let addresses = PeerRelays::resolve("stream.relay.invalid:1").unwrap();
        assert!(addresses[0].is_ipv4() && addresses[1].is_ipv6());
        assert!(PeerRelays::resolve("a.test:3478").is_none());
    }

    #[test]
    fn without_trust_no_server_is_reached_by_tls() {
        let (relays, given) = relays(&["turns:a.test"]);
        assert!(relays.is_empty() && given.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_needed_where_udp_is_silent_or_leads_nowhere() {
        let (relays, _) = relays(&["turn:a.test?transport=tcp"]);
        relays.hear();
        let begun = tokio::time::Instant::now();
        assert_eq!(relays.need().await, Need::Given);
        assert_eq!(begun.elapsed(), PATH_PATIENCE);
        relays.has_path(true);
        assert_eq!(relays.need().await, Need::None);

        let (relays, _) = self::relays(&["turn:a.test?transport=tcp"]);
        let begun = tokio::time::Instant::now();
        assert_eq!(relays.need().await, Need::Given);
        assert_eq!(begun.elapsed(), UDP_PATIENCE);
        // The next peer of this process need not wait for it.
        assert_eq!(relays.need().await, Need::Given);
        assert_eq!(begun.elapsed(), UDP_PATIENCE);
    }
}
