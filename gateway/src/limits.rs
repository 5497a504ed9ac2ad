//! What one end of tunnels allows: how many at a time, and for how long they may be silent.
//!
//! Tunnels are connections and flows of services that are no web pages (`tcp`, `tcp+unix`, `udp`, `listen`), and open
//! WebSockets as far as silence is concerned. Requests of web services have limits of their own, in [`proxy`](crate::proxy).
//!
//! - [`activity`]: when something was last carried.

pub mod activity;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Silence in both directions after which a flow of datagrams ends, unless something else is wanted. RFC 4787 asks
/// NATs for two minutes at least, and recommends five.
const FLOW_IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Time for a connection to a program, TLS included, unless something else is wanted.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at a time, unless something else is wanted.
const CONNECTIONS: NonZeroU32 = NonZeroU32::new(1024).expect("it is not zero");

/// Limits of tunnels at one end: a node's, for its programs, or a client's, for those that come to its local
/// addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What has carried nothing in either direction for so long is cut off. None: connections never, flows of
    /// datagrams after five minutes.
    pub idle_timeout: Option<Duration>,
    /// Time for a connection to a program. Default: 5 s.
    pub connect_timeout: Duration,
    /// Connections and flows at a time. Default: 1024. At a node: to one service, over all its sessions; more are
    /// refused. At a client: to one local address; more wait in the system's queue.
    pub connections: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            connect_timeout: CONNECT_TIMEOUT,
            connections: CONNECTIONS,
        }
    }
}

impl Limits {
    /// Silence after which a flow of datagrams ends.
    pub(crate) fn flow_idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or(FLOW_IDLE_TIMEOUT)
    }

    /// Connections at a time, as room for them.
    pub(crate) fn room(&self) -> Arc<Semaphore> {
        let places = usize::try_from(self.connections.get()).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
    }
}
