//! Where the passphrase of the cluster key comes from: a file, or whoever sits before the terminal.
//!
//! Security: never the command line or the environment, which others can read. It is not shown while it is
//! typed.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use portway_protocol::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::args::Global;
use crate::exit::Failure;
use crate::sealed_key::Passphrase;

/// Longest passphrase, bytes.
const MAX_PASSPHRASE: u64 = 4 * 1024;

/// The one that opens the cluster key.
pub(crate) fn given(global: &Global) -> anyhow::Result<Passphrase> {
    match &global.passphrase_file {
        Some(path) => read(path),
        None => ask("Passphrase of the cluster key: "),
    }
}

/// One that shall open it from now on, if there is a file that says so.
pub(crate) fn of_file(global: &Global) -> anyhow::Result<Option<Passphrase>> {
    global.passphrase_file.as_deref().map(read).transpose()
}

/// A new one: typed twice, unless it is in a file.
pub(crate) fn chosen(global: &Global) -> anyhow::Result<Passphrase> {
    if let Some(passphrase) = of_file(global)? {
        return Ok(passphrase);
    }
    let passphrase = ask("New passphrase of the cluster key: ")?;
    if ask("The same again: ")?.expose() != passphrase.expose() {
        return Err(
            Failure::configuration("these are two passphrases: nothing was changed").into(),
        );
    }
    Ok(passphrase)
}

fn read(path: &Path) -> anyhow::Result<Passphrase> {
    let unusable = |problem: &dyn std::fmt::Display| {
        Failure::configuration(format!("the passphrase in {}: {problem}", path.display()))
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PASSPHRASE).read_to_string(&mut text))
        .map_err(|error| unusable(&error))?;
    let text = Secret::new(text);
    let line = text.expose().trim_end_matches(['\r', '\n']);
    if line.is_empty() {
        return Err(unusable(&"there is none").into());
    }
    Ok(Secret::new(line.to_owned()))
}

fn ask(prompt: &str) -> anyhow::Result<Passphrase> {
    let stdin = io::stdin();
    if !(stdin.is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::configuration(
            "the cluster key needs a passphrase: give --passphrase-file FILE",
        )
        .into());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{prompt}")?;
    stderr.flush()?;
    let mut line = String::new();
    {
        let _silent = Silence::begin()?;
        stdin.lock().take(MAX_PASSPHRASE).read_line(&mut line)?;
    }
    writeln!(stderr)?;
    let line = Secret::new(line);
    let typed = line.expose().trim_end_matches(['\r', '\n']);
    if typed.is_empty() {
        return Err(Failure::configuration("there is no empty passphrase").into());
    }
    Ok(Secret::new(typed.to_owned()))
}

/// While it lives, the terminal does not show what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0) {
            tracing::warn!(%error, "the terminal does not show what is typed: run `stty echo`");
        }
    }
}
