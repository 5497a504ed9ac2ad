//! What an instance with the cluster key is asked: join tokens, and whom it has certified.

use std::time::Duration;

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use portway_protocol::id::{NodeId, decode_array, encode};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::rotation::{self, Rotation};
use portway_protocol::secret::Secret;
use portway_signaling::server::SignalingHandle;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::gateway::{NO_CLUSTER_KEY, NO_GATEWAY, Node};
use crate::cluster::Cluster;
use crate::enrolment::issuer::{InvitationRequest, Issuer, JoinToken};
use crate::enrolment::ledger::Member;

/// Time for this node's own certificate, after the cluster has another key.
const CERTIFIED_WITHIN: Duration = Duration::from_secs(10);

/// Another key of the cluster, for the process that signs by it. Goes over the socket of the state directory,
/// to whom may read the key there.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rotated {
    seed: String,
    rotations: Vec<Rotation>,
}

/// It is in use.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) cluster_key: PublicKey,
}

impl Rotated {
    /// Of a cluster that has just been rotated.
    pub(crate) fn new(cluster: &Cluster) -> Self {
        Self {
            seed: encode(cluster.key.seed().expose()),
            rotations: cluster.rotations.clone(),
        }
    }

    /// The cluster with its new key, to which the present one has to lead.
    fn of(self, present: &Cluster) -> anyhow::Result<Cluster> {
        let seed = Secret::new(decode_array(&self.seed)?);
        let key = SigningKey::from_seed(&seed);
        let path = rotation::follow(&present.name, present.key.public(), &self.rotations)?;
        anyhow::ensure!(
            path.last() == Some(&key.public()),
            "the present cluster key does not lead to that one"
        );
        Ok(Cluster {
            name: present.name.clone(),
            key,
            rotations: self.rotations,
        })
    }
}

/// Whether a name was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub(crate) forgotten: bool,
}

/// What the issuer is asked. Without one, that is the answer.
pub(super) fn routes(node: Option<Node>, signaling: Option<SignalingHandle>) -> Router {
    Router::new()
        .route("/invitations", post(invite))
        .route("/enrolled", get(enrolled))
        .route("/enrolled/{node}", delete(forget))
        .route("/cluster", post(rotate))
        .with_state((node, signaling))
}

type Shared = State<(Option<Node>, Option<SignalingHandle>)>;

/// Signs by another key of the cluster from now on: first those who check learn of it, then those who sign.
async fn rotate(
    State((node, signaling)): Shared,
    Json(rotated): Json<Rotated>,
) -> Result<Json<Taken>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let current = node.owner.context(NO_CLUSTER_KEY)?.issuer.cluster;
    let cluster = rotated.of(&current.get())?;
    let cluster_key = cluster.key.public();
    if let Some(signaling) = signaling {
        signaling.believe(cluster.keys());
    }
    current.replace(cluster);
    let mut standing = node.standing;
    let certified = standing.wait_for(|it| it.cluster_key == cluster_key);
    tokio::time::timeout(CERTIFIED_WITHIN, certified)
        .await
        .context("this node has no certificate of the new key yet")?
        .context("the gateway ends")?;
    Ok(Json(Taken { cluster_key }))
}

fn issuer(node: Option<Node>) -> anyhow::Result<Issuer> {
    let owner = node.context(NO_GATEWAY)?.owner;
    Ok(owner.context(NO_CLUSTER_KEY)?.issuer)
}

async fn invite(
    State((node, _)): Shared,
    Json(request): Json<InvitationRequest>,
) -> Result<Json<JoinToken>, Refusal> {
    Ok(Json(issuer(node)?.invite(request)?))
}

async fn enrolled(State((node, _)): Shared) -> Result<Json<Vec<Member>>, Refusal> {
    Ok(Json(issuer(node)?.members()?))
}

async fn forget(
    State((node, signaling)): Shared,
    UrlPath(name): UrlPath<NodeId>,
) -> Result<Json<Forgotten>, Refusal> {
    let forgotten = issuer(node)?.forget(&name)?.is_some();
    // If it is away, the list that names its key says nothing to whoever knows its name.
    if forgotten && let Some(signaling) = signaling {
        signaling.forget_node(&name);
    }
    Ok(Json(Forgotten { forgotten }))
}
