//! Ordinary requests.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{self, HeaderValue};
use ::http::{Method, Request, Response, Uri, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use portway_protocol::reason::Reason;
use tokio::time::Instant;

use super::{ProxyBody, Visitor, headers};
use crate::service::Program;

/// Time for a response head once the service has the whole request (or has stopped taking it).
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Forwards a request and its body; returns the response, whose body streams.
///
/// # Errors
/// Why there is none.
pub async fn forward(
    service: &Program,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Reason> {
    let upstream = &service.upstream;
    let (mut parts, body) = request.into_parts();
    if headers::size(&parts.headers) > headers::MAX_HEADERS {
        return Err(Reason::RequestInvalid);
    }
    let public = headers::public_origin(&parts.headers);
    headers::to_service(&mut parts.headers, upstream, visitor, public.as_deref());
    // Where content is expected, its absence is said (RFC 9110 §8.6): some services wait for it, or
    // refuse what has no length.
    if body.is_end_stream() && [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method) {
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    parts.uri = target_uri(&parts.uri)?;
    parts.version = Version::HTTP_11;
    parts.extensions.clear();

    let progress = Progress::new();
    let body = Watched {
        body,
        progress: progress.clone(),
    };
    let client = service.client();
    let response = tokio::select! {
        response = client.request(Request::from_parts(parts, body)) => response,
        () = progress.stalled() => return Err(Reason::UpstreamTimeout),
    };
    let response = response.map_err(|error| {
        let reason = reason(&error);
        tracing::debug!(service = %service.name, %error, %reason, "a request failed");
        reason
    })?;
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, upstream, public.as_deref());
    parts.version = Version::HTTP_2;
    parts.extensions.clear();
    // A body that ends early is an error of the stream, so hyper resets it: never a clean end.
    let body = body.map_err(Into::into).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

/// Path and query of the client's URI on a name that only our connector sees.
fn target_uri(uri: &Uri) -> Result<Uri, Reason> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Uri::builder()
        .scheme("http")
        .authority("service")
        .path_and_query(path)
        .build()
        .map_err(|_| Reason::RequestInvalid)
}

/// The reason behind a client error.
fn reason(error: &hyper_util::client::legacy::Error) -> Reason {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return io_reason(cause, error.is_connect());
        }
        source = cause.source();
    }
    if error.is_connect() {
        Reason::UpstreamRefused
    } else {
        Reason::UpstreamInvalid
    }
}

/// The reason behind a failed connection or exchange.
pub(super) fn io_reason(error: &io::Error, while_connecting: bool) -> Reason {
    let is_tls = error
        .get_ref()
        .is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some());
    if is_tls {
        Reason::UpstreamCertificate
    } else if error.kind() == io::ErrorKind::TimedOut {
        Reason::UpstreamConnectTimeout
    } else if while_connecting {
        Reason::UpstreamRefused
    } else {
        Reason::UpstreamInvalid
    }
}

/// When the last byte of a request body was taken.
#[derive(Debug, Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until nothing has moved for [`RESPONSE_TIMEOUT`].
    async fn stalled(&self) {
        loop {
            let due = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + RESPONSE_TIMEOUT;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A request body that notes its progress, so that a long upload is not a timeout.
pub(crate) struct Watched {
    body: Incoming,
    progress: Progress,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.note();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
