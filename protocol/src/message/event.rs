//! What a subscriber hears, as server-sent events (WHATWG HTML §9.2), so that the `EventSource` of a browser
//! understands it as well. Sans-IO.
//!
//! | block | means |
//! |---|---|
//! | `id: ID` alone | nothing was missed up to ID, for whoever subscribes again later; also a sign of life |
//! | `id: ID`, `data: {"topic":…}` | a [`Message`] |
//! | `event: missed`, `data: {"why":…}` | messages that never come, see [`Missed`] |
//!
//! A body that is text is so in JSON, and any other is base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{MAX_BODY, MessageId, Topic};

/// Largest block, bytes. A byte of a body becomes six at most (`\u0001`).
pub const MAX_EVENT: usize = 6 * MAX_BODY + 16 * 1024;

/// Name of the event that is no message.
const MISSED: &str = "missed";

/// Name of the event of a block that has none.
const MESSAGE: &str = "message";

/// What a subscriber hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All up to this was told, or is not wanted.
    Position(MessageId),
    /// A message.
    Message(Message),
    /// Some never come.
    Missed(Missed),
}

/// A message as subscribers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place.
    pub id: MessageId,
    /// What it is about.
    pub topic: Topic,
    /// User of the grant by which it was published: the node says so, not the publisher.
    pub publisher: String,
    /// When the node got it, milliseconds since 1970.
    pub at_ms: u64,
    /// Media type of the body, as the publisher says.
    pub content_type: String,
    /// At most [`MAX_BODY`] bytes.
    pub body: Bytes,
}

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Missed {
    /// The subscriber did not take them fast enough.
    Slow {
        /// How many.
        count: u64,
    },
    /// They came while it was away, and are not kept any more.
    Forgotten,
    /// The bus has restarted since; what it had is gone, if there was anything.
    Restarted,
}

/// Why bytes are no events.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// A block has no end.
    #[error("an event of more than {MAX_EVENT} bytes")]
    TooLong,
    /// It is no UTF-8.
    #[error("an event that is no text")]
    NotText,
    /// An id of another form.
    #[error("an event with the id `{0}`")]
    Id(String),
    /// Its data mean nothing.
    #[error("an event that is malformed: {0}")]
    Data(#[from] serde_json::Error),
    /// A message whose body is neither text nor base64.
    #[error("a message without a body")]
    Body,
}

/// A message in JSON; its id is the event's.
#[derive(Serialize, Deserialize)]
struct Data {
    topic: Topic,
    publisher: String,
    at_ms: u64,
    content_type: String,
    #[serde(flatten)]
    content: Content,
}

/// A body in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// As it is.
    Text(String),
    /// In base64 (RFC 4648 §4).
    Base64(String),
}

impl Content {
    /// Of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        match std::str::from_utf8(body) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(body)),
        }
    }

    fn body(self) -> Result<Bytes, EventError> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Base64(text) => {
                let body = STANDARD.decode(text);
                body.map(Into::into).map_err(|_| EventError::Body)
            }
        }
    }
}

impl Event {
    /// A block.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let text = match self {
            Self::Position(id) => format!("id: {id}\n\n"),
            Self::Message(message) => {
                let data = json(&Data {
                    topic: message.topic.clone(),
                    publisher: message.publisher.clone(),
                    at_ms: message.at_ms,
                    content_type: message.content_type.clone(),
                    content: Content::of(&message.body),
                });
                format!("id: {}\ndata: {data}\n\n", message.id)
            }
            Self::Missed(missed) => format!("event: {MISSED}\ndata: {}\n\n", json(missed)),
        };
        text.into()
    }
}

/// On one line.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}

/// Bytes → events.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of the buffer in which no block ends.
    searched: usize,
}

impl Decoder {
    /// Takes bytes. Call [`Decoder::next_event`] until it has none before the next.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event; `None` if more bytes are needed. Blocks that mean nothing here are skipped.
    ///
    /// # Errors
    /// See [`EventError`]. The stream is of no use any more.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        while let Some(block) = self.next_block()? {
            let block = std::str::from_utf8(&block).map_err(|_| EventError::NotText)?;
            if let Some(event) = parse(block)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn next_block(&mut self) -> Result<Option<Bytes>, EventError> {
        let unsearched = &self.buffer[self.searched..];
        let end = unsearched.windows(2).position(|two| two == b"\n\n");
        let Some(end) = end.map(|end| end + self.searched) else {
            if self.buffer.len() > MAX_EVENT {
                return Err(EventError::TooLong);
            }
            // The first of the two may be the last byte here.
            self.searched = self.buffer.len().saturating_sub(1);
            return Ok(None);
        };
        self.searched = 0;
        let block = self.buffer.split_to(end).freeze();
        self.buffer.advance(2);
        Ok(Some(block))
    }
}

