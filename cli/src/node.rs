//! This machine as a node: its name and its key.

use std::fs;

use portway_protocol::id::NodeId;
use portway_protocol::key::{PublicKey, SigningKey};

use crate::state::State;

/// File in the state directory.
const KEY: &str = "node.key";

/// Its key, made on first use.
pub(crate) fn key(state: &State) -> anyhow::Result<SigningKey> {
    state.key(KEY)
}

/// Its public key, if it has one.
pub(crate) fn public_key(state: &State) -> anyhow::Result<Option<PublicKey>> {
    let seed = state.read_secret(KEY)?;
    Ok(seed.map(|seed| SigningKey::from_seed(&seed).public()))
}

/// This machine's host name as a DNS label.
pub(crate) fn host_name() -> NodeId {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = host.trim().split('.').next().unwrap_or_default();
    let label: String = first
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    label
        .trim_matches('-')
        .parse()
        .unwrap_or_else(|_| "node".parse().expect("a valid label"))
}
