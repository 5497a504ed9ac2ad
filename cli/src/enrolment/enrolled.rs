//! What a machine keeps that has joined a cluster: everything that `portway gateway` needs.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use portway_gateway::StreamRelays;
use portway_gateway::client::{Credential, ServiceAddress, Target};
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::revocations::KnownRevocations;
use portway_gateway::service::Trust;
use portway_protocol::enrolment::{self, Invitation};
use portway_protocol::id::{ClusterName, NodeId, ServiceName};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::rotation::Rotation;
use serde::{Deserialize, Serialize};

use super::renewal::Certificate;
use super::request::{self, Name, RequestError};
use crate::exit::Failure;
use crate::links::grant_id;
use crate::portal::Portal;
use crate::state::State;

/// Files in the state directory.
const FILE: &str = "enrolment.json";
const TOKEN: &str = "machine.token";

/// The only version of the file.
const VERSION: u32 = 1;

/// A cluster that this machine has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolled {
    version: u32,
    pub(crate) cluster: ClusterName,
    pub(crate) cluster_key: PublicKey,
    /// How it came to be that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) node: NodeId,
    /// Portals of the signaling services.
    pub(crate) signaling: Vec<Portal>,
    /// Authority (PEM) of their certificates, if not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signaling_ca: Option<PathBuf>,
}

impl Enrolled {
    /// That of the state directory, if this machine has joined a cluster.
    pub(crate) fn open(state: &State) -> anyhow::Result<Option<Self>> {
        let path = state.path(FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let enrolled = serde_json::from_slice(&json).map_err(|error| {
            Failure::configuration(format!(
                "{} is damaged: {error}; remove it, and join again with `portway join`",
                path.display()
            ))
        })?;
        Ok(Some(enrolled))
    }

    /// Keeps what an issuer has answered.
    pub(crate) fn keep(
        state: &State,
        certificate: &enrolment::Certificate,
        signaling_ca: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let signaling: Result<Vec<Portal>, String> =
            certificate.signaling.iter().map(|it| it.parse()).collect();
        let enrolled = Self {
            version: VERSION,
            cluster: certificate.cluster.clone(),
            cluster_key: certificate.cluster_key,
            rotations: certificate.rotations.clone(),
            node: certificate.node.clone(),
            signaling: signaling.map_err(anyhow::Error::msg)?,
            signaling_ca,
        };
        anyhow::ensure!(
            !enrolled.signaling.is_empty(),
            "the issuer tells no signaling service"
        );
        state.replace(TOKEN, format!("{}\n", certificate.token).as_bytes())?;
        state.replace(FILE, &serde_json::to_vec_pretty(&enrolled)?)?;
        Ok(enrolled)
    }

    /// The certificate that is kept.
    pub(crate) fn certificate(&self, state: &State) -> anyhow::Result<Certificate> {
        let path = Self::token_file(state);
        let token =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let token = token.trim().to_owned();
        let keys = (self.cluster_key, self.rotations.clone());
        Ok(Certificate::verify(token, &self.cluster, keys)?.0)
    }

    /// File of the certificate.
    pub(crate) fn token_file(state: &State) -> PathBuf {
        state.path(TOKEN)
    }

    /// Asks the issuer for another certificate. It has to end later than the one that is kept.
    pub(crate) async fn renew(
        &self,
        state: &State,
        key: &SigningKey,
    ) -> Result<enrolment::Certificate, RequestError> {
        let kept = self.certificate(state).map_or(0, |kept| kept.expires);
        self.ask(key, |target| async move {
            let name = Name::Chosen(self.node.clone());
            let certificate = request::certificate(&target, name, key).await?;
            newer(certificate, kept)
        })
        .await
    }

    /// Asks the issuer for what is new.
    pub(crate) async fn news(&self, key: &SigningKey) -> Result<Invitation, RequestError> {
        self.ask(
            key,
            |target| async move { request::invitation(&target).await },
        )
        .await
    }

    /// Asks the issuer for the key of another node.
    pub(crate) async fn key_of(
        &self,
        name: &NodeId,
        key: &SigningKey,
    ) -> Result<PublicKey, RequestError> {
        self.ask(
            key,
            |target| async move { request::key_of(&target, name).await },
        )
        .await
    }

    /// Asks the issuer something by each signaling service, until one has an answer.
    async fn ask<T, Answer>(
        &self,
        key: &SigningKey,
        question: impl Fn(Target) -> Answer,
    ) -> Result<T, RequestError>
    where
        Answer: Future<Output = Result<T, RequestError>>,
    {
        let mut outcome = Err(RequestError::Timeout);
        for portal in &self.signaling {
            outcome = match self.issuer(portal, key) {
                Ok(target) => question(target).await,
                Err(error) => Err(RequestError::Unprepared(error)),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The issuer's service, which the node key opens.
    fn issuer(&self, portal: &Portal, key: &SigningKey) -> anyhow::Result<Target> {
        let credential = Credential {
            cluster: self.cluster.clone(),
            cluster_key: self.cluster_key,
            grant: grant_id(&key.public()),
            key: key.clone(),
        };
        let address = ServiceAddress::new(&portal.service(&ServiceName::enrol()), credential)?;
        let trust = match &self.signaling_ca {
            Some(file) => Trust::Authority(file.clone()),
            None => Trust::System,
        };
        let tls = tls_config(&trust)?;
        Ok(Target {
            revocations: KnownRevocations::new(self.cluster.clone(), self.cluster_key),
            address,
            node: None,
            device: key.clone(),
            stream_relays: Arc::new(StreamRelays::new(tls.clone())),
            tls: portal.is_secure().then(|| Arc::new(tls)),
        })
    }
}

/// Refuses a certificate that does not end later than `kept`, seconds since 1970.
fn newer(
    certificate: enrolment::Certificate,
    kept: u64,
) -> Result<enrolment::Certificate, RequestError> {
    if certificate.expires <= kept {
        return Err(RequestError::NotNewer);
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use portway_protocol::secret::Secret;

    use super::*;

    #[test]
    fn the_certificate_that_everybody_has_seen_renews_nothing() {
        let certificate = enrolment::Certificate {
            cluster: "home".parse().unwrap(),
            cluster_key: SigningKey::from_seed(&Secret::new([1; 32])).public(),
            rotations: Vec::new(),
            node: "office".parse().unwrap(),
            token: String::new(),
            expires: 1000,
            signaling: Vec::new(),
        };
        assert!(newer(certificate.clone(), 999).is_ok());
        assert!(newer(certificate, 1000).is_err());
    }
}
