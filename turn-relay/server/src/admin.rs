//! What an operator asks a running relay: who is there, that somebody goes, that nobody comes.
//!
//! Each worker answers for its own clients, between two packets. These calls wait for that, so they are
//! not for a thread that must not wait.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portway_relay_proto::Now;
use portway_relay_proto::allocation::AllocationId;
use portway_relay_proto::revocation::Revoked;
use portway_relay_proto::server::Server;
use portway_relay_proto::session::{self, Traffic};

use crate::config::Transport;
use crate::listener::GIVEN;
use crate::users::UserTotals;
use crate::worker::Order;
use crate::{Handle, Relay};

/// Names an allocation over all workers and runs, as `RUN-WORKER-NUMBER` in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    run: u32,
    worker: u16,
    allocation: AllocationId,
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (run, worker, number) = (self.run, self.worker, self.allocation.to_bits());
        write!(f, "{run:08x}-{worker:x}-{number:x}")
    }
}

/// A text that names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a session")]
pub struct NoSessionId;

impl std::str::FromStr for SessionId {
    type Err = NoSessionId;

    fn from_str(text: &str) -> Result<Self, NoSessionId> {
        let mut parts = text.split('-');
        let (Some(run), Some(worker), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoSessionId);
        };
        let id = Self {
            run: u32::from_str_radix(run, 16).map_err(|_| NoSessionId)?,
            worker: u16::from_str_radix(worker, 16).map_err(|_| NoSessionId)?,
            allocation: AllocationId::from_bits(
                u64::from_str_radix(number, 16).map_err(|_| NoSessionId)?,
            ),
        };
        // One name only, as it is printed.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NoSessionId)
        }
    }
}

/// An allocation, at one moment.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// Whose it is.
    pub user: Arc<str>,
    /// Where that is.
    pub client: SocketAddr,
    /// How it comes.
    pub transport: Transport,
    /// Relayed addresses.
    pub relayed: Vec<SocketAddr>,
    /// Peer addresses that may be heard.
    pub permissions: usize,
    /// Channels.
    pub channels: usize,
    /// How long it has been there.
    pub age: Duration,
    /// When it ends unless it is refreshed.
    pub expires_in: Duration,
    /// What has passed.
    pub traffic: Traffic,
}

impl Relay {
    /// Who holds what, at most `limit` of them, by user and age.
    #[must_use]
    pub fn sessions(&self, limit: usize) -> Vec<Session> {
        let ask = |worker: &Handle| {
            worker.ask(move |server, now| server.sessions(now).take(limit).collect::<Vec<_>>())
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let mut sessions = Vec::new();
        for (worker, answer) in (0..).zip(answers) {
            let held = answer.into_iter().flatten();
            sessions.extend(held.filter_map(|held| self.session(worker, held)));
        }
        sessions.sort_by(|a, b| (&a.user, b.age, a.id).cmp(&(&b.user, a.age, b.id)));
        sessions.truncate(limit);
        sessions
    }

    /// What each user holds and has passed, by name. The empty name: all who came after
    /// [`MAX_USERS`](crate::users::MAX_USERS) others.
    #[must_use]
    pub fn users(&self) -> Vec<(String, UserTotals)> {
        let ask = |worker: &Handle| {
            let counters = worker.counters.clone();
            worker.ask(move |server, now| {
                let mut sums = HashMap::new();
                counters.users().add_to(server, now, &mut sums);
                sums
            })
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let mut users: BTreeMap<String, UserTotals> = BTreeMap::new();
        for (name, totals) in answers.into_iter().flatten().flatten() {
            let sum = users.entry(name.to_string()).or_default();
            sum.allocations += totals.allocations;
            sum.traffic.add(&totals.traffic);
        }
        users.into_iter().collect()
    }

    /// Ends all allocations of a user, and refuses its ephemeral credentials that end within `lifetime`
    /// from now: just those handed out until now, if that is the lifetime they are given.
    #[must_use]
    pub fn revoke(&self, user: &str, lifetime: Duration) -> Revoked {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let until = unix.map_or(0, |now| now.as_secs().saturating_add(lifetime.as_secs()));
        let ask = |worker: &Handle| {
            let user = user.to_owned();
            worker.ask(move |server, now| server.revoke(&user, until, now))
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let nothing = Revoked {
            ended: 0,
            is_remembered: true,
            has_password: false,
        };
        answers
            .into_iter()
            .flatten()
            .fold(nothing, |sum, one| Revoked {
                ended: sum.ended + one.ended,
                is_remembered: sum.is_remembered && one.is_remembered,
                has_password: sum.has_password || one.has_password,
            })
    }

    /// Ends one allocation; returns whose it was, if it was there. Its user may come back.
    #[must_use]
    pub fn revoke_session(&self, id: &SessionId) -> Option<Arc<str>> {
        if id.run != self.run {
            return None;
        }
        let allocation = id.allocation;
        let worker = self.workers.get(usize::from(id.worker))?;
        let answer = worker.ask(move |server, _| server.revoke_session(allocation));
        answer.recv().ok().flatten()
    }

    /// No allocation is made any more, those that are there go on. For good: the process is to end when
    /// [`Relay::metrics`] tells that none is left.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        let answers: Vec<_> = self
            .workers
            .iter()
            .map(|worker| worker.ask(|server, _| server.drain()))
            .collect();
        answers.into_iter().flatten().for_each(drop);
    }

    /// Whether it drains.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Users whose ephemeral credentials are refused.
    #[must_use]
    pub fn revocation_count(&self) -> usize {
        // Every worker knows all of them.
        let answer = self
            .workers
            .first()
            .map(|worker| worker.ask(|server, now| server.revocation_count(now)));
        answer.and_then(|count| count.recv().ok()).unwrap_or(0)
    }

    fn session(&self, worker: u16, held: session::Session) -> Option<Session> {
        let configured = self.listening.iter().map(|listen| listen.transport);
        let mut listeners = configured.chain(GIVEN);
        Some(Session {
            id: SessionId {
                run: self.run,
                worker,
                allocation: held.id,
            },
            user: held.user,
            client: held.client.client,
            transport: listeners.nth(usize::from(held.client.listener.0))?,
            relayed: held.relayed,
            permissions: held.permissions,
            channels: held.channels,
            age: held.age,
            expires_in: held.expires_in,
            traffic: held.traffic,
        })
    }
}

impl Handle {
    /// Asks a worker. The answer never comes if it has ended.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Server, Now) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (sender, answer) = sync_channel(1);
        self.order(Order::Ask(Box::new(move |server, now| {
            if sender.send(question(server, now)).is_err() {
                tracing::debug!("nobody waits for an answer any more");
            }
        })));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_name() {
        let id = SessionId {
            run: 0x1f,
            worker: 10,
            allocation: AllocationId::from_bits(3 << 32 | 7),
        };
        assert_eq!(id.to_string(), "0000001f-a-300000007");
        assert_eq!("0000001f-a-300000007".parse(), Ok(id));
        for other in [
            "1f-a-300000007",
            "0000001f-A-300000007",
            "ann",
            "",
            "--",
            "0000001f-a-1-1",
        ] {
            assert_eq!(other.parse::<SessionId>(), Err(NoSessionId), "{other}");
        }
    }
}
