//! The `portway` binary: every role in one executable.

#[cfg(all(feature = "weakened", not(debug_assertions)))]
compile_error!("`weakened` is for tests: nothing that people run may be built with it");

mod args;
mod assets;
mod cluster;
mod command;
mod config;
mod control;
mod demo;
mod enrolment;
mod exit;
mod keyring;
mod links;
mod logging;
mod node;
mod opened;
mod opener;
mod output;
mod passphrase;
mod pinned;
mod relay;
mod role;
mod sealed_key;
mod signals;
mod state;
mod typing;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, Format};

/// Version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that this was built from.
pub(crate) const COMMIT: &str = env!("PORTWAY_COMMIT");

fn main() -> ExitCode {
    #[cfg(feature = "weakened")]
    portway_protocol::check::switch_off(&std::env::var("PORTWAY_CHECKS_OFF").unwrap_or_default());
    let cli = Cli::parse();
    logging::start(&cli.global);
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            report(&cli, &error);
            exit::code(&error)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Up(args) => command::up::run(&cli.global, args),
        Command::Init(args) => command::init::run(&cli.global, args).map(done),
        Command::Join(args) => command::join::run(&cli.global, args).map(done),
        Command::Signaling(args) => command::signaling::run(&cli.global, args),
        Command::Relay(args) => command::relay::run(&cli.global, args),
        Command::Gateway(args) => command::gateway::run(&cli.global, args),
        Command::Expose(args) => command::expose::run(&cli.global, args),
        Command::Share(args) => command::share::run(&cli.global, args),
        Command::Pair(args) => command::pair::run(&cli.global, args),
        Command::Links(args) => command::links::run(&cli.global, args).map(done),
        Command::Status => command::status::run(&cli.global).map(done),
        Command::Nodes(args) => command::nodes::run(&cli.global, args).map(done),
        Command::Services => command::client::services(&cli.global).map(done),
        Command::Sessions => command::client::sessions(&cli.global).map(done),
        Command::Events(args) => command::events::run(&cli.global, args),
        Command::Ping(args) => command::ping::run(&cli.global, args),
        Command::Cp(args) => command::cp::run(&cli.global, args),
        Command::Connect(args) => command::connect::run(&cli.global, args),
        Command::Publish(args) => command::publish::run(&cli.global, args),
        Command::Subscribe(args) => command::subscribe::run(&cli.global, args),
        Command::Token(args) => command::token::run(&cli.global, args).map(done),
        Command::Key(args) => command::key::run(&cli.global, *args).map(done),
        Command::Doctor(args) => command::doctor::run(&cli.global, args).map(done),
        Command::Completions { shell } => command::version::completions(*shell).map(done),
        Command::Version => command::version::run(&cli.global).map(done),
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// What went wrong, once, on standard error; as an object too where programs read along.
fn report(cli: &Cli, error: &anyhow::Error) {
    let reason = exit::reason(error);
    match cli.global.format() {
        Format::Human => {
            eprintln!("portway: {error:#}");
            if let Some(reason) = reason {
                eprintln!("         {} [{}]", reason.hint(), reason.code());
            }
        }
        Format::Json => {
            let object = serde_json::json!({
                "v": output::JSON_VERSION,
                "error": { "message": format!("{error:#}"), "reason": reason },
            });
            eprintln!("{object}");
        }
    }
}
