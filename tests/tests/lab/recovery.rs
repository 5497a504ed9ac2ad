//! A download in a browser goes on when its path dies: nothing is lost, and how long nothing comes.
//!
//! A missed bar is a red row; a download that is not what the service sent is a failure.

use std::time::Duration;

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::lab::Lab;
use serde_json::{Value, json};

use crate::disturbance::{BEGUN, COMPLETION, Event, Networks, end, random_file, undo};
use crate::results::Results;
use crate::scenario;

pub(crate) const SCENARIOS: &[crate::Scenario] = &[
    scenario!(a_download_survives_its_path_in_chromium),
    scenario!(a_download_survives_its_path_in_firefox),
    scenario!(a_download_loses_its_relay_in_chromium),
    scenario!(a_download_loses_its_relay_in_firefox),
];

/// For a page to open on a network that has just changed.
const OPENING: Duration = Duration::from_secs(90);

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
    recoveries(results, Kind::Chromium, Networks::Meeting).await
}

async fn a_download_survives_its_path_in_firefox(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Kind::Firefox, Networks::Meeting).await
}

async fn a_download_loses_its_relay_in_chromium(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Kind::Chromium, Networks::Relayed).await
}

async fn a_download_loses_its_relay_in_firefox(results: &Results) -> anyhow::Result<()> {
    recoveries(results, Kind::Firefox, Networks::Relayed).await
}

async fn recoveries(results: &Results, kind: Kind, networks: Networks) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let sha = random_file(&folder.path().join("data")).await?;
    let lab = networks.lab(folder.path()).await?;
    let mut browser = Browser::launch_on(kind, &lab, "client").await?;
    let client = format!("{kind:?}").to_lowercase();
    let mut whole = 0;
    for event in networks.events() {
        let outcome = match recover(&mut browser, &lab, event).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The page did not open, or the browser is lost: a red row, and another browser.
                browser = Browser::launch_on(kind, &lab, "client").await?;
                json!({"error": format!("{error:#}").lines().next()})
            }
        };
        whole += usize::from(results.download(event, &client, &sha, &outcome)?);
        undo(&lab).await?;
    }
    end(lab).await?;
    networks.check(whole)
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
    event.happen(lab).await?;
    // What does not end is told, too.
    let ended = "window.download.sha || window.download.error";
    drop(browser.wait_for(ended, COMPLETION).await);
    let mut outcome = browser.eval("window.download").await?;
    outcome["path"] = json!(path.as_str().unwrap_or_default().to_lowercase());
    Ok(outcome)
}
