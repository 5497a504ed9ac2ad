//! Guests who pair: who may ask, and who talks to which node until that is over.
//!
//! Security: a guest proves nothing, so what it can cost is bounded: in number, by address, and to the one
//! node that has said that it waits. The digits are compared by people; a guest that is let in here can do no
//! more than take part in that.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portway_protocol::budget::Budget;
use portway_protocol::id::PairingId;
use portway_protocol::reason::Reason;
use portway_protocol::signal::pairing::{Cancel, Pair};
use portway_protocol::signal::{Call, Envelope, RpcError};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::bus::SocketId;
use crate::registry::Outbox;
use crate::slots::place;

/// Guests at a time.
const MAX_GUESTS: usize = 64;

/// Attempts of all guests: so many at once, then one every two seconds.
const BURST: f64 = 60.0;
const RATE: f64 = 0.5;

/// Attempts from one public address: so many at once, then one a minute.
const BURST_PER_ADDRESS: f64 = 5.0;
const RATE_PER_ADDRESS: f64 = 1.0 / 60.0;

/// Addresses that are counted at a time: more come only when others have been quiet.
const MAX_ADDRESSES: usize = 1024;

/// Prefix of the ids of our requests to gateways; the pairing follows.
const PAIR_ID: &str = "pair:";

/// The pairings under way.
#[derive(Debug)]
pub(crate) struct Pairings {
    seats: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    attempts: Budget,
    by_address: HashMap<IpAddr, Budget>,
    pairings: HashMap<PairingId, Pairing>,
}

#[derive(Debug)]
struct Pairing {
    guest: Outbox,
    gateway: Outbox,
    /// Id of the guest's request that the gateway has not answered yet.
    pending: Option<String>,
}

/// The right to be a guest, until dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    _one: OwnedSemaphorePermit,
}

