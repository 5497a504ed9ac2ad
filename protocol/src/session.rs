//! Sessions: who is at the other end of channel 0.
//!
//! - [`handshake`]: four messages, then the lane.

pub mod handshake;
