//! What a signaling service is asked: nodes and events.

use anyhow::Context as _;
use axum::extract::{Path as UrlPath, State};
use axum::routing::get;
use axum::{Json, Router};
use portway_signaling::registry::NodeView;
use portway_signaling::server::SignalingHandle;
use portway_signaling::store::Entry;

use super::Refusal;

/// What a signaling service is asked. Without one, that is the answer.
pub(super) fn routes(signaling: Option<SignalingHandle>) -> Router {
    Router::new()
        .route("/nodes", get(nodes))
        .route("/events/{limit}", get(events))
        .with_state(signaling)
}

type Shared = State<Option<SignalingHandle>>;

async fn nodes(State(signaling): Shared) -> Result<Json<Vec<NodeView>>, Refusal> {
    Ok(Json(signaling.context(NO_SIGNALING)?.nodes()))
}

async fn events(
    State(signaling): Shared,
    UrlPath(limit): UrlPath<u32>,
) -> Result<Json<Vec<Entry>>, Refusal> {
    let signaling = signaling.context(NO_SIGNALING)?;
    Ok(Json(signaling.events(limit as usize).await?))
}

const NO_SIGNALING: &str = "the running portway has no signaling service: ask where one runs (`portway \
     signaling` or `portway up`)";
