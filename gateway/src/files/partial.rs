//! A file that is not complete yet: hidden in the directory where it will be, and given its name when it is all
//! there. What has come is kept, so that another transfer can go on with it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Dir, MetadataExt as _, OpenOptions, OpenOptionsExt as _};
use portway_protocol::files::{FileName, PARTIAL_PREFIX, Sha256Digest};
use rustix::fs::{OFlags, RenameFlags, renameat_with};
use sha2::{Digest as _, Sha256};

use super::FileError;
use super::root::{flags, hex, os_name};
use super::sending::CHUNK;
use crate::random::random;

/// How long what was interrupted is kept.
pub const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the system says where names cannot be written to the disk by themselves.
const UNSYNCED: &[io::ErrorKind] = &[
    io::ErrorKind::InvalidInput,
    io::ErrorKind::Unsupported,
    io::ErrorKind::PermissionDenied,
];

/// Bytes of a name that are kept of its hash.
const NAME: usize = 16;

/// Name of a partial file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartialName(String);

/// What becomes of a partial file that is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// It stays, for a transfer that goes on with it.
    Stays,
    /// It goes: nobody knows its name.
    Goes,
}

/// Whether a file may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// By whoever may read it, as far as the process's mask lets them.
    Yes,
    /// By nobody.
    No,
}

/// What happens to a file of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It stays, and the new one is refused.
    Never,
    /// The new one takes its place.
    Always,
}

/// A file that is not complete yet. All of it is blocking.
#[derive(Debug)]
pub struct Partial {
    directory: Dir,
    name: PartialName,
    file: File,
    hasher: Sha256,
    length: u64,
    unfinished: Unfinished,
}

impl PartialName {
    /// That of a transfer that is told by these.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(format!(
            "{PARTIAL_PREFIX}{}",
            hex(&hasher.finalize()[..NAME])
        ))
    }

    /// One that nobody has.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{PARTIAL_PREFIX}{}", hex(&random::<NAME>())))
    }
}

impl PartialName {
    /// Its part that is its own.
    pub(crate) fn key(&self) -> &str {
        self.0.trim_start_matches(PARTIAL_PREFIX)
    }
}

