//! What a person in a browser gets through Portway, in the same run beside (a) the same requests
//! sent directly and (b) a bare data channel from a minimal native sender on the same stack. Figures
//! go to standard output and `docs/bench/browser.json`; ratios are what to compare between machines.
//!
//! `cargo xtask bench browser [MEBIBYTES] [chromium | firefox]`

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints figures"
)]

mod record;

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portway_tests::PATIENCE;
use portway_tests::bare::Bare;
use portway_tests::browser::{Browser, Kind};
use portway_tests::figures::median;
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{Upstream, is_right, pattern};
use serde_json::{Value, json};

/// Size of transfers unless given, in MiB.
const DEFAULT_SIZE: usize = 256;

/// Uploads are smaller: the page has to have their bytes.
const MAX_UPLOAD: usize = 256 << 20;

/// How often all is measured, in turn: medians count.
const ROUNDS: usize = 3;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// Small requests one after another, for the latency.
const SMALL_REQUESTS: u32 = 200;

/// The longest that a transfer may take.
const TRANSFER: Duration = Duration::from_secs(900);

/// The app's window.
const APP: &str = "document.querySelector('#portway-app').contentWindow";

/// Median milliseconds of small requests.
const LATENCY: &str = "(async (n) => { const times = []; \
    for (let i = 0; i < n; i++) { const start = performance.now(); \
      await (await fetch('/bytes?n=100')).arrayBuffer(); times.push(performance.now() - start); } \
    return times.sort((a, b) => a - b)[n >> 1]; })";

/// Milliseconds of many small requests at once; NaN if one answer is wrong.
const PARALLEL: &str = "(async () => { const start = performance.now(); \
    const all = await Promise.all(Array.from({ length: 100 }, async (_, i) => \
      (await (await fetch(`/bytes?n=${i}`)).arrayBuffer()).byteLength === i)); \
    return all.every(Boolean) ? performance.now() - start : null; })()";

/// MB/s of a download that is read and dropped.
const DOWNLOAD: &str = "(async (size) => { const start = performance.now(); \
    const reader = (await fetch(`/bytes?n=${size}`)).body.getReader(); let got = 0; \
    for (;;) { const { done, value } = await reader.read(); if (done) break; got += value.length; } \
    if (got !== size) throw new Error(`${got} of ${size}`); \
    return size / 1000 / (performance.now() - start); })";

/// MB/s of an upload.
const UPLOAD: &str = "(async (size) => { \
    const block = Uint8Array.from({ length: 251 * 8 * 512 }, (_, i) => Math.floor(i * 31 / 8) % 251); \
    const parts = []; for (let left = size; left > 0; left -= block.length) parts.push(left < block.length ? block.subarray(0, left) : block); \
    const body = new Blob(parts); await body.slice(-1).arrayBuffer(); const start = performance.now(); \
    const answer = await (await fetch('/sum', { method: 'POST', body })).text(); \
    if (answer !== `${size} of ${size}`) throw new Error(answer); \
    return size / 1000 / (performance.now() - start); })";

/// Median milliseconds of WebSocket echoes while a download runs.
const ECHO_BESIDE_DOWNLOAD: &str = "(async (size) => { \
    const socket = new WebSocket(`ws://${location.host}/ws`); \
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; }); \
    let busy = true; const times = []; \
    const reader = (await fetch(`/bytes?n=${size}`)).body.getReader(); \
    const download = (async () => { while (!(await reader.read()).done); busy = false; })(); \
    while (busy) { const start = performance.now(); \
      await new Promise((resolve) => { socket.onmessage = resolve; socket.send('echo'); }); \
      times.push(performance.now() - start); await new Promise((resolve) => setTimeout(resolve, 5)); } \
    await download; socket.close(); \
    return times.sort((a, b) => a - b)[times.length >> 1]; })";

