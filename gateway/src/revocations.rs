//! What this process knows of revoked nodes, for all its parts.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

use portway_protocol::id::ClusterName;
use portway_protocol::key::PublicKey;
use portway_protocol::revocation::{ListError, RevocationList, Revocations};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::GatewayHandle;
use crate::state::State;

/// File in the state directory.
const FILE: &str = "revocations.json";

/// The newest list that has come, by whatever way.
#[derive(Debug, Clone)]
pub struct KnownRevocations(Arc<watch::Sender<Revocations>>);

impl KnownRevocations {
    /// Nothing is known yet of this cluster, by its key.
    #[must_use]
    pub fn new(cluster: ClusterName, cluster_key: PublicKey) -> Self {
        let none = Revocations::new(cluster, cluster_key);
        Self(Arc::new(watch::Sender::new(none)))
    }

    /// Takes a list, if the cluster has signed it and it is newer than the one that is known. Returns whether
    /// it is.
    ///
    /// # Errors
    /// See [`ListError`]; what was known stays.
    pub fn learn(&self, list: &RevocationList) -> Result<bool, ListError> {
        let mut outcome = Ok(false);
        self.0.send_if_modified(|known| {
            outcome = known.learn(list);
            outcome == Ok(true)
        });
        outcome
    }

    /// The same with a list that came from somebody who is not believed: what is wrong with it is logged.
    pub(crate) fn hear(&self, list: &RevocationList) -> bool {
        let learnt = self.learn(list);
        learnt.unwrap_or_else(|error| {
            tracing::warn!(%error, "a list of revoked nodes was not taken");
            false
        })
    }

    /// What is known now.
    #[must_use]
    pub fn get(&self) -> Revocations {
        self.0.borrow().clone()
    }

    /// To hear of newer lists.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Revocations> {
        self.0.subscribe()
    }

    /// Waits until a key is revoked.
    pub async fn revoked(&self, key: &PublicKey) {
        // The sender lives in `self`, so waiting cannot fail.
        drop(self.subscribe().wait_for(|known| known.name(key)).await);
    }
}

/// The list that is kept in a state directory, if there is one.
#[must_use]
pub fn kept(state: &State) -> Option<RevocationList> {
    let path = state.path(FILE);
    let read = fs::read(&path).and_then(|json| Ok(serde_json::from_slice(&json)?));
    read.map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            tracing::warn!(%error, path = %path.display(), "the list of revoked nodes is not used");
        }
    })
    .ok()
}

/// Keeps every newer list that a gateway hears of for the next start, until cancelled: signaling may have been
/// started anew then, too.
pub async fn keep(state: State, gateway: GatewayHandle, cancel: CancellationToken) {
    let mut known = gateway.revocations().subscribe();
    known.mark_changed();
    while let Some(Ok(())) = cancel.run_until_cancelled(known.changed()).await {
        let list = known.borrow_and_update().list().cloned();
        let Some(list) = list else { continue };
        let json = serde_json::to_vec(&list).expect("our own types serialise");
        if let Err(error) = state.replace(FILE, &json) {
            tracing::warn!(%error, "the list of revoked nodes is not kept");
        }
    }
}
