//! What a machine keeps that has joined a cluster: everything that `portway gateway` needs.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use portway_protocol::enrolment::{self, Invitation};
use portway_protocol::id::{ClusterName, NodeId, ServiceName};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::rotation::Rotation;
use portway_protocol::token::TokenError;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::request::{self, Name, RequestError};
use crate::client::{Credential, ServiceAddress, Target};
use crate::portal::Portal;
use crate::proxy::connect::tls_config;
use crate::revocations::KnownRevocations;
use crate::service::Trust;
use crate::state::{State, StateError};

/// Files in the state directory.
const FILE: &str = "enrolment.json";
const TOKEN: &str = "machine.token";

/// The only version of the file.
const VERSION: u32 = 1;

/// Why what a machine keeps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnrolledError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It cannot be understood.
    #[error("{path} is damaged: {source}; remove it, and join again with `portway join`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The issuer tells a signaling service whose address is none.
    #[error("the issuer's signaling services: {0}")]
    Portal(String),
    /// The certificate is none, or not any more.
    #[error("the certificate of this machine: {0}")]
    Token(#[from] TokenError),
}

/// A cluster that this machine has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolled {
    version: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// Its key.
    pub cluster_key: PublicKey,
    /// How it came to be that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rotations: Vec<Rotation>,
    /// This machine's name in it.
    pub node: NodeId,
    /// Portals of the signaling services.
    pub signaling: Vec<Portal>,
    /// Authority (PEM) of their certificates, if not the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signaling_ca: Option<PathBuf>,
}

impl Enrolled {
    /// That of the state directory, if this machine has joined a cluster.
    ///
    /// # Errors
    /// See [`EnrolledError`].
    pub fn open(state: &State) -> Result<Option<Self>, EnrolledError> {
        let path = state.path(FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(EnrolledError::Unreadable { path, source }),
        };
        let enrolled = serde_json::from_slice(&json);
        enrolled
            .map(Some)
            .map_err(|source| EnrolledError::Damaged { path, source })
    }

    /// Keeps what an issuer has answered.
    ///
    /// # Errors
    /// See [`EnrolledError`].
    pub fn keep(
        state: &State,
        certificate: &enrolment::Certificate,
        signaling_ca: Option<PathBuf>,
    ) -> Result<Self, EnrolledError> {
        let signaling: Result<Vec<Portal>, String> =
            certificate.signaling.iter().map(|it| it.parse()).collect();
        let enrolled = Self {
            version: VERSION,
            cluster: certificate.cluster.clone(),
            cluster_key: certificate.cluster_key,
            rotations: certificate.rotations.clone(),
            node: certificate.node.clone(),
            signaling: signaling.map_err(EnrolledError::Portal)?,
            signaling_ca,
        };
        if enrolled.signaling.is_empty() {
            return Err(EnrolledError::Portal("there is none".to_owned()));
        }
        let json =
            serde_json::to_vec_pretty(&enrolled).map_err(|source| EnrolledError::Damaged {
                path: state.path(FILE),
                source,
            })?;
        state.replace(TOKEN, format!("{}\n", certificate.token).as_bytes())?;
        state.replace(FILE, &json)?;
        Ok(enrolled)
    }

    /// The certificate that is kept.
    ///
    /// # Errors
    /// See [`EnrolledError`].
    pub fn certificate(&self, state: &State) -> Result<Certificate, EnrolledError> {
        let path = Self::token_file(state);
        let token = fs::read_to_string(&path);
        let token = token.map_err(|source| EnrolledError::Unreadable { path, source })?;
        let keys = (self.cluster_key, self.rotations.clone());
        Ok(Certificate::verify(token.trim().to_owned(), &self.cluster, keys)?.0)
    }

    /// File of the certificate.
    #[must_use]
    pub fn token_file(state: &State) -> PathBuf {
        state.path(TOKEN)
    }

    /// The cluster's portal that is asked first.
    ///
    /// # Panics
    /// Never: there is one.
    #[must_use]
    pub fn portal(&self) -> &Portal {
        self.signaling.first().expect("checked when it was kept")
    }

    /// What opens a service of another node that lets this one in.
    ///
    /// # Errors
    /// If signaling cannot be spoken to.
    pub fn target(&self, service: &ServiceName, key: &SigningKey) -> Result<Target, RequestError> {
        let cluster = (&self.cluster, self.cluster_key);
        let address = ServiceAddress::of_node(self.portal(), cluster, service, key)?;
        self.opened(address, key)
    }

    /// Asks the issuer for another certificate. It has to end later than the one that is kept.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn renew(
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
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn news(&self, key: &SigningKey) -> Result<Invitation, RequestError> {
        self.ask(
            key,
            |target| async move { request::invitation(&target).await },
        )
        .await
    }

    /// Asks the issuer for the key of another node.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn key_of(&self, name: &NodeId, key: &SigningKey) -> Result<PublicKey, RequestError> {
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
                Ok(issuer) => question(issuer).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The issuer's service.
    fn issuer(&self, portal: &Portal, key: &SigningKey) -> Result<Target, RequestError> {
        let credential = Credential {
            cluster: self.cluster.clone(),
            cluster_key: self.cluster_key,
            grant: key.public().grant_id(),
            key: key.clone(),
        };
        let enrol = portal.service(&ServiceName::enrol());
        self.opened(ServiceAddress::new(&enrol, credential)?, key)
    }

    /// The way to what the node key opens.
    fn opened(&self, address: ServiceAddress, key: &SigningKey) -> Result<Target, RequestError> {
        let trust = match &self.signaling_ca {
            Some(file) => Trust::Authority(file.clone()),
            None => Trust::System,
        };
        let revocations = KnownRevocations::new(self.cluster.clone(), self.cluster_key);
        Ok(Target::new(
            address,
            key.clone(),
            &tls_config(&trust)?,
            revocations,
        ))
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
