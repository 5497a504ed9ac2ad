//! Which sessions are reached another way than signaling was told.

use std::collections::HashMap;

use portway_protocol::id::SessionId;
use portway_protocol::signal::news::{MAX_PATHS, Paths, Route, SessionPath};

/// What one signaling service was told.
#[derive(Debug, Default)]
pub(super) struct Reported(HashMap<SessionId, Route>);

impl Reported {
    /// What is news of all the sessions there are, if anything; what is too much is so the next time.
    pub(super) fn news(&mut self, sessions: Vec<SessionPath>) -> Option<Paths> {
        let before = std::mem::take(&mut self.0);
        let mut paths = Vec::new();
        for session in sessions {
            if before.get(&session.session) == Some(&session.route) {
                self.0.insert(session.session, session.route);
            } else if paths.len() < MAX_PATHS {
                self.0.insert(session.session, session.route);
                paths.push(session);
            }
        }
        (!paths.is_empty()).then_some(Paths { paths })
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::signal::news::{CandidateKind, Transport, Way};

    use super::*;

    fn session(id: u8, path: Way) -> SessionPath {
        SessionPath {
            session: SessionId::from_bytes([id; 16]),
            service: "lab".parse().unwrap(),
            route: Route {
                path,
                local_kind: CandidateKind::Host,
                remote_kind: CandidateKind::Srflx,
                protocol: Transport::Udp,
            },
            rtt_ms: None,
        }
    }

    #[test]
    fn a_path_is_told_once_and_again_when_it_has_changed() {
        let mut reported = Reported::default();
        let (relayed, direct) = (session(1, Way::Relayed), session(1, Way::Direct));
        let told = reported.news(vec![relayed.clone()]).unwrap();
        assert_eq!(told.paths[0], relayed);
        assert!(reported.news(vec![relayed.clone()]).is_none());
        let told = reported.news(vec![direct.clone()]).unwrap();
        assert_eq!(told.paths[0], direct);
        assert!(reported.news(Vec::new()).is_none());
        assert!(reported.0.is_empty());
    }

    #[test]
    fn what_does_not_fit_comes_with_the_next() {
        let mut reported = Reported::default();
        let all: Vec<_> = (0..20).map(|id| session(id, Way::Direct)).collect();
        let first = reported.news(all.clone()).unwrap();
        assert_eq!(first.paths, all[..MAX_PATHS]);
        let second = reported.news(all.clone()).unwrap();
        assert_eq!(second.paths, all[MAX_PATHS..]);
        assert!(reported.news(all).is_none());
    }
}
