//! The local listener of a service.
//!
//! Security: whoever can connect to the listener has the rights of the link, so it listens on loopback
//! unless told otherwise. A web page can make a browser ask it under a name of its own that leads here
//! (DNS rebinding): HTTP requests for any other host than this machine's own names get 421. Who speaks
//! something else has to know strangers by itself, as on any port of this machine.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::header;
use ::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forward::Forwarder;
use super::stream;
use super::way::Way;
use crate::client::keeper::Current;
use crate::proxy::{headers, page};

/// Connections at a time; more wait in the system's queue.
const MAX_CONNECTIONS: usize = 1024;

/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after the system could not give us a connection, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for requests under way once it is to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// What its connections share.
struct Shared {
    way: Way,
    forwarder: Forwarder,
    hosts: Hosts,
    ended: CancellationToken,
}

impl Listener {
    /// Binds; nothing is served yet.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `service` over whatever session there is, until cancelled; then lets requests under way
    /// end, within a little time.
    pub async fn run(
        self,
        service: ServiceName,
        current: watch::Receiver<Current>,
        cancel: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        let ended = CancellationToken::new();
        let way = Way::new(service, current);
        let shared = Arc::new(Shared {
            forwarder: Forwarder::new(way.clone(), tasks.clone(), ended.clone()),
            way,
            hosts: Hosts::of(self.address),
            ended: ended.clone(),
        });
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &room) => accepted,
                () = cancel.cancelled() => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (shared, cancel) = (shared.clone(), cancel.clone());
                    drop(tasks.spawn(async move {
                        serve(stream, shared, cancel).await;
                        drop(permit);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a local connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        let waited = tokio::time::timeout(END_TIMEOUT, tasks.wait()).await;
        if waited.is_err() {
            ended.cancel();
            tasks.wait().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await;
    let permit = permit.expect("the semaphore is never closed");
    let (stream, _peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, shared: Arc<Shared>, cancel: CancellationToken) {
    let ended = shared.ended.clone();
    let Some(kind) = ended.run_until_cancelled(shared.way.kind()).await else {
        return;
    };
    match kind {
        Some(ServiceKind::Tcp) => stream::join(stream, &shared.way, &ended).await,
        Some(ServiceKind::Udp) => tracing::warn!("a connection to a service that speaks UDP"),
        // Where there was no session ever, HTTP can say so.
        Some(ServiceKind::Http) | None => serve_http(stream, shared, cancel).await,
    }
}

async fn serve_http(stream: TcpStream, shared: Arc<Shared>, cancel: CancellationToken) {
    let ended = shared.ended.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let as_page = page::is_wanted(request.headers());
            let response = if shared.hosts.are_meant(&request) {
                shared.forwarder.forward(request).await
            } else {
                let status = StatusCode::MISDIRECTED_REQUEST;
                page::with_status(status, Reason::RequestInvalid, as_page)
            };
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(headers::MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = connection => outcome,
                () = ended.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a local connection ended");
    }
}

/// The hosts that a request may be for.
struct Hosts {
    names: Vec<String>,
    port: u16,
}

impl Hosts {
    /// This machine's own names, and the address listened on if there is just one.
    fn of(address: SocketAddr) -> Self {
        let mut names = ["localhost", "127.0.0.1", "[::1]"]
            .map(str::to_owned)
            .to_vec();
        if !address.ip().is_unspecified() {
            names.push(match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        Self {
            names,
            port: address.port(),
        }
    }

    /// Whether a request is for one of them, and says so only once.
    fn are_meant(&self, request: &Request<Incoming>) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let target = request.uri().authority().map(|target| target.as_str());
        hosts.next().is_none()
            && host.is_some_and(|host| self.contain(host))
            && target.is_none_or(|target| self.contain(target))
    }

    fn contain(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match host.strip_suffix(&format!(":{}", self.port)) {
            Some(name) => self.names.iter().any(|known| known == name),
            // Nobody writes the default port.
            None => self.port == 80 && self.names.contains(&host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_s_own_names_are_meant() {
        let hosts = Hosts::of(([127, 0, 0, 1], 8080).into());
        for good in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "LOCALHOST:8080",
        ] {
            assert!(hosts.contain(good), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:80",
            "localhost:80800",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "evil.localhost:8080",
            "127.0.0.1:8081",
            "127.0.0.2:8080",
            ":8080",
            "",
        ] {
            assert!(!hosts.contain(bad), "{bad}");
        }
    }

    #[test]
    fn the_address_listened_on_is_meant_too() {
        let one = Hosts::of(([192, 0, 2, 7], 80).into());
        assert!(one.contain("192.0.2.7") && one.contain("192.0.2.7:80"));
        let all = Hosts::of(([0, 0, 0, 0], 8080).into());
        assert!(!all.contain("0.0.0.0:8080"));
        let six = Hosts::of("[2001:db8::7]:8080".parse().unwrap());
        assert!(six.contain("[2001:db8::7]:8080"));
    }
}
