//! Whether the other end of a session is still there, and whether its path is. Sans-IO.
//!
//! ```text
//! heard ── a lull after traffic, or a while of nothing ──► Ping ── no answer ──► Silent ─┐
//!   ▲                                                                            ▲       │ again
//!   └──────────────────────────── any message ◄──────────────────────────────────┴───────┤
//!                                                              silence for too long: Dead ◄┘
//! ```
//! A channel that closes is silent at once.
//! The contract of the loop: a shell calls [`Liveness::heard`] for every batch of messages, sleeps until
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
    /// Silence after traffic at which the other end is asked out of turn: a transfer has ended, or its
    /// path has.
    pub lull: Duration,
    /// Time between two pings while none is answered. Several in a row let SCTP repair the loss of one
    /// within a round trip (fast retransmission, RFC 9260 §7.2.4), where a lone one waits for a timer of
    /// a second.
    pub insist: Duration,
    /// Time for an answer, on top of two round trips.
    pub answer: Duration,
    /// Time between two of [`Verdict::Silent`].
    pub again: Duration,
    /// Silence after which the other end counts as gone.
    pub silence: Duration,
    /// Time without a channel after which it does.
    pub absence: Duration,
}

/// A client wants to know soon: somebody waits in front of it.
pub const CLIENT: Patience = Patience {
    ping: Duration::from_secs(2),
    lull: Duration::from_millis(400),
    insist: Duration::from_millis(100),
    answer: Duration::from_millis(700),
    again: Duration::from_millis(1000),
    silence: Duration::from_secs(90),
    absence: Duration::from_secs(90),
};

/// A gateway waits longer than the client, which may come back by another path; and a tab may be frozen
/// for a while. A channel that closes was most likely closed by a client that has gone; one that lost its
/// own end by mistake is back within a second or two.
pub const GATEWAY: Patience = Patience {
    ping: Duration::from_secs(5),
    lull: Duration::from_millis(400),
    insist: Duration::from_millis(300),
    answer: Duration::from_millis(1000),
    again: Duration::from_secs(5),
    silence: Duration::from_secs(105),
    absence: Duration::from_secs(10),
};

/// What a shell shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask for a sign of life.
    Ping,
    /// The path is dead: look for another one, and ask by the old one too. Comes again until something is
    /// heard.
    Silent,
    /// The other end is gone.
    Dead,
}

/// What a batch of messages tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The other end pings, or says where it stands. What we send may be lost all the same.
    Ping,
    /// The other end has answered a ping, and sends nothing.
    Pong,
    /// More may follow soon.
    Traffic,
}

/// The count of silence.
#[derive(Debug)]
pub struct Liveness {
    patience: Patience,
    heard: Duration,
    /// The last ping.
    pinged: Duration,
    /// The first ping since an answer, or traffic.
    unanswered: Option<Duration>,
    /// Whether there was traffic since a ping was answered.
    is_busy: bool,
    rtt: Duration,
    /// When [`Verdict::Silent`] was given last.
    told: Option<Duration>,
    /// Since when there is no channel.
    lost: Option<Duration>,
}

impl Liveness {
    /// The other end was there just now.
    #[must_use]
    pub const fn new(patience: Patience, now: Duration) -> Self {
        Self {
            patience,
            heard: now,
            pinged: now,
            unanswered: None,
            is_busy: false,
            rtt: Duration::ZERO,
            told: None,
            lost: None,
        }
    }

    /// Messages came. Returns whether this ends a silence that had brought [`Verdict::Silent`].
    pub const fn heard(&mut self, sign: Sign, now: Duration) -> bool {
        self.heard = now;
        self.lost = None;
        let was_silent = self.told.take().is_some();
        match sign {
            Sign::Ping if !was_silent => return false,
            Sign::Ping => {}
            Sign::Pong => self.is_busy = false,
            Sign::Traffic => self.is_busy = true,
        }
        self.unanswered = None;
        was_silent
    }

    /// A round trip was measured.
    pub const fn measured(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Something else suggests that the path has gone. The shell pings at once.
    pub const fn doubt(&mut self, now: Duration) {
        self.asked(now);
    }

    /// The channel has closed: as [`Verdict::Silent`], until something comes by another one.
    pub const fn lost(&mut self, now: Duration) {
        self.asked(now);
        self.told = Some(now);
        self.lost = Some(now);
    }

    /// When [`Liveness::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        self.ping_due().min(self.silent_due()).min(self.deadline())
    }

    /// Time has passed. A [`Verdict::Silent`] wants a ping, too.
    pub fn handle_timeout(&mut self, now: Duration) -> Verdict {
        let stood_still = now > self.poll_timeout() + self.patience.ping;
        if stood_still {
            self.heard = now;
            self.unanswered = None;
            self.lost = self.lost.map(|_| now);
        }
        if now >= self.deadline() {
            return Verdict::Dead;
        }
        if now >= self.silent_due() {
            self.told = Some(now);
            self.asked(now);
            return Verdict::Silent;
        }
        self.asked(now);
        Verdict::Ping
    }

    const fn asked(&mut self, now: Duration) {
        self.pinged = now;
        if self.unanswered.is_none() {
            self.unanswered = Some(now);
        }
    }

    fn ping_due(&self) -> Duration {
        let regular = self.pinged + self.patience.ping;
        match self.unanswered {
            None if self.is_busy => regular.min(self.heard + self.patience.lull),
            Some(_) if self.told.is_none() => self.pinged + self.patience.insist,
            None | Some(_) => regular,
        }
    }

