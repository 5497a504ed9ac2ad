//! What happened, as the parts that run here know it: signaling's events and the gateway's audit log. And what
//! happens to the nodes of the cluster, which is not all kept: signaling tells it here, or to the gateway.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use hyper::body::Bytes;
use portway_gateway::news::Following;
use portway_gateway::{GatewayHandle, audit};
use portway_protocol::signal::news::{Interest, NodeEvent, Told};
use portway_signaling::server::SignalingHandle;
use portway_signaling::store;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::Refusal;
use crate::links::unix_ms;

/// Events of signaling that are read first after it has said that there are new ones.
const NEWEST: usize = 64;

/// Something that happened, and who says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub(crate) enum Line {
    Signaling(store::Entry),
    Gateway(audit::Entry),
    /// Signaling says so, and nobody here keeps it.
    Cluster(Told),
}

impl Line {
    /// Milliseconds since 1970.
    pub(crate) const fn at_ms(&self) -> u64 {
        match self {
            Self::Cluster(told) => told.at_ms,
            Self::Signaling(entry) => entry.at_ms,
            Self::Gateway(entry) => entry.record.at_ms,
        }
    }
}

/// Who knows what happened.
#[derive(Clone)]
struct Sources {
    signaling: Option<SignalingHandle>,
    gateway: Option<GatewayHandle>,
    cancel: CancellationToken,
}

/// Answers what happened, and what happens until `cancel`.
pub(super) fn routes(
    signaling: Option<SignalingHandle>,
    gateway: Option<GatewayHandle>,
    cancel: CancellationToken,
) -> Router {
    Router::new()
        .route("/events/{limit}", get(events))
        .route("/events/{limit}/follow/{interest}", get(follow))
        .with_state(Sources {
            signaling,
            gateway,
            cancel,
        })
}

async fn events(
    State(sources): State<Sources>,
    UrlPath(limit): UrlPath<u32>,
) -> Result<Json<Vec<Line>>, Refusal> {
    Ok(Json(sources.last(limit as usize).await?.into()))
}

/// The last ones, then those that come; a line each.
async fn follow(
    State(sources): State<Sources>,
    UrlPath((limit, interest)): UrlPath<(u32, Interest)>,
) -> Result<Response, Refusal> {
    let follower = Follower::start(sources, limit as usize, interest).await?;
    let lines = stream::try_unfold(follower, |mut follower| async move {
        let Some(line) = follower.next().await? else {
            return anyhow::Ok(None);
        };
        let mut json = serde_json::to_vec(&line)?;
        json.push(b'\n');
        Ok(Some((Bytes::from(json), follower)))
    });
    Ok(Body::from_stream(lines).into_response())
}

/// News, and what asks for them.
type Nodes = (Option<broadcast::Receiver<Told>>, Option<Following>);

impl Sources {
    /// What happens to nodes: from signaling, if it runs here.
    fn follow_nodes(&self, interest: Interest) -> Nodes {
        match (&self.signaling, &self.gateway) {
            (Some(signaling), _) => (Some(signaling.follow_nodes()), None),
            (None, Some(gateway)) => {
                let (told, asking) = gateway.follow_nodes(interest);
                (Some(told), Some(asking))
            }
            (None, None) => (None, None),
        }
    }

    async fn last(&self, limit: usize) -> anyhow::Result<VecDeque<Line>> {
        let signaling = match &self.signaling {
            Some(signaling) => signaling.events(limit).await?,
            None => Vec::new(),
        };
        let gateway = match &self.gateway {
            Some(gateway) => records(gateway, limit).await?,
            None => Vec::new(),
        };
        let signaling = signaling.into_iter().map(Line::Signaling);
        let gateway = gateway.into_iter().map(Line::Gateway);
        let mut lines: Vec<_> = signaling.chain(gateway).collect();
        lines.sort_by_key(Line::at_ms);
        Ok(lines.split_off(lines.len().saturating_sub(limit)).into())
    }
}

async fn records(gateway: &GatewayHandle, limit: usize) -> anyhow::Result<Vec<audit::Entry>> {
    let log = gateway.audit().clone();
    let read = tokio::task::spawn_blocking(move || log.last(limit)).await?;
    read.context("the audit log cannot be read: see `portway events verify`")
}

