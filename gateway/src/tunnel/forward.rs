//! One local request to an `http` service.

use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use portway_protocol::reason::Reason;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::way::{Failure, Way};
use crate::client::session::RequestBody;
use crate::limits::activity::Activity;
use crate::proxy::{ProxyBody, headers, page};

/// Forwards requests to one service.
pub(super) struct Forwarder {
    way: Way,
    /// Owner of open WebSockets.
    tasks: TaskTracker,
    /// Ends them.
    ended: CancellationToken,
    /// Silence after which they are cut off.
    idle_timeout: Option<Duration>,
}

impl Forwarder {
    pub(super) const fn new(
        way: Way,
        tasks: TaskTracker,
        ended: CancellationToken,
        idle_timeout: Option<Duration>,
    ) -> Self {
        Self {
            way,
            tasks,
            ended,
            idle_timeout,
        }
    }

    /// The service's response, or why there is none.
    pub(super) async fn forward(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        let as_page = page::is_wanted(request.headers());
        let outcome = if is_websocket(request.headers()) {
            self.upgrade(request).await
        } else {
            self.ordinary(request).await
        };
        match outcome {
            Ok(response) => response,
            Err(Failure::Failed(reason)) => page::error(reason, as_page),
            Err(Failure::NoSession(reason)) => {
                page::with_status(StatusCode::SERVICE_UNAVAILABLE, reason, as_page)
            }
        }
    }

    async fn ordinary(&self, request: Request<Incoming>) -> Result<Response<ProxyBody>, Failure> {
        if [Method::CONNECT, Method::TRACE].contains(request.method()) {
            return Err(Failure::Failed(Reason::RequestInvalid));
        }
        let (mut parts, body) = request.into_parts();
        parts.uri = self.target(&parts.uri)?;
        parts.version = Version::HTTP_2;
        parts.extensions.clear();
        to_gateway(&mut parts.headers);
        let body: RequestBody = body.map_err(Into::into).boxed_unsync();
        self.way
            .send(Request::from_parts(parts, body))
            .await
            .map(to_local)
    }

    /// An upgrade (RFC 6455 §4) becomes an extended CONNECT (RFC 8441).
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Failure> {
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or(Failure::Failed(Reason::RequestInvalid))?;
        let accept = derive_accept_key(key.as_bytes());
        let mut response = self.way.send(self.connect(&request)?).await?;
        if response.status() != StatusCode::OK {
            return Ok(to_local(response));
        }
        let protocol = response
            .headers()
            .get(header::SEC_WEBSOCKET_PROTOCOL)
            .cloned();
        let remote = hyper::upgrade::on(&mut response);
        let local = hyper::upgrade::on(&mut request);
        let idle_timeout = self.idle_timeout;
        let copy = async move {
            let (Ok(remote), Ok(local)) = tokio::join!(remote, local) else {
                return;
            };
            let activity = Activity::begin();
            let mut local = activity.clone().watch(TokioIo::new(local));
            let mut remote = TokioIo::new(remote);
            let copied = tokio::io::copy_bidirectional(&mut remote, &mut local);
            match activity.unless_idle(idle_timeout, copied).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a WebSocket ended early"),
                Err(idle) => tracing::warn!(%idle, "a WebSocket was cut off"),
            }
        };
        let ended = self.ended.clone();
        drop(self.tasks.spawn(async move {
            ended.run_until_cancelled(copy).await;
        }));
        switching(&accept, protocol)
    }

    /// The extended CONNECT for an upgrade.
    fn connect(&self, request: &Request<Incoming>) -> Result<Request<RequestBody>, Failure> {
        let mut connect = Request::new(empty());
        *connect.method_mut() = Method::CONNECT;
        *connect.version_mut() = Version::HTTP_2;
        *connect.uri_mut() = self.target(request.uri())?;
        let mut headers = request.headers().clone();
        to_gateway(&mut headers);
        headers.remove(header::SEC_WEBSOCKET_KEY);
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        headers.remove(header::CONTENT_LENGTH);
        *connect.headers_mut() = headers;
        let websocket = Protocol::from_static("websocket");
        connect.extensions_mut().insert(websocket);
        Ok(connect)
    }

    /// Path and query at the service.
    fn target(&self, uri: &Uri) -> Result<Uri, Failure> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Uri::builder()
            .scheme("http")
            .authority(self.way.service.as_str())
            .path_and_query(path)
            .build()
            .map_err(|_| Failure::Failed(Reason::RequestInvalid))
    }
}

/// Whether a request wants to become a WebSocket.
fn is_websocket(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Turns a local program's headers into the gateway's: no hop-by-hop ones, and the origin that the
/// program knows the service by.
fn to_gateway(headers: &mut HeaderMap) {
    let trailers = headers::wants_trailers(headers);
    headers::drop_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let Some(host) = headers.remove(header::HOST) else {
        return;
    };
    let origin = [b"http://", host.as_bytes()].concat();
    if let Ok(origin) = HeaderValue::from_bytes(&origin) {
        headers.insert(headers::ORIGIN_HEADER, origin);
    }
}

/// Turns the gateway's response into the local program's. A body that ends early is an error, so hyper
/// cuts the connection: never a clean end.
fn to_local(response: Response<Incoming>) -> Response<ProxyBody> {
    let (mut parts, body) = response.into_parts();
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    Response::from_parts(parts, body.map_err(Into::into).boxed_unsync())
}

/// The answer to an upgrade that has succeeded.
fn switching(accept: &str, protocol: Option<HeaderValue>) -> Result<Response<ProxyBody>, Failure> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(accept).map_err(|_| Failure::Failed(Reason::Internal))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

fn empty() -> ProxyBody {
    Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[cfg(test)]
mod tests {
    use ::http::header::HeaderName;

    use super::*;

    #[test]
    fn the_gateway_learns_the_origin_and_no_hop_by_hop_headers() {
        let mut headers: HeaderMap = [
            ("host", "localhost:8080"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]
        .map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        })
        .into_iter()
        .collect();
        to_gateway(&mut headers);
        assert_eq!(headers["portway-origin"], "http://localhost:8080");
        assert_eq!(headers["te"], "trailers");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "portway-origin", "te"]);
    }
}
