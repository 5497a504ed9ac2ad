//! `portway key`: the public keys of a state directory, and the passphrase of the private one.

use anyhow::Context as _;
use serde::Serialize;

use super::client::ask;
use crate::args::{Global, Key};
use crate::cluster::Kept;
use crate::control;
use crate::control::enrolment::{Rotated, Taken};
use crate::exit::Failure;
use crate::state;
use crate::{output, passphrase};

#[derive(Serialize)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_words: Option<String>,
    node_key: String,
}

/// Runs the sub-command.
pub(crate) fn run(global: &Global, args: Key) -> anyhow::Result<()> {
    match args {
        Key::Show => show(global),
        Key::Encrypt => protect(global, Protection::Passphrase),
        Key::Decrypt => protect(global, Protection::None),
        Key::Rotate => rotate(global),
    }
}

fn show(global: &Global) -> anyhow::Result<()> {
    let state = state::locate(global)?;
    state.prepare()?;
    let cluster = Kept::find(&state)?;
    let keys = Keys {
        cluster: cluster.as_ref().map(|it| it.name.to_string()),
        cluster_key: cluster.as_ref().map(|it| it.public().to_string()),
        cluster_words: cluster.as_ref().map(|it| it.public().words().to_string()),
        node_key: state.node_key()?.public().to_string(),
    };
    output::print(global.format(), &keys, |keys| {
        let mut text = String::new();
        if let (Some(name), Some(key), Some(words)) =
            (&keys.cluster, &keys.cluster_key, &keys.cluster_words)
        {
            text.push_str(&format!(
                "cluster      {name}\ncluster key  {key}\n             {words}\n"
            ));
        }
        text.push_str(&format!("node key     {}", keys.node_key));
        text
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Replaced {
    cluster: String,
    cluster_key: String,
    cluster_words: String,
    serial: u64,
    /// Whether a process that runs here signs by it already.
    running: bool,
}

/// Replaces the cluster key, here and in the process that runs.
fn rotate(global: &Global) -> anyhow::Result<()> {
    let state = state::locate(global)?;
    let (cluster, passphrase) = Kept::required(&state)?.unlock(global, &state)?;
    let next = cluster.rotate(&state, passphrase.as_ref())?;
    let running = control::is_alive(&state.path(control::SOCKET))?;
    if running {
        let rotated = Rotated::new(&next);
        let told: anyhow::Result<Taken> = ask(global, "POST", "/cluster", Some(&rotated));
        told.context(
            "the cluster has another key now, but the portway that runs here goes on with the old one: \
             restart it",
        )?;
    }
    let replaced = Replaced {
        cluster: next.name.to_string(),
        cluster_key: next.key.public().to_string(),
        cluster_words: next.key.public().words().to_string(),
        serial: next.rotations.last().map_or(0, |last| last.serial),
        running,
    };
    output::print(global.format(), &replaced, |it| {
        format!(
            "cluster      {}\ncluster key  {}\n             {}\n\n\
             Links and nodes go on; who knows the old key follows to this one. Signaling services that run\n\
             apart need it beside the old one: [signaling] cluster_keys. Machines that have joined ask for a\n\
             certificate of it within ten minutes; those with a token made by hand need another.",
            it.cluster, it.cluster_key, it.cluster_words
        )
    })?;
    Ok(())
}

/// What the cluster key is kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Protection {
    Passphrase,
    None,
}

#[derive(Serialize)]
struct Protected {
    protection: Protection,
}

/// Gives the cluster key a passphrase, or takes it off.
fn protect(global: &Global, protection: Protection) -> anyhow::Result<()> {
    let state = state::locate(global)?;
    let kept = Kept::required(&state)?;
    let (is_so, already) = match protection {
        Protection::Passphrase => (kept.is_sealed(), "the cluster key has a passphrase already"),
        Protection::None => (!kept.is_sealed(), "the cluster key has no passphrase"),
    };
    if is_so {
        return Err(Failure::configuration(already).into());
    }
    let cluster = kept.open(global, &state)?;
    let passphrase = match protection {
        Protection::Passphrase => Some(passphrase::chosen(global)?),
        Protection::None => None,
    };
    cluster.keep(&state, passphrase.as_ref())?;
    let protected = Protected { protection };
    output::print(global.format(), &protected, |it| match it.protection {
        Protection::Passphrase => "the cluster key has a passphrase from now on".to_owned(),
        Protection::None => "the cluster key has no passphrase any more".to_owned(),
    })?;
    Ok(())
}
