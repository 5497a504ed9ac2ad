//! Sessions: who is at the other end of channel 0.
//!
//! - [`binding`]: the channel that it belongs to.
//! - [`handshake`]: four messages, then the lane.
//! - [`resumption`]: how a session goes on when its channel is lost.

pub mod binding;
pub mod handshake;
pub mod resumption;
