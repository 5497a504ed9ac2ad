//! A lane: an ordered byte stream over messages that may have to be replayed on a new transport.
//!
//! - [`frame`]: the bytes. [`window`]: how much may be in flight. [`max_message`]: how long messages are.
//! - [`Lane`]: both directions of one lane. Sans-IO.
//!
//! The contract of the loop: a shell calls [`Lane::receive`] for each message, then takes all of
//! [`Lane::read`]; it calls [`Lane::write`] while [`Lane::room`] is positive; after either it sends
//! every message of [`Lane::poll_transmit`], in order. When its input runs dry it calls
//! [`Lane::flush_acks`], or a moment later where little is [owed](Lane::owed). `now` is any monotonic clock.
//!
//! When the channel is lost and another one stands in for it, both shells call [`Lane::resume`] before
//! they use that. Each end says first, by an acknowledgement, up to where it has received; what follows
//! from there is sent again.
//!
//! Invariants: `acked ≤ sent ≤ written`, `written - acked ≤ MAX_REPLAY`; received offsets are
//! contiguous, a repeated range is dropped, a gap is a violation.

pub mod frame;
pub mod max_message;
pub mod window;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, Bytes};

use crate::limits::{ACK_EVERY, MAX_MESSAGE, MAX_REPLAY};
use crate::liveness::Sign;
use crate::reason::Reason;
use frame::{DATA_HEADER, Frame, FrameError};
pub use max_message::MaxMessage;
use window::Window;

/// Why a lane broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Bytes are missing between what came before and this.
    #[error("expected offset {expected}, got {got}")]
    Gap {
        /// Next offset that is due.
        expected: u64,
        /// Offset of the frame.
        got: u64,
    },
    /// An acknowledgement of bytes that were never sent.
    #[error("acknowledgement of {got}, but only {sent} bytes were sent")]
    AckBeyond {
        /// Bytes sent.
        sent: u64,
        /// Acknowledged offset.
        got: u64,
    },
    /// Data after the end.
    #[error("data after the end of the lane")]
    AfterEnd,
    /// A handshake message, or a lane other than 0.
    #[error("unexpected frame")]
    Unexpected,
    /// The other end has ended the session.
    #[error("the other end said goodbye: {0}")]
    Bye(Reason),
}

/// Both directions of one lane.
#[derive(Debug)]
pub struct Lane {
    /// Written and not acknowledged; the first `sent - acked` bytes have been sent by this channel.
    replay: VecDeque<Bytes>,
    written: u64,
    sent: u64,
    acked: u64,
    end_sent: bool,
    finished: bool,
    /// What the other end takes.
    max_message: MaxMessage,
    window: Window,
    /// On a new channel, until the other end says up to where it has received.
    awaits_position: bool,

    received: u64,
    ack_sent: u64,
    readable: VecDeque<Bytes>,
    peer_end: Option<u64>,
    /// On a new channel, until the other end is told up to where we have received.
    owes_position: bool,

    control: VecDeque<Bytes>,
    measured: Option<Measured>,
}

impl Default for Lane {
    fn default() -> Self {
        Self::new(MaxMessage::default())
    }
}

impl Lane {
    /// A lane at offset 0 in both directions, to an end that takes such messages.
    #[must_use]
    pub const fn new(max_message: MaxMessage) -> Self {
        Self {
            replay: VecDeque::new(),
            written: 0,
            sent: 0,
            acked: 0,
            end_sent: false,
            finished: false,
            max_message,
            window: Window::new(max_message),
            awaits_position: false,

            received: 0,
            ack_sent: 0,
            readable: VecDeque::new(),
            peer_end: None,
            owes_position: false,

            control: VecDeque::new(),
            measured: None,
        }
    }

    /// Bytes that [`Lane::write`] takes now. Follows the window, so that little waits unsent. Room for less than
    /// a quarter of a message is none: a message costs what it costs, however short it is.
    #[must_use]
    pub fn room(&self) -> usize {
        let in_flight = to_usize(self.written - self.acked);
        let room = self.window.size().min(MAX_REPLAY).saturating_sub(in_flight);
        if room < MIN_ROOM { 0 } else { room }
    }

