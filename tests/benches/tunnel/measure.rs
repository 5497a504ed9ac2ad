//! Measurements of one tunnel, each once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use portway_tests::LOOK_AGAIN;
use portway_tests::tcp_service::{ask_without_end, download, echoing, short, upload};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::table::{Table, What};
use crate::tool::{Ends, Tunnel};

/// Bytes of an echo: a key that was pressed, a small query.
const ECHO: usize = 64;

/// Connections at a time where many are opened for their number in a second.
const SOME: usize = 32;

/// How long many connections may take, all of them.
const MANY_TIME: Duration = Duration::from_secs(30);

/// Receive buffer of a slow reader, bytes, so that the system takes little on its behalf.
const SLOW_BUFFER: u32 = 64 * 1024;

/// A slow reader takes so much at a time, ten times a second: 10 KB/s.
const SLOW_PIECE: usize = 1000;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// How long an echo may take beside slow readers before it counts as blocked.
const BLOCKED: Duration = Duration::from_secs(2);

/// Time for both ends to close what is theirs after the last of many connections.
const SETTLING: Duration = Duration::from_secs(3);

const KIBIBYTE: f64 = 1024.0;
const MEBIBYTE: f64 = 1024.0 * KIBIBYTE;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// How often all that is short is measured, in turn: medians count.
    pub(crate) rounds: usize,
    /// Bytes of a transfer.
    pub(crate) transfer: u64,
    /// Round trips of an echo.
    pub(crate) echoes: usize,
    /// Connections for their number in a second.
    pub(crate) connections: usize,
    /// Streams that are open at a time: as many as a session of ours has.
    pub(crate) open: usize,
    /// Short connections of the load, and how many of them at a time.
    pub(crate) load: usize,
    pub(crate) at_once: usize,
    /// How many read slowly at a time: more than fill the windows of a session, if these let them.
    pub(crate) slow_readers: usize,
    /// For how long.
    pub(crate) slow: Duration,
}

/// Throughput of one stream in each direction, and what it costs.
pub(crate) async fn throughput(
    tunnel: &Tunnel,
    extent: Extent,
    table: &mut Table,
) -> anyhow::Result<()> {
    let size = extent.transfer;
    let (start, before) = (Instant::now(), tunnel.usage()?);
    download(tunnel.address, size).await?;
    let (halfway, between) = (Instant::now(), tunnel.usage()?);
    upload(tunnel.address, size).await?;
    let (end, after) = (Instant::now(), tunnel.usage()?);
    for (what, cost, took, cpu) in [
        (
            What::Download,
            What::DownloadCost,
            halfway - start,
            between.cpu() - before.cpu(),
        ),
        (
            What::Upload,
            What::UploadCost,
            end - halfway,
            after.cpu() - between.cpu(),
        ),
    ] {
        table.note(what, tunnel, size as f64 / 1e6 / took.as_secs_f64());
        table.note(cost, tunnel, cpu.as_secs_f64() / (size as f64 / 1e9));
    }
    Ok(())
}

/// Round trips of a small message, alone and beside a download by the same tunnel.
pub(crate) async fn echo(tunnel: &Tunnel, extent: Extent, table: &mut Table) -> anyhow::Result<()> {
    let times = round_trips(tunnel.address, extent.echoes).await?;
    table.note(What::EchoHalf, tunnel, percentile(&times, 50));
    table.note(What::EchoMost, tunnel, percentile(&times, 99));

    let mut downloading = JoinSet::new();
    let mut stream = TcpStream::connect(tunnel.address).await?;
    downloading.spawn(async move {
        ask_without_end(&mut stream).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        anyhow::Ok(())
    });
    let given = tunnel.service.given();
    while tunnel.service.given() < given + extent.transfer / 16 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let times = round_trips(tunnel.address, extent.echoes / 4).await?;
    table.note(What::LoadedEchoHalf, tunnel, percentile(&times, 50));
    table.note(What::LoadedEchoMost, tunnel, percentile(&times, 99));
    Ok(())
}

