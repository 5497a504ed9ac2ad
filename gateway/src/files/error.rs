//! What can fail with files.

use std::io;

use portway_protocol::files::Sha256Digest;
use portway_protocol::reason::Reason;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system's, or a path that leads out of the root.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Where files are looked for, or shall be, there is no directory.
    #[error("the directory is not there")]
    NoDirectory,
    /// A device, a socket, a pipe.
    #[error("it is no file with content")]
    NotRegular,
    /// A directory, where a file is wanted.
    #[error("it is a directory")]
    IsDirectory,
    /// There is another of its name, which is not to be replaced.
    #[error("there is another file of this name")]
    Exists,
    /// It was written to while it was read.
    #[error("it changed while it was read")]
    Changed,
    /// The same file is being written by another transfer.
    #[error("another transfer of it is under way")]
    Busy,
    /// More bytes than were announced.
    #[error("more came than was announced")]
    TooLong,
    /// What arrived is not what was sent.
    #[error("its SHA-256 is {got}, not {expected}")]
    Mismatch {
        /// What the other end has sent.
        expected: Sha256Digest,
        /// What came here.
        got: Sha256Digest,
    },
}

impl FileError {
    /// The reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::System(error) => reason_of(error),
            Self::NoDirectory => Reason::DirectoryMissing,
            Self::NotRegular => Reason::FileNotRegular,
            Self::IsDirectory => Reason::FileIsDirectory,
            Self::Exists => Reason::FileExists,
            Self::Changed => Reason::FileChanged,
            Self::Busy => Reason::RateLimited,
            Self::TooLong => Reason::RequestInvalid,
            Self::Mismatch { .. } => Reason::DigestMismatch,
        }
    }
}

/// Reasons of what the system says.
const REASONS: &[(io::ErrorKind, Reason)] = &[
    (io::ErrorKind::NotFound, Reason::FileNotFound),
    (io::ErrorKind::NotADirectory, Reason::FileNotFound),
    // `cap-std` says so of what leads out of the root, too.
    (io::ErrorKind::PermissionDenied, Reason::FileDenied),
    (io::ErrorKind::AlreadyExists, Reason::FileExists),
    (io::ErrorKind::IsADirectory, Reason::FileIsDirectory),
    (io::ErrorKind::StorageFull, Reason::DiskFull),
    (io::ErrorKind::QuotaExceeded, Reason::DiskFull),
    (io::ErrorKind::FileTooLarge, Reason::DiskFull),
    (io::ErrorKind::ReadOnlyFilesystem, Reason::FilesReadOnly),
];

fn reason_of(error: &io::Error) -> Reason {
    let known = REASONS.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or(Reason::FileFailed, |(_, reason)| *reason)
}

/// Does what waits for a disk on a thread of its own.
///
/// # Errors
/// Those of the work.
///
/// # Panics
/// If the work did.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
