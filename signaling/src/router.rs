//! Every origin and path, and the headers that go with them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use portway_protocol::limits::MAX_SIGNAL_MESSAGE;
use portway_protocol::reason::Reason;
use portway_protocol::signal::{PATH as SIGNAL_PATH, SUBPROTOCOL};

use crate::assets::{Asset, Coding};
use crate::host::{Hosts, Origin};
use crate::socket;
use crate::state::{AppState, count};

/// Everything of ours on any origin.
const OURS: &str = "/_portway/";

/// Largest message that is read at all: one that is somewhat too long is told so (1009), a much
/// longer one is cut off.
const MAX_READ: usize = 2 * MAX_SIGNAL_MESSAGE;

/// Where a connection comes from: the last hop before us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origination(pub(crate) SocketAddr);

/// axum's default costs 135 kB a socket.
const READ_BUFFER: usize = 4096;

/// The one handler: origins come first, so there is no table of paths to match before them.
pub(crate) fn build(state: AppState) -> Router {
    Router::new().fallback(dispatch).with_state(state)
}

async fn dispatch(State(state): State<AppState>, request: Request) -> Response {
    let Some(host) = request.headers().get(header::HOST) else {
        return text(StatusCode::BAD_REQUEST, "a Host header is required");
    };
    let origin = host
        .to_str()
        .ok()
        .and_then(|host| state.0.hosts.parse(host));
    let Some(origin) = origin else {
        count(&state.0.counters.misdirected);
        let portal = state.0.hosts.origin(&Origin::Portal);
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            &format!("this is not one of our names; the portal is {portal}/"),
        );
    };
    let path = request.uri().path();
    if path == SIGNAL_PATH && origin == Origin::Holder {
        return signal(state, request).await;
    }
    if path == "/_portway/health" {
        return health(&state);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return bypassed(&state, &request);
    }
    if let Some(name) = path.strip_prefix(OURS) {
        let name = if name == "holder" && origin == Origin::Holder {
            "holder.html"
        } else {
            name
        };
        return file(&state, &origin, name, request.headers());
    }
    match &origin {
        Origin::Service(_) if is_top_navigation(request.headers()) => {
            file(&state, &origin, "wrapper.html", request.headers())
        }
        Origin::Service(_) => bypassed(&state, &request),
        Origin::Portal if path == "/" => file(&state, &origin, "portal.html", request.headers()),
        Origin::Portal | Origin::Holder => text(StatusCode::NOT_FOUND, "nothing here"),
    }
}

/// A navigation of a whole tab. Browsers that do not say get the page too: a service is never
/// behind it, and scripts cannot leave the header out.
fn is_top_navigation(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_none_or(|v| v == value);
    is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document")
}

/// An app request reached us although it should have gone to the service: refused and counted,
/// never answered with a page of ours that an app could take for its own data.
fn bypassed(state: &AppState, request: &Request) -> Response {
    count(&state.0.counters.bypassed);
    let destination = request.headers().get("sec-fetch-dest");
    tracing::info!(?destination, method = %request.method(), "an app request bypassed the service worker");
    let reason = Reason::AppRequestBypassed;
    let mut response = text(
        StatusCode::FORBIDDEN,
        &format!("{}: {} {}", reason.code(), reason.message(), reason.hint()),
    );
    response.headers_mut().insert(
        "portway-reason",
        HeaderValue::from_static("APP_REQUEST_BYPASSED"),
    );
    response
}

