//! Bind, supervise, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portway_protocol::id::NodeId;
use portway_protocol::key::PublicKey;
use portway_protocol::revocation::Revocations;
use portway_protocol::signal::news::Told;
use portway_protocol::token::TrustedKeys;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{broadcast, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets::Assets;
use crate::bus::Local;
use crate::config::{Config, Stun, TlsFiles, TlsFilesError};
use crate::host::{Hosts, Origin};
use crate::pairings::Pairings;
use crate::registry::{NodeView, Registry};
use crate::relay::{Issuer, Relay, StunConnection, is_stun};
use crate::router::{self, Origination};
use crate::slots::{Slot, Slots};
use crate::state::{AppState, Counters, Inner};
use crate::store::{Entry, Recorder, Store, StoreError};
use crate::stun;

/// Domain of a cluster that is used on its own machine.
const LOCALHOST: &str = "localhost";

/// Time for the head of a request, and for a TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Ports tried where any will do.
const BIND_ATTEMPTS: u32 = 16;

/// Pause after a failed accept, e.g. when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum SignalingError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsFilesError),
    /// No key of a cluster is configured.
    #[error("no key of the cluster is known")]
    NoKey,
    /// What was stored cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A service that is bound and ready to run.
pub struct Signaling {
    listener: TcpListener,
    stun: Option<UdpSocket>,
    state: AppState,
}

/// Access to a running service from the same process.
#[derive(Clone)]
pub struct SignalingHandle {
    state: AppState,
}

impl Signaling {
    /// Binds the address; connections wait until [`Signaling::run`].
    ///
    /// # Errors
    /// See [`SignalingError`].
    pub async fn bind(
        mut config: Config,
        assets: Assets,
        mut store: Box<dyn Store>,
    ) -> Result<Self, SignalingError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let bind_error = |source| SignalingError::Bind {
            address: config.listen,
            source,
        };
        let (listener, datagrams) = bind(config.listen, config.stun).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let hosts = Hosts::new(
            config.cluster.clone(),
            config.domain.clone(),
            address.port(),
            config.scheme(),
        );
        let stun = match config.stun {
            Stun::Own => datagrams,
            // It binds its own.
            Stun::Nobody | Stun::Relay => None,
        };
        // Both ends of a session on one machine have nothing to ask.
        if config.stun != Stun::Nobody && config.domain != LOCALHOST {
            config.ice_servers.insert(0, hosts.stun_server());
        }
        let newest = config.cluster_keys.last().copied();
        let newest = newest.ok_or(SignalingError::NoKey)?;
        let state = AppState(Arc::new(Inner {
            keys: RwLock::new(TrustedKeys::new(config.cluster_keys.iter().copied())),
            revocations: Mutex::new(Revocations::new(config.cluster.clone(), newest)),
            config,
            tls: RwLock::new(tls),
            relay: OnceLock::new(),
            issuers: RwLock::default(),
            hosts,
            assets,
            bus: Arc::new(Local::default()),
            pairings: Pairings::new(Instant::now()),
            registry: Registry::new(
                store.nodes()?,
                Recorder::start(store).map_err(StoreError::Io)?,
            ),
            counters: Counters::default(),
            sockets: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        }));
        Ok(Self {
            listener,
            stun,
            state,
        })
    }

    /// Access from the same process.
    #[must_use]
    pub fn handle(&self) -> SignalingHandle {
        SignalingHandle {
            state: self.state.clone(),
        }
    }

    /// Hands out credentials of a relay to clients, and to the relay what speaks STUN. The first call
    /// counts.
    pub fn offer_relay(&self, relay: Arc<dyn Relay>) {
        // Set once, before it runs.
        drop(self.state.0.relay.set(relay));
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled, then closes sockets and ends.
    pub async fn run(self, cancel: CancellationToken) {
        let router = router::build(self.state.clone());
        let connections = TaskTracker::new();
        let slots = Slots::new();
        let stun = async {
            match &self.stun {
                Some(socket) => stun::serve(socket).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(stun);
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                accepted = accept(&self.listener, &slots) => accepted,
                () = &mut stun => continue,
            };
            match accepted {
                Ok((_, peer, None)) => {
                    tracing::debug!(%peer, "too many connections from this address");
                }
                Ok((stream, peer, Some(slot))) => {
                    let connection = Connection {
                        router: router.clone(),
                        tls: self.state.0.tls(),
                        relay: self.state.0.relay.get().cloned(),
                        peer,
                        cancel: cancel.clone(),
                    };
                    connections.spawn(async move {
                        connection.serve(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.state.0.shutdown.cancel();
        self.state.0.sockets.close();
        self.state.0.sockets.wait().await;
        connections.close();
        connections.wait().await;
    }
}

impl SignalingHandle {
    /// Believes machine tokens of these keys from now on. Who is here stays.
    pub fn believe(&self, cluster_keys: impl IntoIterator<Item = PublicKey>) {
        let keys = TrustedKeys::new(cluster_keys);
        *self
            .state
            .0
            .keys
            .write()
            .unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The browser-visible origin of a service or page.
    #[must_use]
    pub fn origin(&self, of: &Origin) -> String {
        self.state.0.hosts.origin(of)
    }

    /// Greets newcomers with the certificate of these files, if TLS is spoken.
    ///
    /// # Errors
    /// If they cannot be used; the certificate is the old one then.
    pub fn renew(&self, files: &TlsFiles) -> Result<(), TlsFilesError> {
        let renewed = acceptor(files)?;
        let mut tls = self
            .state
            .0
            .tls
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = tls.as_mut() {
            *tls = renewed;
        }
        Ok(())
    }

    /// Hands out credentials of these relays, which run elsewhere, instead of those named before.
    pub fn offer_relays(&self, relays: Vec<Arc<dyn Issuer>>) {
        *self
            .state
            .0
            .issuers
            .write()
            .unwrap_or_else(PoisonError::into_inner) = relays;
    }

    /// The last `limit` entries of the event log, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn events(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.state.0.registry.recorder().events(limit).await
    }

    /// Changes when something was appended to the event log.
    #[must_use]
    pub fn events_appended(&self) -> watch::Receiver<()> {
        self.state.0.registry.recorder().appended()
    }

    /// What happens to nodes from now on; what is kept is in the event log, too.
    #[must_use]
    pub fn follow_nodes(&self) -> broadcast::Receiver<Told> {
        self.state.0.registry.news().follow()
    }

    /// A node is none any more, says whoever has the cluster key.
    pub fn forget_node(&self, node: &NodeId) {
        self.state.0.registry.forget_node(node);
    }

    /// All nodes, by name, those that are away included.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.state.0.registry.nodes()
    }
}

/// A listener, and a socket for datagrams if somebody answers STUN there. Where any port will do, it is
/// one that is free for both.
async fn bind(address: SocketAddr, stun: Stun) -> io::Result<(TcpListener, Option<UdpSocket>)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let listener = TcpListener::bind(address).await?;
        if stun == Stun::Nobody {
            return Ok((listener, None));
        }
        match UdpSocket::bind(listener.local_addr()?).await {
            Ok(socket) => return Ok((listener, Some(socket))),
            Err(error) if address.port() != 0 || attempt == BIND_ATTEMPTS => return Err(error),
            Err(_) => {}
        }
    }
}

/// The next connection; without a slot if its address has too many.
async fn accept(
    listener: &TcpListener,
    slots: &Slots,
) -> io::Result<(TcpStream, SocketAddr, Option<Slot>)> {
    let one = slots.one().await;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let slot = slots.take(one, peer.ip());
    Ok((stream, peer, slot))
}

/// One connection and what it needs.
struct Connection {
    router: Router,
    tls: Option<TlsAcceptor>,
    relay: Option<Arc<dyn Relay>>,
    peer: SocketAddr,
    cancel: CancellationToken,
}

/// What a connection turned out to be.
enum Opened {
    Http(TcpStream),
    Https(Box<TlsStream<TcpStream>>),
    Stun(TcpStream, Option<Box<rustls::ServerConnection>>),
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let opened = tokio::select! {
            opened = tokio::time::timeout(HEAD_TIMEOUT, self.open(stream)) => opened,
            () = self.cancel.cancelled() => return,
        };
        let peer = self.peer;
        match opened {
            Ok(Ok(Opened::Http(stream))) => self.serve_http(stream).await,
            Ok(Ok(Opened::Https(stream))) => self.serve_http(*stream).await,
            Ok(Ok(Opened::Stun(stream, tls))) => self.give_away(stream, tls),
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection did not begin well"),
            Err(_) => tracing::debug!(%peer, "a connection did not begin in time"),
        }
    }

    /// Looks at the first byte, if there is a relay that might be meant, and within TLS at the first
    /// one there.
    async fn open(&self, stream: TcpStream) -> io::Result<Opened> {
        let mut first = [0];
        if self.relay.is_some() && stream.peek(&mut first).await? == 1 && is_stun(first[0]) {
            return Ok(Opened::Stun(stream, None));
        }
        let Some(tls) = &self.tls else {
            return Ok(Opened::Http(stream));
        };
        let mut stream = tls.accept(stream).await?;
        if self.relay.is_some() {
            let first = stream.fill_buf().await?.first().copied();
            if first.is_some_and(is_stun) {
                let (stream, tls) = stream.into_inner();
                return Ok(Opened::Stun(stream, Some(Box::new(tls))));
            }
        }
        Ok(Opened::Https(Box::new(stream)))
    }

    fn give_away(&self, stream: TcpStream, tls: Option<Box<rustls::ServerConnection>>) {
        let Some(relay) = &self.relay else { return };
        match stream.into_std() {
            Ok(socket) => relay.take(StunConnection {
                socket,
                tls,
                peer: self.peer,
            }),
            Err(error) => tracing::debug!(%error, "a connection was lost on its way to the relay"),
        }
    }

    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let router = self.router.clone().layer(Extension(Origination(self.peer)));
        let service = TowerToHyperService::new(router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %self.peer, %error, "a connection ended early");
        }
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsFilesError> {
    Ok(TlsAcceptor::from(files.server_config(&[b"http/1.1"])?))
}
