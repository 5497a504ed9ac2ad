//! Lists of revoked nodes: signed where the cluster key is, and kept wherever one has come to.
//!
//! A node that is forgotten is on them until its certificate has ended. They are signed anew long before the
//! last one ends, for without one in force nobody believes any certificate that this issuer has made.

use std::time::Duration;

use portway_protocol::revocation::RevocationList;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::issuer::Issuer;
use super::ledger::Entries;
use crate::args::Span;
use crate::cluster::MAX_MACHINE_LIFETIME;
use crate::links::unix_now;
use portway_gateway::enrolment::renewal::until;

/// A list is signed anew when this part of its life is left: one of two.
const LEFT: u64 = 2;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// How long a list is good for. Whoever can hold lists back has as long as that to abuse a stolen node key;
/// and as long as that the machine with the cluster key may be away before nobody opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ListLifetime(Duration);

impl ListLifetime {
    const MIN: Duration = Duration::from_secs(3600);
    const MAX: Duration = Duration::from_secs(MAX_MACHINE_LIFETIME);
}

impl Default for ListLifetime {
    fn default() -> Self {
        Self(Duration::from_secs(7 * 24 * 3600))
    }
}

impl TryFrom<String> for ListLifetime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Span(lifetime) = text.parse()?;
        if (Self::MIN..=Self::MAX).contains(&lifetime) {
            Ok(Self(lifetime))
        } else {
            Err(format!("`{text}` is out of range: `1h` to `30d`"))
        }
    }
}

impl Issuer {
    /// Signs a list of those who were forgotten, and passes it on.
    pub(crate) fn publish(&self) -> anyhow::Result<()> {
        let (now, cluster) = (unix_now(), self.cluster.get());
        let known = self.gateway.revocations().get();
        let last = known.list().map_or(0, |list| list.serial);
        let listed = |entries: &mut Entries| anyhow::Ok(entries.next_list(last, now));
        let (serial, nodes) = self.ledger().change(now, listed)?;
        let list = RevocationList::sign(
            &cluster.name,
            (&cluster.key, &cluster.rotations),
            (serial, now + self.lists.0.as_secs()),
            nodes,
        );
        self.gateway.learn(&list)?;
        Ok(())
    }

    /// Publishes a list, the first of which is there, whenever it is time for another.
    pub(crate) async fn publish_in_time(self, cancel: CancellationToken) {
        let publishing = async {
            loop {
                let key = self.cluster.get().key.public();
                let due = unix_now() + self.lists.0.as_secs() / LEFT;
                tokio::select! {
                    () = until(due) => {}
                    () = self.cluster.rotated(key) => {}
                }
                while let Err(error) = self.publish() {
                    tracing::error!("no list of revoked nodes was made: {error:#}");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = publishing => {}
            () = cancel.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lives_for_an_hour_to_thirty_days() {
        let lifetime = |text: &str| ListLifetime::try_from(text.to_owned());
        let hours = |hours: u64| Ok(ListLifetime(Duration::from_secs(hours * 3600)));
        assert_eq!(lifetime("1h"), hours(1));
        assert_eq!(lifetime("30d"), hours(720));
        for refused in ["59m", "31d", "0s", "soon"] {
            assert!(lifetime(refused).is_err(), "{refused}");
        }
    }
}
