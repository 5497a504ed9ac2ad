//! `portway nodes`: who is there; and, where the cluster key is, whom it has certified.

use portway_protocol::id::NodeId;
use serde::Serialize;

use super::client::{self, ask, duration};
use crate::args::{Global, Nodes, NodesCommand};
use crate::control::enrolment::Forgotten;
use crate::enrolment::ledger::Member;
use crate::exit::Failure;
use crate::links::unix_now;
use crate::output;

#[derive(Serialize)]
struct Enrolled {
    enrolled: Vec<Member>,
}

/// Runs the sub-command, or shows who is there.
pub(crate) fn run(global: &Global, args: &Nodes) -> anyhow::Result<()> {
    match &args.command {
        None => client::nodes(global),
        Some(NodesCommand::Enrolled) => enrolled(global),
        Some(NodesCommand::Forget { node }) => forget(global, node),
    }
}

fn enrolled(global: &Global) -> anyhow::Result<()> {
    let enrolled = Enrolled {
        enrolled: ask(global, "GET", "/enrolled", None::<&()>)?,
    };
    output::print(global.format(), &enrolled, |enrolled| {
        let now = unix_now();
        let row = |member: &Member| {
            let left = match member.expires.saturating_sub(now) {
                0 => "ended".to_owned(),
                left => format!("{} left", duration(left)),
            };
            let renewal = match member.grant {
                Some(_) => "by itself",
                None => "by hand",
            };
            vec![
                member.node.to_string(),
                left,
                renewal.to_owned(),
                member.key.to_string(),
            ]
        };
        let rows: Vec<_> = enrolled.enrolled.iter().map(row).collect();
        output::table(&["NODE", "CERTIFICATE", "RENEWED", "KEY"], &rows)
    })?;
    Ok(())
}

fn forget(global: &Global, node: &NodeId) -> anyhow::Result<()> {
    let path = format!("/enrolled/{node}");
    let forgotten: Forgotten = ask(global, "DELETE", &path, None::<&()>)?;
    if !forgotten.forgotten {
        return Err(Failure::configuration(format!("no node `{node}` was certified")).into());
    }
    output::print(global.format(), &forgotten, |_| {
        format!(
            "`{node}` is no node of the cluster any more, and its name is free: who is connected knows already, and \
             others when they come"
        )
    })?;
    Ok(())
}
