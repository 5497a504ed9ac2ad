//! `portway status`: what runs on a state directory.

use crate::args::Global;
use crate::command::client::{ask_at, duration};
use crate::control::status::Status;
use crate::control::{self, is_alive};
use crate::links::unix_now;
use crate::output;
use crate::state;
use portway_gateway::enrolment::certificate::By;
use portway_protocol::printable::printable;

/// Beginning of a hash that tells builds apart.
const SHORT_HASH: usize = 12;

/// Asks what runs, of whatever role.
pub(crate) fn run(global: &Global) -> anyhow::Result<()> {
    let state = state::locate(global)?;
    let relay = state.path(control::relay::SOCKET);
    let main = state.path(control::SOCKET);
    let socket = if !is_alive(&main)? && is_alive(&relay)? {
        relay
    } else {
        main
    };
    let status: Status = ask_at(&socket, "GET", "/status", None::<&()>)?;
    output::print(global.format(), &status, human)?;
    Ok(())
}

fn human(status: &Status) -> String {
    let role = serde_json::to_value(status.role).unwrap_or_default();
    let hash = status.executable.get(..SHORT_HASH);
    let running = unix_now().saturating_sub(status.started);
    let mut text = format!(
        "role        {}\nversion     {} ({})\nexecutable  {}\npid         {}\nrunning     {}\n\
         clock       {}.{:03} s since 1970\n",
        role.as_str().unwrap_or_default(),
        status.version,
        status.commit,
        hash.unwrap_or(&status.executable),
        status.pid,
        duration(running),
        status.now_ms / 1000,
        status.now_ms % 1000,
    );
    for connection in status.signaling.iter().flatten() {
        let word = if connection.connected {
            "connected"
        } else {
            "away"
        };
        text.push_str(&format!("signaling   {word}: {}\n", connection.url));
    }
    if let Some(audit) = &status.audit {
        text.push_str(&format!(
            "audit log   {} records, head {}\n",
            audit.seq, audit.hash
        ));
    }
    if let Some(standing) = &status.certificate {
        let left = duration(standing.expires.saturating_sub(unix_now()));
        let renewal = match (&standing.failure, standing.renewal) {
            (Some(failure), _) => format!("renewing fails: {}", printable(failure)),
            (None, By::Itself) => "renewed by itself".to_owned(),
            (None, By::Hand) => "renewed by hand".to_owned(),
        };
        text.push_str(&format!("certificate {left} left, {renewal}\n"));
    }
    if let Some(list) = &status.revocations {
        let left = duration(list.expires.saturating_sub(unix_now()));
        let who = match list.nodes {
            _ if list.names_this_node => "this node".to_owned(),
            0 => "no node".to_owned(),
            1 => "one node".to_owned(),
            nodes => format!("{nodes} nodes"),
        };
        text.push_str(&format!("revoked     {who}, by a list with {left} left\n"));
        if list.names_this_node {
            text.push_str("            take it in again: `portway join` with a new join token\n");
        }
    }
    text
}
