//! Bytes both ways: a request to a service that speaks something else than HTTP becomes a connection to it, or takes
//! one that has come to the node for its client.
//! The request's body is what the service reads, the response's is what it writes.
//!
//! Each direction ends by itself, as TCP's do. What is cut off on one side is reset on the other, and never
//! looks like an end: who copies a file over this has to know.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use portway_protocol::reason::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::connect::Stream;
use super::http::io_reason;
use super::{ProxyBody, Visitor};
use crate::entrance::{Entered, Entrance};
use crate::limits::activity::{Activity, Watched};
use crate::service::Program;

/// Bytes taken from a service at a time.
const CHUNK: usize = 32 * 1024;

/// Chunks that wait for HTTP/2, which has a buffer of its own.
const CHUNKS: usize = 2;

/// Connects to the service; the response comes when it has.
///
/// # Errors
/// Why it has not.
pub async fn open(
    service: &Program,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Reason> {
    let place = service.place()?;
    let connected = service.upstream.connect().await;
    let stream = connected.map_err(|error| io_reason(&error, true))?;
    let idle_timeout = service.limits.idle_timeout;
    Ok(answer(stream, visitor, request, idle_timeout, place))
}

/// Waits for a connection that the client serves; the response comes with it.
///
/// # Errors
/// [`Reason::ListenFailed`].
pub(crate) async fn take(
    entrance: &Entrance,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Response<ProxyBody>, Reason> {
    let entered = entrance.enter().await.map_err(|error| {
        tracing::warn!(%error, "nobody can connect to what a client serves");
        Reason::ListenFailed
    })?;
    let Entered { stream, open } = entered;
    let (stream, idle_timeout) = (Stream::Tcp(stream), entrance.idle_timeout);
    Ok(answer(stream, visitor, request, idle_timeout, open))
}

/// Joins a connection with the bodies of a request and its response. `held` is let go when it ends.
fn answer(
    stream: Stream,
    visitor: &Visitor,
    request: Request<Incoming>,
    idle_timeout: Option<Duration>,
    held: impl Send + 'static,
) -> Response<ProxyBody> {
    let (chunks, written) = mpsc::channel(CHUNKS);
    let ended = visitor.ended.clone();
    drop(visitor.tasks.spawn(async move {
        let joined = join(stream, request.into_body(), chunks, idle_timeout);
        ended.run_until_cancelled(joined).await;
        drop(held);
    }));
    let written = Written::from(written);
    Response::new(written.map_err(Into::into).boxed_unsync())
}

/// What somebody has written.
pub(crate) enum Chunk {
    Data(Bytes),
    End,
}

/// Copies both ways until both directions have ended, or one was cut off, or both are silent for too long.
async fn join(
    stream: Stream,
    body: Incoming,
    chunks: mpsc::Sender<Chunk>,
    idle_timeout: Option<Duration>,
) {
    let activity = Activity::begin();
    let (mut read, mut write) = tokio::io::split(activity.clone().watch(stream));
    let joined = async { tokio::try_join!(send(body, &mut write), receive(&mut read, &chunks)) };
    match activity.unless_idle(idle_timeout, joined).await {
        Ok(Ok(((), ()))) => return,
        Ok(Err(error)) => tracing::debug!(%error, "a tunnel was cut off"),
        Err(idle) => tracing::info!(%idle, "a tunnel was cut off"),
    }
    read.unsplit(write).into_inner().reset();
}

/// From the client to the service.
async fn send(mut body: Incoming, write: &mut WriteHalf<Watched<Stream>>) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            write.write_all(&data).await?;
        }
    }
    write.shutdown().await
}

/// From the service to the client.
async fn receive(
    read: &mut ReadHalf<Watched<Stream>>,
    chunks: &mpsc::Sender<Chunk>,
) -> io::Result<()> {
    let gone = |_| io::ErrorKind::BrokenPipe.into();
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        if read.read_buf(&mut buffer).await? == 0 {
            return chunks.send(Chunk::End).await.map_err(gone);
        }
        let data = buffer.split().freeze();
        chunks.send(Chunk::Data(data)).await.map_err(gone)?;
    }
}

/// A body that somebody writes. Chunks that end without [`Chunk::End`] were cut off.
pub(crate) struct Written(Option<mpsc::Receiver<Chunk>>);

impl From<mpsc::Receiver<Chunk>> for Written {
    fn from(chunks: mpsc::Receiver<Chunk>) -> Self {
        Self(Some(chunks))
    }
}

impl Body for Written {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(chunks) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let chunk = ready!(chunks.poll_recv(cx));
        if let Some(Chunk::Data(data)) = chunk {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        self.0 = None;
        let cut = io::Error::from(io::ErrorKind::ConnectionAborted);
        Poll::Ready(chunk.is_none().then_some(Err(cut)))
    }
}
