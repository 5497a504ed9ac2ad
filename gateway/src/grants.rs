//! Grants: which keys open which services, until when.
//!
//! A grant is a user token that the cluster key signed; its `cnf` is the key that its holder proves.
//! The file holds tokens only. They are no secrets (nobody can use one without the key), but they
//! name people, so the file is private all the same.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portway_protocol::id::{ClusterName, GrantId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::MAX_GRANTS;
use portway_protocol::reason::Reason;
use portway_protocol::signal::AnnouncedGrant;
use portway_protocol::token::TrustedKeys;
use portway_protocol::token::user::UserClaims;
use serde::{Deserialize, Serialize};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrantsError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Too many.
    #[error("a node keeps at most {MAX_GRANTS} grants: revoke some")]
    TooMany,
    /// The token is not one of this cluster.
    #[error("the token was refused: {0}")]
    Token(#[from] portway_protocol::token::TokenError),
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    tokens: Vec<String>,
}

/// A grant and its token.
#[derive(Debug, Clone)]
struct Grant {
    claims: UserClaims,
    token: String,
}

/// All grants of a node.
#[derive(Debug)]
pub struct Grants {
    path: PathBuf,
    cluster: ClusterName,
    keys: TrustedKeys,
    grants: Mutex<BTreeMap<GrantId, Grant>>,
}

impl Grants {
    /// Reads the store, or starts an empty one. Expired grants are dropped.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn open(
        path: &Path,
        cluster: ClusterName,
        key: PublicKey,
        now: u64,
    ) -> Result<Self, GrantsError> {
        let file: File = match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|source| GrantsError::Damaged {
                path: path.to_owned(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
            Err(source) => {
                return Err(GrantsError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let store = Self {
            path: path.to_owned(),
            cluster,
            keys: TrustedKeys::new([key]),
            grants: Mutex::default(),
        };
        for token in file.tokens {
            match store.check(&token, now) {
                Ok(claims) => {
                    store.lock().insert(claims.jti, Grant { claims, token });
                }
                Err(error) => tracing::debug!(%error, "a stored grant is not valid any more"),
            }
        }
        Ok(store)
    }

    /// Adds a token that the cluster key signed.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn add(&self, token: String, now: u64) -> Result<UserClaims, GrantsError> {
        let claims = self.check(&token, now)?;
        let mut grants = self.lock();
        grants.retain(|_, grant| grant.claims.exp > now);
        if grants.len() >= MAX_GRANTS {
            return Err(GrantsError::TooMany);
        }
        let grant = Grant {
            claims: claims.clone(),
            token,
        };
        grants.insert(claims.jti, grant);
        self.save(&grants)?;
        Ok(claims)
    }

    /// Removes a grant; `false` if there was none.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn revoke(&self, id: &GrantId) -> Result<bool, GrantsError> {
        let mut grants = self.lock();
        let existed = grants.remove(id).is_some();
        self.save(&grants)?;
        Ok(existed)
    }

    /// What a grant allows on a service now. `token` may carry a grant that is not in the store.
    ///
    /// # Errors
    /// Why it allows nothing.
    pub fn claims(
        &self,
        id: &GrantId,
        token: Option<&str>,
        service: &ServiceName,
        now: u64,
    ) -> Result<UserClaims, Reason> {
        let stored = self.lock().get(id).map(|grant| grant.token.clone());
        let token = match (&stored, token) {
            (Some(stored), _) => stored,
            (None, Some(presented)) => presented,
            (None, None) => return Err(Reason::GrantUnknown),
        };
        let claims = UserClaims::verify(token, &self.cluster, service, &self.keys, now).map_err(
            |error| {
                let reason = error.reason();
                if reason == Reason::TokenExpired {
                    Reason::GrantExpired
                } else if stored.is_some() {
                    Reason::PermissionDenied
                } else {
                    reason
                }
            },
        )?;
        if claims.jti != *id {
            return Err(Reason::TokenInvalid);
        }
        Ok(claims)
    }

    /// What signaling may know of the grants.
    #[must_use]
    pub fn announced(&self) -> Vec<AnnouncedGrant> {
        self.lock()
            .values()
            .map(|grant| AnnouncedGrant {
                id: grant.claims.jti,
                key: grant.claims.cnf.ed25519,
                services: grant.claims.aud.clone(),
                expires: grant.claims.exp,
            })
            .collect()
    }

    fn check(
        &self,
        token: &str,
        now: u64,
    ) -> Result<UserClaims, portway_protocol::token::TokenError> {
        UserClaims::verify_any_service(token, &self.cluster, &self.keys, now)
    }

    /// Writes a new file beside the old one and puts it in its place.
    fn save(&self, grants: &BTreeMap<GrantId, Grant>) -> Result<(), GrantsError> {
        let file = File {
            version: 1,
            tokens: grants.values().map(|grant| grant.token.clone()).collect(),
        };
        let new = self.path.with_extension("new");
        let write = || {
            let json = serde_json::to_vec_pretty(&file)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)
        };
        write().map_err(|source| GrantsError::Io {
            path: self.path.clone(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GrantId, Grant>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::key::SigningKey;
    use portway_protocol::permission::Permission;
    use portway_protocol::secret::Secret;
    use portway_protocol::token::Confirmation;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn token(expires: u64) -> String {
        let claims = UserClaims {
            iss: "home".parse().unwrap(),
            aud: vec!["lab".parse().unwrap()],
            sub: "guest".into(),
            services: vec![Permission::all("lab".parse().unwrap())],
            iat: 100,
            exp: expires,
            jti: GrantId::from_bytes([7; 9]),
            cnf: Confirmation {
                ed25519: key(2).public(),
            },
        };
        claims.issue(&key(1))
    }

    fn open(path: &Path, now: u64) -> Grants {
        Grants::open(path, "home".parse().unwrap(), key(1).public(), now).unwrap()
    }

    #[test]
    fn a_grant_survives_a_restart_until_it_expires_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let (lab, nas) = ("lab".parse().unwrap(), "nas".parse().unwrap());
        let id = open(&path, 100).add(token(1000), 100).unwrap().jti;

        let store = open(&path, 200);
        assert!(store.claims(&id, None, &lab, 200).is_ok());
        assert_eq!(
            store.claims(&id, None, &nas, 200),
            Err(Reason::PermissionDenied)
        );
        assert_eq!(
            store.claims(&id, None, &lab, 2000),
            Err(Reason::GrantExpired)
        );
        assert!(store.revoke(&id).unwrap());
        assert_eq!(
            open(&path, 200).claims(&id, None, &lab, 200),
            Err(Reason::GrantUnknown)
        );
    }

    #[test]
    fn a_presented_token_must_be_the_cluster_s_and_name_the_grant() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("grants.json"), 100);
        let lab = "lab".parse().unwrap();
        let id = GrantId::from_bytes([7; 9]);
        assert!(store.claims(&id, Some(&token(1000)), &lab, 200).is_ok());
        let other = GrantId::from_bytes([8; 9]);
        assert_eq!(
            store.claims(&other, Some(&token(1000)), &lab, 200),
            Err(Reason::TokenInvalid)
        );
        assert_eq!(
            store.claims(&id, Some("x.y.z"), &lab, 200),
            Err(Reason::TokenInvalid)
        );
    }
}
