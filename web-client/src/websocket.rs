//! WebSockets over the session: an extended CONNECT (RFC 8441) that carries RFC 6455 frames.
//!
//! - [`frame`]: the frames. `socket`: an open WebSocket.

pub mod frame;
pub mod socket;
