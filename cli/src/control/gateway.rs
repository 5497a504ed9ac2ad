//! What a gateway is asked: services, sessions, grants.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use portway_gateway::GatewayHandle;
use portway_gateway::service::{ServiceSpec, Trust};
use portway_gateway::session::table::SessionView;
use portway_protocol::id::{GrantId, ServiceName};
use portway_protocol::signal::ServiceHealth;
use portway_protocol::target::ServiceTarget;
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::args;
use crate::links::{GrantRequest, Granted, Links};
use crate::portal::Portal;
use crate::relay::Beside;
use crate::state;

/// The gateway that runs here.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) gateway: GatewayHandle,
    /// Where browsers find it, the first one before all.
    pub(crate) portals: Arc<[Portal]>,
    /// What there is where the cluster key is in this process, too.
    pub(crate) owner: Option<Owner>,
}

/// Who has the cluster key.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) links: Links,
    pub(crate) state: state::State,
    /// The relay in this process, if there is one.
    pub(crate) relay: Option<Arc<Beside>>,
}

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
    /// Opens it; none where the cluster key is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
}

/// Whether a grant was there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) revoked: bool,
}

/// A token for the gateway to keep.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Presented {
    pub(crate) token: String,
}

/// What it allows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) id: GrantId,
    pub(crate) user: String,
    pub(crate) services: Vec<ServiceName>,
    pub(crate) expires: u64,
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

impl Node {
    /// The browser-visible address of a service.
    pub(crate) fn url(&self, service: &ServiceName) -> String {
        let portal = self.portals.first().map(|portal| portal.service(service));
        format!("{}/", portal.unwrap_or_default())
    }

    /// A service as its owner may open it.
    pub(crate) fn exposed(&self, name: &ServiceName) -> anyhow::Result<Exposed> {
        let link = match &self.owner {
            Some(owner) => {
                let granted = owner.links.owner_link(&owner.state, name)?;
                self.gateway.add_grant(granted.token)?;
                Some(granted.link)
            }
            None => None,
        };
        Ok(Exposed {
            name: name.clone(),
            url: self.url(name),
            link,
        })
    }
}

/// What a gateway is asked. Without one, that is the answer.
pub(super) fn routes(node: Option<Node>) -> Router {
    Router::new()
        .route("/services", get(services).post(expose))
        .route("/sessions", get(sessions))
        .route("/grants", post(grant))
        .route("/grants/accept", post(accept))
        .route("/grants/{id}", delete(revoke))
        .with_state(node)
}

type Shared = State<Option<Node>>;

async fn services(State(node): Shared) -> Result<Json<Vec<ServiceView>>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let view = |service: &Arc<portway_gateway::service::Service>| ServiceView {
        name: service.spec.name.clone(),
        target: service.spec.target.clone(),
        health: service.health(),
        url: node.url(&service.spec.name),
    };
    Ok(Json(node.gateway.services().iter().map(view).collect()))
}

async fn sessions(State(node): Shared) -> Result<Json<Vec<SessionView>>, Refusal> {
    Ok(Json(node.context(NO_GATEWAY)?.gateway.sessions()))
}

async fn expose(
    State(node): Shared,
    Json(new): Json<NewService>,
) -> Result<Json<Exposed>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let name = new.name.clone();
    node.gateway.add_service(new.spec())?;
    Ok(Json(node.exposed(&name)?))
}

async fn grant(
    State(node): Shared,
    Json(request): Json<GrantRequest>,
) -> Result<Json<Granted>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let owner = node.owner.context(NO_CLUSTER_KEY)?;
    let granted = owner.links.issue(&request)?;
    node.gateway.add_grant(granted.token.clone())?;
    Ok(Json(granted))
}

async fn accept(
    State(node): Shared,
    Json(presented): Json<Presented>,
) -> Result<Json<Accepted>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let claims = node.gateway.add_grant(presented.token)?;
    Ok(Json(Accepted {
        id: claims.jti,
        user: claims.sub,
        services: claims.aud,
        expires: claims.exp,
    }))
}

async fn revoke(
    State(node): Shared,
    UrlPath(id): UrlPath<GrantId>,
) -> Result<Json<Revoked>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let revoked = node.gateway.revoke_grant(&id)?;
    if let Some(relay) = node.owner.and_then(|owner| owner.relay) {
        tokio::task::spawn_blocking(move || relay.revoke(&id)).await?;
    }
    Ok(Json(Revoked { revoked }))
}

const NO_GATEWAY: &str =
    "the running portway has no gateway: ask where one runs (`portway gateway` or `portway up`)";

const NO_CLUSTER_KEY: &str = "the running gateway has no cluster key: run `portway token issue user … \
     --origin https://…` where the key is, and give the token to `portway token accept` here";
