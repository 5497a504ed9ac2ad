//! The control socket of a running instance: HTTP with JSON over a Unix socket in the state
//! directory. Who may open the file may control the instance. [`relay`]: what a relay is asked there.

pub(crate) mod relay;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use portway_gateway::service::{ServiceSpec, Trust};
use portway_gateway::session::table::SessionView;
use portway_protocol::id::{GrantId, ServiceName};
use portway_protocol::reason::Exit;
use portway_protocol::signal::ServiceHealth;
use portway_protocol::target::ServiceTarget;
use portway_signaling::store::Entry;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::exit::Failure;
use crate::links::{GrantRequest, Granted, Links};

/// Name of the socket in the state directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Largest answer that a client reads.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A service to add.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewService {
    pub(crate) name: ServiceName,
    pub(crate) target: ServiceTarget,
    pub(crate) authority: Option<std::path::PathBuf>,
    pub(crate) insecure: bool,
}

/// A service as `portway services` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceView {
    pub(crate) name: ServiceName,
    pub(crate) target: ServiceTarget,
    pub(crate) health: ServiceHealth,
    pub(crate) url: String,
}

/// A service that can be opened.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exposed {
    pub(crate) name: ServiceName,
    pub(crate) url: String,
    pub(crate) link: String,
}

/// Whether a grant was there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) revoked: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    message: String,
}

impl From<&args::Exposed> for NewService {
    fn from(service: &args::Exposed) -> Self {
        let (authority, insecure) = match &service.trust {
            args::Trust::System => (None, false),
            args::Trust::Authority(path) => (Some(path.clone()), false),
            args::Trust::Any => (None, true),
        };
        Self {
            name: service.name.clone(),
            target: service.target.clone(),
            authority,
            insecure,
        }
    }
}

impl NewService {
    /// As the gateway wants it.
    pub(crate) fn spec(self) -> ServiceSpec {
        ServiceSpec {
            name: self.name,
            target: self.target,
            trust: match (self.authority, self.insecure) {
                (Some(path), _) => Trust::Authority(path),
                (None, true) => Trust::Any,
                (None, false) => Trust::System,
            },
        }
    }
}

/// Binds the socket; a stale one of a process that is gone is replaced.
pub(crate) async fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    if UnixStream::connect(path).await.is_ok() {
        return Err(Failure::configuration(format!(
            "another portway uses this state directory ({}); stop it, or give --state DIR",
            path.parent().unwrap_or(path).display()
        ))
        .into());
    }
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let listener = UnixListener::bind(path)
        .with_context(|| format!("cannot create the control socket {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether somebody listens at a socket.
pub(crate) fn is_alive(socket: &Path) -> anyhow::Result<bool> {
    let Err(error) = std::os::unix::net::UnixStream::connect(socket) else {
        return Ok(true);
    };
    if matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    ) {
        return Ok(false);
    }
    if error.kind() == ErrorKind::PermissionDenied {
        let message = format!(
            "cannot open {}: it belongs to another user; run this as that user or as root",
            socket.display()
        );
        return Err(Failure::new(Exit::Denied, message).into());
    }
    Err(error).with_context(|| format!("cannot open {}", socket.display()))
}

/// Serves until cancelled.
pub(crate) async fn serve(
    listener: UnixListener,
    links: Links,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let operated = links.relay.as_ref().map(|relay| relay.operated().clone());
    let router = Router::new()
        .route("/nodes", get(nodes))
        .route("/services", get(services).post(expose))
        .route("/sessions", get(sessions))
        .route("/events/{limit}", get(events))
        .route("/grants", post(grant))
        .route("/grants/{id}", delete(revoke))
        .with_state(Arc::new(links))
        .merge(relay::routes(operated));
    axum::serve(listener, router)
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .context("the control socket failed")
}

type Shared = State<Arc<Links>>;

async fn nodes(State(links): Shared) -> Response {
    Json(links.signaling.nodes()).into_response()
}

async fn services(State(links): Shared) -> Json<Vec<ServiceView>> {
    let view = |service: &Arc<portway_gateway::service::Service>| ServiceView {
        name: service.spec.name.clone(),
        target: service.spec.target.clone(),
        health: service.health(),
        url: format!("{}/", links.origin(&service.spec.name)),
    };
    Json(links.gateway.services().iter().map(view).collect())
}

async fn sessions(State(links): Shared) -> Json<Vec<SessionView>> {
    Json(links.gateway.sessions())
}

async fn events(
    State(links): Shared,
    UrlPath(limit): UrlPath<u32>,
) -> Result<Json<Vec<Entry>>, Refusal> {
    Ok(Json(links.signaling.events(limit as usize).await?))
}

async fn expose(State(links): Shared, Json(new): Json<NewService>) -> Result<Response, Refusal> {
    let name = new.name.clone();
    links.gateway.add_service(new.spec())?;
    let granted = links.owner_link(&name)?;
    let exposed = Exposed {
        url: format!("{}/", links.origin(&name)),
        link: granted.link,
        name,
    };
    Ok(Json(exposed).into_response())
}

async fn grant(
    State(links): Shared,
    Json(request): Json<GrantRequest>,
) -> Result<Json<Granted>, Refusal> {
    Ok(Json(links.issue(&request)?))
}

async fn revoke(
    State(links): Shared,
    UrlPath(id): UrlPath<GrantId>,
) -> Result<Json<Revoked>, Refusal> {
    let revoked = links.gateway.revoke_grant(&id)?;
    if let Some(relay) = links.relay.clone() {
        tokio::task::spawn_blocking(move || relay.revoke(&id)).await?;
    }
    Ok(Json(Revoked { revoked }))
}

/// An error as an answer.
struct Refusal(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem {
            message: format!("{:#}", self.0),
        };
        (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response()
    }
}

/// Asks the running instance. `body` is sent as JSON if it is given.
pub(crate) async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> anyhow::Result<T> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!(
                "no portway runs on {}: {error}. Start one with `portway up`",
                socket.display()
            ),
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "portway")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .to_bytes();
        anyhow::Ok((status, body))
    };
    let (status, body) = tokio::select! {
        answer = exchange => answer?,
        ended = connection => {
            ended?;
            anyhow::bail!("the running portway closed the connection");
        }
    };
    if status.is_success() {
        return serde_json::from_slice(&body).context("the running portway is of another version");
    }
    let message = serde_json::from_slice(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).into_owned(),
        |problem: Problem| problem.message,
    );
    Err(Failure::configuration(message).into())
}