/// Somebody who is told.
struct Follower {
    sources: Sources,
    /// Read and not told yet.
    waiting: VecDeque<Line>,
    appended: Option<watch::Receiver<()>>,
    recorded: Option<broadcast::Receiver<Arc<audit::Entry>>>,
    told: Option<broadcast::Receiver<Told>>,
    interest: Interest,
    /// As long as it is there, signaling is asked.
    _asking: Option<Following>,
    /// Position of the last of each that was read.
    seen_event: u64,
    seen_record: u64,
}

impl Follower {
    async fn start(sources: Sources, limit: usize, interest: Interest) -> anyhow::Result<Self> {
        let appended = sources.signaling.as_ref();
        let recorded = sources.gateway.as_ref();
        // What comes between the two is in both, and told once.
        let appended = appended.map(SignalingHandle::events_appended);
        let recorded = recorded.map(|gateway| gateway.audit().follow());
        let (told, asking) = sources.follow_nodes(interest);
        let waiting = sources.last(limit).await?;
        let seen_event = match &sources.signaling {
            Some(signaling) => signaling.events(1).await?.last().map_or(0, |last| last.seq),
            None => 0,
        };
        let seen_record = waiting.iter().rev().find_map(|line| match line {
            Line::Gateway(entry) => Some(entry.record.seq),
            Line::Signaling(_) | Line::Cluster(_) => None,
        });
        Ok(Self {
            sources,
            waiting,
            appended,
            recorded,
            told,
            interest,
            _asking: asking,
            seen_event,
            seen_record: seen_record.unwrap_or(0),
        })
    }

    /// `None` when this process ends.
    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Ok(Some(line));
            }
            let appended = async {
                match &mut self.appended {
                    Some(appended) => appended.changed().await,
                    None => pending().await,
                }
            };
            let recorded = async {
                match &mut self.recorded {
                    Some(recorded) => recorded.recv().await,
                    None => pending().await,
                }
            };
            let told = async {
                match &mut self.told {
                    Some(told) => told.recv().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = self.sources.cancel.cancelled() => return Ok(None),
                changed = appended => match changed {
                    Ok(()) => self.read_events().await?,
                    Err(_) => self.appended = None,
                },
                entry = recorded => match entry {
                    Ok(entry) => self.record(Arc::unwrap_or_clone(entry)),
                    Err(RecvError::Lagged(missed)) => self.read_records(missed).await?,
                    Err(RecvError::Closed) => self.recorded = None,
                },
                news = told => match news {
                    Ok(news) => self.hear(news),
                    Err(RecvError::Lagged(count)) => self.hear(Told {
                        at_ms: unix_ms(),
                        event: NodeEvent::Missed { count },
                    }),
                    Err(RecvError::Closed) => self.told = None,
                },
            }
        }
    }

    /// Reads back as far as it was read before.
    async fn read_events(&mut self) -> anyhow::Result<()> {
        let Some(signaling) = &self.sources.signaling else {
            return Ok(());
        };
        let mut limit = NEWEST;
        let entries = loop {
            let entries = signaling.events(limit).await?;
            let first = entries.first().map_or(0, |first| first.seq);
            if entries.len() < limit || first <= self.seen_event + 1 {
                break entries;
            }
            limit *= 2;
        };
        for entry in entries {
            if entry.seq > self.seen_event {
                self.seen_event = entry.seq;
                self.waiting.push_back(Line::Signaling(entry));
            }
        }
        Ok(())
    }

    /// Reads from the disk what came too fast.
    async fn read_records(&mut self, missed: u64) -> anyhow::Result<()> {
        let Some(gateway) = &self.sources.gateway else {
            return Ok(());
        };
        let head = gateway.audit().head().seq;
        let behind = head.saturating_sub(self.seen_record).max(missed);
        let records = records(gateway, usize::try_from(behind)?).await?;
        records.into_iter().for_each(|entry| self.record(entry));
        Ok(())
    }

    fn hear(&mut self, told: Told) {
        // What is kept here is read from there.
        let is_read = self.sources.signaling.is_some() && told.event.is_kept();
        if !is_read && told.event.concerns() <= self.interest {
            self.waiting.push_back(Line::Cluster(told));
        }
    }

    fn record(&mut self, entry: audit::Entry) {
        if entry.record.seq > self.seen_record {
            self.seen_record = entry.record.seq;
            self.waiting.push_back(Line::Gateway(entry));
        }
    }
}
