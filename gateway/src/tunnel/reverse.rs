//! Connections that come to a node, served by a program of this machine.

use std::sync::Arc;
use std::time::Duration;

use portway_protocol::backoff::Backoff;
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use portway_protocol::target::{HostPort, ServiceKind, ServiceTarget};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::local::LocalAddress;
use super::way::Way;
use crate::client::keeper::{Current, RETRY_BASE, RETRY_CAP};
use crate::limits::Limits;
use crate::limits::activity::Activity;
use crate::proxy::connect::{ConnectorError, Upstream};
use crate::random::random;
use crate::service::{ServiceSpec, Trust};

/// Connections that are waited for at a time. Each is a stream of the session, of which there are 256.
const WAITING: usize = 16;

/// A program of this machine that serves who connects to a node.
pub struct Reverse {
    address: LocalAddress,
    upstream: Arc<Upstream>,
    service: ServiceName,
    idle_timeout: Option<Duration>,
}

impl Reverse {
    /// Nothing is connected yet. `address`: of the program; `service`: of the node, with a `listen://` target.
    ///
    /// # Errors
    /// None that an address of this machine could cause.
    pub fn new(
        address: LocalAddress,
        service: ServiceName,
        limits: Limits,
    ) -> Result<Self, ConnectorError> {
        let target = match &address {
            LocalAddress::Tcp(address) => ServiceTarget::Tcp(HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            }),
            LocalAddress::Unix(path) => ServiceTarget::TcpUnix(path.clone()),
        };
        let spec = ServiceSpec {
            name: service.clone(),
            target,
            trust: Trust::System,
        };
        let upstream = Upstream::new(&spec, limits.connect_timeout)?;
        Ok(Self {
            address,
            upstream: Arc::new(upstream),
            service,
            idle_timeout: limits.idle_timeout,
        })
    }

    /// Where the program listens.
    #[must_use]
    pub const fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// Serves until cancelled, over whatever session there is. What is under way then is cut off.
    pub async fn run(self, current: watch::Receiver<Current>, cancel: CancellationToken) {
        let way = Way::new(self.service, current);
        let mut waiting = JoinSet::new();
        for _ in 0..WAITING {
            waiting.spawn(serve(way.clone(), self.upstream.clone(), self.idle_timeout));
        }
        cancel.cancelled().await;
        waiting.shutdown().await;
    }
}

/// Serves one connection after the other; others meanwhile, each in a task of its own.
async fn serve(way: Way, upstream: Arc<Upstream>, idle_timeout: Option<Duration>) {
    let mut serving = JoinSet::new();
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    loop {
        while serving.try_join_next().is_some() {}
        match Connection::open(&way, ServiceKind::Listen).await {
            Ok(connection) => {
                backoff.reset();
                let service = way.service.clone();
                serving.spawn(join(connection, service, upstream.clone(), idle_timeout));
            }
            Err(reason) => {
                // Whoever keeps the session tells of its own failures.
                tracing::debug!(service = %way.service, %reason, "no connections come");
                if reason == Reason::ListenFailed {
                    tracing::warn!(service = %way.service, %reason, "the node cannot listen");
                }
                tokio::time::sleep(backoff.next_delay(u32::from_ne_bytes(random()))).await;
            }
        }
    }
}

/// Joins who has connected with the program, to the end of both directions. What is cut off on one side is reset on
/// the other.
async fn join(
    mut connection: Connection,
    service: ServiceName,
    upstream: Arc<Upstream>,
    idle_timeout: Option<Duration>,
) {
    let local = match upstream.connect().await {
        Ok(local) => local,
        Err(error) => {
            tracing::warn!(%service, %error, "a connection came, and nobody here takes it");
            return;
        }
    };
    let activity = Activity::begin();
    let mut local = activity.clone().watch(local);
    let copied = tokio::io::copy_bidirectional(&mut connection, &mut local);
    match activity.unless_idle(idle_timeout, copied).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => tracing::debug!(%service, %error, "a connection was cut off"),
        Err(idle) => tracing::warn!(%service, %idle, "a connection was cut off"),
    }
    local.into_inner().reset();
}
