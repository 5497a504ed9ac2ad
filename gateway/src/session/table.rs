//! The sessions there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portway_protocol::id::{GrantId, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::reason::Reason;
use portway_protocol::session::resumption::ResumptionKey;
use portway_protocol::signal::news::{self, SessionPath};
use portway_transport::Path;
use portway_transport::lane::{Carrier, Traffic};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::flows::Flows;
use crate::flows::counters::Tally;

/// Sessions at a time, with those that wait for their client to come back.
const MAX_SESSIONS: usize = 1024;

/// A session, updated while it runs.
#[derive(Debug)]
pub struct Entry {
    claimed: Claimed,
    introduction: Mutex<SessionId>,
    path: watch::Sender<Option<Path>>,
    since: Instant,
    traffic: Traffic,
    flows: Arc<Flows>,
    key: ResumptionKey,
    attachments: mpsc::Sender<Attachment>,
}

/// Whose a session is, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub(crate) session: SessionId,
    pub(crate) user: String,
    pub(crate) service: ServiceName,
    pub(crate) grant: GrantId,
    /// Where it was opened; it goes on there and nowhere else.
    pub(crate) device: PublicKey,
}

/// Bytes that a session has moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// From the client.
    pub(crate) received: u64,
    /// To the client.
    pub(crate) sent: u64,
}

/// A channel for a session.
pub(super) struct Attachment {
    pub(super) carrier: Carrier,
    /// By what signaling knows it.
    pub(super) introduction: SessionId,
    pub(super) path: Option<Path>,
}

/// A session as others see it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
    /// By what signaling and the relay know its present channel: the session itself, until it has gone on
    /// over another one.
    pub introduction: SessionId,
    /// Who.
    pub user: String,
    /// What.
    pub service: ServiceName,
    /// By which grant.
    pub grant: GrantId,
    /// `direct` or `relayed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// Where the client's packets come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Seconds since it began.
    pub age_s: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// Datagrams, if there were any.
    #[serde(skip_serializing_if = "Tally::is_empty")]
    pub datagrams: Tally,
    /// Round trip in milliseconds, once measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// All sessions of a gateway.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    entries: Mutex<HashMap<SessionId, Arc<Entry>>>,
    /// Changes whenever one is over.
    ended: watch::Sender<()>,
}

/// Removes its entry when the session is over.
#[derive(Debug)]
pub(super) struct Registered {
    table: Table,
    entry: Arc<Entry>,
}

impl Entry {
    pub(super) fn new(
        claimed: Claimed,
        key: ResumptionKey,
        attachments: mpsc::Sender<Attachment>,
    ) -> Self {
        Self {
            introduction: Mutex::new(claimed.session),
            claimed,
            path: watch::Sender::default(),
            since: Instant::now(),
            traffic: Traffic::default(),
            flows: Arc::new(Flows::new(Arc::default())),
            key,
            attachments,
        }
    }

    pub(crate) const fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    /// Bytes from the client and to it.
    pub(crate) fn moved(&self) -> Moved {
        let datagrams = self.flows.counters().tally();
        let lane = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Moved {
            received: lane(&self.traffic.received) + datagrams.received_bytes,
            sent: lane(&self.traffic.sent) + datagrams.sent_bytes,
        }
    }

    /// Its datagrams.
    pub(super) const fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    pub(super) const fn key(&self) -> &ResumptionKey {
        &self.key
    }

    /// Goes on over another channel, unless it has ended.
    pub(super) async fn attach(&self, attachment: Attachment) {
        if self.attachments.send(attachment).await.is_err() {
            tracing::debug!(session = %self.claimed.session, "it ended before it could be resumed");
        }
    }

    /// The channel of an introduction has taken another path, if it is the one in use.
    pub(crate) fn reached(&self, introduction: &SessionId, path: Path) {
        if *self.introduction() == *introduction {
            self.path.send_if_modified(|known| {
                let before = known.replace(path);
                before != Some(path)
            });
        }
    }

    fn introduction(&self) -> MutexGuard<'_, SessionId> {
        self.introduction
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Round trip in milliseconds, once measured.
    fn rtt_ms(&self) -> Option<f64> {
        let rtt = self.traffic.rtt.load(Ordering::Relaxed);
        #[allow(
            clippy::cast_precision_loss,
            reason = "microseconds of a round trip are small"
        )]
        (rtt > 0).then(|| rtt as f64 / 1000.0)
    }

    /// How it is reached, if that is known.
    fn path(&self) -> Option<SessionPath> {
        let path = (*self.path.borrow())?;
        Some(SessionPath {
            session: self.claimed.session,
            service: self.claimed.service.clone(),
            route: news::Route {
                path: path.kind.into(),
                local_kind: path.local_kind.into(),
                remote_kind: path.remote_kind.into(),
                protocol: path.protocol.into(),
            },
            rtt_ms: self.rtt_ms(),
        })
    }

    fn view(&self) -> SessionView {
        let path = *self.path.borrow();
        let Moved { received, sent } = self.moved();
        SessionView {
            session: self.claimed.session,
            introduction: *self.introduction(),
            user: self.claimed.user.clone(),
            service: self.claimed.service.clone(),
            grant: self.claimed.grant,
            path: path.map(|path| path.kind.as_str()),
            address: path.map(|path| path.remote),
            age_s: self.since.elapsed().as_secs(),
            received,
            sent,
            datagrams: self.flows.counters().tally(),
            rtt_ms: self.rtt_ms(),
        }
    }
}

