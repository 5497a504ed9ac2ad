//! Whose ephemeral credentials are refused although their time has not come.
//!
//! Such a credential tells when it ends, not when it was made. So a revocation names an end: what ends
//! there or before is refused, what ends later is welcome. With the lifetime that an application gives
//! its credentials, counted from now, that is just what was handed out until now. When the named end
//! has come, nothing is left to refuse, and the revocation is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::limits::MAX_REVOCATIONS;

/// What a revocation has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Allocations that it ended.
    pub ended: usize,
    /// Whether the user's ephemeral credentials are refused from now on: there was room for the name.
    pub is_remembered: bool,
    /// Whether the user has a password of its own and may come back with it.
    pub has_password: bool,
}

/// Users by name, and the end up to which credentials are refused.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    until: HashMap<Arc<str>, u64>,
}

impl Revocations {
    /// Remembers a user, if there is room.
    pub(crate) fn add(&mut self, user: &str, until: u64, unix: u64) -> bool {
        self.until.retain(|_, until| *until > unix);
        if let Some(known) = self.until.get_mut(user) {
            *known = until.max(*known);
            return true;
        }
        let has_room = self.until.len() < MAX_REVOCATIONS;
        if has_room {
            self.until.insert(user.into(), until);
        }
        has_room
    }

    /// Whether somebody with credentials that are right is not welcome.
    pub(crate) fn refuses(&self, identity: &Identity) -> bool {
        match (identity.expires, self.until.get(&identity.user)) {
            (Some(expires), Some(until)) => expires <= *until,
            (None, _) | (_, None) => false,
        }
    }

    /// How many count.
    pub(crate) fn count(&self, unix: u64) -> usize {
        self.until.values().filter(|until| **until > unix).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_an_end_and_forgets_what_is_over() {
        let mut list = Revocations::default();
        for i in 0..MAX_REVOCATIONS {
            assert!(list.add(&i.to_string(), 1000, 0));
        }
        assert!(!list.add("one more", 1000, 999));
        assert!(list.add("7", 2000, 999), "known already");
        assert!(list.add("one more", 2000, 1000));
        assert_eq!(list.count(1000), 2);
    }
}
