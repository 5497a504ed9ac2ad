//! Links: grants with the secret that proves them, made by the cluster key or by a node for its own services.

use std::time::Duration;

use portway_protocol::id::{ClusterName, GrantId, NodeId, ServiceName};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::link::Link;
use portway_protocol::permission::Permission;
use portway_protocol::secret::Secret;
use portway_protocol::token::Confirmation;
use portway_protocol::token::user::{Devices, UserClaims};
use serde::{Deserialize, Serialize};

use crate::args::Terms;
use crate::cluster::Cluster;
use crate::exit::Failure;
use crate::state::{State, random_bytes, random_secret};
use portway_gateway::portal::Portal;

/// How long the link that `up` prints is valid.
pub(crate) const OWNER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest life of a grant to whoever has a link.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest life of a grant to a node: it ends with the node, too.
pub(crate) const MAX_NODE_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);

/// What a grant shall allow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GrantRequest {
    pub(crate) services: Vec<Permission>,
    pub(crate) user: String,
    pub(crate) lifetime_s: u64,
    pub(crate) devices: Devices,
}

/// What a node of the cluster shall be allowed, by its own key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeGrantRequest {
    pub(crate) node: NodeId,
    pub(crate) service: Permission,
    pub(crate) lifetime_s: u64,
}

impl NodeGrantRequest {
    /// Refuses what would last too long, or is for a service of machines: its issuer alone makes grants for that.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.lifetime_s == 0 || self.lifetime_s > MAX_NODE_LIFETIME.as_secs() {
            return Err(Failure::configuration(
                "a grant to a node lives at most 366 days",
            ));
        }
        require_people([&self.service])
    }
}

/// A grant to a node that was made. There is no link: the node has its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeGranted {
    pub(crate) id: GrantId,
    pub(crate) expires: u64,
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
    pub(crate) cluster: ClusterName,
    /// What links pin.
    pub(crate) cluster_key: PublicKey,
    /// Signs the grants: the cluster key, or the key of the one node that shall believe them.
    pub(crate) issuer: SigningKey,
    pub(crate) portal: Portal,
}

impl GrantRequest {
    /// The same terms for each of the services.
    pub(crate) fn new<'a>(
        services: impl IntoIterator<Item = &'a ServiceName>,
        terms: &Terms,
    ) -> Self {
        Self {
            services: services
                .into_iter()
                .map(|name| terms.permission(name))
                .collect(),
            user: terms.user.clone(),
            lifetime_s: terms.lifetime().as_secs(),
            devices: terms.devices(),
        }
    }

    /// The service, where only one can be meant.
    pub(crate) fn only_service(&self) -> Result<&ServiceName, Failure> {
        match self.services.as_slice() {
            [only] => Ok(&only.name),
            [] | [_, ..] => Err(Failure::configuration("a pairing is for one service")),
        }
    }

    /// Refuses what would last too long.
    pub(crate) fn require_lifetime(&self) -> Result<(), Failure> {
        if self.lifetime_s == 0 || self.lifetime_s > MAX_LIFETIME.as_secs() {
            return Err(Failure::configuration("a grant lives at most 30 days"));
        }
        Ok(())
    }

    /// Refuses what is for a service of machines: its issuer alone makes grants for that.
    pub(crate) fn require_people(&self) -> Result<(), Failure> {
        require_people(&self.services)
    }
}

fn require_people<'a>(services: impl IntoIterator<Item = &'a Permission>) -> Result<(), Failure> {
    match services.into_iter().find(|it| it.name.is_internal()) {
        Some(permission) => {
            let message = format!("`{}` is no service for people", permission.name);
            Err(Failure::configuration(message))
        }
        None => Ok(()),
    }
}

impl Links {
    /// Those of whoever has the cluster key.
    pub(crate) fn of_cluster(cluster: Cluster, portal: Portal) -> Self {
        Self {
            cluster: cluster.name,
            cluster_key: cluster.key.public(),
            issuer: cluster.key,
            portal,
        }
    }

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
            devices: Devices::Any,
        };
        let name = owner_link_file(service);
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
        let key = SigningKey::from_link_secret(secret).public();
        // A kept secret keeps its id, so that re-issuing replaces; a fresh one is random itself.
        let id = key.grant_id();
        let (token, expires) = self.issue_to(request, id, key)?;
        let link = Link {
            cluster: self.cluster.clone(),
            cluster_key: self.cluster_key,
            grant: id,
            secret: secret.clone(),
        };
        Ok(Granted {
            id,
            link: format!("{}/#{link}", self.portal.service(&first.name)),
            token,
            expires,
        })
    }

    /// Issues a grant to whoever has that key; returns its token, and when it ends in seconds since 1970.
    pub(crate) fn issue_to(
        &self,
        request: &GrantRequest,
        id: GrantId,
        key: PublicKey,
    ) -> anyhow::Result<(String, u64)> {
        request.require_lifetime()?;
        let now = unix_now();
        let claims = UserClaims {
            iss: self.cluster.clone(),
            aud: request.services.iter().map(|p| p.name.clone()).collect(),
            sub: request.user.clone(),
            services: request.services.clone(),
            iat: now,
            exp: now + request.lifetime_s,
            jti: id,
            cnf: Confirmation { ed25519: key },
            devices: request.devices,
        };
        Ok((claims.issue(&self.issuer), claims.exp))
    }
}

/// Forgets the owner's link to one of the services, if it is this one: the next start makes another.
pub(crate) fn forget_owner_link(
    state: &State,
    services: &[Permission],
    id: &GrantId,
) -> anyhow::Result<()> {
    for service in services {
        let name = owner_link_file(&service.name);
        if let Some(secret) = state.read_secret(&name)?
            && SigningKey::from_link_secret(&secret).public().grant_id() == *id
        {
            std::fs::remove_file(state.path(&name))?;
        }
    }
    Ok(())
}

/// File in the state directory with the secret of the owner's link to a service.
fn owner_link_file(service: &ServiceName) -> String {
    format!("link.{service}")
}

/// An id for a grant whose key is not known yet.
pub(crate) fn random_grant_id() -> GrantId {
    GrantId::typeable(random_bytes())
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
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
            let id = key.public().grant_id().to_string();
            assert!(!id.starts_with('-'), "{id}");
            let whole = portway_protocol::id::encode(&key.public().as_bytes()[..GrantId::LEN]);
            changed += usize::from(whole != id);
        }
        assert!(changed > 0, "one id of 64 would begin with `-`");
    }
}
