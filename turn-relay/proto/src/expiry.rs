//! When what ends: a heap of deadlines. What was prolonged or has ended leaves its deadline behind; such
//! are swept out before they outnumber the rest, so that no client can make the heap grow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Deadlines that may be there for nothing, besides as many as there are others.
const SLACK: usize = 64;

/// Deadlines of things.
#[derive(Debug)]
pub(crate) struct Expiry<T> {
    heap: BinaryHeap<Reverse<(Duration, T)>>,
}

impl<T: Ord + Copy> Expiry<T> {
    pub(crate) const fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }

    /// Something ends then. `living` things have a deadline; `is_valid` tells those that still count.
    pub(crate) fn schedule(
        &mut self,
        due: Duration,
        thing: T,
        living: usize,
        is_valid: impl Fn(Duration, T) -> bool,
    ) {
        if self.heap.len() >= 2 * living + SLACK {
            self.heap
                .retain(|Reverse((due, thing))| is_valid(*due, *thing));
        }
        self.heap.push(Reverse((due, thing)));
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// What is due, one at a time.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, thing))| thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_no_more_does_not_pile_up() {
        let mut expiry = Expiry::new();
        let valid = Duration::from_secs(5);
        expiry.schedule(valid, 1, 1, |_, _| true);
        for i in 0..10_000 {
            let due = Duration::from_secs(100 + i);
            expiry.schedule(due, 2, 2, |due, thing| thing == 1 && due == valid);
        }
        assert!(expiry.heap.len() <= 2 * 2 + SLACK, "{}", expiry.heap.len());
        assert_eq!(expiry.pop(Duration::from_secs(4)), None);
        assert_eq!(expiry.pop(valid), Some(1));
    }
}
