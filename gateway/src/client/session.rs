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
use portway_protocol::key::PublicKey;
use portway_protocol::lane::MaxMessage;
use portway_protocol::liveness;
use portway_protocol::reason::Reason;
use portway_protocol::session::handshake::Accepted;
use portway_protocol::session::party::Proven;
use portway_protocol::session::resumption::{Deadlines, PAUSE, Resumption, is_over};
use portway_protocol::target::ServiceKind;
use portway_transport::lane::{self, Ask, CARRIERS, Carrier, FAREWELL, PathNews, Traffic};
use portway_transport::webrtc::Peer;
use portway_transport::{Channel, Path};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connect::{Reached, reach};
use super::exchange::{Exchange, News};
use super::stream;
use super::{ClientError, Opening, Target};
use crate::executor::TrackedExecutor;
use crate::flows::{self, Counters, Flows};

/// Bytes between HTTP/2 and lane.
const PIPE: usize = 64 * 1024;

/// HTTP/2 receive window of a stream: what a slow reader may leave unread.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// HTTP/2 receive window of the session. So many streams that nobody reads leave room for others.
const CONNECTION_WINDOW: u32 = 12 * STREAM_WINDOW;

/// Bytes of a request that wait in HTTP/2 for the gateway's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Largest header list of a response.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// Wishes that may wait for the lane.
const ASKS: usize = 16;

/// News of the path that may wait.
const PATH_NEWS: usize = 4;

/// Time for an orderly end: a goodbye, and the end of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const _: () = assert!(CLOSE_TIMEOUT.as_millis() > FAREWELL.as_millis());

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
    flows: Arc<Flows>,
    asks: mpsc::Sender<Ask>,
    peer: watch::Receiver<Arc<Peer>>,
    closing: CancellationToken,
    driver: JoinSet<ClientError>,
}

/// Where the requests of a session go.
#[derive(Debug, Clone)]
pub struct Requests(http2::SendRequest<RequestBody>);

impl From<http2::SendRequest<RequestBody>> for Requests {
    fn from(sender: http2::SendRequest<RequestBody>) -> Self {
        Self(sender)
    }
}

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
    pub(super) proven: Proven,
    pub(super) accepted: Accepted,
}

