//! Counters that move while packets do. Each worker has its own; they are summed when asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portway_relay_proto::event::Ending;
use portway_relay_proto::server::Drop;

use crate::config::Transport;
use crate::users::{UserTotals, Users};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one worker. Hot path.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            /// Touched when an allocation begins or ends, or a scrape asks.
            users: Mutex<Users>,
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
    /// Allocations that live or are being made.
    allocations,
    /// Those of clients that come over UDP.
    allocations_udp,
    /// Those of clients that come over TCP.
    allocations_tcp,
    /// Those of clients that come over TLS.
    allocations_tls,
    /// Allocations made so far.
    allocations_started_total,
    /// Ended: their client did not refresh them.
    ended_expired,
    /// Ended: their client wanted no more.
    ended_deleted,
    /// Ended: their operator wanted no more.
    ended_revoked,
    /// Ended: the connection of their client has closed.
    ended_client_gone,
    /// Requests refused: bad request.
    refused_400,
    /// Requests refused: no credentials, or not the right ones.
    refused_401,
    /// Requests refused: a peer that nobody may name.
    refused_403,
    /// Requests refused: an attribute that must be understood and is not.
    refused_420,
    /// Requests refused: no allocation, or one too many.
    refused_437,
    /// Requests refused: the nonce is too old.
    refused_438,
    /// Requests refused: no such address family here.
    refused_440,
    /// Requests refused: the credentials of somebody else.
    refused_441,
    /// Requests refused: no such transport to peers.
    refused_442,
    /// Requests refused: a peer of another address family.
    refused_443,
    /// Requests refused: a quota is reached.
    refused_486,
    /// Requests refused: no room.
    refused_508,
    /// Requests refused with any other code.
    refused_other,
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
            let Some((family, label)) = family(name) else {
                continue;
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

/// Families of several counters: how their names begin, the family, and the label that tells them apart.
const FAMILIES: &[(&str, &str, &str)] = &[
    ("allocations_", "allocations", "transport"),
    ("ended_", "allocations_ended_total", "reason"),
    ("refused_", "refused_total", "code"),
    ("dropped_", "dropped_total", "reason"),
];

/// Family and label of a counter; `None`: the sum of a family, which is left to who reads it.
fn family(name: &str) -> Option<(String, String)> {
    if name == "allocations" {
        return None;
    }
    if name.ends_with("_total") {
        return Some((name.to_owned(), String::new()));
    }
    let labelled = FAMILIES.iter().find_map(|(prefix, family, label)| {
        let value = name.strip_prefix(prefix)?;
        Some(((*family).to_owned(), format!("{{{label}=\"{value}\"}}")))
    });
    Some(labelled.unwrap_or_else(|| (format!("{name}_total"), String::new())))
}

/// What users hold and have passed, as Prometheus reads it. Without a name: all others.
#[must_use]
pub fn users_prometheus(users: &[(String, UserTotals)]) -> String {
    type Value = fn(&UserTotals) -> u64;
    let families: [(&str, &str, Value); 5] = [
        ("user_allocations", "gauge", |user| user.allocations),
        ("user_packets_to_peers_total", "counter", |user| {
            user.traffic.packets_to_peers
        }),
        ("user_bytes_to_peers_total", "counter", |user| {
            user.traffic.bytes_to_peers
        }),
        ("user_packets_to_clients_total", "counter", |user| {
            user.traffic.packets_to_client
        }),
        ("user_bytes_to_clients_total", "counter", |user| {
            user.traffic.bytes_to_client
        }),
    ];
    let mut text = String::new();
    for (family, kind, value) in families {
        text.push_str(&format!("# TYPE portway_relay_{family} {kind}\n"));
        for (name, user) in users {
            text.push_str(&format!(
                "portway_relay_{family}{{user=\"{}\"}} {}\n",
                escaped(name),
                value(user)
            ));
        }
    }
    text
}

/// As the value of a label.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
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

    /// One less of what is there.
    pub(crate) fn less(&self, n: u64) {
        self.0
            .store(self.get().saturating_sub(n), Ordering::Relaxed);
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

    pub(crate) fn ended(&self, why: Ending) {
        let counter = match why {
            Ending::Expired => &self.ended_expired,
            Ending::Deleted => &self.ended_deleted,
            Ending::Revoked => &self.ended_revoked,
            Ending::ClientGone => &self.ended_client_gone,
        };
        counter.add(1);
    }

    pub(crate) fn refused(&self, code: u16) {
        let counter = match code {
            400 => &self.refused_400,
            401 => &self.refused_401,
            403 => &self.refused_403,
            420 => &self.refused_420,
            437 => &self.refused_437,
            438 => &self.refused_438,
            440 => &self.refused_440,
            441 => &self.refused_441,
            442 => &self.refused_442,
            443 => &self.refused_443,
            486 => &self.refused_486,
            508 => &self.refused_508,
            _ => &self.refused_other,
        };
        counter.add(1);
    }

    /// Allocations of those who come this way.
    pub(crate) const fn of(&self, transport: Transport) -> &Counter {
        match transport {
            Transport::Udp => &self.allocations_udp,
            Transport::Tcp => &self.allocations_tcp,
            Transport::Tls => &self.allocations_tls,
        }
    }

    pub(crate) fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_each_family_once() {
        let snapshot = Snapshot {
            allocations: 3,
            allocations_tcp: 3,
            refused_401: 2,
            ended_expired: 4,
            bytes_to_peers: 7,
            dropped_forbidden: 1,
            ..Snapshot::default()
        };
        let text = snapshot.prometheus();
        for line in [
            "# TYPE portway_relay_allocations gauge",
            "portway_relay_allocations{transport=\"udp\"} 0",
            "portway_relay_allocations{transport=\"tcp\"} 3",
            "# TYPE portway_relay_allocations_started_total counter",
            "portway_relay_refused_total{code=\"401\"} 2",
            "# TYPE portway_relay_allocations_ended_total counter",
            "portway_relay_allocations_ended_total{reason=\"expired\"} 4",
            "# TYPE portway_relay_bytes_to_peers_total counter",
            "portway_relay_bytes_to_peers_total 7",
            "portway_relay_dropped_total{reason=\"forbidden\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
        let families: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        let mut once = families.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), families.len(), "{text}");
    }

    #[test]
    fn a_user_name_stays_within_its_label() {
        let users = [("a\"} 1\n\\".to_owned(), UserTotals::default())];
        let text = users_prometheus(&users);
        let line = "portway_relay_user_allocations{user=\"a\\\"} 1\\n\\\\\"} 0";
        assert!(text.lines().any(|own| own == line), "{text}");
    }
}
