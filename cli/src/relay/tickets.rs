//! Ephemeral credentials of a relay, made from the secret that it has too.
//!
//! Security: a ticket is for one session of a client and good for minutes; who steals one later has
//! nothing.

use std::time::Duration;

use anyhow::Context as _;
use portway_protocol::signal::IceServer;
use portway_relay_proto::auth::ephemeral_credentials;
use portway_signaling::relay::{Issuer, Lease};

use crate::config::relay::read_secrets;
use crate::config::signaling::RelayElsewhere;
use crate::links::unix_now;

/// Parts the grant from the session in user names; no id contains it.
pub(super) const SEPARATOR: char = '.';

/// Makes credentials for one relay.
pub(crate) struct Tickets {
    pub(super) urls: Vec<String>,
    pub(super) secret: Vec<u8>,
    pub(super) lifetime: Duration,
}

impl Tickets {
    /// For a relay that runs elsewhere, by the newest secret of its file.
    pub(crate) fn elsewhere(relay: &RelayElsewhere) -> anyhow::Result<Self> {
        let secrets = read_secrets(&relay.secret_file)?;
        Ok(Self {
            urls: relay.urls.clone(),
            secret: secrets.last().context("there is a secret")?.clone(),
            lifetime: relay.credentials,
        })
    }
}

impl Issuer for Tickets {
    fn issue(&self, lease: &Lease) -> Vec<IceServer> {
        let expires = lease.expires.min(unix_now() + self.lifetime.as_secs());
        let name = format!("{}{SEPARATOR}{}", lease.grant, lease.session);
        let (username, credential) = ephemeral_credentials(&self.secret, &name, expires);
        vec![IceServer {
            urls: self.urls.clone(),
            username: Some(username),
            credential: Some(credential),
        }]
    }
}

impl std::fmt::Debug for Tickets {
    /// The secret stays hidden.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets")
            .field("urls", &self.urls)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}
