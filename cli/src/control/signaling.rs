//! What a signaling service is asked: its nodes.

use anyhow::Context as _;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use portway_signaling::registry::NodeView;
use portway_signaling::server::SignalingHandle;

use super::Refusal;

/// What a signaling service is asked. Without one, that is the answer.
pub(super) fn routes(signaling: Option<SignalingHandle>) -> Router {
    Router::new()
        .route("/nodes", get(nodes))
        .with_state(signaling)
}

type Shared = State<Option<SignalingHandle>>;

async fn nodes(State(signaling): Shared) -> Result<Json<Vec<NodeView>>, Refusal> {
    Ok(Json(signaling.context(NO_SIGNALING)?.nodes()))
}

const NO_SIGNALING: &str = "the running portway has no signaling service: ask where one runs (`portway \
     signaling` or `portway up`)";
