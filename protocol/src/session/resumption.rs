//! What a client needs to go on with a session over another channel.
//!
//! The gateway makes a key for each session and tells it to the client in `accepted`, which only the two
//! ends can read. Whoever resumes proves to know it without sending it, on top of the key of the grant:
//! others may hold the same grant, and signaling knows every session id.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::SessionId;
use crate::reason::Reason;
use crate::secret::Secret;

/// A session's own key, 32 random bytes. In JSON: base64url.
#[derive(Clone)]
pub struct ResumptionKey(Secret<[u8; Self::LEN]>);

/// A session to go on with.
#[derive(Debug, Clone)]
pub struct Resumption {
    /// The session, as it was called when it began.
    pub session: SessionId,
    /// Its key.
    pub key: ResumptionKey,
}

/// How long a node may be away from signaling before its session is given up for a new one, which finds another
/// node. Where there is none, the lane's own patience is all that counts: a router that starts anew takes a minute.
const NODE_PATIENCE: Duration = Duration::from_secs(12);

/// An attempt that took as long as this may be followed by the next one at once.
pub const PAUSE: Duration = Duration::from_millis(250);

/// By whom it is that an attempt to go on has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedBy {
    /// The gateway has refused it, over a channel that it has proven to be its own.
    Gateway,
    /// By signaling, or for want of a path. Signaling may lie: it ends attempts, not sessions.
    Way,
}

/// Whether a session cannot go on after an attempt failed so and after so long a silence.
#[must_use]
pub fn is_over(by: FailedBy, reason: Reason, silence: Duration) -> bool {
    match by {
        FailedBy::Gateway => reason == Reason::SessionLost || reason.is_final(),
        FailedBy::Way => {
            let is_in_vain = matches!(reason, Reason::ServedElsewhere | Reason::ServiceUnknown);
            is_in_vain && silence > NODE_PATIENCE
        }
    }
}

/// How long an attempt to resume may take. Somebody waits, and one that began before the network came back
/// may wait for long: it gets some times what the session took to open.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Until signaling has let us in.
    pub meeting: Duration,
    /// From there to the gateway's verdict.
    pub opening: Duration,
}

impl Deadlines {
    /// How much longer than before a step may take.
    const SLACK: u32 = 4;

    /// Shortest and longest time for the first step: more than [`PAUSE`], less than the second after which
    /// TCP itself asks again.
    const MEETING: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(10)];

    /// How many attempts in a row get no more, and how much more the first step of each after them gets:
    /// the machine may be slower than it was, and Chromium holds sockets back for seconds once dozens of
    /// them have failed.
    const QUICK_ATTEMPTS: u32 = 10;
    const MORE: Duration = Duration::from_millis(200);

    /// Shortest and longest time for the second step. Checks of a path go on until it heals.
    const OPENING: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

    /// After a session for which the steps took so long.
    #[must_use]
    pub fn after(meeting: Duration, opening: Duration) -> Self {
        let within =
            |took: Duration, [least, most]: [Duration; 2]| (took * Self::SLACK).clamp(least, most);
        Self {
            meeting: within(meeting, Self::MEETING),
            opening: within(opening, Self::OPENING),
        }
    }

    /// Those of the next attempt, after so many that failed.
    #[must_use]
    pub fn after_failures(self, failures: u32) -> Self {
        let more = Self::MORE * failures.saturating_sub(Self::QUICK_ATTEMPTS);
        Self {
            meeting: (self.meeting + more).min(Self::MEETING[1]),
            ..self
        }
    }
}

const _: () = assert!(Deadlines::MEETING[0].as_millis() > PAUSE.as_millis());

impl ResumptionKey {
    /// Bytes of a key.
    pub const LEN: usize = 32;

    /// Takes random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(Secret::new(bytes))
    }

    pub(crate) const fn expose(&self) -> &[u8; Self::LEN] {
        self.0.expose()
    }
}

impl fmt::Debug for ResumptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumptionKey(…)")
    }
}

impl Serialize for ResumptionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.expose()))
    }
}

impl<'de> Deserialize<'de> for ResumptionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok());
        // Nothing of the text is shown: it may be a key in another form.
        bytes
            .map(Self::from_bytes)
            .ok_or_else(|| serde::de::Error::custom("not a resumption key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_base64url_in_json_and_nothing_in_logs() {
        let key = ResumptionKey::from_bytes([255; 32]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{}8\"", "_".repeat(42)));
        let back: ResumptionKey = serde_json::from_str(&json).unwrap();
        assert_eq!(back.expose(), key.expose());
        assert_eq!(format!("{key:?}"), "ResumptionKey(…)");
    }

    #[test]
    fn deadlines_follow_what_it_took_within_bounds() {
        let near = Deadlines::after(Duration::from_millis(3), Duration::from_millis(40));
        assert_eq!(
            [near.meeting, near.opening],
            [Deadlines::MEETING[0], Deadlines::OPENING[0]]
        );
        let far = Deadlines::after(Duration::from_secs(2), Duration::from_secs(30));
        assert_eq!(
            [far.meeting, far.opening],
            [Duration::from_secs(8), Deadlines::OPENING[1]]
        );
        let meeting = |failures| near.after_failures(failures).meeting.as_millis();
        assert_eq!(
            [0, 10, 11, 20, 1000].map(meeting),
            [300, 300, 500, 2300, 10_000]
        );
    }

    #[test]
    fn a_session_is_over_if_the_gateway_says_so_or_another_serves() {
        let short = Duration::from_secs(1);
        for final_word in [Reason::SessionLost, Reason::GrantExpired] {
            assert!(is_over(FailedBy::Gateway, final_word, short));
            assert!(!is_over(FailedBy::Way, final_word, NODE_PATIENCE * 4));
        }
        for in_vain in [Reason::ServedElsewhere, Reason::ServiceUnknown] {
            assert!(!is_over(FailedBy::Way, in_vain, NODE_PATIENCE));
            assert!(is_over(FailedBy::Way, in_vain, NODE_PATIENCE + short));
        }
        for passing in [
            Reason::NodeOffline,
            Reason::SignalingUnreachable,
            Reason::IceFailed,
        ] {
            assert!(!is_over(FailedBy::Way, passing, NODE_PATIENCE * 4));
            assert!(!is_over(FailedBy::Gateway, passing, NODE_PATIENCE * 4));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let error = serde_json::from_str::<ResumptionKey>("\"c2VjcmV0\"").unwrap_err();
        assert!(!error.to_string().contains("c2VjcmV0"));
    }
}
