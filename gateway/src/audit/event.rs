//! What is recorded.

use std::net::IpAddr;

use portway_protocol::id::{GrantId, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::reason::Reason;
pub use portway_protocol::signal::news::{Transport, Way};
use portway_transport::Path;
use serde::{Deserialize, Serialize};

/// Something that happened at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The process has started.
    GatewayStarted {
        /// Its version.
        version: String,
        /// Commit that it was built from.
        commit: String,
    },
    /// The process has ended in order; without this, it did not.
    GatewayEnded,
    /// What was there could not be gone on with: this chain has another beginning.
    ChainBegun(Damage),
    /// Somebody was let in.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// Who.
        user: String,
        /// By which grant.
        grant: GrantId,
        /// On which device.
        device: Box<PublicKey>,
        /// What.
        service: ServiceName,
        /// By which path, if that is known.
        #[serde(flatten)]
        route: Option<Route>,
    },
    /// Somebody was not let in.
    SessionRefused {
        /// What they wanted, if they came so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceName>,
        /// By which grant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<GrantId>,
        /// Why not.
        reason: Reason,
        /// By which path they came.
        #[serde(flatten)]
        route: Option<Route>,
        /// How many more were refused since the last such record: only a few in a time are recorded.
        #[serde(default, skip_serializing_if = "is_zero")]
        unrecorded: u64,
    },
    /// A session goes on by another path.
    SessionMoved {
        /// The session.
        session: SessionId,
        /// The new path, if that is known.
        #[serde(flatten)]
        route: Option<Route>,
    },
    /// A session is over.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Bytes from the client.
        received: u64,
        /// Bytes to the client.
        sent: u64,
        /// Requests, those denied included.
        requests: u64,
        /// Requests denied.
        denied: u64,
        /// Why it ended.
        why: Ending,
    },
    /// A request was not allowed.
    RequestDenied {
        /// The session.
        session: SessionId,
        /// Its method.
        method: String,
        /// Its path, without query; cut off if it is long.
        path: String,
        /// Why not.
        reason: Reason,
        /// How many more of this session were denied since the last such record.
        #[serde(default, skip_serializing_if = "is_zero")]
        unrecorded: u64,
    },
    /// Somebody may open something from now on.
    GrantAdded {
        /// The grant.
        grant: GrantId,
        /// Who.
        user: String,
        /// What.
        services: Vec<ServiceName>,
        /// Until when, seconds since 1970.
        expires: u64,
    },
    /// A grant was taken back before its time.
    GrantRevoked {
        /// The grant.
        grant: GrantId,
        /// What it opened.
        services: Vec<ServiceName>,
    },
    /// Something can be opened from now on, or leads elsewhere.
    ServiceAdded {
        /// Its name.
        service: ServiceName,
        /// Where it is.
        target: String,
    },
    /// Something is offered no more.
    ServiceRemoved {
        /// Its name.
        service: ServiceName,
    },
}

/// What was wrong with the log, and where it lies now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What was wrong.
    pub problem: String,
    /// Directory beside the log with its files as they were.
    pub kept: String,
}

/// How a client is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where its packets come from: its own address, its NAT's, or its relay's.
    pub from: IpAddr,
    /// Directly or not.
    pub path: Way,
    /// What carries the packets.
    pub protocol: Transport,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The client said goodbye.
    ClientLeft,
    /// The client was not heard of any more.
    PathLost,
    /// Its grant expired or was revoked.
    GrantEnded,
    /// The gateway ended.
    GatewayEnded,
    /// The client broke the protocol, or something failed here.
    Failed,
}

impl From<Path> for Route {
    fn from(path: Path) -> Self {
        Self {
            from: path.remote,
            path: path.kind.into(),
            protocol: path.protocol.into(),
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
