//! Entries of the event log, each bound to the one before it by a hash.

use portway_protocol::id::{GrantId, NodeId, ServiceName, SessionId};
use portway_protocol::signal::news::NodeEvent;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Separates these hashes from all others.
const CONTEXT: &[u8] = b"portway/event/1";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// To a node.
    Node(NodeEvent),
    /// To a client.
    Client(ClientEvent),
}

/// Something that happened to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ClientEvent {
    /// It was introduced to a node.
    SessionIntroduced {
        /// The session.
        session: SessionId,
        /// The service wanted.
        service: ServiceName,
        /// The node chosen.
        node: NodeId,
        /// The grant that was shown.
        grant: GrantId,
    },
}

/// SHA-256 of an entry and all before it.
pub type Hash = [u8; 32];

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position, from 1.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Hash of an entry whose event reads `body` as JSON, after the entry with the hash `previous`
/// (zeros for the first).
#[must_use]
pub fn chain(previous: &Hash, seq: u64, at_ms: u64, body: &str) -> Hash {
    let mut hash = Sha256::new();
    hash.update(CONTEXT);
    hash.update(previous);
    hash.update(seq.to_be_bytes());
    hash.update(at_ms.to_be_bytes());
    hash.update(body.as_bytes());
    hash.finalize().into()
}
