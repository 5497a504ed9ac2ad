//! A connection to a service, for a program that has this library in it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Request;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use http_body_util::{BodyDataStream, BodyExt as _};
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

use super::way::Way;
use crate::client::session::RequestBody;
use crate::client::stream;
use crate::proxy::tunnel::{Chunk, Written};

/// Largest part of what is written that is passed on at a time, bytes.
const CHUNK: usize = 32 * 1024;

/// Parts that wait for HTTP/2, which has a buffer of its own.
const CHUNKS: usize = 2;

/// A connection to a service that speaks something else than HTTP, as if it were a TCP one.
///
/// Each direction ends by itself: [`AsyncWriteExt::shutdown`](tokio::io::AsyncWriteExt::shutdown) ends what the service
/// reads, and a read of nothing is the end of what it writes. What was cut off is an error, and a connection that is
/// dropped before it was shut down is cut off for the service. It goes on while the session moves to another path.
pub struct Connection {
    read: StreamReader<BoxStream<'static, io::Result<Bytes>>, Bytes>,
    write: PollSender<Chunk>,
}

impl Connection {
    /// Opens one as soon as there is a session.
    pub(super) async fn open(way: &Way) -> Result<Self, Reason> {
        match way.kind().await {
            Some(ServiceKind::Tcp) => {}
            Some(ServiceKind::Http) => return Err(Reason::ServiceIsHttp),
            None => return Err(way.failure().unwrap_or(Reason::SessionTimeout)),
        }
        let (write, written) = mpsc::channel(CHUNKS);
        let body: RequestBody = Written::from(written).map_err(Into::into).boxed_unsync();
        let request: Request<RequestBody> = stream::opening(body);
        let response = way
            .send(request)
            .await
            .map_err(|failure| failure.reason())?;
        let body = stream::opened(response).map_err(|error| error.reason())?;
        let data = BodyDataStream::new(body).map_err(io::Error::other);
        Ok(Self {
            read: StreamReader::new(Box::pin(data)),
            write: PollSender::new(write),
        })
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let part = &bytes[..bytes.len().min(CHUNK)];
        let chunk = || Chunk::Data(Bytes::copy_from_slice(part));
        self.poll_send(cx, chunk).map_ok(|()| part.len())
    }

    /// What was written is on its way.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write.is_closed() {
            return Poll::Ready(Ok(()));
        }
        let ended = ready!(self.poll_send(cx, || Chunk::End));
        self.write.close();
        Poll::Ready(ended)
    }
}

impl Connection {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: impl FnOnce() -> Chunk,
    ) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.write.poll_reserve(cx)).map_err(gone)?;
        Poll::Ready(self.write.send_item(chunk()).map_err(gone))
    }
}
