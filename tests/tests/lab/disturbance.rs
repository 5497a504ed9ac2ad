//! What happens to the path of a download, where, and what is downloaded: for clients of every kind.
//!
//! The bars are the better of two references each: Chromium's own ICE restart on `disconnected` (a new
//! mapping: 5.8 s; a cut of 15, 35 s: 3, 0.8 s after it heals) and iroh (another network: 2 s; a cut of
//! 5 s: 0.4 s after it heals).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use portway_tests::lab::Lab;
use tokio::process::Command;

/// Bytes of the download: 1.6 s at [`RATE`], more than is ever under way.
const SIZE: usize = 4_000_000;

/// Of the node's link.
const RATE: &str = "20mbit";

/// Bytes after which something happens.
pub(crate) const BEGUN: usize = SIZE * 3 / 10;

/// From an event to the last byte, or to the end of hope.
pub(crate) const COMPLETION: Duration = Duration::from_secs(100);

/// What happens, and how long nothing may come then.
pub(crate) struct Event {
    pub(crate) name: &'static str,
    /// Whether it is tried every time, or only if everything is: with `PORTWAY_LAB_FULL` in the
    /// environment.
    when: When,
    pub(crate) bar: Duration,
    steps: &'static [Step],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    InFull,
}

enum Step {
    /// A command of the lab.
    Lab(&'static [&'static str]),
    Wait(Duration),
}

const fn seconds(n: u64) -> Step {
    Step::Wait(Duration::from_secs(n))
}

/// Recovery of Chromium by ICE restart, whatever broke its path (reference figure).
const REBOUND: Duration = Duration::from_millis(5800);

/// Recovery of iroh in another network.
const ROAMED: Duration = Duration::from_secs(2);

