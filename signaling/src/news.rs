//! Tells what happens to nodes: those that have asked, and whoever follows in this process.
//!
//! A node that asks gets no more than its socket can carry: what is over its budget is counted, and the count told
//! before the next.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use portway_protocol::budget::Budget;
use portway_protocol::signal::news::{Interest, NodeEvent, Told};
use portway_protocol::signal::{Call, Envelope};
use tokio::sync::broadcast;

use crate::bus::{QUEUE, SocketId};
use crate::registry::Outbox;

/// Events that may wait for a follower; it is told how many it has missed.
const FOLLOWED: usize = 256;

/// Events a second that a node is told for long.
const RATE: f64 = 50.0;

/// Events that it is told at once.
const BURST: f64 = 100.0;

const _: () = assert!(QUEUE as f64 > 2.0 * BURST, "other messages have room");

/// Who is told.
#[derive(Debug)]
pub(crate) struct News {
    followers: broadcast::Sender<Told>,
    watchers: Mutex<HashMap<SocketId, Watcher>>,
}

/// A node that has asked.
#[derive(Debug)]
struct Watcher {
    outbox: Outbox,
    interest: Interest,
    budget: Budget,
    missed: u64,
}

impl Default for News {
    fn default() -> Self {
        Self {
            followers: broadcast::Sender::new(FOLLOWED),
            watchers: Mutex::default(),
        }
    }
}

impl News {
    /// All that is told from now on.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Told> {
        self.followers.subscribe()
    }

    /// A node asks, in place of what it has asked before.
    pub(crate) fn watch(&self, outbox: &Outbox, interest: Interest) {
        let mut watchers = self.lock();
        if interest == Interest::Nothing {
            watchers.remove(&outbox.id);
            return;
        }
        let fresh = || Watcher {
            outbox: outbox.clone(),
            interest,
            budget: Budget::new(Instant::now(), RATE, BURST),
            missed: 0,
        };
        watchers.entry(outbox.id).or_insert_with(fresh).interest = interest;
    }

    /// A socket has closed.
    pub(crate) fn remove(&self, socket: SocketId) {
        self.lock().remove(&socket);
    }

    /// Tells it.
    pub(crate) fn tell(&self, event: NodeEvent) {
        let told = Told {
            at_ms: unix_ms(),
            event,
        };
        let now = Instant::now();
        for watcher in self.lock().values_mut() {
            watcher.tell(&told, now);
        }
        if self.followers.send(told).is_err() {
            tracing::trace!("nobody follows");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketId, Watcher>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    fn tell(&mut self, told: &Told, now: Instant) {
        if told.event.concerns() > self.interest {
            return;
        }
        if !self.budget.take(now) {
            self.missed += 1;
            return;
        }
        if self.missed > 0 {
            let count = std::mem::take(&mut self.missed);
            self.say(Told {
                at_ms: told.at_ms,
                event: NodeEvent::Missed { count },
            });
        }
        self.say(told.clone());
    }

    fn say(&self, told: Told) {
        self.outbox.send(&Envelope::call(None, &Call::News(told)));
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::bus::{Local, Mailbox, Outgoing};

    fn stage() -> (News, Mailbox, Outbox) {
        let bus: Arc<dyn crate::bus::Bus> = Arc::new(Local::default());
        let mailbox = Mailbox::open(&bus);
        let id = mailbox.id;
        (News::default(), mailbox, Outbox { id, bus })
    }

    /// What was said to a socket.
    fn said(mailbox: &mut Mailbox) -> Vec<Told> {
        let mut said = Vec::new();
        while let Ok(Outgoing::Text(text)) = mailbox.receiver.try_recv() {
            let envelope = Envelope::parse(&text).unwrap();
            let params = envelope.params.unwrap();
            said.push(serde_json::from_str(params.get()).unwrap());
        }
        said
    }

    fn offline() -> NodeEvent {
        NodeEvent::NodeOffline {
            node: "nas".parse().unwrap(),
        }
    }

    fn heartbeat() -> NodeEvent {
        NodeEvent::NodeHeartbeat {
            node: "nas".parse().unwrap(),
        }
    }

    #[test]
    fn who_asks_is_told_what_it_asks_for() {
        let (news, mut mailbox, outbox) = stage();
        news.tell(offline());
        news.watch(&outbox, Interest::Changes);
        news.tell(heartbeat());
        assert!(said(&mut mailbox).is_empty());
        news.tell(offline());
        assert_eq!(said(&mut mailbox)[0].event, offline());
        news.watch(&outbox, Interest::Heartbeats);
        news.tell(heartbeat());
        assert_eq!(said(&mut mailbox)[0].event, heartbeat());
        news.watch(&outbox, Interest::Nothing);
        news.tell(offline());
        assert!(said(&mut mailbox).is_empty());
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let (news, mut mailbox, outbox) = stage();
        news.watch(&outbox, Interest::Changes);
        let mut watchers = news.lock();
        let watcher = watchers.get_mut(&outbox.id).unwrap();
        let told = Told {
            at_ms: 1,
            event: offline(),
        };
        let start = Instant::now();
        (0..103).for_each(|_| watcher.tell(&told, start));
        assert_eq!(said(&mut mailbox).len(), 100);
        watcher.tell(&told, start + Duration::from_secs(1));
        let [missed, next] = &said(&mut mailbox)[..] else {
            panic!("two are told");
        };
        assert_eq!(missed.event, NodeEvent::Missed { count: 3 });
        assert_eq!(*next, told);
    }
}
