//! Which offers have come before. Signaling could send one again.

use std::collections::{HashSet, VecDeque};

use portway_protocol::id::SessionId;

/// Sessions that are remembered. Whoever wants to send one again has to wait for as many newer ones, each
/// signed by the holder of a grant; and a connection that is made for it then still needs the key of the
/// certificate that it names.
const MEMORY: usize = 8 * 1024;

/// The last [`MEMORY`] sessions.
#[derive(Debug, Default)]
pub(super) struct Seen {
    sessions: HashSet<SessionId>,
    order: VecDeque<SessionId>,
}

impl Seen {
    /// Whether it is a new one; remembers it.
    pub(super) fn is_first(&mut self, session: SessionId) -> bool {
        if !self.sessions.insert(session) {
            return false;
        }
        self.order.push_back(session);
        if self.order.len() > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_new_once_while_it_is_remembered() {
        let session = |i: usize| {
            let mut bytes = [0; SessionId::LEN];
            bytes[..8].copy_from_slice(&i.to_be_bytes());
            SessionId::from_bytes(bytes)
        };
        let mut seen = Seen::default();
        assert!(seen.is_first(session(0)));
        for i in 1..MEMORY {
            assert!(!seen.is_first(session(0)));
            assert!(seen.is_first(session(i)));
        }
        assert!(seen.is_first(session(MEMORY)));
        assert!(seen.is_first(session(0)), "it was forgotten");
        assert_eq!(seen.sessions.len(), MEMORY);
        assert_eq!(seen.order.len(), MEMORY);
    }
}
