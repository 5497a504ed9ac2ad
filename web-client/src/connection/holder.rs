//! What passes between the wasm and the holder, which owns the peer connection. `messages.js` has the same.

use portway_protocol::id::SessionId;
use portway_protocol::signal::{IceCandidate, IceServer, SessionDescription};
use serde::{Deserialize, Serialize};

use super::Inner;

/// Messages to the holder.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum ToHolder<'a> {
    #[serde(rename = "peer-open", rename_all = "camelCase")]
    Open {
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
    /// SHA-256 of the certificate that the other end has presented, where the browser tells.
    #[serde(rename = "peer-certificate")]
    Certificate {
        session: SessionId,
        sha256: Option<[u8; 32]>,
    },
    #[serde(rename = "peer-path")]
    Path { session: SessionId, path: String },
    /// The machine has another network now, or none.
    #[serde(rename = "network-changed")]
    NetworkChanged,
}

impl FromHolder {
    /// Which of its peer connections it is about; `None`: about the machine.
    pub(super) const fn session(&self) -> Option<SessionId> {
        match self {
            Self::Offer { session, .. }
            | Self::Candidate { session, .. }
            | Self::State { session, .. }
            | Self::Certificate { session, .. }
            | Self::Path { session, .. } => Some(*session),
            Self::NetworkChanged => None,
        }
    }
}

/// A peer connection that the holder keeps for us. Closed when dropped.
pub(super) struct Held<'a> {
    inner: &'a Inner,
    session: SessionId,
}

impl<'a> Held<'a> {
    /// Has one made.
    pub(super) fn open(inner: &'a Inner, session: SessionId, ice_servers: &[IceServer]) -> Self {
        inner.holder(&ToHolder::Open {
            session,
            ice_servers,
        });
        Self { inner, session }
    }

    /// By what signaling knows it.
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.inner.holder(&ToHolder::Close {
            session: self.session,
        });
    }
}
