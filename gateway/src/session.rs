//! Sessions: from an open channel 0 to HTTP/2 requests.
//!
//! ```text
//! channel ── handshake ──► accepted ──► lane ══ byte stream ══► hyper HTTP/2 server ──► proxy
//! another channel ── handshake, with the session's key ──► ▲ the same lane
//! ```
//! - [`table`]: the sessions there are. `admission`: who is let in.
//!
//! Each session runs in a task of its own: one that breaks the protocol or panics ends alone. It outlives
//! the channel that it began with.

mod admission;
pub mod table;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::id::{ClusterName, GrantId, NodeId, ServiceName};
use portway_protocol::key::SigningKey;
use portway_protocol::limits::MAX_STREAMS;
use portway_protocol::liveness;
use portway_protocol::reason::Reason;
use portway_protocol::rotation::Rotation;
use portway_protocol::session::binding::Binding;
use portway_protocol::session::party::Certificate;
use portway_protocol::token::user::UserClaims;
use portway_transport::lane::{Ask, CARRIERS, Carrier, FAREWELL, PathNews};
use portway_transport::webrtc::StreamRelays;
use portway_transport::webrtc::shortcut::Shortcut;
use portway_transport::{Channel, Path, lane};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::event::Ending;
use crate::audit::{self, Denials, SessionLog};
use crate::executor::TrackedExecutor;
use crate::flows::Flows;
use crate::grants::{Grants, Opened};
use crate::messages;
use crate::proxy::{self, ProxyBody, Visitor};
use crate::revocations::KnownRevocations;
use crate::service::{Service, Services};
use admission::{Admitted, Purpose, Session};
use table::{Attachment, Claimed, Entry, Moved, Table};

pub use admission::SessionError;

/// Bytes between lane and HTTP/2. What lies here comes before any other answer: at 20 MB/s, 64 KiB
/// are 3 ms.
const PIPE: usize = 64 * 1024;

/// HTTP/2 receive window of a stream: what an upload may have in flight.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// HTTP/2 receive window of a session. So many uploads that nobody reads leave room for others.
const CONNECTION_WINDOW: u32 = 12 * STREAM_WINDOW;

/// Bytes of a response that wait in HTTP/2 for the client's window.
const SEND_BUFFER: usize = 256 * 1024;

/// Largest header list.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// Resets that a client may cause before it counts as an attack.
const MAX_RESETS: usize = 1024;

/// Time for requests under way to end when the gateway drains.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between checks whether the grant is still valid.
const GRANT_CHECK: Duration = Duration::from_secs(1);

/// News of a path that may wait.
const PATH_NEWS: usize = 4;

/// Wishes that may wait for a lane: there is only one, to leave.
const ASKS: usize = 1;

/// Who this node is.
#[derive(Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeId,
    /// Its key.
    pub key: SigningKey,
    /// The cluster's word for that. May be renewed.
    pub certificate: RwLock<Arc<NodeCertificate>>,
}

/// What a node shows: its machine token to signaling and to clients, and to these how the cluster key came
/// to be the present one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The cluster's word that the key is the node.
    pub token: String,
    /// For those who know an earlier key of the cluster.
    pub rotations: Vec<Rotation>,
}

impl Identity {
    /// The certificate of now.
    #[must_use]
    pub fn certificate(&self) -> Arc<NodeCertificate> {
        self.certificate
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Another one, for those who come.
    pub fn renew(&self, certificate: NodeCertificate) {
        let renewed = Arc::new(certificate);
        *self
            .certificate
            .write()
            .unwrap_or_else(PoisonError::into_inner) = renewed;
    }
}

impl NodeCertificate {
    /// As the protocol has it.
    #[must_use]
    pub fn shown(&self) -> Certificate<'_> {
        Certificate {
            token: &self.token,
            rotations: &self.rotations,
        }
    }
}

/// Where sessions are recorded.
#[derive(Debug)]
pub struct Audit {
    log: audit::Log,
    refusals: Denials,
}