impl Partial {
    /// Opens it, with what an earlier transfer has left, or makes it.
    ///
    /// # Errors
    /// The system's; [`FileError::Busy`] if another transfer has it.
    pub fn open(
        directory: Dir,
        name: PartialName,
        executable: Executable,
        unfinished: Unfinished,
    ) -> Result<Self, FileError> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .mode(match executable {
                Executable::Yes => 0o777,
                Executable::No => 0o666,
            });
        let file = directory.open_with(&name.0, &options)?.into_std();
        if file.try_lock().is_err() {
            return Err(FileError::Busy);
        }
        let mine = file.metadata()?;
        // Another one may have finished it in between: then it is no partial file any more.
        let named = directory.symlink_metadata(&name.0);
        if !mine.is_file() || named.map_or(true, |named| named.ino() != mine.ino()) {
            return Err(FileError::Busy);
        }
        let mut partial = Self {
            directory,
            name,
            file,
            hasher: Sha256::new(),
            length: 0,
            unfinished,
        };
        partial.hash(mine.size())?;
        Ok(partial)
    }

    /// Bytes that are there.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Digest of what is there.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest(self.hasher.clone().finalize().into())
    }

    /// Forgets what is there beyond this length.
    ///
    /// # Errors
    /// The system's.
    pub fn truncate(&mut self, length: u64) -> Result<(), FileError> {
        if length < self.length {
            self.file.set_len(length)?;
            self.hash(length)?;
        }
        Ok(())
    }

    /// Adds to what is there.
    ///
    /// # Errors
    /// The system's.
    pub fn append(&mut self, data: &[u8]) -> Result<(), FileError> {
        self.file.write_all(data)?;
        self.hasher.update(data);
        self.length += data.len() as u64;
        Ok(())
    }

    /// Gives it its name, once the disk has all of it: whoever is told that it is there finds it after a loss of
    /// power, too.
    ///
    /// # Errors
    /// The system's: [`io::ErrorKind::AlreadyExists`] if there is another that is not to be replaced.
    pub fn finish(
        mut self,
        name: &FileName,
        replace: Replace,
        modified_ms: Option<i64>,
    ) -> Result<(), FileError> {
        if let Some(modified) = modified_ms.and_then(system_time) {
            self.file.set_modified(modified)?;
        }
        if let Err(error) = self.file.sync_all() {
            // What is read back may be what the disk has not got.
            self.unfinished = Unfinished::Goes;
            return Err(error.into());
        }
        self.rename(name, replace)?;
        self.unfinished = Unfinished::Stays;
        self.sync_names()?;
        Ok(())
    }

    /// Removes it.
    pub fn discard(mut self) {
        self.unfinished = Unfinished::Goes;
    }

    fn rename(&self, name: &FileName, replace: Replace) -> io::Result<()> {
        let flags = match replace {
            Replace::Never => RenameFlags::NOREPLACE,
            Replace::Always => RenameFlags::empty(),
        };
        let from = self.name.0.as_str();
        let renamed = renameat_with(&self.directory, from, &self.directory, os_name(name), flags);
        match renamed {
            // Not every file system can rename only if nothing is there; a second name it can give.
            Err(rustix::io::Errno::INVAL) if replace == Replace::Never => {
                self.directory
                    .hard_link(from, &self.directory, os_name(name))?;
                self.directory.remove_file(from)
            }
            renamed => Ok(renamed?),
        }
    }

    /// Has the disk keep the names of the directory, where that can be asked for.
    fn sync_names(&self) -> io::Result<()> {
        let synced = self.directory.open(".").and_then(|it| it.sync_all());
        match synced {
            // Not every file system can do that, and who may write names may not always read them.
            Err(error) if UNSYNCED.contains(&error.kind()) => Ok(()),
            synced => synced,
        }
    }

    /// Reads what is there up to this length, and goes on behind it.
    fn hash(&mut self, length: u64) -> Result<(), FileError> {
        self.hasher = Sha256::new();
        self.length = 0;
        self.file.seek(SeekFrom::Start(0))?;
        let mut chunk = Vec::new();
        while self.length < length {
            chunk.clear();
            let read = (&self.file).take(CHUNK).read_to_end(&mut chunk)?;
            if read == 0 {
                return Err(FileError::Changed);
            }
            self.hasher.update(&chunk);
            self.length += read as u64;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let empty = self.length == 0 && self.file.metadata().is_ok_and(|it| it.size() == 0);
        if self.unfinished == Unfinished::Stays && !empty {
            return;
        }
        match self.directory.remove_file(&self.name.0) {
            // It was given its name.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "what is left of a transfer cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Bytes that are there of a partial file. Blocking.
///
/// # Errors
/// The system's.
pub(super) fn length(directory: &Dir, name: &PartialName) -> Result<u64, FileError> {
    match directory.symlink_metadata(&name.0) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Removes what was left of a transfer longer ago than [`LIFETIME`].
pub(super) fn sweep(directory: &Dir, name: &std::ffi::OsStr, now: SystemTime) {
    let modified = directory
        .symlink_metadata(name)
        .and_then(|it| it.modified());
    let age = modified.map(|it| now.duration_since(it.into_std()).unwrap_or_default());
    if age.is_ok_and(|age| age > LIFETIME)
        && let Err(error) = directory.remove_file(name)
    {
        tracing::debug!(%error, "what is left of a transfer cannot be removed");
    }
}

/// Whether a name is that of a partial file.
pub(super) fn is_partial(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes()
        .starts_with(PARTIAL_PREFIX.as_bytes())
}

fn system_time(millis: i64) -> Option<SystemTime> {
    let span = Duration::from_millis(millis.unsigned_abs());
    if millis < 0 {
        UNIX_EPOCH.checked_sub(span)
    } else {
        UNIX_EPOCH.checked_add(span)
    }
}