/// Figures of one way to the service, one of each round.
#[derive(Default)]
struct Figures {
    latency: Vec<f64>,
    parallel: Vec<f64>,
    download: Vec<f64>,
    upload: Vec<f64>,
    echo: Vec<f64>,
}

/// One line of the table.
struct Row {
    what: &'static str,
    portway: f64,
    direct: Option<f64>,
    bare: Option<f64>,
}

impl Figures {
    /// One round, in the browser's current tab.
    async fn measure(
        &mut self,
        browser: &mut Browser,
        through_portway: bool,
        size: usize,
    ) -> anyhow::Result<()> {
        for (figures, script) in [
            (&mut self.latency, format!("({LATENCY})({SMALL_REQUESTS})")),
            (&mut self.parallel, PARALLEL.to_owned()),
            (&mut self.download, format!("({DOWNLOAD})({size})")),
            (
                &mut self.upload,
                format!("({UPLOAD})({})", size.min(MAX_UPLOAD)),
            ),
            (&mut self.echo, format!("({ECHO_BESIDE_DOWNLOAD})({size})")),
        ] {
            let script = if through_portway {
                format!("{APP}.eval({})", json!(script))
            } else {
                script
            };
            let value = browser.eval(&script).await?;
            figures.push(value.as_f64().context("a wrong answer")?);
        }
        Ok(())
    }
}

/// Saves a file as a person does, and compares all of it.
async fn save(browser: &mut Browser, size: usize) -> anyhow::Result<f64> {
    let script = format!(
        "(() => {{ const link = document.createElement('a'); link.href = '/bytes?n={size}'; \
         link.download = 'big.bin'; document.body.append(link); link.click(); link.remove(); }})()"
    );
    let start = Instant::now();
    browser
        .eval(&format!("{APP}.eval({})", json!(script)))
        .await?;
    let path = browser.saved("big.bin", TRANSFER).await?;
    let seconds = start.elapsed().as_secs_f64();
    let mut file = std::fs::File::open(path)?;
    let pattern = pattern();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        anyhow::ensure!(is_right(&pattern, at, &buffer[..count]), "wrong at {at}");
        at += count;
    }
    anyhow::ensure!(at == size, "{at} of {size} bytes were saved");
    Ok(size as f64 / 1e6 / seconds)
}

/// Seconds from the moment when a killed instance is back until the page that was open all the time
/// gets answers again.
async fn recover(
    browser: &mut Browser,
    portway: Portway,
    state: &State,
    expose: &str,
) -> anyhow::Result<f64> {
    let listen = portway.listen()?;
    portway.kill().await?;
    browser
        .wait_for("!document.querySelector('#pw-banner').hidden", PATIENCE)
        .await?;
    let _portway = Portway::up(state, &listen, &["--expose", expose]).await?;
    let back = Instant::now();
    let answered = format!(
        "{APP}.eval({})",
        json!("fetch('/next').then((r) => r.ok, () => false)")
    );
    browser.wait_for(&answered, PATIENCE).await?;
    Ok(back.elapsed().as_secs_f64())
}

