//! Pairing at the node: windows that its owner opens, each for one guest and one try.
//!
//! ```text
//! owner opens ─► waiting ── commitment ──► committed ── reveal ──► compared ── digits ──► agreed
//!                   └──────────────┴────────── gone, too late, wrong ──┴──► over
//! ```
//! - here: what guests say, through signaling. [`window`]: what the owner does.
//!
//! Security: see [`portway_protocol::pairing`]. A guess is right once in a million, so what counts is how many
//! there are. Each window that had a guest and came to nothing may have been one: after
//! [`MAX_SPOILED`] of a service within [`SPOILED_MEMORY`] no other one is opened.

pub mod window;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portway_protocol::id::{GrantId, Nonce, PairingId, ServiceName};
use portway_protocol::pairing::host::{AwaitingDigits, AwaitingReveal, Offered, Open};
use portway_protocol::reason::Reason;
use portway_protocol::signal::pairing::{Cancel, Pair, PairReply, Reveal};
use portway_protocol::signal::{Call, Envelope};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::random::random;
use crate::session::{Audit, Identity};
use crate::signaling::Via;

/// Windows at a time; each service has one at most.
const MAX_WINDOWS: usize = 8;

/// Windows of a service that may come to nothing, once a guest was there.
pub const MAX_SPOILED: usize = 10;

/// How long they count. With one guess in a million right, that is one in 100,000 a day.
pub const SPOILED_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// All windows of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Pairings {
    windows: Mutex<Windows>,
    /// The newest edition of what this node announces that a signaling service has.
    announced: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Windows {
    open: HashMap<GrantId, Entry>,
    spoiled: HashMap<ServiceName, VecDeque<Instant>>,
    /// Counts changes that somebody waits to be announced.
    edition: u64,
}

/// A window.
#[derive(Debug)]
struct Entry {
    service: ServiceName,
    stage: Stage,
    news: watch::Sender<News>,
}

#[derive(Debug)]
enum Stage {
    Waiting(Open),
    Committed(Guest, AwaitingReveal),
    Compared(Guest, AwaitingDigits),
}

/// How a window stands, for its owner.
#[derive(Debug, Clone, Copy)]
enum News {
    Waiting,
    Committed(Instant),
    Compared(Option<IpAddr>),
    Over(Reason),
}

/// The way to a guest.
#[derive(Debug)]
struct Guest {
    pairing: PairingId,
    via: Via,
    address: Option<IpAddr>,
    outgoing: mpsc::Sender<Envelope>,
}

impl Guest {
    fn say(&self, call: &Call) {
        if self.outgoing.try_send(Envelope::call(None, call)).is_err() {
            tracing::debug!("signaling is away; a guest was not told");
        }
    }

    fn cancel(&self, reason: Reason) {
        let pairing = self.pairing;
        self.say(&Call::Cancel(Cancel { pairing, reason }));
    }
}

impl Stage {
    const fn guest(&self) -> Option<&Guest> {
        match self {
            Self::Waiting(_) => None,
            Self::Committed(guest, _) | Self::Compared(guest, _) => Some(guest),
        }
    }
}

impl Entry {
    /// Tells both sides.
    fn end(self, reason: Reason) {
        if let Some(guest) = self.stage.guest() {
            guest.cancel(reason);
        }
        self.news.send_replace(News::Over(reason));
    }
}

impl Pairings {
    /// Services with a window.
    pub(crate) fn services(&self) -> Vec<ServiceName> {
        let windows = self.lock();
        let services = windows.open.values().map(|entry| entry.service.clone());
        services.collect()
    }

    /// Of what [`Pairings::services`] returns.
    pub(crate) fn edition(&self) -> u64 {
        self.lock().edition
    }

    /// A signaling service has this edition.
    pub(crate) fn announced(&self, edition: u64) {
        self.announced.send_if_modified(|newest| {
            let is_newer = edition > *newest;
            *newest = edition.max(*newest);
            is_newer
        });
    }

    /// A guest asks. `outgoing` leads to it.
    pub(crate) fn pair(
        &self,
        identity: &Identity,
        (via, outgoing): (Via, &mpsc::Sender<Envelope>),
        pair: Pair,
    ) -> Result<PairReply, Reason> {
        if pair.node.is_some_and(|node| node != identity.node) {
            return Err(Reason::E2eAuthFailed);
        }
        let mut windows = self.lock();
        let of_service = |(_, entry): &(&GrantId, &Entry)| entry.service == pair.service;
        let found = windows.open.iter().find(of_service);
        let (&grant, entry) = found.ok_or(Reason::PairingClosed)?;
        if entry.stage.guest().is_some() {
            return Err(Reason::PairingTaken);
        }
        let entry = windows.open.remove(&grant).ok_or(Reason::PairingClosed)?;
        let Stage::Waiting(open) = entry.stage else {
            return Err(Reason::PairingTaken);
        };
        // From here on it may be a guess.
        windows.spoil(&entry.service);
        let nonce = Nonce::from_bytes(random());
        let cluster_key = open.offered().cluster_key;
        let guest = Guest {
            pairing: pair.pairing,
            via,
            address: pair.address,
            outgoing: outgoing.clone(),
        };
        entry.news.send_replace(News::Committed(Instant::now()));
        let stage = Stage::Committed(guest, open.commit(pair.commitment, nonce));
        windows.open.insert(grant, Entry { stage, ..entry });
        Ok(PairReply {
            node: identity.node.clone(),
            cluster_key,
            certificate: identity.certificate().token.clone(),
            nonce,
            grant,
        })
    }

