//! Publishes to a message bus, and subscribes.
//!
//! A subscription outlives its requests and sessions: each request names the last message that was heard, and the bus
//! goes on from there.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use portway_protocol::backoff::Backoff;
use portway_protocol::message::event::Decoder;
use portway_protocol::message::{
    EVENT_STREAM, Event, Filter, Message, MessageId, Missed, Published, Topic,
};
use portway_protocol::reason::Reason;
use tokio::sync::watch;

use super::ClientError;
use super::keeper::Current;
use super::session::{RequestBody, Requests};
use super::stream::reason_of;
use crate::random::random;

/// Largest answer to a message, bytes.
const MAX_ANSWER: usize = 4 * 1024;

/// Time for the answer to a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A bus that says nothing for so long is asked again: it gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(50);

/// First pause before a request is repeated.
const RETRY_BASE: Duration = Duration::from_millis(200);

/// Longest one.
const RETRY_CAP: Duration = Duration::from_secs(5);

/// Publishes a message; it is not sent twice.
///
/// # Errors
/// [`ClientError::Refused`] with the gateway's reason, or why it is not known whether it was published.
pub async fn publish(
    requests: &mut Requests,
    topic: &Topic,
    content_type: &str,
    body: Bytes,
) -> Result<Published, ClientError> {
    let body = Full::new(body).map_err(|never| match never {});
    let request = Request::builder()
        .method(Method::POST)
        .header(header::CONTENT_TYPE, content_type);
    let request = to(topic, request, body.boxed_unsync())?;
    let answered = async {
        let response = accepted(requests.send(request).await?)?;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body.await.map_err(|_| ClientError::Ended)?.to_bytes();
        serde_json::from_slice(&body).map_err(|_| not_a_bus())
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answered).await;
    answer.unwrap_or(Err(ClientError::Timeout))
}

/// What a subscriber hears.
#[derive(Debug)]
pub enum Heard {
    /// It listens, again if it has before. All up to here was heard before, or came before.
    Subscribed(MessageId),
    /// A message.
    Message(Message),
    /// Some never come.
    Missed(Missed),
}

/// Somebody who listens, for as long as there are sessions.
pub struct Subscriber {
    sessions: watch::Receiver<Current>,
    filter: Filter,
    last: Option<MessageId>,
    stream: Option<Events>,
    backoff: Backoff,
}

/// What comes by one request.
struct Events {
    body: Incoming,
    decoder: Decoder,
    stage: Stage,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Where it begins was not said yet.
    Opening,
    /// It was.
    Listening,
}

impl Subscriber {
    /// Nothing is asked yet. Without an id it hears what comes from then on; with one, all after that as far as it
    /// is kept.
    #[must_use]
    pub fn new(
        sessions: watch::Receiver<Current>,
        filter: Filter,
        since: Option<MessageId>,
    ) -> Self {
        Self {
            sessions,
            filter,
            last: since,
            stream: None,
            backoff: Backoff::new(RETRY_BASE, RETRY_CAP),
        }
    }

    /// What it hears next. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// The bus refuses it, or speaks wrongly; [`ClientError::Ended`] when there are no more sessions.
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.ask().await?;
                continue;
            };
            let event = match tokio::time::timeout(SILENCE, stream.next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Err(error @ ClientError::Event(_))) => return Err(error),
                ended @ (Ok(Ok(None) | Err(_)) | Err(_)) => {
                    tracing::debug!(?ended, "a subscription is asked for again");
                    self.stream = None;
                    self.pause().await;
                    continue;
                }
            };
            match event {
                Event::Position(id) => {
                    self.last = Some(id);
                    if std::mem::replace(&mut stream.stage, Stage::Listening) == Stage::Opening {
                        self.backoff.reset();
                        return Ok(Heard::Subscribed(id));
                    }
                }
                Event::Message(message) => {
                    self.last = Some(message.id);
                    return Ok(Heard::Message(message));
                }
                Event::Missed(missed) => return Ok(Heard::Missed(missed)),
            }
        }
    }

    /// Asks for a stream by the session that there is; waits for one.
    async fn ask(&mut self) -> Result<(), ClientError> {
        let open = self.sessions.wait_for(|current| current.open().is_some());
        let mut requests = match open.await {
            Ok(current) => current.requests.clone().ok_or(ClientError::Ended)?,
            Err(_) => return Err(ClientError::Ended),
        };
        let request = Request::builder().header(header::ACCEPT, EVENT_STREAM);
        let request = match self.last {
            Some(last) => request.header("last-event-id", last.to_string()),
            None => request,
        };
        let body = Empty::new().map_err(|never| match never {});
        let request = to(&self.filter, request, body.boxed_unsync())?;
        let answered = async {
            let response = accepted(requests.send(request).await?)?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            if content_type.is_none_or(|it| it != EVENT_STREAM) {
                return Err(not_a_bus());
            }
            Ok(response.into_body())
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(body)) => {
                self.stream = Some(Events {
                    body,
                    decoder: Decoder::default(),
                    stage: Stage::Opening,
                });
            }
            Ok(Err(ClientError::Refused(reason))) if !is_passing(reason) => {
                return Err(ClientError::Refused(reason));
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a subscription failed");
                self.pause().await;
            }
            Err(_) => self.pause().await,
        }
        Ok(())
    }

    async fn pause(&mut self) {
        let delay = self.backoff.next_delay(u32::from_ne_bytes(random()));
        tokio::time::sleep(delay).await;
    }
}

impl Events {
    /// `None` at the end. What was taken and not told yet is kept if this is cancelled.
    async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.decoder.next_event()? {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.decoder.feed(&data);
            }
        }
    }
}

/// A request about a topic or filter.
fn to(
    path: &impl std::fmt::Display,
    request: http::request::Builder,
    body: RequestBody,
) -> Result<Request<RequestBody>, ClientError> {
    let request = request.uri(format!("http://service/{path}"));
    let request = request.version(Version::HTTP_2).body(body);
    request.map_err(|_| ClientError::Refused(Reason::RequestInvalid))
}

/// The response, if it is what was asked for.
fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let reason = reason_of(&response);
    // A bus does not say that: something else has answered.
    if reason == Reason::UpstreamInvalid {
        return Err(not_a_bus());
    }
    Err(ClientError::Refused(reason))
}

const fn not_a_bus() -> ClientError {
    ClientError::Refused(Reason::ServiceNotMessages)
}

/// Whether a bus may say otherwise soon.
fn is_passing(reason: Reason) -> bool {
    [Reason::RateLimited, Reason::Draining].contains(&reason)
}