impl Table {
    /// All sessions, oldest first.
    #[must_use]
    pub fn views(&self) -> Vec<SessionView> {
        let mut views: Vec<_> = self.lock().values().map(|entry| entry.view()).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.age_s));
        views
    }

    /// How all are reached of which that is known.
    pub(crate) fn paths(&self) -> Vec<SessionPath> {
        let entries = self.lock();
        entries.values().filter_map(|entry| entry.path()).collect()
    }

    /// Waits until no session of a grant is left.
    pub(crate) async fn until_ended(&self, grant: &GrantId) {
        let mut ended = self.0.ended.subscribe();
        let is_there = || {
            let entries = self.lock();
            entries.values().any(|entry| entry.claimed.grant == *grant)
        };
        while is_there() {
            // The sender lives in `self`, so waiting cannot fail.
            drop(ended.changed().await);
        }
    }

    /// # Errors
    /// There are too many, or there is one of that id.
    pub(super) fn insert(&self, entry: Entry) -> Result<Registered, Reason> {
        let entry = Arc::new(entry);
        let mut entries = self.lock();
        if entries.len() >= MAX_SESSIONS {
            return Err(Reason::RateLimited);
        }
        match entries.entry(entry.claimed.session) {
            Slot::Vacant(slot) => slot.insert(entry.clone()),
            Slot::Occupied(_) => return Err(Reason::PermissionDenied),
        };
        Ok(Registered {
            table: self.clone(),
            entry,
        })
    }

    pub(super) fn get(&self, session: &SessionId) -> Option<Arc<Entry>> {
        self.lock().get(session).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Entry>>> {
        let entries = self.0.entries.lock();
        entries.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    pub(super) const fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.entry.traffic
    }

    pub(super) fn claimed(&self) -> &Claimed {
        &self.entry.claimed
    }

    pub(super) fn key(&self) -> &ResumptionKey {
        &self.entry.key
    }

    /// How the client is reached, now and later.
    pub(super) fn path(&self) -> watch::Receiver<Option<Path>> {
        self.entry.path.subscribe()
    }

    /// It is reached another way.
    pub(super) fn moved(&self, introduction: SessionId, path: Option<Path>) {
        *self.entry.introduction() = introduction;
        self.entry.path.send_replace(path);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.table.lock().remove(&self.entry.claimed.session);
        self.table.0.ended.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::key::SigningKey;
    use portway_protocol::secret::Secret;

    use portway_protocol::signal::news::Way;
    use portway_transport::{CandidateKind, PathKind, Protocol};

    use super::*;

    #[test]
    fn only_the_channel_in_use_tells_by_which_path_a_session_goes() {
        let [first, second] = [1, 2].map(|id| SessionId::from_bytes([id; 16]));
        let claimed = Claimed {
            session: first,
            user: "ann".into(),
            service: "lab".parse().unwrap(),
            grant: GrantId::from_bytes([7; 9]),
            device: SigningKey::from_seed(&Secret::new([3; 32])).public(),
        };
        let (attachments, _next) = mpsc::channel(1);
        let table = Table::default();
        let key = ResumptionKey::from_bytes([0; 32]);
        let registered = table.insert(Entry::new(claimed, key, attachments)).unwrap();
        assert!(table.paths().is_empty());
        let direct = Path {
            kind: PathKind::Direct,
            remote: [192, 0, 2, 7].into(),
            local_kind: CandidateKind::Host,
            remote_kind: CandidateKind::PeerReflexive,
            protocol: Protocol::Udp,
        };
        let relayed = Path {
            kind: PathKind::Relayed,
            remote_kind: CandidateKind::Relay,
            ..direct
        };
        registered.entry().reached(&first, relayed);
        assert_eq!(table.paths()[0].route.path, Way::Relayed);
        registered.moved(second, Some(direct));
        registered.entry().reached(&first, relayed);
        assert_eq!(table.paths()[0].route.path, Way::Direct);
        assert_eq!(
            table.paths()[0].route.remote_kind,
            news::CandidateKind::Prflx
        );
    }
}
