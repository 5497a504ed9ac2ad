//! Why a file of another machine is not read or written.

use portway_protocol::files::PathError;
use portway_protocol::reason::Reason;

use crate::files::FileError;
use crate::files::receiving::ReceiveError;
use crate::tunnel::way::Failure;

/// A failure with files of another machine.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no session, and none has come.
    #[error("{}", .0.message())]
    NoSession(Reason),
    /// The session was lost while something was under way.
    #[error("{}", .0.message())]
    Lost(Reason),
    /// What was coming was cut off.
    #[error("it was cut off: {0}")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other machine refused.
    #[error("{}", .0.message())]
    Refused(Reason),
    /// The service offers no files.
    #[error("{}", Reason::ServiceNotFiles.message())]
    NotFiles,
    /// No service has a file there.
    #[error("its path is not taken: {0}")]
    Path(#[from] PathError),
    /// The other machine does not answer as it should.
    #[error("the machine's answer is not understood")]
    Invalid,
    /// At this end.
    #[error("here: {0}")]
    Local(#[from] FileError),
}

impl FilesError {
    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NoSession(reason) | Self::Lost(reason) | Self::Refused(reason) => *reason,
            Self::Cut(_) => Reason::BodyTruncated,
            Self::NotFiles => Reason::ServiceNotFiles,
            Self::Path(_) => Reason::RequestInvalid,
            Self::Invalid => Reason::ProtocolViolation,
            Self::Local(error) => error.reason(),
        }
    }

    /// Whether the same may work at once.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Cut(_) => true,
            Self::Refused(reason) => [Reason::BodyTruncated, Reason::RateLimited].contains(reason),
            Self::NoSession(_)
            | Self::NotFiles
            | Self::Path(_)
            | Self::Invalid
            | Self::Local(_) => false,
        }
    }
}

impl From<Failure> for FilesError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSession(reason) => Self::NoSession(reason),
            Failure::Failed(reason) => Self::Lost(reason),
        }
    }
}

impl From<ReceiveError> for FilesError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Cut(error) => Self::Cut(error),
            ReceiveError::File(error) => Self::Local(error),
        }
    }
}
