//! A session for as long as somebody wants one: connects anew when it is lost.

use std::sync::Arc;
use std::time::Duration;

use portway_protocol::backoff::Backoff;
use portway_protocol::id::NodeId;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::connect::connect_counting;
use super::session::{Requests, Session};
use super::{ClientError, Opening, Path, Target};
use crate::flows::{Counters, Flows};
use crate::random::random;

/// First pause between attempts.
pub(crate) const RETRY_BASE: Duration = Duration::from_millis(500);

/// Longest pause between attempts.
pub(crate) const RETRY_CAP: Duration = Duration::from_secs(3);

/// Time between looks at the path.
const LOOK_AT_PATH: Duration = Duration::from_secs(2);

/// What there is to tell.
#[derive(Debug)]
pub enum Event {
    /// A session is there.
    Connected {
        /// The node that serves it.
        node: NodeId,
        /// What the service speaks.
        kind: ServiceKind,
        /// How it is reached.
        path: Option<Path>,
        /// How long it took.
        opening: Opening,
    },
    /// The node is reached another way.
    Path(Option<Path>),
    /// There is no session now.
    Lost {
        /// Why.
        error: ClientError,
        /// When the next attempt begins.
        retry_in: Duration,
    },
}

/// What requests find.
#[derive(Debug, Clone, Default)]
pub struct Current {
    /// Where requests go, while there is a session.
    pub requests: Option<Requests>,
    /// Why there was none, the last time.
    pub failure: Option<Reason>,
    /// Its flows, while there is a session.
    pub flows: Option<Arc<Flows>>,
    /// What the service speaks, once there was a session.
    pub kind: Option<ServiceKind>,
}

impl Current {
    /// Where requests go, if they can.
    #[must_use]
    pub fn open(&self) -> Option<&Requests> {
        let requests = self.requests.as_ref();
        requests.filter(|requests| !requests.is_closed())
    }
}

/// Keeps a session to one service.
pub struct Keeper {
    target: Target,
    current: watch::Sender<Current>,
    datagrams: Arc<Counters>,
    events: mpsc::Sender<Event>,
}

impl Keeper {
    /// Nothing is connected yet. Whoever gets the events must take them.
    #[must_use]
    pub fn new(target: Target, events: mpsc::Sender<Event>) -> Self {
        Self {
            target,
            current: watch::Sender::default(),
            datagrams: Arc::default(),
            events,
        }
    }

    /// What requests find, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Current> {
        self.current.subscribe()
    }

    /// Counts what becomes of datagrams there, over all its sessions.
    #[must_use]
    pub fn counting(self, datagrams: Arc<Counters>) -> Self {
        Self { datagrams, ..self }
    }

    /// Runs until cancelled, then ends the session in order.
    ///
    /// # Errors
    /// A failure that trying again does not mend.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), ClientError> {
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        loop {
            let connected = tokio::select! {
                connected = connect_counting(&self.target, self.datagrams.clone()) => connected,
                () = cancel.cancelled() => return Ok(()),
            };
            let error = match connected {
                Ok(session) => {
                    backoff.reset();
                    match self.keep(session, &cancel).await {
                        Some(error) => error,
                        None => return Ok(()),
                    }
                }
                Err(error) => error,
            };
            self.current.send_modify(|current| {
                current.requests = None;
                current.flows = None;
                current.failure = Some(error.reason());
            });
            if error.is_final() {
                return Err(error);
            }
            let retry_in = backoff.next_delay(u32::from_ne_bytes(random()));
            self.tell(Event::Lost { error, retry_in }).await;
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }

    /// Serves requests until the session is lost; `None` once cancelled.
    async fn keep(&self, mut session: Session, cancel: &CancellationToken) -> Option<ClientError> {
        let mut path = session.path().await;
        self.current.send_replace(Current {
            requests: Some(session.requests()),
            flows: Some(session.flows().clone()),
            failure: None,
            kind: Some(session.accepted.kind),
        });
        self.tell(Event::Connected {
            node: session.node.clone(),
            kind: session.accepted.kind,
            path,
            opening: session.opening,
        })
        .await;
        let mut looks = tokio::time::interval(LOOK_AT_PATH);
        loop {
            tokio::select! {
                error = session.ended() => return Some(error),
                () = cancel.cancelled() => break,
                _tick = looks.tick() => {
                    let now = session.path().await;
                    if now != path {
                        path = now;
                        self.tell(Event::Path(path)).await;
                    }
                }
            }
        }
        session.close().await;
        None
    }

    /// Whoever listened may have gone; the session is still for those who ask.
    async fn tell(&self, event: Event) {
        if let Err(unheard) = self.events.send(event).await {
            tracing::debug!(event = ?unheard.0, "nobody listens");
        }
    }
}