/// What a block says, if anything that this version knows.
fn parse(block: &str) -> Result<Option<Event>, EventError> {
    let (mut name, mut id, mut data) = (MESSAGE, None, None);
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => name = value,
            "id" => {
                let parsed = value.parse::<MessageId>();
                id = Some(parsed.map_err(|_| EventError::Id(value.to_owned()))?);
            }
            "data" => data = Some(value),
            _ => {}
        }
    }
    match (name, id, data) {
        (MESSAGE, Some(id), Some(data)) => message(id, data).map(Event::Message).map(Some),
        (MISSED, _, Some(data)) => Ok(Some(Event::Missed(serde_json::from_str(data)?))),
        (_, Some(id), _) => Ok(Some(Event::Position(id))),
        (_, None, _) => Ok(None),
    }
}

fn message(id: MessageId, data: &str) -> Result<Message, EventError> {
    let data: Data = serde_json::from_str(data)?;
    Ok(Message {
        id,
        topic: data.topic,
        publisher: data.publisher,
        at_ms: data.at_ms,
        content_type: data.content_type,
        body: data.content.body()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(seq: u64) -> MessageId {
        MessageId { epoch: 9, seq }
    }

    fn message(body: &[u8]) -> Message {
        Message {
            id: id(17),
            topic: "alarms/cellar".parse().unwrap(),
            publisher: "node:laptop".into(),
            at_ms: 1000,
            content_type: "text/plain".into(),
            body: Bytes::copy_from_slice(body),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Event>, EventError> {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        std::iter::from_fn(|| decoder.next_event().transpose()).collect()
    }

    #[test]
    fn blocks_are_as_documented() {
        for (event, block) in [
            (Event::Position(id(3)), "id: 9-3\n\n"),
            (
                Event::Message(message(b"it\nburns")),
                "id: 9-17\ndata: {\"topic\":\"alarms/cellar\",\"publisher\":\"node:laptop\",\"at_ms\":1000,\
                 \"content_type\":\"text/plain\",\"text\":\"it\\nburns\"}\n\n",
            ),
            (
                Event::Message(message(&[0xff, 0])),
                "id: 9-17\ndata: {\"topic\":\"alarms/cellar\",\"publisher\":\"node:laptop\",\"at_ms\":1000,\
                 \"content_type\":\"text/plain\",\"base64\":\"/wA=\"}\n\n",
            ),
            (
                Event::Missed(Missed::Slow { count: 3 }),
                "event: missed\ndata: {\"why\":\"slow\",\"count\":3}\n\n",
            ),
            (
                Event::Missed(Missed::Restarted),
                "event: missed\ndata: {\"why\":\"restarted\"}\n\n",
            ),
        ] {
            assert_eq!(event.encode(), block);
            assert_eq!(decode(block.as_bytes()).unwrap(), [event]);
        }
    }

    #[test]
    fn what_is_not_known_is_skipped() {
        let more = ": a comment\n\nretry: 5\n\nevent: other\nid: 9-2\ndata: x\n\nevent: other\ndata: x\n\n";
        assert_eq!(decode(more.as_bytes()).unwrap(), [Event::Position(id(2))]);
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for block in [
            "id: x\n\n",
            "id: 9-1\ndata: {}\n\n",
            "event: missed\ndata: 1\n\n",
        ] {
            assert!(decode(block.as_bytes()).is_err(), "{block}");
        }
        let base64 = String::from_utf8(Event::Message(message(&[0xff])).encode().into()).unwrap();
        assert!(decode(base64.replace("/w==", "~").as_bytes()).is_err());
        assert!(decode(b"id: \xff\n\n").is_err());
    }

    #[test]
    fn the_largest_message_fits() {
        let worst = Event::Message(message(&[1; MAX_BODY]));
        let block = worst.encode();
        assert!(block.len() < MAX_EVENT);
        assert_eq!(decode(&block).unwrap(), [worst]);
        assert!(decode(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }

    proptest! {
        #[test]
        fn events_survive_any_cuts(body: Vec<u8>, cuts in prop::collection::vec(1..40_usize, 1..9)) {
            let events = [Event::Position(id(1)), Event::Message(message(&body))];
            let bytes: Vec<u8> = events.iter().flat_map(|event| event.encode().to_vec()).collect();
            let (mut decoder, mut heard) = (Decoder::default(), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                decoder.feed(piece);
                while let Some(event) = decoder.next_event().unwrap() {
                    heard.push(event);
                }
                rest = more;
            }
            prop_assert_eq!(heard, events);
        }
    }
}
