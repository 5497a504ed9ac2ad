//! A lab from its start to its end, whatever happens to it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use portway_tests::lab::{self, Lab};
use serde_json::Value;
use tokio::process::Command;

use crate::results::Results;
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(five_nodes_behind_three_routers_are_well),
    scenario!(a_killed_tool_leaves_nothing_behind),
    scenario!(parallel_labs_do_not_meet),
    scenario!(stale_code_is_an_error),
    scenario!(a_run_ends_with_its_command),
    scenario!(nodes_are_killed_frozen_and_set_to_another_time),
    scenario!(no_privileges_are_needed),
    scenario!(loopback_says_what_it_cannot_do),
];

async fn five_nodes_behind_three_routers_are_well(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::start(&["--nodes", "5", "--net", "three-nats", "--signaling", "2"]).await?;
    let health = lab.ask(&["health"]).await?;
    ensure!(health["healthy"] == true, "{health}");
    ensure!(
        health["pairs"].as_array().map(Vec::len) == Some(20),
        "{health}"
    );
    eprintln!("    health of 5 nodes: {} ms", health["took_ms"]);
    let topology = lab.ask(&["topology"]).await?;
    ensure!(
        topology["status"]["routers"].as_array().map(Vec::len) == Some(3),
        "{topology}"
    );
    Ok(())
}

