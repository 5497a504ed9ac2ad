//! The strict reverse proxy: one HTTP/2 request of a session becomes exactly one HTTP/1.1 request
//! to a local service, or one connection or flow to a service that speaks something else.
//!
//! - [`connect`]: the way to a service. [`headers`]: what may pass in each direction.
//! - [`http`]: ordinary requests. [`upgrade`]: WebSockets. [`tunnel`]: bytes both ways. [`udp`]: datagrams.
//!   [`page`]: our own answers.
//!
//! Security: nothing a client sends chooses the target; it comes from the node's configuration.
//! Requests are re-serialised from typed values by hyper, which alone writes framing, so that no
//! header or body can be read as a second request.

pub mod connect;
pub mod headers;
pub mod http;
pub mod page;
pub mod tunnel;
pub mod udp;
pub mod upgrade;

use std::sync::{Arc, Mutex};

use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use portway_protocol::budget::Budget;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use portway_transport::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::SessionLog;
use crate::flows::Flows;
use crate::service::{Backend, Service};

/// A response body: a service's, or our own page.
pub type ProxyBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Who asks, and as what they see the service.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Name of the user, from the grant.
    pub user: String,
    /// How they are reached now, if that is known.
    pub path: watch::Receiver<Option<Path>>,
    /// What the grant allows.
    pub permission: portway_protocol::permission::Permission,
    /// The flows of the session.
    pub flows: Arc<Flows>,
    /// How many messages they may publish.
    pub publishing: Arc<Mutex<Budget>>,
    /// Owner of what outlives a request: open WebSockets and tunnels.
    pub tasks: TaskTracker,
    /// Cancelled when the session ends.
    pub ended: CancellationToken,
}

/// Handles one request of a session.
pub(crate) async fn handle(
    service: &Service,
    visitor: &Visitor,
    log: &SessionLog,
    request: Request<Incoming>,
) -> Response<ProxyBody> {
    log.request();
    let wants_page = page::is_wanted(request.headers());
    let is_websocket = request.extensions().get::<hyper::ext::Protocol>().is_some();
    let kind = service.spec.target.kind();
    let method = match kind {
        // A WebSocket opens with a GET as far as permissions are concerned (RFC 8441 §5).
        ServiceKind::Http if is_websocket => &Method::GET,
        ServiceKind::Http => request.method(),
        // No request says which bytes are harmless.
        ServiceKind::Tcp | ServiceKind::Listen | ServiceKind::Udp => &Method::CONNECT,
    };
    let path = match kind {
        ServiceKind::Http => request.uri().path(),
        ServiceKind::Tcp | ServiceKind::Listen | ServiceKind::Udp => "",
    };
    if !visitor.permission.allows(method.as_str(), path) {
        log.denied(method, path, Reason::PermissionDenied);
        return page::error(Reason::PermissionDenied, wants_page);
    }
    let program = match &service.backend {
        Backend::Program(program) => program,
        Backend::Entrance(entrance) => {
            let answer = if request.method() == Method::POST {
                tunnel::take(entrance, visitor, request).await
            } else {
                Err(Reason::ServiceNotHttp)
            };
            return answer.unwrap_or_else(|reason| page::error(reason, wants_page));
        }
        Backend::Files(files) => return files.answer(visitor, request).await,
        Backend::Messages(messages) => {
            let answer = messages.answer(visitor, request).await;
            return answer.unwrap_or_else(|reason| page::error(reason, wants_page));
        }
    };
    let outcome = match kind {
        ServiceKind::Http if is_websocket => upgrade::forward(program, visitor, request).await,
        ServiceKind::Http if [Method::CONNECT, Method::TRACE].contains(request.method()) => {
            Err(Reason::RequestInvalid)
        }
        ServiceKind::Http => http::forward(program, visitor, request).await,
        ServiceKind::Tcp if request.method() == Method::POST => {
            tunnel::open(program, visitor, request).await
        }
        ServiceKind::Udp if udp::is_wanted(request.headers()) => {
            udp::open(program, visitor, request).await
        }
        ServiceKind::Tcp | ServiceKind::Listen | ServiceKind::Udp => Err(Reason::ServiceNotHttp),
    };
    outcome.unwrap_or_else(|reason| page::error(reason, wants_page))
}
