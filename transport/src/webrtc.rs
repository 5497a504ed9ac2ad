//! Peer connections on the `webrtc` crate. Its types stay in this room.
//!
//! - [`Peer`]: one connection with its channel 0, from offer or answer to close.
//! - [`candidates`]: which candidates of a peer are acceptable.
//! - [`shortcut`]: to a relay in the same process.
//! - `interfaces`: where to listen. `runtime`: sockets with large buffers, tasks that die with their peer.

mod again;
pub mod candidates;
mod channel;
mod interfaces;
mod nomination;
mod peer;
mod runtime;
pub mod shortcut;

pub use peer::{Peer, PeerConfig, PeerError, PeerEvent, PeerEvents};
