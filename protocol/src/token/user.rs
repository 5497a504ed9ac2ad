//! User tokens: what a person (or the holder of a link) may open.

use serde::{Deserialize, Serialize};

use super::verify::{Times, TokenError, TrustedKeys, open};
use super::{Confirmation, issue};
use crate::id::{ClusterName, GrantId, ServiceName};
use crate::key::SigningKey;
use crate::permission::Permission;

/// Claims of a user token. Its `jti` names the grant; its `cnf` is the grant or device key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserClaims {
    /// Issuer: the cluster.
    pub iss: ClusterName,
    /// Audience: the services that it is for.
    pub aud: Vec<ServiceName>,
    /// Subject: the user.
    pub sub: String,
    /// Permissions; one entry for each service of `aud`.
    pub services: Vec<Permission>,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Expires at, seconds since 1970.
    pub exp: u64,
    /// The grant.
    pub jti: GrantId,
    /// The key whose possession the holder proves.
    pub cnf: Confirmation,
    /// Which devices may use it.
    #[serde(default, skip_serializing_if = "Devices::is_any")]
    pub devices: Devices,
}

/// Which devices a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Devices {
    /// All on which its key is known.
    #[default]
    Any,
    /// The first that redeems it, and no other after.
    First,
}

impl Devices {
    const fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }
}

impl UserClaims {
    /// Signs with the cluster key, or that of a node for its own services.
    #[must_use]
    pub fn issue(&self, issuer: &SigningKey) -> String {
        issue(issuer, self)
    }

    /// Checks a token that was presented for `service` at `now` (seconds since 1970). The caller
    /// still has to see a proof of `cnf`.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify(
        token: &str,
        cluster: &ClusterName,
        service: &ServiceName,
        keys: &TrustedKeys,
        now: u64,
    ) -> Result<Self, TokenError> {
        let claims = Self::verify_any_service(token, cluster, keys, now)?;
        if !claims.aud.contains(service) {
            return Err(TokenError::WrongParty {
                claim: "aud",
                expected: service.to_string(),
            });
        }
        Ok(claims)
    }

    /// As [`UserClaims::verify`], for one who keeps the token rather than acts on it.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_any_service(
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
        if claims.iss != *cluster {
            return Err(TokenError::WrongParty {
                claim: "iss",
                expected: cluster.to_string(),
            });
        }
        Ok(claims)
    }

    /// What the token allows on `service`.
    #[must_use]
    pub fn permission(&self, service: &ServiceName) -> Option<&Permission> {
        self.services.iter().find(|p| p.name == *service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn claims() -> UserClaims {
        UserClaims {
            iss: "home".parse().unwrap(),
            aud: vec!["lab".parse().unwrap()],
            sub: "guest".into(),
            services: vec![Permission::all("lab".parse().unwrap())],
            iat: 1000,
            exp: 2000,
            jti: GrantId::from_bytes([1; 9]),
            cnf: Confirmation {
                ed25519: key(2).public(),
            },
            devices: Devices::Any,
        }
    }

    #[allow(clippy::unwrap_in_result, reason = "names in tests are valid")]
    fn verify(claims: &UserClaims, service: &str, now: u64) -> Result<UserClaims, TokenError> {
        let keys = TrustedKeys::new([key(1).public()]);
        let cluster = "home".parse().unwrap();
        UserClaims::verify(
            &claims.issue(&key(1)),
            &cluster,
            &service.parse().unwrap(),
            &keys,
            now,
        )
    }

    #[test]
    fn a_token_opens_its_own_service_only() {
        assert_eq!(verify(&claims(), "lab", 1500), Ok(claims()));
        assert!(matches!(
            verify(&claims(), "nas", 1500),
            Err(TokenError::WrongParty { claim: "aud", .. })
        ));
    }

    #[test]
    fn an_expired_token_says_so() {
        let error = verify(&claims(), "lab", 2031).unwrap_err();
        assert_eq!(error.reason(), crate::reason::Reason::TokenExpired);
    }

    #[test]
    fn golden_claims() {
        let json = serde_json::to_string(&claims()).unwrap();
        assert_eq!(
            json,
            r#"{"iss":"home","aud":["lab"],"sub":"guest","services":[{"name":"lab"}],"iat":1000,"exp":2000,"jti":"AQEBAQEBAQEB","cnf":{"ed25519":"gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q"}}"#
        );
        let once = UserClaims {
            devices: Devices::First,
            ..claims()
        };
        let written = serde_json::to_string(&once).unwrap();
        assert_eq!(written, json.replace("\"}}", "\"},\"devices\":\"first\"}"));
        assert_eq!(serde_json::from_str::<UserClaims>(&written).unwrap(), once);
    }

    #[test]
    fn a_bound_that_is_not_known_is_no_token() {
        let keys = TrustedKeys::new([key(1).public()]);
        let mut claims = serde_json::to_value(claims()).unwrap();
        claims["devices"] = "two".into();
        let token = issue(&key(1), &claims);
        let read = UserClaims::verify_any_service(&token, &"home".parse().unwrap(), &keys, 1500);
        assert_eq!(read, Err(TokenError::Malformed("claims")));
    }
}
