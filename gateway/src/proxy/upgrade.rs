//! WebSockets: an extended CONNECT (RFC 8441) becomes an HTTP/1.1 upgrade (RFC 6455 §4).
//!
//! The stream then carries frames that neither end of us looks into. No byte of the client passes
//! before the service has switched protocols, so a service that refuses never reads frames as a
//! second request.

use ::http::header::{self, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portway_protocol::reason::Reason;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{RESPONSE_TIMEOUT, io_reason};
use super::{ProxyBody, Visitor, headers};
use crate::limits::activity::Activity;
use crate::service::Program;

/// Largest body of a refusal that is passed on.
const MAX_REFUSAL: usize = 64 * 1024;

/// Opens a WebSocket at the service; the response is 200 when it is open.
///
/// # Errors
/// Why it is not.
pub async fn forward(
    service: &Program,
    visitor: &Visitor,
    mut request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Reason> {
    let is_websocket = request
        .extensions()
        .get::<hyper::ext::Protocol>()
        .is_some_and(|protocol| protocol.as_str() == "websocket");
    if !is_websocket {
        return Err(Reason::RequestInvalid);
    }
    let key = generate_key();
    let upgrade_request = to_http1(service, visitor, &request, &key)?;
    let stream = service
        .upstream
        .connect()
        .await
        .map_err(|error| io_reason(&error, true))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Reason::UpstreamInvalid)?;
    let mut connection = Box::pin(connection.with_upgrades());
    let exchange = tokio::time::timeout(RESPONSE_TIMEOUT, sender.send_request(upgrade_request));
    tokio::pin!(exchange);
    let mut connection_ended = false;
    let response = loop {
        tokio::select! {
            response = &mut exchange => break response,
            _ended = &mut connection, if !connection_ended => connection_ended = true,
        }
    };
    let mut response = response
        .map_err(|_| Reason::UpstreamTimeout)?
        .map_err(|_| Reason::UpstreamInvalid)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refusal(response, connection, connection_ended).await;
    }
    let accept = response.headers().get("sec-websocket-accept");
    if accept.is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Reason::UpstreamInvalid);
    }
    // None was offered: its frames would mean something else.
    if response.headers().contains_key("sec-websocket-extensions") {
        return Err(Reason::UpstreamInvalid);
    }
    let protocol = response.headers().get("sec-websocket-protocol").cloned();
    let from_service = hyper::upgrade::on(&mut response);
    let from_client = hyper::upgrade::on(&mut request);
    let ended = visitor.ended.clone();
    let idle_timeout = service.limits.idle_timeout;
    let copy = async move {
        if !connection_ended && let Err(error) = connection.await {
            tracing::debug!(%error, "a WebSocket's connection failed");
            return;
        }
        let (Ok(service), Ok(client)) = tokio::join!(from_service, from_client) else {
            return;
        };
        let activity = Activity::begin();
        let mut service = activity.clone().watch(TokioIo::new(service));
        let mut client = TokioIo::new(client);
        let copied = tokio::io::copy_bidirectional(&mut service, &mut client);
        match activity.unless_idle(idle_timeout, copied).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a WebSocket ended early"),
            Err(idle) => tracing::info!(%idle, "a WebSocket was cut off"),
        }
    };
    drop(visitor.tasks.spawn(async move {
        ended.run_until_cancelled(copy).await;
    }));
    let empty = Empty::<Bytes>::new().map_err(|never| match never {});
    let mut opened = Response::new(empty.boxed_unsync());
    if let Some(protocol) = protocol {
        opened
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
    }
    Ok(opened)
}

fn to_http1(
    service: &Program,
    visitor: &Visitor,
    request: &Request<Incoming>,
    key: &str,
) -> Result<Request<Empty<Bytes>>, Reason> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut upgrade = Request::new(Empty::new());
    *upgrade.method_mut() = Method::GET;
    *upgrade.version_mut() = Version::HTTP_11;
    *upgrade.uri_mut() = path.parse::<Uri>().map_err(|_| Reason::RequestInvalid)?;
    let mut headers = request.headers().clone();
    if headers::size(&headers) > headers::MAX_HEADERS {
        return Err(Reason::RequestInvalid);
    }
    let public = headers::public_origin(&headers);
    headers::to_service(&mut headers, &service.upstream, visitor, public.as_deref());
    // Extensions are between the two ends of one connection; ours are two connections.
    headers.remove("sec-websocket-extensions");
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_ENCODING);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    let key = HeaderValue::from_str(key).map_err(|_| Reason::Internal)?;
    headers.insert("sec-websocket-key", key);
    *upgrade.headers_mut() = headers;
    Ok(upgrade)
}

/// The service's own words, bounded.
async fn refusal(
    response: Response<Incoming>,
    connection: impl Future<Output = hyper::Result<()>> + Unpin,
    connection_ended: bool,
) -> Result<Response<ProxyBody>, Reason> {
    let status = if response.status().is_success() || response.status().is_informational() {
        StatusCode::BAD_GATEWAY
    } else {
        response.status()
    };
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect();
    let drive = async {
        if connection_ended || connection.await.is_err() {
            std::future::pending::<()>().await;
        }
        std::future::pending::<()>().await;
    };
    let body = tokio::select! {
        body = tokio::time::timeout(RESPONSE_TIMEOUT, body) => body,
        () = drive => unreachable!("drives forever"),
    };
    let bytes = match body {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let body = http_body_util::Full::new(bytes).map_err(|never| match never {});
    let mut refused = Response::new(body.boxed_unsync());
    *refused.status_mut() = status;
    Ok(refused)
}
