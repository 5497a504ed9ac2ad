//! What handlers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use portway_protocol::signal::IceServer;
use portway_protocol::token::TrustedKeys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets::Assets;
use crate::bus::Bus;
use crate::config::Config;
use crate::host::Hosts;
use crate::registry::Registry;
use crate::relay::{Lease, Relay};

/// Shared state of one service.
#[derive(Clone)]
pub(crate) struct AppState(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    /// The relay beside this service, if there is one.
    pub(crate) relay: OnceLock<Arc<dyn Relay>>,
    pub(crate) hosts: Hosts,
    pub(crate) assets: Assets,
    pub(crate) keys: TrustedKeys,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) registry: Registry,
    pub(crate) counters: Counters,
    pub(crate) sockets: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Inner {
    /// STUN and TURN servers for a client.
    pub(crate) fn ice_servers(&self, lease: &Lease) -> Vec<IceServer> {
        let mut servers = self.config.ice_servers.clone();
        if let Some(relay) = self.relay.get() {
            servers.extend(relay.issue(lease));
        }
        servers
    }
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
