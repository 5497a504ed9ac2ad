//! Rendezvous service of Portway: introduces gateways and clients, serves the browser client.
//!
//! - [`server`]: bind, supervise, drain. [`config`]: checked values.
//! - `router`: every origin and path. [`assets`]: the static files.
//! - `socket`: one WebSocket; [`registry`]: who is online and who talks to whom; [`bus`]: how a
//!   message reaches a socket; [`store`]: what survives a restart.
//! - `news`: who is told what happens to nodes.
//! - `pairings`: guests without a link, and the nodes that wait for them. `slots`: how much anybody may.
//! - `stun`: tells both ends their public addresses. [`relay`]: what relays must do, beside it or elsewhere.
//!
//! Holds no signing key and sees no service token: it knows public keys, names, and who wants to
//! talk to whom. Descriptions and candidates pass through and are not logged.

pub mod assets;
pub mod bus;
pub mod config;
pub mod host;
mod news;
mod pairings;
pub mod registry;
pub mod relay;
mod router;
pub mod server;
mod slots;
mod socket;
mod state;
pub mod store;
mod stun;

pub use assets::{Asset, Assets};
pub use config::Config;
pub use server::{Signaling, SignalingError};
