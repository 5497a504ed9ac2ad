//! Peer connections on the `webrtc` crate. Its types stay in this room.
//!
//! - [`Peer`]: one connection with its channel 0, from offer or answer to close.
//! - [`candidates`]: which candidates of a peer are acceptable.
//! - [`shortcut`]: to a relay in the same process.
//! - `stream_relays`: by TCP and TLS, where no UDP passes.
//! - `interfaces`: where to listen. `runtime`, `socket`: sockets with large buffers, tasks that die with
//!   their peer. `nomination`: checks that the stack is given twice.

pub mod candidates;
mod channel;
mod interfaces;
mod nomination;
mod peer;
mod runtime;
pub mod shortcut;
mod socket;
mod stream_relays;

pub use peer::{Peer, PeerConfig, PeerError, PeerEvent, PeerEvents};
pub use stream_relays::StreamRelays;
