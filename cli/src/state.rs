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
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portway_gateway::private_file;
use portway_protocol::id::{decode_array, encode};
use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;

use crate::args::Global;
use crate::config::File;
use crate::exit::Failure;

/// An opened state directory.
#[derive(Debug, Clone)]
pub(crate) struct State {
    dir: PathBuf,
}

impl State {
    /// This directory.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory given, or the configured one, or the default one. Nothing is created.
    pub(crate) fn locate(global: &Global) -> anyhow::Result<Self> {
        match &global.state {
            Some(dir) => Ok(Self::at(dir.clone())),
            None => Self::configured(global, &File::load(global)?),
        }
    }

    /// The same with a configuration that is read already.
    pub(crate) fn configured(global: &Global, file: &File) -> anyhow::Result<Self> {
        let dir = global.state.clone().or_else(|| file.state.clone());
        let dir = dir.or_else(default_dir).ok_or_else(|| {
            Failure::configuration("no state directory: set HOME, or give --state DIR")
        })?;
        Ok(Self { dir })
    }

    /// Creates the directory if it is missing and checks that it is private.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .with_context(|| format!("cannot create the state directory {}", self.dir.display()))?;
        let metadata = fs::metadata(&self.dir)
            .with_context(|| format!("cannot read {}", self.dir.display()))?;
        refuse_if_shared((&self.dir, &metadata), "state directory", 0o022)
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a file in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a key, or makes it on first use.
    pub(crate) fn key(&self, name: &str) -> anyhow::Result<SigningKey> {
        match self.read_secret(name)? {
            Some(seed) => Ok(SigningKey::from_seed(&seed)),
            None => {
                self.write_secret(name, &random_secret())?;
                // Another process may have been first.
                let seed = self.read_secret(name)?;
                let seed = seed.with_context(|| format!("{name} was removed meanwhile"))?;
                Ok(SigningKey::from_seed(&seed))
            }
        }
    }

    /// Reads 32 secret bytes, if the file is there.
    pub(crate) fn read_secret(&self, name: &str) -> anyhow::Result<Option<Secret<[u8; 32]>>> {
        let Some(text) = self.read_private(name)? else {
            return Ok(None);
        };
        let bytes = decode_array(text.expose().trim()).map_err(|_| self.damaged(name))?;
        Ok(Some(Secret::new(bytes)))
    }

    /// Reads a file that only its owner may read, if it is there.
    pub(crate) fn read_private(&self, name: &str) -> anyhow::Result<Option<Secret<String>>> {
        let path = self.path(name);
        let cannot_read = || format!("cannot read {}", path.display());
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(cannot_read),
        };
        // Of the file that is read: another one may take its place meanwhile.
        let metadata = file.metadata().with_context(cannot_read)?;
        refuse_if_shared((&path, &metadata), "key file", 0o077)?;
        let text = io::read_to_string(file).with_context(cannot_read)?;
        Ok(Some(Secret::new(text)))
    }

    /// A key file that cannot be understood.
    pub(crate) fn damaged(&self, name: &str) -> Failure {
        Failure::configuration(format!(
            "{} is damaged: restore it from a backup, or remove it to start anew (every link stops working)",
            self.path(name).display()
        ))
    }

    /// Writes 32 secret bytes to a new file that nobody else can read. One that is there is kept.
    pub(crate) fn write_secret(&self, name: &str, secret: &Secret<[u8; 32]>) -> anyhow::Result<()> {
        self.write_private(name, &Secret::new(encode(secret.expose())))
    }

    /// Writes a line to a new file that nobody else can read. One that is there is kept. Whoever reads
    /// meanwhile sees no file or a whole one.
    pub(crate) fn write_private(&self, name: &str, line: &Secret<String>) -> anyhow::Result<()> {
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
        written
            .and(removed)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a file that nobody else can read, in place of the one that is there. Whatever happens, one of
    /// them is there, whole.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.path(name);
        let new = self.path(&format!("{name}.new"));
        private_file::replace(&path, &new, content)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// 32 bytes from the operating system.
///
/// # Panics
/// If the system has no randomness, where nothing secure can be done.
pub(crate) fn random_secret() -> Secret<[u8; 32]> {
    Secret::new(random_bytes())
}

/// Random bytes from the operating system.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

fn default_dir() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    std::env::var_os("XDG_STATE_HOME")
        .and_then(|dir| absolute(dir.into()))
        .or_else(|| {
            let home = absolute(std::env::var_os("HOME")?.into())?;
            Some(home.join(".local/state"))
        })
        .map(|dir| dir.join("portway"))
}

fn refuse_if_shared(
    (path, metadata): (&Path, &fs::Metadata),
    what: &str,
    forbidden: u32,
) -> anyhow::Result<()> {
    let mode = metadata.mode();
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(Failure::configuration(format!(
        "the {what} {} is open to other users (mode {:o}): run `chmod go= {}`; if others had access, remove it to start anew",
        path.display(),
        mode & 0o777,
        path.display()
    ))
    .into())
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
    fn a_key_that_others_can_read_is_refused() {
        let (_dir, state) = state();
        state.key("node.key").unwrap();
        let path = state.path("node.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = state.key("node.key").unwrap_err();
        assert_eq!(crate::exit::code(&error), 78.into());
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
