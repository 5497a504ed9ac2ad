//! What end-to-end tests are made of: real browsers, the real binary, real services.
//!
//! Tests drive the executable and read its `--json`; only [`bare`] links our transport, to talk with a
//! browser over nothing else, and [`adversary`], to sit in the middle.

pub mod adversary;
pub mod authority;
pub mod bare;
pub mod browser;
pub mod client;
pub mod copying;
pub mod coturn;
pub mod disk;
pub mod dns;
pub mod figures;
pub mod jupyter;
pub mod lab;
pub mod pairing;
pub mod portway;
pub mod process;
pub mod python;
pub mod ready;
pub mod relay;
pub mod sshd;
pub mod tcp_service;
pub mod upstream;
pub mod usage;
pub mod websocket_peer;

use std::time::Duration;

/// Longest that any single step of a story may take: many times what it takes, for a small machine
/// with other work may be that slow.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Pause between looks at a state that changes by itself and tells nobody.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);
