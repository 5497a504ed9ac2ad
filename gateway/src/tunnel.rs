//! Services of others as if they were local.
//!
//! ```text
//! local program ── HTTP/1.1 ──► listen ──► forward ──► session ──► the service, wherever it is
//! ```
//! - [`listen`]: the local listener and who may ask it. `forward`: one request over whatever session
//!   there is.
//!
//! The session is `client`'s; what is spoken here is HTTP. Other kinds of services will have rooms
//! beside these.

mod forward;
pub mod listen;

pub use listen::Listener;
