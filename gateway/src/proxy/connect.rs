//! The way to a service: TCP, TLS or a Unix socket, pooled by hyper, or UDP.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Uri;
use hyper::body::{Body, Bytes};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::target::{HostPort, ServiceTarget};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio_rustls::TlsConnector;

use crate::executor::TrackedExecutor;
use crate::service::{ServiceSpec, Trust};

/// Idle connections kept for a service.
const MAX_IDLE: usize = 32;

/// How long an idle connection is kept: less than the 60–75 s after which servers close them.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest response head.
const MAX_RESPONSE_HEAD: usize = 256 * 1024;

/// Why a target cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// A certificate file cannot be used.
    #[error("cannot read the authority {path}: {message}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The node answers itself, or its client does.
    #[error("there is no program behind such a service")]
    NoProgram,
}

/// The way to one service.
#[derive(Clone)]
pub struct Upstream {
    connector: Connector,
    authority: String,
    scheme: &'static str,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({})", self.origin())
    }
}

impl Upstream {
    /// Prepares the way; nothing is connected. A connection may take so long, TLS included.
    ///
    /// # Errors
    /// See [`ConnectorError`].
    pub fn new(spec: &ServiceSpec, connect_timeout: Duration) -> Result<Self, ConnectorError> {
        let (route, authority, scheme) = match &spec.target {
            ServiceTarget::Http(at) => (Route::Tcp(at.clone(), None), host(at, 80), "http"),
            ServiceTarget::Https(at) => {
                let tls = TlsConnector::from(Arc::new(tls_config(&spec.trust)?));
                (Route::Tcp(at.clone(), Some(tls)), host(at, 443), "https")
            }
            ServiceTarget::Unix(path) => (Route::Unix(path.clone()), "localhost".into(), "http"),
            ServiceTarget::Tcp(at) => (Route::Tcp(at.clone(), None), at.authority(), "tcp"),
            ServiceTarget::TcpUnix(path) => (Route::Unix(path.clone()), "localhost".into(), "tcp"),
            ServiceTarget::Udp(at) => (Route::Udp(at.clone()), at.authority(), "udp"),
            ServiceTarget::Files(..) | ServiceTarget::Messages | ServiceTarget::Listen(_) => {
                return Err(ConnectorError::NoProgram);
            }
        };
        Ok(Self {
            connector: Connector {
                route: Arc::new(route),
                timeout: connect_timeout,
            },
            authority,
            scheme,
        })
    }

    /// A pooled client for it.
    pub(crate) fn client<B>(&self) -> Client<Connector, B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Client::builder(TrackedExecutor::default())
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(MAX_RESPONSE_HEAD)
            .set_host(false)
            .build(self.connector.clone())
    }

    /// `Host` that the service expects.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The service's own origin.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }

    /// Opens a connection of its own, e.g. for a WebSocket or a health check.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after its time, [`io::ErrorKind::Unsupported`] if the service speaks UDP, or the
    /// system's.
    pub async fn connect(&self) -> io::Result<Stream> {
        self.connector.connect().await
    }

    /// Opens a socket of its own to a service that speaks UDP, ready to send. Nobody is asked whether it is
    /// there.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after its time, [`io::ErrorKind::Unsupported`] if the service speaks something
    /// else, or the system's.
    pub async fn connect_udp(&self) -> io::Result<UdpSocket> {
        match &*self.connector.route {
            Route::Udp(at) => self.connector.in_time(open_udp(at)).await,
            Route::Tcp(..) | Route::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn host(at: &HostPort, default_port: u16) -> String {
    let authority = at.authority();
    match authority.strip_suffix(&format!(":{default_port}")) {
        Some(host) => host.to_owned(),
        None => authority,
    }
}

/// hyper's view of a route.
#[derive(Clone)]
pub(crate) struct Connector {
    route: Arc<Route>,
    /// Time for a connection.
    timeout: Duration,
}

enum Route {
    Tcp(HostPort, Option<TlsConnector>),
    Unix(PathBuf),
    Udp(HostPort),
}

impl Connector {
    async fn connect(&self) -> io::Result<Stream> {
        self.in_time(self.route.open()).await
    }

    async fn in_time<T>(&self, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::time::timeout(self.timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Route {
    async fn open(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Self::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Tcp(at, tls) => {
                let stream = open_tcp(at).await?;
                match tls {
                    None => Ok(Stream::Tcp(stream)),
                    Some(tls) => {
                        let name = ServerName::try_from(at.host.clone())
                            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                        Ok(Stream::Tls(Box::new(tls.connect(name, stream).await?)))
                    }
                }
            }
        }
    }
}

/// Connects to the first checked address of a name that takes it. It resolves once, so that the name cannot
/// point elsewhere in between. Link-local addresses are refused, cloud metadata services above all.
async fn open_checked<T>(
    at: &HostPort,
    open: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host((at.host.as_str(), at.port)).await? {
        let is_link_local = match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => ip.is_link_local(),
            std::net::IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if is_link_local {
            last = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "link-local targets are refused",
            );
            continue;
        }
        match open(address).await {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn open_tcp(at: &HostPort) -> io::Result<TcpStream> {
    open_checked(at, async |address| {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    })
    .await
}

async fn open_udp(at: &HostPort) -> io::Result<UdpSocket> {
    open_checked(at, async |address| {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        // Before the runtime has asked the system, it takes the socket for one that is full.
        socket.writable().await?;
        Ok(socket)
    })
    .await
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

/// A connection to a service.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS.
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Cuts it off: who is at the other end gets an error, where the system has a way to say so.
    pub(crate) fn reset(self) {
        let tcp = match &self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Unix(_) => return,
        };
        if let Err(error) = tcp.set_zero_linger() {
            tracing::debug!(%error, "a connection cannot be reset");
        }
    }
}

/// Calls the same method on whatever stream it is.
macro_rules! each {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// A client of TLS that believes certificates like this.
///
/// # Errors
/// If the authority's file cannot be used.
pub fn tls_config(trust: &Trust) -> Result<rustls::ClientConfig, ConnectorError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::System => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Authority(path) => builder
            .with_root_certificates(authorities(path)?)
            .with_no_client_auth(),
        Trust::Any => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(path: &PathBuf) -> Result<rustls::RootCertStore, ConnectorError> {
    let unusable = |message: String| ConnectorError::Authority {
        path: path.clone(),
        message,
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?
    {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".into()));
    }
    Ok(roots)
}

/// Accepts any certificate, because the operator said `insecure` for this one service. The
/// handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
