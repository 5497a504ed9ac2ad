//! Services of others as if they were local.
//!
//! ```text
//! local program ── HTTP/1.1 ──► listen ──► forward ──► way ──► session ──► the service, wherever it is
//!                ── bytes ─────►        └─► stream ──┘
//! ```
//! - [`listen`]: the local listener and who may ask it. `forward`: one HTTP request. `stream`: one connection
//!   of whatever else. `way`: over whatever session there is, which is `client`'s.

mod forward;
pub mod listen;
mod stream;
pub(crate) mod way;

pub use listen::Listener;