fn health(state: &AppState) -> Response {
    use std::sync::atomic::Ordering::Relaxed;
    let counters = &state.0.counters;
    let body = serde_json::json!({
        "ok": true,
        "version": state.0.config.version,
        "nodes": state.0.registry.connected(),
        "sockets": counters.sockets.load(Relaxed),
        "bypassed": counters.bypassed.load(Relaxed),
        "misdirected": counters.misdirected.load(Relaxed),
        "refused": counters.refused.load(Relaxed),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    set(&mut response, header::CONTENT_TYPE, "application/json");
    set(&mut response, header::CACHE_CONTROL, "no-store");
    harden(&mut response);
    response
}

async fn signal(state: AppState, request: Request) -> Response {
    let allowed = state.0.hosts.origin(&Origin::Holder);
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && origin != allowed.as_str()
    {
        count(&state.0.counters.refused);
        return text(StatusCode::FORBIDDEN, "this origin may not use signaling");
    }
    let (mut parts, _body) = request.into_parts();
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.protocols([SUBPROTOCOL]),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none() {
        return text(
            StatusCode::BAD_REQUEST,
            "the subprotocol is portway.signal.v1",
        );
    }
    let origination = parts.extensions.get::<Origination>();
    let address = origination.map(|Origination(address)| address.ip().to_canonical());
    let tracker = state.0.sockets.clone();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_READ)
        .max_frame_size(MAX_READ)
        .on_upgrade(move |socket| tracker.track_future(socket::task::run(socket, address, state)))
}

fn file(state: &AppState, origin: &Origin, name: &str, request: &HeaderMap) -> Response {
    let Some(asset) = state.0.assets.get(name) else {
        return text(StatusCode::NOT_FOUND, "no such file");
    };
    let is_page = name.ends_with(".html");
    let mut response = if !is_page
        && request
            .get(header::IF_NONE_MATCH)
            .is_some_and(|v| v == asset.etag.as_str())
    {
        StatusCode::NOT_MODIFIED.into_response()
    } else if is_page {
        page(&state.0.hosts, origin, asset)
    } else {
        content(asset, request)
    };
    let csp = content_security_policy(&state.0.hosts, name);
    set(&mut response, header::CONTENT_SECURITY_POLICY, &csp);
    if !is_page {
        set(&mut response, header::ETAG, &asset.etag);
    }
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    set(&mut response, header::VARY, "accept-encoding");
    if name == "sw.js" {
        set(
            &mut response,
            HeaderName::from_static("service-worker-allowed"),
            "/",
        );
    }
    harden(&mut response);
    response
}

fn content(asset: &Asset, request: &HeaderMap) -> Response {
    let accepted = request
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut forms = asset.compressed.iter();
    let mut response = match forms.find(|(coding, _)| accepts(accepted, *coding)) {
        Some((coding, compressed)) => {
            let mut response = Response::new(Body::from(compressed.clone()));
            set(&mut response, header::CONTENT_ENCODING, coding.name());
            response
        }
        None => Response::new(Body::from(asset.content.clone())),
    };
    set(&mut response, header::CONTENT_TYPE, asset.content_type);
    response
}

/// Whether an `accept-encoding` names a coding, and not to refuse it with a weight of 0.
fn accepts(accepted: &str, coding: Coding) -> bool {
    accepted.split(',').any(|offer| {
        let (name, weight) = offer.split_once(';').unwrap_or((offer, "q=1"));
        let weight = weight.trim().strip_prefix("q=").map(str::parse);
        name.trim().eq_ignore_ascii_case(coding.name()) && weight != Some(Ok(0.0))
    })
}

/// A page with the names that it needs filled in. They are DNS labels, so nothing needs escaping.
fn page(hosts: &Hosts, origin: &Origin, asset: &Asset) -> Response {
    let service = match origin {
        Origin::Service(name) => name.as_str(),
        Origin::Portal | Origin::Holder => "",
    };
    let mut html = String::from_utf8_lossy(&asset.content).into_owned();
    for (name, value) in [
        ("portway-cluster", hosts.cluster().as_str()),
        ("portway-domain", hosts.domain()),
        ("portway-service", service),
    ] {
        html = html.replace(
            &format!("<meta name=\"{name}\" content=\"\">"),
            &format!("<meta name=\"{name}\" content=\"{value}\">"),
        );
    }
    let mut response = Response::new(Body::from(html));
    set(&mut response, header::CONTENT_TYPE, asset.content_type);
    response
}

/// No inline script, no foreign origin; each page may do just what it is for.
fn content_security_policy(hosts: &Hosts, name: &str) -> String {
    let holder = hosts.origin(&Origin::Holder);
    let mut csp = String::from("default-src 'none'; base-uri 'none'; form-action 'none'; ");
    let rest = match name {
        "wrapper.html" => format!(
            "script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; frame-src 'self' {holder}; frame-ancestors 'self'"
        ),
        "holder.html" => format!(
            "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' {}; frame-ancestors {}",
            holder.replacen("http", "ws", 1),
            hosts.service_origins(),
        ),
        "worker.js" => format!(
            "script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' {}",
            holder.replacen("http", "ws", 1),
        ),
        "portal.html" => {
            "style-src 'self'; img-src 'self' data:; frame-ancestors 'none'".to_owned()
        }
        // The service worker fetches on behalf of the wrapper and of the app's own foreign
        // requests; it must be free to.
        "sw.js" => "script-src 'self'; connect-src *".to_owned(),
        _ => "frame-ancestors 'none'".to_owned(),
    };
    write!(csp, "{rest}").expect("writing to a String");
    csp
}

fn harden(response: &mut Response) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-site"),
    ] {
        set(response, HeaderName::from_static(name), value);
    }
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("our own values are valid");
    response.headers_mut().insert(name, value);
}

fn text(status: StatusCode, message: &str) -> Response {
    let mut response = (status, message.to_owned() + "\n").into_response();
    set(&mut response, header::CACHE_CONTROL, "no-store");
    harden(&mut response);
    response
}
