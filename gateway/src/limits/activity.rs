//! When something was last carried, in either direction: both ends of tunnels end what is silent for too long.
//! Hot path.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Nothing was carried for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing went either way for {} s", .0.as_secs())]
pub struct Idle(Duration);

/// When something was last carried. Those who share it share the moment: whichever direction it was.
#[derive(Debug, Clone)]
pub struct Activity {
    began: Instant,
    /// In milliseconds since it began.
    last: Arc<AtomicU64>,
    /// It was silent for too long.
    over: CancellationToken,
}

impl Activity {
    /// Silent from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            last: Arc::default(),
            over: CancellationToken::new(),
        }
    }

    /// Something is carried now.
    pub(crate) fn note(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis());
        self.last.store(now.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When something was carried.
    pub(crate) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// The same stream, which tells what it carries. Both halves of one may do so. Whoever reads from it gets an error
    /// once it was silent for too long, also where somebody else took it along.
    pub fn watch<S>(self, stream: S) -> Watched<S> {
        Watched {
            stream,
            over: Box::pin(self.over.clone().cancelled_owned()),
            activity: self,
        }
    }

    /// Lets something go on until it ends by itself, or nothing was carried for so long.
    ///
    /// # Errors
    /// [`Idle`] if it was dropped for that.
    pub async fn unless_idle<T>(
        &self,
        timeout: Option<Duration>,
        carrying: impl Future<Output = T>,
    ) -> Result<T, Idle> {
        tokio::select! {
            ended = carrying => Ok(ended),
            idle = self.idle(timeout) => {
                self.over.cancel();
                Err(idle)
            }
        }
    }

    /// Waits until nothing was carried for so long; without a limit, forever.
    pub(crate) async fn idle(&self, timeout: Option<Duration>) -> Idle {
        let Some(timeout) = timeout else {
            return std::future::pending().await;
        };
        loop {
            // What is later than the clock can tell is never.
            let Some(idle_at) = self.last().checked_add(timeout) else {
                return std::future::pending().await;
            };
            if Instant::now() >= idle_at {
                return Idle(timeout);
            }
            tokio::time::sleep_until(idle_at).await;
        }
    }
}

/// A stream, or half of one, that tells what it carries.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    activity: Activity,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Watched<S> {
    /// The stream itself.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) else {
            ready!(self.over.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        read?;
        if buffer.filled().len() > before {
            self.activity.note();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.note();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// A watched stream, what tells of it, and its other end.
    fn stage() -> (Watched<DuplexStream>, Activity, DuplexStream) {
        let (near, far) = duplex(1024);
        let activity = Activity::begin();
        (activity.clone().watch(near), activity, far)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_both_ways_ends() {
        let (mut near, activity, _far) = stage();
        let reading = near.read_u8();
        let ended = activity.unless_idle(Some(TIMEOUT), reading).await;
        assert_eq!(ended.unwrap_err(), Idle(TIMEOUT));
        let read = near.read_u8().await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_busy_in_one_direction_is_not_idle() {
        let (near, activity, far) = stage();
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let write = async |busy: &mut (dyn AsyncWrite + Unpin + Send)| {
            for _ in 0..5 {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                busy.write_all(b"x").await.unwrap();
            }
        };
        // This end says something now and then, and hears nothing.
        let said = write(&mut near_write);
        let said = activity.unless_idle(Some(TIMEOUT), said).await;
        said.unwrap();
        // It hears something now and then, and says nothing any more.
        near_write.shutdown().await.unwrap();
        let heard = async {
            let mut all = [0; 5];
            let read = near_read.read_exact(&mut all);
            let (read, ()) = tokio::join!(read, write(&mut far_write));
            read.unwrap();
        };
        let heard = activity.unless_idle(Some(TIMEOUT), heard).await;
        heard.unwrap();
        let mut told = Vec::new();
        far_read.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"xxxxx");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_may_be_silent() {
        for limit in [None, Some(Duration::MAX)] {
            let (mut near, activity, mut far) = stage();
            let late = async {
                tokio::time::sleep(TIMEOUT * 1000).await;
                far.write_all(b"x").await.unwrap();
            };
            let (read, ()) = tokio::join!(activity.unless_idle(limit, near.read_u8()), late);
            assert_eq!(read.unwrap().unwrap(), b'x');
        }
    }
}