async fn bench(kind: Kind, size: usize) -> anyhow::Result<Vec<Row>> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let started = Instant::now();
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    let ready = started.elapsed().as_secs_f64();
    let mut browser = Browser::launch(kind).await?;

    browser.open(&upstream.target()).await?;
    browser
        .wait_for("!!document.querySelector('#hello')", PATIENCE)
        .await?;
    let mut bare = Bare::connect(&mut browser).await?;
    let without = browser.another_tab().await?;
    browser.open(&portway.link("app")).await?;
    let shown = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&shown, PATIENCE).await?;
    let mut with = browser.switch_to(without);
    let before = portway.usage()?;
    let (mut direct, mut through) = (Figures::default(), Figures::default());
    for _round in 0..ROUNDS {
        direct.measure(&mut browser, false, size).await?;
        bare.measure(&mut browser, size).await?;
        let without = browser.switch_to(with);
        through.measure(&mut browser, true, size).await?;
        with = browser.switch_to(without);
    }
    let cpu = (portway.usage()?.cpu - before.cpu).as_secs_f64();
    browser.switch_to(with);
    let heap = browser.heap_size().await?;
    let saved = save(&mut browser, size).await?;
    let growth = portway.peak_memory()?.saturating_sub(before.resident);
    let back = recover(&mut browser, portway, &state, &expose).await?;

    let beside = |what, ours: &[f64], theirs: &[f64], bare: Option<&[f64]>| Row {
        what,
        portway: median(ours),
        direct: Some(median(theirs)),
        bare: bare.map(median),
    };
    let alone = |what, portway| Row {
        what,
        portway,
        direct: None,
        bare: None,
    };
    // Each round, two downloads and an upload pass.
    let gigabytes = (ROUNDS * (2 * size + size.min(MAX_UPLOAD))) as f64 / 1e9;
    let mut rows = vec![
        beside(
            "small request, p50, ms",
            &through.latency,
            &direct.latency,
            None,
        ),
        beside(
            "100 requests at once, ms",
            &through.parallel,
            &direct.parallel,
            None,
        ),
        beside(
            "download, MB/s",
            &through.download,
            &direct.download,
            Some(&bare.download),
        ),
        beside(
            "upload, MB/s",
            &through.upload,
            &direct.upload,
            Some(&bare.upload),
        ),
        beside(
            "echo during a download, p50, ms",
            &through.echo,
            &direct.echo,
            None,
        ),
        Row {
            bare: Some(median(&bare.download)),
            ..alone("saved to a file, MB/s", saved)
        },
        alone("gateway, CPU s/GB", cpu / gigabytes),
        alone(
            "gateway, memory grew by at most, MiB",
            growth as f64 / MEBIBYTE,
        ),
        alone("ready after, s", ready),
        alone("works again after a kill, s", back),
    ];
    if let Some(heap) = heap {
        rows.push(alone("page, heap after it, MiB", heap as f64 / MEBIBYTE));
    }
    Ok(rows)
}

fn print(kind: Kind, size: usize, rows: &[Row]) {
    println!("\n{kind:?}, {} MiB", size >> 20);
    println!(
        "{:<38}{:>9}{:>9}{:>8}{:>9}{:>8}",
        "", "Portway", "direct", "ratio", "bare", "ratio"
    );
    for row in rows {
        let mut line = format!("{:<38}{:>9.1}", row.what, row.portway);
        for reference in [row.direct, row.bare] {
            line += &reference.map_or_else(
                || format!("{:>17}", ""),
                |figure| format!("{figure:>9.1}{:>8.3}", row.portway / figure),
            );
        }
        println!("{}", line.trim_end());
    }
}

/// For `docs/bench/browser.json`.
fn rows(results: &[(Kind, Vec<Row>)], size: usize) -> Vec<Value> {
    results
        .iter()
        .flat_map(|(kind, rows)| {
            rows.iter().map(move |row| {
                json!({
                    "browser": format!("{kind:?}"), "bytes": size, "what": row.what,
                    "portway": row.portway, "direct": row.direct, "bare_channel": row.bare,
                })
            })
        })
        .collect()
}

fn main() -> anyhow::Result<()> {
    // cargo passes `--bench`.
    let mebibytes = std::env::args()
        .find_map(|argument| argument.parse::<usize>().ok())
        .unwrap_or(DEFAULT_SIZE);
    let size = mebibytes << 20;
    let only =
        std::env::args().find(|argument| ["chromium", "firefox"].contains(&argument.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut results = Vec::new();
    for kind in [Kind::Chromium, Kind::Firefox] {
        let name = format!("{kind:?}").to_lowercase();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let rows = runtime.block_on(bench(kind, size))?;
        print(kind, size, &rows);
        results.push((kind, rows));
    }
    if only.is_some() {
        return Ok(());
    }
    record::record("browser.json", rows(&results, size))
}