    /// Queues bytes; returns how many were taken, the first [`Lane::room`] at most.
    ///
    /// # Panics
    /// If called after [`Lane::finish`].
    pub fn write(&mut self, mut bytes: Bytes) -> usize {
        assert!(!self.finished, "no write follows finish");
        let taken = self.room().min(bytes.len());
        let mut rest = bytes.split_to(taken);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(self.message() - DATA_HEADER));
            self.written += chunk.len() as u64;
            self.replay.push_back(chunk);
        }
        taken
    }

    /// Length of a message: the window shall hold several of them, so that it never waits for one.
    fn message(&self) -> usize {
        let max = self.max_message.bytes();
        (self.window.size() / MESSAGES_IN_WINDOW).clamp(MAX_MESSAGE, max)
    }

    /// No more bytes will be written.
    pub const fn finish(&mut self) {
        self.finished = true;
    }

    /// Asks the other end for a sign of life; its pong is measured.
    pub fn ping(&mut self, now: Duration) {
        let millis = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.tell(frame::ping(millis.to_be_bytes()));
    }

    /// What nobody takes is not worth more than so much memory: the other end asks again, as we do.
    fn tell(&mut self, message: Bytes) {
        if self.control.len() < MAX_CONTROL {
            self.control.push_back(message);
        }
    }

    /// Goes on over another channel, which has carried nothing of this lane yet. What lies in the old one
    /// must not be [received](Lane::receive) any more. Nothing that was written or received is lost.
    pub fn resume(&mut self) {
        // A ping asks for this channel, and an answer is to one of that.
        self.control.clear();
        self.measured = None;
        self.owes_position = true;
        self.awaits_position = true;
    }

    /// The next message to send. Acknowledgements and pongs come before data.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Bytes> {
        if self.owes_position {
            self.owes_position = false;
            return Some(self.ack());
        }
        if let Some(message) = self.control.pop_front() {
            return Some(message);
        }
        if self.owed() >= ACK_EVERY as u64 {
            return Some(self.ack());
        }
        if self.awaits_position {
            return None;
        }
        if self.sent < self.written {
            // After a resumption much may wait at once.
            let has_room = to_usize(self.sent - self.acked) < self.window.size();
            return has_room.then(|| self.data(now));
        }
        if self.finished && !self.end_sent {
            self.end_sent = true;
            return Some(frame::end(self.written));
        }
        None
    }

    /// Bytes that came and were not acknowledged.
    #[must_use]
    pub const fn owed(&self) -> u64 {
        self.received - self.ack_sent
    }

    /// The acknowledgement of all that came, if one is owed. For when the input runs dry.
    pub fn flush_acks(&mut self) -> Option<Bytes> {
        (self.owed() > 0).then(|| self.ack())
    }

    /// Takes one message of the other end.
    ///
    /// # Errors
    /// See [`LaneError`]; the lane is over then.
    pub fn receive(&mut self, message: Bytes, now: Duration) -> Result<(), LaneError> {
        match frame::parse(message)? {
            Frame::Data {
                lane: 0,
                offset,
                payload,
            } => self.receive_data(offset, payload),
            Frame::Ack { lane: 0, offset } => self.receive_ack(offset, now),
            Frame::End { lane: 0, offset } => self.receive_end(offset),
            Frame::Bye(reason) => Err(LaneError::Bye(reason)),
            Frame::Ping(token) => {
                self.tell(frame::pong(token));
                Ok(())
            }
            Frame::Pong(token) => {
                let pinged = Duration::from_micros(u64::from_be_bytes(token));
                if let Some(rtt) = now.checked_sub(pinged) {
                    self.measured = Some(Measured { pinged, rtt });
                }
                Ok(())
            }
            Frame::Data { .. } | Frame::Ack { .. } | Frame::End { .. } => {
                Err(LaneError::Unexpected)
            }
        }
    }

    /// The next bytes of the other end, in order.
    pub fn read(&mut self) -> Option<Bytes> {
        self.readable.pop_front()
    }

    /// Whether the other end has finished and all its bytes were read.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.readable.is_empty() && self.peer_end == Some(self.received)
    }

    /// Whether this end has finished and the other end has acknowledged all of it.
    #[must_use]
    pub const fn is_delivered(&self) -> bool {
        self.end_sent && self.acked == self.written
    }

    /// Bytes received and sent so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        Traffic {
            received: self.received,
            sent: self.sent,
        }
    }

    /// How far things are: what comes after is told by [`Lane::sign_since`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            arrived: self.received + self.acked,
            answered: self.measured.map(|measured| measured.pinged),
        }
    }

    /// What the messages since then tell of the other end.
    #[must_use]
    pub fn sign_since(&self, before: Mark) -> Sign {
        let now = self.mark();
        if now.arrived > before.arrived {
            Sign::Traffic
        } else if now.answered != before.answered {
            Sign::Pong
        } else {
            Sign::Ping
        }
    }

    /// The last ping that was answered.
    #[must_use]
    pub const fn measured(&self) -> Option<Measured> {
        self.measured
    }

    fn ack(&mut self) -> Bytes {
        self.ack_sent = self.received;
        frame::ack(self.received)
    }

    /// Makes a frame of the first chunk that was not sent yet.
    fn data(&mut self, now: Duration) -> Bytes {
        let mut skip = self.sent - self.acked;
        let chunk = self
            .replay
            .iter()
            .find_map(|chunk| {
                if skip < chunk.len() as u64 {
                    return Some(chunk.slice(to_usize(skip)..));
                }
                skip -= chunk.len() as u64;
                None
            })
            .expect("sent < written, so a chunk is left");
        let message = frame::data(self.sent, &chunk);
        self.sent += chunk.len() as u64;
        self.window.on_sent(self.sent, now);
        message
    }

    fn receive_data(&mut self, offset: u64, mut payload: Bytes) -> Result<(), LaneError> {
        if self.peer_end.is_some() {
            return Err(LaneError::AfterEnd);
        }
        if offset > self.received {
            return Err(LaneError::Gap {
                expected: self.received,
                got: offset,
            });
        }
        let repeated = to_usize(self.received - offset).min(payload.len());
        payload.advance(repeated);
        if !payload.is_empty() {
            self.received += payload.len() as u64;
            self.readable.push_back(payload);
        }
        Ok(())
    }

    fn receive_ack(&mut self, offset: u64, now: Duration) -> Result<(), LaneError> {
        if offset > self.sent {
            return Err(LaneError::AckBeyond {
                sent: self.sent,
                got: offset,
            });
        }
        let limited = self.room() == 0;
        let mut newly = offset.saturating_sub(self.acked);
        self.acked = self.acked.max(offset);
        while newly > 0 {
            let chunk = self
                .replay
                .front_mut()
                .expect("unacknowledged bytes are kept");
            let len = chunk.len() as u64;
            if newly < len {
                chunk.advance(to_usize(newly));
                break;
            }
            newly -= len;
            self.replay.pop_front();
        }
        if self.awaits_position {
            self.awaits_position = false;
            self.sent = self.acked;
            self.end_sent = false;
            self.window = Window::starting_at(self.max_message, self.acked);
        } else {
            self.window.on_acked(offset, now, limited);
        }
        Ok(())
    }

    /// The end may come again after a resumption.
    fn receive_end(&mut self, offset: u64) -> Result<(), LaneError> {
        if offset != self.received {
            return Err(LaneError::Gap {
                expected: self.received,
                got: offset,
            });
        }
        self.peer_end = Some(offset);
        Ok(())
    }
}

