//! A download goes on when its path dies: nothing is lost, and how long nothing comes.
//!
//! The references are Chromium's own ICE restart on `disconnected` (a new mapping, another network:
//! 5.8 s; a cut of 5, 15, 35 s: 0.7, 3, 0.8 s after it heals). A missed bar is a red row; a download
//! that is not what the service sent is a failure.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::lab::Lab;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::results::{Recovery, Results};
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(a_download_survives_its_path_in_chromium),
    scenario!(a_download_survives_its_path_in_firefox),
];

/// Bytes of the download: 1.6 s at [`RATE`], more than is ever under way.
const SIZE: usize = 4_000_000;

/// Of the node's link.
const RATE: &str = "20mbit";

/// Bytes after which something happens.
const BEGUN: usize = SIZE * 3 / 10;

/// From an event to the last byte, or to the end of hope.
const COMPLETION: Duration = Duration::from_secs(60);

/// For a page to open on a network that has just changed.
const OPENING: Duration = Duration::from_secs(90);

/// What happens, and how long nothing may come then.
struct Event {
    name: &'static str,
    /// Whether it is tried every time, or only if everything is: with `PORTWAY_LAB_FULL` in the
    /// environment.
    when: When,
    bar: Duration,
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

const REBOUND: Duration = Duration::from_millis(5800);

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
        bar: REBOUND,
        steps: &[Step::Lab(&["roam", "client", "other"])],
    },
    Event {
        name: "roam of the node",
        when: When::Always,
        bar: REBOUND,
        steps: &[Step::Lab(&["roam", "n1", "other"])],
    },
    Event {
        name: "client cut off for 5 s",
        when: When::Always,
        bar: Duration::from_millis(5700),
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

fn description(folder: &Path) -> String {
    format!(
        "[host.sig1]\nrun = \"signaling\"\n[host.relay1]\nrun = \"relay\"\n\
         [lan.home]\nnat = \"port-restricted\"\n[lan.cafe]\nnat = \"full-cone\"\n\
         [lan.other]\nnat = \"port-restricted\"\n\
         [host.client]\nlan = \"cafe\"\n\
         [host.n1]\nlan = \"home\"\nrun = \"gateway\"\n\
         services = {{ files = \"http://127.0.0.1:8000\" }}\n\
         with = [\"python3 -m http.server 8000 --bind 127.0.0.1 --directory {}\"]\n",
        folder.display()
    )
}

/// Downloads, and notes the longest time without a byte.
const DOWNLOAD: &str = "(() => {
  const state = { bytes: 0, gap: 0, from: Infinity };
  window.download = state;
  const run = async () => {
    const app = document.querySelector('#portway-app').contentWindow;
    const response = await app.fetch('/data?' + Math.random());
    const reader = response.body.getReader();
    const chunks = [];
    let last = performance.now();
    for (;;) {
      const { done, value } = await reader.read();
      const now = performance.now();
      if (now >= state.from) state.gap = Math.max(state.gap, now - Math.max(last, state.from));
      last = now;
      if (done) break;
      state.bytes += value.length;
      chunks.push(value);
    }
    const digest = await crypto.subtle.digest('SHA-256', await new Blob(chunks).arrayBuffer());
    state.sha = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  };
  run().catch((error) => { state.error = String(error); });
  return true;
})()";

async fn a_download_survives_its_path_in_chromium(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Kind::Chromium).await
}

async fn a_download_survives_its_path_in_firefox(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Kind::Firefox).await
}

async fn recoveries(results: &Results, kind: Kind) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sha = random_file(&folder.path().join("data")).await?;
    let lab = Lab::describe(&description(folder.path())).await?;
    lab.ask(&["slow", "n1", "--rate", RATE]).await?;
    let mut browser = Browser::launch_on(kind, &lab, "client").await?;
    let client = format!("{kind:?}").to_lowercase();
    let mut whole = 0;
    let in_full = std::env::var_os("PORTWAY_LAB_FULL").is_some();
    for event in EVENTS {
        if event.when == When::InFull && !in_full {
            continue;
        }
        let outcome = match recover(&mut browser, &lab, event).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The page did not open, or the browser is lost: a red row, and another browser.
                browser = Browser::launch_on(kind, &lab, "client").await?;
                json!({"error": format!("{error:#}").lines().next()})
            }
        };
        let is_whole = outcome["sha"] == json!(sha);
        let bytes = outcome["bytes"].as_u64().unwrap_or_default();
        let gap = outcome["gap"].as_f64().unwrap_or_default().round();
        results.recovery(&Recovery {
            scenario: event.name,
            client: &client,
            path: outcome["path"].as_str(),
            stall: Duration::from_secs_f64(gap / 1000.0),
            bar: event.bar,
            is_whole,
            note: (!is_whole).then(|| format!("{} after {bytes} bytes", outcome["error"])),
        });
        whole += usize::from(is_whole);
        ensure!(
            is_whole || outcome["sha"].is_null(),
            "{}: reported complete, but it is not: {outcome}",
            event.name
        );
        lab.ask(&["heal"]).await?;
        lab.ask(&["roam", "client", "cafe"]).await?;
        lab.ask(&["roam", "n1", "home"]).await?;
    }
    ensure!(whole > 0, "no download survives anything");
    Ok(())
}

/// One download, disturbed.
async fn recover(browser: &mut Browser, lab: &Lab, event: &Event) -> anyhow::Result<Value> {
    browser.open(&lab.link("files")?).await?;
    let is_there = "document.querySelector('#portway-app')?.contentDocument?.body?.innerText.includes('Directory listing')";
    browser.wait_for(is_there, OPENING).await?;
    let path = "document.querySelector('#pw-short')?.textContent.match(/^(Direct|Relayed)/)?.[0]";
    let path = browser.wait_for(path, PATIENCE).await?;
    browser.eval(DOWNLOAD).await?;
    let begun = format!("window.download.bytes > {BEGUN} || window.download.error");
    browser.wait_for(&begun, PATIENCE).await?;
    browser
        .eval("(window.download.from = performance.now())")
        .await?;
    for step in event.steps {
        match step {
            Step::Lab(args) => {
                lab.ask(args).await?;
            }
            Step::Wait(time) => tokio::time::sleep(*time).await,
        }
    }
    // What does not end is told, too.
    let ended = "window.download.sha || window.download.error";
    drop(browser.wait_for(ended, COMPLETION).await);
    let mut outcome = browser.eval("window.download").await?;
    outcome["path"] = json!(path.as_str().unwrap_or_default().to_lowercase());
    Ok(outcome)
}

/// Makes a file of random bytes; returns its SHA-256.
async fn random_file(path: &Path) -> anyhow::Result<String> {
    let mut bytes = vec![0; SIZE];
    let mut random = tokio::fs::File::open("/dev/urandom").await?;
    tokio::io::AsyncReadExt::read_exact(&mut random, &mut bytes).await?;
    tokio::fs::write(path, bytes).await?;
    let output = Command::new("sha256sum").arg(path).output().await?;
    let text = String::from_utf8(output.stdout)?;
    let sha = text.split_whitespace().next().context("a checksum")?;
    Ok(sha.to_owned())
}
