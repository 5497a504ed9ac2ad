//! Six digits that stand for everything that the two ends have told each other. Sans-IO.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterName, GrantId, NodeId, Nonce, ServiceName};
use crate::key::PublicKey;
use crate::transcript::Transcript;

/// How many there are.
pub const COUNT: usize = 6;

/// As many different ones: a guess is right once in so many.
const RANGE: u32 = 10_u32.pow(COUNT as u32);

/// Six decimal digits. Shown in two groups, `042 917`; as JSON without the space.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digits(u32);

impl PartialEq for Digits {
    /// Takes the same time whatever they are: one operation on one word.
    fn eq(&self, other: &Self) -> bool {
        self.0 ^ other.0 == 0
    }
}

impl Eq for Digits {}

/// A text is not six digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected six digits, such as 042 917")]
pub struct NotDigits;

impl FromStr for Digits {
    type Err = NotDigits;

    /// However people group them: spaces and hyphens count for nothing.
    fn from_str(text: &str) -> Result<Self, NotDigits> {
        let is_gap = |c: char| c.is_whitespace() || c == '-';
        let digits: String = text.chars().filter(|c| !is_gap(*c)).collect();
        if digits.len() != COUNT || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotDigits);
        }
        digits.parse().map(Self).map_err(|_| NotDigits)
    }
}

impl TryFrom<String> for Digits {
    type Error = NotDigits;

    fn try_from(text: String) -> Result<Self, NotDigits> {
        text.parse()
    }
}

impl From<Digits> for String {
    fn from(digits: Digits) -> Self {
        format!("{:06}", digits.0)
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// All that is compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) service: &'a ServiceName,
    pub(super) node: &'a NodeId,
    pub(super) cluster_key: &'a PublicKey,
    pub(super) node_key: &'a PublicKey,
    pub(super) grant: &'a GrantId,
    /// Of the guest.
    pub(super) key: &'a PublicKey,
    pub(super) guest_nonce: &'a Nonce,
    pub(super) node_nonce: &'a Nonce,
}

impl Compared<'_> {
    /// The first 64 bits of the hash, modulo a million: no digits are likelier than others by more than one
    /// part in 10¹³.
    pub(super) fn digits(&self) -> Digits {
        let [a, b, c, d, e, f, g, h, ..] = self.transcript().digest();
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % u64::from(RANGE);
        Digits(u32::try_from(number).expect("less than a million"))
    }

    pub(super) fn transcript(&self) -> Transcript {
        Transcript::new("portway/pairing-code/1")
            .field(self.cluster.as_str().as_bytes())
            .field(self.service.as_str().as_bytes())
            .field(self.node.as_str().as_bytes())
            .fixed(self.cluster_key.as_bytes())
            .fixed(self.node_key.as_bytes())
            .fixed(self.grant.as_bytes())
            .fixed(self.key.as_bytes())
            .fixed(self.guest_nonce.as_bytes())
            .fixed(self.node_nonce.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_group_digits_as_they_like() {
        let digits: Digits = "042917".parse().unwrap();
        for text in ["042 917", " 04 29 17\n", "042-917"] {
            assert_eq!(text.parse(), Ok(digits), "{text}");
        }
        assert_eq!(digits.to_string(), "042 917");
        assert_eq!(serde_json::to_string(&digits).unwrap(), "\"042917\"");
    }

    proptest! {
        #[test]
        fn digits_are_six_or_none(text in "[0-9 +a-٣-]{0,9}") {
            let count = text.chars().filter(char::is_ascii_digit).count();
            let others = text.chars().filter(|c| !c.is_ascii_digit() && *c != ' ' && *c != '-').count();
            prop_assert_eq!(text.parse::<Digits>().is_ok(), count == COUNT && others == 0);
        }

        #[test]
        fn only_the_same_digits_are_equal(a in 0..RANGE, b in 0..RANGE) {
            prop_assert_eq!(Digits(a) == Digits(b), a == b);
            prop_assert_eq!(Digits(a).to_string().parse(), Ok(Digits(a)));
        }
    }
}
