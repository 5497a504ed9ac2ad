//! A record as it lies in the file: one line of JSON, whose last two members close it.
//!
//! ```text
//! {"format":1,"seq":7,"at_ms":…,"node":"nas","event":"…",…,"prev":"P","hash":"H","sig":"S"}
//! └─────────────────────── body ──────────────────────────────┘
//! ```
//! H = SHA-256("portway/audit/1" ‖ P ‖ lp(body)), over the very bytes; S = sign(node key,
//! "portway/audit-proof/1" ‖ H). P is the hash of the record before, zeros for the first. Hashes and
//! signatures are base64url without padding, so that what closes a record has a fixed length.

use std::fmt;

use portway_protocol::id::{IdError, NodeId, decode_array, encode};
use portway_protocol::key::{PublicKey, Signature, SigningKey};
use portway_protocol::transcript::Transcript;
use serde::{Deserialize, Serialize};

use super::event::Event;
use super::verify::Flaw;

/// Format of what is written.
pub const VERSION: u32 = 1;

/// Longest line, in bytes, its end included. Names, services of a grant and paths are bounded far below.
pub const MAX_LINE: usize = 16 * 1024;

const HASH: &str = ",\"hash\":\"";
const SIG: &str = "\",\"sig\":\"";
const END: &str = "\"}";

/// Characters of a hash and of a signature.
const HASH_LEN: usize = 43;
const SIG_LEN: usize = 86;

/// SHA-256 of a record and, through it, of all before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

/// End of a chain: position (0: no record) and hash of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// Position of the last record, from 1.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Format.
    pub format: u32,
    /// Position in the chain, from 1.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// The node.
    pub node: NodeId,
    /// How many before this one could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Hash of the record before.
    pub prev: Hash,
}

/// A record and what closes it: a whole line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it says.
    #[serde(flatten)]
    pub record: Record,
    /// Its hash.
    pub hash: Hash,
    /// The node's signature of the hash.
    pub sig: Signature,
}

/// What binds a record to its place, whatever it says.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub(super) format: u32,
    pub(super) seq: u64,
    pub(super) at_ms: u64,
    #[serde(default)]
    pub(super) lost: u64,
    pub(super) prev: Hash,
}

/// A line taken apart. Nothing is checked yet.
#[derive(Debug)]
pub(super) struct Line<'a> {
    body: &'a str,
    pub(super) link: Link,
    pub(super) hash: Hash,
    sig: Signature,
}

impl Record {
    /// Closes it. Returns the entry and its line, with the line's end.
    pub(super) fn seal(self, key: &SigningKey) -> (Entry, String) {
        let json = serde_json::to_string(&self).expect("our own types serialise");
        let body = json.strip_suffix('}').expect("a record is an object");
        let hash = chain(&self.prev, body);
        let sig = key.sign(proof(&hash).bytes());
        let line = format!("{body}{HASH}{hash}{SIG}{}{END}\n", encode(sig.as_bytes()));
        let entry = Entry {
            record: self,
            hash,
            sig,
        };
        (entry, line)
    }
}

impl<'a> Line<'a> {
    /// Takes a line, without its end, apart; `None` if it is none of ours.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_suffix(END)?;
        let (rest, sig) = rest.split_at_checked(rest.len().checked_sub(SIG_LEN)?)?;
        let rest = rest.strip_suffix(SIG)?;
        let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_LEN)?)?;
        let body = rest.strip_suffix(HASH)?;
        Some(Self {
            body,
            link: serde_json::from_str(&format!("{body}}}")).ok()?,
            hash: Hash(decode_array(hash).ok()?),
            sig: Signature::from_bytes(decode_array(sig).ok()?),
        })
    }

    /// Whether its hash is that of its bytes.
    pub(super) fn is_whole(&self) -> bool {
        self.hash == chain(&self.link.prev, self.body)
    }

    /// Checks that the node has signed it.
    pub(super) fn verify(&self, key: &PublicKey) -> Result<(), Flaw> {
        key.verify(proof(&self.hash).bytes(), &self.sig)
            .map_err(|_| Flaw::Signature)
    }
}

fn chain(prev: &Hash, body: &str) -> Hash {
    let transcript = Transcript::new("portway/audit/1")
        .fixed(&prev.0)
        .field(body.as_bytes());
    Hash(transcript.digest())
}

fn proof(hash: &Hash) -> Transcript {
    Transcript::new("portway/audit-proof/1").fixed(&hash.0)
}

impl std::str::FromStr for Hash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        decode_array(text).map(Self)
    }
}

impl TryFrom<String> for Hash {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::secret::Secret;

    use super::*;

    #[test]
    fn bytes_of_a_record_never_change() {
        let key = SigningKey::from_seed(&Secret::new([1; 32]));
        let record = Record {
            format: VERSION,
            seq: 1,
            at_ms: 1000,
            node: "nas".parse().unwrap(),
            lost: None,
            event: Event::ServiceRemoved {
                service: "lab".parse().unwrap(),
            },
            prev: Hash::default(),
        };
        let (entry, line) = record.seal(&key);
        let page = include_str!("../../../docs/protocol.md");
        assert!(page.contains(&line), "the vector of the page: {line}");
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }
}
