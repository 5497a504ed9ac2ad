//! Nodes that are nodes no more, although their certificates have not ended.
//!
//! The cluster key signs a list of them: {cluster, serial, end, ids of node keys}. Whoever has it passes it on:
//! the node that signs it to signaling, signaling to clients and to the other nodes, and these to other
//! signaling services. A certificate may demand one (see [`RevokedBy`]): without a list in force it is worth
//! nothing.
//!
//! Security: nobody who passes a list on can change it. To hold it back helps until the list before it has
//! ended, and then certificates that demand one are refused: whoever has stolen a node key, and signaling with
//! it, has as long as a list is good for. Serials rise, so that who knows a list is not shown an earlier one.
//!
//! [`RevokedBy`]: crate::token::machine::RevokedBy

use serde::{Deserialize, Serialize};

use crate::id::ClusterName;
use crate::key::{KeyError, KeyId, PublicKey, Signature, SigningKey};
use crate::reason::Reason;
use crate::rotation::{self, Rotation, RotationError};
use crate::token::machine::{MachineClaims, RevokedBy};
use crate::token::verify::LEEWAY;
use crate::transcript::Transcript;

/// Most nodes that a list can name. Each is on it until its certificate has ended.
pub const MAX_REVOKED: usize = 256;

/// Longest text of a list, bytes: [`MAX_REVOKED`] nodes, and
/// [`MAX_ROTATIONS`](rotation::MAX_ROTATIONS).
pub const MAX_LIST: usize = 8 * 1024;

/// Whom nobody should believe to be a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    /// Rises by each.
    pub serial: u64,
    /// End of its validity, seconds since 1970: until then there is another one.
    pub expires: u64,
    /// Keys of nodes.
    pub nodes: Vec<KeyId>,
    /// How the cluster key that signed it came to be that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotations: Vec<Rotation>,
    proof: Signature,
}

/// Why a list is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Longer than [`MAX_REVOKED`].
    #[error("a list of {0} nodes")]
    TooLong(usize),
    /// The cluster key has not given way to another as the list says.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The cluster key has not signed it.
    #[error("the list is not the cluster's: {0}")]
    Unproven(#[from] KeyError),
}

/// Why a certificate that is good otherwise is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// Its key is on the list.
    #[error("the node was revoked")]
    Revoked,
    /// It demands a list, and none is known that is in force.
    #[error("no list of revoked nodes is in force")]
    NoList,
}

impl RevocationError {
    /// The reason code.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Revoked => Reason::NodeRevoked,
            Self::NoList => Reason::RevocationsOutdated,
        }
    }
}

impl RevocationList {
    /// Signs one with a cluster key, which came to be that by these rotations.
    #[must_use]
    pub fn sign(
        cluster: &ClusterName,
        (key, rotations): (&SigningKey, &[Rotation]),
        (serial, expires): (u64, u64),
        nodes: Vec<KeyId>,
    ) -> Self {
        let statement = statement(cluster, serial, expires, &nodes);
        Self {
            serial,
            expires,
            nodes,
            rotations: rotations.to_vec(),
            proof: key.sign(statement.bytes()),
        }
    }

    /// Whether it names a key.
    #[must_use]
    pub fn names(&self, key: &PublicKey) -> bool {
        self.nodes.contains(&key.id())
    }

    /// Checks who signed it; returns the newest key of the cluster, to which the one that is believed leads.
    /// When it ends is not looked at.
    ///
    /// # Errors
    /// See [`ListError`].
    fn verify(&self, cluster: &ClusterName, believed: PublicKey) -> Result<PublicKey, ListError> {
        if self.nodes.len() > MAX_REVOKED {
            return Err(ListError::TooLong(self.nodes.len()));
        }
        let keys = rotation::follow(cluster, believed, &self.rotations)?;
        let newest = keys.last().copied().unwrap_or(believed);
        let statement = statement(cluster, self.serial, self.expires, &self.nodes);
        newest.verify(statement.bytes(), &self.proof)?;
        Ok(newest)
    }
}

