//! What the owner of a node does: opens a window, hears who comes, types digits.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portway_protocol::id::{GrantId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::PAIRING_TIMEOUT;
use portway_protocol::pairing::code::Digits;
use portway_protocol::pairing::host::Offered;
use portway_protocol::reason::Reason;
use portway_protocol::signal::Call;
use portway_protocol::signal::pairing::Paired;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Entry, Guest, News, Stage};
use crate::agent::Shared;
use crate::signaling::can_announce;

/// Time for a guest from its commitment to its key: its program does that by itself.
const REVEAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the owner to hear the digits and to type them. Who sits between may make the guest begin anew
/// meanwhile, with other digits each time.
const TYPING_TIMEOUT: Duration = Duration::from_secs(3 * 60);

const _: () = assert!(TYPING_TIMEOUT.as_secs() < PAIRING_TIMEOUT.as_secs());

/// Time for signaling to learn of something.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);

/// An open window. Closed when dropped.
pub struct Window {
    shared: Arc<Shared>,
    grant: GrantId,
    news: watch::Receiver<News>,
    /// Whether the owner has heard of the guest.
    is_told: bool,
    deadline: Instant,
}

/// What happens at a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A guest has its digits.
    Guest {
        /// Where its socket comes from, as signaling says.
        address: Option<IpAddr>,
    },
    /// There will be no pairing.
    Over(Reason),
}

/// The digits were the same. The guest waits to be told that its grant is there; if this is dropped before,
/// it learns that there is none.
pub struct Agreed {
    /// What the grant is to be bound to.
    pub key: PublicKey,
    /// The service that it opens.
    pub service: ServiceName,
    shared: Arc<Shared>,
    /// Until it was told.
    guest: Option<Guest>,
}

impl Window {
    /// Opens one, and waits until signaling knows.
    pub(crate) async fn open(
        shared: &Arc<Shared>,
        service: ServiceName,
        cluster_key: PublicKey,
        grant: GrantId,
    ) -> Result<Self, Reason> {
        if shared.context.draining.is_cancelled() {
            return Err(Reason::Draining);
        }
        if shared.context.services.get(&service).is_none() {
            return Err(Reason::ServiceUnknown);
        }
        let identity = &shared.context.identity;
        let offered = Offered {
            cluster: identity.cluster.clone(),
            service,
            node: identity.node.clone(),
            cluster_key,
            node_key: identity.key.public(),
            grant,
        };
        let (news, edition) = {
            let mut windows = shared.pairings.lock();
            (windows.open(offered, Instant::now())?, windows.edition)
        };
        let window = Self {
            shared: shared.clone(),
            grant,
            news,
            is_told: false,
            deadline: Instant::now() + PAIRING_TIMEOUT,
        };
        if !can_announce(shared) {
            return Err(Reason::RateLimited);
        }
        announced(shared, edition).await?;
        Ok(window)
    }

    /// Waits for a guest, and after that for the end. Nothing is lost if this is cancelled.
    pub async fn next(&mut self) -> Happening {
        loop {
            let news = *self.news.borrow_and_update();
            let deadline = match news {
                News::Over(reason) => return Happening::Over(reason),
                News::Compared(address) if !self.is_told => {
                    self.is_told = true;
                    self.deadline = self.deadline.min(Instant::now() + TYPING_TIMEOUT);
                    return Happening::Guest { address };
                }
                News::Committed(at) => self.deadline.min(at + REVEAL_TIMEOUT),
                News::Waiting | News::Compared(_) => self.deadline,
            };
            let draining = self.shared.context.draining.cancelled();
            tokio::select! {
                changed = self.news.changed() => if changed.is_err() {
                    // The digits were the same: nothing else happens here.
                    std::future::pending().await
                },
                () = tokio::time::sleep_until(deadline) => self.close(Reason::PairingExpired),
                () = draining => self.close(Reason::Draining),
            }
        }
    }

    fn close(&self, reason: Reason) {
        let closed = self.shared.pairings.lock().open.remove(&self.grant);
        if let Some(entry) = closed {
            entry.end(reason);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.close(Reason::PairingCancelled);
        // However it ended, nobody waits here any more.
        self.shared.changed.send_replace(());
    }
}

/// Compares what the owner has typed. That was the only try: the window is over.
///
/// # Errors
/// [`Reason::PairingMismatch`] if they are others, [`Reason::PairingClosed`] if there is no such window, or no
/// guest there.
pub(crate) fn compare(
    shared: &Arc<Shared>,
    grant: &GrantId,
    typed: Digits,
) -> Result<Agreed, Reason> {
    let mut windows = shared.pairings.lock();
    let entry = windows.open.remove(grant).ok_or(Reason::PairingClosed)?;
    let Entry {
        service,
        stage,
        news,
    } = entry;
    let (guest, host) = match stage {
        Stage::Compared(guest, host) => (guest, host),
        stage @ (Stage::Waiting(_) | Stage::Committed(..)) => {
            let entry = Entry {
                service,
                stage,
                news,
            };
            windows.open.insert(*grant, entry);
            return Err(Reason::PairingClosed);
        }
    };
    match host.compare(typed) {
        Ok(key) => {
            windows.unspoil(&service);
            Ok(Agreed {
                key,
                service,
                shared: shared.clone(),
                guest: Some(guest),
            })
        }
        Err(error) => {
            let reason = error.reason();
            tracing::warn!(%service, "the digits of a guest were others than ours");
            let audit = &shared.context.audit;
            audit.refused(Some(service), None, reason, None);
            guest.cancel(reason);
            news.send_replace(News::Over(reason));
            Err(reason)
        }
    }
}

impl Agreed {
    /// The grant is there: once signaling knows it, too, the guest is told.
    pub async fn tell(mut self) {
        let edition = {
            let mut windows = self.shared.pairings.lock();
            windows.edition += 1;
            windows.edition
        };
        if let Err(reason) = announced(&self.shared, edition).await {
            tracing::warn!(%reason, "signaling does not know of a grant yet");
        }
        if let Some(guest) = self.guest.take() {
            let pairing = guest.pairing;
            guest.say(&Call::Paired(Paired { pairing }));
        }
    }
}

impl Drop for Agreed {
    fn drop(&mut self) {
        if let Some(guest) = &self.guest {
            guest.cancel(Reason::Internal);
        }
    }
}

/// Waits until a signaling service has that edition.
async fn announced(shared: &Shared, edition: u64) -> Result<(), Reason> {
    let mut announced = shared.pairings.announced.subscribe();
    shared.changed.send_replace(());
    let is_there = announced.wait_for(|newest| *newest >= edition);
    match tokio::time::timeout(ANNOUNCE_TIMEOUT, is_there).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Reason::SignalingUnreachable),
    }
}
