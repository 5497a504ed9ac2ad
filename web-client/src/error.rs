//! Errors as JavaScript sees them: a reason code and plain words.

use portway_protocol::reason::Reason;
use wasm_bindgen::JsValue;

/// Why something failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}: {message}")]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Failure {
    /// A failure in the reason's own words.
    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            message: reason.message().to_owned(),
        }
    }

    /// A failure with a detail.
    pub(crate) fn with(reason: Reason, detail: impl std::fmt::Display) -> Self {
        Self {
            reason,
            message: format!("{} ({detail})", reason.message()),
        }
    }
}

impl From<Failure> for JsValue {
    /// An `Error` with a `reason`.
    fn from(failure: Failure) -> Self {
        let error = js_sys::Error::new(&failure.message);
        let reason = JsValue::from_str(failure.reason.code());
        // Setting a property of a fresh object cannot fail.
        drop(js_sys::Reflect::set(&error, &"reason".into(), &reason));
        error.into()
    }
}

/// What h2 says, in our words: a stream that was reset was cut, a connection that ended was lost.
impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        if error.is_reset() {
            Self::with(Reason::BodyTruncated, error)
        } else {
            Self::with(Reason::SessionLost, error)
        }
    }
}
