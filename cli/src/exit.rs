//! From an error to an exit code.

use std::process::ExitCode;

use portway_protocol::reason::{Exit, Reason};

/// An error that knows its exit code and, where there is one, its reason code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    reason: Option<Reason>,
    message: String,
}

impl Failure {
    /// A failure of the given kind.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            reason: None,
            message: message.into(),
        }
    }

    /// A failure with a reason code.
    pub(crate) fn because(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            exit: reason.exit(),
            reason: Some(reason),
            message: message.into(),
        }
    }

    /// What was asked for cannot be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Something is wrong with the configuration or the state directory.
    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(Exit::Configuration, message)
    }
}

/// Code of a process that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code that an error stands for.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map_or(ExitCode::FAILURE, |failure| {
            ExitCode::from(failure.exit as u8)
        })
}

/// The reason code of an error, if it has one.
pub(crate) fn reason(error: &anyhow::Error) -> Option<Reason> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .and_then(|failure| failure.reason)
}
