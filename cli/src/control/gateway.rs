//! What a gateway is asked: services, sessions, grants, links.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use portway_gateway::GatewayHandle;
use portway_gateway::links::LinkView;
use portway_gateway::service::{ServiceSpec, Trust};
use portway_gateway::session::table::SessionView;
use portway_protocol::id::{ClusterName, GrantId, NodeId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::signal::ServiceHealth;
use portway_protocol::target::ServiceTarget;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Refusal;
use crate::args;
use crate::cluster::Current;
use crate::enrolment::issuer::Issuer;
use crate::enrolment::revocation::ListLifetime;
use crate::exit::Failure;
use crate::links::{
    GrantRequest, Granted, Links, NodeGrantRequest, NodeGranted, forget_owner_link,
};
use crate::relay::Beside;
use crate::{opener, state};
use portway_gateway::enrolment::Enrolled;
use portway_gateway::enrolment::certificate::Standing;
use portway_gateway::portal::Portal;

/// The gateway that runs here.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) gateway: GatewayHandle,
    /// Where browsers find it, the first one before all.
    pub(crate) portals: Arc<[Portal]>,
    /// Makes links by the node's own key: where the cluster key is elsewhere.
    pub(crate) links: Links,
    /// How the certificate of the node stands.
    pub(crate) standing: watch::Receiver<Standing>,
    /// What there is where the cluster key is in this process, too.
    pub(crate) owner: Option<Owner>,
    pub(crate) state: state::State,
}

/// Who has the cluster key.
#[derive(Clone)]
pub(crate) struct Owner {
    pub(crate) issuer: Issuer,
    /// The relay in this process, if there is one.
    pub(crate) relay: Option<Arc<Beside>>,
}

impl Owner {
    /// Without a relay beside it.
    pub(crate) fn new(
        cluster: Current,
        state: &state::State,
        gateway: &GatewayHandle,
        portals: &Arc<[Portal]>,
        node: &NodeId,
        lists: ListLifetime,
    ) -> Self {
        let issuer = Issuer {
            cluster,
            state: state.clone(),
            gateway: gateway.clone(),
            portals: portals.clone(),
            node: node.clone(),
            lists,
        };
        Self {
            issuer,
            relay: None,
        }
    }
}

/// What a command has to know that opens services by the node key.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) cluster: ClusterName,
    pub(crate) cluster_key: PublicKey,
    /// By the way of which it comes to other nodes.
    pub(crate) portal: Portal,
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
    /// The owner's; none where the cluster key is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    /// What to run on the other machine, where no browser opens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
}

/// Whether a grant was there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    pub(crate) revoked: bool,
    /// Sessions that ended with it.
    pub(crate) sessions: usize,
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
                let granted = owner.issuer.links()?.owner_link(&self.state, name)?;
                self.gateway.add_grant(granted.token)?;
                Some(granted.link)
            }
            None => None,
        };
        let services = self.gateway.services();
        let service = services.iter().find(|it| it.spec.name == *name);
        Ok(Exposed {
            name: name.clone(),
            url: self.url(name),
            link,
            command: service.and_then(|it| opener::command_only(name, &it.spec.target)),
        })
    }

    /// Makes a grant, which the gateway knows from then on.
    fn grant(&self, request: &GrantRequest) -> anyhow::Result<Granted> {
        request.require_people()?;
        let granted = self.issuing_links()?.issue(request)?;
        self.gateway.add_grant(granted.token.clone())?;
        Ok(granted)
    }

    /// Makes a grant to another node of the cluster.
    async fn grant_to_node(&self, request: &NodeGrantRequest) -> anyhow::Result<NodeGranted> {
        request.check()?;
        let key = self.key_of(&request.node).await?;
        let lifetime = Duration::from_secs(request.lifetime_s);
        let node = (&request.node, &key);
        let granted = self
            .gateway
            .let_in(node, request.service.clone(), lifetime)?;
        Ok(NodeGranted {
            id: granted.jti,
            expires: granted.exp,
        })
    }

    /// The key of a node, by the word of the cluster key.
    async fn key_of(&self, name: &NodeId) -> anyhow::Result<PublicKey> {
        if let Some(owner) = &self.owner {
            let known = owner.issuer.key_of(name)?;
            return known.ok_or_else(|| unknown_node(name).into());
        }
        let enrolled = Enrolled::open(&self.state)?.context(NO_ISSUER)?;
        let key = self.state.node_key()?;
        let vouched = enrolled.key_of(name, &key).await;
        vouched.map_err(|error| Failure::of_issuer(&error).into())
    }

    /// What makes grants here: of the cluster key, if that is here.
    pub(super) fn issuing_links(&self) -> anyhow::Result<Links> {
        match &self.owner {
            Some(owner) => owner.issuer.links(),
            None => Ok(self.links.clone()),
        }
    }

    /// Refuses what is for a service that is not here.
    pub(super) fn require_services<'a>(
        &self,
        wanted: impl IntoIterator<Item = &'a Permission>,
    ) -> anyhow::Result<()> {
        let mut offered = self.gateway.services();
        offered.retain(|it| !it.spec.name.is_internal());
        let is_here = |name: &ServiceName| offered.iter().any(|it| it.spec.name == *name);
        let Some(missing) = wanted.into_iter().find(|it| !is_here(&it.name)) else {
            return Ok(());
        };
        let names: Vec<_> = offered.iter().map(|it| it.spec.name.to_string()).collect();
        let there = match names.len() {
            0 => "there is none; add one with `portway expose NAME=TARGET`".to_owned(),
            1 => format!("there is {}", names[0]),
            _ => format!("there are {}", names.join(", ")),
        };
        let message = format!("there is no service `{}` here: {there}", missing.name);
        Err(Failure::because(Reason::ServiceUnknown, message).into())
    }
}