impl Audit {
    /// Records in this log.
    #[must_use]
    pub fn new(log: audit::Log) -> Self {
        Self {
            log,
            refusals: Denials::default(),
        }
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &audit::Log {
        &self.log
    }

    /// Notes that somebody was not let in, with what they wanted as far as they have said it.
    pub(crate) fn refused(
        &self,
        service: Option<ServiceName>,
        grant: Option<GrantId>,
        reason: Reason,
        path: Option<Path>,
    ) {
        if let Some(unrecorded) = self.refusals.next(Instant::now()) {
            self.log.note(audit::Event::SessionRefused {
                service,
                grant,
                reason,
                route: path.map(Into::into),
                unrecorded,
            });
        }
    }
}

/// What sessions of a gateway share.
#[derive(Debug)]
pub struct Context {
    /// This node.
    pub identity: Identity,
    /// What can be opened.
    pub services: Services,
    /// Who may.
    pub grants: Grants,
    /// The sessions there are.
    pub table: Table,
    /// Where they are recorded.
    pub audit: Audit,
    /// Which nodes are none any more.
    pub revocations: KnownRevocations,
    /// The relay in the same process, if there is one.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// A session's path is silent: so may be others of this machine, that to signaling among them.
    pub suspicion: watch::Sender<()>,
    /// How relays are reached by TCP and TLS.
    pub stream_relays: Arc<StreamRelays>,
    /// Peers and their sessions.
    pub tasks: TaskTracker,
    /// Cancelled when this gateway takes no more requests and ends when those under way have ended.
    pub draining: CancellationToken,
}

impl Context {
    /// What a grant allows on a service now, see [`Grants::claims`]. One to a node ends with that.
    pub(crate) fn claims(
        &self,
        grant: &GrantId,
        token: Option<&str>,
        service: &ServiceName,
    ) -> Result<UserClaims, Reason> {
        let claims = self.grants.claims(grant, token, service, unix_now())?;
        if self.revocations.get().name(&claims.cnf.ed25519) {
            return Err(Reason::NodeRevoked);
        }
        Ok(claims)
    }
}

/// Somebody who was let in, with the channel that they came by.
pub struct Arrival {
    channel: Arc<dyn Channel>,
    path: Option<Path>,
    admitted: Admitted,
}

/// Lets in whoever is at the other end of a channel. `binding`: the certificates of the channel's ends.
///
/// # Errors
/// If they were not.
pub async fn admit(
    context: &Arc<Context>,
    channel: Arc<dyn Channel>,
    binding: Binding,
    path: Option<Path>,
) -> Result<Arrival, SessionError> {
    match admission::admit(context, channel.as_ref(), binding, path).await {
        Ok(admitted) => Ok(Arrival {
            channel,
            path,
            admitted,
        }),
        Err(error) => {
            channel.close().await;
            Err(error)
        }
    }
}

impl Arrival {
    /// Where others see by which path they are reached.
    pub(crate) fn entry(&self) -> Arc<Entry> {
        match &self.admitted.purpose {
            Purpose::New(session) => session.registered.entry().clone(),
            Purpose::Resumed(entry) => entry.clone(),
        }
    }

