//! Peer connections on the `webrtc` crate. Its types stay in this room.
//!
//! - [`Peer`]: one connection with its channel 0, from offer or answer to close.
//! - [`DatagramChannel`]: what else it may carry, where nothing has to arrive.
//! - [`candidates`]: which candidates of a peer are acceptable.
//! - [`shortcut`]: to a relay in the same process.
//! - `stream_relays`: by TCP and TLS, where no UDP passes.
//! - `interfaces`: where to listen. `runtime`, `socket`: sockets with large buffers, tasks that die with
//!   their peer. `nomination`: checks that the stack is given twice.

pub mod candidates;
mod channel;
mod datagrams;
mod interfaces;
mod nomination;
mod peer;
mod runtime;
pub mod shortcut;
mod socket;
mod stream_relays;

pub use datagrams::{DatagramChannel, HIGH_WATER, NotSent};
pub use peer::{Peer, PeerConfig, PeerError, PeerEvent, PeerEvents};
pub use stream_relays::StreamRelays;
