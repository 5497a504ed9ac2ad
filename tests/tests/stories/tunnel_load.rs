//! Tunnels with much to do: many connections, and readers that take little.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use portway_tests::client::Connected;
use portway_tests::tcp_service::{TcpService, ask_without_end, download, echoing, short};
use portway_tests::usage::Usage;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::tunnels::Stage;
use crate::{NativeStory, native};

pub(crate) const STORIES: &[NativeStory] = &[
    native!(ten_thousand_short_connections_are_all_served),
    native!(slow_readers_hold_back_their_sources_and_nobody_else),
];

/// Short connections, and how many of them at a time: four times as many as a session has streams.
const CONNECTIONS: usize = 10_000;
const AT_ONCE: usize = 1000;

/// Readers that take next to nothing.
const SLOW_READERS: usize = 8;

/// Receive buffer of a slow reader, bytes: the system is not to take much on its behalf.
const SLOW_BUFFER: u32 = 64 * 1024;

/// What a slow reader takes at a time, bytes.
const SLOW_PIECE: usize = 10_000;

/// What is downloaded beside slow readers, bytes. Streams share a session evenly: if nothing held back the
/// source of a slow one, as much would be taken of it meanwhile.
const BESIDE: u64 = 32 * 1024 * 1024;

/// The most that may be taken of a source ahead of its slow reader, bytes: a stream's window and what waits for
/// it, 1.4 MiB, is Portway's; the rest is in the buffers that the system has for three sockets, some 4 MiB each.
const AHEAD: u64 = 16 * 1024 * 1024;

const _: () = assert!(AHEAD <= BESIDE / 2);

/// A service and its tunnel.
struct Scene {
    service: TcpService,
    stage: Stage,
    local: Connected,
    /// Where local programs connect.
    address: SocketAddr,
}

impl Scene {
    async fn set() -> anyhow::Result<Self> {
        let service = TcpService::start().await?;
        let stage = Stage::set(&format!("tcp://{}", service.address)).await?;
        let local = Connected::start(&stage.link).await?;
        let address = local.listen().parse()?;
        Ok(Self {
            service,
            stage,
            local,
            address,
        })
    }

    /// Open files of both ends.
    fn files(&self) -> anyhow::Result<usize> {
        Ok(Usage::of(&[self.stage.portway.pid()?, self.local.pid()?])?.files)
    }
}

async fn ten_thousand_short_connections_are_all_served() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let _one = echoing(scene.address).await?;
    let before = scene.files()?;
    let mut open = JoinSet::new();
    let all = async {
        for number in 0..CONNECTIONS {
            if number >= AT_ONCE {
                open.join_next().await.context("many are open")???;
            }
            open.spawn(short(scene.address));
        }
        while let Some(ended) = open.join_next().await {
            ended??;
        }
        // The connections of both ends end when each has heard of it.
        while scene.files()? > before {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    ended.with_context(|| format!("{before} files before, {:?} now", scene.files()))?
}

/// Somebody who has asked for more than they take.
async fn slow_reader(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SLOW_BUFFER)?;
    let mut stream = socket.connect(address).await?;
    ask_without_end(&mut stream).await?;
    Ok(stream)
}

async fn slow_readers_hold_back_their_sources_and_nobody_else() -> anyhow::Result<()> {
    let scene = Scene::set().await?;
    let mut readers = Vec::new();
    for _reader in 0..SLOW_READERS {
        readers.push(slow_reader(scene.address).await?);
    }
    let mut piece = [0; SLOW_PIECE];
    for reader in &mut readers {
        tokio::time::timeout(PATIENCE, reader.read_exact(&mut piece)).await??;
    }
    let beside = download(scene.address, BESIDE);
    let beside = tokio::time::timeout(PATIENCE, beside).await;
    beside.context("slow readers hold up others")??;

    let ahead = scene.service.given() - BESIDE;
    let most = AHEAD * SLOW_READERS as u64;
    ensure!(
        ahead < most,
        "{ahead} bytes were taken ahead of slow readers"
    );
    for reader in &mut readers {
        tokio::time::timeout(PATIENCE, reader.read_exact(&mut piece)).await??;
    }
    Ok(())
}
