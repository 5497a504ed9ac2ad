//! Sessions: who is at the other end of channel 0.
//!
//! - [`introduction`]: what the two ends tell each other before there is a channel.
//! - [`binding`]: the channel that it belongs to. [`party`]: who takes part.
//! - [`handshake`]: four messages, then the lane.
//! - [`resumption`]: how a session goes on when its channel is lost.

pub mod binding;
pub mod handshake;
pub mod introduction;
pub mod party;
pub mod resumption;
