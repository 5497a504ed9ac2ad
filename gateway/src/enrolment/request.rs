//! Asks the issuer for a certificate: a session to its service `enrol`, and a request or two.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use portway_protocol::enrolment::{
    Certificate, CertificateRequest, Invitation, MAX_BODY, NODES_PATH, PATH, Refusal, Vouched,
};
use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::printable::printable;
use portway_protocol::reason::Reason;
use portway_protocol::rotation::{self, Rotation, RotationError};
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::{TokenError, TrustedKeys};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::address::AddressError;
use crate::client::session::RequestBody;
use crate::client::{self, ClientError, Credential, Session, Target};
use crate::proxy::connect::ConnectorError;
use crate::session::unix_now;

/// Time for a session and an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The name that a machine asks for.
#[derive(Debug, Clone)]
pub enum Name {
    /// This one.
    Chosen(NodeId),
    /// That of the join token, or this one if the token leaves it open.
    Proposed(NodeId),
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The address of signaling is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Whom to believe to be signaling cannot be read.
    #[error(transparent)]
    Tls(#[from] ConnectorError),
    /// No session, or it was lost.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It took too long.
    #[error("the issuer did not answer in time")]
    Timeout,
    /// The issuer said no.
    #[error("{}", printable(&.0.message))]
    Refused(Refusal),
    /// The issuer answered something else.
    #[error("the issuer answered with status {0}: is it of this version?")]
    Status(StatusCode),
    /// What it answered is no answer.
    #[error("the issuer's answer: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The certificate is not one for this node key and cluster.
    #[error("the issuer's certificate: {0}")]
    Certificate(#[from] TokenError),
    /// The cluster key has not given way to another as the issuer says.
    #[error("the issuer's keys: {0}")]
    Rotation(#[from] RotationError),
    /// Somebody has shown us the one that we have. Any node of the cluster can answer, and knows it.
    #[error("the issuer's certificate is no newer than the present one")]
    NotNewer,
    /// It is for something else.
    #[error("the issuer's certificate is for another node or key")]
    OtherNode,
}

impl RequestError {
    /// The reason code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Address(_) | Self::Tls(_) => Reason::Internal,
            Self::Client(error) => error.reason(),
            Self::Timeout => Reason::SessionTimeout,
            Self::Refused(refusal) => refusal.reason,
            Self::Status(_) | Self::Malformed(_) => Reason::ProtocolViolation,
            Self::Certificate(_) | Self::Rotation(_) | Self::NotNewer | Self::OtherNode => {
                Reason::TokenInvalid
            }
        }
    }
}

/// Asks what the issuer has to tell without certifying anything.
///
/// # Errors
/// See [`RequestError`].
pub async fn invitation(target: &Target) -> Result<Invitation, RequestError> {
    get(target, PATH).await
}

/// Asks whose key the name of a node stands for.
///
/// # Errors
/// See [`RequestError`].
pub async fn key_of(target: &Target, name: &NodeId) -> Result<PublicKey, RequestError> {
    let vouched: Vouched = get(target, &format!("{NODES_PATH}{name}")).await?;
    let Credential {
        cluster,
        cluster_key,
        ..
    } = &target.address.credential;
    let claims = believed(&vouched.token, cluster, *cluster_key, &vouched.rotations)?;
    if claims.node_id != *name {
        return Err(RequestError::OtherNode);
    }
    Ok(claims.cnf.ed25519)
}

/// Asks for a certificate for a node key. What comes is checked.
///
/// # Errors
/// See [`RequestError`].
pub async fn certificate(
    target: &Target,
    name: Name,
    key: &SigningKey,
) -> Result<Certificate, RequestError> {
    let asked = tokio::time::timeout(TIMEOUT, ask(target, name, key));
    let certificate = asked.await.unwrap_or(Err(RequestError::Timeout))?;
    check(&certificate, &target.address.credential, key)?;
    Ok(certificate)
}

async fn ask(target: &Target, name: Name, key: &SigningKey) -> Result<Certificate, RequestError> {
    let session = client::connect(target).await?;
    let answered = converse(&session, &target.address.credential, name, key).await;
    session.close().await;
    answered
}

async fn converse(
    session: &Session,
    Credential { cluster, grant, .. }: &Credential,
    name: Name,
    key: &SigningKey,
) -> Result<Certificate, RequestError> {
    let node = match name {
        Name::Chosen(node) => node,
        Name::Proposed(node) => {
            let invitation: Invitation =
                exchange(session, (Method::GET, PATH), None::<&()>).await?;
            invitation.node.unwrap_or(node)
        }
    };
    let request = CertificateRequest::new(cluster, grant, node, key);
    exchange(session, (Method::POST, PATH), Some(&request)).await
}

/// Asks in a session of its own.
async fn get<T: DeserializeOwned>(target: &Target, path: &str) -> Result<T, RequestError> {
    let asked = async {
        let session = client::connect(target).await?;
        let told = exchange(&session, (Method::GET, path), None::<&()>).await;
        session.close().await;
        told
    };
    let told = tokio::time::timeout(TIMEOUT, asked).await;
    told.unwrap_or(Err(RequestError::Timeout))
}

/// One request to the issuer.
async fn exchange<T: DeserializeOwned>(
    session: &Session,
    (method, path): (Method, &str),
    body: Option<&impl Serialize>,
) -> Result<T, RequestError> {
    let body = body.map(serde_json::to_vec).transpose()?;
    let body: RequestBody = Full::new(Bytes::from(body.unwrap_or_default()))
        .map_err(|never| match never {})
        .boxed_unsync();
    let request = Request::builder()
        .method(method)
        .uri(format!(
            "http://{}{path}",
            portway_protocol::id::ServiceName::ENROL
        ))
        .header("content-type", "application/json")
        .body(body)
        .expect("its parts are valid");
    let response = session.requests().send(request).await;
    let response = response.map_err(ClientError::from)?;
    let status = response.status();
    let collected = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = collected.map_err(|_| ClientError::Ended)?.to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    match serde_json::from_slice(&body) {
        Ok(refusal) => Err(RequestError::Refused(refusal)),
        Err(_) => Err(RequestError::Status(status)),
    }
}

/// Whether it is what a visitor will believe.
fn check(
    certificate: &Certificate,
    Credential {
        cluster,
        cluster_key,
        ..
    }: &Credential,
    key: &SigningKey,
) -> Result<(), RequestError> {
    let newest = newest(cluster, *cluster_key, &certificate.rotations)?;
    let claims = believed(
        &certificate.token,
        cluster,
        *cluster_key,
        &certificate.rotations,
    )?;
    let is_ours = claims.cnf.ed25519 == key.public()
        && claims.node_id == certificate.node
        && claims.exp == certificate.expires;
    if !is_ours || certificate.cluster != *cluster || certificate.cluster_key != newest {
        return Err(RequestError::OtherNode);
    }
    Ok(())
}

/// The key that rotations lead to.
fn newest(
    cluster: &ClusterName,
    known: PublicKey,
    rotations: &[Rotation],
) -> Result<PublicKey, RotationError> {
    let path = rotation::follow(cluster, known, rotations)?;
    Ok(path.last().copied().unwrap_or(known))
}

/// A machine token, by the newest key of the cluster.
fn believed(
    token: &str,
    cluster: &ClusterName,
    known: PublicKey,
    rotations: &[Rotation],
) -> Result<MachineClaims, RequestError> {
    let keys = TrustedKeys::new([newest(cluster, known, rotations)?]);
    Ok(MachineClaims::verify(token, cluster, &keys, unix_now())?)
}