    fn silent_due(&self) -> Duration {
        match (self.told, self.unanswered) {
            (Some(told), Some(_)) => told + self.patience.again,
            (None, Some(asked)) => asked + self.patience.answer + self.rtt * 2,
            (_, None) => Duration::MAX,
        }
    }

    /// When the silence has been too long.
    fn deadline(&self) -> Duration {
        let silence = self.heard + self.patience.silence;
        match self.lost {
            Some(lost) => silence.min(lost + self.patience.absence),
            None => silence,
        }
    }
}

const _: () = assert!(CLIENT.ping.as_secs() * 2 <= CLIENT.silence.as_secs());
const _: () = assert!(GATEWAY.ping.as_secs() * 2 <= GATEWAY.silence.as_secs());
const _: () = assert!(
    CLIENT.silence.as_secs() + 10 <= GATEWAY.silence.as_secs(),
    "a client that still tries finds its session"
);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn after(millis: u64) -> Duration {
        START + Duration::from_millis(millis)
    }

    /// Handles every timeout as it is due, up to the first verdict of a kind; returns when it came.
    fn first(liveness: &mut Liveness, wanted: Verdict) -> Duration {
        loop {
            let due = liveness.poll_timeout();
            if liveness.handle_timeout(due) == wanted {
                return due;
            }
        }
    }

    #[test]
    fn an_idle_path_is_asked_and_then_silent_until_the_other_end_counts_as_gone() {
        let mut liveness = Liveness::new(CLIENT, START);
        assert_eq!(liveness.poll_timeout(), after(2000));
        assert_eq!(liveness.handle_timeout(after(2000)), Verdict::Ping);
        assert_eq!(first(&mut liveness, Verdict::Ping), after(2100));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(2700));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(3700));
        assert_eq!(first(&mut liveness, Verdict::Dead), START + CLIENT.silence);
    }

    #[test]
    fn a_transfer_that_stops_is_noticed_within_two_seconds() {
        let mut liveness = Liveness::new(CLIENT, START);
        let _first = liveness.heard(Sign::Traffic, after(1000));
        assert_eq!(first(&mut liveness, Verdict::Ping), after(1400));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(2100));
    }

    #[test]
    fn an_idle_session_is_not_asked_after_every_answer() {
        let mut liveness = Liveness::new(CLIENT, START);
        assert_eq!(first(&mut liveness, Verdict::Ping), after(2000));
        assert!(!liveness.heard(Sign::Pong, after(2050)));
        assert_eq!(liveness.poll_timeout(), after(4000));
    }

    #[test]
    fn a_ping_of_the_other_end_is_no_answer_to_ours_and_hides_no_lull() {
        let mut liveness = Liveness::new(CLIENT, START);
        let _first = liveness.heard(Sign::Traffic, after(1000));
        assert!(!liveness.heard(Sign::Ping, after(1010)));
        assert_eq!(first(&mut liveness, Verdict::Ping), after(1410));
        assert!(!liveness.heard(Sign::Ping, after(1800)));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(2110));
        assert!(liveness.heard(Sign::Ping, after(2500)), "it is there again");
        assert_eq!(first(&mut liveness, Verdict::Ping), after(2900));
    }

    #[test]
    fn a_far_end_has_longer_to_answer() {
        let mut liveness = Liveness::new(CLIENT, START);
        liveness.measured(Duration::from_millis(400));
        liveness.doubt(START);
        assert_eq!(first(&mut liveness, Verdict::Silent), after(1500));
    }

    #[test]
    fn any_message_starts_the_count_anew_and_tells_whether_the_path_was_lost() {
        let mut liveness = Liveness::new(CLIENT, START);
        let silent = first(&mut liveness, Verdict::Silent);
        assert!(liveness.heard(Sign::Pong, silent));
        assert!(!liveness.heard(Sign::Pong, silent));
        assert_eq!(first(&mut liveness, Verdict::Dead), silent + CLIENT.silence);
    }

    #[test]
    fn without_a_channel_the_other_end_is_gone_sooner_unless_it_comes_back() {
        let mut liveness = Liveness::new(GATEWAY, START);
        liveness.lost(after(1000));
        assert!(liveness.heard(Sign::Pong, after(9000)), "it was silent");
        liveness.lost(after(20_000));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(25_000));
        assert_eq!(first(&mut liveness, Verdict::Dead), after(30_000));
    }

    #[test]
    fn a_doubt_is_resolved_soon_and_a_second_one_does_not_prolong_it() {
        let mut liveness = Liveness::new(CLIENT, START);
        liveness.doubt(after(100));
        liveness.doubt(after(1000));
        assert_eq!(first(&mut liveness, Verdict::Silent), after(800));
        assert!(liveness.heard(Sign::Pong, after(1500)));
        assert_eq!(first(&mut liveness, Verdict::Ping), after(2800));
    }

    #[test]
    fn the_own_standstill_is_not_the_other_end_s_silence() {
        let mut liveness = Liveness::new(CLIENT, START);
        assert_eq!(liveness.handle_timeout(after(70_000)), Verdict::Ping);
        assert_eq!(first(&mut liveness, Verdict::Silent), after(70_700));
        let mut doubted = Liveness::new(CLIENT, START);
        doubted.doubt(after(1000));
        assert_eq!(doubted.handle_timeout(after(60_000)), Verdict::Ping);
    }
}
