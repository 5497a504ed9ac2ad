//! What an operator wants of a server while it runs.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Server;
use crate::Now;
use crate::allocation::AllocationId;
use crate::auth::{Identity, Users};
use crate::event::Ending;
use crate::peer_policy::PeerPolicy;
use crate::quota::Quota;
use crate::revocation::Revoked;
use crate::session::Session;

impl Server {
    /// Ends every allocation of a user, and refuses its ephemeral credentials that end at `until`
    /// (seconds since 1970) or before. `EXPIRY:NAME` is taken for NAME.
    pub fn revoke(&mut self, user: &str, until: u64, now: Now) -> Revoked {
        let user = self.users.user_of(user);
        let ids: Vec<AllocationId> = self
            .allocations
            .iter()
            .filter(|(_, allocation)| &*allocation.identity.user == user)
            .map(|(id, _)| id)
            .collect();
        for id in &ids {
            self.end(*id, Ending::Revoked);
        }
        Revoked {
            ended: ids.len(),
            is_remembered: self.revocations.add(user, until, now.unix),
            has_password: self.users.has_password(user),
        }
    }

    /// Ends one allocation; returns whose it was. Its user may come back.
    pub fn revoke_session(&mut self, id: AllocationId) -> Option<Arc<str>> {
        let user = self.allocations.get(id)?.identity.user.clone();
        self.end(id, Ending::Revoked);
        Some(user)
    }

    /// Who holds what.
    pub fn sessions(&self, now: Now) -> impl Iterator<Item = Session> {
        let now = now.monotonic;
        let allocations = self.allocations.iter();
        allocations.map(move |(id, allocation)| Session {
            id,
            user: allocation.identity.user.clone(),
            client: allocation.client,
            relayed: allocation.relays.iter().collect(),
            permissions: allocation.permissions.count(now),
            channels: allocation.channels.count(now),
            age: now.saturating_sub(allocation.started),
            expires_in: allocation.expires.saturating_sub(now),
            traffic: allocation.traffic,
        })
    }

    /// No allocation is made any more; those that are there go on. For good: its process is to end.
    pub const fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Users whose ephemeral credentials are refused.
    #[must_use]
    pub fn revocation_count(&self, now: Now) -> usize {
        self.revocations.count(now.unix)
    }

    /// A peer says that it is one; [`PeerPolicy::attached`].
    pub fn attach(&mut self, peer: SocketAddr) {
        self.peers.attached.insert(peer);
    }

    /// It is none any more. What clients hold for it leads nowhere.
    pub fn detach(&mut self, peer: &SocketAddr) {
        self.peers.attached.remove(peer);
    }

    /// Prolongs credentials for those who hold an allocation by them: `until` tells for each until
    /// when (seconds since 1970), or nothing. Nobody can allocate by them after they have expired.
    pub fn prolong(&mut self, until: impl Fn(&Identity) -> Option<u64>) {
        for allocation in self.allocations.iter_mut() {
            let until = until(&allocation.identity);
            let identity = &mut allocation.identity;
            identity.expires = identity.expires.map(|own| own.max(until.unwrap_or(own)));
        }
    }

    /// Other users, rules and quotas from now on. Who would not come in any more loses its allocation;
    /// peers that may not be named any more are cut off.
    pub fn reload(&mut self, users: Users, peers: PeerPolicy, quota: Quota) {
        let own = std::mem::take(&mut self.peers);
        self.peers = PeerPolicy {
            attached: own.attached,
            listeners: own.listeners,
            ..peers
        };
        (self.users, self.quota) = (users, quota);
        let gone: Vec<AllocationId> = self
            .allocations
            .iter()
            .filter(|(_, allocation)| !self.users.still_knows(&allocation.identity))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            self.end(id, Ending::Revoked);
        }
        for allocation in self.allocations.iter_mut() {
            allocation
                .permissions
                .retain(|ip| self.peers.permits_ip(ip));
            allocation.channels.retain(|peer| self.peers.permits(peer));
        }
        self.cut_off_peers();
    }
}
