//! Machine tokens: the cluster key says that a node key is a node.

use serde::{Deserialize, Serialize};

use super::verify::{Times, TokenError, TrustedKeys, open};
use super::{Confirmation, issue};
use crate::check::Check;
use crate::id::{ClusterName, NodeId};
use crate::key::SigningKey;

/// Claims of a machine token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineClaims {
    /// Issuer: the cluster.
    pub iss: ClusterName,
    /// Audience: the cluster.
    pub aud: ClusterName,
    /// Subject: the node.
    pub sub: NodeId,
    /// The node.
    pub node_id: NodeId,
    /// The cluster.
    pub cluster_id: ClusterName,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Expires at, seconds since 1970.
    pub exp: u64,
    /// Unique id of the token.
    pub jti: String,
    /// The node key.
    pub cnf: Confirmation,
    /// What takes it back before its end.
    #[serde(default, skip_serializing_if = "RevokedBy::is_nothing")]
    pub revoked_by: RevokedBy,
}

/// What takes a machine token back before its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevokedBy {
    /// A [list] of revoked nodes, if somebody has one.
    ///
    /// [list]: crate::revocation::RevocationList
    #[default]
    Nothing,
    /// The same, and without a list that is in force the token is worth nothing.
    List,
}

impl RevokedBy {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl MachineClaims {
    /// Signs with the cluster key.
    #[must_use]
    pub fn issue(&self, cluster_key: &SigningKey) -> String {
        issue(cluster_key, self)
    }

    /// Checks a token that was presented to `cluster` at `now` (seconds since 1970). The caller
    /// still has to see a proof of `cnf`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(
        token: &str,
        cluster: &ClusterName,
        keys: &TrustedKeys,
        now: u64,
    ) -> Result<Self, TokenError> {
        let claims: Self = open(token, keys)?;
        let times = Times {
            iat: claims.iat,
            exp: claims.exp,
        };
        times.check(now)?;
        for (claim, value) in [
            ("iss", &claims.iss),
            ("aud", &claims.aud),
            ("cluster_id", &claims.cluster_id),
        ] {
            if value != cluster && Check::TokenParties.is_on() {
                return Err(TokenError::WrongParty {
                    claim,
                    expected: cluster.to_string(),
                });
            }
        }
        if claims.sub != claims.node_id {
            return Err(TokenError::WrongParty {
                claim: "sub",
                expected: claims.node_id.to_string(),
            });
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn claims() -> MachineClaims {
        MachineClaims {
            iss: "home".parse().unwrap(),
            aud: "home".parse().unwrap(),
            sub: "nas".parse().unwrap(),
            node_id: "nas".parse().unwrap(),
            cluster_id: "home".parse().unwrap(),
            iat: 1000,
            exp: 2000,
            jti: "1".into(),
            cnf: Confirmation {
                ed25519: key(2).public(),
            },
            revoked_by: RevokedBy::Nothing,
        }
    }

    #[allow(clippy::unwrap_in_result, reason = "names in tests are valid")]
    fn verify(claims: &MachineClaims, now: u64) -> Result<MachineClaims, TokenError> {
        let keys = TrustedKeys::new([key(1).public()]);
        MachineClaims::verify(&claims.issue(&key(1)), &"home".parse().unwrap(), &keys, now)
    }

    #[test]
    fn a_token_of_its_cluster_is_accepted() {
        assert_eq!(verify(&claims(), 1500), Ok(claims()));
    }

    #[test]
    fn a_token_for_another_party_is_refused() {
        let other_aud = MachineClaims {
            aud: "office".parse().unwrap(),
            ..claims()
        };
        let other_iss = MachineClaims {
            iss: "office".parse().unwrap(),
            ..claims()
        };
        let other_sub = MachineClaims {
            sub: "pi".parse().unwrap(),
            ..claims()
        };
        for claims in [other_aud, other_iss, other_sub] {
            assert!(matches!(
                verify(&claims, 1500),
                Err(TokenError::WrongParty { .. })
            ));
        }
    }

    #[test]
    fn an_expired_token_is_refused() {
        assert!(matches!(
            verify(&claims(), 3000),
            Err(TokenError::Expired { .. })
        ));
    }

    #[test]
    fn a_user_token_is_no_machine_token() {
        let keys = TrustedKeys::new([key(1).public()]);
        let token = issue(
            &key(1),
            &serde_json::json!({"iss": "home", "aud": "lab", "sub": "guest", "iat": 1, "exp": 9_999_999_999_u64}),
        );
        assert!(MachineClaims::verify(&token, &"home".parse().unwrap(), &keys, 5).is_err());
    }
}
