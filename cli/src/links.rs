//! Links: grants of this cluster with the secret that proves them.

use std::time::Duration;

use portway_protocol::id::{GrantId, ServiceName};
use portway_protocol::key::SigningKey;
use portway_protocol::link::Link;
use portway_protocol::permission::Permission;
use portway_protocol::secret::Secret;
use portway_protocol::token::Confirmation;
use portway_protocol::token::user::UserClaims;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::exit::Failure;
use crate::portal::Portal;
use crate::state::{State, random_bytes, random_secret};

/// How long the link that `up` prints is valid.
pub(crate) const OWNER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest life of any grant.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a grant shall allow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GrantRequest {
    pub(crate) services: Vec<Permission>,
    pub(crate) user: String,
    pub(crate) lifetime_s: u64,
}

/// A grant that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Granted {
    pub(crate) id: GrantId,
    pub(crate) link: String,
    pub(crate) token: String,
    pub(crate) expires: u64,
}

/// Makes grants for one cluster, with links by way of one signaling service. No gateway knows them
/// until it is told the token.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) cluster: Cluster,
    pub(crate) portal: Portal,
}

impl Links {
    /// Issues a grant and returns the link that proves it.
    pub(crate) fn issue(&self, request: &GrantRequest) -> anyhow::Result<Granted> {
        self.issue_with(request, &random_secret())
    }

    /// The owner's own link to a service: the same one until it runs out, so that bookmarks and
    /// open tabs survive a restart.
    pub(crate) fn owner_link(
        &self,
        state: &State,
        service: &ServiceName,
    ) -> anyhow::Result<Granted> {
        let request = GrantRequest {
            services: vec![Permission::all(service.clone())],
            user: "owner".to_owned(),
            lifetime_s: OWNER_LIFETIME.as_secs(),
        };
        let name = format!("link.{service}");
        match state.read_secret(&name)? {
            Some(secret) => self.issue_with(&request, &secret),
            None => {
                let secret = random_secret();
                state.write_secret(&name, &secret)?;
                self.issue_with(&request, &secret)
            }
        }
    }

    fn issue_with(
        &self,
        request: &GrantRequest,
        secret: &Secret<[u8; 32]>,
    ) -> anyhow::Result<Granted> {
        let first = request
            .services
            .first()
            .ok_or_else(|| Failure::configuration("a grant needs a service"))?;
        if request.lifetime_s == 0 || request.lifetime_s > MAX_LIFETIME.as_secs() {
            return Err(Failure::configuration("a grant lives at most 30 days").into());
        }
        let now = unix_now();
        let key = SigningKey::from_link_secret(secret);
        let Cluster {
            name,
            key: cluster_key,
        } = &self.cluster;
        let claims = UserClaims {
            iss: name.clone(),
            aud: request.services.iter().map(|p| p.name.clone()).collect(),
            sub: request.user.clone(),
            services: request.services.clone(),
            iat: now,
            exp: now + request.lifetime_s,
            jti: grant_id(&key),
            cnf: Confirmation {
                ed25519: key.public(),
            },
        };
        let link = Link {
            cluster: name.clone(),
            cluster_key: cluster_key.public(),
            grant: claims.jti,
            secret: secret.clone(),
        };
        Ok(Granted {
            id: claims.jti,
            link: format!("{}/#{link}", self.portal.service(&first.name)),
            token: claims.issue(cluster_key),
            expires: claims.exp,
        })
    }
}

/// A kept secret keeps its grant id, so that re-issuing replaces; a fresh one gets a random id by
/// being random itself.
fn grant_id(key: &SigningKey) -> GrantId {
    let mut id = [0; GrantId::LEN];
    id.copy_from_slice(&key.public().as_bytes()[..GrantId::LEN]);
    // People give ids to commands, where a text that begins with `-` is read as an option.
    const HYPHEN: u8 = 62;
    if id[0] >> 2 == HYPHEN {
        id[0] &= 0x7f;
    }
    GrantId::from_bytes(id)
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// An id for a token that nobody looks up.
pub(crate) fn random_id() -> String {
    portway_protocol::id::encode(&random_bytes::<12>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_id_is_never_taken_for_an_option() {
        let mut changed = 0;
        for seed in 0..=u8::MAX {
            let key = SigningKey::from_link_secret(&Secret::new([seed; 32]));
            let id = grant_id(&key).to_string();
            assert!(!id.starts_with('-'), "{id}");
            let whole = portway_protocol::id::encode(&key.public().as_bytes()[..GrantId::LEN]);
            changed += usize::from(whole != id);
        }
        assert!(changed > 0, "one id of 64 would begin with `-`");
    }
}
