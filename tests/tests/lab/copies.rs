//! Files on their way, by `scp` through `connect --stdio` and by `portway cp`, go on when their path dies: in both
//! directions, at whatever moment it happens.
//!
//! How long nothing comes is seen by the directory that a file comes to. `PORTWAY_LAB_COPIES=N` tries each event
//! N times, with 200 MB.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use portway_tests::lab::Lab;
use portway_tests::sshd::Keys;
use tokio::process::{Child, Command};

use crate::disturbance::{COMPLETION, Event, Networks, end, file_of, serving, sha256, undo};
use crate::results::{Recovery, Results};
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(copies_survive_their_path),
    scenario!(copies_survive_their_relay),
];

/// Bytes of a file: some seconds on the way, more than is ever under way.
const SIZE: usize = 24_000_000;
const SIZE_OF_MANY: usize = 200_000_000;

/// What may pass before something happens, at most: part of [`SIZE`].
const EARLY: usize = 8_000_000;

/// How long nothing may come after an event is over.
const STALL: Duration = Duration::from_secs(3);

/// Where sshd listens on the node.
const SSH_PORT: u16 = 7022;

/// Time between looks at what has come.
const LOOK: Duration = Duration::from_millis(10);

/// What copies, and whereto.
#[derive(Debug, Clone, Copy)]
enum Copying {
    ScpThere,
    CpBack,
    CpThere,
    ScpBack,
}

const ALL: [Copying; 4] = [
    Copying::ScpThere,
    Copying::CpBack,
    Copying::CpThere,
    Copying::ScpBack,
];

async fn copies_survive_their_path(results: &Results) -> anyhow::Result<()> {
    copies(results, Networks::Meeting).await
}

async fn copies_survive_their_relay(results: &Results) -> anyhow::Result<()> {
    copies(results, Networks::Relayed).await
}

async fn copies(results: &Results, networks: Networks) -> anyhow::Result<()> {
    let many = std::env::var("PORTWAY_LAB_COPIES").ok();
    let rounds: usize = many.as_deref().map_or(Ok(1), str::parse)?;
    let stage = Stage::set(networks, if many.is_some() { SIZE_OF_MANY } else { SIZE }).await?;
    // Each event meets each way of copying in its turn.
    let mut turns = ALL.into_iter().cycle();
    for event in networks.copy_events(many.is_some()) {
        for _ in 0..rounds {
            let copying = turns.next().context("they never end")?;
            stage.disturb(results, event, copying).await?;
        }
    }
    end(stage.lab).await
}

/// A lab whose node offers ssh and a directory, and a file to be copied.
struct Stage {
    lab: Lab,
    keys: Keys,
    folder: tempfile::TempDir,
    original: PathBuf,
    sha: String,
}

impl Stage {
    async fn set(networks: Networks, size: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = Keys::make().await?;
        let original = folder.path().join("original");
        let sha = file_of(&original, size).await?;
        std::fs::create_dir(folder.path().join("there"))?;
        let services = format!(
            "ssh = \"tcp://127.0.0.1:{SSH_PORT}\", drop = \"files+rw:{}\"",
            folder.path().display()
        );
        let server = keys.server(&format!("127.0.0.1:{SSH_PORT}"));
        let lab = Lab::describe(&serving(networks, &services, &server)).await?;
        Ok(Self {
            lab,
            keys,
            folder,
            original,
            sha,
        })
    }

