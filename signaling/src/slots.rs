//! How many connections there may be: in all, and from one place on the internet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time; a browser tab needs two or three.
const MAX_CONNECTIONS: usize = 8_192;

/// Connections at a time from one public address: an office behind one NAT has room, a single
/// attacker cannot take everything.
const MAX_PER_ADDRESS: usize = 512;

/// Open connections by place.
type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// Connections that may be open.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    all: Arc<Semaphore>,
    by_address: Counts,
}

/// The right to one connection, until dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _one_of_all: OwnedSemaphorePermit,
    counted: Option<(IpAddr, Counts)>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            by_address: Arc::default(),
        }
    }

    /// Waits until there is room at all.
    pub(crate) async fn one(&self) -> OwnedSemaphorePermit {
        self.all
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// A slot for `address`; `None` if it has too many.
    pub(crate) fn take(&self, one: OwnedSemaphorePermit, address: IpAddr) -> Option<Slot> {
        let counted = match place(address) {
            None => None,
            Some(place) => {
                let mut counts = lock(&self.by_address);
                let count = counts.entry(place).or_default();
                if *count >= MAX_PER_ADDRESS {
                    return None;
                }
                *count += 1;
                Some((place, self.by_address.clone()))
            }
        };
        Some(Slot {
            _one_of_all: one,
            counted,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((place, counts)) = &self.counted else {
            return;
        };
        let mut counts = lock(counts);
        if let Some(count) = counts.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                counts.remove(place);
            }
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one customer of a network provider has: an IPv4 address, or an IPv6 /64. `None` for local
/// networks: a reverse proxy speaks for everybody there.
pub(crate) fn place(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            (!(ip.is_loopback() || ip.is_private() || ip.is_link_local())).then_some(ip.into())
        }
        IpAddr::V6(ip) => {
            if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() {
                return None;
            }
            let prefix = ip.to_bits() & !u128::from(u64::MAX);
            Some(Ipv6Addr::from_bits(prefix).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_cannot_take_everything() {
        let slots = Slots::new();
        let mut taken = Vec::new();
        for n in 0..MAX_PER_ADDRESS {
            let address = format!("[2001:db8::{n:x}]:1");
            let address: std::net::SocketAddr = address.parse().unwrap();
            taken.push(slots.take(slots.one().await, address.ip()).unwrap());
        }
        let same: IpAddr = "2001:db8::ffff:1".parse().unwrap();
        assert!(slots.take(slots.one().await, same).is_none());
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert!(slots.take(slots.one().await, other).is_some());
        taken.pop();
        assert!(slots.take(slots.one().await, same).is_some());
        drop(taken);
        assert!(lock(&slots.by_address).is_empty());
        assert_eq!(slots.all.available_permits(), MAX_CONNECTIONS);
    }

    #[tokio::test]
    async fn a_proxy_in_the_local_network_speaks_for_many() {
        let slots = Slots::new();
        let proxy: IpAddr = "10.0.0.2".parse().unwrap();
        let mut taken = Vec::new();
        for _ in 0..=MAX_PER_ADDRESS {
            taken.push(slots.take(slots.one().await, proxy).unwrap());
        }
    }
}
