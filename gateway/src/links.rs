//! Links as their owner sees them: what a grant allows, what became of it, and who is there by it now.

use portway_protocol::id::GrantId;
use portway_protocol::permission::Permission;
use portway_protocol::token::user::{Devices, UserClaims};
use serde::{Deserialize, Serialize};

use crate::grants::{Opened, Usage};
use crate::session::table::SessionView;

/// A link, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkView {
    /// The grant.
    pub id: GrantId,
    /// Who it is for.
    pub user: String,
    /// What it opens.
    pub services: Vec<Permission>,
    /// When it was made, seconds since 1970.
    pub made: u64,
    /// When it ends, seconds since 1970.
    pub expires: u64,
    /// Whether it is for the first device that opens it.
    pub once: bool,
    /// Whether it was opened.
    pub used: bool,
    /// The last session that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Opened>,
    /// Sessions that have begun.
    pub sessions: u64,
    /// Sessions that there are now.
    pub open: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
}

/// The newest first.
pub(crate) fn views(grants: Vec<(UserClaims, Usage)>, sessions: &[SessionView]) -> Vec<LinkView> {
    let mut views: Vec<_> = grants
        .into_iter()
        .map(|(claims, usage)| view(claims, &usage, sessions))
        .collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.made));
    views
}

fn view(claims: UserClaims, usage: &Usage, sessions: &[SessionView]) -> LinkView {
    let mut view = LinkView {
        id: claims.jti,
        user: claims.sub,
        services: claims.services,
        made: claims.iat,
        expires: claims.exp,
        once: match claims.devices {
            Devices::Any => false,
            Devices::First => true,
        },
        used: usage.sessions > 0 || usage.device.is_some(),
        last: usage.last,
        sessions: usage.sessions,
        open: 0,
        received: usage.received,
        sent: usage.sent,
    };
    for session in sessions.iter().filter(|session| session.grant == view.id) {
        view.open += 1;
        view.received += session.received;
        view.sent += session.sent;
    }
    view
}
