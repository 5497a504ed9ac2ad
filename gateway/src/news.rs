//! What happens to the nodes of the cluster, as signaling tells: asked for while somebody follows.

use std::sync::Arc;

use portway_protocol::signal::news::{Interest, Told};
use tokio::sync::{broadcast, watch};

/// Events that may wait for a follower.
const FOLLOWED: usize = 256;

/// Passes news on to those who follow.
#[derive(Debug)]
pub(crate) struct News {
    told: broadcast::Sender<Told>,
    followers: watch::Sender<Followers>,
}

/// How many there are, by what they want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Followers {
    changes: usize,
    heartbeats: usize,
}

/// As long as this is there, signaling is asked.
#[derive(Debug)]
pub struct Following {
    news: Arc<News>,
    interest: Interest,
}

impl Default for News {
    fn default() -> Self {
        Self {
            told: broadcast::Sender::new(FOLLOWED),
            followers: watch::Sender::default(),
        }
    }
}

impl News {
    /// What is told from now on, as long as the other thing is kept.
    pub(crate) fn follow(
        self: &Arc<Self>,
        interest: Interest,
    ) -> (broadcast::Receiver<Told>, Following) {
        let told = self.told.subscribe();
        self.followers
            .send_modify(|followers| *followers.count(interest) += 1);
        let following = Following {
            news: self.clone(),
            interest,
        };
        (told, following)
    }

    /// Signaling says so.
    pub(crate) fn hear(&self, told: Told) {
        if self.told.send(told).is_err() {
            tracing::debug!("nobody follows any more");
        }
    }

    /// Who follows, now and later.
    pub(crate) fn followers(&self) -> watch::Receiver<Followers> {
        self.followers.subscribe()
    }
}

impl Followers {
    /// The most that one of them wants.
    pub(crate) const fn interest(self) -> Interest {
        match (self.heartbeats, self.changes) {
            (0, 0) => Interest::Nothing,
            (0, _) => Interest::Changes,
            (_, _) => Interest::Heartbeats,
        }
    }

    /// Those who want this much, or nothing that signaling would have to be asked for.
    const fn count(&mut self, interest: Interest) -> &mut usize {
        match interest {
            Interest::Nothing | Interest::Changes => &mut self.changes,
            Interest::Heartbeats => &mut self.heartbeats,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let interest = self.interest;
        self.news
            .followers
            .send_modify(|followers| *followers.count(interest) -= 1);
    }
}
