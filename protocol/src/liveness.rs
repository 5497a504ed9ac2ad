//! Whether the other end of a session is still there. Sans-IO.
//!
//! The contract of the loop: a shell calls [`Liveness::heard`] for every message, sleeps until
//! [`Liveness::poll_timeout`], then calls [`Liveness::handle_timeout`] and does what it says. `now` is
//! any monotonic clock.
//!
//! A timeout that is handled late means that this end stood still itself: a suspended laptop, a busy
//! machine. What the other end sent meanwhile still waits to be read, so the count starts anew.

use std::time::Duration;

/// How soon a silent end is asked, and how long it may stay silent.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Time between two pings.
    pub ping: Duration,
    /// Silence after which the other end counts as gone.
    pub silence: Duration,
    /// The same when there is reason to doubt, counted from then on.
    pub in_doubt: Duration,
}

/// A client wants to know soon: somebody waits in front of it.
pub const CLIENT: Patience = Patience {
    ping: Duration::from_secs(2),
    silence: Duration::from_secs(6),
    in_doubt: Duration::from_secs(2),
};

/// A gateway only frees what nobody needs, and a tab may be frozen for a while.
pub const GATEWAY: Patience = Patience {
    ping: Duration::from_secs(5),
    silence: Duration::from_secs(20),
    in_doubt: Duration::from_secs(5),
};

/// What a shell shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask for a sign of life.
    Ping,
    /// The other end is gone.
    Dead,
}

/// The count of silence.
#[derive(Debug)]
pub struct Liveness {
    patience: Patience,
    heard: Duration,
    pinged: Duration,
    doubted: Option<Duration>,
}

impl Liveness {
    /// The other end was there just now.
    #[must_use]
    pub const fn new(patience: Patience, now: Duration) -> Self {
        Self {
            patience,
            heard: now,
            pinged: now,
            doubted: None,
        }
    }

    /// A message came.
    pub const fn heard(&mut self, now: Duration) {
        self.heard = now;
        self.doubted = None;
    }

    /// Something else suggests that the other end has gone. The shell pings at once.
    pub const fn doubt(&mut self, now: Duration) {
        if self.doubted.is_none() {
            self.doubted = Some(now);
            self.pinged = now;
        }
    }

    /// When [`Liveness::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.deadline().min(self.pinged + self.patience.ping)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Verdict {
        let stood_still = now > self.poll_timeout() + self.patience.ping;
        if stood_still {
            self.heard(now);
        }
        if now >= self.deadline() {
            return Verdict::Dead;
        }
        self.pinged = now;
        Verdict::Ping
    }

    /// When the silence has been too long.
    fn deadline(&self) -> Duration {
        let by_silence = self.heard + self.patience.silence;
        match self.doubted {
            Some(since) => by_silence.min(since + self.patience.in_doubt),
            None => by_silence,
        }
    }
}

const _: () = assert!(CLIENT.ping.as_secs() * 2 <= CLIENT.silence.as_secs());
const _: () = assert!(GATEWAY.ping.as_secs() * 2 <= GATEWAY.silence.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn seconds(n: u64) -> Duration {
        START + Duration::from_secs(n)
    }

    /// Handles every timeout as it is due; returns when the verdict was [`Verdict::Dead`].
    fn dies_at(liveness: &mut Liveness) -> Duration {
        loop {
            let due = liveness.poll_timeout();
            if liveness.handle_timeout(due) == Verdict::Dead {
                return due;
            }
        }
    }

    #[test]
    fn silence_is_noticed_after_pings_in_vain() {
        let mut liveness = Liveness::new(CLIENT, START);
        assert_eq!(liveness.poll_timeout(), seconds(2));
        assert_eq!(liveness.handle_timeout(seconds(2)), Verdict::Ping);
        assert_eq!(liveness.handle_timeout(seconds(4)), Verdict::Ping);
        assert_eq!(dies_at(&mut liveness), seconds(6));
    }

    #[test]
    fn any_message_starts_the_count_anew() {
        let mut liveness = Liveness::new(CLIENT, START);
        liveness.heard(seconds(5));
        assert_eq!(dies_at(&mut liveness), seconds(11));
    }

    #[test]
    fn a_doubt_shortens_the_wait_and_a_message_ends_it() {
        let mut liveness = Liveness::new(CLIENT, START);
        liveness.doubt(seconds(1));
        liveness.doubt(seconds(2));
        assert_eq!(liveness.poll_timeout(), seconds(3));
        liveness.heard(seconds(2));
        assert_eq!(dies_at(&mut liveness), seconds(8));
        liveness.doubt(seconds(8));
        assert_eq!(
            dies_at(&mut liveness),
            seconds(8),
            "it was silent for long before"
        );
    }

    #[test]
    fn the_own_standstill_is_not_the_other_end_s_silence() {
        let mut liveness = Liveness::new(CLIENT, START);
        assert_eq!(liveness.handle_timeout(seconds(60)), Verdict::Ping);
        assert_eq!(dies_at(&mut liveness), seconds(66));
        let mut doubted = Liveness::new(CLIENT, START);
        doubted.doubt(seconds(1));
        assert_eq!(doubted.handle_timeout(seconds(60)), Verdict::Ping);
    }
}
