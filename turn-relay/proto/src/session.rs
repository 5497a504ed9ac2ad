//! An allocation as its operator sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::allocation::AllocationId;
use crate::five_tuple::FiveTuple;

/// What somebody holds, at one moment.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its name, as long as it lives.
    pub id: AllocationId,
    /// Whose it is, as quotas and revocation know them.
    pub user: Arc<str>,
    /// Where that is.
    pub client: FiveTuple,
    /// Relayed addresses.
    pub relayed: Vec<SocketAddr>,
    /// Peer addresses that may be heard.
    pub permissions: usize,
    /// Channels.
    pub channels: usize,
    /// How long it has been there.
    pub age: Duration,
    /// When it ends unless it is refreshed.
    pub expires_in: Duration,
    /// What has passed.
    pub traffic: Traffic,
}

/// What an allocation has passed on: plain numbers, for one thread owns them. Hot path.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Packets of the client to peers.
    pub packets_to_peers: u64,
    /// Their payload, bytes.
    pub bytes_to_peers: u64,
    /// Packets of peers to the client.
    pub packets_to_client: u64,
    /// Their payload, bytes.
    pub bytes_to_client: u64,
}

impl Traffic {
    /// Adds what another has passed.
    pub const fn add(&mut self, other: &Self) {
        self.packets_to_peers += other.packets_to_peers;
        self.bytes_to_peers += other.bytes_to_peers;
        self.packets_to_client += other.packets_to_client;
        self.bytes_to_client += other.bytes_to_client;
    }

    pub(crate) const fn count_to_peer(&mut self, length: usize) {
        self.packets_to_peers += 1;
        self.bytes_to_peers += length as u64;
    }

    pub(crate) const fn count_to_client(&mut self, length: usize) {
        self.packets_to_client += 1;
        self.bytes_to_client += length as u64;
    }
}