/// The processes of a lab die at any of many moments, each of them once in a while: `clean` leaves
/// nothing, and the next lab starts.
async fn a_killed_tool_leaves_nothing_behind(_: &Results) -> anyhow::Result<()> {
    const MOMENTS: u64 = 50;
    /// A start takes about half of this on a good day.
    const SPAN_MS: u64 = 1200;
    let place = Place::new()?;
    let before = place.machine()?;
    let seed = u64::from(std::process::id());
    eprintln!("    seed {seed}");
    let mut random = Random(seed | 1);
    for moment in 0..MOMENTS {
        let mut starting = place
            .command(&["start", "--nodes", "2", "--net", "three-nats"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let delay = Duration::from_millis(random.below(SPAN_MS));
        // The moment itself is what is tried: nothing is waited for.
        tokio::time::sleep(delay).await;
        let marked = place.marked();
        let others = u64::try_from(marked.len())?;
        let victim = match random.below(others + 1) {
            0 => starting.id().unwrap_or_default(),
            n => marked[usize::try_from(n - 1)?],
        };
        // It may have ended by itself meanwhile: then there is nobody to kill.
        let mut kill = Command::new("kill");
        kill.args(["-9", &victim.to_string()]).stderr(Stdio::null());
        kill.status().await?;
        let ended = tokio::time::timeout(portway_tests::PATIENCE, starting.wait()).await;
        ensure!(
            ended.is_ok(),
            "moment {moment}: the tool hangs after {delay:?}"
        );
        place.run(&["clean"]).await?;
        ensure!(
            place.marked().is_empty(),
            "moment {moment}: processes are left: {:?}",
            place.marked()
        );
        ensure!(!place.dir().exists(), "moment {moment}: files are left");
        let after = place.machine()?;
        ensure!(
            after == before,
            "moment {moment}: {before:?} became {after:?}"
        );
    }
    place
        .run(&["start", "--nodes", "2", "--net", "three-nats"])
        .await?;
    let health: Value = serde_json::from_str(&place.run(&["health", "--json"]).await?)?;
    ensure!(health["healthy"] == true, "{health}");
    place.run(&["clean"]).await?;
    Ok(())
}

async fn parallel_labs_do_not_meet(_: &Results) -> anyhow::Result<()> {
    let spec = |word: &str| {
        format!(
            "[host.server]\nwith = [\"python3 -c 'import socket; l=socket.create_server((\\\"\\\",5000))\\nwhile True: c,_=l.accept(); c.sendall(b\\\"{word}\\\"); c.close()'\"]\n[host.a]\n"
        )
    };
    let (one, two) = (
        Lab::describe(&spec("one")).await?,
        Lab::describe(&spec("two")).await?,
    );
    for (lab, word) in [(&one, "one"), (&two, "two")] {
        let script = "import socket,time
while True:
  try: print(socket.create_connection(('server',5000),5).recv(9).decode()); break
  except ConnectionRefusedError: time.sleep(0.05)";
        let output = lab.on("a", "python3").args(["-c", script]).output().await?;
        let heard = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(
            heard == word,
            "{heard:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let again = Command::new(lab::binary())
        .args(["start"])
        .env("PORTWAY_LAB_ROOT", lab::root())
        .env("PORTWAY_LAB", one.dir().file_name().context("a name")?)
        .output()
        .await?;
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(
        !again.status.success() && told.contains("runs already"),
        "{told}"
    );
    Ok(())
}

/// A node that runs another build than the others is found, and so is a build of another commit.
async fn stale_code_is_an_error(_: &Results) -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let other = files.path().join("portway");
    let mut bytes = std::fs::read(portway_tests::portway::binary())?;
    bytes.push(0);
    std::fs::write(&other, bytes)?;
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755))?;
    let lab = Lab::start(&["--nodes", "2", "--net", "public", "--relay", "0"]).await?;
    lab.ask(&["restart", "n1", "--portway", &other.display().to_string()])
        .await?;
    let told = lab.refusal(&["health"]).await?;
    ensure!(told.contains("stale code"), "{told}");
    lab.ask(&["restart"]).await?;
    let health = lab.ask(&["health"]).await?;
    ensure!(health["healthy"] == true, "{health}");

    std::fs::write(&other, "#!/bin/sh\necho '{\"commit\":\"000000000000\"}'\n")?;
    let told = Lab::start(&["--portway", &other.display().to_string()]).await;
    let told = told.err().context("it starts")?.to_string();
    ensure!(told.contains("built from commit 000000000000"), "{told}");
    Ok(())
}

async fn a_run_ends_with_its_command(_: &Results) -> anyhow::Result<()> {
    let place = Place::new()?;
    let run = |args: &[&str]| {
        let small = ["run", "--nodes", "1", "--net", "public", "--relay", "0"];
        let args: Vec<String> = small
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect();
        let (place, own) = (&place, lab::binary());
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = place.command(&args).env("LAB", own).output().await?;
            ensure!(place.marked().is_empty(), "{args:?} leaves processes");
            anyhow::Ok(output)
        }
    };
    // The command drives the lab that it runs beside.
    let good = run(&["--", "sh", "-c", "$LAB exec n1 -- true && $LAB health >&2"]).await?;
    ensure!(
        good.status.code() == Some(0),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    ensure!(!place.dir().exists(), "a good run leaves no files");
    let artifacts = place.root().join("artifacts");
    let folder = artifacts.display().to_string();
    let bad = run(&["--artifacts", &folder, "--", "sh", "-c", "exit 7"]).await?;
    ensure!(bad.status.code() == Some(7), "{}", bad.status);
    for file in [
        "lab.json",
        "keeper.log",
        "snapshot.json",
        "n1/log",
        "n1/portway.toml",
    ] {
        ensure!(artifacts.join(file).exists(), "{file} is kept");
    }
    let kept = Command::new("grep")
        .args(["-rl", "PRIVATE KEY", &folder])
        .output()
        .await?;
    ensure!(
        kept.stdout.is_empty() && !artifacts.join("n1/machine.token").exists(),
        "no secrets"
    );
    let late = run(&["--timeout", "1", "--", "sleep", "1000"]).await?;
    ensure!(late.status.code() == Some(124), "{}", late.status);
    let broken = run(&["--portway", "/bin/false", "--", "true"]).await?;
    ensure!(broken.status.code() == Some(1), "{}", broken.status);
    place.run(&["clean"]).await?;
    Ok(())
}

async fn nodes_are_killed_frozen_and_set_to_another_time(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::start(&["--nodes", "2", "--net", "public", "--relay", "0"]).await?;
    let ill = async |what: &str| -> anyhow::Result<()> {
        let told = lab.refusal(&["health"]).await?;
        ensure!(told.contains(what), "{what}: {told}");
        Ok(())
    };
    lab.ask(&["freeze", "n1"]).await?;
    ill("it is frozen").await?;
    lab.ask(&["thaw", "n1"]).await?;
    lab.ask(&["kill", "n1", "-9"]).await?;
    ill("it ended with signal: 9").await?;
    lab.ask(&["restart", "n1"]).await?;
    ensure!(lab.ask(&["health"]).await?["healthy"] == true, "it is back");
    let first = lab.ask(&["clock", "n2", "-5"]).await?;
    ensure!(
        first["result"] == true,
        "its first change restarts it: {first}"
    );
    ill("-5.0 s").await?;
    let later = lab.ask(&["clock", "n2", "0"]).await?;
    ensure!(later["result"] == false, "a later one does not: {later}");
    // What shows it another time looks at the file once in a second.
    let right = async { while lab.ask(&["health"]).await.is_err() {} };
    tokio::time::timeout(portway_tests::PATIENCE, right).await?;
    let client = lab.refusal(&["kill", "client"]).await?;
    ensure!(client.contains("runs no part of Portway"), "{client}");
    Ok(())
}

/// In a user namespace: as somebody else, if these tests run as root.
async fn no_privileges_are_needed(_: &Results) -> anyhow::Result<()> {
    let place = Place::of_nobody()?;
    let found = place.run(&["preflight", "--json"]).await?;
    let found: Value = serde_json::from_str(&found)?;
    if found["mode"] != "user" {
        eprintln!("    this system allows no user namespaces: {found}");
        return Ok(());
    }
    place
        .run(&["start", "--nodes", "3", "--net", "three-nats"])
        .await?;
    let health: Value = serde_json::from_str(&place.run(&["health", "--json"]).await?)?;
    ensure!(health["healthy"] == true, "{health}");
    place.run(&["rebind", "cone", "--ip"]).await?;
    place.run(&["roam", "client", "port"]).await?;
    let told = place.run(&["exec", "client", "--", "id", "-u"]).await?;
    ensure!(told.trim() == "0", "root within: {told}");
    place.run(&["stop"]).await?;
    ensure!(place.marked().is_empty(), "{:?}", place.marked());
    place.run(&["clean"]).await?;
    Ok(())
}

async fn loopback_says_what_it_cannot_do(_: &Results) -> anyhow::Result<()> {
    let lab = Lab::start(&["--loopback", "--nodes", "2", "--signaling", "2"]).await?;
    let health = lab.ask(&["health"]).await?;
    ensure!(health["healthy"] == true, "{health}");
    let told = lab.refusal(&["isolate", "n1"]).await?;
    ensure!(
        told.contains("plain loopback") && told.contains("root"),
        "{told}"
    );
    lab.ask(&["kill", "n1"]).await?;
    lab.ask(&["restart", "n1"]).await?;
    ensure!(lab.ask(&["health"]).await?["healthy"] == true, "it is back");
    Ok(())
}

/// Where labs are started by hand: a root of their own.
struct Place {
    folder: tempfile::TempDir,
    binary: PathBuf,
    /// Whose labs these are, if not ours.
    user: Option<&'static str>,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        // A short path: sockets have none else.
        let folder = tempfile::Builder::new().prefix("lab").tempdir_in("/tmp")?;
        Ok(Self {
            folder,
            binary: lab::binary(),
            user: None,
        })
    }

    /// The same for a user who may do nothing, if we are root.
    fn of_nobody() -> anyhow::Result<Self> {
        const NOBODY: u32 = 65_534;
        let mut place = Self::new()?;
        if !is_root() {
            return Ok(place);
        }
        for name in ["portway", "portway-lab"] {
            std::fs::copy(
                lab::binary().with_file_name(name),
                place.folder.path().join(name),
            )?;
        }
        place.binary = place.folder.path().join("portway-lab");
        std::os::unix::fs::chown(place.folder.path(), Some(NOBODY), Some(NOBODY))?;
        place.user = Some("65534");
        Ok(place)
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("default")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            None => Command::new(&self.binary),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
                // Another owner's PORTWAY_BIN could not be read.
                command
                    .arg(&self.binary)
                    .env_remove("PORTWAY_BIN")
                    .current_dir("/tmp");
                command
            }
        };
        command
            .args(args)
            .env("PORTWAY_LAB_ROOT", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command(args).output().await?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{args:?}: {}: {}{told}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(told)
    }

    /// Processes that belong to the lab.
    fn marked(&self) -> Vec<u32> {
        let mark = format!("PORTWAY_LAB_DIR={}", self.dir().display());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
        })
        .collect()
    }

    /// What a lab could leave on the machine: mounts, devices, names of namespaces.
    fn machine(&self) -> anyhow::Result<(usize, usize, usize)> {
        let count = |folder: &str| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?
            .lines()
            .count();
        Ok((mounts, count("/sys/class/net"), count("/run/netns")))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut command = self.command(&["clean"]);
        // Nothing is to be done about it here.
        drop(command.as_std_mut().stderr(Stdio::null()).status());
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Evenly spread numbers: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit
    }
}
