//! `portway-lab`: real networks and real clusters on one machine.
//!
//! - `spec`: what a lab consists of. `network`: namespaces, routers, links, partitions.
//! - `launch`, `keeper`: the process that is a lab. `control`: what commands ask it. `enter`: into it.
//! - `cluster`, `process`, `identity`: what runs in it. `state`: its files. `preflight`: what it needs.
//! - `command`: what people ask for. `report`: a page with figures; `statistics`.
//!
//! It drives the `portway` executable and links none of its crates.

mod args;
mod cluster;
mod command;
mod control;
mod enter;
mod identity;
mod keeper;
mod launch;
mod lines;
mod network;
mod output;
mod preflight;
mod process;
mod report;
mod spec;
mod state;
mod statistics;

use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;
use output::Format;
use state::LabDir;

fn main() -> ExitCode {
    let outcome = match hidden() {
        Some(outcome) => outcome,
        None => {
            let cli = Cli::parse();
            command::run(&cli)
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portway-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this program starts itself as. These come before anything else: namespaces of some kinds can
/// only be left by a process with one thread.
fn hidden() -> Option<anyhow::Result<ExitCode>> {
    let mut args = std::env::args_os().skip(1);
    let word = args.next()?;
    let argument = args.next();
    let dir = || LabDir::at(argument.clone().unwrap_or_default().into());
    Some(match word.to_str()? {
        launch::LAUNCH => launch::launch(&dir()),
        launch::INIT => launch::init(&dir()),
        launch::KEEPER => keeper::run(&dir()).map(|()| ExitCode::SUCCESS),
        preflight::PROBE => {
            let mode = argument.as_ref().and_then(|mode| mode.to_str());
            preflight::run_probe(mode.unwrap_or_default()).map(|()| ExitCode::SUCCESS)
        }
        enter::CHILD => enter::child(&argument.into_iter().chain(args).collect::<Vec<_>>()),
        _ => return None,
    })
}