const EVENTS: &[Event] = &[
    Event {
        name: "rebind of the node's router",
        when: When::Always,
        bar: REBOUND,
        steps: &[Step::Lab(&["rebind", "home"])],
    },
    Event {
        name: "rebind of the node's router with a new address",
        when: When::InFull,
        bar: REBOUND,
        steps: &[Step::Lab(&["rebind", "home", "--ip"])],
    },
    Event {
        name: "rebind of the client's router",
        when: When::InFull,
        bar: REBOUND,
        steps: &[Step::Lab(&["rebind", "cafe"])],
    },
    Event {
        name: "roam of the client",
        when: When::Always,
        bar: ROAMED,
        steps: &[Step::Lab(&["roam", "client", "other"])],
    },
    Event {
        name: "roam of the node",
        when: When::Always,
        bar: ROAMED,
        steps: &[Step::Lab(&["roam", "n1", "other"])],
    },
    Event {
        name: "client cut off for 5 s",
        when: When::Always,
        bar: Duration::from_millis(5400),
        steps: &[
            Step::Lab(&["isolate", "client"]),
            seconds(5),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "client cut off for 15 s",
        when: When::InFull,
        bar: Duration::from_millis(18_000),
        steps: &[
            Step::Lab(&["isolate", "client"]),
            seconds(15),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "client cut off for 35 s",
        when: When::InFull,
        bar: Duration::from_millis(35_800),
        steps: &[
            Step::Lab(&["isolate", "client"]),
            seconds(35),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "client cut off for 60 s",
        when: When::InFull,
        bar: Duration::from_millis(63_000),
        steps: &[
            Step::Lab(&["isolate", "client"]),
            seconds(60),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "node cut off for 60 s",
        when: When::InFull,
        bar: Duration::from_millis(63_000),
        steps: &[
            Step::Lab(&["isolate", "n1"]),
            seconds(60),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "cut of 15 s, but not from the relay",
        when: When::InFull,
        bar: REBOUND,
        steps: &[
            Step::Lab(&["cut", "client", "n1"]),
            seconds(15),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "one-way cut of 10 s, node to client",
        when: When::InFull,
        bar: Duration::from_millis(13_000),
        steps: &[
            Step::Lab(&["cut", "n1", "client", "--one-way"]),
            seconds(10),
            Step::Lab(&["heal"]),
        ],
    },
    Event {
        name: "signaling killed and restarted",
        when: When::InFull,
        bar: Duration::from_millis(1500),
        steps: &[
            Step::Lab(&["kill", "sig1", "-9"]),
            seconds(2),
            Step::Lab(&["restart", "sig1"]),
        ],
    },
    Event {
        name: "node frozen for 10 s",
        when: When::InFull,
        bar: Duration::from_millis(11_000),
        steps: &[
            Step::Lab(&["freeze", "n1"]),
            seconds(10),
            Step::Lab(&["thaw", "n1"]),
        ],
    },
];

/// Where a relay carries the path.
const RELAY_EVENTS: &[Event] = &[Event {
    name: "relay killed and restarted",
    when: When::Always,
    bar: REBOUND,
    steps: &[
        Step::Lab(&["kill", "relay1", "-9"]),
        Step::Lab(&["restart", "relay1"]),
    ],
}];

/// Where client and node are.
#[derive(Clone, Copy)]
pub(crate) enum Networks {
    /// Behind routers that let them meet.
    Meeting,
    /// Behind routers that need a relay.
    Relayed,
}

impl Networks {
    /// A lab with them, a node whose service `files` has this folder, and nobody on `client`.
    pub(crate) async fn lab(self, folder: &Path) -> anyhow::Result<Lab> {
        let lab = Lab::describe(&description(self, folder)).await?;
        lab.ask(&["slow", "n1", "--rate", RATE]).await?;
        Ok(lab)
    }

    /// What happens there, of that what is wanted in this run.
    pub(crate) fn events(self) -> impl Iterator<Item = &'static Event> {
        let events = match self {
            Self::Meeting => EVENTS,
            Self::Relayed => RELAY_EVENTS,
        };
        let wanted = |event: &&Event| event.when == When::Always || is_full();
        events.iter().filter(wanted)
    }

    /// Of that, what whole files are sent through: what takes no time, and with `many` of them three cuts.
    pub(crate) fn copy_events(self, many: bool) -> impl Iterator<Item = &'static Event> {
        let events = match self {
            Self::Meeting => EVENTS,
            Self::Relayed => RELAY_EVENTS,
        };
        let is_cut = |event: &Event| {
            [
                "client cut off for 15 s",
                "client cut off for 60 s",
                "node cut off for 60 s",
            ]
            .contains(&event.name)
        };
        let wanted = move |event: &&Event| {
            (event.when == When::Always && event.lasts().is_zero()) || (many && is_cut(event))
        };
        events.iter().filter(wanted)
    }

    /// How many downloads must come whole: of many events one at least, whatever their figures.
    pub(crate) fn check(self, whole: usize) -> anyhow::Result<()> {
        match self {
            Self::Meeting => ensure!(whole > 0, "no download survives anything"),
            Self::Relayed => {}
        }
        Ok(())
    }
}

/// Whether everything is tried.
pub(crate) fn is_full() -> bool {
    std::env::var_os("PORTWAY_LAB_FULL").is_some()
}

impl Event {
    /// How long it takes.
    pub(crate) fn lasts(&self) -> Duration {
        let waits = self.steps.iter().map(|step| match step {
            Step::Lab(_) => Duration::ZERO,
            Step::Wait(time) => *time,
        });
        waits.sum()
    }

    /// Lets it happen.
    pub(crate) async fn happen(&self, lab: &Lab) -> anyhow::Result<()> {
        for step in self.steps {
            match step {
                Step::Lab(args) => {
                    lab.ask(args).await?;
                }
                Step::Wait(time) => tokio::time::sleep(*time).await,
            }
        }
        Ok(())
    }
}

/// The lab is over: nobody waits until sessions have ended in order, which takes as long as it may.
pub(crate) async fn end(lab: Lab) -> anyhow::Result<()> {
    lab.ask(&["kill", "n1", "-9"]).await?;
    lab.ask(&["kill", "relay1", "-9"]).await?;
    Ok(())
}

/// Everybody is at home again.
pub(crate) async fn undo(lab: &Lab) -> anyhow::Result<()> {
    lab.ask(&["heal"]).await?;
    lab.ask(&["roam", "client", "cafe"]).await?;
    lab.ask(&["roam", "n1", "home"]).await?;
    Ok(())
}

pub(crate) fn description(networks: Networks, folder: &Path) -> String {
    let folder = folder.display();
    let server = format!("python3 -m http.server 8000 --bind 127.0.0.1 --directory {folder}");
    serving(networks, "files = \"http://127.0.0.1:8000\"", &server)
}

/// A lab whose node has these services, and runs this beside them.
pub(crate) fn serving(networks: Networks, services: &str, with: &str) -> String {
    let (home, cafe) = match networks {
        Networks::Meeting => ("port-restricted", "full-cone"),
        Networks::Relayed => ("symmetric", "symmetric"),
    };
    format!(
        "[host.sig1]\nrun = \"signaling\"\n[host.relay1]\nrun = \"relay\"\n\
         [lan.home]\nnat = \"{home}\"\n[lan.cafe]\nnat = \"{cafe}\"\n\
         [lan.other]\nnat = \"port-restricted\"\n\
         [host.client]\nlan = \"cafe\"\n\
         [host.n1]\nlan = \"home\"\nrun = \"gateway\"\n\
         services = {{ {services} }}\nwith = [\"{with}\"]\n"
    )
}

/// Makes a file of random bytes; returns its SHA-256.
pub(crate) async fn random_file(path: &Path) -> anyhow::Result<String> {
    file_of(path, SIZE).await
}

/// The same of another size.
pub(crate) async fn file_of(path: &Path, size: usize) -> anyhow::Result<String> {
    let mut bytes = vec![0; size];
    let mut random = tokio::fs::File::open("/dev/urandom").await?;
    tokio::io::AsyncReadExt::read_exact(&mut random, &mut bytes).await?;
    tokio::fs::write(path, bytes).await?;
    sha256(path).await
}

/// SHA-256 of a file, hexadecimal.
pub(crate) async fn sha256(path: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(path).output().await?;
    let text = String::from_utf8(output.stdout)?;
    let sha = text.split_whitespace().next().context("a checksum")?;
    Ok(sha.to_owned())
}
