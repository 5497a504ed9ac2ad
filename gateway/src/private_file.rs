//! Files that nobody else can read and that are never there in part: written aside, then put in place.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes a file to be put in place, onto the disk.
///
/// # Errors
/// The system's.
pub fn draft(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes a file in place of the one that is there, by way of another one beside it. Whatever happens, one of
/// them is there, whole.
///
/// # Errors
/// The system's.
pub fn replace(path: &Path, beside: &Path, content: &[u8]) -> io::Result<()> {
    draft(beside, content)?;
    fs::rename(beside, path)
}
