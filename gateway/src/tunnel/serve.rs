//! One local connection, to its end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forward::Forwarder;
use super::hosts::Hosts;
use super::socks::Greeting;
use super::stream;
use super::way::Way;
use crate::client::keeper::Current;
use crate::proxy::connect::Stream;
use crate::proxy::{headers, page};

/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How whoever connects is led to a service.
#[derive(Clone)]
pub(super) struct Server(Arc<Shared>);

struct Shared {
    way: Way,
    forwarder: Forwarder,
    hosts: Hosts,
    ends: Ends,
    /// Silence after which a connection is cut off.
    idle_timeout: Option<Duration>,
}

/// What ends connections.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// No more requests are to begin.
    pub(super) cancel: CancellationToken,
    /// Those under way are to end, too.
    pub(super) ended: CancellationToken,
}

impl Server {
    /// Leads to `service`. `tasks`: owner of open WebSockets.
    pub(super) fn new(
        service: ServiceName,
        current: watch::Receiver<Current>,
        hosts: Hosts,
        (tasks, ends): (TaskTracker, Ends),
        idle_timeout: Option<Duration>,
    ) -> Self {
        let way = Way::new(service, current);
        Self(Arc::new(Shared {
            forwarder: Forwarder::new(way.clone(), tasks, ends.ended.clone(), idle_timeout),
            way,
            hosts,
            ends,
            idle_timeout,
        }))
    }

    /// Serves one connection.
    pub(super) async fn serve(self, stream: Stream, greeting: Greeting) {
        let Shared { way, ends, .. } = &*self.0;
        let Some(kind) = ends.ended.run_until_cancelled(way.kind()).await else {
            return;
        };
        match kind {
            Some(ServiceKind::Tcp) => {
                let idle_timeout = self.0.idle_timeout;
                stream::join(stream, greeting, way, &ends.ended, idle_timeout).await;
            }
            Some(ServiceKind::Udp) => self.refuse(stream, greeting, Reason::ServiceIsUdp).await,
            Some(ServiceKind::Listen) => {
                self.refuse(stream, greeting, Reason::ServiceListens).await;
            }
            // Where there was no session ever, HTTP can say so.
            Some(ServiceKind::Http) | None => self.http(stream, greeting).await,
        }
    }

    /// No connection leads to a service of such a kind.
    async fn refuse(self, mut stream: Stream, greeting: Greeting, reason: Reason) {
        tracing::warn!(service = %self.0.way.service, %reason, "a connection leads nowhere");
        if let Err(error) = greeting.refused(&mut stream, reason).await {
            tracing::debug!(%error, "a local program has gone");
        }
        stream.reset();
    }

    async fn http(self, mut stream: Stream, greeting: Greeting) {
        let failure = self.0.way.failure();
        let refused = failure.filter(|_| greeting.can_refuse());
        let greeted = match refused {
            Some(reason) => greeting.refused(&mut stream, reason).await,
            None => greeting.opened(&mut stream).await,
        };
        if let Err(error) = &greeted {
            tracing::debug!(%error, "a local program has gone");
        }
        if greeted.is_err() || refused.is_some() {
            return;
        }
        let shared = self.0.clone();
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
        let Ends { cancel, ended } = &self.0.ends;
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
}
