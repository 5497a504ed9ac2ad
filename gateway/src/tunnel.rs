//! Services of others as if they were local.
//!
//! ```text
//! local program ── HTTP/1.1 ─► listen, socks ─► serve ─► forward ─► way ─► session ─► the service, wherever it is
//!               ── bytes ────►                       └─► stream ──┘
//! ```
//! - [`local`]: addresses of this machine, and connections to them. [`listen`]: one address for one service.
//!   [`socks`]: one for all. `serve`: one connection, and who may ask by it. `forward`: one HTTP request.
//!   `stream`: one connection of whatever else. [`udp`]: the local socket of a
//!   service that speaks UDP. `way`: over whatever session there is, which is `client`'s.
//! - [`reverse`]: the other way: connections to a node, and a program of this machine.
//! - [`pool`]: sessions by service. [`connection`]: what a program with this library in it gets in place of a local
//!   address.

pub mod connection;
mod forward;
mod hosts;
pub mod listen;
pub mod local;
pub mod pool;
pub mod reverse;
mod serve;
pub mod socks;
mod stream;
pub mod udp;
pub(crate) mod way;

pub use connection::Connection;
pub use listen::Listener;
pub use local::LocalAddress;
pub use pool::Pool;
pub use reverse::Reverse;
pub use socks::Socks;
pub use udp::UdpListener;