impl Session {
    /// Starts HTTP/2 and the task that keeps it going.
    pub(super) async fn start(
        mut target: Target,
        reached: Reached,
        datagrams: Arc<Counters>,
    ) -> Result<Self, ClientError> {
        let Reached {
            id,
            welcome,
            opening,
            exchange,
        } = reached;
        let (near, far) = tokio::io::duplex(PIPE);
        let (requests, http) = http2::Builder::new(TrackedExecutor(TaskTracker::new()))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_send_buf_size(SEND_BUFFER)
            .handshake::<_, RequestBody>(TokioIo::new(near))
            .await?;
        // Wherever it goes on, it is there.
        let Proven { node, key, .. } = welcome.proven;
        target.node = Some(node.clone());
        let (asks, asked) = mpsc::channel(ASKS);
        let closing = CancellationToken::new();
        let (peer, peers) = watch::channel(exchange.peer());
        let flows = Arc::new(Flows::new(datagrams));
        let driver = Driver {
            target,
            flows: flows.clone(),
            carrying: JoinSet::new(),
            node_key: key,
            resumption: Resumption {
                session: id,
                key: welcome.accepted.resumption.clone(),
            },
            max_message: welcome.accepted.max_message,
            deadlines: Deadlines::after(
                opening.signaling,
                opening.session.saturating_sub(opening.signaling),
            ),
            exchange,
            peer,
            silent: None,
            failures: 0,
            attempted: Instant::now(),
            replacing: JoinSet::new(),
            leaving: JoinSet::new(),
            asks: asks.downgrade(),
        };
        let running = driver.run(
            Carrier::new(welcome.channel).0,
            far,
            Box::pin(http),
            asked,
            closing.clone(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(running);
        Ok(Self {
            node,
            accepted: welcome.accepted,
            opening,
            requests: Requests::from(requests),
            flows,
            asks,
            peer: peers,
            closing,
            driver: tasks,
        })
    }

    /// Connects a reader and a writer with a service that speaks something else than HTTP, until that has
    /// written all.
    ///
    /// # Errors
    /// [`Reason::ServiceIsHttp`], [`Reason::ServiceIsUdp`], the gateway's reason, or what cut the connection off.
    pub async fn join(
        &self,
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ClientError> {
        let kind = self.accepted.kind.require(ServiceKind::Tcp);
        kind.map_err(ClientError::Refused)?;
        let (request, _) = stream::request(reader);
        let response = self.requests().send(request).await?;
        stream::receive(stream::opened(response)?, writer).await
    }

    /// Where its requests go.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Its datagrams, if the service speaks UDP.
    pub(super) const fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// How the node is reached now.
    pub async fn path(&self) -> Option<Path> {
        let peer = self.peer.borrow().clone();
        peer.path().await
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
    target: Target,
    /// Of the node that has the session.
    node_key: PublicKey,
    resumption: Resumption,
    /// What the gateway takes.
    max_message: MaxMessage,
    deadlines: Deadlines,
    /// Of the channel in use.
    exchange: Exchange,
    /// Told to whoever wants to know the path.
    peer: watch::Sender<Arc<Peer>>,
    /// Since when nothing comes.
    silent: Option<Instant>,
    /// Attempts that have failed since then.
    failures: u32,
    /// When another channel was looked for, the last time.
    attempted: Instant,
    /// Another channel, if one is looked for.
    replacing: JoinSet<Result<Reached, ClientError>>,
    flows: Arc<Flows>,
    /// Their channel of the connection in use.
    carrying: JoinSet<()>,
    /// Connections that are no more used.
    leaving: JoinSet<()>,
    asks: mpsc::WeakSender<Ask>,
}

impl Driver {
    /// Runs to the session's end.
    async fn run(
        mut self,
        carrier: Carrier,
        pipe: DuplexStream,
        mut http: Http,
        asked: mpsc::Receiver<Ask>,
        closing: CancellationToken,
    ) -> ClientError {
        let traffic = Traffic::default();
        let revocations = self.target.revocations.clone();
        let (news, mut path_news) = mpsc::channel(PATH_NEWS);
        let (carriers, next_carriers) = mpsc::channel(CARRIERS);
        let terms = lane::Terms {
            traffic: &traffic,
            patience: liveness::CLIENT,
            max_message: self.max_message,
            asks: Some(asked),
            news: Some(news),
            carriers: Some(next_carriers),
        };
        let lane = lane::run(carrier, pipe, terms);
        tokio::pin!(lane);
        self.carry();
        let error = loop {
            tokio::select! {
                ended = &mut lane => break ended.map_or_else(Into::into, |()| ClientError::Ended),
                ended = &mut http => break ended.map_or_else(Into::into, |()| ClientError::Ended),
                () = closing.cancelled() => {
                    if self.ask(Ask::Leave(Reason::SessionLost))
                        && tokio::time::timeout(FAREWELL, &mut lane).await.is_err()
                    {
                        tracing::debug!("nobody has heard our goodbye");
                    }
                    break ClientError::Ended;
                }
                () = revocations.revoked(&self.node_key) => break ClientError::Refused(Reason::NodeRevoked),
                Some(news) = path_news.recv() => match news {
                    PathNews::Silent => self.replace(),
                    PathNews::Back => {
                        tracing::info!("there is a path again");
                        self.silent = None;
                        self.failures = 0;
                    }
                },
                // An attempt that panicked has found nothing.
                Some(reached) = self.replacing.join_next() => match reached.unwrap_or(Err(ClientError::NoPath)) {
                    Ok(reached) => self.go_on(reached, &carriers),
                    Err(error) if is_over(error.failed_by(), error.reason(), self.silence()) => break error,
                    Err(error) => {
                        tracing::debug!(%error, "no other path yet");
                        self.failures += 1;
                        if self.silent.is_some() && self.attempted.elapsed() >= PAUSE {
                            self.replace();
                        }
                    }
                },
                Some(_left) = self.leaving.join_next() => {}
                Some(_ended) = self.carrying.join_next() => {}
                event = self.exchange.event() => match self.exchange.handle(event).await {
                    // The session does not need signaling. Where both run on one machine, its end is
                    // the first sign that this has gone.
                    Ok(News::SignalingLost(error)) => {
                        tracing::info!(%error, "signaling is away");
                        self.doubt();
                    }
                    Ok(News::NodeOffline | News::NodeOnline) => self.doubt(),
                    // The lane notices itself that its channel has closed.
                    Ok(News::PeerEnded | News::Answered | News::Connected | News::Nothing) => {}
                    // Whatever it wants: it may lie.
                    Err(error) => {
                        tracing::warn!(%error, "signaling is not heard any more: it cannot end this session");
                        self.exchange.hang_up();
                        self.doubt();
                    }
                },
            }
        };
        self.exchange.peer().close().await;
        error
    }

    /// Looks for another channel. The present one stays: its path may come back first.
    fn replace(&mut self) {
        self.silent.get_or_insert_with(Instant::now);
        if !self.replacing.is_empty() {
            return;
        }
        tracing::info!("the path is silent: looking for another one");
        self.attempted = Instant::now();
        let deadlines = self.deadlines.after_failures(self.failures);
        let target = self.target.clone();
        let resumption = Some(self.resumption.clone());
        self.replacing
            .spawn(async move { reach(&target, resumption, deadlines).await });
    }

    /// Has the lane look soon. A lane that cannot even take this has pings to wait for.
    fn doubt(&self) {
        if !self.ask(Ask::Doubt) {
            tracing::debug!("the lane has enough to look for");
        }
    }

    /// Returns whether the lane will hear of it.
    fn ask(&self, wish: Ask) -> bool {
        let asks = self.asks.upgrade();
        asks.is_some_and(|asks| asks.try_send(wish).is_ok())
    }

    /// Has datagrams go by the connection in use.
    fn carry(&mut self) {
        let (peer, flows) = (self.exchange.peer(), self.flows.clone());
        self.carrying.abort_all();
        self.carrying.spawn(async move {
            if let Ok(channel) = peer.open_datagrams().await {
                flows::carry(channel, flows).await;
            }
        });
    }

    fn silence(&self) -> Duration {
        self.silent.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn go_on(&mut self, reached: Reached, carriers: &mpsc::Sender<Carrier>) {
        let carrier = Carrier::new(reached.welcome.channel).0;
        if carriers.try_send(carrier).is_err() {
            tracing::debug!("the lane has more channels than it can take");
        }
        let before = std::mem::replace(&mut self.exchange, reached.exchange);
        self.peer.send_replace(self.exchange.peer());
        self.carry();
        self.leaving
            .spawn(async move { before.peer().close().await });
    }
}
