//! Every bound on the wire, with its unit, its reason and its relation to the others.

use std::time::Duration;

/// Largest signaling message. An SDP with many candidates is below 10 kB.
pub const MAX_SIGNAL_MESSAGE: usize = 64 * 1024;

/// Time that a new signaling socket has to authenticate.
pub const SIGNAL_AUTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of heartbeats on a signaling socket.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

/// A node whose heartbeat is older is offline: two missed.
pub const NODE_LEASE: Duration = Duration::from_secs(65);

/// Time for the whole handshake on channel 0.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest data-channel message to or from a browser.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Largest data-channel message between natives: it costs them less than half of what four smaller ones do.
pub const MAX_NATIVE_MESSAGE: usize = 64 * 1024;

/// Largest handshake message, token included.
pub const MAX_HANDSHAKE_MESSAGE: usize = 8 * 1024;

/// Largest JSON Web Token.
pub const MAX_TOKEN: usize = 4 * 1024;

/// Bytes that a lane keeps for replay until they are acknowledged.
pub const MAX_REPLAY: usize = 4 * 1024 * 1024;

/// A receiver acknowledges at least this often, in bytes.
pub const ACK_EVERY: usize = 32 * 1024;

/// HTTP/2 streams of a session at a time.
pub const MAX_STREAMS: u32 = 256;

/// Sessions of a gateway that have not authenticated yet.
pub const MAX_UNAUTHENTICATED: usize = 64;

/// Services that one node may announce.
pub const MAX_SERVICES: usize = 256;

/// Grants that one node may announce.
pub const MAX_GRANTS: usize = 256;

/// Candidates that one end may send for a session.
pub const MAX_CANDIDATES: usize = 64;

/// How long a node waits at most for a guest to pair, and its owner for the digits.
pub const PAIRING_TIMEOUT: Duration = Duration::from_secs(10 * 60);

const _: () = assert!(MAX_HANDSHAKE_MESSAGE <= MAX_MESSAGE);
const _: () = assert!(MAX_MESSAGE <= MAX_NATIVE_MESSAGE);
const _: () = assert!(MAX_TOKEN < MAX_HANDSHAKE_MESSAGE);
const _: () = assert!(ACK_EVERY * 4 <= MAX_REPLAY);
const _: () = assert!(NODE_LEASE.as_secs() > 2 * HEARTBEAT_INTERVAL.as_secs());
