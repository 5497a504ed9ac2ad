//! A STUN/TURN server without sockets, clock or threads: packets and time go in, packets, wishes for
//! sockets and the next deadline come out. Sans-IO.
//!
//! - [`server`]: the machine, and the contract of its loop. [`command`]: what its shell must do.
//!   [`event`]: what it may count.
//! - [`allocation`], [`permission`], [`channel`], `reservation`: what a client holds. [`five_tuple`]:
//!   who a client is.
//! - [`auth`], [`nonce`], [`quota`], `meter`, [`peer_policy`], [`revocation`], `strangers`: who may do what, how
//!   much, how often. [`session`]: what an operator sees.
//! - [`mobility`]: clients that move. [`discovery`]: what NAT a client is behind.
//!   [`icmp`]: what is said of packets that did not arrive. [`tcp`]: connections with peers (RFC 6062).
//! - [`request`], [`response`], [`wire`]: bytes to meaning and back.
//!
//! RFC 8489 (STUN), RFC 8656 (TURN). Knows nothing of Portway.

pub mod allocation;
pub mod auth;
pub mod channel;
pub mod command;
pub mod discovery;
pub mod event;
mod expiry;
pub mod five_tuple;
pub mod icmp;
pub mod limits;
mod meter;
pub mod mobility;
pub mod nonce;
pub mod peer_policy;
pub mod permission;
pub mod quota;
pub mod request;
mod reservation;
pub mod response;
pub mod revocation;
pub mod server;
pub mod session;
mod strangers;
pub mod tcp;
pub mod wire;

use std::time::Duration;

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment; never goes back. Lifetimes count by it.
    pub monotonic: Duration,
    /// Seconds since 1970. Credentials expire by it.
    pub unix: u64,
}
