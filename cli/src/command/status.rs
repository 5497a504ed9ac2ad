//! `portway status`: what runs on a state directory.

use std::time::Duration;

use crate::args::Global;
use crate::command::client::{ask_at, duration};
use crate::control::status::Status;
use crate::control::{self, is_alive};
use crate::links::unix_now;
use crate::output;
use crate::state::State;

/// Beginning of a hash that tells builds apart.
const SHORT_HASH: usize = 12;

/// Asks what runs, of whatever role.
pub(crate) fn run(global: &Global) -> anyhow::Result<()> {
    let state = State::locate(global)?;
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
    let clock = Duration::from_millis(status.now_ms).as_secs();
    let hash = status.executable.get(..SHORT_HASH);
    let mut rows = vec![
        vec![
            "role".to_owned(),
            role.as_str().unwrap_or_default().to_owned(),
        ],
        vec![
            "version".to_owned(),
            format!("{} ({})", status.version, status.commit),
        ],
        vec![
            "executable".to_owned(),
            hash.unwrap_or(&status.executable).to_owned(),
        ],
        vec!["pid".to_owned(), status.pid.to_string()],
        vec![
            "running".to_owned(),
            duration(unix_now().saturating_sub(status.started)),
        ],
        vec!["clock".to_owned(), format!("{clock} s since 1970")],
    ];
    for connection in status.signaling.iter().flatten() {
        let word = if connection.connected {
            "connected"
        } else {
            "away"
        };
        rows.push(vec![
            "signaling".to_owned(),
            format!("{} {word}", connection.url),
        ]);
    }
    output::table(&["WHAT", ""], &rows)
}
