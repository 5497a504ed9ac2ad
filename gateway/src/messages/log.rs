//! The last messages of a bus, in order. Sans-IO.
//!
//! A topic keeps so many, that one with much to say does not push out what others have said; and the log so many and
//! so many bytes in all. What goes is the oldest. A topic that has nothing left is still known, so that nobody is told
//! of something missed who has missed nothing; when there are too many, the one that was silent longest is forgotten.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use portway_protocol::message::{Filter, Topic};

/// Messages kept of a topic.
const MAX_PER_TOPIC: usize = 256;

/// Messages kept in all.
const MAX_MESSAGES: usize = 4096;

/// Bytes kept in all, as they are sent.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Topics known.
const MAX_TOPICS: usize = 1024;

const _: () = assert!(MAX_BYTES > portway_protocol::message::event::MAX_EVENT);

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Log {
    kept: BTreeMap<u64, Kept>,
    topics: BTreeMap<Topic, Known>,
    bytes: usize,
    /// The last message.
    last: u64,
    /// The last of all messages about topics that are forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Kept {
    topic: Topic,
    event: Bytes,
}

/// What is known of a topic.
#[derive(Debug, Default)]
struct Known {
    /// Those kept.
    kept: VecDeque<u64>,
    /// The last one that is not.
    dropped: u64,
    /// The last of all.
    last: u64,
}

/// A message that is not kept any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) seq: u64,
    pub(super) topic: Topic,
}

impl Log {
    /// Keeps the next message, which has [`Log::next`]; returns those that had to go for it.
    pub(super) fn push(&mut self, topic: &Topic, event: Bytes) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        self.last += 1;
        self.bytes += event.len();
        let kept = Kept {
            topic: topic.clone(),
            event,
        };
        self.kept.insert(self.last, kept);
        let known = self.topics.entry(topic.clone()).or_default();
        known.kept.push_back(self.last);
        known.last = self.last;
        if known.kept.len() > MAX_PER_TOPIC
            && let Some(oldest) = known.kept.front()
        {
            let oldest = *oldest;
            dropped.extend(self.drop(oldest));
        }
        if self.topics.len() > MAX_TOPICS {
            dropped.extend(self.forget());
        }
        while self.kept.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let oldest = self.kept.first_key_value().map(|(seq, _)| *seq);
            let gone = oldest.and_then(|oldest| self.drop(oldest));
            dropped.push(gone.expect("what is too much is there"));
        }
        dropped
    }

    /// Of the next message.
    pub(super) const fn next(&self) -> u64 {
        self.last + 1
    }

    /// Of the last message; 0 if there was none.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The first message after `seq` that is wanted.
    pub(super) fn after(&self, seq: u64, filter: &Filter) -> Option<(u64, Bytes)> {
        let mut later = self.kept.range(seq.saturating_add(1)..);
        let found = later.find(|(_, kept)| filter.matches(&kept.topic));
        found.map(|(seq, kept)| (*seq, kept.event.clone()))
    }

    /// Whether something that is wanted came after `seq` and is gone, or may be.
    pub(super) fn has_dropped_after(&self, seq: u64, filter: &Filter) -> bool {
        let mut topics = self.topics.iter();
        self.forgotten > seq
            || topics.any(|(topic, known)| known.dropped > seq && filter.matches(topic))
    }

    /// Drops the oldest message of its topic.
    fn drop(&mut self, seq: u64) -> Option<Dropped> {
        let Kept { topic, event } = self.kept.remove(&seq)?;
        self.bytes -= event.len();
        if let Some(known) = self.topics.get_mut(&topic) {
            known.kept.pop_front();
            known.dropped = seq;
        }
        Some(Dropped { seq, topic })
    }

    /// Forgets the topic that was silent longest.
    fn forget(&mut self) -> Vec<Dropped> {
        let silent = self.topics.iter().min_by_key(|(_, known)| known.last);
        let Some((topic, known)) = silent else {
            return Vec::new();
        };
        let (topic, seqs) = (topic.clone(), known.kept.clone());
        self.forgotten = self.forgotten.max(known.last);
        let dropped = seqs.into_iter().filter_map(|seq| self.drop(seq)).collect();
        self.topics.remove(&topic);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        name.parse().unwrap()
    }

    /// Publishes so many messages of a size, returns how many had to go.
    fn publish(log: &mut Log, name: &str, count: usize, size: usize) -> usize {
        let topic = topic(name);
        let push = |_| log.push(&topic, vec![0; size].into()).len();
        (0..count).map(push).sum()
    }

    fn seqs(log: &Log, since: u64, filter: &str) -> Vec<u64> {
        let filter = filter.parse().unwrap();
        let next = |seq: &u64| log.after(*seq, &filter).map(|(seq, _)| seq);
        std::iter::successors(next(&since), next).collect()
    }

    #[test]
    fn what_is_wanted_comes_in_order() {
        let mut log = Log::default();
        for name in ["a/x", "b", "a/y", "a"] {
            publish(&mut log, name, 1, 10);
        }
        assert_eq!(seqs(&log, 0, "*"), [1, 2, 3, 4]);
        assert_eq!(seqs(&log, 0, "a/*"), [1, 3]);
        assert_eq!(seqs(&log, 1, "a/*"), [3]);
        assert_eq!(seqs(&log, 0, "a"), [4]);
        assert!(seqs(&log, 4, "*").is_empty());
        assert_eq!((log.last(), log.next()), (4, 5));
    }

    #[test]
    fn a_topic_with_much_to_say_pushes_out_its_own() {
        let mut log = Log::default();
        publish(&mut log, "quiet", 1, 10);
        assert_eq!(publish(&mut log, "loud", MAX_PER_TOPIC + 3, 10), 3);
        assert_eq!(seqs(&log, 0, "quiet"), [1]);
        assert_eq!(seqs(&log, 0, "loud").first(), Some(&5));
        let [quiet, loud] = ["quiet", "loud"].map(|filter| filter.parse().unwrap());
        assert!(!log.has_dropped_after(0, &quiet));
        assert!(log.has_dropped_after(3, &loud));
        assert!(!log.has_dropped_after(4, &loud));
    }

    #[test]
    fn bytes_and_messages_are_bounded_over_all_topics() {
        let mut log = Log::default();
        for n in 0..MAX_MESSAGES / MAX_PER_TOPIC + 2 {
            publish(&mut log, &format!("t{n}"), MAX_PER_TOPIC, 10);
        }
        assert_eq!(log.kept.len(), MAX_MESSAGES);
        publish(&mut log, "large", 200, MAX_BYTES / 128);
        assert_eq!((log.kept.len(), log.bytes), (128, MAX_BYTES));
        assert!(log.has_dropped_after(0, &"t0".parse().unwrap()));
    }

    #[test]
    fn the_topic_that_was_silent_longest_is_forgotten() {
        let mut log = Log::default();
        for n in 0..MAX_TOPICS {
            publish(&mut log, &format!("t{n}"), 1, 10);
        }
        publish(&mut log, "t0", 1, 10);
        let gone = log.push(&topic("new"), Bytes::new());
        let first = Dropped {
            seq: 2,
            topic: topic("t1"),
        };
        assert_eq!(gone, [first]);
        assert_eq!(log.topics.len(), MAX_TOPICS);
        // Nobody knows any more what it had to say.
        assert!(log.has_dropped_after(1, &"other".parse().unwrap()));
        assert!(!log.has_dropped_after(2, &"other".parse().unwrap()));
    }
}
