//! Renews the certificate of a node while its gateway runs, well before it ends.
//!
//! A renewed certificate counts from the next handshake on. Sessions and sockets go on with what they have
//! shown when they began.

use std::time::Duration;

use portway_protocol::backoff::Backoff;
use portway_protocol::enrolment::Invitation;
use portway_protocol::id::NodeId;
use portway_protocol::key::SigningKey;
use portway_protocol::reason::Reason;
use portway_protocol::token::TokenError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::certificate::{By, Certificate, Standing};
use super::enrolled::{Enrolled, EnrolledError};
use super::request::RequestError;
use crate::agent::GatewayHandle;
use crate::random::random;
use crate::session::unix_now;
use crate::state::State;

/// First pause after a failure.
const RETRY_BASE: Duration = Duration::from_secs(1);

/// Longest pause after a failure, and between looks at the clock, which may jump.
const RETRY_CAP: Duration = Duration::from_secs(3600);

/// Time between questions to the issuer what is new: another cluster key, which new links name, so that a node
/// cannot serve them until it has a certificate of it; a list of revoked nodes, if signaling has held it back.
const NEWS_CHECK: Duration = Duration::from_secs(600);

/// Who makes the certificates of a node.
pub trait Maker: Send + Sync {
    /// Makes one, or has it made; it is kept where the next start finds it.
    fn make(
        &mut self,
        node: &NodeId,
        key: &SigningKey,
        state: &State,
    ) -> impl Future<Output = Result<Certificate, MakeError>> + Send;

    /// Waits until the cluster has another key than the one that signed this certificate. What it hears of
    /// revoked nodes meanwhile, the gateway learns.
    fn rotated(
        &self,
        certificate: &Certificate,
        key: &SigningKey,
        gateway: &GatewayHandle,
    ) -> impl Future<Output = ()> + Send;
}

/// Why there is no other certificate.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// It was refused for good.
    #[error(
        "the issuer does not know this machine any more: it was forgotten, or was away for too long; join again \
         with a new join token"
    )]
    Forgotten,
    /// The issuer has not answered, or has refused.
    #[error(transparent)]
    Request(RequestError),
    /// It cannot be kept.
    #[error(transparent)]
    Kept(#[from] EnrolledError),
    /// It is none.
    #[error("the certificate: {0}")]
    Token(#[from] TokenError),
    /// Whoever has the cluster key cannot make one.
    #[error(transparent)]
    Unmade(Box<dyn std::error::Error + Send + Sync>),
}

impl From<RequestError> for MakeError {
    fn from(error: RequestError) -> Self {
        if error.reason() == Reason::GrantUnknown {
            Self::Forgotten
        } else {
            Self::Request(error)
        }
    }
}

impl MakeError {
    /// The reason code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Forgotten => Reason::GrantUnknown,
            Self::Request(error) => error.reason(),
            Self::Token(error) => error.reason(),
            Self::Kept(_) | Self::Unmade(_) => Reason::Internal,
        }
    }
}

/// A machine that has joined asks its issuer.
impl Maker for Enrolled {
    async fn make(
        &mut self,
        _node: &NodeId,
        key: &SigningKey,
        state: &State,
    ) -> Result<Certificate, MakeError> {
        let renewed = self.renew(state, key).await?;
        *self = Self::keep(state, &renewed, self.signaling_ca.clone())?;
        let keys = (renewed.cluster_key, renewed.rotations);
        Ok(Certificate::verify(renewed.token, &renewed.cluster, keys)?.0)
    }

    async fn rotated(&self, certificate: &Certificate, key: &SigningKey, gateway: &GatewayHandle) {
        loop {
            match self.news(key).await {
                Ok(Invitation {
                    cluster_key,
                    revocations,
                    ..
                }) => {
                    let learnt = revocations.map(|list| gateway.learn(&list));
                    if let Some(Err(error)) = learnt {
                        tracing::warn!(%error, "the issuer's list of revoked nodes was not taken");
                    }
                    if cluster_key.is_some_and(|newest| newest != certificate.cluster_key) {
                        return;
                    }
                }
                // Who is away for long is noticed when the certificate is due.
                Err(error) => tracing::debug!(%error, "the issuer did not tell the news"),
            }
            tokio::time::sleep(NEWS_CHECK).await;
        }
    }
}

/// The task, before it runs.
pub struct Renewal<M> {
    /// Who makes certificates.
    pub maker: M,
    /// For which node.
    pub node: NodeId,
    /// Its key.
    pub key: SigningKey,
    /// Where they are kept.
    pub state: State,
    /// Who shows them.
    pub gateway: GatewayHandle,
    /// Told to whoever wants to know.
    pub standing: watch::Sender<Standing>,
    /// The present one.
    pub certificate: Certificate,
}

impl<M: Maker> Renewal<M> {
    /// Renews until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = self.keep() => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn keep(mut self) {
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        loop {
            tokio::select! {
                () = until(self.certificate.due(u32::from_ne_bytes(random()))) => {}
                () = self.maker.rotated(&self.certificate, &self.key, &self.gateway) => {}
            }
            match self.maker.make(&self.node, &self.key, &self.state).await {
                Ok(renewed) => {
                    backoff.reset();
                    self.gateway.renew(renewed.cluster_key, renewed.shown());
                    self.standing.send_replace(renewed.standing(By::Itself));
                    tracing::info!(expires = renewed.expires, "the certificate was renewed");
                    self.certificate = renewed;
                    // Even one that lives for a moment only.
                    tokio::time::sleep(RETRY_BASE).await;
                }
                Err(error) => {
                    let delay = backoff.next_delay(u32::from_ne_bytes(random()));
                    let left = self.certificate.expires.saturating_sub(unix_now());
                    let error = error.to_string();
                    tracing::warn!(left_s = left, error, "the certificate was not renewed");
                    self.standing.send_modify(|it| it.failure = Some(error));
                    tokio::time::sleep(delay.max(RETRY_BASE)).await;
                }
            }
        }
    }
}

/// Waits for a time of the clock, seconds since 1970.
pub async fn until(due: u64) {
    loop {
        let left = Duration::from_secs(due.saturating_sub(unix_now()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(RETRY_CAP)).await;
    }
}