/// Milliseconds of round trips, sorted.
async fn round_trips(address: SocketAddr, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut stream = echoing(address).await?;
    let said = [7; ECHO];
    let mut times = Vec::with_capacity(count);
    for _round_trip in 0..count {
        let start = Instant::now();
        stream.write_all(&said).await?;
        let mut heard = [0; ECHO];
        stream.read_exact(&mut heard).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(heard == said, "something else came back");
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// Connections in a second: one after another, and some at a time.
pub(crate) async fn connections(
    tunnel: &Tunnel,
    extent: Extent,
    table: &mut Table,
) -> anyhow::Result<()> {
    for (what, at_once) in [(What::InTurn, 1), (What::SomeAtOnce, SOME)] {
        let start = Instant::now();
        let lost = many(tunnel.address, extent.connections, at_once).await?;
        ensure!(lost == 0, "{lost} connections were lost");
        let rate = extent.connections as f64 / start.elapsed().as_secs_f64();
        table.note(what, tunnel, rate);
    }
    Ok(())
}

/// Opens short connections, and tells how many were lost: failed, or not served in [`MANY_TIME`].
async fn many(address: SocketAddr, count: usize, at_once: usize) -> anyhow::Result<usize> {
    let mut served = 0;
    let mut open = JoinSet::new();
    let all = async {
        for number in 0..count + at_once {
            if number >= at_once
                && let Some(ended) = open.join_next().await
            {
                served += usize::from(ended?);
            }
            if number < count {
                open.spawn(async move { short(address).await.is_ok() });
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(MANY_TIME, all)
        .await
        .unwrap_or(Ok(()))?;
    Ok(count - served)
}

/// What a tunnel that was just opened holds, and each stream that is open through it.
pub(crate) async fn memory(
    tunnel: &Tunnel,
    extent: Extent,
    table: &mut Table,
) -> anyhow::Result<()> {
    let idle = tunnel.usage()?;
    table.note(What::IdleNear, tunnel, idle.near.resident as f64 / MEBIBYTE);
    table.note(What::IdleFar, tunnel, idle.far.resident as f64 / MEBIBYTE);
    let threads = idle.near.threads + idle.far.threads;
    table.note(What::Threads, tunnel, threads as f64);
    let mut open = Vec::new();
    for _stream in 0..extent.open {
        open.push(echoing(tunnel.address).await?);
    }
    let (near, far) = growth(idle, tunnel.usage()?);
    let streams = extent.open as f64 * KIBIBYTE;
    table.note(What::StreamNear, tunnel, near / streams);
    table.note(What::StreamFar, tunnel, far / streams);
    drop(open);
    Ok(())
}

/// Bytes by which the two ends have grown.
fn growth(before: Ends, after: Ends) -> (f64, f64) {
    (
        after.near.resident as f64 - before.near.resident as f64,
        after.far.resident as f64 - before.far.resident as f64,
    )
}

/// Many short connections, of which many are open at a time.
pub(crate) async fn load(tunnel: &Tunnel, extent: Extent, table: &mut Table) -> anyhow::Result<()> {
    let (start, before) = (Instant::now(), tunnel.usage()?);
    let lost = many(tunnel.address, extent.load, extent.at_once).await?;
    let rate = extent.load as f64 / start.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLING).await;
    let after = tunnel.usage()?;
    table.note(What::Lost, tunnel, lost as f64);
    table.note(What::LoadRate, tunnel, rate);
    let files = |ends: Ends| (ends.near.files + ends.far.files) as f64;
    table.note(What::LoadFiles, tunnel, files(after) - files(before));
    let (near, far) = growth(before, after);
    table.note(What::LoadNear, tunnel, near / MEBIBYTE);
    table.note(What::LoadFar, tunnel, far / MEBIBYTE);
    Ok(())
}

/// What readers that take 10 KB/s of a source without end make a tunnel hold, and whether an echo passes
/// beside them.
pub(crate) async fn slow(tunnel: &Tunnel, extent: Extent) -> anyhow::Result<Vec<(What, f64)>> {
    let before = tunnel.usage()?;
    let mut reading = JoinSet::new();
    for _reader in 0..extent.slow_readers {
        reading.spawn(read_slowly(tunnel.address));
    }
    let ended = tokio::time::timeout(extent.slow, reading.join_next()).await;
    if let Ok(Some(ended)) = ended {
        ended?.context("a slow reader was cut off")?;
    }
    let given = tunnel.service.given() as f64;
    let (near, far) = growth(before, tunnel.usage()?);
    let beside = tokio::time::timeout(BLOCKED, round_trips(tunnel.address, 1)).await;
    let beside = beside.map_or(Ok(f64::NAN), |times| {
        times.map(|times| percentile(&times, 50))
    })?;
    let streams = extent.slow_readers as f64 * MEBIBYTE;
    Ok(vec![
        (What::SlowGiven, given / streams),
        (What::SlowNear, near / streams),
        (What::SlowFar, far / streams),
        (What::SlowEcho, beside),
    ])
}

async fn read_slowly(address: SocketAddr) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SLOW_BUFFER)?;
    let mut stream = socket.connect(address).await?;
    ask_without_end(&mut stream).await?;
    let mut piece = [0; SLOW_PIECE];
    loop {
        stream.read_exact(&mut piece).await?;
        tokio::time::sleep(SLOW_PAUSE).await;
    }
}
