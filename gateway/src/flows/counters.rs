//! What became of datagrams. What is lost on the way between the two ends, neither of them sees.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counts of one session, or of all that a program had.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    on_stream: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    lost: [AtomicU64; Loss::COUNT],
}

/// By what a datagram has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The datagram channel.
    Channel,
    /// The stream of its flow.
    Stream,
}

/// Why an end has dropped a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The way, or the socket at its end, takes no more for now.
    QueueFull,
    /// Longer than any datagram may be.
    TooLarge,
    /// There is no session, or the flow was refused.
    NoPath,
    /// Its flow is none, or not any more.
    UnknownFlow,
    /// It is no datagram.
    Malformed,
    /// Nobody was there at the service's address.
    Refused,
}

impl Loss {
    const COUNT: usize = 6;
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// To the other end.
    pub sent: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// How many of them went on the stream of their flow, in order and sent again if lost: there was no
    /// channel for them yet.
    pub on_stream: u64,
    /// From the other end.
    pub received: u64,
    /// Bytes in them.
    pub received_bytes: u64,
    /// What this end has dropped, by reason.
    pub dropped: Dropped,
}

/// Datagrams that an end has dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The way, or the socket at its end, took no more.
    pub queue_full: u64,
    /// Longer than any datagram may be.
    pub too_large: u64,
    /// There was no session, or the flow was refused.
    pub no_path: u64,
    /// Of a flow that is none, or not any more.
    pub unknown_flow: u64,
    /// No datagrams.
    pub malformed: u64,
    /// Nobody was there at the service's address.
    pub refused: u64,
}

impl Counters {
    /// What was counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let lost = |loss: Loss| self.lost[loss as usize].load(Ordering::Relaxed);
        Tally {
            sent: self.sent.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            on_stream: self.on_stream.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            dropped: Dropped {
                queue_full: lost(Loss::QueueFull),
                too_large: lost(Loss::TooLarge),
                no_path: lost(Loss::NoPath),
                unknown_flow: lost(Loss::UnknownFlow),
                malformed: lost(Loss::Malformed),
                refused: lost(Loss::Refused),
            },
        }
    }

    pub(super) fn sent(&self, payload: &[u8], way: Way) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        match way {
            Way::Channel => {}
            Way::Stream => {
                self.on_stream.fetch_add(1, Ordering::Relaxed);
            }
        }
        let bytes = payload.len() as u64;
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn received(&self, payload: &[u8]) {
        self.received.fetch_add(1, Ordering::Relaxed);
        let bytes = payload.len() as u64;
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn lost(&self, loss: Loss) {
        self.lost[loss as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally {
    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let Self {
            queue_full,
            too_large,
            no_path,
            unknown_flow,
            malformed,
            refused,
        } = self;
        *queue_full + *too_large + *no_path + *unknown_flow + *malformed + *refused
    }
}
