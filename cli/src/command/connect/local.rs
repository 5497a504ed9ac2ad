//! The local ends of services.

use std::sync::Arc;

use portway_gateway::Limits;
use portway_gateway::client::keeper::Current;
use portway_gateway::tunnel::{Listener, LocalAddress, Pool, Reverse, UdpListener};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cannot_listen;
use crate::exit::Failure;

/// The local end of a service.
pub(super) enum Local {
    Stream(Listener),
    Datagrams(UdpListener),
    Reverse(Reverse),
}

/// As others see it.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) address: LocalAddress,
    pub(super) purpose: Purpose,
}

/// What a local address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Programs connect to it.
    Stream,
    /// Programs send datagrams to it.
    Datagrams,
    /// It is connected to.
    Reverse,
}

impl Local {
    /// Binds an address for programs; nothing is served yet.
    pub(super) async fn bind(
        address: &LocalAddress,
        datagrams: bool,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let cannot = |error| cannot_listen(address, &error);
        Ok(match (datagrams, address) {
            (false, address) => {
                Self::Stream(Listener::bind(address, limits).await.map_err(cannot)?)
            }
            (true, LocalAddress::Tcp(at)) => {
                Self::Datagrams(UdpListener::bind(*at, limits).await.map_err(cannot)?)
            }
            (true, LocalAddress::Unix(_)) => {
                return Err(Failure::usage("datagrams need a port: -L [ADDR:]PORT"));
            }
        })
    }

    pub(super) fn end(&self) -> End {
        let (address, purpose) = match self {
            Self::Stream(listener) => (listener.address().clone(), Purpose::Stream),
            Self::Datagrams(listener) => {
                let address = LocalAddress::Tcp(listener.address());
                (address, Purpose::Datagrams)
            }
            Self::Reverse(reverse) => (reverse.address().clone(), Purpose::Reverse),
        };
        End { address, purpose }
    }

    pub(super) async fn run(
        self,
        service: ServiceName,
        pool: Arc<Pool>,
        current: watch::Receiver<Current>,
        cancel: CancellationToken,
    ) {
        match self {
            Self::Stream(listener) => listener.run(service, current, cancel).await,
            Self::Reverse(reverse) => reverse.run(current, cancel).await,
            Self::Datagrams(listener) => {
                let datagrams = pool.datagrams().clone();
                listener.run(service, current, datagrams, cancel).await;
            }
        }
    }
}

impl Purpose {
    /// Refuses a service of another kind.
    pub(super) const fn check(self, kind: ServiceKind) -> Result<(), Reason> {
        match (self, kind) {
            // Whoever connects speaks HTTP.
            (Self::Stream, ServiceKind::Http) => Ok(()),
            (Self::Stream, _) => kind.require(ServiceKind::Tcp),
            (Self::Datagrams, _) => kind.require(ServiceKind::Udp),
            (Self::Reverse, _) => kind.require(ServiceKind::Listen),
        }
    }
}
