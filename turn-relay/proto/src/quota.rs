//! How much one user or one source may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::reservation::Reservations;

/// Who holds an allocation, as quotas count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    User(Arc<str>),
    Source(IpAddr),
}

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Allocations of a user at a time.
    pub allocations_per_user: usize,
    /// Allocations of a source address at a time: offices share one.
    pub allocations_per_source: usize,
    /// Permissions of an allocation at a time.
    pub permissions: usize,
    /// Channels of an allocation at a time.
    pub channels: usize,
    /// Answers in a second to all of a network (/24 or /48) that have proved nothing.
    pub strangers_per_second: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            allocations_per_user: 16,
            allocations_per_source: 256,
            permissions: 16,
            channels: 32,
            strangers_per_second: 500,
        }
    }
}

/// Counts allocations by owner and keeps ports, for all servers of a process together. Touched when an
/// allocation begins or ends, never by a packet.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<HashMap<Owner, usize>>,
    pub(crate) reservations: Reservations,
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    owners: [Owner; 2],
}

impl Ledger {
    /// Takes a place for one more allocation, unless that is too many.
    #[must_use]
    pub fn take(self: &Arc<Self>, user: Arc<str>, source: IpAddr, quota: &Quota) -> Option<Place> {
        let owners = [Owner::User(user), Owner::Source(source)];
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |owner: &Owner| counts.get(owner).copied().unwrap_or(0);
        if count(&owners[0]) >= quota.allocations_per_user
            || count(&owners[1]) >= quota.allocations_per_source
        {
            return None;
        }
        for owner in &owners {
            *counts.entry(owner.clone()).or_default() += 1;
        }
        Some(Place {
            ledger: self.clone(),
            owners,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .ledger
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for owner in &self.owners {
            if let Some(count) = counts.get_mut(owner) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(owner);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_user_and_by_source_and_come_back() {
        let ledger = Arc::new(Ledger::default());
        let quota = Quota {
            allocations_per_user: 2,
            allocations_per_source: 3,
            ..Quota::default()
        };
        let source = "192.0.2.1".parse().unwrap();
        let take = |user: &str| ledger.take(user.into(), source, &quota);
        let (a, b) = (take("ann").unwrap(), take("ann").unwrap());
        assert!(take("ann").is_none(), "a third of one user");
        let c = take("bob").unwrap();
        assert!(take("eve").is_none(), "a fourth of one source");
        drop((a, b, c));
        assert!(ledger.counts.lock().unwrap().is_empty());
    }
}
