//! Ports that are kept for a while beside an even one (RFC 8656 §7.2): whose they are. One table for all
//! servers of a process, since the kernel may lead the client that asks for a kept port, by another
//! five-tuple, to another of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::command::ReservationId;
use crate::limits::MAX_RESERVATIONS;

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Reservations(Mutex<HashMap<ReservationId, Reservation>>);

#[derive(Debug)]
struct Reservation {
    user: Arc<str>,
    until: Duration,
}

impl Reservations {
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MAX_RESERVATIONS
    }

    /// Keeps a port for a user, until this time of the server that keeps it.
    pub(crate) fn keep(&self, id: ReservationId, user: Arc<str>, until: Duration) {
        self.lock().insert(id, Reservation { user, until });
    }

    /// Whether a user gets this port; it is kept no longer then.
    #[must_use]
    pub(crate) fn claim(&self, id: ReservationId, user: &str) -> bool {
        let mut kept = self.lock();
        let is_theirs = kept.get(&id).is_some_and(|port| *port.user == *user);
        is_theirs && kept.remove(&id).is_some()
    }

    /// Whether a port was still kept; it is no longer.
    #[must_use]
    pub(crate) fn expire(&self, id: ReservationId) -> bool {
        self.lock().remove(&id).is_some()
    }

    /// Whether a port is kept until this time.
    pub(crate) fn is_kept_until(&self, id: ReservationId, until: Duration) -> bool {
        self.lock().get(&id).is_some_and(|port| port.until == until)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReservationId, Reservation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
