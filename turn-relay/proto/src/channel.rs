//! Channels: a short name for a peer (RFC 8656 §12).

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::limits::CHANNEL_LIFETIME;

/// A channel number within [`ChannelNumber::RANGE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// Numbers that RFC 8656 §12 leaves to clients.
    pub const RANGE: RangeInclusive<u16> = 0x4000..=0x4fff;

    /// A number from the wire.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        Self::RANGE.contains(&number).then_some(Self(number))
    }

    /// As on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Why a channel is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The number stands for another peer, or the peer has another number.
    Taken,
    /// No room.
    Full,
}

#[derive(Debug)]
struct Binding {
    number: ChannelNumber,
    peer: SocketAddr,
    until: Duration,
}

/// The channels of one allocation: few, so a list is the fastest table.
#[derive(Debug, Default)]
pub struct Channels {
    bindings: Vec<Binding>,
}

impl Channels {
    /// The peer that a number stands for.
    #[must_use]
    pub fn peer(&self, number: ChannelNumber, now: Duration) -> Option<SocketAddr> {
        self.bindings
            .iter()
            .find(|binding| binding.number == number && binding.until > now)
            .map(|binding| binding.peer)
    }

    /// The number of a peer.
    #[must_use]
    pub fn number(&self, peer: &SocketAddr, now: Duration) -> Option<ChannelNumber> {
        self.bindings
            .iter()
            .find(|binding| binding.peer == *peer && binding.until > now)
            .map(|binding| binding.number)
    }

    /// Whether [`Channels::bind`] would succeed within `limit` bindings. What has expired is forgotten.
    ///
    /// # Errors
    /// The [`Conflict`].
    pub fn check(
        &mut self,
        number: ChannelNumber,
        peer: &SocketAddr,
        limit: usize,
        now: Duration,
    ) -> Result<(), Conflict> {
        self.bindings.retain(|binding| binding.until > now);
        let mut is_known = false;
        for binding in &self.bindings {
            match (binding.number == number, binding.peer == *peer) {
                (true, true) => is_known = true,
                (false, false) => {}
                (true, false) | (false, true) => return Err(Conflict::Taken),
            }
        }
        if is_known || self.bindings.len() < limit {
            Ok(())
        } else {
            Err(Conflict::Full)
        }
    }

    /// How many count.
    #[must_use]
    pub fn count(&self, now: Duration) -> usize {
        let living = |binding: &&Binding| binding.until > now;
        self.bindings.iter().filter(living).count()
    }

    /// Forgets all but these.
    pub fn retain(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        self.bindings.retain(|binding| keep(&binding.peer));
    }

    /// Binds or refreshes, after [`Channels::check`].
    pub fn bind(&mut self, number: ChannelNumber, peer: SocketAddr, now: Duration) {
        let until = now + CHANNEL_LIFETIME;
        match self
            .bindings
            .iter_mut()
            .find(|binding| binding.number == number)
        {
            Some(binding) => binding.until = until,
            None => self.bindings.push(Binding {
                number,
                peer,
                until,
            }),
        }
    }
}
