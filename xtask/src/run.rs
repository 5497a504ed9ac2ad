//! Running commands: said before, checked after.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::web::Profile;

/// Root of the checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root")
        .to_owned()
}

/// What cargo tells about xtask itself. Build scripts, ring's for one, would take it for news about
/// them and compile again.
const ABOUT_XTASK: [&str; 4] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
];

/// A command that starts in the root.
pub(crate) fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    for (name, _value) in std::env::vars_os() {
        let is_about_xtask = |name: &str| ABOUT_XTASK.iter().any(|about| name.starts_with(about));
        if name.to_str().is_some_and(is_about_xtask) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command and says how long it took.
pub(crate) fn step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{what}: {:?} failed ({status})", command.get_program());
    }
    eprintln!("    {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The built binary.
pub(crate) fn portway(profile: Profile) -> PathBuf {
    target_dir().join(match profile {
        Profile::Release => "release/portway",
        Profile::Dev => "debug/portway",
    })
}

/// Cargo's target directory.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Becomes `portway up ARGS…`, so that signals and the exit code are its own.
pub(crate) fn exec_up(args: &[String]) -> anyhow::Result<()> {
    become_(Command::new(portway(Profile::Release)).arg("up").args(args))
}

/// Becomes `portway-lab ARGS…`.
pub(crate) fn exec_lab(args: &[String]) -> anyhow::Result<()> {
    let lab = portway(Profile::Release).with_file_name("portway-lab");
    become_(Command::new(lab).args(args))
}

fn become_(command: &mut Command) -> anyhow::Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {:?}", command.get_program()))
}
