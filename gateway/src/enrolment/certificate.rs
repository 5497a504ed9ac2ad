//! A node's certificate, and how it stands.

use portway_protocol::id::ClusterName;
use portway_protocol::key::PublicKey;
use portway_protocol::rotation::Rotation;
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::{TokenError, TrustedKeys};
use serde::{Deserialize, Serialize};

use crate::session::{NodeCertificate, unix_now};

/// A certificate is renewed when this part of its life is left: one of three.
const LEFT: u64 = 3;

/// One of which so much less is left is overdue: one of four.
const OVERDUE: u64 = 4;

/// Part of its life by which that is earlier, at random, so that not all come at once: one of twenty.
const SPREAD: u64 = 20;

/// How long before it is made a machine token begins, seconds: it is shown to visitors, whose clocks may be
/// slow.
pub const BACKDATED: u64 = 24 * 3600;

/// A certificate, and its end.
#[derive(Debug, Clone)]
pub struct Certificate {
    token: String,
    /// Key that signed it.
    pub cluster_key: PublicKey,
    /// How that came to be the cluster's.
    rotations: Vec<Rotation>,
    /// Seconds since 1970.
    made: u64,
    /// Its end, seconds since 1970.
    pub expires: u64,
}

/// How a certificate stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Standing {
    /// End of the certificate, seconds since 1970.
    pub expires: u64,
    /// Key that signed it.
    pub cluster_key: PublicKey,
    /// Who renews it.
    pub renewal: By,
    /// Why the last attempt to renew it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Who renews a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// This process, by itself.
    Itself,
    /// Whoever made it, by hand.
    Hand,
}

impl Certificate {
    /// One that the cluster key has signed, which came to be that by these rotations.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(
        token: String,
        cluster: &ClusterName,
        (key, rotations): (PublicKey, Vec<Rotation>),
    ) -> Result<(Self, MachineClaims), TokenError> {
        let claims = MachineClaims::verify(&token, cluster, &TrustedKeys::new([key]), unix_now())?;
        let certificate = Self {
            token,
            cluster_key: key,
            rotations,
            made: (claims.iat + BACKDATED).min(claims.exp),
            expires: claims.exp,
        };
        Ok((certificate, claims))
    }

    /// When it is to be renewed, seconds since 1970. `random`: 32 uniform bits.
    pub(super) fn due(&self, random: u32) -> u64 {
        let life = self.expires.saturating_sub(self.made);
        let spread = life / SPREAD * u64::from(random) / u64::from(u32::MAX);
        self.expires - life / LEFT - spread
    }

    /// Whether it should have been renewed long ago. `now`: seconds since 1970.
    #[must_use]
    pub const fn is_overdue(&self, now: u64) -> bool {
        let life = self.expires.saturating_sub(self.made);
        self.expires.saturating_sub(now) < life / OVERDUE
    }

    /// What the gateway shows.
    #[must_use]
    pub fn shown(&self) -> NodeCertificate {
        NodeCertificate {
            token: self.token.clone(),
            rotations: self.rotations.clone(),
        }
    }

    /// How it stands when nothing has failed.
    #[must_use]
    pub const fn standing(&self, renewal: By) -> Standing {
        Standing {
            cluster_key: self.cluster_key,
            expires: self.expires,
            renewal,
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::key::SigningKey;
    use portway_protocol::secret::Secret;

    use super::*;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left_or_a_little_earlier() {
        const DAY: u64 = 24 * 3600;
        let certificate = Certificate {
            token: String::new(),
            cluster_key: SigningKey::from_seed(&Secret::new([1; 32])).public(),
            rotations: Vec::new(),
            made: 100 * DAY,
            expires: 130 * DAY,
        };
        assert_eq!(certificate.due(0), 120 * DAY);
        assert_eq!(certificate.due(u32::MAX), 118 * DAY + DAY / 2);
        assert!(!certificate.is_overdue(122 * DAY));
        assert!(certificate.is_overdue(123 * DAY));
        let momentary = Certificate {
            made: certificate.expires,
            ..certificate
        };
        assert_eq!(momentary.due(u32::MAX), momentary.expires);
    }
}
