//! Pairing, asked by the owner: a window for as long as somebody listens, and one try.

use std::net::IpAddr;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use hyper::body::Bytes;
use portway_gateway::pairing::window::{Happening, Window};
use portway_protocol::id::GrantId;
use portway_protocol::pairing::code::Digits;
use portway_protocol::reason::Reason;
use serde::{Deserialize, Serialize};

use super::Refusal;
use super::gateway::{NO_GATEWAY, Node};
use crate::exit::Failure;
use crate::links::{GrantRequest, random_grant_id};

/// What happens at a window, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Line {
    /// Guests can come. `grant`: by which the window is known.
    Waiting { grant: GrantId, url: String },
    /// One is there, and sees its digits.
    Guest {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
    },
    /// There will be no pairing.
    Over { reason: Reason },
}

/// What the owner has typed, and what shall be granted if it is right.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Typed {
    pub(crate) digits: Digits,
    pub(crate) request: GrantRequest,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// The grant is there.
    Paired {
        /// End of the grant, seconds since 1970.
        expires: u64,
    },
    /// It was the only try.
    Refused { reason: Reason },
}

/// What is asked about pairings.
pub(super) fn routes(node: Option<Node>) -> Router {
    Router::new()
        .route("/pairings", post(open))
        .route("/pairings/{grant}", post(compare))
        .with_state(node)
}

type Shared = State<Option<Node>>;

/// The window is open until whoever asked goes away.
async fn open(State(node): Shared, Json(request): Json<GrantRequest>) -> Result<Response, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    request.require_people()?;
    request.require_lifetime()?;
    node.require_services(&request.services)?;
    let service = request.only_service()?.clone();
    let (grant, url) = (random_grant_id(), node.url(&service));
    let cluster_key = node.issuing_links()?.cluster_key;
    let opened = node.gateway.open_pairing(service, cluster_key, grant).await;
    let (first, window) = match opened {
        Ok(window) => (Line::Waiting { grant, url }, Some(window)),
        Err(reason) => (Line::Over { reason }, None),
    };
    let lines = stream::unfold((Some(first), window), |(first, mut window)| async move {
        let line = match (first, &mut window) {
            (Some(first), _) => first,
            (None, Some(window)) => happened(window).await,
            (None, None) => return None,
        };
        let window = window.filter(|_| !matches!(line, Line::Over { .. }));
        Some((encode(&line), (None, window)))
    });
    Ok(Body::from_stream(lines).into_response())
}

async fn happened(window: &mut Window) -> Line {
    match window.next().await {
        Happening::Guest { address } => Line::Guest { address },
        Happening::Over(reason) => Line::Over { reason },
    }
}

fn encode(line: &Line) -> serde_json::Result<Bytes> {
    let mut json = serde_json::to_vec(line)?;
    json.push(b'\n');
    Ok(Bytes::from(json))
}

async fn compare(
    State(node): Shared,
    UrlPath(grant): UrlPath<GrantId>,
    Json(Typed { digits, request }): Json<Typed>,
) -> Result<Json<Verdict>, Refusal> {
    let node = node.context(NO_GATEWAY)?;
    let agreed = match node.gateway.compare_digits(&grant, digits) {
        Ok(agreed) => agreed,
        Err(reason) => return Ok(Json(Verdict::Refused { reason })),
    };
    if *request.only_service()? != agreed.service {
        return Err(
            Failure::configuration(format!("the window was for {}", agreed.service)).into(),
        );
    }
    let links = node.issuing_links()?;
    let (token, expires) = links.issue_to(&request, grant, agreed.key)?;
    node.gateway.add_grant(token)?;
    agreed.tell().await;
    Ok(Json(Verdict::Paired { expires }))
}