/// What is signed.
fn statement(cluster: &ClusterName, serial: u64, expires: u64, nodes: &[KeyId]) -> Transcript {
    let begun = Transcript::new("portway/revocations/1")
        .field(cluster.as_str().as_bytes())
        .fixed(&serial.to_be_bytes())
        .fixed(&expires.to_be_bytes());
    let named = nodes.iter();
    named.fold(begun, |statement, id| {
        statement.field(id.as_str().as_bytes())
    })
}

/// What somebody knows of revoked nodes: the newest list of a cluster that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    cluster: ClusterName,
    /// Key of the cluster, as far as it is known.
    believed: PublicKey,
    list: Option<RevocationList>,
}

impl Revocations {
    /// Nothing yet, of a cluster by the key that is believed.
    #[must_use]
    pub const fn new(cluster: ClusterName, believed: PublicKey) -> Self {
        Self {
            cluster,
            believed,
            list: None,
        }
    }

    /// Takes a list, if the cluster has signed it and it is newer than the one that is known. Returns whether
    /// it is.
    ///
    /// # Errors
    /// See [`ListError`]; what was known stays.
    pub fn learn(&mut self, list: &RevocationList) -> Result<bool, ListError> {
        let newest = list.verify(&self.cluster, self.believed)?;
        let is_newer = self
            .list
            .as_ref()
            .is_none_or(|known| known.serial < list.serial);
        if is_newer {
            self.believed = newest;
            self.list = Some(list.clone());
        }
        Ok(is_newer)
    }

    /// The newest list.
    #[must_use]
    pub const fn list(&self) -> Option<&RevocationList> {
        self.list.as_ref()
    }

    /// Whether a key is known to have been revoked. A list that has ended counts here, too: what it names
    /// has not come back.
    #[must_use]
    pub fn name(&self, key: &PublicKey) -> bool {
        self.list.as_ref().is_some_and(|list| list.names(key))
    }

