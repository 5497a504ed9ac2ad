//! What handlers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use portway_protocol::revocation::{RevocationList, Revocations};
use portway_protocol::signal::IceServer;
use portway_protocol::token::TrustedKeys;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assets::Assets;
use crate::bus::Bus;
use crate::config::Config;
use crate::host::Hosts;
use crate::pairings::Pairings;
use crate::registry::Registry;
use crate::relay::{Issuer, Lease, Relay};

/// Shared state of one service.
#[derive(Clone)]
pub(crate) struct AppState(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    /// With the certificate that counts now, if TLS is spoken.
    pub(crate) tls: RwLock<Option<TlsAcceptor>>,
    /// The relay beside this service, if there is one.
    pub(crate) relay: OnceLock<Arc<dyn Relay>>,
    /// Relays elsewhere.
    pub(crate) issuers: RwLock<Vec<Arc<dyn Issuer>>>,
    pub(crate) hosts: Hosts,
    pub(crate) assets: Assets,
    /// Of the cluster.
    pub(crate) keys: RwLock<TrustedKeys>,
    /// Which nodes are none any more.
    pub(crate) revocations: Mutex<Revocations>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) registry: Registry,
    pub(crate) pairings: Pairings,
    pub(crate) counters: Counters,
    pub(crate) sockets: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Inner {
    /// Keys of the cluster.
    pub(crate) fn keys(&self) -> RwLockReadGuard<'_, TrustedKeys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of revoked nodes.
    pub(crate) fn revocations(&self) -> MutexGuard<'_, Revocations> {
        self.revocations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a list of revoked nodes from somebody who is not believed. If it is the cluster's, and news, those
    /// whom it names are shut out, and all others told.
    pub(crate) fn learn(&self, list: &RevocationList) {
        let learnt = self.revocations().learn(list);
        match learnt {
            Ok(true) => self.registry.shut_out(list),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a list of revoked nodes was not taken"),
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner);
        tls.clone()
    }

    /// STUN and TURN servers for a client.
    pub(crate) fn ice_servers(&self, lease: &Lease) -> Vec<IceServer> {
        let mut servers = self.config.ice_servers.clone();
        if let Some(relay) = self.relay.get() {
            servers.extend(relay.issue(lease));
        }
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        servers.extend(issuers.iter().flat_map(|issuer| issuer.issue(lease)));
        servers
    }

    /// STUN and TURN servers for the node that a client makes an offer to. Relays only by TCP and TLS: where
    /// UDP passes, the node reaches the client's. None that is in this process: it takes clients alone.
    pub(crate) fn ice_servers_of_node(&self, lease: &Lease) -> Vec<IceServer> {
        let mut servers = self.config.ice_servers.clone();
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        for mut server in issuers.iter().flat_map(|issuer| issuer.issue(lease)) {
            server.urls.retain(|url| is_stream_relay(url));
            if !server.urls.is_empty() {
                servers.push(server);
            }
        }
        servers
    }
}

/// Whether a server is a relay by TCP or TLS (RFC 7065).
fn is_stream_relay(url: &str) -> bool {
    url.starts_with("turns:") || url.starts_with("turn:") && url.ends_with("transport=tcp")
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
