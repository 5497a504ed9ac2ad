//! What becomes of a cluster when its parts lose each other, as its operator sees it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use portway_tests::PATIENCE;
use portway_tests::lab::Lab;
use serde_json::Value;

use crate::results::{Recovery, Results};
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(a_split_cluster_forms_again),
    scenario!(a_node_that_died_is_back_at_once),
    scenario!(a_wrong_clock_is_told),
];

/// How long the halves do not hear each other.
const SPLIT: Duration = Duration::from_secs(15);

/// Recovery of the best of Chromium and iroh after a cut of [`SPLIT`] (reference figures).
const SPLIT_BAR: Duration = Duration::from_secs(3);

/// A new session after a node's process is back (reliability bar: 5 s).
const CRASH_BAR: Duration = Duration::from_secs(5);

/// Two nodes behind two routers; one of them loses signaling, relay and the other node.
async fn a_split_cluster_forms_again(results: &Results) -> anyhow::Result<()> {
    let lab = Lab::describe(
        "[host.sig1]\nrun = \"signaling\"\n[host.relay1]\nrun = \"relay\"\n\
         [lan.here]\nnat = \"full-cone\"\n[host.n1]\nlan = \"here\"\nrun = \"gateway\"\n\
         [lan.there]\nnat = \"port-restricted\"\n[host.n2]\nlan = \"there\"\nrun = \"gateway\"\n",
    )
    .await?;
    ensure!(lab.ask(&["health"]).await?["healthy"] == true);
    lab.ask(&["isolate", "there"]).await?;
    let told = lab.refusal(&["health"]).await?;
    ensure!(
        told.contains("\"from\":\"n1\",\"to\":\"n2\",\"error\""),
        "{told}"
    );
    // The split itself is what is tried: nothing is waited for. Health has taken its share of it.
    tokio::time::sleep(SPLIT).await;
    lab.ask(&["heal"]).await?;
    let healed = Instant::now();
    until_healthy(&lab).await?;
    report(
        results,
        "split and re-formation",
        healed.elapsed(),
        SPLIT_BAR,
    );
    Ok(())
}

async fn a_node_that_died_is_back_at_once(results: &Results) -> anyhow::Result<()> {
    let lab = Lab::start(&["--nodes", "2", "--net", "three-nats"]).await?;
    lab.ask(&["kill", "n2", "-9"]).await?;
    let told = lab.refusal(&["health"]).await?;
    ensure!(told.contains("signal: 9"), "{told}");
    let nodes = nodes(&lab).await?;
    ensure!(
        status_of(&nodes, "n2") == "offline",
        "its socket has closed: {nodes}"
    );
    let killed = Instant::now();
    lab.ask(&["restart", "n2"]).await?;
    until_healthy(&lab).await?;
    report(
        results,
        "node crash and return",
        killed.elapsed(),
        CRASH_BAR,
    );
    Ok(())
}

/// A clock that jumps ends no registration and stops no session; `health` tells of it.
async fn a_wrong_clock_is_told(results: &Results) -> anyhow::Result<()> {
    let lab = Lab::start(&["--nodes", "2", "--net", "public", "--relay", "0"]).await?;
    let pairs = |health: &Value| {
        let pairs = health["pairs"].as_array().cloned().unwrap_or_default();
        pairs.iter().all(|pair| pair["status"] == 200)
    };
    for offset in [-20.0, 20.0, 3600.0] {
        // Those after the first reach it while it runs, with its sessions and registration.
        lab.ask(&["clock", "n2", &format!("{offset:+}")]).await?;
        let ill = async {
            loop {
                let told = lab.refusal(&["health"]).await?;
                let line = told
                    .lines()
                    .find(|line| line.starts_with('{'))
                    .context("JSON")?;
                let health: Value = serde_json::from_str(line)?;
                let clock = clock_of(&health, "n2");
                // What shows it another time looks at the file once in a second.
                let seconds: Option<f64> = clock.strip_suffix(" s").and_then(|s| s.parse().ok());
                if seconds.is_some_and(|seconds| (seconds - offset).abs() < 2.0) {
                    return anyhow::Ok(health);
                }
            }
        };
        let health = tokio::time::timeout(PATIENCE, ill).await??;
        ensure!(pairs(&health), "{offset}: {health}");
    }
    lab.ask(&["clock", "n2", "0"]).await?;
    let right = Instant::now();
    until_healthy(&lab).await?;
    report(results, "clock set right", right.elapsed(), CRASH_BAR);
    Ok(())
}

async fn until_healthy(lab: &Lab) -> anyhow::Result<()> {
    let healthy = async { while lab.ask(&["health"]).await.is_err() {} };
    if tokio::time::timeout(PATIENCE, healthy).await.is_err() {
        let told = lab.refusal(&["health"]).await?;
        anyhow::bail!("it does not recover: {told}");
    }
    Ok(())
}

fn report(results: &Results, scenario: &str, stall: Duration, bar: Duration) {
    results.recovery(&Recovery {
        scenario,
        client: "gateway",
        path: Some("direct"),
        stall,
        bar,
        is_whole: true,
        note: None,
    });
}

/// What signaling knows.
async fn nodes(lab: &Lab) -> anyhow::Result<Value> {
    let state = lab.dir().join("nodes/sig1/state");
    let output = tokio::process::Command::new(portway_tests::portway::binary())
        .args(["nodes", "--json", "--state"])
        .arg(state)
        .output()
        .await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn status_of(nodes: &Value, name: &str) -> String {
    let nodes = nodes["nodes"].as_array().into_iter().flatten();
    let node = nodes.into_iter().find(|node| node["node"] == name);
    node.and_then(|node| node["status"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn clock_of(health: &Value, name: &str) -> String {
    let parts = health["parts"].as_array().into_iter().flatten();
    let checks = parts
        .filter(|part| part["host"] == name)
        .flat_map(|part| part["checks"].as_array().into_iter().flatten());
    let clock = checks.into_iter().find(|check| check["name"] == "clock");
    clock
        .and_then(|check| check["detail"].as_str())
        .unwrap_or_default()
        .to_owned()
}
