//! Starting and ending labs.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::artifacts;
use crate::Format;
use crate::args::{Global, Start};
use crate::control::{Request, ask};
use crate::launch::Launched;
use crate::output::{self, progress};
use crate::preflight::Preflight;
use crate::process::{exit_code, wait_at_most};
use crate::spec::{Counts, Name, Role, Spec, builtin, descriptions};
use crate::state::{LabDir, Mode, Plan, VERSION};

/// Time for a lab to end in order.
const END: Duration = Duration::from_secs(30);

/// Between two looks whether something has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Time for a command that was told to end.
const GRACE: Duration = Duration::from_secs(5);

/// Exit code of a command that took too long, as of `timeout` (coreutils).
const TIMED_OUT: u8 = 124;

/// Printed when a lab runs.
#[derive(Serialize)]
struct Started<'a> {
    event: &'static str,
    lab: &'a Name,
    dir: &'a Path,
    mode: Mode,
    took_ms: u64,
}

/// `portway-lab start`.
pub(super) fn start(global: &Global, args: &Start, format: Format) -> anyhow::Result<()> {
    let (dir, mode, launched, took_ms) = launch(global, args)?;
    launched.keep()?;
    let started = Started {
        event: "ready",
        lab: &global.lab,
        dir: dir.path(),
        mode,
        took_ms,
    };
    output::print(format, &started, |started| {
        format!(
            "lab `{}` is ready after {:.1} s ({})\n\
             try: portway-lab status | health | topology | exec HOST -- CMD | stop",
            started.lab,
            f64::from(u32::try_from(started.took_ms).unwrap_or(u32::MAX)) / 1000.0,
            started.mode.describe(),
        )
    })
}

/// `portway-lab run`.
pub(super) fn run(
    global: &Global,
    args: &Start,
    timeout: Option<Duration>,
    artifacts: Option<&Path>,
    command: &[String],
) -> anyhow::Result<ExitCode> {
    let (dir, _, launched, _) = launch(global, args).inspect_err(|_| {
        artifacts::keep(&LabDir::of(&global.lab), artifacts);
    })?;
    let outcome = beside(global, &dir, timeout, command);
    if !matches!(outcome, Ok(0)) {
        artifacts::snapshot(&dir);
    }
    launched.end()?;
    dir.kill_all()?;
    if matches!(outcome, Ok(0)) {
        dir.remove()?;
    } else {
        artifacts::keep(&dir, artifacts);
    }
    outcome.map(ExitCode::from)
}

/// `portway-lab stop`.
pub(super) fn stop(dir: &LabDir) -> anyhow::Result<()> {
    end(dir)?;
    progress(&format!(
        "ended; logs are in {} until `portway-lab clean`",
        dir.path().display()
    ));
    Ok(())
}

/// `portway-lab clean`.
pub(super) fn clean(name: &Name, all: bool) -> anyhow::Result<()> {
    let labs = if all {
        LabDir::all()
    } else {
        vec![(name.clone(), LabDir::of(name))]
    };
    for (name, dir) in labs {
        if !dir.path().exists() && dir.marked().is_empty() {
            progress(&format!("there is nothing of lab `{name}`"));
            continue;
        }
        if dir.is_alive()
            && let Err(error) = end(&dir)
        {
            progress(&format!("lab `{name}` does not end in order: {error:#}"));
        }
        let killed = dir.remove()?;
        progress(&match killed {
            0 => format!("lab `{name}` is removed"),
            count => format!("lab `{name}` is removed; {count} processes had to be killed"),
        });
    }
    Ok(())
}

