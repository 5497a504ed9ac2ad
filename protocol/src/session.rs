//! Sessions: who is at the other end of channel 0.
//!
//! - [`handshake`]: four messages, then the lane.
//! - [`resumption`]: how a session goes on when its channel is lost.

pub mod handshake;
pub mod resumption;
