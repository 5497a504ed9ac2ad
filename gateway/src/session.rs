//! Sessions: from an open channel 0 to HTTP/2 requests.
//!
//! ```text
//! channel ── handshake ──► accepted ──► lane ══ byte stream ══► hyper HTTP/2 server ──► proxy
//! ```
//! - [`table`]: the sessions there are.
//!
//! Each session runs in a task of its own: one that breaks the protocol or panics ends alone.

pub mod table;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portway_protocol::id::{ClusterName, NodeId, Nonce};
use portway_protocol::limits::{HANDSHAKE_TIMEOUT, MAX_STREAMS};
use portway_protocol::liveness;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::session::handshake::{self, Accepted, Claim, HandshakeError};
use portway_transport::lane::PathNews;
use portway_transport::webrtc::StreamRelays;
use portway_transport::webrtc::shortcut::Shortcut;
use portway_transport::{Channel, Closed, Path, lane};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::executor::TrackedExecutor;
use crate::grants::Grants;
use crate::proxy::{self, ProxyBody, Visitor};
use crate::service::{Service, Services};
use table::{Entry, Table};

/// Bytes between lane and HTTP/2. What lies here comes before any other answer: at 20 MB/s, 64 KiB
/// are 3 ms.
const PIPE: usize = 64 * 1024;

/// HTTP/2 receive window of a stream: what an upload may have in flight.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// HTTP/2 receive window of a session.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

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

/// What sessions of a gateway share.
#[derive(Debug)]
pub struct Context {
    /// The cluster.
    pub cluster: ClusterName,
    /// This node.
    pub node: NodeId,
    /// What can be opened.
    pub services: Services,
    /// Who may.
    pub grants: Grants,
    /// The sessions there are.
    pub table: Table,
    /// The relay in the same process, if there is one.
    pub shortcut: Option<Arc<dyn Shortcut>>,
    /// A session's path is silent: so may be others of this machine, that to signaling among them.
    pub suspicion: watch::Sender<()>,
    /// How relays are reached by TCP and TLS.
    pub stream_relays: Arc<StreamRelays>,
    /// Cancelled when this gateway takes no more requests and ends when those under way have ended.
    pub draining: CancellationToken,
}

/// Why a session ended before it began.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The other end broke the handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The channel closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The client was turned away.
    #[error("refused: {0}")]
    Refused(Reason),
}

/// Runs one session to its end. `id` must not be in the table yet.
///
/// # Errors
/// If it never began.
pub async fn run(
    context: Arc<Context>,
    channel: Arc<dyn Channel>,
    path: Option<Path>,
    ended: CancellationToken,
) -> Result<(), SessionError> {
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept(&context, channel.as_ref()))
        .await
        .unwrap_or(Err(SessionError::Timeout));
    let session = match accepted {
        Ok(session) => session,
        Err(error) => {
            if let Some(reason) = refusal(&error)
                && channel
                    .send(handshake::refused(reason).into())
                    .await
                    .is_ok()
            {
                // The client closes once it has read why.
                while channel.recv().await.is_some() {}
            }
            channel.close().await;
            return Err(error);
        }
    };
    let tasks = TaskTracker::new();
    let entry = context.table.insert(Entry::new(
        session.claim.session,
        session.user.clone(),
        session.claim.service.clone(),
        session.claim.grant,
        path,
    ));
    let visitor = Visitor {
        user: session.user.clone(),
        path,
        permission: session.permission.clone(),
        tasks: tasks.clone(),
        ended: ended.child_token(),
    };
    let (near, far) = tokio::io::duplex(PIPE);
    let http = serve_http(
        near,
        session.service.clone(),
        visitor,
        tasks.clone(),
        &context.draining,
    );
    let (news, path_news) = mpsc::channel(PATH_NEWS);
    let terms = lane::Terms {
        traffic: entry.traffic(),
        patience: liveness::GATEWAY,
        asks: None,
        news: Some(news),
    };
    let lane = lane::run(channel.as_ref(), far, terms);
    tokio::select! {
        () = ended.cancelled() => {}
        () = suspect(&context, path_news) => {}
        ended = served(http, lane) => if let Err(error) = ended {
            tracing::debug!(%error, "a lane ended");
        },
        () = grant_ends(&context, &session.claim) => tracing::info!("a grant ended, and its session with it"),
    }
    ended.cancel();
    channel.close().await;
    tasks.close();
    tasks.wait().await;
    Ok(())
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

/// A client that was let in.
struct Session {
    claim: Claim,
    user: String,
    permission: Permission,
    service: Arc<Service>,
}

async fn accept(context: &Context, channel: &dyn Channel) -> Result<Session, SessionError> {
    let first = channel.recv().await.ok_or(Closed)?;
    let (reply, handshake) =
        handshake::hello(&first, &context.cluster, &context.node, fresh_nonce())?;
    channel.send(reply.into()).await?;
    let proof = channel.recv().await.ok_or(Closed)?;
    let claim = handshake.receive(&proof)?;
    let (session, verdict) = judge(context, claim).map_err(SessionError::Refused)?;
    channel.send(handshake::accepted(&verdict).into()).await?;
    Ok(session)
}

/// Believes a claim or not. The proof is checked before anything about services is revealed.
fn judge(context: &Context, claim: Claim) -> Result<(Session, Accepted), Reason> {
    let claims = context.grants.claims(
        &claim.grant,
        claim.token.as_deref(),
        &claim.service,
        unix_now(),
    )?;
    claim
        .verify(&claims.cnf.ed25519)
        .map_err(|_| Reason::ProofInvalid)?;
    let permission = claims
        .permission(&claim.service)
        .cloned()
        .ok_or(Reason::PermissionDenied)?;
    let service = context
        .services
        .get(&claim.service)
        .ok_or(Reason::ServiceUnknown)?;
    let verdict = Accepted {
        user: claims.sub.clone(),
        expires: claims.exp,
        services: vec![permission.clone()],
    };
    let session = Session {
        claim,
        user: claims.sub,
        permission,
        service,
    };
    Ok((session, verdict))
}

fn refusal(error: &SessionError) -> Option<Reason> {
    match error {
        SessionError::Handshake(error) => Some(error.reason()),
        SessionError::Refused(reason) => Some(*reason),
        SessionError::Timeout => Some(Reason::SessionTimeout),
        SessionError::Closed(_) => None,
    }
}

/// Waits until the grant has expired or was revoked.
async fn grant_ends(context: &Context, claim: &Claim) {
    loop {
        tokio::time::sleep(GRANT_CHECK).await;
        let token = claim.token.as_deref();
        let valid = context
            .grants
            .claims(&claim.grant, token, &claim.service, unix_now());
        if valid.is_err() {
            return;
        }
    }
}

async fn serve_http(
    io: tokio::io::DuplexStream,
    service: Arc<Service>,
    visitor: Visitor,
    tasks: TaskTracker,
    draining: &CancellationToken,
) {
    let sockets = visitor.ended.clone();
    let visitor = Arc::new(visitor);
    let handler = service_fn(move |request: Request<Incoming>| {
        let (service, visitor) = (service.clone(), visitor.clone());
        async move {
            let response: Response<ProxyBody> = proxy::handle(&service, &visitor, request).await;
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

fn fresh_nonce() -> Nonce {
    let mut bytes = [0; Nonce::LEN];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    Nonce::from_bytes(bytes)
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}
