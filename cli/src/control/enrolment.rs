//! What an instance with the cluster key is asked: join tokens, and whom it has certified.

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use portway_protocol::id::NodeId;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::gateway::{NO_CLUSTER_KEY, NO_GATEWAY, Node};
use crate::enrolment::issuer::{InvitationRequest, Issuer, JoinToken};
use crate::enrolment::ledger::Member;

/// Whether a name was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Forgotten {
    pub(crate) forgotten: bool,
}

/// What the issuer is asked. Without one, that is the answer.
pub(super) fn routes(node: Option<Node>) -> Router {
    Router::new()
        .route("/invitations", post(invite))
        .route("/enrolled", get(enrolled))
        .route("/enrolled/{node}", delete(forget))
        .with_state(node)
}

type Shared = State<Option<Node>>;

fn issuer(node: Option<Node>) -> anyhow::Result<Issuer> {
    let owner = node.context(NO_GATEWAY)?.owner;
    Ok(owner.context(NO_CLUSTER_KEY)?.issuer)
}

async fn invite(
    State(node): Shared,
    Json(request): Json<InvitationRequest>,
) -> Result<Json<JoinToken>, Refusal> {
    Ok(Json(issuer(node)?.invite(request)?))
}

async fn enrolled(State(node): Shared) -> Result<Json<Vec<Member>>, Refusal> {
    Ok(Json(issuer(node)?.members()?))
}

async fn forget(
    State(node): Shared,
    UrlPath(name): UrlPath<NodeId>,
) -> Result<Json<Forgotten>, Refusal> {
    let forgotten = issuer(node)?.forget(&name)?.is_some();
    Ok(Json(Forgotten { forgotten }))
}
