//! How a client command tells of what it opens.

use std::net::IpAddr;
use std::time::Duration;

use portway_gateway::client::{ClientError, Opening, Path};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use serde::Serialize;

use crate::exit::Failure;

/// How a node is reached.
#[derive(Serialize, Clone, Copy, PartialEq)]
pub(crate) struct Reached {
    /// `direct` or `relayed`.
    path: &'static str,
    /// Where the node's packets come from.
    remote: IpAddr,
    /// Kind of our candidate, as ICE calls it.
    local_kind: &'static str,
    /// Kind of the node's.
    remote_kind: &'static str,
    protocol: &'static str,
}

/// Steps to a session, in milliseconds. Each follows the one before; `open_ms` is all of them.
#[derive(Serialize, Clone, Copy)]
pub(crate) struct Took {
    open_ms: f64,
    signaling_ms: f64,
    answer_ms: f64,
    ice_ms: f64,
    channel_ms: f64,
    handshake_ms: f64,
}

/// Why a service is of no use, with its exit code.
pub(crate) fn refusal(service: &ServiceName) -> impl FnOnce(Reason) -> Failure {
    move |reason| Failure::because(reason, format!("{service}: {}", reason.message()))
}

/// A failure of the client, with its exit code.
pub(crate) fn failure(error: &ClientError) -> Failure {
    Failure::because(error.reason(), error.to_string())
}

impl Reached {
    pub(crate) fn of(path: Path) -> Self {
        Self {
            path: path.kind.as_str(),
            remote: path.remote,
            local_kind: path.local_kind.as_str(),
            remote_kind: path.remote_kind.as_str(),
            protocol: path.protocol.as_str(),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "{} to {} ({} – {}, {})",
            self.path, self.remote, self.local_kind, self.remote_kind, self.protocol
        )
    }
}

impl Took {
    pub(crate) fn of(opening: &Opening) -> Self {
        let step = |from: Duration, to: Duration| millis(to.saturating_sub(from));
        Self {
            open_ms: millis(opening.session),
            signaling_ms: millis(opening.signaling),
            answer_ms: step(opening.signaling, opening.answer),
            ice_ms: step(opening.answer, opening.path),
            channel_ms: step(opening.path, opening.channel),
            handshake_ms: step(opening.channel, opening.session),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "open in {:.0} ms: signaling {:.0}, answer {:.0}, ICE and DTLS {:.0}, channel {:.0}, handshake {:.0}",
            self.open_ms,
            self.signaling_ms,
            self.answer_ms,
            self.ice_ms,
            self.channel_ms,
            self.handshake_ms,
        )
    }
}

/// Milliseconds with two digits.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let at = Duration::from_millis;
        let took = Took::of(&Opening {
            signaling: at(5),
            answer: at(12),
            path: at(40),
            channel: at(42),
            session: at(45),
        });
        assert_eq!((took.answer_ms, took.ice_ms), (7.0, 28.0));
        assert_eq!(
            (took.channel_ms, took.handshake_ms, took.open_ms),
            (2.0, 3.0, 45.0)
        );
    }
}
