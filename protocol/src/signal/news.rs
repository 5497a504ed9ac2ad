//! What happens to nodes, as signaling tells whoever has asked.

use serde::{Deserialize, Serialize};

use super::NodeStatus;
use crate::id::{NodeId, ServiceName, SessionId};

/// Paths in one message; more follow with the next.
pub const MAX_PATHS: usize = 16;

/// Something that happened to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum NodeEvent {
    /// It came for the first time.
    NodeJoined {
        /// The node.
        node: NodeId,
    },
    /// It is none any more.
    NodeLeft {
        /// The node.
        node: NodeId,
    },
    /// It has announced itself.
    NodeOnline {
        /// The node.
        node: NodeId,
        /// Version of its gateway.
        version: String,
    },
    /// Its socket has closed.
    NodeOffline {
        /// The node.
        node: NodeId,
    },
    /// A newer process of it has taken over.
    NodeReplaced {
        /// The node.
        node: NodeId,
    },
    /// It takes sessions, or no more.
    NodeStatus {
        /// The node.
        node: NodeId,
        /// Its state.
        status: NodeStatus,
    },
    /// Somebody is reached another way, or for the first time.
    SessionPath {
        /// The node.
        node: NodeId,
        /// How.
        #[serde(flatten)]
        path: SessionPath,
    },
    /// It has given a sign of life.
    NodeHeartbeat {
        /// The node.
        node: NodeId,
    },
    /// There was more than could be told.
    Missed {
        /// How many.
        count: u64,
    },
}

impl NodeEvent {
    /// Whether signaling writes it down.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        match self {
            Self::NodeJoined { .. }
            | Self::NodeLeft { .. }
            | Self::NodeOnline { .. }
            | Self::NodeOffline { .. }
            | Self::NodeReplaced { .. }
            | Self::NodeStatus { .. } => true,
            Self::SessionPath { .. } | Self::NodeHeartbeat { .. } | Self::Missed { .. } => false,
        }
    }

    /// Who is told.
    #[must_use]
    pub const fn concerns(&self) -> Interest {
        match self {
            Self::NodeHeartbeat { .. } => Interest::Heartbeats,
            Self::NodeJoined { .. }
            | Self::NodeLeft { .. }
            | Self::NodeOnline { .. }
            | Self::NodeOffline { .. }
            | Self::NodeReplaced { .. }
            | Self::NodeStatus { .. }
            | Self::SessionPath { .. }
            | Self::Missed { .. } => Interest::Changes,
        }
    }
}

/// An event, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// How much somebody wants to be told. Each wants what those before it do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interest {
    /// Nothing.
    #[default]
    Nothing,
    /// What changes.
    Changes,
    /// Signs of life, too.
    Heartbeats,
}

/// Asks to be told; replaces what was asked before.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Watch {
    /// Of what.
    pub interest: Interest,
}

/// Sessions of a node that are reached another way than was said before. At most [`MAX_PATHS`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paths {
    /// Each once.
    pub paths: Vec<SessionPath>,
}

/// How a session is reached. No addresses: they are the client's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionPath {
    /// The session.
    pub session: SessionId,
    /// What it is for.
    pub service: ServiceName,
    /// The way.
    #[serde(flatten)]
    pub route: Route,
    /// Round trip in milliseconds, once measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// A way from end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Directly or not.
    pub path: Way,
    /// What the address of the node is.
    pub local_kind: CandidateKind,
    /// What that of the client is.
    pub remote_kind: CandidateKind,
    /// What carries the packets.
    pub protocol: Transport,
}

/// Whether a relay is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// None.
    Direct,
    /// One, or two.
    Relayed,
}

/// What carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Where an address of a path comes from (RFC 8445 §5.1.1), as ICE calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateKind {
    /// An interface.
    Host,
    /// What a server outside saw.
    Srflx,
    /// What the other end saw.
    Prflx,
    /// A relay's.
    Relay,
}

impl Way {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}

impl Transport {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_as_documented() {
        let told = Told {
            at_ms: 5,
            event: NodeEvent::SessionPath {
                node: "nas".parse().unwrap(),
                path: SessionPath {
                    session: SessionId::from_bytes([1; 16]),
                    service: "lab".parse().unwrap(),
                    route: Route {
                        path: Way::Relayed,
                        local_kind: CandidateKind::Srflx,
                        remote_kind: CandidateKind::Relay,
                        protocol: Transport::Udp,
                    },
                    rtt_ms: Some(1.5),
                },
            },
        };
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(
            json,
            "{\"at_ms\":5,\"event\":\"session_path\",\"node\":\"nas\",\"session\":\"AQEBAQEBAQEBAQEBAQEBAQ\",\
             \"service\":\"lab\",\"path\":\"relayed\",\"local_kind\":\"srflx\",\"remote_kind\":\"relay\",\
             \"protocol\":\"udp\",\"rtt_ms\":1.5}"
        );
        assert_eq!(serde_json::from_str::<Told>(&json).unwrap(), told);
        assert!(Interest::Nothing < Interest::Changes && Interest::Changes < Interest::Heartbeats);
    }
}
