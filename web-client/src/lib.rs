//! Browser client of Portway: sessions, fetch and WebSocket over data channels.
//!
//! Runs in a dedicated worker. `RTCPeerConnection` exists in windows only, so the page that owns
//! the worker (the holder) makes the peer connection and transfers its channel here; signaling,
//! handshake, lane and HTTP/2 are all here, where a busy page cannot stall them.
//!
//! - `connection`: keeps a session alive. `session`: one session. `signaling`: its introduction. `device`: who
//!   opens it.
//! - `pairing`: to a link, where there is none.
//! - `fetch`, `websocket`: what runs over it. `cookie`: the jar that the browser must not have.

mod clock;
pub mod connection;
pub mod cookie;
mod device;
mod error;
pub mod fetch;
pub mod pairing;
mod session;
mod signaling;
pub mod websocket;
