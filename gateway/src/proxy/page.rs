//! Answers of our own: small, readable, with a reason code; a page that recovers by itself.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use portway_protocol::reason::Reason;

use super::ProxyBody;

/// Header that tells our answers from the service's.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("portway-reason");

/// Whether the client would show a page.
#[must_use]
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

/// An answer that says why there is no other.
#[must_use]
pub fn error(reason: Reason, as_page: bool) -> Response<ProxyBody> {
    with_status(status(reason), reason, as_page)
}

/// The same, where the status does not follow from the reason.
#[must_use]
pub fn with_status(status: StatusCode, reason: Reason, as_page: bool) -> Response<ProxyBody> {
    let (content_type, body) = if as_page {
        ("text/html; charset=utf-8", html(status, reason))
    } else {
        let text = format!(
            "{}: {} {}\n",
            reason.code(),
            reason.message(),
            reason.hint()
        );
        ("text/plain; charset=utf-8", text)
    };
    let body = Full::new(Bytes::from(body))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON_HEADER, HeaderValue::from_static(reason.code()));
    response
}

fn status(reason: Reason) -> StatusCode {
    if reason == Reason::PermissionDenied {
        StatusCode::FORBIDDEN
    } else if [
        Reason::RequestInvalid,
        Reason::ServiceNotHttp,
        Reason::TopicInvalid,
    ]
    .contains(&reason)
    {
        StatusCode::BAD_REQUEST
    } else if reason == Reason::MessageTooLarge {
        StatusCode::PAYLOAD_TOO_LARGE
    } else if [Reason::RateLimited, Reason::ServiceFull].contains(&reason) {
        StatusCode::TOO_MANY_REQUESTS
    } else if reason == Reason::ServiceUnknown {
        StatusCode::NOT_FOUND
    } else if reason == Reason::UpstreamConnectTimeout || reason == Reason::UpstreamTimeout {
        StatusCode::GATEWAY_TIMEOUT
    } else {
        StatusCode::BAD_GATEWAY
    }
}

/// Reasons that pass by themselves: the page looks again.
fn is_passing(status: StatusCode) -> bool {
    [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

/// Only our own words, so nothing needs escaping.
fn html(status: StatusCode, reason: Reason) -> String {
    let refresh = if is_passing(status) {
        r#"<meta http-equiv="refresh" content="2">"#
    } else {
        ""
    };
    format!(
        r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{message}</title>{refresh}
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;min-height:90vh;display:grid;place-content:center;justify-items:center;text-align:center;padding:1rem;margin:0}}h1{{font-size:1.35rem;margin:0 0 .5rem}}p{{margin:0 0 1rem;max-width:32rem;opacity:.8}}code{{font:.8rem ui-monospace,monospace;opacity:.6}}</style>
</head><body><h1>{message}</h1><p>{hint}</p><code>{code}</code></body></html>
"#,
        message = reason.message(),
        hint = reason.hint(),
        code = reason.code(),
    )
}
