//! `cargo xtask bench`: figures beside a reference, in one run.

use anyhow::bail;

use crate::run::{command, portway, step};
use crate::test::prepare_browsers;
use crate::tools;
use crate::web::{self, Profile};

const USAGE: &str = "\
usage: cargo xtask bench browser [MEBIBYTES] [chromium | firefox]
       cargo xtask bench relay [--quick] [PART]";

/// Runs a bench.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args.split_first() {
        Some((name, rest)) if name == "browser" => browser(rest),
        Some((name, rest)) if name == "relay" => relay(rest),
        _ => bail!(USAGE),
    }
}

fn browser(args: &[String]) -> anyhow::Result<()> {
    let _interface = prepare_browsers()?;
    web::build_all(Profile::Release)?;
    let mut bench = command("cargo", &["bench", "--locked", "--bench", "browser", "--"]);
    bench
        .args(args)
        .env("PORTWAY_BIN", portway(Profile::Release));
    step(
        "what a browser gets, through Portway and directly",
        &mut bench,
    )
}

fn relay(args: &[String]) -> anyhow::Result<()> {
    tools::coturn()?;
    let bench = ["bench", "--locked", "-p", "portway-relay"];
    let mut bench = command("cargo", &bench);
    bench.args(["--bench", "relay", "--"]).args(args);
    step("our relay beside coturn and a bare forwarder", &mut bench)
}
