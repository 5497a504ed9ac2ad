//! Is this TURN server good? A client that looks at one from outside, ours or anybody's, and says what
//! it finds, step by step.
//!
//! - [`url`]: where the server is. [`check`]: the steps, in order, and what each found.
//! - `session`: one client of the server: requests, credentials, channels. `message`: what it says and
//!   hears, as bytes. `connection`: UDP, TCP and TLS.
//! - `measure`: round trips, loss and throughput.
//!
//! Gentle, for the server may be somebody else's: one request at a time, at most
//! [`measure::MAX_PACKETS`] packets of data at a bounded rate, and nothing is sent to an address that
//! the server should refuse: only whether it would, is asked.
//!
//! The crate `turn-client-proto` is not used: its events say that something failed, not with which
//! error code, nor how large the answer was or what lifetime it granted, which is what is asked here.
//! Messages are read and written by the same crates as in `portway-relay-proto`.

pub mod check;
mod connection;
pub mod measure;
mod message;
mod session;
pub mod url;
