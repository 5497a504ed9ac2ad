//! One signaling WebSocket.
//!
//! - [`session`]: what its messages mean. [`task`]: the shell that reads, writes, times and closes.

pub(crate) mod session;
pub(crate) mod task;
