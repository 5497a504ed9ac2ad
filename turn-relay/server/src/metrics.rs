//! Counters that move while packets do. Each worker has its own; they are summed when asked.

use std::sync::atomic::{AtomicU64, Ordering};

use portway_relay_proto::server::Drop;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one worker. Hot path.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        /// Sums over all workers.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn add_to(&self, sum: &mut Snapshot) {
                $(sum.$name += self.$name.get();)*
            }
        }

        impl Snapshot {
            /// Names and values, as for a scrape.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Allocations that live.
    allocations,
    /// Relay sockets bound so far.
    sockets_total,
    /// Packets of clients to peers.
    packets_to_peers,
    /// Their payload, bytes.
    bytes_to_peers,
    /// Packets of peers to clients.
    packets_to_clients,
    /// Their payload, bytes.
    bytes_to_clients,
    /// Control messages answered.
    answers,
    /// Dropped: neither STUN nor ChannelData, or malformed.
    dropped_malformed,
    /// Dropped: data of a client without an allocation.
    dropped_no_allocation,
    /// Dropped: no such channel.
    dropped_no_channel,
    /// Dropped: no permission for the peer.
    dropped_no_permission,
    /// Dropped: a peer that nobody may name.
    dropped_forbidden,
    /// Dropped: a network had its share of answers without proof.
    dropped_too_many,
    /// Dropped: the system did not take it.
    dropped_unsent,
}

impl Snapshot {
    /// As Prometheus reads it (text format 0.0.4).
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        let mut last_family = String::new();
        for (name, value) in self.iter() {
            let (family, label) = match name.strip_prefix("dropped_") {
                Some(reason) => (
                    "dropped_total".to_owned(),
                    format!("{{reason=\"{reason}\"}}"),
                ),
                None if name == "allocations" || name.ends_with("_total") => {
                    (name.to_owned(), String::new())
                }
                None => (format!("{name}_total"), String::new()),
            };
            if family != last_family {
                let kind = if family.ends_with("_total") {
                    "counter"
                } else {
                    "gauge"
                };
                text.push_str(&format!("# TYPE portway_relay_{family} {kind}\n"));
            }
            text.push_str(&format!("portway_relay_{family}{label} {value}\n"));
            last_family = family;
        }
        text
    }
}

/// One counter, written by one thread.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Plain arithmetic: its thread is the only one that writes.
    pub(crate) fn add(&self, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn set(&self, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.0.store(n, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn dropped(&self, why: Drop) {
        let counter = match why {
            Drop::Malformed => &self.dropped_malformed,
            Drop::NoAllocation => &self.dropped_no_allocation,
            Drop::NoChannel => &self.dropped_no_channel,
            Drop::NoPermission => &self.dropped_no_permission,
            Drop::Forbidden => &self.dropped_forbidden,
            Drop::TooMany => &self.dropped_too_many,
        };
        counter.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_each_family_once() {
        let snapshot = Snapshot {
            allocations: 3,
            bytes_to_peers: 7,
            dropped_forbidden: 1,
            ..Snapshot::default()
        };
        let text = snapshot.prometheus();
        for line in [
            "# TYPE portway_relay_allocations gauge",
            "portway_relay_allocations 3",
            "# TYPE portway_relay_bytes_to_peers_total counter",
            "portway_relay_bytes_to_peers_total 7",
            "portway_relay_dropped_total{reason=\"forbidden\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
        let families = text
            .lines()
            .filter(|line| line.contains("TYPE portway_relay_dropped"));
        assert_eq!(families.count(), 1);
    }
}
