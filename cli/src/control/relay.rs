//! What a relay is asked: its status, and revocation. Served by `up` on its own control socket, and by
//! `portway relay` on one that has nothing else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use portway_relay::Relay;
use portway_relay::admin::{Session, SessionId};
use portway_relay::config::{Config, Listen, Transport};
use portway_relay_proto::limits::{MAX_REVOCATIONS, MAX_USERNAME};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use super::Refusal;
use super::status::{self, Instance};
use crate::links::unix_now;

/// Name of the socket of `portway relay` in the state directory.
pub(crate) const SOCKET: &str = "relay.sock";

/// Sessions in one answer.
const MAX_SESSIONS: usize = 10_000;

/// A relay and what it was told.
#[derive(Debug, Clone)]
pub(crate) struct Operated {
    pub(crate) relay: Arc<Relay>,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    started: Instant,
    realm: String,
    relay_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
}

impl Operated {
    /// A relay that has just been started with this configuration.
    pub(crate) fn new(relay: Arc<Relay>, config: &Config) -> Self {
        let about = About {
            started: Instant::now(),
            realm: config.realm.clone(),
            relay_ips: config.relay_ips.clone(),
            external_ips: config.external_ips.clone(),
        };
        Self {
            relay,
            about: Arc::new(about),
        }
    }

    fn status(&self) -> Status {
        let listener = |listen: &Listen| Listener {
            transport: name(listen.transport).to_owned(),
            address: listen.address,
        };
        let passed = self.relay.metrics();
        let sessions = self.relay.sessions(MAX_SESSIONS);
        Status {
            version: crate::VERSION.to_owned(),
            draining: self.relay.is_draining(),
            uptime_s: self.about.started.elapsed().as_secs(),
            realm: self.about.realm.clone(),
            listeners: self.relay.listening().iter().map(listener).collect(),
            relay_ip: self.about.relay_ips.clone(),
            external_ip: self.about.external_ips.clone(),
            allocations: passed.allocations,
            packets_to_peers: passed.packets_to_peers,
            bytes_to_peers: passed.bytes_to_peers,
            packets_to_clients: passed.packets_to_clients,
            bytes_to_clients: passed.bytes_to_clients,
            revocations: self.relay.revocation_count(),
            sessions: sessions.into_iter().map(SessionView::from).collect(),
        }
    }

    fn revoke(&self, request: &Revoke) -> anyhow::Result<Revoked> {
        if let Ok(id) = request.target.parse::<SessionId>() {
            let user = self.relay.revoke_session(&id);
            return Ok(Revoked::Session {
                session: request.target.clone(),
                user: user.map(|user| user.to_string()),
            });
        }
        anyhow::ensure!(
            request.target.len() <= MAX_USERNAME,
            "no user name is longer than {MAX_USERNAME} bytes"
        );
        let lifetime = Duration::from_secs(request.lifetime_s);
        let done = self.relay.revoke(&request.target, lifetime);
        anyhow::ensure!(
            done.is_remembered,
            "{} sessions have ended, but the relay refuses the credentials of {MAX_REVOCATIONS} users \
             already and of no more: change the secret to refuse all",
            done.ended
        );
        Ok(Revoked::User {
            user: request.target.clone(),
            ended: done.ended,
            has_password: done.has_password,
            refused_until: unix_now().saturating_add(request.lifetime_s),
        })
    }
}

/// A relay as `portway relay status` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) uptime_s: u64,
    /// It takes no new clients and will end.
    pub(crate) draining: bool,
    pub(crate) realm: String,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) relay_ip: Vec<IpAddr>,
    pub(crate) external_ip: Vec<IpAddr>,
    pub(crate) allocations: u64,
    pub(crate) packets_to_peers: u64,
    pub(crate) bytes_to_peers: u64,
    pub(crate) packets_to_clients: u64,
    pub(crate) bytes_to_clients: u64,
    pub(crate) revocations: usize,
    pub(crate) sessions: Vec<SessionView>,
}

/// Where clients come.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) transport: String,
    pub(crate) address: SocketAddr,
}

/// An allocation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionView {
    pub(crate) session: String,
    pub(crate) user: String,
    pub(crate) client: SocketAddr,
    pub(crate) transport: String,
    pub(crate) relayed: Vec<SocketAddr>,
    pub(crate) permissions: usize,
    pub(crate) channels: usize,
    pub(crate) age_s: u64,
    pub(crate) expires_in_s: u64,
    pub(crate) packets_to_peers: u64,
    pub(crate) bytes_to_peers: u64,
    pub(crate) packets_to_client: u64,
    pub(crate) bytes_to_client: u64,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            session: session.id.to_string(),
            user: session.user.to_string(),
            client: session.client,
            transport: name(session.transport).to_owned(),
            relayed: session.relayed,
            permissions: session.permissions,
            channels: session.channels,
            age_s: session.age.as_secs(),
            expires_in_s: session.expires_in.as_secs(),
            packets_to_peers: session.traffic.packets_to_peers,
            bytes_to_peers: session.traffic.bytes_to_peers,
            packets_to_client: session.traffic.packets_to_client,
            bytes_to_client: session.traffic.bytes_to_client,
        }
    }
}

/// Whom to end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoke {
    /// A user or the id of a session.
    pub(crate) target: String,
    pub(crate) lifetime_s: u64,
}

/// What that has done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "revoked", rename_all = "lowercase")]
pub(crate) enum Revoked {
    /// All that a user had.
    User {
        user: String,
        ended: usize,
        has_password: bool,
        /// Its ephemeral credentials that end then or before are refused.
        refused_until: u64,
    },
    /// One session; without a user, there was none.
    Session {
        session: String,
        user: Option<String>,
    },
}

/// Serves until the process ends.
pub(crate) async fn serve(
    listener: UnixListener,
    about: Instance,
    relay: Operated,
) -> anyhow::Result<()> {
    let router = status::routes(about, None).merge(routes(Some(relay)));
    axum::serve(listener, router)
        .await
        .context("the control socket failed")
}

/// What a relay is asked. Without one, that is the answer.
pub(super) fn routes(relay: Option<Operated>) -> Router {
    Router::new()
        .route("/relay", get(show))
        .route("/relay/revoke", post(revoke))
        .with_state(relay)
}

async fn show(State(relay): State<Option<Operated>>) -> Result<Json<Status>, Refusal> {
    let relay = relay.context(NO_RELAY)?;
    Ok(Json(
        tokio::task::spawn_blocking(move || relay.status()).await?,
    ))
}

async fn revoke(
    State(relay): State<Option<Operated>>,
    Json(request): Json<Revoke>,
) -> Result<Json<Revoked>, Refusal> {
    let relay = relay.context(NO_RELAY)?;
    let revoked = tokio::task::spawn_blocking(move || relay.revoke(&request)).await??;
    Ok(Json(revoked))
}

const NO_RELAY: &str =
    "the running portway has no relay: it listens to this machine only, or was told not to";

/// As in the URLs of the configuration.
const fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
    }
}
