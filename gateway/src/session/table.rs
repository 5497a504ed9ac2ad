//! The sessions there are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portway_protocol::id::{GrantId, ServiceName, SessionId};
use portway_transport::Path;
use portway_transport::lane::Traffic;
use serde::Serialize;

/// A session, updated while it runs.
#[derive(Debug)]
pub struct Entry {
    id: SessionId,
    user: String,
    service: ServiceName,
    grant: GrantId,
    path: Option<Path>,
    since: Instant,
    traffic: Traffic,
}

/// A session as others see it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionView {
    /// The session.
    pub session: SessionId,
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
    /// Round trip in milliseconds, once measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// All sessions of a gateway.
#[derive(Debug, Clone, Default)]
pub struct Table(Arc<Mutex<HashMap<SessionId, Arc<Entry>>>>);

/// Removes its entry when the session is over.
#[derive(Debug)]
pub(super) struct Registered {
    table: Table,
    entry: Arc<Entry>,
}

impl Entry {
    pub(super) fn new(
        id: SessionId,
        user: String,
        service: ServiceName,
        grant: GrantId,
        path: Option<Path>,
    ) -> Self {
        Self {
            id,
            user,
            service,
            grant,
            path,
            since: Instant::now(),
            traffic: Traffic::default(),
        }
    }

    fn view(&self) -> SessionView {
        let rtt = self.traffic.rtt.load(Ordering::Relaxed);
        SessionView {
            session: self.id,
            user: self.user.clone(),
            service: self.service.clone(),
            grant: self.grant,
            path: self.path.map(|path| path.kind.as_str()),
            address: self.path.map(|path| path.remote),
            age_s: self.since.elapsed().as_secs(),
            received: self.traffic.received.load(Ordering::Relaxed),
            sent: self.traffic.sent.load(Ordering::Relaxed),
            #[allow(
                clippy::cast_precision_loss,
                reason = "microseconds of a round trip are small"
            )]
            rtt_ms: (rtt > 0).then(|| rtt as f64 / 1000.0),
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

    pub(super) fn insert(&self, entry: Entry) -> Registered {
        let entry = Arc::new(entry);
        self.lock().insert(entry.id, entry.clone());
        Registered {
            table: self.clone(),
            entry,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    pub(super) fn traffic(&self) -> &Traffic {
        &self.entry.traffic
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = self.table.lock();
        // A resumed session may have taken the id over.
        if entries
            .get(&self.entry.id)
            .is_some_and(|entry| Arc::ptr_eq(entry, &self.entry))
        {
            entries.remove(&self.entry.id);
        }
    }
}
