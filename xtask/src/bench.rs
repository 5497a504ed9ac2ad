//! `cargo xtask bench`: figures beside a reference, in one run.

use anyhow::bail;

use crate::run::{command, portway, step};
use crate::test::prepare_browsers;
use crate::web::{self, Profile};

/// Runs a bench: `browser [MEBIBYTES] [chromium | firefox]`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let Some(("browser", rest)) = args.split_first().map(|(name, rest)| (name.as_str(), rest))
    else {
        bail!("usage: cargo xtask bench browser [MEBIBYTES] [chromium | firefox]");
    };
    let _interface = prepare_browsers()?;
    web::build_all(Profile::Release)?;
    let mut bench = command("cargo", &["bench", "--locked", "--bench", "browser", "--"]);
    bench
        .args(rest)
        .env("PORTWAY_BIN", portway(Profile::Release));
    step(
        "what a browser gets, through Portway and directly",
        &mut bench,
    )
}
