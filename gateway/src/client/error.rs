//! Why there is no session, or no longer one.

use std::error::Error as _;
use std::io;

use portway_protocol::message::event::EventError;
use portway_protocol::pairing::PairingError;
use portway_protocol::reason::Reason;
use portway_protocol::session::binding::FingerprintError;
use portway_protocol::session::handshake::HandshakeError;
use portway_protocol::session::resumption::FailedBy;
use portway_transport::lane::EndedBy;
use portway_transport::webrtc::PeerError;

use super::session::Unanswered;
pub use crate::signaling::connection::SocketError;

/// A failure of the native client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket to signaling.
    #[error("signaling: {0}")]
    Signaling(#[from] SocketError),
    /// Signaling, or the gateway through it, refused.
    #[error("refused: {}", .0.message())]
    Refused(Reason),
    /// Our own end of the peer connection.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Our own offer names no certificate.
    #[error(transparent)]
    Fingerprint(#[from] FingerprintError),
    /// No path to the gateway.
    #[error("no path to the machine was found")]
    NoPath,
    /// The handshake.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The node is not the one whose keys it shows.
    #[error("pairing: {0}")]
    Pairing(#[from] PairingError),
    /// The gateway did not answer in time.
    #[error("the machine did not answer in time")]
    Timeout,
    /// The lane ended.
    #[error("the session was lost: {0}")]
    Lane(#[from] EndedBy),
    /// HTTP/2 ended.
    #[error("the session was lost: HTTP/2: {0}")]
    Http(#[source] hyper::Error),
    /// A connection to a service was cut off; the session goes on.
    #[error("the service has cut it off")]
    CutOff,
    /// A message bus says what means nothing.
    #[error("the message bus sends {0}")]
    Event(#[from] EventError),
    /// Nobody here takes what comes.
    #[error("nobody takes what comes: {0}")]
    Local(#[source] io::Error),
    /// The other end ended the session.
    #[error("the machine ended the session")]
    Ended,
}

impl From<hyper::Error> for ClientError {
    /// A stream that was reset tells of its service, any other error of the session.
    fn from(error: hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        if cause.is_some_and(h2::Error::is_reset) {
            Self::CutOff
        } else {
            Self::Http(error)
        }
    }
}

impl From<Unanswered> for ClientError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotSent(_) => Self::Ended,
            Unanswered::Lost(error) => error.into(),
        }
    }
}

impl ClientError {
    /// The reason code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Signaling(error) => error.reason(),
            Self::Refused(reason) | Self::Lane(EndedBy::Bye(reason)) => *reason,
            Self::Fingerprint(_) | Self::Peer(PeerError::Fingerprint(_)) => Reason::E2eAuthFailed,
            Self::Peer(PeerError::Stack(_)) | Self::NoPath => Reason::IceFailed,
            Self::Peer(
                PeerError::Answered | PeerError::WrongKind { .. } | PeerError::TooManyCandidates,
            )
            | Self::Lane(EndedBy::Violation(_) | EndedBy::Overrun)
            | Self::Event(_) => Reason::ProtocolViolation,
            Self::Handshake(error) => error.reason(),
            Self::Pairing(error) => error.reason(),
            Self::Timeout => Reason::SessionTimeout,
            Self::Local(_) | Self::CutOff => Reason::BodyTruncated,
            Self::Lane(EndedBy::Closed(_) | EndedBy::Silence | EndedBy::Pipe(_))
            | Self::Http(_)
            | Self::Ended => Reason::SessionLost,
        }
    }

    /// By whom it is, if it is that of an attempt to go on with a session.
    pub(super) const fn failed_by(&self) -> FailedBy {
        match self {
            Self::Handshake(HandshakeError::Refused { .. }) => FailedBy::Gateway,
            Self::Handshake(_)
            | Self::Signaling(_)
            | Self::Refused(_)
            | Self::Peer(_)
            | Self::Fingerprint(_)
            | Self::NoPath
            | Self::Timeout
            | Self::Lane(_)
            | Self::Http(_)
            | Self::Pairing(_)
            | Self::Event(_)
            | Self::Local(_)
            | Self::CutOff
            | Self::Ended => FailedBy::Way,
        }
    }

    /// Whether trying again is pointless until somebody does something.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.reason().is_final()
    }
}