    /// Serves them, and returns when their session uses the channel no more: it has ended, or goes on over
    /// another one.
    ///
    /// Meanwhile, `datagrams` goes on: whatever carries the session's datagrams by the same connection.
    pub async fn serve<D>(self, context: &Arc<Context>, datagrams: impl FnOnce(Arc<Flows>) -> D)
    where
        D: Future<Output = ()>,
    {
        let (carrier, released) = Carrier::new(self.channel.clone());
        let attachment = Attachment {
            carrier,
            introduction: self.admitted.introduction,
            path: self.path,
        };
        let flows = match self.admitted.purpose {
            Purpose::New(session) => {
                let flows = session.registered.entry().flows().clone();
                let serving = serve(context.clone(), session, attachment);
                drop(context.tasks.spawn(serving));
                flows
            }
            Purpose::Resumed(entry) => {
                entry.attach(attachment).await;
                entry.flows().clone()
            }
        };
        released.run_until_cancelled(datagrams(flows)).await;
        released.cancelled().await;
        self.channel.close().await;
    }
}

/// Runs one session to its end, over whatever channels it gets.
async fn serve(context: Arc<Context>, session: Session, first: Attachment) {
    let Session {
        registered,
        mut attachments,
        permission,
        service,
        token,
        max_message,
    } = session;
    let id = registered.claimed().session;
    let grant = registered.claimed().grant;
    let opened = Opened {
        at: unix_now(),
        device: registered.claimed().device,
        address: first.path.map(|path| path.remote),
    };
    context.grants.opened(&grant, opened);
    let tasks = TaskTracker::new();
    let over = CancellationToken::new();
    registered.moved(first.introduction, first.path);
    let entry = registered.entry().clone();
    let log = SessionLog::opened(context.audit.log.clone(), entry, first.path);
    let log = Arc::new(log);
    let visitor = Visitor {
        user: registered.claimed().user.clone(),
        path: registered.path(),
        flows: registered.entry().flows().clone(),
        permission,
        publishing: messages::allowance(),
        tasks: tasks.clone(),
        ended: over.clone(),
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let handling = Handling {
        service,
        visitor,
        log: log.clone(),
    };
    let http = serve_http(near, handling, tasks.clone(), &context.draining);
    let (news, path_news) = mpsc::channel(PATH_NEWS);
    let (carriers, next_carriers) = mpsc::channel(CARRIERS);
    let (asks, asked) = mpsc::channel(ASKS);
    let terms = lane::Terms {
        traffic: registered.traffic(),
        patience: liveness::GATEWAY,
        max_message,
        asks: Some(asked),
        news: Some(news),
        carriers: Some(next_carriers),
    };
    let mut served = Box::pin(served(http, lane::run(first.carrier, far, terms)));
    let suspecting = suspect(&context, path_news);
    let expiring = grant_ends(&context, registered.claimed(), token.as_deref());
    tokio::pin!(suspecting, expiring);
    let why = loop {
        tokio::select! {
            () = &mut suspecting => break Ending::Failed,
            reason = &mut expiring => {
                tracing::info!(session = %id, %reason, "a grant ended, and its session with it");
                let told = asks.try_send(Ask::Leave(reason));
                if told.is_err() || tokio::time::timeout(FAREWELL, &mut served).await.is_err() {
                    tracing::debug!(session = %id, "its client has not heard why");
                }
                break Ending::GrantEnded;
            }
            ended = &mut served => {
                if let Err(error) = &ended {
                    tracing::debug!(session = %id, %error, "a lane ended");
                }
                break ending(&context, ended);
            }
            Some(next) = attachments.recv() => {
                tracing::info!(session = %id, "a session goes on by another path");
                registered.moved(next.introduction, next.path);
                log.moved(next.path);
                if carriers.try_send(next.carrier).is_err() {
                    tracing::debug!(session = %id, "a session moves too often");
                }
            }
        }
    };
    log.ends(why);
    // Requests under way wait for their connection, if it is there: the end of it is theirs.
    drop(served);
    over.cancel();
    tasks.close();
    tasks.wait().await;
    let Moved { received, sent } = registered.entry().moved();
    let told = context.clone();
    let writing = tokio::task::spawn_blocking(move || told.grants.closed(&grant, received, sent));
    if let Err(panic) = writing.await {
        tracing::error!(%panic, "what became of a link is not kept");
    }
    let datagrams = registered.entry().flows().counters().tally();
    if !datagrams.is_empty() {
        tracing::info!(session = %id, ?datagrams, "what became of its datagrams");
    }
    tracing::info!(session = %id, "session ended");
}

/// Why a session whose lane has ended is over.
fn ending(context: &Context, lane: Result<(), lane::EndedBy>) -> Ending {
    if context.draining.is_cancelled() {
        return Ending::GatewayEnded;
    }
    match lane {
        Ok(()) | Err(lane::EndedBy::Bye(_)) => Ending::ClientLeft,
        Err(lane::EndedBy::Closed(_) | lane::EndedBy::Silence) => Ending::PathLost,
        Err(lane::EndedBy::Violation(_) | lane::EndedBy::Overrun | lane::EndedBy::Pipe(_)) => {
            Ending::Failed
        }
    }
}

/// Passes on that a path is silent. It is the client that looks for another one; for that, both ends need
/// signaling.
async fn suspect(context: &Context, mut news: mpsc::Receiver<PathNews>) {
    while let Some(news) = news.recv().await {
        match news {
            PathNews::Silent => {
                context.suspicion.send_replace(());
            }
            PathNews::Back => {}
        }
    }
    std::future::pending().await
}

/// Runs HTTP/2 and its lane until the lane ends. What HTTP/2 has said when it ends still arrives.
async fn served(
    http: impl Future<Output = ()>,
    lane: impl Future<Output = Result<(), lane::EndedBy>>,
) -> Result<(), lane::EndedBy> {
    tokio::pin!(lane);
    tokio::select! {
        ended = &mut lane => ended,
        () = http => tokio::time::timeout(DRAIN_TIMEOUT, lane).await.unwrap_or(Ok(())),
    }
}

/// Waits until the grant has expired or was revoked, and tells which.
async fn grant_ends(context: &Context, claimed: &Claimed, token: Option<&str>) -> Reason {
    let mut revoked = context.grants.revoked();
    loop {
        let valid = context.claims(&claimed.grant, token, &claimed.service);
        if let Err(reason) = valid {
            return reason;
        }
        tokio::select! {
            () = tokio::time::sleep(GRANT_CHECK) => {}
            // The sender lives as long as the grants do.
            Ok(()) = revoked.changed() => {}
        }
    }
}

/// What requests of a session need.
struct Handling {
    service: Arc<Service>,
    visitor: Visitor,
    log: Arc<SessionLog>,
}

async fn serve_http(
    io: tokio::io::DuplexStream,
    handling: Handling,
    tasks: TaskTracker,
    draining: &CancellationToken,
) {
    let sockets = handling.visitor.ended.clone();
    let handling = Arc::new(handling);
    let handler = service_fn(move |request: Request<Incoming>| {
        let handling = handling.clone();
        async move {
            let Handling {
                service,
                visitor,
                log,
            } = &*handling;
            let response: Response<ProxyBody> = proxy::handle(service, visitor, log, request).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http2::Builder::new(TrackedExecutor(tasks))
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), handler);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // A WebSocket has no end of its own.
            sockets.cancel();
            let rest = tokio::time::timeout(DRAIN_TIMEOUT, connection);
            rest.await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP/2 of a session ended");
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
