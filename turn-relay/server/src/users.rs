//! What each user has passed, of those who have come since the start.

use std::collections::HashMap;
use std::sync::Arc;

use portway_relay_proto::server::Server;
use portway_relay_proto::session::Traffic;

/// Names that a worker keeps. A name stays, for a counter must not fall; who comes later is counted
/// among the others.
pub const MAX_USERS: usize = 1000;

/// What a user holds and has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserTotals {
    /// Allocations that live.
    pub allocations: u64,
    /// What has passed, ended allocations included.
    pub traffic: Traffic,
}

/// Of one worker, what allocations had passed when they ended.
#[derive(Debug, Default)]
pub(crate) struct Users {
    ended: HashMap<Arc<str>, Traffic>,
    others: Traffic,
}

impl Users {
    /// Somebody has an allocation.
    pub(crate) fn begin(&mut self, user: Arc<str>) {
        if self.ended.len() < MAX_USERS {
            self.ended.entry(user).or_default();
        }
    }

    /// Somebody has one less.
    pub(crate) fn end(&mut self, user: &str, traffic: &Traffic) {
        self.ended
            .get_mut(user)
            .unwrap_or(&mut self.others)
            .add(traffic);
    }

    /// Together with what lives now, added to `sums`; the others have no name.
    pub(crate) fn add_to(
        &self,
        server: &Server,
        now: portway_relay_proto::Now,
        sums: &mut HashMap<Arc<str>, UserTotals>,
    ) {
        for (user, traffic) in &self.ended {
            sums.entry(user.clone()).or_default().traffic.add(traffic);
        }
        let others: Arc<str> = "".into();
        sums.entry(others.clone())
            .or_default()
            .traffic
            .add(&self.others);
        for session in server.sessions(now) {
            let is_known = self.ended.contains_key(&session.user);
            let user = if is_known {
                session.user
            } else {
                others.clone()
            };
            let sum = sums.entry(user).or_default();
            sum.allocations += 1;
            sum.traffic.add(&session.traffic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_late_is_counted_among_the_others() {
        let mut users = Users::default();
        for i in 0..=MAX_USERS {
            users.begin(i.to_string().into());
        }
        let traffic = Traffic {
            bytes_to_peers: 5,
            ..Traffic::default()
        };
        users.end("7", &traffic);
        users.end(&MAX_USERS.to_string(), &traffic);
        assert_eq!(users.ended.len(), MAX_USERS);
        assert_eq!(users.ended["7"].bytes_to_peers, 5);
        assert_eq!(users.others.bytes_to_peers, 5);
    }
}
