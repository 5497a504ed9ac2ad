//! This machine's name.

use std::fs;

use portway_protocol::id::NodeId;

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
