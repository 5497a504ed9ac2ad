//! The control socket of a running instance: HTTP with JSON over a Unix socket in the state
//! directory. Who may open the file may control the instance.
//!
//! One room per part that may run: [`signaling`], [`gateway`], [`relay`]; [`enrolment`]: what only the holder
//! of the cluster key can do; [`pairing`]: guests without a link; [`status`]: what runs at all; [`events`]: what happened.

pub(crate) mod enrolment;
pub(crate) mod events;
pub(crate) mod gateway;
pub(crate) mod pairing;
pub(crate) mod relay;
pub(crate) mod signaling;
pub(crate) mod status;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use portway_protocol::reason::Exit;
use portway_signaling::server::SignalingHandle;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use gateway::Node;
use relay::Operated;
use status::Instance;

/// Name of the socket in the state directory.
pub(crate) const SOCKET: &str = "control.sock";

/// Largest answer that a client reads: 100,000 events.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// Longest line that a client reads of those that it follows.
const MAX_LINE: usize = 64 * 1024;

const OTHER_VERSION: &str = "the running portway is of another version";

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    message: String,
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
    parts: Parts,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    axum::serve(listener, parts.routes(&cancel))
        .with_graceful_shutdown(cancel.cancelled_owned())
        .await
        .context("the control socket failed")
}

/// What runs here. Who asks for something that does not is told so.
pub(crate) struct Parts {
    pub(crate) about: Instance,
    pub(crate) signaling: Option<SignalingHandle>,
    pub(crate) node: Option<Node>,
    pub(crate) relay: Option<Operated>,
}

impl Parts {
    fn routes(self, cancel: &CancellationToken) -> Router {
        let gateway = self.node.as_ref().map(|node| node.gateway.clone());
        let events = events::routes(self.signaling.clone(), gateway, cancel.clone());
        status::routes(self.about, self.node.clone())
            .merge(events)
            .merge(enrolment::routes(self.node.clone(), self.signaling.clone()))
            .merge(signaling::routes(self.signaling))
            .merge(pairing::routes(self.node.clone()))
            .merge(gateway::routes(self.node))
            .merge(relay::routes(self.relay))
    }
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
    let stream = connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = request(method, path, body)?;
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
        return serde_json::from_slice(&body).context(OTHER_VERSION);
    }
    Err(refused(&body).into())
}

/// `body` is JSON.
fn request(
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> hyper::http::Result<hyper::Request<Full<Bytes>>> {
    hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "portway")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
}

/// Listens to lines of JSON that the running instance says, until it ends. `body` is sent as JSON if it is
/// given.
pub(crate) async fn follow<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
    mut heard: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stream = connect(socket).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = request(method, path, body)?;
    let listening = async {
        let response = sender.send_request(request).await?;
        let is_refused = !response.status().is_success();
        let mut body = response.into_body();
        let mut said = Vec::new();
        while let Some(frame) = body.frame().await {
            said.extend_from_slice(&frame?.into_data().unwrap_or_default());
            while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
                let line = said.drain(..=end).collect::<Vec<_>>();
                heard(serde_json::from_slice(&line).context(OTHER_VERSION)?)?;
            }
            anyhow::ensure!(said.len() <= MAX_LINE, OTHER_VERSION);
        }
        if is_refused {
            return Err(refused(&said).into());
        }
        anyhow::Ok(())
    };
    // The connection is what moves it; once it has ended, what has come is still there to be read.
    let (listened, _ended) = tokio::join!(listening, connection);
    listened
}

async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    UnixStream::connect(socket).await.map_err(|error| {
        let message = format!(
            "no portway runs on {}: {error}. Start one with `portway up`",
            socket.display()
        );
        Failure::new(Exit::Unavailable, message).into()
    })
}

/// What an instance says that does not do what it is asked.
fn refused(body: &[u8]) -> Failure {
    let message = serde_json::from_slice(body).map_or_else(
        |_| String::from_utf8_lossy(body).into_owned(),
        |problem: Problem| problem.message,
    );
    Failure::configuration(message)
}