    /// Whether a certificate counts at `now`, seconds since 1970.
    ///
    /// # Errors
    /// See [`RevocationError`].
    pub fn judge(&self, certificate: &MachineClaims, now: u64) -> Result<(), RevocationError> {
        if self.name(&certificate.cnf.ed25519) {
            return Err(RevocationError::Revoked);
        }
        let is_in_force = self
            .list
            .as_ref()
            .is_some_and(|list| now < list.expires.saturating_add(LEEWAY));
        match certificate.revoked_by {
            RevokedBy::List if !is_in_force => Err(RevocationError::NoList),
            RevokedBy::List | RevokedBy::Nothing => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::token::Confirmation;

    const NOW: u64 = 1000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn home() -> ClusterName {
        "home".parse().unwrap()
    }

    fn list(by: u8, serial: u64, nodes: &[u8]) -> RevocationList {
        let nodes = nodes.iter().map(|seed| key(*seed).public().id()).collect();
        RevocationList::sign(&home(), (&key(by), &[]), (serial, NOW + 100), nodes)
    }

    fn known() -> Revocations {
        Revocations::new(home(), key(1).public())
    }

    fn certificate(node: u8, revoked_by: RevokedBy) -> MachineClaims {
        MachineClaims {
            iss: home(),
            aud: home(),
            sub: "nas".parse().unwrap(),
            node_id: "nas".parse().unwrap(),
            cluster_id: home(),
            iat: NOW,
            exp: NOW + 1000,
            jti: "1".into(),
            cnf: Confirmation {
                ed25519: key(node).public(),
            },
            revoked_by,
        }
    }

    #[test]
    fn who_is_on_the_list_is_no_node() {
        let mut known = known();
        assert_eq!(known.learn(&list(1, 1, &[7])), Ok(true));
        let judge = |node, by, now| known.judge(&certificate(node, by), now);
        for by in [RevokedBy::List, RevokedBy::Nothing] {
            assert_eq!(judge(7, by, NOW), Err(RevocationError::Revoked));
            assert_eq!(judge(7, by, NOW + 999), Err(RevocationError::Revoked));
            assert_eq!(judge(8, by, NOW), Ok(()));
        }
    }

    #[test]
    fn who_demands_a_list_is_a_node_while_one_is_in_force() {
        let mut known = known();
        let judge = |known: &Revocations, by, now| known.judge(&certificate(8, by), now);
        let demanded = RevokedBy::List;
        assert_eq!(judge(&known, demanded, NOW), Err(RevocationError::NoList));
        assert_eq!(judge(&known, RevokedBy::Nothing, NOW), Ok(()));
        known.learn(&list(1, 1, &[])).unwrap();
        let end = NOW + 100 + LEEWAY;
        assert_eq!(judge(&known, demanded, end - 1), Ok(()));
        assert_eq!(judge(&known, demanded, end), Err(RevocationError::NoList));
        assert_eq!(judge(&known, RevokedBy::Nothing, end), Ok(()));
    }

    #[test]
    fn only_a_newer_list_of_the_cluster_is_taken() {
        let mut known = known();
        known.learn(&list(1, 5, &[7])).unwrap();
        for serial in [1, 5] {
            assert_eq!(known.learn(&list(1, serial, &[])), Ok(false));
        }
        let of_another = list(9, 6, &[]);
        assert!(matches!(
            known.learn(&of_another),
            Err(ListError::Unproven(_))
        ));
        let changed = [
            RevocationList {
                serial: 6,
                ..list(1, 5, &[])
            },
            RevocationList {
                expires: NOW + 101,
                ..list(1, 6, &[])
            },
            RevocationList {
                nodes: Vec::new(),
                ..list(1, 6, &[7])
            },
        ];
        for list in changed {
            assert!(known.learn(&list).is_err(), "{list:?}");
        }
        let away = Revocations::new("away".parse().unwrap(), key(1).public());
        assert!(away.clone().learn(&list(1, 6, &[])).is_err());
        let long = vec![key(7).public().id(); MAX_REVOKED + 1];
        let long = RevocationList::sign(&home(), (&key(1), &[]), (6, NOW), long);
        assert_eq!(known.learn(&long), Err(ListError::TooLong(257)));
        assert!(known.name(&key(7).public()), "all in vain");
    }

    #[test]
    fn a_list_of_a_newer_cluster_key_is_followed_and_there_is_no_way_back() {
        let mut known = known();
        let rotations = [Rotation::sign(&home(), 1, &key(1), key(2).public())];
        let rotated = RevocationList::sign(&home(), (&key(2), &rotations), (2, NOW), Vec::new());
        assert_eq!(known.learn(&rotated), Ok(true));
        assert!(known.learn(&list(1, 3, &[])).is_err(), "of the old key");
        assert_eq!(known.learn(&list(2, 3, &[])), Ok(true));
    }

    #[test]
    fn the_longest_list_has_the_length_that_is_kept_free_for_it() {
        let rotation = Rotation::sign(&home(), u64::MAX, &key(1), key(2).public());
        let rotations = vec![rotation; rotation::MAX_ROTATIONS];
        let nodes = vec![key(7).public().id(); MAX_REVOKED];
        let ends = (u64::MAX, u64::MAX);
        let longest = RevocationList::sign(&home(), (&key(2), &rotations), ends, nodes);
        assert!(serde_json::to_string(&longest).unwrap().len() <= MAX_LIST);
    }

    #[test]
    fn golden_list() {
        let list = list(1, 2, &[7]);
        let json = serde_json::to_string(&list).unwrap();
        assert_eq!(serde_json::from_str::<RevocationList>(&json).unwrap(), list);
        let id = key(7).public().id();
        let signed = [
            &b"portway/revocations/1\0\0\0\x04home\0\0\0\0\0\0\0\x02"[..],
            &(NOW + 100).to_be_bytes(),
            b"\0\0\0\x0c",
            id.as_str().as_bytes(),
        ];
        let statement = statement(&home(), 2, NOW + 100, &list.nodes);
        assert_eq!(statement.bytes(), signed.concat());
        let damaged = json.replace(id.as_str(), "short");
        assert!(serde_json::from_str::<RevocationList>(&damaged).is_err());
    }
}
