//! A directory, and that nothing leads out of it.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use portway_protocol::files::{Attributes, Entry, EntryKind, FileName, FilePath, Via};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::FileError;

/// Bits of a mode by which somebody may run a file.
const EXECUTE: u32 = 0o111;

/// Bytes of a validator that are kept of its hash.
const VALIDATOR: usize = 16;

/// A directory that may be there.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// A file with content.
    File(Source),
    /// A directory.
    Directory(Dir),
}

/// A file with content, opened.
#[derive(Debug)]
pub struct Source {
    /// At its beginning.
    pub file: File,
    /// As it was when it was opened.
    pub attributes: Attributes,
}

impl Root {
    /// Nothing is opened yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Opens it: whoever replaces it from now on changes nothing for who has it open. Blocking.
    ///
    /// # Errors
    /// [`FileError::NoDirectory`], or the system's.
    pub fn open(&self) -> Result<Dir, FileError> {
        Dir::open_ambient_dir(&self.0, ambient_authority()).map_err(|error| {
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) {
                return FileError::NoDirectory;
            }
            FileError::System(error)
        })
    }

    /// Whether it can be read. Blocking.
    ///
    /// # Errors
    /// As for [`Root::open`].
    pub fn check(&self) -> Result<(), FileError> {
        self.open()?.entries()?.next().transpose()?;
        Ok(())
    }
}

/// What a path leads to below a directory. Blocking.
///
/// # Errors
/// The system's, and [`FileError::NotRegular`].
pub fn find(directory: &Dir, path: &FilePath) -> Result<Found, FileError> {
    let path = relative(path);
    let metadata = directory.metadata(&path)?;
    if metadata.is_dir() {
        return Ok(Found::Directory(directory.open_dir(&path)?));
    }
    // To open a device can be to use it.
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    let mut options = OpenOptions::new();
    // Should it have become a pipe since: nobody waits for its other end.
    options.read(true).custom_flags(flags(OFlags::NONBLOCK));
    let file = directory.open_with(&path, &options)?.into_std();
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    let attributes = attributes(&metadata);
    Ok(Found::File(Source { file, attributes }))
}

/// The directory of this path. Blocking.
///
/// # Errors
/// The system's.
pub fn directory(root: &Dir, path: &FilePath) -> io::Result<Dir> {
    root.open_dir(relative(path))
}

/// What a name of a directory stands for, if for anything. Blocking.
#[must_use]
pub fn look(directory: &Dir, name: FileName) -> Option<Entry> {
    let itself = directory.symlink_metadata(os_name(&name)).ok()?;
    let (metadata, via) = if itself.is_symlink() {
        // A link that leads nowhere, or out of the root, is itself all that there is.
        let led = directory.metadata(os_name(&name));
        (led.unwrap_or(itself), Via::Link)
    } else {
        (itself, Via::Itself)
    };
    let kind = if metadata.is_dir() {
        EntryKind::Directory
    } else if metadata.is_file() {
        EntryKind::File
    } else {
        EntryKind::Other
    };
    Some(Entry {
        name,
        kind,
        via,
        attributes: attributes_of_entry(&metadata),
    })
}

/// A name as the system takes it.
#[must_use]
pub fn os_name(name: &FileName) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

/// Flags as `cap-std` takes them.
pub(super) fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn relative(path: &FilePath) -> PathBuf {
    let mut relative = PathBuf::from(".");
    relative.extend(path.names().iter().map(os_name));
    relative
}

/// What the system knows of a file, and we tell.
macro_rules! attributes {
    ($metadata:expr) => {{
        let metadata = $metadata;
        // The time of the last change cannot be set by anybody; the rest tells files apart.
        let mut hasher = Sha256::new();
        for part in [metadata.dev(), metadata.ino(), metadata.size()] {
            hasher.update(part.to_be_bytes());
        }
        let modified = [metadata.mtime(), metadata.mtime_nsec()];
        for part in [modified, [metadata.ctime(), metadata.ctime_nsec()]].as_flattened() {
            hasher.update(part.to_be_bytes());
        }
        Attributes {
            size: metadata.size(),
            modified_ms: modified[0] * 1000 + modified[1] / 1_000_000,
            executable: metadata.mode() & EXECUTE != 0,
            etag: format!("\"{}\"", hex(&hasher.finalize()[..VALIDATOR])),
        }
    }};
}

/// Of a file that is open.
pub(super) fn attributes(metadata: &Metadata) -> Attributes {
    use std::os::unix::fs::MetadataExt as _;
    attributes!(metadata)
}

/// Of an entry of a directory.
pub(super) fn attributes_of_entry(metadata: &cap_std::fs::Metadata) -> Attributes {
    use cap_std::fs::MetadataExt as _;
    attributes!(metadata)
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
