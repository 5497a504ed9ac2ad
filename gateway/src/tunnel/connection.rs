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
    /// Opens one to a service of that kind as soon as there is a session.
    pub(super) async fn open(way: &Way, wanted: ServiceKind) -> Result<Self, Reason> {
        match way.kind().await {
            Some(kind) => kind.require(wanted)?,
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use ::http::Response;
    use hyper::body::Incoming;
    use hyper::client::conn::http2 as client;
    use hyper::server::conn::http2 as server;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::{oneshot, watch};
    use tokio::task::JoinSet;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::client::keeper::Current;
    use crate::client::session::Requests;
    use crate::executor::TrackedExecutor;

    fn executor() -> TrackedExecutor {
        TrackedExecutor(TaskTracker::new())
    }

    /// A connection, the service's end of it (what it reads, where it writes), and whoever runs both.
    async fn connected() -> (Connection, Incoming, mpsc::Sender<Chunk>, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let (near, far) = tokio::io::duplex(CHUNK);
        let (asked, comes) = oneshot::channel();
        let (write, written) = mpsc::channel(CHUNKS);
        let ends = Mutex::new(Some((asked, Written::from(written))));
        tasks.spawn(async move {
            let service = service_fn(|request: ::http::Request<Incoming>| {
                let (asked, body) = ends.lock().unwrap().take().unwrap();
                asked.send(request.into_body()).unwrap();
                std::future::ready(Ok::<_, Infallible>(Response::new(body)))
            });
            let serving = server::Builder::new(executor());
            drop(serving.serve_connection(TokioIo::new(far), service).await);
        });
        let connecting = client::Builder::new(executor());
        let (requests, running) = connecting.handshake(TokioIo::new(near)).await.unwrap();
        tasks.spawn(async move { drop(running.await) });
        let (_keeper, current) = watch::channel(Current {
            requests: Some(Requests::from(requests)),
            kind: Some(ServiceKind::Tcp),
            failure: None,
            flows: None,
        });
        let way = Way::new("db".parse().unwrap(), current);
        let connection = Connection::open(&way, ServiceKind::Tcp).await.unwrap();
        (connection, comes.await.unwrap(), write, tasks)
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut connection, asked, write, _tasks) = connected().await;
        connection.write_all(&[7; 3 * CHUNK]).await.unwrap();
        connection.shutdown().await.unwrap();
        connection.shutdown().await.unwrap();
        assert!(connection.write_all(b"more").await.is_err());
        assert_eq!(
            asked.collect().await.unwrap().to_bytes(),
            vec![7; 3 * CHUNK]
        );
        write.send(Chunk::Data("heard".into())).await.unwrap();
        write.send(Chunk::End).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "heard");
    }

    #[tokio::test]
    async fn what_the_service_cuts_off_is_an_error() {
        let (mut connection, _asked, write, _tasks) = connected().await;
        write.send(Chunk::Data("half".into())).await.unwrap();
        drop(write);
        // What had come before may be lost, as with TCP.
        assert!(connection.read_to_end(&mut Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn what_is_dropped_is_cut_off_for_the_service() {
        let (mut connection, asked, _write, _tasks) = connected().await;
        connection.write_all(b"half").await.unwrap();
        drop(connection);
        assert!(asked.collect().await.is_err());
    }
}
