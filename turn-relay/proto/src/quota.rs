//! How much one user or one source may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::meter::Meter;
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
    /// Bytes in a second that may pass for a user, in each direction, all its allocations together.
    pub bandwidth_per_user: Option<NonZeroU64>,
    /// The same for a source address.
    pub bandwidth_per_source: Option<NonZeroU64>,
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
            bandwidth_per_user: None,
            bandwidth_per_source: None,
            strangers_per_second: 500,
        }
    }
}

/// Accounts by owner and kept ports, for all servers of a process together. Touched when an allocation
/// begins or ends; a packet touches the meters of its own account only, and those if there is a limit.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Mutex<HashMap<Owner, Account>>,
    pub(crate) reservations: Reservations,
}

/// What one owner holds.
#[derive(Debug, Default)]
struct Account {
    allocations: usize,
    meters: Arc<Meters>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToPeer,
    ToClient,
}

#[derive(Debug, Default)]
struct Meters {
    to_peers: Meter,
    to_clients: Meter,
}

impl Meters {
    fn pass(&self, direction: Direction, length: usize, rate: NonZeroU64, now: Duration) -> bool {
        let meter = match direction {
            Direction::ToPeer => &self.to_peers,
            Direction::ToClient => &self.to_clients,
        };
        meter.pass(length, rate, now)
    }
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    owners: [Owner; 2],
    user: Arc<Meters>,
    source: Arc<Meters>,
}

impl Place {
    /// Whether so many bytes may pass now for its user and its source.
    pub(crate) fn may_pass(
        &self,
        direction: Direction,
        length: usize,
        quota: &Quota,
        now: Duration,
    ) -> bool {
        let of = |meters: &Meters, limit: Option<NonZeroU64>| {
            limit.is_none_or(|rate| meters.pass(direction, length, rate, now))
        };
        of(&self.user, quota.bandwidth_per_user) && of(&self.source, quota.bandwidth_per_source)
    }
}

impl Ledger {
    /// Takes a place for one more allocation, unless that is too many.
    #[must_use]
    pub fn take(self: &Arc<Self>, user: Arc<str>, source: IpAddr, quota: &Quota) -> Option<Place> {
        let owners = [Owner::User(user), Owner::Source(source)];
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |owner: &Owner| accounts.get(owner).map_or(0, |account| account.allocations);
        if held(&owners[0]) >= quota.allocations_per_user
            || held(&owners[1]) >= quota.allocations_per_source
        {
            return None;
        }
        let [user, source] = [0, 1].map(|i: usize| {
            let account = accounts.entry(owners[i].clone()).or_default();
            account.allocations += 1;
            account.meters.clone()
        });
        Some(Place {
            ledger: self.clone(),
            owners,
            user,
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let accounts = &self.ledger.accounts;
        let mut accounts = accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for owner in &self.owners {
            if let Some(account) = accounts.get_mut(owner) {
                account.allocations -= 1;
                if account.allocations == 0 {
                    accounts.remove(owner);
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
        assert!(ledger.accounts.lock().unwrap().is_empty());
    }
}
