//! The state directory: keys and what else survives a restart.
//!
//! ```text
//! DIR/ (0700)   cluster.key  node.key  device.key  grants.json  audit.jsonl  audit.<age>.jsonl
//!               registry.db  control.sock  relay.sock  link.<service>
//!               of an issuer: enrolled.json  enrol.sock   of who has joined: enrolment.json  machine.token
//! ```
//!
//! Security: key files that others may read are refused, not repaired: whoever could read them may
//! have.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use portway_protocol::id::{decode_array, encode};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::secret::Secret;

use crate::private_file;
use crate::random::random;

/// Key of this machine as a node.
const NODE_KEY: &str = "node.key";

/// Held by whoever has taken the directory.
const LOCK: &str = "node.lock";

/// A state directory that nobody else uses. The system gives it back if this process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

/// Why a state directory, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system's answer.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others may read keys, or write what is believed.
    #[error(
        "the {what} {path} is open to other users (mode {mode:o}): run `chmod go= {path}`; if others had access, \
         remove it to start anew"
    )]
    Shared {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key cannot be understood.
    #[error(
        "{0} is damaged: restore it from a backup, or remove it to start anew (every link stops working)"
    )]
    Damaged(PathBuf),
    /// Another process has it.
    #[error("another process uses the state directory {0}: end it first, or use another")]
    InUse(PathBuf),
    /// Somebody has removed a file while it was used.
    #[error("{0} was removed meanwhile")]
    Removed(PathBuf),
}

impl StateError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// An opened state directory.
#[derive(Debug, Clone)]
pub struct State {
    dir: PathBuf,
}

impl State {
    /// This directory.
    #[must_use]
    pub const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Creates the directory if it is missing and checks that it is private.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn prepare(&self) -> Result<(), StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(StateError::io("create the state directory", &self.dir))?;
        let metadata = fs::metadata(&self.dir).map_err(StateError::io("read", &self.dir))?;
        refuse_if_shared((&self.dir, &metadata), "state directory", 0o022)
    }

    /// Takes the directory for one node: no other process can until this is dropped.
    ///
    /// # Errors
    /// [`StateError::InUse`] and others.
    pub fn lock(&self) -> Result<Lock, StateError> {
        let path = self.path(LOCK);
        let opened = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(StateError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse(self.dir.clone())),
            Err(fs::TryLockError::Error(source)) => Err(StateError::io("lock", &path)(source)),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a file in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The key of this machine as a node, made on first use.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn node_key(&self) -> Result<SigningKey, StateError> {
        self.key(NODE_KEY)
    }

    /// Its public half, if it has one.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn node_public_key(&self) -> Result<Option<PublicKey>, StateError> {
        let seed = self.read_secret(NODE_KEY)?;
        Ok(seed.map(|seed| SigningKey::from_seed(&seed).public()))
    }

    /// Reads a key, or makes it on first use.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn key(&self, name: &str) -> Result<SigningKey, StateError> {
        match self.read_secret(name)? {
            Some(seed) => Ok(SigningKey::from_seed(&seed)),
            None => {
                self.write_secret(name, &Secret::new(random()))?;
                // Another process may have been first.
                let seed = self.read_secret(name)?;
                let seed = seed.ok_or_else(|| StateError::Removed(self.path(name)))?;
                Ok(SigningKey::from_seed(&seed))
            }
        }
    }

    /// Reads 32 secret bytes, if the file is there.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_secret(&self, name: &str) -> Result<Option<Secret<[u8; 32]>>, StateError> {
        let Some(text) = self.read_private(name)? else {
            return Ok(None);
        };
        let bytes = decode_array(text.expose().trim()).map_err(|_| self.damaged(name))?;
        Ok(Some(Secret::new(bytes)))
    }

    /// Reads a file that only its owner may read, if it is there.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read_private(&self, name: &str) -> Result<Option<Secret<String>>, StateError> {
        let path = self.path(name);
        let cannot_read = || StateError::io("read", &path);
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read()(error)),
        };
        // Of the file that is read: another one may take its place meanwhile.
        let metadata = file.metadata().map_err(cannot_read())?;
        refuse_if_shared((&path, &metadata), "key file", 0o077)?;
        let text = io::read_to_string(file).map_err(cannot_read())?;
        Ok(Some(Secret::new(text)))
    }

    /// A key file that cannot be understood.
    #[must_use]
    pub fn damaged(&self, name: &str) -> StateError {
        StateError::Damaged(self.path(name))
    }

    /// Writes 32 secret bytes to a new file that nobody else can read. One that is there is kept.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn write_secret(&self, name: &str, secret: &Secret<[u8; 32]>) -> Result<(), StateError> {
        self.write_private(name, &Secret::new(encode(secret.expose())))
    }

    /// Writes a line to a new file that nobody else can read. One that is there is kept. Whoever reads
    /// meanwhile sees no file or a whole one.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn write_private(&self, name: &str, line: &Secret<String>) -> Result<(), StateError> {
        let path = self.path(name);
        let draft = self.path(&format!("{name}.{}.new", std::process::id()));
        let write = || {
            let line = Secret::new(format!("{}\n", line.expose()));
            private_file::draft(&draft, line.expose().as_bytes())?;
            match fs::hard_link(&draft, &path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        };
        let written = write();
        let removed = fs::remove_file(&draft);
        written.and(removed).map_err(StateError::io("write", &path))
    }

    /// Writes a file that nobody else can read, in place of the one that is there. Whatever happens, one of
    /// them is there, whole.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let new = self.path(&format!("{name}.new"));
        private_file::replace(&path, &new, content).map_err(StateError::io("write", &path))
    }
}

fn refuse_if_shared(
    (path, metadata): (&Path, &fs::Metadata),
    what: &'static str,
    forbidden: u32,
) -> Result<(), StateError> {
    let mode = metadata.mode();
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(StateError::Shared {
        what,
        path: path.to_owned(),
        mode: mode & 0o777,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State {
            dir: dir.path().join("state"),
        };
        state.prepare().unwrap();
        (dir, state)
    }

    #[test]
    fn a_key_survives_and_is_private() {
        let (_dir, state) = state();
        let first = state.key("node.key").unwrap().public();
        assert_eq!(state.key("node.key").unwrap().public(), first);
        let mode = fs::metadata(state.path("node.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn of_two_processes_that_make_a_key_the_first_one_s_counts() {
        let (_dir, state) = state();
        state.write_secret("k", &Secret::new([1; 32])).unwrap();
        state.write_secret("k", &Secret::new([2; 32])).unwrap();
        let kept = state.read_secret("k").unwrap().unwrap();
        assert_eq!(kept.expose(), &[1; 32]);
        assert_eq!(fs::read_dir(state.dir()).unwrap().count(), 1, "no draft");
    }

    #[test]
    fn one_process_at_a_time_has_the_directory() {
        let (_dir, state) = state();
        let lock = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(StateError::InUse(_))));
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_dir, state) = state();
        state.key("node.key").unwrap();
        let path = state.path("node.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = state.key("node.key").unwrap_err();
        assert!(error.to_string().contains("chmod go="), "{error}");
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let (_dir, state) = state();
        state.key("node.key").unwrap();
        fs::write(state.path("node.key"), "garbage").unwrap();
        assert!(state.key("node.key").is_err());
        assert_eq!(
            fs::read_to_string(state.path("node.key")).unwrap(),
            "garbage"
        );
    }
}
