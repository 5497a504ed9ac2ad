//! `portway events`: what happened, what happens, and whether the audit log is as it was written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use portway_gateway::audit::event::{Ending, Route};
use portway_gateway::audit::verify::{Flaw, Summary, VerifyError, verify as check};
use portway_gateway::audit::{Entry as Record, Event as Audited, Hash};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Exit;
use portway_protocol::signal::news::{NodeEvent, SessionPath};
use portway_signaling::store::{ClientEvent, Entry, Event};
use serde::Serialize;

use crate::args::{Events as Args, EventsCommand, EventsVerify, Format, Global};
use crate::command::client::{ask, ask_at, bytes, duration, lower};
use crate::control;
use crate::control::events::Line;
use crate::control::status::Status;
use crate::exit::Failure;
use crate::links::unix_now;
use crate::output;
use crate::signals::Signals;
use crate::state::{self, State};
use portway_protocol::printable::printable;

#[derive(Serialize)]
struct Events {
    events: Vec<Line>,
}

/// A log that was checked.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
}

/// The first record that is wrong.
#[derive(Serialize)]
struct Fault {
    file: PathBuf,
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(flatten)]
    flaw: Flaw,
}

/// Tells what happened.
pub(crate) fn run(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(EventsCommand::Verify(args)) => verify(global, args),
        None if args.follow => follow(global, args),
        None => last(global, args.limit),
    }
}

