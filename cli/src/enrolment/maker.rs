//! Who makes the certificates of a node that runs here.

use portway_gateway::GatewayHandle;
use portway_gateway::enrolment::renewal::MakeError;
use portway_gateway::enrolment::{Certificate, Enrolled, renewal};
use portway_gateway::state::State;
use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use portway_protocol::token::machine::RevokedBy;

use crate::cluster::Current;

/// Who makes certificates.
#[derive(Debug, Clone)]
pub(crate) enum Maker {
    /// The cluster key is here. How long they live, seconds.
    Cluster(Current, u64),
    /// An issuer elsewhere.
    Issuer(Box<Enrolled>),
}

impl renewal::Maker for Maker {
    async fn make(
        &mut self,
        node: &NodeId,
        key: &SigningKey,
        state: &State,
    ) -> Result<Certificate, MakeError> {
        match self {
            Self::Cluster(current, lifetime) => {
                let cluster = current.get();
                let made = cluster.machine_token(node, key.public(), *lifetime, RevokedBy::List);
                let made = made.map_err(|error| MakeError::Unmade(error.into()))?;
                let keys = (cluster.key.public(), cluster.rotations);
                Ok(Certificate::verify(made.token, &cluster.name, keys)?.0)
            }
            Self::Issuer(enrolled) => enrolled.make(node, key, state).await,
        }
    }

    async fn rotated(&self, certificate: &Certificate, key: &SigningKey, gateway: &GatewayHandle) {
        match self {
            Self::Cluster(current, _) => current.rotated(certificate.cluster_key).await,
            Self::Issuer(enrolled) => enrolled.rotated(certificate, key, gateway).await,
        }
    }
}
