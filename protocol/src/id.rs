//! Identifiers: a newtype per meaning, parsed at the edge and trusted inside.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Longest DNS label (RFC 1035 §2.3.4), in bytes.
pub const MAX_LABEL_LEN: usize = 63;

/// Why a text is not the identifier it was given for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a lower-case DNS label.
    #[error(
        "`{0}` is not a DNS label: use 1 to 63 of a-z, 0-9 and `-`, no `-` at either end, no `--`"
    )]
    NotALabel(String),
    /// A label that Portway keeps for itself.
    #[error("the name `{0}` is reserved")]
    Reserved(String),
    /// Not base64url of the right length.
    #[error("expected base64url without padding of {expected} bytes")]
    NotBinary {
        /// Number of bytes that the text must decode to.
        expected: usize,
    },
}

/// Makes a newtype over a checked DNS label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident, reserved: $reserved:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The label as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if !is_label(text) {
                    return Err(IdError::NotALabel(excerpt(text)));
                }
                let reserved: &[&str] = $reserved;
                if reserved.contains(&text) {
                    return Err(IdError::Reserved(text.to_owned()));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label! {
    /// Name of a cluster: a DNS label, e.g. `home`.
    ClusterName, reserved: &[]
}

label! {
    /// Name of a service: a DNS label that is not reserved, e.g. `lab`.
    ServiceName, reserved: &["conn", "www"]
}

impl ServiceName {
    /// Name of the service by which machines become nodes, see [`crate::enrolment`].
    pub const ENROL: &str = "enrol";

    /// The service by which machines become nodes. No configuration can offer it.
    #[must_use]
    pub fn enrol() -> Self {
        Self(Self::ENROL.to_owned())
    }

    /// Whether Portway itself stands behind this name, and no target of a configuration.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.0 == Self::ENROL
    }
}

label! {
    /// Name of a node: a DNS label, e.g. the machine's host name.
    NodeId, reserved: &[]
}

/// Makes a newtype over random or hashed bytes, written as base64url without padding.
macro_rules! binary {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps bytes that the caller drew at random (or computed).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode_array(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }
    };
}

binary! {
    /// A session between one client and one gateway, chosen by the client at random.
    SessionId, 16
}

binary! {
    /// A grant: what a link or a user token allows. Equals the token's `jti`.
    GrantId, 9
}

binary! {
    /// Fresh random bytes of one end of a handshake.
    Nonce, 32
}

binary! {
    /// An attempt of a guest to pair with a node, chosen by the guest at random.
    PairingId, 16
}

binary! {
    /// What a guest binds itself to before it knows anything of the node, see [`crate::pairing`].
    Commitment, 32
}

impl GrantId {
    /// These bytes, but for a bit: people give ids to commands, where a text that begins with `-` is read as
    /// an option.
    #[must_use]
    pub fn typeable(mut bytes: [u8; Self::LEN]) -> Self {
        const HYPHEN: u8 = 62;
        if bytes[0] >> 2 == HYPHEN {
            bytes[0] &= 0x7f;
        }
        Self::from_bytes(bytes)
    }
}

/// Decodes base64url without padding into exactly `N` bytes.
///
/// # Errors
/// [`IdError::NotBinary`] if the text is malformed or of another length.
pub fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let not_binary = IdError::NotBinary { expected: N };
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| not_binary.clone())?;
    bytes.try_into().map_err(|_| not_binary)
}

/// Encodes bytes as base64url without padding, the form of every binary value on the wire.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `--` is refused inside a label because `{service}--{cluster}` is one form of a host name.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= MAX_LABEL_LEN
        && *first != b'-'
        && *last != b'-'
        && !text.contains("--")
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// What of a refused text may appear in an error.
fn excerpt(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_LABEL_LEN)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "lab", "my-app2", "0"] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "A",
            "a.b",
            "a b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_service_names_are_refused() {
        assert_eq!(
            "conn".parse::<ServiceName>(),
            Err(IdError::Reserved("conn".into()))
        );
        assert!("conn".parse::<ClusterName>().is_ok());
    }

    #[test]
    fn binary_ids_need_their_exact_length() {
        assert!(encode(&[7; 16]).parse::<SessionId>().is_ok());
        assert!(encode(&[7; 15]).parse::<SessionId>().is_err());
        assert!("not base64url!".parse::<SessionId>().is_err());
    }

    proptest! {
        #[test]
        fn binary_ids_round_trip(bytes: [u8; 9]) {
            let id = GrantId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<GrantId>(), Ok(id));
        }

        #[test]
        fn any_text_parses_or_is_refused(text: String) {
            if let Ok(name) = text.parse::<ServiceName>() {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
        }
    }
}
