//! A message bus: a service that the node itself answers for, see `docs/protocol.md` §6.
//!
//! ```text
//! POST /TOPIC ──► bus: log of the last messages ◄── GET /FILTER, one subscription each
//! ```
//! - `log`: what is kept. `bus`: the log, and who reads it. `subscription`: the way of one of them.
//!
//! A message is kept once, whoever waits for it: a subscription is a place in the log and has no queue. So what is
//! bounded is the log, and a subscriber that is slower than that is told how many messages it has missed.
//!
//! Whether the user may publish or subscribe was decided before, as for any service, by method and path.

mod bus;
mod log;
mod subscription;

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use portway_protocol::budget::Budget;
use portway_protocol::message::{
    DEFAULT_CONTENT_TYPE, EVENT_STREAM, Filter, MAX_BODY, MAX_CONTENT_TYPE, MessageId, Topic,
};
use portway_protocol::reason::Reason;

use crate::audit::unix_ms;
use crate::proxy::{ProxyBody, Visitor};
use bus::{Bus, Publication};
use subscription::Subscription;

/// Messages a second that a session may publish.
const PUBLISH_RATE: f64 = 100.0;

/// Messages that it may publish at once.
const PUBLISH_BURST: f64 = 200.0;

/// Time for the body of a message.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The last message that a subscriber has seen.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a session may publish.
pub(crate) fn allowance() -> Arc<Mutex<Budget>> {
    let budget = Budget::new(Instant::now(), PUBLISH_RATE, PUBLISH_BURST);
    Arc::new(Mutex::new(budget))
}

/// A bus, from its start to that of another.
#[derive(Debug)]
pub(crate) struct Messages {
    bus: Arc<Bus>,
}

impl Messages {
    /// Nothing was published yet.
    pub(crate) fn start() -> Self {
        Self {
            bus: Arc::new(Bus::new(unix_ms())),
        }
    }

    /// Publishes, or subscribes.
    ///
    /// # Errors
    /// Why it does neither.
    pub(crate) async fn answer(
        &self,
        visitor: &Visitor,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Reason> {
        if request.method() == Method::POST {
            self.publish(visitor, request).await
        } else if request.method() == Method::GET {
            self.subscribe(visitor, &request)
        } else {
            Err(Reason::RequestInvalid)
        }
    }

    async fn publish(
        &self,
        visitor: &Visitor,
        request: Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Reason> {
        let topic = meant::<Topic>(&request)?;
        let content_type = content_type(request.headers())?;
        let allowed = {
            let budget = visitor.publishing.lock();
            let mut budget = budget.unwrap_or_else(PoisonError::into_inner);
            budget.take(Instant::now())
        };
        if !allowed {
            return Err(Reason::RateLimited);
        }
        let body = whole(request.into_body()).await?;
        let published = self.bus.publish(Publication {
            topic,
            publisher: visitor.user.clone(),
            at_ms: unix_ms(),
            content_type,
            body,
        });
        let json = serde_json::to_vec(&published).map_err(|_| Reason::Internal)?;
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {});
        Ok(made("application/json", body.boxed_unsync()))
    }

    fn subscribe(
        &self,
        visitor: &Visitor,
        request: &Request<Incoming>,
    ) -> Result<Response<ProxyBody>, Reason> {
        let filter = meant::<Filter>(request)?;
        if !filter.is_allowed_by(&visitor.permission) {
            return Err(Reason::PermissionDenied);
        }
        let since = last_event_id(request.headers())?;
        let subscription = Subscription::start(&self.bus, filter, since)?;
        let events = subscription
            .into_events()
            .map(|event| Ok(Frame::data(event)));
        // It has no end of its own.
        let events = events.take_until(visitor.ended.clone().cancelled_owned());
        Ok(made(EVENT_STREAM, StreamBody::new(events).boxed_unsync()))
    }
}

/// What the path of a request says.
fn meant<T: FromStr>(request: &Request<Incoming>) -> Result<T, Reason> {
    let path = request.uri().path();
    let meant = path.strip_prefix('/').map(str::parse);
    meant.and_then(Result::ok).ok_or(Reason::TopicInvalid)
}

/// As the publisher says.
fn content_type(headers: &HeaderMap) -> Result<String, Reason> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(DEFAULT_CONTENT_TYPE.to_owned());
    };
    match value.to_str() {
        Ok(text) if text.len() <= MAX_CONTENT_TYPE => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err(Reason::RequestInvalid),
    }
}

/// What a subscriber has seen already. A browser that has seen nothing says nothing, or an empty id.
fn last_event_id(headers: &HeaderMap) -> Result<Option<MessageId>, Reason> {
    let value = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
    let parse = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
    value
        .map(|value| parse(value).ok_or(Reason::RequestInvalid))
        .transpose()
}

async fn whole(body: Incoming) -> Result<Bytes, Reason> {
    let collected = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Reason::MessageTooLarge),
        Ok(Err(_)) | Err(_) => Err(Reason::BodyTruncated),
    }
}

/// An answer of the bus. What others have published is never shown as a page.
fn made(content_type: &'static str, body: ProxyBody) -> Response<ProxyBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
