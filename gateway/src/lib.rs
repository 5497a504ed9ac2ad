//! Node agent of Portway, which terminates sessions and proxies them to local services, and the native
//! client, which opens them.
//!
//! ```text
//! signaling ── offers ──► agent ── peer ──► session ── HTTP/2 requests ──► proxy ──► service
//! ```
//! - [`node`]: all of it inside another program; begin there. The rest is what the `portway` executable is made of.
//! - [`agent`]: owns the task tree; what the command line talks to. [`config`]: checked values.
//! - [`grants`]: who may open what. [`links`]: the same as its owner sees it. [`service`]: what there is to open. [`health`]: whether it works.
//! - `messages`: the message buses that this node offers.
//! - [`news`]: what happens to the nodes of the cluster.
//! - [`pairing`]: guests who come without a link.
//! - [`audit`]: what happened, for whoever asks later.
//! - [`revocations`]: which nodes are none any more.
//! - `signaling`: the socket to the rendezvous. `session`: from channel to HTTP/2. [`proxy`]: the
//!   strict reverse proxy.
//! - [`enrolment`]: how a machine becomes a node, and stays one. [`state`]: what it keeps. [`portal`]: where nodes and
//!   browsers meet.
//! - `entrance`: connections to this node that a client serves.
//! - [`flows`]: the datagrams of a session, at either end.
//! - [`limits`]: how many tunnels at a time, and how long they may be silent.
//! - [`files`]: directories of this node, served by itself.
//! - [`private_file`]: how what must not be lost or read is written.
//! - [`client`]: the other end of a session. [`tunnel`]: services of others as if they were local.

pub mod agent;
pub mod audit;
pub mod client;
pub mod config;
pub mod enrolment;
mod entrance;
mod executor;
pub mod files;
pub mod flows;
pub mod grants;
pub mod health;
pub mod limits;
pub mod links;
mod messages;
pub mod news;
pub mod node;
pub mod pairing;
pub mod portal;
pub mod private_file;
pub mod proxy;
mod random;
pub mod revocations;
pub mod service;
pub mod session;
mod signaling;
pub mod state;
pub mod tunnel;

pub use agent::{Gateway, GatewayHandle};
pub use config::GatewayConfig;
pub use limits::Limits;
pub use node::{Node, NodeBuilder, NodeError};
pub use portway_transport::webrtc::{StreamRelays, shortcut};
