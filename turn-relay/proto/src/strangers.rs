//! How often those who have proved nothing are answered: a relay shall not be a reflector, and a guess
//! at a password shall be slow.
//!
//! A table of fixed size counts answers of this second by network (/24 or /48): nothing grows with the
//! number of sources. Two networks that share a place share its limit; a keyed hash keeps an attacker
//! from choosing with whom.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

/// Places of the table.
const PLACES: usize = 4096;

/// Counts answers.
#[derive(Debug)]
pub(crate) struct Strangers {
    hasher: RandomState,
    second: u64,
    counts: Box<[u32; PLACES]>,
}

impl Strangers {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            second: 0,
            counts: Box::new([0; PLACES]),
        }
    }

    /// Whether one more answer may go to this address, at most `limit` in a second.
    pub(crate) fn may_hear(&mut self, ip: IpAddr, limit: u32, now: Duration) -> bool {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.counts.fill(0);
        }
        let network = match ip {
            IpAddr::V4(v4) => u128::from(v4.to_bits() >> 8),
            // Apart from those of IPv4.
            IpAddr::V6(v6) => v6.to_bits() >> 80 | 1 << 127,
        };
        let hash = self.hasher.hash_one(network);
        let place = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        let count = &mut self.counts[place];
        *count = count.saturating_add(1);
        *count <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_of_each_second() {
        let mut strangers = Strangers::new();
        let mut hear =
            |ip: &str, at| strangers.may_hear(ip.parse().unwrap(), 2, Duration::from_millis(at));
        assert!(hear("192.0.2.1", 0) && hear("192.0.2.200", 1));
        assert!(!hear("192.0.2.3", 2), "a third of one network");
        assert!(hear("192.0.2.3", 1000), "another second");
        assert!(hear("2001:db8:1::1", 1000) && hear("2001:db8:1:ffff::1", 1000));
        assert!(!hear("2001:db8:1:2::1", 1000));
    }
}
