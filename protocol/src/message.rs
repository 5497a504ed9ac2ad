//! What a message bus carries, see `docs/protocol.md` §6. Sans-IO.
//!
//! ```text
//! POST /TOPIC   body → Published                     to whoever is there
//! GET  /FILTER  Last-Event-ID → events, as they come  `/TOPIC`, `/TOPIC/*`, or `/*`
//! ```
//! - [`topic`]: what a message is about. [`event`]: what a subscriber hears, as server-sent events.
//!
//! These are ordinary requests to a service, so what a grant says of methods and paths is who may publish and
//! who may subscribe. A filter needs a grant for all that is below it, see [`Filter::is_allowed_by`].

pub mod event;
pub mod topic;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use event::{Event, Message, Missed};
pub use topic::{Filter, Topic, TopicError};

/// Largest body of a message, bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// Longest media type of a body, bytes.
pub const MAX_CONTENT_TYPE: usize = 128;

/// Media type of a body whose publisher does not tell.
pub const DEFAULT_CONTENT_TYPE: &str = "application/octet-stream";

/// Media type of what a subscriber gets.
pub const EVENT_STREAM: &str = "text/event-stream";

/// Place of a message in all that a bus carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Start of the bus, milliseconds since 1970: it forgets everything when its node restarts.
    pub epoch: u64,
    /// The first message has 1.
    pub seq: u64,
}

/// Why a text is no id of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id of a message is two numbers, as in 1764255626123-17")]
pub struct MessageIdError;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let (epoch, seq) = text.split_once('-').ok_or(MessageIdError)?;
        Ok(Self {
            epoch: number(epoch)?,
            seq: number(seq)?,
        })
    }
}

/// Digits alone: no sign, as [`str::parse`] would take.
fn number(text: &str) -> Result<u64, MessageIdError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MessageIdError);
    }
    text.parse().map_err(|_| MessageIdError)
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its id.
    pub id: MessageId,
    /// How many listened.
    pub subscribers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_and_print() {
        let id = MessageId {
            epoch: 1_764_255_626_123,
            seq: 17,
        };
        assert_eq!(id.to_string(), "1764255626123-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-+2",
            "1-2-3",
            "1-99999999999999999999",
        ] {
            assert!(text.parse::<MessageId>().is_err(), "{text:?}");
        }
    }
}
