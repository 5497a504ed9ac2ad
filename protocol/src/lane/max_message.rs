//! How long the messages are that an end takes. On the wire it is their length in bytes. Sans-IO.

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_MESSAGE, MAX_NATIVE_MESSAGE};

/// The longest messages that an end takes, and with them what is known of its sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "usize", into = "usize")]
pub enum MaxMessage {
    /// [`MAX_MESSAGE`]. A browser, whose sockets have small buffers; or who does not say.
    #[default]
    Browser,
    /// [`MAX_NATIVE_MESSAGE`]. Its sockets have buffers of 4 MiB.
    Native,
}

impl MaxMessage {
    /// Length in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Browser => MAX_MESSAGE,
            Self::Native => MAX_NATIVE_MESSAGE,
        }
    }

    /// Whether it need not be said.
    #[must_use]
    pub(crate) const fn is_default(&self) -> bool {
        matches!(self, Self::Browser)
    }
}

impl From<usize> for MaxMessage {
    /// The longest that an end which takes so many bytes is sent.
    fn from(bytes: usize) -> Self {
        if bytes < MAX_NATIVE_MESSAGE {
            Self::Browser
        } else {
            Self::Native
        }
    }
}

impl From<MaxMessage> for usize {
    fn from(max: MaxMessage) -> Self {
        max.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_less_than_a_native_is_sent_what_a_browser_takes() {
        for (bytes, max) in [
            (0, MaxMessage::Browser),
            (MAX_NATIVE_MESSAGE - 1, MaxMessage::Browser),
            (MAX_NATIVE_MESSAGE, MaxMessage::Native),
            (usize::MAX, MaxMessage::Native),
        ] {
            assert_eq!(MaxMessage::from(bytes), max);
        }
    }
}
