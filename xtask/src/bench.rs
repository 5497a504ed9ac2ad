//! `cargo xtask bench`: figures beside a reference, in one run.

use anyhow::bail;

use crate::run::{command, portway, step};
use crate::test::prepare_browsers;
use crate::tools;
use crate::web::{self, Profile};

const USAGE: &str = "\
usage: cargo xtask bench browser [MEBIBYTES] [chromium | firefox]
       cargo xtask bench relay [--quick] [PART]
       cargo xtask bench tunnel [--quick] [memory | speed | slow | load]… [TOOL]…";

/// Runs a bench.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    match args.split_first() {
        Some((name, rest)) if name == "browser" => browser(rest),
        Some((name, rest)) if name == "relay" => relay(rest),
        Some((name, rest)) if name == "tunnel" => tunnel(rest),
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

fn tunnel(args: &[String]) -> anyhow::Result<()> {
    let others = tools::tunnels()?;
    web::build_all(Profile::Release)?;
    let mut bench = command("cargo", &["bench", "--locked", "--bench", "tunnel", "--"]);
    bench
        .args(args)
        .env("PORTWAY_BIN", portway(Profile::Release))
        .env("PORTWAY_BENCH_TOOLS", others);
    step(
        "tunnels of ours beside plain TCP and those of others",
        &mut bench,
    )
}