/// Pings and answers that may wait while the channel takes nothing.
const MAX_CONTROL: usize = 64;

/// The least room that a writer hears of, bytes.
const MIN_ROOM: usize = MAX_MESSAGE / 4;

/// Bytes that fill messages of either length, the last one almost: best written at a time.
pub const WHOLE_MESSAGES: usize = MESSAGES_IN_WINDOW * (MAX_MESSAGE - DATA_HEADER);

/// Messages that a window holds at least.
const MESSAGES_IN_WINDOW: usize = window::MIN_WINDOW / MAX_MESSAGE;

/// How far a lane is.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Bytes, at either end.
    arrived: u64,
    /// When the ping was sent that was answered last.
    answered: Option<Duration>,
}

/// A ping that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// When [`Lane::ping`] was called for it, in whole microseconds.
    pub pinged: Duration,
    /// How long the answer took.
    pub rtt: Duration,
}

/// Bytes of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the other end.
    pub received: u64,
    /// To the other end.
    pub sent: u64,
}

/// Differences of offsets are bounded by [`MAX_REPLAY`] and message sizes.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::MAX_NATIVE_MESSAGE;

    /// Moves messages both ways until nothing moves.
    fn settle(a: &mut Lane, b: &mut Lane, now: Duration) -> (Vec<u8>, Vec<u8>) {
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        loop {
            let mut moved = false;
            moved |= step(a, b, &mut at_b, now);
            moved |= step(b, a, &mut at_a, now);
            if !moved {
                return (at_a, at_b);
            }
        }
    }

    fn step(from: &mut Lane, to: &mut Lane, out: &mut Vec<u8>, now: Duration) -> bool {
        let mut moved = false;
        while let Some(message) = from.poll_transmit(now).or_else(|| from.flush_acks()) {
            assert!(message.len() <= MAX_MESSAGE);
            to.receive(message, now).unwrap();
            moved = true;
        }
        while let Some(bytes) = to.read() {
            out.extend_from_slice(&bytes);
        }
        moved
    }

    #[test]
    fn bytes_arrive_in_order_both_ways() {
        let (mut a, mut b) = (Lane::default(), Lane::default());
        assert_eq!(a.write(Bytes::from(vec![1; 40_000])), 40_000);
        assert_eq!(b.write(Bytes::from_static(b"hello")), 5);
        let (at_a, at_b) = settle(&mut a, &mut b, Duration::ZERO);
        assert_eq!(at_b, vec![1; 40_000]);
        assert_eq!(at_a, b"hello");
        assert!(a.replay.is_empty(), "all was acknowledged");
    }

    #[test]
    fn the_end_is_seen_after_the_last_byte() {
        let (mut a, mut b) = (Lane::default(), Lane::default());
        a.write(Bytes::from_static(b"bye"));
        a.finish();
        assert!(!b.is_at_end());
        let (_, at_b) = settle(&mut a, &mut b, Duration::ZERO);
        assert_eq!(at_b, b"bye");
        assert!(b.is_at_end());
    }

    #[test]
    fn without_acknowledgements_the_writer_has_no_room() {
        let mut a = Lane::default();
        let mut written = 0;
        while a.room() > 0 {
            written += a.write(Bytes::from(vec![0; 10_000]));
        }
        let left = a.window.size() - written;
        assert!(left < MIN_ROOM, "{left} bytes are left");
        assert_eq!(a.write(Bytes::from_static(b"x")), 0);
    }

    #[test]
    fn a_flood_of_pings_is_not_answered_for_ever() {
        let (mut flooded, mut flooding) = (Lane::default(), Lane::default());
        let now = Duration::from_millis(1);
        for _ in 0..10 * MAX_CONTROL {
            flooding.ping(now);
            let ping = flooding.poll_transmit(now).unwrap();
            flooded.receive(ping, now).unwrap();
        }
        let answers = std::iter::from_fn(|| flooded.poll_transmit(now)).count();
        assert_eq!(answers, MAX_CONTROL);
    }

    /// The longest message to such an end on a path of 1 ms that carries whatever it is given.
    fn longest_message(to: MaxMessage) -> usize {
        let (mut a, mut b) = (Lane::new(to), Lane::default());
        let mut longest = 0;
        for millis in 0..100 {
            while a.room() > 0 {
                a.write(Bytes::from(vec![0; WHOLE_MESSAGES]));
            }
            for message in say(&mut a, Duration::from_millis(millis)) {
                longest = longest.max(message.len());
                b.receive(message, Duration::ZERO).unwrap();
            }
            for message in say(&mut b, Duration::ZERO) {
                a.receive(message, Duration::from_millis(millis + 1))
                    .unwrap();
            }
        }
        longest
    }

    #[test]
    fn natives_are_sent_longer_messages_than_browsers() {
        assert_eq!(longest_message(MaxMessage::Browser), MAX_MESSAGE);
        let long = longest_message(MaxMessage::Native);
        assert!(
            (WHOLE_MESSAGES..=MAX_NATIVE_MESSAGE).contains(&long),
            "{long}"
        );
    }

    /// What one end has to say, of which the channel still carries some when it is lost.
    fn say(from: &mut Lane, now: Duration) -> Vec<Bytes> {
        std::iter::from_fn(|| from.poll_transmit(now).or_else(|| from.flush_acks())).collect()
    }

    #[test]
    fn a_resumed_lane_sends_what_did_not_arrive_and_nothing_twice() {
        let now = Duration::ZERO;
        let (mut a, mut b) = (Lane::default(), Lane::default());
        a.write(Bytes::from(vec![1; 40_000]));
        let under_way = say(&mut a, now);
        b.receive(under_way[0].clone(), now).unwrap();
        a.resume();
        b.resume();
        let position = say(&mut b, now);
        assert_eq!(position, [frame::ack(b.received)]);
        assert_eq!(
            say(&mut a, now),
            [frame::ack(0)],
            "no data before the position"
        );
        a.receive(position[0].clone(), now).unwrap();
        let again: usize = say(&mut a, now)
            .iter()
            .map(|message| message.len() - DATA_HEADER)
            .sum();
        assert_eq!(again as u64, 40_000 - b.received);
    }

    #[test]
    fn the_end_is_said_again_on_a_resumed_lane() {
        let now = Duration::ZERO;
        let (mut a, mut b) = (Lane::default(), Lane::default());
        a.write(Bytes::from_static(b"bye"));
        a.finish();
        for message in say(&mut a, now) {
            b.receive(message, now).unwrap();
        }
        a.resume();
        b.resume();
        let (_, at_b) = settle(&mut a, &mut b, now);
        assert_eq!(at_b, b"bye");
        assert!(b.is_at_end() && a.is_delivered());
    }

    #[test]
    fn a_position_that_was_never_sent_is_a_violation() {
        let mut lane = Lane::default();
        lane.resume();
        assert!(matches!(
            lane.receive(frame::ack(1), Duration::ZERO),
            Err(LaneError::AckBeyond { .. })
        ));
    }

    #[test]
    fn violations_break_the_lane() {
        let now = Duration::ZERO;
        let mut lane = Lane::default();
        assert!(matches!(
            lane.receive(frame::data(5, &Bytes::from_static(b"x")), now),
            Err(LaneError::Gap { .. })
        ));
        assert!(matches!(
            lane.receive(frame::ack(1), now),
            Err(LaneError::AckBeyond { .. })
        ));
        assert!(matches!(
            lane.receive(frame::end(1), now),
            Err(LaneError::Gap { .. })
        ));
        lane.receive(frame::end(0), now).unwrap();
        assert_eq!(
            lane.receive(frame::data(0, &Bytes::from_static(b"x")), now),
            Err(LaneError::AfterEnd)
        );
    }

    #[test]
    fn a_pong_measures_the_round_trip() {
        let (mut a, mut b) = (Lane::default(), Lane::default());
        a.ping(Duration::from_millis(10));
        let ping = a.poll_transmit(Duration::ZERO).unwrap();
        b.receive(ping, Duration::ZERO).unwrap();
        let pong = b.poll_transmit(Duration::ZERO).unwrap();
        a.receive(pong, Duration::from_millis(17)).unwrap();
        assert_eq!(
            a.measured().map(|last| last.rtt),
            Some(Duration::from_millis(7))
        );
    }

    proptest! {
        #[test]
        fn any_writes_arrive_whole(writes in proptest::collection::vec(0usize..30_000, 0..20)) {
            let (mut a, mut b) = (Lane::default(), Lane::default());
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (i, len) in writes.into_iter().enumerate() {
                let bytes = Bytes::from(vec![u8::try_from(i).unwrap(); len]);
                let taken = a.write(bytes.clone());
                sent.extend_from_slice(&bytes[..taken]);
                got.extend(settle(&mut a, &mut b, Duration::ZERO).1);
            }
            prop_assert_eq!(sent, got);
        }

        /// Channels are lost at any moment, with any part of what is under way; the bytes arrive once,
        /// in order.
        #[test]
        fn bytes_survive_the_loss_of_channels(
            steps in proptest::collection::vec((0usize..90_000, 0usize..12, 0usize..12), 1..12),
        ) {
            let now = Duration::ZERO;
            let (mut a, mut b) = (Lane::default(), Lane::default());
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (i, (len, to_b, to_a)) in steps.into_iter().enumerate() {
                let bytes = Bytes::from(vec![u8::try_from(i).unwrap(); len]);
                let taken = a.write(bytes.clone());
                sent.extend_from_slice(&bytes[..taken]);
                for message in say(&mut a, now).into_iter().take(to_b) {
                    b.receive(message, now).unwrap();
                }
                for message in say(&mut b, now).into_iter().take(to_a) {
                    a.receive(message, now).unwrap();
                }
                a.resume();
                b.resume();
                while let Some(bytes) = b.read() {
                    got.extend_from_slice(&bytes);
                }
            }
            a.finish();
            got.extend(settle(&mut a, &mut b, now).1);
            prop_assert_eq!(sent, got);
            prop_assert!(b.is_at_end() && a.is_delivered());
        }

        #[test]
        fn a_repeated_range_is_dropped(cut in 0u64..6) {
            let now = Duration::ZERO;
            let mut lane = Lane::default();
            lane.receive(frame::data(0, &Bytes::from_static(b"abcdef")), now).unwrap();
            let again = Bytes::from_static(b"abcdefgh").slice(usize::try_from(cut).unwrap()..);
            lane.receive(frame::data(cut, &again), now).unwrap();
            let mut got = Vec::new();
            while let Some(bytes) = lane.read() {
                got.extend_from_slice(&bytes);
            }
            prop_assert_eq!(got, b"abcdefgh");
        }

        #[test]
        fn any_message_is_taken_or_refused(bytes: Vec<u8>) {
            let _outcome = Lane::default().receive(Bytes::from(bytes), Duration::ZERO);
        }
    }
}
