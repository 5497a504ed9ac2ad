//! What is done to a lab while it runs.

use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use super::start::find_portway;
use crate::Format;
use crate::args::Command;
use crate::control::{Nudge, Request, ask};
use crate::network::fault::Direction;
use crate::output;
use crate::spec::{Impairment, Name};
use crate::state::LabDir;

/// The word for the public segment.
const INTERNET: &str = "internet";

/// What was done, for programs.
#[derive(Serialize)]
struct Done<'a, T> {
    event: &'a str,
    result: T,
}

/// Does what the command says.
pub(super) fn run(dir: &LabDir, command: &Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Cut { from, to, one_way } => {
            let direction = if *one_way {
                Direction::OneWay
            } else {
                Direction::Both
            };
            let request = Request::Cut {
                from: from.clone(),
                to: Some(to.clone()),
                direction,
            };
            done(dir, &request, format, "cut", |()| match direction {
                Direction::Both => format!("{from} and {to} are silent for each other"),
                Direction::OneWay => format!("{to} hears nothing of {from}"),
            })
        }
        Command::Isolate { name } => {
            let request = Request::Cut {
                from: name.clone(),
                to: None,
                direction: Direction::Both,
            };
            done(dir, &request, format, "isolate", |()| {
                format!("{name} is silent for everybody")
            })
        }
        Command::Heal { one, other } => {
            let request = Request::Heal {
                one: one.clone(),
                other: other.clone(),
            };
            done(dir, &request, format, "heal", |count: &usize| {
                format!("{count} partitions are healed")
            })
        }
        Command::Rebind { router, ip } => {
            let request = Request::Rebind {
                router: router.clone(),
                address: *ip,
            };
            done(dir, &request, format, "rebind", |()| {
                format!("{router} has forgotten its flows")
            })
        }
        Command::Roam { host, lan } => {
            let request = Request::Roam {
                host: host.clone(),
                lan: Some(lan.clone()).filter(|lan| lan.as_str() != INTERNET),
            };
            done(dir, &request, format, "roam", |addresses: &Vec<IpAddr>| {
                let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                format!("{host} is in {lan} now, as {}", addresses.join(", "))
            })
        }
        Command::Kill { node, at_once } => {
            let nudge = if *at_once {
                Nudge::Kill
            } else {
                Nudge::Terminate
            };
            signal(dir, node, nudge, format, "has ended")
        }
        Command::Freeze { node } => signal(dir, node, Nudge::Freeze, format, "stands still"),
        Command::Thaw { node } => signal(dir, node, Nudge::Thaw, format, "goes on"),
        Command::Slow { name, link } => {
            let request = Request::Slow {
                name: name.clone(),
                change: link.change(),
            };
            done(dir, &request, format, "slow", |link: &Impairment| {
                format!("the link of {name}: {}", describe(link))
            })
        }
        Command::Clock { node, offset } => {
            let request = Request::Clock {
                host: node.clone(),
                offset: *offset,
            };
            done(dir, &request, format, "clock", |restarted: &bool| {
                let how = if *restarted {
                    " (it was restarted for that; later changes reach it while it runs)"
                } else {
                    ""
                };
                format!("the clock of {node} is {offset:+} s{how}")
            })
        }
        Command::Start(_)
        | Command::Restart { .. }
        | Command::Stop
        | Command::Status
        | Command::Clean { .. }
        | Command::Run { .. }
        | Command::Logs { .. }
        | Command::Shell { .. }
        | Command::Exec { .. }
        | Command::Forward { .. }
        | Command::Health
        | Command::Topology
        | Command::Bench { .. }
        | Command::Capture { .. }
        | Command::Report { .. }
        | Command::Preflight
        | Command::Nets { .. }
        | Command::Completions { .. } => unreachable!("no event: handled by the caller"),
    }
}

/// `portway-lab restart`.
pub(super) fn restart(
    dir: &LabDir,
    node: Option<&Name>,
    portway: Option<&Path>,
    format: Format,
) -> anyhow::Result<()> {
    let request = Request::Restart {
        node: node.cloned(),
        portway: find_portway(portway)?,
    };
    done(dir, &request, format, "restart", |names: &Vec<Name>| {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        format!("started anew: {}", names.join(", "))
    })
}

/// What a link does, in words.
pub(super) fn describe(link: &Impairment) -> String {
    let mut words = Vec::new();
    let span = |span: Option<crate::spec::Span>| span.filter(|span| !span.0.is_zero());
    if let Some(delay) = span(link.delay) {
        words.push(format!("{:?} delay", delay.0));
    }
    if let Some(jitter) = span(link.jitter) {
        words.push(format!("{:?} jitter", jitter.0));
    }
    let share = |share: Option<crate::spec::Share>| share.filter(|share| share.0 > 0.0);
    if let Some(loss) = share(link.loss) {
        words.push(format!("{} loss", String::from(loss)));
    }
    if let Some(reorder) = share(link.reorder) {
        words.push(format!("{} reordered", String::from(reorder)));
    }
    if let Some(rate) = link.rate {
        words.push(format!("{}/s", String::from(rate)));
    }
    if words.is_empty() {
        return "good".to_owned();
    }
    words.join(", ")
}

fn signal(
    dir: &LabDir,
    node: &Name,
    signal: Nudge,
    format: Format,
    what: &str,
) -> anyhow::Result<()> {
    let request = Request::Signal {
        host: node.clone(),
        signal,
    };
    done(dir, &request, format, "signal", |()| {
        format!("{node} {what}")
    })
}

fn done<T: serde::de::DeserializeOwned + Serialize>(
    dir: &LabDir,
    request: &Request,
    format: Format,
    event: &str,
    human: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let result: T = ask(dir, request)?;
    let done = Done { event, result };
    output::print(format, &done, |done| human(&done.result))
}