/// What a gateway is asked. Without one, that is the answer.
pub(super) fn routes(node: Option<Node>) -> Router {
    Router::new()
        .route("/membership", get(membership))
        .route("/services", get(services).post(expose))
        .route("/sessions", get(sessions))
        .route("/grants", post(grant))
        .route("/grants/accept", post(accept))
        .route("/links", get(links).post(share))
        .route("/links/{id}", delete(revoke))
        .route("/links/node", post(share_with_node))
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
    let services = node.gateway.services();
    let of_users = services.iter().filter(|it| !it.spec.name.is_internal());
    Ok(Json(of_users.map(view).collect()))
}

async fn membership(State(node): Shared) -> Result<Json<Membership>, Refusal> {
    let links = node.context(NO_GATEWAY)?.issuing_links()?;
    Ok(Json(Membership {
        cluster: links.cluster,
        cluster_key: links.cluster_key,
        portal: links.portal,
    }))
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
    if node.owner.is_none() {
        node.require_services(&request.services)?;
    }
    Ok(Json(node.grant(&request)?))
}

async fn share(
    State(node): Shared,
    Json(request): Json<GrantRequest>,
) -> Result<Json<Granted>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    node.require_services(&request.services)?;
    Ok(Json(node.grant(&request)?))
}

async fn share_with_node(
    State(node): Shared,
    Json(request): Json<NodeGrantRequest>,
) -> Result<Json<NodeGranted>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    node.require_services([&request.service])?;
    Ok(Json(node.grant_to_node(&request).await?))
}

async fn links(State(node): Shared) -> Result<Json<Vec<LinkView>>, Refusal> {
    Ok(Json(node.context(NO_GATEWAY)?.gateway.links()))
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
    let known = node.gateway.links().into_iter().find(|link| link.id == id);
    let ended = node.gateway.revoke_grant(&id);
    let left = tokio::time::timeout(GOODBYES, node.gateway.sessions_ended(&id));
    if left.await.is_err() {
        tracing::warn!(grant = %id, "what was revoked takes long to end");
    }
    if let Some(Owner { relay, .. }) = node.owner {
        if let Some(relay) = relay {
            tokio::task::spawn_blocking(move || relay.revoke(&id)).await?;
        }
        if let Some(link) = known {
            forget_owner_link(&node.state, &link.services, &id)?;
        }
    }
    let ended = ended?;
    Ok(Json(Revoked {
        revoked: ended.is_some(),
        sessions: ended.unwrap_or_default(),
    }))
}

/// Time for the sessions of a link that is revoked to tell their clients why they end: the relay that carries
/// them ends what is left after it.
const GOODBYES: Duration = Duration::from_millis(1500);

/// There is no node of that name.
fn unknown_node(name: &NodeId) -> Failure {
    let message =
        format!("the cluster has no node `{name}`: `portway nodes` lists those there are");
    Failure::because(Reason::NodeUnknown, message)
}

const NO_ISSUER: &str = "this node has a certificate that was made by hand, and cannot ask whose key a name stands for: grant      it where the cluster key is";

pub(super) const NO_GATEWAY: &str =
    "the running portway has no gateway: ask where one runs (`portway gateway` or `portway up`)";

pub(super) const NO_CLUSTER_KEY: &str = "the running gateway has no cluster key: ask where the key is, and a gateway runs \
     (`portway up`, or `portway gateway` on the state directory of the key)";
