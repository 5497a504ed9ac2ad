//! What a session notes of itself, and how much of what strangers can repeat at will.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use portway_protocol::id::SessionId;
use portway_protocol::reason::Reason;
use portway_transport::Path;

use super::Log;
use super::event::{Ending, Event};
use crate::session::table::{Entry, Moved};

/// Records of denials in a [`WINDOW`]; further ones are counted. So nobody can push all else out of the
/// log by asking for what they may not have.
const RECORDED: u32 = 10;

/// See [`RECORDED`].
const WINDOW: Duration = Duration::from_secs(10);

/// Longest text of others in a record, in characters.
const MAX_TEXT: usize = 256;

/// A session, as it notes itself. When this is dropped, it is over, even if it panicked.
#[derive(Debug)]
pub(crate) struct SessionLog {
    log: Log,
    entry: Arc<Entry>,
    began: Instant,
    /// Why it ends, once that is known.
    why: OnceLock<Ending>,
    requests: AtomicU64,
    denied: AtomicU64,
    denials: Denials,
}

/// How many denials are recorded.
#[derive(Debug, Default)]
pub(crate) struct Denials(Mutex<Budget>);

#[derive(Debug, Default)]
struct Budget {
    since: Option<Instant>,
    recorded: u32,
    unrecorded: u64,
}

impl SessionLog {
    /// Notes that somebody was let in.
    pub(crate) fn opened(log: Log, entry: Arc<Entry>, path: Option<Path>) -> Self {
        let claimed = entry.claimed();
        log.note(Event::SessionOpened {
            session: claimed.session,
            user: clip(&claimed.user),
            grant: claimed.grant,
            device: Box::new(claimed.device),
            service: claimed.service.clone(),
            route: path.map(Into::into),
        });
        Self {
            log,
            entry,
            began: Instant::now(),
            why: OnceLock::new(),
            requests: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            denials: Denials::default(),
        }
    }

    /// It goes on by another path.
    pub(crate) fn moved(&self, path: Option<Path>) {
        self.log.note(Event::SessionMoved {
            session: self.session(),
            route: path.map(Into::into),
        });
    }

    /// A request has come.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not allowed.
    pub(crate) fn denied(&self, method: &Method, path: &str, reason: Reason) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        if let Some(unrecorded) = self.denials.next(Instant::now()) {
            self.log.note(Event::RequestDenied {
                session: self.session(),
                method: clip(method.as_str()),
                path: clip(path),
                reason,
                unrecorded,
            });
        }
    }

    /// Why it is over. The first to know is right.
    pub(crate) fn ends(&self, why: Ending) {
        self.why.get_or_init(|| why);
    }

    fn session(&self) -> SessionId {
        self.entry.claimed().session
    }
}

impl Drop for SessionLog {
    fn drop(&mut self) {
        let Moved { received, sent } = self.entry.moved();
        self.log.note(Event::SessionEnded {
            session: self.session(),
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            received,
            sent,
            requests: self.requests.load(Ordering::Relaxed),
            denied: self.denied.load(Ordering::Relaxed),
            why: self.why.get().copied().unwrap_or(Ending::Failed),
        });
    }
}

impl Denials {
    /// Whether the next one is recorded, and then, how many were not since the last.
    pub(crate) fn next(&self, now: Instant) -> Option<u64> {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= WINDOW;
        if budget.since.is_none_or(is_over) {
            budget.since = Some(now);
            budget.recorded = 0;
        }
        if budget.recorded == RECORDED {
            budget.unrecorded += 1;
            return None;
        }
        budget.recorded += 1;
        Some(std::mem::take(&mut budget.unrecorded))
    }
}

pub(super) fn clip(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_beyond_a_few_are_counted_and_told_later() {
        let denials = Denials::default();
        let now = Instant::now();
        for _ in 0..RECORDED {
            assert_eq!(denials.next(now), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(denials.next(now), None);
        }
        assert_eq!(denials.next(now + WINDOW), Some(5));
        assert_eq!(denials.next(now + WINDOW), Some(0));
    }
}
