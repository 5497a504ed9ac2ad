//! What a person in a browser gets through Portway, in the same run beside (a) the same requests
//! sent directly and (b) a bare data channel from a minimal native sender on the same stack. Figures
//! go to standard output and `docs/bench/browser.json`; ratios are what to compare between machines.
//!
//! `cargo xtask bench browser [MEBIBYTES]`

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench prints figures"
)]

mod bare;

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bare::Bare;

use portway_tests::PATIENCE;
use portway_tests::browser::{Browser, Kind};
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::{Upstream, is_right, pattern};
use serde_json::{Value, json};

/// Size of transfers unless given, in MiB.
const DEFAULT_SIZE: usize = 256;

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
    const body = new Blob(parts); const start = performance.now(); \
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

/// Figures of one way to the service.
struct Figures {
    latency: f64,
    parallel: f64,
    download: f64,
    upload: f64,
    echo: f64,
}

/// One line of the table.
struct Row {
    what: &'static str,
    portway: f64,
    direct: Option<f64>,
    bare: Option<f64>,
}

async fn measure(
    browser: &mut Browser,
    through_portway: bool,
    size: usize,
) -> anyhow::Result<Figures> {
    let mut figures = Vec::new();
    for script in [
        format!("({LATENCY})({SMALL_REQUESTS})"),
        PARALLEL.to_owned(),
        format!("({DOWNLOAD})({size})"),
        format!("({UPLOAD})({size})"),
        format!("({ECHO_BESIDE_DOWNLOAD})({size})"),
    ] {
        let script = if through_portway {
            format!("{APP}.eval({})", json!(script))
        } else {
            script
        };
        let value = browser.eval(&script).await?;
        figures.push(value.as_f64().unwrap_or(f64::NAN));
    }
    let [latency, parallel, download, upload, echo] = figures[..] else {
        anyhow::bail!("a figure is missing");
    };
    Ok(Figures {
        latency,
        parallel,
        download,
        upload,
        echo,
    })
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

/// Seconds until a file is saved that stands still four times, each time longer than Firefox lets an
/// idle service worker live; less than their sum would be a wrong file.
async fn save_halting(browser: &mut Browser) -> anyhow::Result<f64> {
    const HALTS: u32 = 4;
    let script = format!(
        "(() => {{ const link = document.createElement('a'); link.href = '/halting?n={HALTS}'; \
         link.download = 'slow.bin'; document.body.append(link); link.click(); link.remove(); }})()"
    );
    let start = Instant::now();
    browser
        .eval(&format!("{APP}.eval({})", json!(script)))
        .await?;
    let saved = browser.downloaded("slow.bin", TRANSFER).await?;
    let pattern = pattern();
    anyhow::ensure!(saved.len() == pattern.len() * (HALTS as usize + 1));
    anyhow::ensure!(is_right(&pattern, 0, &saved));
    Ok(start.elapsed().as_secs_f64())
}

async fn bench(kind: Kind, size: usize) -> anyhow::Result<Vec<Row>> {
    let upstream = Upstream::start().await?;
    let state = State::new()?;
    let expose = format!("app={}", upstream.target());
    let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
    let mut browser = Browser::launch(kind).await?;

    browser.open(&upstream.target()).await?;
    browser
        .wait_for("!!document.querySelector('#hello')", PATIENCE)
        .await?;
    let direct = measure(&mut browser, false, size).await?;
    let bare: Bare = bare::measure(&mut browser, size).await?;

    browser.open(&portway.link("app")).await?;
    let shown = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&shown, PATIENCE).await?;
    let memory = portway.resident_memory()?;
    let cpu = portway.cpu_time()?;
    let through = measure(&mut browser, true, size).await?;
    let saved = save(&mut browser, size).await?;
    let cpu = (portway.cpu_time()? - cpu).as_secs_f64();
    let halting = save_halting(&mut browser).await?;
    let growth = portway.peak_memory()?.saturating_sub(memory);

    let row = |what, portway, direct, bare| Row {
        what,
        portway,
        direct,
        bare,
    };
    let beside = |what, ours, theirs| row(what, ours, Some(theirs), None);
    // Two downloads, an upload and a saved file have passed.
    let gigabytes = 4.0 * size as f64 / 1e9;
    Ok(vec![
        beside("small request, p50, ms", through.latency, direct.latency),
        beside(
            "100 requests at once, ms",
            through.parallel,
            direct.parallel,
        ),
        row(
            "download, MB/s",
            through.download,
            Some(direct.download),
            Some(bare.download),
        ),
        row(
            "upload, MB/s",
            through.upload,
            Some(direct.upload),
            Some(bare.upload),
        ),
        beside("echo during a download, p50, ms", through.echo, direct.echo),
        row("saved to a file, MB/s", saved, None, Some(bare.download)),
        row("saved with silences of 4 x 45 s, s", halting, None, None),
        row("gateway, CPU s/GB", cpu / gigabytes, None, None),
        row(
            "gateway, memory grew by at most, MiB",
            growth as f64 / f64::from(1 << 20),
            None,
            None,
        ),
    ])
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

/// Writes `docs/bench/browser.json`.
fn record(results: &[(Kind, Vec<Row>)], size: usize) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commit = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(&root)
        .output()
        .context("git")?;
    let processor = std::fs::read_to_string("/proc/cpuinfo")?
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name")?
                .split(": ")
                .nth(1)
                .map(str::to_owned)
        })
        .unwrap_or_default();
    let rows: Vec<Value> = results
        .iter()
        .flat_map(|(kind, rows)| {
            rows.iter().map(move |row| {
                json!({
                    "browser": format!("{kind:?}"), "bytes": size, "what": row.what,
                    "portway": row.portway, "direct": row.direct, "bare_channel": row.bare,
                })
            })
        })
        .collect();
    let report = json!({
        "v": 1,
        "date": SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        "commit": String::from_utf8(commit.stdout)?.trim(),
        "machine": format!("{processor}, {} threads", std::thread::available_parallelism()?),
        "rows": rows,
    });
    let folder = root.join("docs/bench");
    std::fs::create_dir_all(&folder)?;
    let text = format!("{}\n", serde_json::to_string_pretty(&report)?);
    std::fs::write(folder.join("browser.json"), text)?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    // cargo passes `--bench`.
    let mebibytes = std::env::args()
        .find_map(|argument| argument.parse::<usize>().ok())
        .unwrap_or(DEFAULT_SIZE);
    let size = mebibytes << 20;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut results = Vec::new();
    for kind in [Kind::Chromium, Kind::Firefox] {
        let rows = runtime.block_on(bench(kind, size))?;
        print(kind, size, &rows);
        results.push((kind, rows));
    }
    record(&results, size)
}