    /// A guest tells what it was committed to.
    pub(crate) fn reveal(&self, via: Via, reveal: &Reveal, audit: &Audit) {
        let mut windows = self.lock();
        let Some((grant, entry)) = windows.take((via, reveal.pairing)) else {
            return;
        };
        let (guest, committed) = match entry.stage {
            Stage::Committed(guest, committed) => (guest, committed),
            // Once is enough.
            stage @ (Stage::Waiting(_) | Stage::Compared(..)) => {
                windows.open.insert(grant, Entry { stage, ..entry });
                return;
            }
        };
        match committed.reveal(reveal.key, &reveal.nonce) {
            Ok(compared) => {
                entry.news.send_replace(News::Compared(guest.address));
                let stage = Stage::Compared(guest, compared);
                windows.open.insert(grant, Entry { stage, ..entry });
            }
            Err(error) => {
                tracing::warn!(%error, "a guest was refused");
                audit.refused(Some(entry.service), None, error.reason(), None);
                guest.cancel(error.reason());
                entry.news.send_replace(News::Over(error.reason()));
            }
        }
    }

    /// A guest leaves.
    pub(crate) fn cancel(&self, via: Via, cancel: &Cancel) {
        if let Some((_, entry)) = self.lock().take((via, cancel.pairing)) {
            entry
                .news
                .send_replace(News::Over(Reason::PairingCancelled));
        }
    }

    /// All guests that came through a signaling service are gone.
    pub(crate) fn lost(&self, via: Via) {
        let is_lost = |entry: &Entry| entry.stage.guest().is_some_and(|guest| guest.via == via);
        self.lock().open.retain(|_, entry| {
            let is_lost = is_lost(entry);
            if is_lost {
                let reason = Reason::SignalingUnreachable;
                entry.news.send_replace(News::Over(reason));
            }
            !is_lost
        });
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Windows {
    /// Opens one.
    fn open(&mut self, offered: Offered, now: Instant) -> Result<watch::Receiver<News>, Reason> {
        let service = offered.service.clone();
        if self.open.values().any(|entry| entry.service == service) {
            return Err(Reason::PairingTaken);
        }
        if self.open.len() >= MAX_WINDOWS {
            return Err(Reason::RateLimited);
        }
        if self.is_suspended(&service, now) {
            return Err(Reason::PairingSuspended);
        }
        let (news, heard) = watch::channel(News::Waiting);
        let grant = offered.grant;
        let stage = Stage::Waiting(Open::new(offered));
        let entry = Entry {
            service,
            stage,
            news,
        };
        self.open.insert(grant, entry);
        self.edition += 1;
        Ok(heard)
    }

    /// The window of a guest, which is taken out.
    fn take(&mut self, (via, pairing): (Via, PairingId)) -> Option<(GrantId, Entry)> {
        let is_its = |entry: &Entry| {
            let guest = entry.stage.guest();
            guest.is_some_and(|guest| guest.via == via && guest.pairing == pairing)
        };
        let mut grants = self.open.iter();
        let grant = grants.find_map(|(grant, entry)| is_its(entry).then_some(*grant))?;
        Some((grant, self.open.remove(&grant)?))
    }

    fn spoil(&mut self, service: &ServiceName) {
        let spoiled = self.spoiled.entry(service.clone()).or_default();
        spoiled.push_back(Instant::now());
    }

    /// The last one was none.
    fn unspoil(&mut self, service: &ServiceName) {
        if let Some(spoiled) = self.spoiled.get_mut(service) {
            spoiled.pop_back();
        }
    }

    fn is_suspended(&mut self, service: &ServiceName, now: Instant) -> bool {
        let counts = |at: &Instant| now.saturating_duration_since(*at) < SPOILED_MEMORY;
        self.spoiled.retain(|_, spoiled| {
            spoiled.retain(counts);
            !spoiled.is_empty()
        });
        let spoiled = self.spoiled.get(service).map_or(0, VecDeque::len);
        spoiled >= MAX_SPOILED
    }
}

#[cfg(test)]
mod tests;
