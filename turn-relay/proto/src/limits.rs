//! Every bound of the protocol, with its reason.

use std::time::Duration;

/// Lifetime of an allocation unless a client asks for more (RFC 8656 §3.2).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// Longest lifetime that is granted at a time (RFC 8656 §7.2 recommends an hour).
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// Lifetime of a permission, fixed by RFC 8656 §3.3.
pub const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// Lifetime of a channel binding, fixed by RFC 8656 §3.5.
pub const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// How long a port beside an even one is kept for its client (RFC 8656 §7.2).
pub const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

/// How long a nonce is accepted, seconds (RFC 8489 §9.2 leaves it open; an hour is what its
/// predecessor allowed, ten minutes bound what a stolen one is good for).
pub const NONCE_LIFETIME: u64 = 600;

/// Reserved ports at a time, of all clients.
pub const MAX_RESERVATIONS: usize = 256;

/// Names whose ephemeral credentials are refused at a time: their memory is the operator's to spend.
pub const MAX_REVOCATIONS: usize = 10_000;

/// How long a peer may take to be reached, and a client to come for a connection (RFC 6062 §5.2, §5.3).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest user name (RFC 8489 §14.3).
pub const MAX_USERNAME: usize = 508;

/// Largest control message that is read; everything that a client says fits many times.
pub const MAX_CONTROL: usize = 2048;

/// Peer addresses in one CreatePermission.
pub const MAX_PEERS: usize = 32;
