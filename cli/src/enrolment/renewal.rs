//! Renews the certificate of a node while its gateway runs, well before it ends.
//!
//! A renewed certificate counts from the next handshake on. Sessions and sockets go on with what they have
//! shown when they began.

use std::time::Duration;

use portway_gateway::GatewayHandle;
use portway_gateway::session::NodeCertificate;
use portway_protocol::backoff::Backoff;
use portway_protocol::enrolment::Invitation;
use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::reason::Reason;
use portway_protocol::rotation::Rotation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::token::{TokenError, TrustedKeys};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::enrolled::Enrolled;
use super::request::RequestError;
use crate::cluster::{Current, made_at};
use crate::exit::Failure;
use crate::links::unix_now;
use crate::state::{State, random_bytes};

/// A certificate is renewed when this part of its life is left: one of three.
const LEFT: u64 = 3;

/// One of which so much less is left is overdue: one of four.
const OVERDUE: u64 = 4;

/// Part of its life by which that is earlier, at random, so that not all come at once: one of twenty.
const SPREAD: u64 = 20;

/// First pause after a failure.
const RETRY_BASE: Duration = Duration::from_secs(1);

/// Longest pause after a failure, and between looks at the clock, which may jump.
const RETRY_CAP: Duration = Duration::from_secs(3600);

/// Time between questions to the issuer what is new: another cluster key, which new links name, so that a node
/// cannot serve them until it has a certificate of it; a list of revoked nodes, if signaling has held it back.
const NEWS_CHECK: Duration = Duration::from_secs(600);

/// A certificate, and its end.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    token: String,
    /// Key that signed it.
    pub(crate) cluster_key: PublicKey,
    /// How that came to be the cluster's.
    rotations: Vec<Rotation>,
    /// Seconds since 1970.
    made: u64,
    pub(crate) expires: u64,
}

/// How a certificate stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// End of the certificate, seconds since 1970.
    pub(crate) expires: u64,
    /// Key that signed it.
    pub(crate) cluster_key: PublicKey,
    pub(crate) renewal: By,
    /// Why the last attempt to renew it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// Who renews a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// This process, by itself.
    Itself,
    /// Whoever made it, by hand.
    Hand,
}

/// Who makes certificates.
#[derive(Debug, Clone)]
pub(crate) enum Maker {
    /// The cluster key is here. How long they live, seconds.
    Cluster(Current, u64),
    /// An issuer elsewhere.
    Issuer(Box<Enrolled>),
}

/// The task, before it runs.
pub(crate) struct Renewal {
    pub(crate) maker: Maker,
    pub(crate) node: NodeId,
    pub(crate) key: SigningKey,
    pub(crate) state: State,
    pub(crate) gateway: GatewayHandle,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) certificate: Certificate,
}

impl Certificate {
    /// One that the cluster key has signed, which came to be that by these rotations.
    pub(crate) fn verify(
        token: String,
        cluster: &ClusterName,
        (key, rotations): (PublicKey, Vec<Rotation>),
    ) -> Result<(Self, MachineClaims), TokenError> {
        let claims = MachineClaims::verify(&token, cluster, &TrustedKeys::new([key]), unix_now())?;
        let certificate = Self {
            token,
            cluster_key: key,
            rotations,
            made: made_at(&claims).min(claims.exp),
            expires: claims.exp,
        };
        Ok((certificate, claims))
    }

    /// When it is to be renewed, seconds since 1970. `random`: 32 uniform bits.
    fn due(&self, random: u32) -> u64 {
        let life = self.expires.saturating_sub(self.made);
        let spread = life / SPREAD * u64::from(random) / u64::from(u32::MAX);
        self.expires - life / LEFT - spread
    }

    /// Whether it should have been renewed long ago. `now`: seconds since 1970.
    pub(crate) const fn is_overdue(&self, now: u64) -> bool {
        let life = self.expires.saturating_sub(self.made);
        self.expires.saturating_sub(now) < life / OVERDUE
    }

    /// What the gateway shows.
    pub(crate) fn shown(&self) -> NodeCertificate {
        NodeCertificate {
            token: self.token.clone(),
            rotations: self.rotations.clone(),
        }
    }