    /// One copy, disturbed at some moment.
    async fn disturb(
        &self,
        results: &Results,
        event: &Event,
        copying: Copying,
    ) -> anyhow::Result<()> {
        self.reachable().await?;
        let into = tempfile::tempdir_in(self.folder.path())?;
        let mut running = self.start(copying, into.path())?;
        let early = rand_below(EARLY)?;
        let begun = tokio::time::timeout(COMPLETION, comes(into.path(), early)).await;
        begun.with_context(|| format!("{copying:?} does not begin"))?;
        let stall = longest_stall(into.path(), &mut running);
        let (happened, stall) = tokio::join!(event.happen(&self.lab), stall);
        happened?;
        let stall = stall.with_context(|| format!("{copying:?} through a {}", event.name))?;
        let came = sha256(&into.path().join("copy")).await?;
        let is_whole = came == self.sha;
        results.recovery(&Recovery {
            scenario: event.name,
            client: "gateway",
            path: None,
            stall,
            bar: event.lasts() + STALL,
            is_whole,
            note: Some(format!(
                "{copying:?} of {} bytes, after {early}",
                self.size()?
            )),
        });
        ensure!(
            is_whole,
            "{copying:?} through a {}: another file came",
            event.name
        );
        undo(&self.lab).await
    }

    /// Waits until the node is back from what happened before.
    async fn reachable(&self) -> anyhow::Result<()> {
        let asking = async {
            loop {
                let mut ping = self.lab.portway("client", "ping", "drop");
                ping.args(["--count", "1"]);
                if ping.output().await?.status.success() {
                    return anyhow::Ok(());
                }
            }
        };
        let reached = tokio::time::timeout(COMPLETION, asking).await;
        reached.context("the node does not come back")?
    }

    fn start(&self, copying: Copying, into: &Path) -> anyhow::Result<Child> {
        let program = portway_tests::portway::binary().display().to_string();
        let relative = into.strip_prefix(self.folder.path())?.display().to_string();
        let (original, copy) = (self.original.display(), into.join("copy"));
        let (remote, local) = (
            format!("node:{original}"),
            format!("node:{}", copy.display()),
        );
        let scp = |from: &str, to: &str| {
            let proxy = format!(
                "ProxyCommand={program} connect --stdio --link-file {} --ca {}",
                self.lab.link_file("ssh").display(),
                self.lab.authority().display()
            );
            let mut scp = self.lab.on("client", "scp");
            self.keys.believe(&mut scp);
            scp.args(["-q", "-o", &proxy, from, to]);
            scp
        };
        let cp = |from: &str, to: &str| {
            let mut cp = self.lab.portway("client", "cp", "drop");
            cp.args(["--quiet", from, to]);
            cp
        };
        let mut command: Command = match copying {
            Copying::ScpThere => scp(&original.to_string(), &local),
            Copying::ScpBack => scp(&remote, &copy.display().to_string()),
            Copying::CpThere => cp(&original.to_string(), &format!(":{relative}/copy")),
            Copying::CpBack => cp(":original", &copy.display().to_string()),
        };
        Ok(command.stdin(std::process::Stdio::null()).spawn()?)
    }

    fn size(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(&self.original)?.len())
    }
}

/// Bytes in a directory, whatever their files are called by now.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths = entries.filter_map(|entry| entry.metadata().ok());
    lengths.map(|metadata| metadata.len()).sum()
}

/// Waits until so many bytes have come.
async fn comes(folder: &Path, bytes: usize) {
    while bytes_in(folder) < bytes as u64 + 1 {
        tokio::time::sleep(LOOK).await;
    }
}

/// The longest time without a byte, until the copy has ended well.
async fn longest_stall(folder: &Path, running: &mut Child) -> anyhow::Result<Duration> {
    let (mut bytes, mut last, mut longest) = (bytes_in(folder), Instant::now(), Duration::ZERO);
    let watched = async {
        loop {
            let now = bytes_in(folder);
            longest = longest.max(last.elapsed());
            if now != bytes {
                (bytes, last) = (now, Instant::now());
            }
            match running.try_wait()? {
                Some(status) if status.success() => return anyhow::Ok(longest),
                Some(status) => anyhow::bail!("{status} after {bytes} bytes"),
                None => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::time::timeout(COMPLETION * 4, watched)
        .await
        .context("it does not end")?
}

fn rand_below(limit: usize) -> anyhow::Result<usize> {
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes) as usize % limit)
}

const _: () = assert!(EARLY < SIZE);