impl Pairings {
    /// Nobody is here.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(MAX_GUESTS)),
            inner: Mutex::new(Inner {
                attempts: Budget::new(now, RATE, BURST),
                by_address: HashMap::new(),
                pairings: HashMap::new(),
            }),
        }
    }

    /// Lets a guest in, for one attempt.
    ///
    /// # Errors
    /// [`Reason::RateLimited`].
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Instant) -> Result<Seat, Reason> {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let one = seat.map_err(|_| Reason::RateLimited)?;
        if !self.lock().may_try(address, now) {
            return Err(Reason::RateLimited);
        }
        Ok(Seat { _one: one })
    }

    /// Asks a gateway on behalf of a guest; the reply to `request` follows the gateway's.
    ///
    /// # Errors
    /// [`Reason::PermissionDenied`] if the id is taken.
    pub(crate) fn begin(
        &self,
        (guest, request): (&Outbox, String),
        gateway: Outbox,
        pair: Pair,
    ) -> Result<(), Reason> {
        let mut inner = self.lock();
        if inner.pairings.contains_key(&pair.pairing) {
            return Err(Reason::PermissionDenied);
        }
        let pairing = Pairing {
            guest: guest.clone(),
            gateway: gateway.clone(),
            pending: Some(request),
        };
        inner.pairings.insert(pair.pairing, pairing);
        let id = format!("{PAIR_ID}{}", pair.pairing);
        gateway.send(&Envelope::call(Some(id), &Call::Pair(pair)));
        Ok(())
    }

    /// A gateway has answered a request of this id, if it is one of ours; passes that on.
    pub(crate) fn answered(
        &self,
        from: SocketId,
        id: &str,
        outcome: Result<Box<RawValue>, RpcError>,
    ) {
        let pairing = id.strip_prefix(PAIR_ID).and_then(|id| id.parse().ok());
        let Some(pairing) = pairing else { return };
        let mut inner = self.lock();
        let Some(entry) = inner.pairings.get_mut(&pairing) else {
            return;
        };
        if entry.gateway.id != from {
            return;
        }
        let Some(request) = entry.pending.take() else {
            return;
        };
        match outcome {
            Ok(result) => entry.guest.send(&Envelope::result(request, &result)),
            Err(error) => {
                entry.guest.send(&Envelope::error(Some(request), error));
                inner.pairings.remove(&pairing);
            }
        }
    }

    /// Passes a message of one end on to the other.
    pub(crate) fn pass(&self, from: SocketId, pairing: &PairingId, call: &Call) {
        let other = {
            let inner = self.lock();
            let other = inner.pairings.get(pairing).and_then(|it| it.other(from));
            other.cloned()
        };
        match other {
            Some(other) => other.send(&Envelope::call(None, call)),
            None => tracing::debug!(%pairing, "a message for an unknown pairing was dropped"),
        }
    }

    /// The same with the last one.
    pub(crate) fn end(&self, from: SocketId, pairing: &PairingId, call: &Call) {
        self.pass(from, pairing, call);
        let mut inner = self.lock();
        if let Entry::Occupied(entry) = inner.pairings.entry(*pairing)
            && entry.get().other(from).is_some()
        {
            entry.remove();
        }
    }

    /// A socket has closed: so have its pairings, and the other ends are told.
    pub(crate) fn remove(&self, socket: SocketId) {
        self.lock().pairings.retain(|id, pairing| {
            let Some(other) = pairing.other(socket).cloned() else {
                return true;
            };
            let reason = if pairing.guest.id == socket {
                Reason::PairingCancelled
            } else {
                Reason::NodeOffline
            };
            match pairing
                .pending
                .take()
                .filter(|_| other.id == pairing.guest.id)
            {
                Some(request) => {
                    let error = RpcError::refused(reason);
                    other.send(&Envelope::error(Some(request), error));
                }
                None => {
                    let cancel = Cancel {
                        pairing: *id,
                        reason,
                    };
                    other.send(&Envelope::call(None, &Call::Cancel(cancel)));
                }
            }
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pairing {
    /// The other end, if that is one.
    fn other(&self, from: SocketId) -> Option<&Outbox> {
        if self.guest.id == from {
            Some(&self.gateway)
        } else if self.gateway.id == from {
            Some(&self.guest)
        } else {
            None
        }
    }
}

impl Inner {
    fn may_try(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        let place = address.and_then(place);
        if let Some(place) = place {
            if self.by_address.len() >= MAX_ADDRESSES && !self.by_address.contains_key(&place) {
                self.by_address.retain(|_, budget| !budget.is_full(now));
                if self.by_address.len() >= MAX_ADDRESSES {
                    return false;
                }
            }
            let fresh = || Budget::new(now, RATE_PER_ADDRESS, BURST_PER_ADDRESS);
            if !self.by_address.entry(place).or_insert_with(fresh).take(now) {
                return false;
            }
        }
        self.attempts.take(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: usize) -> Option<IpAddr> {
        let text = format!("2001:db8:{:x}:{:x}::1", last >> 16, last & 0xffff);
        Some(text.parse().unwrap())
    }

    #[test]
    fn one_address_may_try_a_few_times_and_then_once_a_minute() {
        let pairings = Pairings::new(Instant::now());
        let now = Instant::now();
        let tries = |address, now| pairings.admit(address, now).is_ok();
        for _ in 0..5 {
            assert!(tries(address(1), now));
        }
        assert!(!tries(address(1), now));
        assert!(tries(address(2), now));
        assert!(!tries(address(1), now + Duration::from_secs(50)));
        assert!(tries(address(1), now + Duration::from_secs(120)));
    }

    #[test]
    fn all_together_may_try_so_often_and_no_more_are_counted_than_there_is_room_for() {
        let start = Instant::now();
        let pairings = Pairings::new(start);
        let tried = (0..100).filter(|at| pairings.admit(address(*at), start).is_ok());
        assert_eq!(tried.count(), 60);
        let later = start + Duration::from_secs(3600);
        for at in 0..2 * MAX_ADDRESSES {
            drop(pairings.admit(address(at), later));
        }
        assert!(pairings.lock().by_address.len() <= MAX_ADDRESSES);
    }

    #[test]
    fn there_are_only_so_many_guests_at_a_time() {
        let start = Instant::now();
        let pairings = Pairings::new(start);
        let mut seats: Vec<_> = (0..60).map(|_| pairings.admit(None, start)).collect();
        let later = start + Duration::from_secs(60);
        seats.extend((0..4).map(|_| pairings.admit(None, later)));
        assert!(seats.iter().all(Result::is_ok));
        assert_eq!(pairings.admit(None, later).err(), Some(Reason::RateLimited));
        seats.pop();
        assert!(pairings.admit(None, later).is_ok());
    }
}
