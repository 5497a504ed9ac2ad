//! Who reaches whom, and how: every kind of router with every other.
//!
//! The reference is Chromium with coturn (`direct` below); a pair that it connects directly is direct
//! here, and all pairs connect.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::lab::Lab;
use serde_json::{Value, json};

use crate::results::Results;
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(every_network_reaches_every_other_in_chromium),
    scenario!(every_network_reaches_every_other_in_firefox),
    scenario!(every_node_reaches_every_other),
];

/// Kinds of network: name, and the routers' part of the lab's description.
const NETWORKS: &[(&str, &str)] = &[
    ("open", "nat = \"open\""),
    ("cone", "nat = \"full-cone\""),
    ("addr", "nat = \"address-restricted\""),
    ("port", "nat = \"port-restricted\""),
    ("sym", "nat = \"symmetric\""),
    ("dbl", "nat = \"port-restricted\"\nvia = \"%carrier\""),
    ("noudp", "nat = \"udp-blocked\""),
    ("tcp443", "nat = \"tcp443\""),
];

/// Whether two of them need no relay.
fn is_direct(a: &str, b: &str) -> bool {
    const PREDICTABLE: [&str; 5] = ["open", "cone", "addr", "port", "dbl"];
    const LENIENT: [&str; 3] = ["open", "cone", "addr"];
    let both = |test: &dyn Fn(&str) -> bool| test(a) && test(b);
    let is_predictable = |name: &str| PREDICTABLE.contains(&name);
    both(&is_predictable)
        || a == "sym" && LENIENT.contains(&b)
        || b == "sym" && LENIENT.contains(&a)
}

/// A node behind a router of each kind, and a client behind another one of it.
fn description() -> String {
    let mut text =
        String::from("[host.sig1]\nrun = \"signaling\"\n[host.relay1]\nrun = \"relay\"\n");
    for side in ["n", "c"] {
        let carrier = format!("{side}-carrier");
        writeln!(text, "[lan.{carrier}]\nnat = \"port-restricted\"").expect("a String");
        for (name, router) in NETWORKS {
            let router = router.replace("%carrier", &carrier);
            writeln!(text, "[lan.{side}-lan-{name}]\n{router}").expect("a String");
            writeln!(text, "[host.{side}-{name}]\nlan = \"{side}-lan-{name}\"").expect("a String");
            if side == "n" {
                let target = "http://127.0.0.1:8000";
                writeln!(text, "run = \"gateway\"\nservices = {{ {name} = \"{target}\" }}\nwith = [\"python3 -m http.server 8000 --bind 127.0.0.1\"]").expect("a String");
            }
        }
    }
    text
}

async fn every_network_reaches_every_other_in_chromium(results: &Results) -> anyhow::Result<()> {
    browser_matrix(results, Kind::Chromium).await
}

async fn every_network_reaches_every_other_in_firefox(results: &Results) -> anyhow::Result<()> {
    browser_matrix(results, Kind::Firefox).await
}

/// Tells the page how long its peer connection took, from nothing to an open channel.
const STOPWATCH: &str = "(() => {
  const Plain = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Plain {
    constructor(...args) {
      super(...args);
      const start = performance.now();
      this.addEventListener('connectionstatechange', () => {
        if (this.connectionState !== 'connected') return;
        const tell = () => window.top.postMessage({ opened: performance.now() - start }, '*');
        if (this.sctp?.state === 'connected') tell();
        else this.sctp?.addEventListener('statechange', tell, { once: true });
      });
    }
  };
  if (window === window.top) {
    window.addEventListener('message', ({ data }) => { if (data?.opened) window.opened = data.opened; });
  }
})()";

/// How many of the 64 pairs may take the relay at first although they need not: whichever path works
/// first is kept, and on a busy machine that is not always the shorter one.
const MAX_LOST_RACES: usize = 6;

/// Firefox behind a symmetric router nominates its relay before it knows that a path to an
/// address-restricted one works, and this end's stack keeps the first path nominated.
const RELAYED_IN_FIREFOX: &[(&str, &str)] = &[("sym", "addr")];

async fn browser_matrix(results: &Results, kind: Kind) -> anyhow::Result<()> {
    let lab = Lab::describe(&description()).await?;
    let mut table = Table::default();
    let mut lost_races = 0;
    let tolerated = match kind {
        Kind::Chromium => &[][..],
        Kind::Firefox => RELAYED_IN_FIREFOX,
    };
    for (from, _) in NETWORKS {
        let mut browser = Browser::launch_on(kind, &lab, &format!("c-{from}")).await?;
        browser.run_first(STOPWATCH).await?;
        for (to, _) in NETWORKS {
            let mut outcome = open(&mut browser, &lab, to).await;
            while is_direct(from, to)
                && matches!(&outcome, Ok((path, _)) if path == "relayed")
                && lost_races < MAX_LOST_RACES
                && !tolerated.contains(&(*from, *to))
            {
                lost_races += 1;
                eprintln!("    {from:>6} → {to:<6} relayed at first");
                outcome = open(&mut browser, &lab, to).await;
            }
            table.put(from, to, &outcome);
            results.pair(row(&format!("{kind:?}").to_lowercase(), from, to, &outcome));
        }
    }
    table.check(&format!("{kind:?}"), tolerated)
}

