//! What handlers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portway_protocol::token::TrustedKeys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets::Assets;
use crate::bus::Bus;
use crate::config::Config;
use crate::host::Hosts;
use crate::registry::Registry;

/// Shared state of one service.
#[derive(Clone)]
pub(crate) struct AppState(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) hosts: Hosts,
    pub(crate) assets: Assets,
    pub(crate) keys: TrustedKeys,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    pub(crate) sockets: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) bypassed: AtomicU64,
    pub(crate) misdirected: AtomicU64,
    pub(crate) sockets: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
