//! Which state directory is meant, see [`portway_gateway::state`].

use std::path::PathBuf;

use portway_protocol::secret::Secret;

pub(crate) use portway_gateway::state::State;

use crate::args::Global;
use crate::config::File;
use crate::exit::Failure;

/// The directory given, or the configured one, or the default one. Nothing is created.
pub(crate) fn locate(global: &Global) -> anyhow::Result<State> {
    match &global.state {
        Some(dir) => Ok(State::at(dir.clone())),
        None => configured(global, &File::load(global)?),
    }
}

/// The same with a configuration that is read already.
pub(crate) fn configured(global: &Global, file: &File) -> anyhow::Result<State> {
    let dir = global.state.clone().or_else(|| file.state.clone());
    let dir = dir.or_else(default_dir).ok_or_else(|| {
        Failure::configuration("no state directory: set HOME, or give --state DIR")
    })?;
    Ok(State::at(dir))
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
