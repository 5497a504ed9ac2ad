//! What has happened, for those who count. Nothing needs to be done.

use std::sync::Arc;

use crate::five_tuple::ListenerId;
use crate::session::Traffic;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody holds an allocation.
    Allocated {
        /// Who.
        user: Arc<str>,
        /// Where it came.
        listener: ListenerId,
    },
    /// Somebody does no more.
    Ended {
        /// Who.
        user: Arc<str>,
        /// Where it came.
        listener: ListenerId,
        /// Why.
        why: Ending,
        /// What has passed.
        traffic: Traffic,
    },
    /// A request was refused with this error code.
    Refused(u16),
}

/// Why an allocation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Its client did not refresh it.
    Expired,
    /// Its client wanted no more.
    Deleted,
    /// Its operator did: by a revocation, or a reload without its user.
    Revoked,
    /// The connection of its client has closed.
    ClientGone,
}