    /// How it stands when nothing has failed.
    pub(crate) const fn standing(&self, renewal: By) -> Standing {
        Standing {
            cluster_key: self.cluster_key,
            expires: self.expires,
            renewal,
            failure: None,
        }
    }
}

impl Maker {
    /// Makes one, or has it made; it is kept where the next start finds it.
    pub(crate) async fn make(
        &mut self,
        node: &NodeId,
        key: &SigningKey,
        state: &State,
    ) -> anyhow::Result<Certificate> {
        let (token, cluster, keys) = match self {
            Self::Cluster(current, lifetime) => {
                let cluster = current.get();
                let made = cluster.machine_token(node, key.public(), *lifetime, RevokedBy::List)?;
                let keys = (cluster.key.public(), cluster.rotations);
                (made.token, cluster.name, keys)
            }
            Self::Issuer(enrolled) => {
                let renewed = enrolled
                    .renew(state, key)
                    .await
                    .map_err(|error| unrenewed(&error))?;
                **enrolled = Enrolled::keep(state, &renewed, enrolled.signaling_ca.clone())?;
                let keys = (renewed.cluster_key, renewed.rotations);
                (renewed.token, renewed.cluster, keys)
            }
        };
        Ok(Certificate::verify(token, &cluster, keys)?.0)
    }

    /// Waits until the cluster has another key than the one that signed this certificate. What it hears of
    /// revoked nodes meanwhile, the gateway learns.
    async fn rotated(&self, certificate: &Certificate, key: &SigningKey, gateway: &GatewayHandle) {
        match self {
            Self::Cluster(current, _) => current.rotated(certificate.cluster_key).await,
            Self::Issuer(enrolled) => loop {
                match enrolled.news(key).await {
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
                    Err(error) => {
                        tracing::debug!(%error, "the issuer did not tell the news")
                    }
                }
                tokio::time::sleep(NEWS_CHECK).await;
            },
        }
    }
}

impl Renewal {
    /// Renews until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = self.keep() => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn keep(mut self) {
        let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
        loop {
            tokio::select! {
                () = until(self.certificate.due(random())) => {}
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
                    let delay = backoff.next_delay(random());
                    let left = self.certificate.expires.saturating_sub(unix_now());
                    let error = format!("{error:#}");
                    tracing::warn!(left_s = left, error, "the certificate was not renewed");
                    self.standing.send_modify(|it| it.failure = Some(error));
                    tokio::time::sleep(delay.max(RETRY_BASE)).await;
                }
            }
        }
    }
}

/// Why, and what to do where waiting does not help.
fn unrenewed(error: &RequestError) -> Failure {
    if error.reason() != Reason::GrantUnknown {
        return error.failure();
    }
    let message = "the issuer does not know this machine any more: it was forgotten, or was away for too long; \
                   join again with a new join token";
    Failure::because(Reason::GrantUnknown, message)
}

/// Waits for a time of the clock, seconds since 1970.
pub(super) async fn until(due: u64) {
    loop {
        let left = Duration::from_secs(due.saturating_sub(unix_now()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(RETRY_CAP)).await;
    }
}

fn random() -> u32 {
    u32::from_ne_bytes(random_bytes())
}

#[cfg(test)]
mod tests {
    use portway_protocol::secret::Secret;

    use super::*;

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left_or_a_little_earlier() {
        const DAY: u64 = 24 * 3600;
        let certificate = Certificate {
            token: String::new(),
            cluster_key: SigningKey::from_seed(&Secret::new([1; 32])).public(),
            rotations: Vec::new(),
            made: 100 * DAY,
            expires: 130 * DAY,
        };
        assert_eq!(certificate.due(0), 120 * DAY);
        assert_eq!(certificate.due(u32::MAX), 118 * DAY + DAY / 2);
        assert!(!certificate.is_overdue(122 * DAY));
        assert!(certificate.is_overdue(123 * DAY));
        let momentary = Certificate {
            made: certificate.expires,
            ..certificate
        };
        assert_eq!(momentary.due(u32::MAX), momentary.expires);
    }
}
