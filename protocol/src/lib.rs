//! Wire types and sans-IO state machines of Portway, shared by native code and wasm.
//!
//! `docs/protocol.md` is the contract; the modules follow it:
//!
//! - [`id`], [`key`], [`secret`]: who is who. [`words`]: keys for people. [`link`]: what a visitor is given.
//! - [`enrolment`]: how a machine becomes a node.
//! - [`signal`]: JSON-RPC messages between gateways, clients and signaling.
//! - [`pairing`]: six digits, spoken, in place of a link.
//! - [`session`]: the handshake on channel 0. [`lane`]: the resumable byte stream after it.
//!   [`liveness`]: whether the other end is still there. [`datagram`]: what may be lost beside it.
//! - [`files`]: names, listings and digests of files. [`target`]: what a service is.
//! - [`message`]: what a message bus carries.
//! - [`token`]: JSON Web Tokens. [`check`]: what keeps others out, by name.
//! - [`budget`], [`backoff`]: how often. [`limits`]: every bound on the wire. [`reason`]: every reason code a user can meet.
//!
//! Nothing here does IO, reads a clock or makes random bytes: bytes, `now` and randomness come in,
//! bytes and events go out.

pub mod backoff;
pub mod budget;
pub mod check;
pub mod datagram;
pub mod enrolment;
pub mod files;
pub mod id;
pub mod key;
pub mod lane;
pub mod limits;
pub mod link;
pub mod liveness;
pub mod message;
pub mod pairing;
pub mod permission;
pub mod printable;
pub mod reason;
pub mod revocation;
pub mod rotation;
pub mod secret;
pub mod session;
pub mod signal;
pub mod stun;
pub mod target;
pub mod token;
pub mod transcript;
pub mod words;
