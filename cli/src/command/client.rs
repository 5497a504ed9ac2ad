//! Commands that ask a running instance: `nodes`, `services`, `sessions`.

use std::path::Path;

use portway_gateway::flows::counters::Tally;
use portway_protocol::id::{NodeId, SessionId};
use portway_protocol::signal::{AnnouncedService, NodeStatus};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::control;
use crate::control::gateway::ServiceView;
use crate::output;
use crate::state;

/// A node as the running instance tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Node {
    node: NodeId,
    status: NodeStatus,
    version: String,
    commit: String,
    online_s: u64,
    heartbeat_age_s: u64,
    services: Vec<AnnouncedService>,
}

/// A session as the running instance tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    session: SessionId,
    user: String,
    service: String,
    grant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    age_s: u64,
    received: u64,
    sent: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datagrams: Option<Tally>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Services {
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct Sessions {
    sessions: Vec<Session>,
}

/// `portway nodes`.
pub(crate) fn nodes(global: &Global) -> anyhow::Result<()> {
    let nodes = Nodes {
        nodes: ask(global, "GET", "/nodes", None::<&()>)?,
    };
    output::print(global.format(), &nodes, |nodes| {
        let row = |node: &Node| {
            vec![
                node.node.to_string(),
                lower(&node.status),
                node.version.clone(),
                node.services.len().to_string(),
                match node.status {
                    NodeStatus::Offline => format!("seen {} ago", duration(node.heartbeat_age_s)),
                    NodeStatus::Connecting | NodeStatus::Online | NodeStatus::Draining => {
                        duration(node.online_s)
                    }
                },
            ]
        };
        let rows: Vec<_> = nodes.nodes.iter().map(row).collect();
        output::table(&["NODE", "STATUS", "VERSION", "SERVICES", "ONLINE"], &rows)
    })?;
    Ok(())
}

/// `portway services`.
pub(crate) fn services(global: &Global) -> anyhow::Result<()> {
    let services = Services {
        services: ask(global, "GET", "/services", None::<&()>)?,
    };
    output::print(global.format(), &services, |services| {
        let row = |service: &ServiceView| {
            vec![
                service.name.to_string(),
                lower(&service.health),
                service.target.to_string(),
                service.url.clone(),
            ]
        };
        let rows: Vec<_> = services.services.iter().map(row).collect();
        output::table(&["SERVICE", "HEALTH", "TARGET", "ADDRESS"], &rows)
    })?;
    Ok(())
}

/// `portway sessions`.
pub(crate) fn sessions(global: &Global) -> anyhow::Result<()> {
    let sessions = Sessions {
        sessions: ask(global, "GET", "/sessions", None::<&()>)?,
    };
    output::print(global.format(), &sessions, |sessions| {
        let row = |session: &Session| {
            vec![
                session.user.clone(),
                session.service.clone(),
                duration(session.age_s),
                session.path.clone().unwrap_or_else(unknown),
                session.address.clone().unwrap_or_else(unknown),
                session
                    .rtt_ms
                    .map_or_else(unknown, |rtt| format!("{rtt:.1} ms")),
                bytes(session.received),
                bytes(session.sent),
                session.grant.clone(),
            ]
        };
        let rows: Vec<_> = sessions.sessions.iter().map(row).collect();
        let head = [
            "USER", "SERVICE", "AGE", "PATH", "FROM", "RTT", "IN", "OUT", "GRANT",
        ];
        output::table(&head, &rows)
    })?;
    Ok(())
}

/// What a table shows for what is not known.
fn unknown() -> String {
    "–".to_owned()
}

/// Asks the instance of the state directory.
pub(crate) fn ask<T: DeserializeOwned>(
    global: &Global,
    method: &str,
    path: &str,
    body: Option<&impl Serialize>,
) -> anyhow::Result<T> {
    let socket = state::locate(global)?.path(control::SOCKET);
    ask_at(&socket, method, path, body)
}

/// Asks the instance behind a socket.
pub(crate) fn ask_at<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&impl Serialize>,
) -> anyhow::Result<T> {
    let body = body.map(serde_json::to_vec).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(control::ask(socket, method, path, body))
}

/// Whether an instance uses the state directory.
pub(crate) fn is_running(global: &Global) -> anyhow::Result<bool> {
    control::is_alive(&state::locate(global)?.path(control::SOCKET))
}

/// The word that JSON has for a state.
pub(crate) fn lower(state: &impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => String::new(),
    }
}

pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(3 * 1024 * 1024 * 1024), "3.0 GiB");
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(3700), "1h 1m");
    }
}
