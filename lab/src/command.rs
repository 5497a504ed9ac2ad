//! What people ask for.
//!
//! - `start`: start and run. `artifacts`: what is kept of failures. `events`: what is done to a lab. `show`: what is seen of it.
//! - `bench`: figures.

mod artifacts;
mod bench;
mod events;
mod show;
mod start;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::Format;
use crate::args::{Cli, Command};
use crate::preflight::{Grade, Preflight};
use crate::process::exit_code;
use crate::state::LabDir;
use crate::{enter, output, report};

/// Runs a command.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let format = if cli.global.json {
        Format::Json
    } else {
        Format::Human
    };
    let dir = LabDir::of(&cli.global.lab);
    match &cli.command {
        Command::Start(args) => start::start(&cli.global, args, format).map(success),
        Command::Run {
            start,
            timeout,
            artifacts,
            command,
        } => start::run(&cli.global, start, *timeout, artifacts.as_deref(), command),
        Command::Restart { node, portway } => {
            events::restart(&dir, node.as_ref(), portway.as_deref(), format).map(success)
        }
        Command::Stop => start::stop(&dir).map(success),
        Command::Clean { all } => start::clean(&cli.global.lab, *all).map(success),
        Command::Status => show::status(&dir, format).map(success),
        Command::Logs { node, follow } => show::logs(&dir, node.as_ref(), *follow).map(success),
        Command::Shell { host } => {
            let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
            enter::exec(&dir, host, &[shell]).map(exit)
        }
        Command::Exec { host, command } => enter::exec(&dir, host, command).map(exit),
        Command::Forward {
            host,
            target,
            listen,
        } => show::forward(&dir, host, target, *listen, format).map(success),
        Command::Capture { host, file } => show::capture(&dir, host, file).map(exit),
        Command::Health => show::health(&dir, format),
        Command::Topology => show::topology(&dir, format).map(success),
        Command::Bench { size } => bench::run(&dir, *size, format),
        Command::Report {
            results,
            output: page,
            svg,
        } => {
            report::write(results, page, svg.as_deref())?;
            output::progress(&format!("written: {}", page.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Preflight => preflight(format),
        Command::Nets { net } => show::nets(net.as_deref(), format).map(success),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(*shell, &mut command, "portway-lab", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Cut { .. }
        | Command::Heal { .. }
        | Command::Isolate { .. }
        | Command::Rebind { .. }
        | Command::Roam { .. }
        | Command::Kill { .. }
        | Command::Freeze { .. }
        | Command::Thaw { .. }
        | Command::Slow { .. }
        | Command::Clock { .. } => events::run(&dir, &cli.command, format).map(success),
    }
}

fn preflight(format: Format) -> anyhow::Result<ExitCode> {
    let found = Preflight::run();
    output::print(format, &found, |found| {
        let rows: Vec<_> = found
            .findings
            .iter()
            .map(|finding| {
                let grade = match finding.grade {
                    Grade::Good => output::mark(true),
                    Grade::Limited => "limited",
                    Grade::Bad => output::mark(false),
                };
                vec![
                    finding.what.to_owned(),
                    grade.to_owned(),
                    finding.detail.clone(),
                ]
            })
            .collect();
        output::table(&["WHAT", "", "DETAIL"], &rows)
    })?;
    let is_bad = found
        .findings
        .iter()
        .any(|finding| finding.grade == Grade::Bad);
    Ok(if is_bad {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Ends as a program did.
fn exit(status: std::process::ExitStatus) -> ExitCode {
    ExitCode::from(exit_code(status))
}
