//! Bind, supervise, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use portway_protocol::id::GrantId;
use portway_protocol::signal::IceServer;
use portway_protocol::token::TrustedKeys;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets::Assets;
use crate::bus::Local;
use crate::config::{Config, Stun, TlsFiles, TlsFilesError};
use crate::host::{Hosts, Origin};
use crate::registry::{NodeView, Registry};
use crate::router;
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
    /// What was stored cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A service that is bound and ready to run.
pub struct Signaling {
    listener: TcpListener,
    stun: Option<UdpSocket>,
    tls: Option<TlsAcceptor>,
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
        let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let hosts = Hosts::new(
            config.cluster.clone(),
            config.domain.clone(),
            address.port(),
            config.scheme(),
        );
        let stun = match config.stun {
            Stun::Own => Some(UdpSocket::bind(address).await.map_err(bind_error)?),
            Stun::Nobody | Stun::Relay => None,
        };
        // Both ends of a session on one machine have nothing to ask.
        if config.stun != Stun::Nobody && config.domain != LOCALHOST {
            config.ice_servers.insert(0, hosts.stun_server());
        }
        let state = AppState(Arc::new(Inner {
            keys: TrustedKeys::new(config.cluster_keys.iter().copied()),
            config,
            relay: OnceLock::new(),
            hosts,
            assets,
            bus: Arc::new(Local::default()),
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
            tls,
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

    /// Hands out credentials of a relay to clients, made for each by `issue` from its grant and the
    /// time when that expires, seconds since 1970. The first call counts.
    pub fn offer_relay(&self, issue: impl Fn(&GrantId, u64) -> IceServer + Send + Sync + 'static) {
        // Set once, before it runs.
        drop(self.state.0.relay.set(Box::new(issue)));
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
                        tls: self.tls.clone(),
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
    /// The browser-visible origin of a service or page.
    #[must_use]
    pub fn origin(&self, of: &Origin) -> String {
        self.state.0.hosts.origin(of)
    }

    /// The last `limit` entries of the event log, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn events(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.state.0.registry.recorder().events(limit).await
    }

    /// All nodes, by name, those that are away included.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        self.state.0.registry.nodes()
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
    peer: SocketAddr,
    cancel: CancellationToken,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let Some(tls) = &self.tls else {
            return self.serve_http(stream).await;
        };
        match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let service = TowerToHyperService::new(self.router.clone());
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
