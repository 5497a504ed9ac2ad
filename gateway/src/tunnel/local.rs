//! Addresses of this machine, and connections to them.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::serve::Ends;
use crate::limits::Limits;
use crate::proxy::connect::Stream;

/// Pause after the system could not give us a connection, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for requests under way once it is to end.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Where programs of this machine connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddress {
    /// `ADDR:PORT`.
    Tcp(SocketAddr),
    /// `/path` of a Unix socket.
    Unix(PathBuf),
}

/// Why a text is no local address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: expected PORT, ADDR:PORT or /PATH of a Unix socket, e.g. 8080 or [::1]:8080")]
pub struct LocalAddressError(String);

impl FromStr for LocalAddress {
    type Err = LocalAddressError;

    /// A port alone is on loopback.
    fn from_str(text: &str) -> Result<Self, LocalAddressError> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        text.parse()
            .map(loopback)
            .or_else(|_| text.parse())
            .map(Self::Tcp)
            .map_err(|_| LocalAddressError(text.to_owned()))
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Serialize for LocalAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A bound address. Removes the socket file it has made when it is dropped.
pub(super) struct Bound {
    socket: Socket,
    address: LocalAddress,
    pub(super) limits: Limits,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Binds; nobody is accepted yet. A Unix socket is its owner's alone; the one of a process that is gone is
    /// replaced.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn bind(address: &LocalAddress, limits: Limits) -> io::Result<Self> {
        match address {
            LocalAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = LocalAddress::Tcp(listener.local_addr()?);
                Ok(Self {
                    socket: Socket::Tcp(listener),
                    address,
                    limits,
                })
            }
            LocalAddress::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                let bound = Self {
                    socket: Socket::Unix(listener),
                    address: address.clone(),
                    limits,
                };
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                Ok(bound)
            }
        }
    }

    /// Where it is.
    pub(super) const fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// Serves each connection in a task, as many at a time as its limits say, until `ends.cancel`; then lets those
    /// under way end, within a little time.
    pub(super) async fn run<F>(
        self,
        (tasks, ends): (TaskTracker, Ends),
        serve: impl Fn(Stream) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let room = self.limits.room();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&room) => accepted,
                () = ends.cancel.cancelled() => break,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let serving = serve(stream);
                    drop(tasks.spawn(async move {
                        serving.await;
                        drop(permit);
                    }));
                }
                Err(error) => {
                    tracing::warn!(%error, "a local connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self);
        tasks.close();
        let waited = tokio::time::timeout(END_TIMEOUT, tasks.wait()).await;
        if waited.is_err() {
            ends.ended.cancel();
            tasks.wait().await;
        }
    }

    async fn accept(&self, room: &Arc<Semaphore>) -> io::Result<(Stream, OwnedSemaphorePermit)> {
        let permit = room.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let stream = match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Socket::Unix(listener) => Stream::Unix(listener.accept().await?.0),
        };
        Ok((stream, permit))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let LocalAddress::Unix(path) = &self.address
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(%error, "a socket file stays");
        }
    }
}

impl Ends {
    /// Everything ends with `cancel`, a little later.
    pub(super) fn by(cancel: CancellationToken) -> Self {
        Self {
            cancel,
            ended: CancellationToken::new(),
        }
    }
}

/// Removes the socket of a process that is gone; anything else stays, and is in the way.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if !is_socket || UnixStream::connect(path).await.is_ok() {
        return Ok(());
    }
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        let address = |text: &str| text.parse::<LocalAddress>();
        let tcp = |address: SocketAddr| Ok(LocalAddress::Tcp(address));
        assert_eq!(address("8080"), tcp(([127, 0, 0, 1], 8080).into()));
        assert_eq!(address("192.0.2.7:0"), tcp(([192, 0, 2, 7], 0).into()));
        assert_eq!(address("[::1]:80"), tcp("[::1]:80".parse().unwrap()));
        assert_eq!(
            address("/run/db.sock"),
            Ok(LocalAddress::Unix("/run/db.sock".into()))
        );
        for wrong in ["", "x", "99999", "localhost:80", "::1:80x", "db.sock"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn more_connections_than_may_be_wait() {
        const ALL: usize = 20;
        let limits = Limits {
            connections: 2.try_into().unwrap(),
            ..Limits::default()
        };
        let address = LocalAddress::Tcp(([127, 0, 0, 1], 0).into());
        let bound = Bound::bind(&address, limits).await.unwrap();
        let address = bound.address().to_string();
        let (served, mut told) = tokio::sync::mpsc::channel(ALL);
        let now = Arc::new(AtomicUsize::new(0));
        let cancel = CancellationToken::new();
        let ends = Ends::by(cancel.clone());
        let running = bound.run((TaskTracker::new(), ends), |_stream| {
            let (served, now) = (served.clone(), now.clone());
            async move {
                let at_once = now.fetch_add(1, Ordering::Relaxed) + 1;
                for _ in 0..2 * ALL {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::Relaxed);
                served.send(at_once).await.unwrap();
            }
        });
        let asking = async {
            let mut programs = Vec::new();
            for _ in 0..ALL {
                programs.push(TcpStream::connect(&address).await.unwrap());
            }
            let mut at_once = 0;
            for _ in 0..ALL {
                at_once = told.recv().await.unwrap().max(at_once);
            }
            cancel.cancel();
            at_once
        };
        let ((), at_once) = tokio::join!(running, asking);
        assert_eq!(at_once, 2);
    }

    #[tokio::test]
    async fn only_the_socket_of_nobody_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = LocalAddress::Unix(path.clone());
        let first = Bound::bind(&address, Limits::default()).await.unwrap();
        assert!(
            Bound::bind(&address, Limits::default()).await.is_err(),
            "it is in use"
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Bound::bind(&address, Limits::default()).await.unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(Bound::bind(&address, Limits::default()).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
