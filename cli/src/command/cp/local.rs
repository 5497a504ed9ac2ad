//! Files of this machine: where a copy comes to, and what is copied. All of it is blocking.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use portway_gateway::files::root::{Found, Root, Source, find, os_name};
use portway_gateway::files::{Dir, FileError};
use portway_protocol::files::{FileName, FilePath};

/// The directory that a file is copied to, and its name there: its own, if `to` is a directory.
pub(super) fn place_of_file(to: &Path, own: FileName) -> Result<(Dir, FileName), FileError> {
    if is_said_directory(to) || to.is_dir() {
        return Ok((Root::new(to.to_owned()).open()?, own));
    }
    let (parent, name) = split(to)?;
    Ok((Root::new(parent).open()?, name))
}

/// Where the copy of a directory is: below `to` under its own name if `to` ends in a slash, else `to` itself.
pub(super) fn place_of_tree(to: &Path, own: Option<&FileName>) -> PathBuf {
    match own {
        Some(own) if is_said_directory(to) => to.join(os_name(own)),
        Some(_) | None => to.to_owned(),
    }
}

/// Makes a directory, if it is not there.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// The same for one in a directory that is open.
pub(super) fn make_in(directory: &Dir, name: &FileName) -> Result<(), FileError> {
    match directory.create_dir(os_name(name)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if directory.metadata(os_name(name))?.is_dir() {
                Ok(())
            } else {
                Err(FileError::Exists)
            }
        }
        made => Ok(made?),
    }
}

/// Opens a file of a directory.
pub(super) fn open(directory: &Dir, name: FileName) -> Result<Source, FileError> {
    let path = FilePath::default().join(name);
    let path = path.map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    match find(directory, &path)? {
        Found::File(source) => Ok(source),
        Found::Directory(_) => Err(FileError::IsDirectory),
    }
}

/// The name that a path has itself.
pub(super) fn name_of(path: &Path) -> Option<FileName> {
    FileName::new(path.file_name()?.as_bytes()).ok()
}

/// The directory and the name of a file that need not be there.
pub(super) fn split(path: &Path) -> Result<(PathBuf, FileName), FileError> {
    let name = name_of(path).ok_or(FileError::IsDirectory)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    Ok((parent.to_owned(), name))
}

/// Whether a path is one of a directory, whatever is there.
pub(super) fn is_said_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes == b"." || bytes.ends_with(b"/.") || path.file_name().is_none()
}
