//! Build, run and test Portway: `cargo xtask build|up|test|bench|lint`.
//!
//! Each command does its own set-up and says so before it changes the machine.

mod bench;
mod lint;
mod run;
mod test;
mod tools;
mod web;

use std::process::ExitCode;

use anyhow::bail;

use web::Profile;

const HELP: &str = "\
cargo xtask build            build the browser client, portway and portway-lab (target/release/)
cargo xtask up [ARGS…]       build, then run `portway up ARGS…`
cargo xtask lab [ARGS…]      build, then run `portway-lab ARGS…`
cargo xtask test             all tests: Rust, JavaScript, stories in real browsers; installs those
cargo xtask test units       Rust without browsers
cargo xtask test js          JavaScript
cargo xtask test stories [FILTER]
cargo xtask test lab [FILTER]
                             scenarios on simulated networks
cargo xtask bench browser [MEBIBYTES] [chromium | firefox]
                             what a browser gets, beside direct HTTP
cargo xtask bench relay [--quick] [PART]
                             our TURN relay beside coturn and a bare forwarder
cargo xtask bench tunnel [--quick] [memory | speed | slow | load]… [TOOL]…
                             `portway connect -L` beside plain TCP, ssh -L, rathole and dumbpipe;
                             builds the last two the first time (ten minutes)
cargo xtask lint             formatting, clippy, docs, types of the JavaScript, rules of the tree
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let outcome = match command.as_str() {
        "build" => web::build_all(Profile::Release),
        "up" => web::build_all(Profile::Release).and_then(|()| run::exec_up(&rest)),
        "lab" => web::build_all(Profile::Release).and_then(|()| run::exec_lab(&rest)),
        "test" => test::run(&rest),
        "bench" => bench::run(&rest),
        "lint" => lint::run(),
        "" | "help" | "-h" | "--help" => {
            eprint!("{HELP}");
            Ok(())
        }
        other => unknown(other),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn unknown(command: &str) -> anyhow::Result<()> {
    bail!("unknown command `{command}`\n{HELP}")
}
