//! `portway relay status` and `portway relay revoke`: a running relay and its operator.

use std::path::PathBuf;
use std::time::Duration;

use portway_protocol::reason::Exit;

use crate::args::Global;
use crate::command::client::{ask_at, bytes, duration};
use crate::control::relay::{Revoke, Revoked, SessionView, Status};
use crate::control::{self, is_alive};
use crate::exit::Failure;
use crate::output;
use crate::state;
use portway_protocol::printable::printable;

/// `portway relay status`.
pub(crate) fn status(global: &Global) -> anyhow::Result<()> {
    let status: Status = ask_at(&socket(global)?, "GET", "/relay", None::<&()>)?;
    output::print(global.format(), &status, human)?;
    Ok(())
}

/// `portway relay revoke`.
pub(crate) fn revoke(global: &Global, target: &str, lifetime: Duration) -> anyhow::Result<()> {
    let request = Revoke {
        target: target.to_owned(),
        lifetime_s: lifetime.as_secs(),
    };
    let revoked = ask_at(&socket(global)?, "POST", "/relay/revoke", Some(&request))?;
    if let Revoked::Session {
        session,
        user: None,
    } = &revoked
    {
        let message = format!("there is no session {session}: it has ended, or never was");
        return Err(Failure::new(Exit::Failure, message).into());
    }
    output::print(global.format(), &revoked, |revoked| {
        what_happened(revoked, lifetime)
    })?;
    Ok(())
}

/// The socket of the relay that runs on the state directory: alone, or within `up`.
fn socket(global: &Global) -> anyhow::Result<PathBuf> {
    let state = state::locate(global)?;
    for name in [control::relay::SOCKET, control::SOCKET] {
        let path = state.path(name);
        if is_alive(&path)? {
            return Ok(path);
        }
    }
    let message = format!(
        "no relay runs on {}: give the --state DIR (or --config FILE) that it runs with, or start one \
         with `portway relay`",
        state.dir().display()
    );
    Err(Failure::new(Exit::Unavailable, message).into())
}

fn human(status: &Status) -> String {
    let mut text = format!("up {}, realm {}", duration(status.uptime_s), status.realm);
    for listener in &status.listeners {
        text.push_str(&format!(", {}://{}", listener.transport, listener.address));
    }
    if status.draining {
        text.push_str("\ndraining: it lets nobody new in, and ends");
    }
    let list = |ips: &[std::net::IpAddr]| {
        let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
        ips.join(", ")
    };
    text.push_str(&format!("\nrelays from {}", list(&status.relay_ip)));
    if !status.external_ip.is_empty() {
        text.push_str(&format!(", seen as {}", list(&status.external_ip)));
    }
    text.push_str(&format!(
        "\nto peers {} in {} packets, to clients {} in {} packets\n",
        bytes(status.bytes_to_peers),
        status.packets_to_peers,
        bytes(status.bytes_to_clients),
        status.packets_to_clients,
    ));
    if status.revocations > 0 {
        text.push_str(&format!(
            "users whose ephemeral credentials are refused: {}\n",
            status.revocations
        ));
    }
    if status.sessions.is_empty() {
        text.push_str("no sessions\n");
        return text;
    }
    let rows: Vec<_> = status.sessions.iter().map(row).collect();
    let head = [
        "SESSION",
        "USER",
        "CLIENT",
        "RELAYED",
        "PEERS",
        "CHANNELS",
        "AGE",
        "EXPIRES",
        "TO PEERS",
        "TO CLIENT",
    ];
    text.push_str(&format!("\n{}", output::table(&head, &rows)));
    let listed = status.sessions.len() as u64;
    if listed < status.allocations {
        text.push_str(&format!("… and {} more\n", status.allocations - listed));
    }
    text
}

fn row(session: &SessionView) -> Vec<String> {
    let relayed: Vec<String> = session.relayed.iter().map(ToString::to_string).collect();
    let passed = |sum: u64, packets: u64| format!("{} / {packets}", bytes(sum));
    vec![
        session.session.clone(),
        printable(&session.user),
        format!("{}://{}", session.transport, session.client),
        relayed.join(" "),
        session.permissions.to_string(),
        session.channels.to_string(),
        duration(session.age_s),
        format!("in {}", duration(session.expires_in_s)),
        passed(session.bytes_to_peers, session.packets_to_peers),
        passed(session.bytes_to_client, session.packets_to_client),
    ]
}

fn what_happened(revoked: &Revoked, lifetime: Duration) -> String {
    match revoked {
        Revoked::Session { session, user } => {
            let user = printable(user.as_deref().unwrap_or_default());
            let dashes = if user.starts_with('-') { "-- " } else { "" };
            format!(
                "session {session} has ended; its user may come back: `portway relay revoke {dashes}{user}` \
                 ends all its sessions and refuses its credentials"
            )
        }
        Revoked::User {
            user,
            ended,
            has_password,
            ..
        } => {
            let user = printable(user);
            let ended = match ended {
                0 => format!("{user} has no session"),
                1 => format!("1 session of {user} has ended"),
                many => format!("{many} sessions of {user} have ended"),
            };
            let then = if *has_password {
                format!(
                    "{user} has a password in the configuration and may come back: remove it there, and \
                     reload with SIGHUP"
                )
            } else {
                format!(
                    "its ephemeral credentials that end within {} from now are refused until this relay \
                     restarts",
                    duration(lifetime.as_secs())
                )
            };
            format!("{ended}; {then}")
        }
    }
}