fn last(global: &Global, limit: u32) -> anyhow::Result<ExitCode> {
    let events = Events {
        events: ask(global, "GET", &format!("/events/{limit}"), None::<&()>)?,
    };
    output::print(global.format(), &events, |events| {
        let now = unix_now();
        let row = |line: &Line| {
            let age = duration(now.saturating_sub(line.at_ms() / 1000));
            let [source, what, more] = words(line);
            vec![format!("{age} ago"), source, what, more]
        };
        let rows: Vec<_> = events.events.iter().map(row).collect();
        output::table(&["WHEN", "BY", "EVENT", "DETAILS"], &rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Until a signal, or until the instance ends.
fn follow(global: &Global, args: &Args) -> anyhow::Result<ExitCode> {
    let socket = state::locate(global)?.path(control::SOCKET);
    let format = global.format();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::hear()?;
        let interest = if args.heartbeats {
            "heartbeats"
        } else {
            "changes"
        };
        let path = format!("/events/{}/follow/{interest}", args.limit);
        let following = control::follow(&socket, "GET", &path, None, |line| {
            print_line(format, &line)
        });
        tokio::select! {
            ended = following => {
                ended?;
                Err(Failure::new(Exit::Unavailable, "the running portway has ended").into())
            }
            asked = signals.end() => Ok(asked.code()),
        }
    })
}

fn print_line(format: Format, line: &Line) -> anyhow::Result<()> {
    output::print(format, line, |line| {
        let [source, what, more] = words(line);
        format!("{}  {source:<9}  {what:<16}  {more}", clock(line.at_ms()))
    })?;
    Ok(())
}

/// Time of day, UTC.
pub(super) fn clock(at_ms: u64) -> String {
    let second = at_ms / 1000 % 86_400;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{hour:02}:{minute:02}:{:02}Z", second % 60)
}

/// Who says it, what happened, and the rest.
fn words(line: &Line) -> [String; 3] {
    let (source, (what, more)) = match line {
        Line::Signaling(entry) => ("signaling", introduced(entry)),
        Line::Gateway(record) => ("gateway", audited(record)),
        Line::Cluster(told) => ("cluster", of_node(&told.event)),
    };
    [source.to_owned(), what.to_owned(), printable(&more)]
}

fn introduced(entry: &Entry) -> (&'static str, String) {
    match &entry.event {
        Event::Node(event) => of_node(event),
        Event::Client(ClientEvent::SessionIntroduced {
            service,
            node,
            grant,
            ..
        }) => ("introduced", format!("{service} at {node}, grant {grant}")),
    }
}

fn of_node(event: &NodeEvent) -> (&'static str, String) {
    match event {
        NodeEvent::NodeJoined { node } => ("node joined", node.to_string()),
        NodeEvent::NodeLeft { node } => ("node left", node.to_string()),
        NodeEvent::NodeOnline { node, version } => ("node online", format!("{node}, {version}")),
        NodeEvent::NodeOffline { node } => ("node offline", node.to_string()),
        NodeEvent::NodeReplaced { node } => ("node replaced", node.to_string()),
        NodeEvent::NodeStatus { node, status } => {
            ("node status", format!("{node}: {}", lower(status)))
        }
        NodeEvent::NodeHeartbeat { node } => ("heartbeat", node.to_string()),
        NodeEvent::SessionPath { node, path } => {
            let SessionPath {
                session,
                service,
                route,
                rtt_ms,
            } = path;
            let rtt = rtt_ms
                .map(|rtt| format!(", {rtt:.1} ms"))
                .unwrap_or_default();
            let (local, remote) = (lower(&route.local_kind), lower(&route.remote_kind));
            let what = format!(
                "{service} at {node}: {} ({local} – {remote}, {}){rtt}, session {session}",
                route.path.as_str(),
                route.protocol.as_str(),
            );
            ("path", what)
        }
        NodeEvent::Missed { count } => ("missed", format!("{count} more than could be told")),
    }
}

fn audited(Record { record, .. }: &Record) -> (&'static str, String) {
    match &record.event {
        Audited::GatewayStarted { version, commit } => ("started", format!("{version} ({commit})")),
        Audited::GatewayEnded => ("ended", String::new()),
        Audited::ChainBegun(damage) => (
            "log damaged",
            format!("{}; kept in {}", damage.problem, damage.kept),
        ),
        Audited::SessionOpened {
            session,
            user,
            grant,
            device,
            service,
            route,
        } => {
            let device = device.id();
            let route = route.as_ref().map(route_words).unwrap_or_default();
            let what = format!(
                "{user} opened {service}{route}, grant {grant}, device {device}, session {session}"
            );
            ("session opened", what)
        }
        Audited::SessionRefused {
            service,
            grant,
            reason,
            route,
            unrecorded,
        } => {
            let service = service.as_ref().map_or("–", ServiceName::as_str);
            let grant = grant.map(|grant| format!(", grant {grant}"));
            let route = route.as_ref().map(route_words).unwrap_or_default();
            let what = format!("{service}{route}{}: {reason}", grant.unwrap_or_default());
            ("session refused", with_unrecorded(what, *unrecorded))
        }
        Audited::SessionMoved { session, route } => {
            let route = route.as_ref().map(route_words).unwrap_or_default();
            ("session moved", format!("session {session}{route}"))
        }
        Audited::SessionEnded {
            session,
            duration_ms,
            received,
            sent,
            requests,
            denied,
            why,
        } => (
            "session ended",
            format!(
                "session {session}: {} after {}, {requests} requests, {denied} denied, {} in, {} out",
                ending_words(*why),
                duration(duration_ms / 1000),
                bytes(*received),
                bytes(*sent)
            ),
        ),
        Audited::RequestDenied {
            session,
            method,
            path,
            reason,
            unrecorded,
        } => {
            let what = format!("{method} {path}: {reason}, session {session}");
            ("request denied", with_unrecorded(what, *unrecorded))
        }
        Audited::GrantAdded {
            grant,
            user,
            services,
            ..
        } => {
            let services = names(services);
            (
                "grant added",
                format!("{user} may open {services}, grant {grant}"),
            )
        }
        Audited::GrantRevoked { grant, services } => (
            "grant revoked",
            format!("grant {grant} for {}", names(services)),
        ),
        Audited::ServiceAdded { service, target } => {
            ("service added", format!("{service} at {target}"))
        }
        Audited::ServiceRemoved { service } => ("service removed", service.to_string()),
    }
}

fn route_words(route: &Route) -> String {
    let (way, transport) = (route.path.as_str(), route.protocol.as_str());
    format!(" from {} ({way}, {transport})", route.from)
}

const fn ending_words(why: Ending) -> &'static str {
    match why {
        Ending::ClientLeft => "the client left",
        Ending::PathLost => "the client was lost",
        Ending::GrantEnded => "the grant ended",
        Ending::GatewayEnded => "the gateway ended",
        Ending::Failed => "it failed",
    }
}

fn with_unrecorded(text: String, unrecorded: u64) -> String {
    if unrecorded == 0 {
        return text;
    }
    format!("{text} ({unrecorded} more before)")
}

fn names(services: &[ServiceName]) -> String {
    let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
    names.join(", ")
}

fn verify(global: &Global, args: &EventsVerify) -> anyhow::Result<ExitCode> {
    let state = state::locate(global)?;
    let own = match args.key {
        Some(key) => Some(key),
        None => state.node_public_key()?,
    };
    let Some(key) = own else {
        let dir = state.dir().display();
        let message = format!("there is no node key in {dir}: give --state DIR, or --key KEY");
        return Err(Failure::configuration(message).into());
    };
    let mut heads = args.head.clone();
    heads.extend(head_of_running(&state)?);
    let checked = check(state.dir(), &key, &heads);
    report(global.format(), state.dir(), checked)
}

/// Where the log ends that a gateway writes now.
fn head_of_running(state: &State) -> anyhow::Result<Option<Hash>> {
    let socket = state.path(control::SOCKET);
    if !control::is_alive(&socket)? {
        return Ok(None);
    }
    let status: Status = ask_at(&socket, "GET", "/status", None::<&()>)?;
    let head = status.audit.filter(|head| head.seq > 0);
    Ok(head.map(|head| head.hash))
}

fn report(
    format: Format,
    dir: &Path,
    checked: Result<Summary, VerifyError>,
) -> anyhow::Result<ExitCode> {
    let (checked, failure) = match checked {
        Ok(summary) => (good(summary), None),
        Err(error) => {
            let message = format!("the audit log in {}: {error}", dir.display());
            let failure = Failure::new(Exit::Failure, message);
            match error {
                VerifyError::Tampered {
                    file,
                    line,
                    seq,
                    flaw,
                } => {
                    let fault = Fault {
                        file,
                        line,
                        seq,
                        flaw,
                    };
                    (bad(fault), Some(failure))
                }
                VerifyError::Io(_) | VerifyError::Empty => return Err(failure.into()),
            }
        }
    };
    match (format, failure) {
        (Format::Human, Some(failure)) => return Err(failure.into()),
        (Format::Human | Format::Json, _) => output::print(format, &checked, human)?,
    }
    let is_good = checked.valid;
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

const fn good(summary: Summary) -> Checked {
    Checked {
        valid: true,
        summary: Some(summary),
        fault: None,
    }
}

const fn bad(fault: Fault) -> Checked {
    Checked {
        valid: false,
        summary: None,
        fault: Some(fault),
    }
}

fn human(checked: &Checked) -> String {
    let Some(summary) = &checked.summary else {
        return String::new();
    };
    let now = unix_now();
    let ago = |ms: u64| duration(now.saturating_sub(ms / 1000));
    let mut text = format!(
        "records  {} ({} to {})\nwritten  {} ago to {} ago\nhead     {}\n",
        summary.records,
        summary.first,
        summary.seq,
        ago(summary.from_ms),
        ago(summary.to_ms),
        summary.head
    );
    if summary.lost > 0 {
        text.push_str(&format!(
            "missing  {} could not be written at the time\n",
            summary.lost
        ));
    }
    text.push_str("nothing was changed, removed, inserted or moved\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_readable() {
        assert_eq!(clock(1_000_000_000_123), "01:46:40Z");
    }
}
