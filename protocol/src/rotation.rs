//! A cluster key that takes the place of another.
//!
//! The old key says so: {cluster, serial, old, new}, signed. Whoever has pinned the old one, from a link or
//! a first visit, follows these statements to the newest. Nodes show them with their certificates, so nobody
//! has to be told.
//!
//! Security: each link of the chain is signed by the key before it, and serials rise, so that no statement
//! leads back to a key that was given up. A key that was stolen can still sign a statement of its own: who
//! has not followed the owner's yet cannot tell the two apart.

use serde::{Deserialize, Serialize};

use crate::id::ClusterName;
use crate::key::{KeyError, PublicKey, Signature, SigningKey};
use crate::transcript::Transcript;

/// Longest chain that is looked at: what a handshake message has room for.
pub const MAX_ROTATIONS: usize = 8;

/// One key takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Rises by each.
    pub serial: u64,
    /// The key that was believed until then.
    pub old: PublicKey,
    /// The one that is believed from then on.
    pub new: PublicKey,
    /// By the old one.
    proof: Signature,
}

/// Why a chain leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// Longer than [`MAX_ROTATIONS`].
    #[error("a chain of {0} cluster keys")]
    TooLong(usize),
    /// Its serial does not rise.
    #[error("rotation {0} comes after one that is as new")]
    Serial(u64),
    /// The old key has not signed it.
    #[error("rotation {serial}: {source}")]
    Unproven {
        /// Which one.
        serial: u64,
        /// Why.
        source: KeyError,
    },
}

impl Rotation {
    /// The old key gives way to the new one.
    #[must_use]
    pub fn sign(cluster: &ClusterName, serial: u64, old: &SigningKey, new: PublicKey) -> Self {
        let statement = statement(cluster, serial, &old.public(), &new);
        Self {
            serial,
            old: old.public(),
            new,
            proof: old.sign(statement.bytes()),
        }
    }

    fn verify(&self, cluster: &ClusterName) -> Result<(), RotationError> {
        let statement = statement(cluster, self.serial, &self.old, &self.new);
        let verified = self.old.verify(statement.bytes(), &self.proof);
        verified.map_err(|source| RotationError::Unproven {
            serial: self.serial,
            source,
        })
    }
}

/// What is signed.
fn statement(cluster: &ClusterName, serial: u64, old: &PublicKey, new: &PublicKey) -> Transcript {
    Transcript::new("portway/rotation/1")
        .field(cluster.as_str().as_bytes())
        .fixed(&serial.to_be_bytes())
        .fixed(old.as_bytes())
        .fixed(new.as_bytes())
}

/// The keys to which a chain leads from one that is believed: itself first, the newest last. What comes
/// before it in the chain is not looked at.
///
/// # Errors
/// See [`RotationError`]: a chain that is wrong where it is followed is no chain at all.
pub fn follow(
    cluster: &ClusterName,
    pinned: PublicKey,
    chain: &[Rotation],
) -> Result<Vec<PublicKey>, RotationError> {
    if chain.len() > MAX_ROTATIONS {
        return Err(RotationError::TooLong(chain.len()));
    }
    let mut keys = vec![pinned];
    let mut last: Option<u64> = None;
    for rotation in chain {
        if keys.last() != Some(&rotation.old) {
            continue;
        }
        if last.is_some_and(|last| rotation.serial <= last) {
            return Err(RotationError::Serial(rotation.serial));
        }
        rotation.verify(cluster)?;
        last = Some(rotation.serial);
        keys.push(rotation.new);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn home() -> ClusterName {
        "home".parse().unwrap()
    }

    /// Keys 1 to 4, one after the other.
    fn chain() -> Vec<Rotation> {
        let step = |at: u8| Rotation::sign(&home(), at.into(), &key(at), key(at + 1).public());
        (1..4).map(step).collect()
    }

    fn from(seed: u8, chain: &[Rotation]) -> Result<Vec<PublicKey>, RotationError> {
        follow(&home(), key(seed).public(), chain)
    }

    #[test]
    fn every_key_of_a_chain_leads_to_the_newest() {
        for begin in 1..=4 {
            let expected: Vec<_> = (begin..=4).map(|seed| key(seed).public()).collect();
            assert_eq!(from(begin, &chain()), Ok(expected));
        }
        assert_eq!(from(9, &chain()), Ok(vec![key(9).public()]), "a stranger");
    }

    #[test]
    fn nobody_else_makes_a_chain() {
        let mut forged = chain();
        forged[1].new = key(9).public();
        assert!(matches!(
            from(1, &forged),
            Err(RotationError::Unproven { serial: 2, .. })
        ));
        assert!(
            from(3, &forged).is_ok(),
            "what comes before is not looked at"
        );
        let away = follow(&"away".parse().unwrap(), key(1).public(), &chain());
        assert!(away.is_err(), "of another cluster");
    }

    #[test]
    fn no_statement_leads_back() {
        let mut back = chain();
        back.push(Rotation::sign(&home(), 3, &key(4), key(1).public()));
        assert_eq!(from(1, &back), Err(RotationError::Serial(3)));
        let long = vec![chain()[0].clone(); MAX_ROTATIONS + 1];
        assert_eq!(from(1, &long), Err(RotationError::TooLong(9)));
    }

    #[test]
    fn golden_statement() {
        let rotation = Rotation::sign(&home(), 1, &key(1), key(2).public());
        let json = serde_json::to_string(&rotation).unwrap();
        assert_eq!(serde_json::from_str::<Rotation>(&json).unwrap(), rotation);
        let signed = [
            &b"portway/rotation/1\0\0\0\x04home\0\0\0\0\0\0\0\x01"[..],
            rotation.old.as_bytes(),
            rotation.new.as_bytes(),
        ];
        let statement = statement(&home(), 1, &rotation.old, &rotation.new);
        assert_eq!(statement.bytes(), signed.concat());
    }
}
