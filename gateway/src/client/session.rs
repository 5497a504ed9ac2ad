//! A session that was accepted: requests, pings, and the task that keeps it going.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::id::NodeId;
use portway_protocol::liveness;
use portway_protocol::reason::Reason;
use portway_protocol::session::handshake::Accepted;
use portway_transport::lane::{self, Ask, PathNews, Traffic};
use portway_transport::webrtc::Peer;
use portway_transport::{Channel, Path};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exchange::{Exchange, News};
use super::{ClientError, Opening};
use crate::executor::TrackedExecutor;

/// Bytes between HTTP/2 and lane.
const PIPE: usize = 64 * 1024;

/// HTTP/2 receive window of a stream: what a slow reader may leave unread.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// HTTP/2 receive window of the session.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes of a request that wait in HTTP/2 for the gateway's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Largest header list of a response.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Wishes that may wait for the lane.
const ASKS: usize = 16;

/// News of the path that may wait.
const PATH_NEWS: usize = 4;

/// Time for an orderly end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a request may carry.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A session to one service. Dropping it ends it at once; [`Session::close`] says goodbye first.
pub struct Session {
    /// The node that serves it.
    pub node: NodeId,
    /// What it allows.
    pub accepted: Accepted,
    /// How long it took to open.
    pub opening: Opening,
    requests: Requests,
    asks: mpsc::Sender<Ask>,
    peer: Arc<Peer>,
    closing: CancellationToken,
    driver: JoinSet<ClientError>,
}

/// Where the requests of a session go.
#[derive(Debug, Clone)]
pub struct Requests(http2::SendRequest<RequestBody>);

/// Why there is no response.
#[derive(Debug)]
pub enum Unanswered {
    /// The request was not sent: it can go another way.
    NotSent(Box<Request<RequestBody>>),
    /// It may have been.
    Lost(hyper::Error),
}

/// What the gateway has let in.
pub(super) struct Welcome {
    pub(super) channel: Arc<dyn Channel>,
    pub(super) node: NodeId,
    pub(super) accepted: Accepted,
}

impl Session {
    /// Starts HTTP/2 and the task that keeps it going.
    pub(super) async fn start(
        welcome: Welcome,
        opening: Opening,
        mut exchange: Exchange,
    ) -> Result<Self, ClientError> {
        let (near, far) = tokio::io::duplex(PIPE);
        let (requests, http) = http2::Builder::new(TrackedExecutor(TaskTracker::new()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buf_size(SEND_BUFFER)
            .handshake::<_, RequestBody>(TokioIo::new(near))
            .await?;
        exchange.is_with(welcome.node.clone());
        let (asks, asked) = mpsc::channel(ASKS);
        let closing = CancellationToken::new();
        let peer = exchange.peer();
        let driver = Driver {
            channel: welcome.channel,
            pipe: far,
            http: Box::pin(http),
            exchange,
            asks: asks.downgrade(),
            asked,
            closing: closing.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Ok(Self {
            node: welcome.node,
            accepted: welcome.accepted,
            opening,
            requests: Requests(requests),
            asks,
            peer,
            closing,
            driver: tasks,
        })
    }

    /// Where its requests go.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// How the node is reached now.
    pub async fn path(&self) -> Option<Path> {
        self.peer.path().await
    }

    /// Measures a round trip through the session.
    ///
    /// # Errors
    /// [`ClientError::Ended`] if it ends before.
    pub async fn ping(&self) -> Result<Duration, ClientError> {
        let (asker, measured) = oneshot::channel();
        let asked = self.asks.send(Ask::Ping(asker)).await;
        asked.map_err(|_| ClientError::Ended)?;
        measured.await.map_err(|_| ClientError::Ended)
    }

    /// Waits until the session has ended, and tells why. Nothing is lost if this is cancelled.
    ///
    /// # Panics
    /// If its task did.
    pub async fn ended(&mut self) -> ClientError {
        match self.driver.join_next().await {
            Some(Ok(error)) => error,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => ClientError::Ended,
            },
            None => ClientError::Ended,
        }
    }

    /// Ends it in order.
    pub async fn close(mut self) {
        self.closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.ended())
            .await
            .is_err()
        {
            tracing::debug!("the session took too long to end");
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Requests {
    /// Sends a request; the response's body streams.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let sent = self.0.try_send_request(request).await;
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::NotSent(Box::new(request)),
            None => Unanswered::Lost(error.into_error()),
        })
    }

    /// Whether no more request can be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

type Http = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Keeps a session going.
struct Driver {
    channel: Arc<dyn Channel>,
    pipe: DuplexStream,
    http: Http,
    exchange: Exchange,
    asks: mpsc::WeakSender<Ask>,
    asked: mpsc::Receiver<Ask>,
    closing: CancellationToken,
}

impl Driver {
    /// Runs to the session's end.
    async fn run(mut self) -> ClientError {
        let traffic = Traffic::default();
        let (news, mut path_news) = mpsc::channel(PATH_NEWS);
        let terms = lane::Terms {
            traffic: &traffic,
            patience: liveness::CLIENT,
            asks: Some(self.asked),
            news: Some(news),
        };
        let lane = lane::run(self.channel.as_ref(), self.pipe, terms);
        tokio::pin!(lane);
        let error = loop {
            tokio::select! {
                ended = &mut lane => break ended.map_or_else(Into::into, |()| ClientError::Ended),
                ended = &mut self.http => break ended.map_or_else(Into::into, |()| ClientError::Ended),
                () = self.closing.cancelled() => break ClientError::Ended,
                Some(news) = path_news.recv() => match news {
                    PathNews::Silent => {
                        tracing::info!("the path is silent: looking for another one");
                        if let Err(error) = self.exchange.restart().await {
                            break error;
                        }
                    }
                    PathNews::Back => if self.exchange.recovered() {
                        tracing::info!("there is a path again");
                    },
                },
                event = self.exchange.event() => match self.exchange.handle(event).await {
                    // The session does not need signaling. Where both run on one machine, its end is
                    // the first sign that this has gone.
                    Ok(News::SignalingLost(error)) => {
                        tracing::info!(%error, "signaling is away");
                        doubt(&self.asks);
                    }
                    Ok(News::NodeOnline) if self.exchange.is_silent() => {
                        if let Err(error) = self.exchange.restart().await {
                            break error;
                        }
                    }
                    Ok(News::NodeOffline | News::NodeOnline) => doubt(&self.asks),
                    Ok(News::PeerEnded) => break ClientError::Ended,
                    Ok(News::Answered | News::Connected | News::Nothing) => {}
                    Err(error) => break error,
                },
            }
        };
        self.channel.close().await;
        self.exchange.leave(Reason::SessionLost).await;
        error
    }
}

/// Has the lane look soon. A lane that cannot even take this has pings to wait for.
fn doubt(asks: &mpsc::WeakSender<Ask>) {
    if let Some(asks) = asks.upgrade()
        && asks.try_send(Ask::Doubt).is_err()
    {
        tracing::debug!("the lane has enough to look for");
    }
}
