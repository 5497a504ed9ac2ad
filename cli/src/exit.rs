//! From an error to an exit code.

use std::process::ExitCode;

use portway_gateway::enrolment::enrolled::EnrolledError;
use portway_gateway::enrolment::renewal::MakeError;
use portway_gateway::enrolment::request::RequestError;
use portway_gateway::state::StateError;
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

    /// An issuer that has not done what it was asked.
    pub(crate) fn of_issuer(error: &RequestError) -> Self {
        Self::because(error.reason(), error.to_string())
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
    let exit = error.chain().find_map(exit).unwrap_or(Exit::Failure);
    ExitCode::from(exit as u8)
}

/// The reason code of an error, if it has one.
pub(crate) fn reason(error: &anyhow::Error) -> Option<Reason> {
    error.chain().find_map(|cause| {
        let failure = cause.downcast_ref::<Failure>();
        let unmade = cause.downcast_ref::<MakeError>();
        failure
            .and_then(|failure| failure.reason)
            .or_else(|| unmade.map(MakeError::reason))
    })
}

/// The exit code of an error that has one.
fn exit(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if let Some(error) = cause.downcast_ref::<MakeError>() {
        return Some(error.reason().exit());
    }
    if let Some(error) = cause.downcast_ref::<EnrolledError>() {
        return match error {
            EnrolledError::State(error) => exit(error),
            EnrolledError::Damaged { .. } => Some(Exit::Configuration),
            EnrolledError::Unreadable { .. }
            | EnrolledError::Portal(_)
            | EnrolledError::Token(_) => None,
        };
    }
    match cause.downcast_ref::<StateError>()? {
        StateError::Shared { .. } | StateError::Damaged(_) | StateError::InUse(_) => {
            Some(Exit::Configuration)
        }
        StateError::Io { .. } | StateError::Removed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_cannot_be_used_is_a_matter_of_configuration() {
        let damaged = || StateError::Damaged("node.key".into());
        assert_eq!(code(&damaged().into()), 78.into());
        assert_eq!(code(&EnrolledError::State(damaged()).into()), 78.into());
        let gone = StateError::Removed("node.key".into());
        assert_eq!(code(&gone.into()), ExitCode::FAILURE);
        assert_eq!(code(&MakeError::Forgotten.into()), 77.into());
    }
}
