//! The native client: what a browser tab is to a service, without the browser.
//!
//! ```text
//! link ── address ──► signaling ── offer, answer, candidates ──► peer ── handshake ──► session
//!                                                                                         │
//!                                 keeper: connects anew when it is lost ◄─────────────────┘
//! ```
//! - [`address`]: from a link's URL to whom to ask for what. [`mod@connect`]: one attempt.
//! - `exchange`: descriptions and candidates. [`session`]: requests and pings over what came of it.
//! - `stream`: bytes both ways over it, where the service speaks something else than HTTP.
//! - [`files`]: a service's files, where it offers some.
//! - [`messages`]: publishes to a message bus, and subscribes.
//! - [`pairing`]: to a link, where there is none yet.
//! - [`keeper`]: a session for as long as somebody wants one. [`error`]: why there is none.
//!
//! What this shares with its twin in the browser (`web-client`) are the machines of `protocol`.

pub mod address;
pub mod connect;
pub mod error;
mod exchange;
pub mod files;
pub mod keeper;
pub mod messages;
pub mod pairing;
pub mod session;
pub(crate) mod stream;

use std::sync::Arc;

use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use portway_transport::webrtc::StreamRelays;

use crate::revocations::KnownRevocations;

pub use address::{Credential, Scheme, ServiceAddress, Site};
pub use connect::{Opening, connect};
pub use error::ClientError;
pub use portway_transport::{Path, PathKind};
pub use session::Session;

/// What to open, and how to get there.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service, and what opens it.
    pub address: ServiceAddress,
    /// The node wanted; any that offers the service if there is none.
    pub node: Option<NodeId>,
    /// Whom to believe to be signaling, where the address says TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Key of this device: what is for one device only is bound to it.
    pub device: SigningKey,
    /// How relays are reached by TCP and TLS.
    pub stream_relays: Arc<StreamRelays>,
    /// Which nodes are none any more.
    pub revocations: KnownRevocations,
}

impl Target {
    /// Any node that offers the service. `tls`: whom to believe to be signaling or a relay, where they speak it.
    #[must_use]
    pub fn new(
        address: ServiceAddress,
        device: SigningKey,
        tls: &rustls::ClientConfig,
        revocations: KnownRevocations,
    ) -> Self {
        Self {
            node: None,
            device,
            stream_relays: Arc::new(StreamRelays::new(tls.clone())),
            tls: match address.site.scheme {
                Scheme::Http => None,
                Scheme::Https => Some(Arc::new(tls.clone())),
            },
            revocations,
            address,
        }
    }
}
