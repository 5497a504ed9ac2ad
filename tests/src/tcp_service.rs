//! A service that speaks TCP and does what the first byte of a connection says, and the programs that use
//! it: what tunnels are tried and measured with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::upstream::{is_right, pattern};

/// Everything comes back, this byte first.
const ECHO: u8 = b'E';

/// So many bytes of the pattern come (u64, big-endian).
const SOURCE: u8 = b'S';

/// All is taken, to the end; then comes how much of it was the pattern (u64, big-endian).
const DRAIN: u8 = b'D';

/// More than anybody takes.
const ENDLESS: u64 = u64::MAX;

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// The service. Ends when dropped.
pub struct TcpService {
    /// Where it listens.
    pub address: SocketAddr,
    given: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl TcpService {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// The system's.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let given = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, given.clone()));
        Ok(Self {
            address,
            given,
            _tasks: tasks,
        })
    }

    /// Bytes of the pattern that the system has taken from it, over all connections.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, given: Arc<AtomicU64>) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while serving.try_join_next().is_some() {}
        let given = given.clone();
        // Who is cut off has said so by then, and who checks its health says nothing.
        serving.spawn(async move { drop(serve(stream, &given).await) });
    }
}

async fn serve(mut stream: TcpStream, given: &AtomicU64) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ECHO => {
            stream.write_u8(ECHO).await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await?;
        }
        SOURCE => {
            let mut left = stream.read_u64().await?;
            let pattern = pattern();
            let mut at = 0;
            while left > 0 {
                let piece = &pattern[at..];
                let most = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
                let written = stream.write(&piece[..most]).await?;
                given.fetch_add(written as u64, Ordering::Relaxed);
                left -= written as u64;
                at = (at + written) % pattern.len();
            }
        }
        DRAIN => {
            let right = take(&mut stream).await?;
            stream.write_u64(right).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Takes all to the end; returns how much of it, from the beginning, was the pattern.
async fn take(stream: &mut TcpStream) -> anyhow::Result<u64> {
    let pattern = pattern();
    let mut buffer = vec![0; BUFFER];
    let (mut at, mut right) = (0, 0);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(right);
        }
        if right == at as u64 && is_right(&pattern, at, &buffer[..count]) {
            right += count as u64;
        }
        at += count;
    }
}

/// A connection to a service, or to what stands for it, that echoes.
///
/// # Errors
/// If it is not echoed.
pub async fn echoing(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_u8(ECHO).await?;
    let echo = stream.read_u8().await?;
    ensure!(echo == ECHO, "{echo} came back");
    Ok(stream)
}

/// A connection that opens, echoes one byte and ends.
///
/// # Errors
/// If one of them fails.
pub async fn short(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = echoing(address).await?;
    stream.shutdown().await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    ensure!(rest.is_empty(), "more came back than was sent");
    Ok(())
}

/// Takes `size` bytes, and checks them.
///
/// # Errors
/// If anything else comes.
pub async fn download(address: SocketAddr, size: u64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    ask_for(&mut stream, size).await?;
    let right = take(&mut stream).await?;
    ensure!(right == size, "{right} of {size} bytes came right");
    Ok(())
}

/// Gives `size` bytes, and has them checked.
///
/// # Errors
/// If anything else arrives.
pub async fn upload(address: SocketAddr, size: u64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_u8(DRAIN).await?;
    let pattern = pattern();
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).map_or(pattern.len(), |left| left.min(pattern.len()));
        stream.write_all(&pattern[..length]).await?;
        left -= length as u64;
    }
    stream.shutdown().await?;
    let right = stream.read_u64().await?;
    ensure!(right == size, "{right} of {size} bytes arrived right");
    Ok(())
}

/// Asks for more than anybody takes.
///
/// # Errors
/// The system's.
pub async fn ask_without_end(stream: &mut TcpStream) -> anyhow::Result<()> {
    ask_for(stream, ENDLESS).await
}

async fn ask_for(stream: &mut TcpStream, size: u64) -> anyhow::Result<()> {
    let mut wish = vec![SOURCE];
    wish.extend(size.to_be_bytes());
    stream.write_all(&wish).await?;
    Ok(())
}