/// Opens a service; returns the path, and how long it took in milliseconds.
async fn open(browser: &mut Browser, lab: &Lab, service: &str) -> anyhow::Result<(String, f64)> {
    browser.open(&lab.link(service)?).await?;
    let patience = Duration::from_secs(30);
    let opened = browser.wait_for("window.opened", patience).await?;
    let is_there = "document.querySelector('#portway-app')?.contentDocument?.body?.innerText.includes('Directory listing')";
    browser.wait_for(is_there, PATIENCE).await?;
    let path = browser
        .wait_for(
            "document.querySelector('#pw-short')?.textContent.match(/^(Direct|Relayed)/)?.[0]",
            patience,
        )
        .await?;
    let path = path.as_str().unwrap_or_default().to_lowercase();
    Ok((path, opened.as_f64().context("a time")?))
}

/// Nodes open each other's services without a browser.
async fn every_node_reaches_every_other(results: &Results) -> anyhow::Result<()> {
    let lab = Lab::describe(&description()).await?;
    let health = lab.ask(&["health"]).await;
    // Those that do not connect make it unhealthy; the rows say which.
    let health = match health {
        Ok(health) => health,
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().find(|line| line.starts_with('{'));
            serde_json::from_str(line.with_context(|| text.clone())?)?
        }
    };
    let mut table = Table::default();
    for pair in health["pairs"].as_array().into_iter().flatten() {
        let name = |side: &str| pair[side].as_str().and_then(|name| name.strip_prefix("n-"));
        let (from, to) = (
            name("from").context("a node")?,
            name("to").context("a node")?,
        );
        let outcome = match (pair["path"].as_str(), pair["open_ms"].as_f64()) {
            (Some(path), Some(ms)) => Ok((path.to_owned(), ms)),
            _ => Err(anyhow::anyhow!("{}", pair["error"])),
        };
        table.put(from, to, &outcome);
        results.pair(row("gateway", from, to, &outcome));
    }
    table.check("node to node", &[])
}

fn row(client: &str, from: &str, to: &str, outcome: &anyhow::Result<(String, f64)>) -> Value {
    let mut row = json!({"client": client, "from": from, "to": to, "connected": outcome.is_ok()});
    match outcome {
        Ok((path, ms)) => {
            row["path"] = json!(path);
            row["open_ms"] = json!((ms * 10.0).round() / 10.0);
        }
        Err(error) => row["error"] = json!(format!("{error:#}").lines().next()),
    }
    row
}

/// What came of each pair.
#[derive(Debug, Default)]
struct Table(BTreeMap<(String, String), Result<(String, f64), String>>);

impl Table {
    fn put(&mut self, from: &str, to: &str, outcome: &anyhow::Result<(String, f64)>) {
        let outcome = match outcome {
            Ok(outcome) => Ok(outcome.clone()),
            Err(error) => Err(format!("{error:#}")),
        };
        match &outcome {
            Ok((path, ms)) => eprintln!("    {from:>6} → {to:<6} {path:<8} {ms:6.0} ms"),
            Err(error) => eprintln!(
                "    {from:>6} → {to:<6} FAILED   {}",
                error.lines().next().unwrap_or_default()
            ),
        }
        self.0.insert((from.to_owned(), to.to_owned()), outcome);
    }

    /// All connect, and those directly that can; of some a relay is `tolerated`.
    fn check(&self, what: &str, tolerated: &[(&str, &str)]) -> anyhow::Result<()> {
        for (word, expected) in [("direct", true), ("relayed", false)] {
            let mut times: Vec<f64> = self
                .0
                .values()
                .filter_map(|outcome| outcome.as_ref().ok())
                .filter(|(path, _)| (path == "direct") == expected)
                .map(|(_, ms)| *ms)
                .collect();
            times.sort_by(f64::total_cmp);
            if let Some(median) = times.get(times.len() / 2) {
                eprintln!(
                    "{what}: {} {word}, median {median:.0} ms to open",
                    times.len()
                );
            }
        }
        let wrong: Vec<String> = self
            .0
            .iter()
            .filter_map(|((from, to), outcome)| match outcome {
                Ok((path, _)) if (path == "direct") == is_direct(from, to) => None,
                Ok((path, _))
                    if path == "relayed" && tolerated.contains(&(from.as_str(), to.as_str())) =>
                {
                    None
                }
                Ok((path, _)) => Some(format!("{from} → {to}: {path}")),
                Err(error) => Some(format!("{from} → {to}: {error}")),
            })
            .collect();
        ensure!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
        Ok(())
    }
}