fn end(dir: &LabDir) -> anyhow::Result<()> {
    let () = ask(dir, &Request::Stop)?;
    let until = Instant::now() + END;
    while dir.is_alive() || !dir.marked().is_empty() {
        if Instant::now() > until {
            bail!("it has not ended after {END:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn launch(global: &Global, args: &Start) -> anyhow::Result<(LabDir, Mode, Launched, u64)> {
    let portway = find_portway(args.portway.as_deref())?;
    let mut spec = load(args)?;
    let found = Preflight::run();
    let mode = if args.loopback {
        Mode::Loopback
    } else {
        found.mode
    };
    if mode == Mode::Loopback {
        progress(Mode::Loopback.describe());
        flatten(&mut spec);
    }
    let obstacles = found.obstacles(&spec, mode);
    if !obstacles.is_empty() {
        bail!("no lab can be started here:\n  {}", obstacles.join("\n  "));
    }
    let dir = LabDir::of(&global.lab);
    if dir.is_alive() {
        bail!(
            "lab `{}` runs already: `portway-lab stop` ends it, `--lab NAME` starts another one",
            global.lab
        );
    }
    if dir.path().exists() {
        let killed = dir.remove()?;
        if killed > 0 {
            progress(&format!(
                "{killed} processes of an earlier run were still there; killed"
            ));
        }
    }
    let longest = spec.hosts.keys().map(|name| name.as_str().len()).max();
    dir.create(longest.unwrap_or(0))?;
    dir.write_plan(&Plan {
        v: VERSION,
        name: global.lab.clone(),
        net: args.net.clone(),
        spec,
        mode,
        portway,
        attempts: args.attempts,
    })?;
    let tell = |text: &str| {
        if global.verbose {
            progress(text);
        }
    };
    let (launched, took_ms) = Launched::start(&dir, mode, tell)
        .with_context(|| format!("lab `{}` (files: {})", global.lab, dir.path().display()))?;
    Ok((dir, mode, launched, took_ms))
}

/// On plain loopback there are no LANs and no relays.
fn flatten(spec: &mut Spec) {
    let has_relays = spec.running(Role::Relay).next().is_some();
    if !spec.lans.is_empty() || has_relays {
        progress("LANs, relays and hosts that run nothing are left out");
    }
    spec.lans.clear();
    spec.hosts
        .retain(|_, host| matches!(host.run, Some(Role::Gateway | Role::Signaling)));
    for host in spec.hosts.values_mut() {
        host.lan = None;
        host.link = crate::spec::Impairment::default();
    }
}

fn load(args: &Start) -> anyhow::Result<Spec> {
    let counts = Counts {
        nodes: args.nodes.into(),
        signaling: args.signaling.into(),
        relays: args.relay.into(),
    };
    if let Some(spec) = builtin(&args.net, counts) {
        return Ok(spec);
    }
    let path = Path::new(&args.net);
    if !path.exists() && path.extension().is_none() {
        let names: Vec<&str> = descriptions().map(|(name, _)| name).collect();
        bail!(
            "`{}` is no network that comes with the lab ({}), and no file",
            args.net,
            names.join(", ")
        );
    }
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Spec::parse(&text).with_context(|| path.display().to_string())
}

/// The binary that was named, or the one beside this program, or the one in `PATH`.
pub(super) fn find_portway(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.with_file_name("portway")).filter(|path| path.is_file())
    };
    let in_path = || {
        let path = std::env::var_os("PATH")?;
        let files = std::env::split_paths(&path).map(|folder| folder.join("portway"));
        files.into_iter().find(|file| file.is_file())
    };
    let found = named.map(Path::to_owned).or_else(beside).or_else(in_path);
    let found =
        found.context("there is no `portway` beside portway-lab nor in PATH: --portway FILE")?;
    found
        .canonicalize()
        .with_context(|| format!("cannot find {}", found.display()))
}

/// Runs a command while the lab lives; returns its exit code.
fn beside(
    global: &Global,
    dir: &LabDir,
    timeout: Option<Duration>,
    command: &[String],
) -> anyhow::Result<u8> {
    let (program, args) = command.split_first().context("no command was given")?;
    // What ends this command reaches the other one, too, and the lab is ended in order after it.
    let ending = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    ending.thread_block()?;
    let mut child = Command::new(program)
        .args(args)
        .env("PORTWAY_LAB", global.lab.as_str())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run `{program}`"))?;
    let group = Pid::from_raw(-i32::try_from(child.id())?);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while let Ok(signal) = ending.wait() {
                // It may have ended by itself.
                kill(group, signal).unwrap_or_default();
            }
        })?;
    let Some(timeout) = timeout else {
        return Ok(exit_code(child.wait()?));
    };
    if let Some(status) = wait_at_most(&mut child, timeout)? {
        return Ok(exit_code(status));
    }
    progress(&format!(
        "the command has not ended after {timeout:?} in lab `{}`",
        dir.path().display()
    ));
    kill(group, Signal::SIGTERM)?;
    if wait_at_most(&mut child, GRACE)?.is_none() {
        kill(group, Signal::SIGKILL)?;
        child.wait()?;
    }
    Ok(TIMED_OUT)
}
