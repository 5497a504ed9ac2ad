//! What passes between the wasm and the holder, which owns the peer connection. `messages.js` has the same.

use portway_protocol::id::SessionId;
use portway_protocol::signal::{IceCandidate, IceServer, SessionDescription};
use serde::{Deserialize, Serialize};

/// Messages to the holder.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum ToHolder<'a> {
    #[serde(rename = "peer-open", rename_all = "camelCase")]
    Open {
        session: SessionId,
        ice_servers: &'a [IceServer],
    },
    #[serde(rename = "peer-restart", rename_all = "camelCase")]
    Restart {
        session: SessionId,
        ice_servers: &'a [IceServer],
    },
    #[serde(rename = "peer-answer")]
    Answer {
        session: SessionId,
        description: &'a SessionDescription,
    },
    #[serde(rename = "peer-candidate")]
    Candidate {
        session: SessionId,
        candidate: &'a Option<IceCandidate>,
    },
    #[serde(rename = "peer-close")]
    Close { session: SessionId },
}

/// Messages of the holder.
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(super) enum FromHolder {
    #[serde(rename = "peer-offer")]
    Offer {
        session: SessionId,
        description: SessionDescription,
    },
    #[serde(rename = "peer-candidate")]
    Candidate {
        session: SessionId,
        candidate: Option<IceCandidate>,
    },
    #[serde(rename = "peer-state")]
    State { session: SessionId, state: String },
    #[serde(rename = "peer-path")]
    Path { session: SessionId, path: String },
    /// The machine has another network now, or none.
    #[serde(rename = "network-changed")]
    NetworkChanged,
}
