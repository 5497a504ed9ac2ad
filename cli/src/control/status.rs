//! What a running instance says of itself: enough to see stale builds and clocks that are wrong.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use portway_gateway::audit::Head;
use portway_protocol::key::PublicKey;
use portway_protocol::revocation::RevocationList;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Refusal;
use super::gateway::Node;
use portway_gateway::enrolment::certificate::Standing;

/// Read of the executable at a time.
const CHUNK: usize = 64 * 1024;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Up,
    Signaling,
    Gateway,
    Relay,
}

/// A process that runs.
#[derive(Debug, Clone)]
pub(crate) struct Instance(Arc<Process>);

#[derive(Debug)]
struct Process {
    role: Role,
    started: Duration,
    /// Hash of the executable, once somebody has asked.
    executable: OnceLock<String>,
}

/// As `portway status` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) role: Role,
    pub(crate) version: String,
    pub(crate) commit: String,
    /// SHA-256 of the file that runs, hexadecimal.
    pub(crate) executable: String,
    pub(crate) pid: u32,
    /// Seconds since 1970.
    pub(crate) started: u64,
    /// What its clock shows, milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Of a gateway: where it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signaling: Option<Vec<Connection>>,
    /// Of a node: how its certificate stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Standing>,
    /// Of a node: what it knows of revoked nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revocations: Option<ListView>,
    /// Of a gateway: where its audit log ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<Head>,
}

/// The newest list of revoked nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListView {
    pub(crate) serial: u64,
    /// Seconds since 1970.
    pub(crate) expires: u64,
    /// How many it names.
    pub(crate) nodes: usize,
    /// Whether this node is one of them.
    pub(crate) names_this_node: bool,
}

impl ListView {
    /// As a node sees it.
    fn new(list: &RevocationList, own: &PublicKey) -> Self {
        Self {
            serial: list.serial,
            expires: list.expires,
            nodes: list.nodes.len(),
            names_this_node: list.names(own),
        }
    }
}

/// A signaling service of a gateway.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Connection {
    pub(crate) url: String,
    /// Whether it knows the node.
    pub(crate) connected: bool,
}

impl Instance {
    /// This process, which has just been started for a role.
    pub(crate) fn new(role: Role) -> Self {
        Self(Arc::new(Process {
            role,
            started: clock(),
            executable: OnceLock::new(),
        }))
    }

    fn status(
        &self,
        signaling: Option<Vec<Connection>>,
        certificate: Option<Standing>,
        revocations: Option<ListView>,
        audit: Option<Head>,
    ) -> anyhow::Result<Status> {
        let Process {
            role,
            started,
            executable,
        } = &*self.0;
        let executable = match executable.get() {
            Some(hash) => hash,
            None => {
                let hash = executable_hash().context("cannot read the executable")?;
                executable.get_or_init(|| hash)
            }
        };
        Ok(Status {
            role: *role,
            version: crate::VERSION.to_owned(),
            commit: crate::COMMIT.to_owned(),
            executable: executable.clone(),
            pid: std::process::id(),
            started: started.as_secs(),
            now_ms: u64::try_from(clock().as_millis()).unwrap_or(u64::MAX),
            signaling,
            certificate,
            revocations,
            audit,
        })
    }
}

/// Answers what runs here.
pub(super) fn routes(about: Instance, node: Option<Node>) -> Router {
    Router::new()
        .route("/status", get(status))
        .with_state((about, node))
}

type Shared = State<(Instance, Option<Node>)>;

async fn status(State((about, node)): Shared) -> Result<Json<Status>, Refusal> {
    let audit = node.as_ref().map(|node| node.gateway.audit().head());
    let revocations = node.as_ref().and_then(|node| {
        let known = node.gateway.revocations().get();
        let own = node.links.issuer.public();
        known.list().map(|list| ListView::new(list, &own))
    });
    let is_apart = about.0.role == Role::Gateway;
    let certificate = node.as_ref().map(|node| node.standing.borrow().clone());
    let signaling = node.filter(|_| is_apart).map(|node| {
        let connected = node.portals.iter().zip(node.gateway.connected());
        connected
            .map(|(portal, connected)| Connection {
                url: portal.to_string(),
                connected,
            })
            .collect()
    });
    let told = tokio::task::spawn_blocking(move || {
        about.status(signaling, certificate, revocations, audit)
    });
    Ok(Json(told.await??))
}

/// What this machine's clock shows, since 1970.
fn clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// SHA-256 of the file that this process runs, even if another one has taken its name since.
fn executable_hash() -> std::io::Result<String> {
    let mut file = File::open("/proc/self/exe")?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
