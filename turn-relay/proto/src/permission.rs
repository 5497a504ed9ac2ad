//! Which peers an allocation may hear and reach (RFC 8656 §9).

use std::net::IpAddr;
use std::time::Duration;

use crate::limits::PERMISSION_LIFETIME;

/// The permissions of one allocation: few, so a list is the fastest table.
#[derive(Debug, Default)]
pub struct Permissions {
    entries: Vec<(IpAddr, Duration)>,
}

impl Permissions {
    /// Whether packets of and to a peer pass.
    #[must_use]
    pub fn allows(&self, peer: IpAddr, now: Duration) -> bool {
        self.entries
            .iter()
            .any(|(ip, until)| *ip == peer && *until > now)
    }

    /// Whether these peers can all be permitted within `limit` entries. Makes room: what has expired
    /// is forgotten.
    pub fn has_room(&mut self, peers: &[IpAddr], limit: usize, now: Duration) -> bool {
        self.entries.retain(|(_, until)| *until > now);
        let mut fresh: Vec<IpAddr> = Vec::new();
        for peer in peers {
            let is_known = self.entries.iter().any(|(ip, _)| ip == peer) || fresh.contains(peer);
            if !is_known {
                fresh.push(*peer);
            }
        }
        self.entries.len() + fresh.len() <= limit
    }

    /// Installs or refreshes one.
    pub fn install(&mut self, peer: IpAddr, now: Duration) {
        let until = now + PERMISSION_LIFETIME;
        match self.entries.iter_mut().find(|(ip, _)| *ip == peer) {
            Some((_, known)) => *known = until,
            None => self.entries.push((peer, until)),
        }
    }

    /// How many count.
    #[must_use]
    pub fn count(&self, now: Duration) -> usize {
        self.entries
            .iter()
            .filter(|(_, until)| *until > now)
            .count()
    }

    /// Forgets all but these.
    pub fn retain(&mut self, keep: impl Fn(IpAddr) -> bool) {
        self.entries.retain(|(ip, _)| keep(*ip));
    }
}
