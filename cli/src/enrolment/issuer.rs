//! Invites machines and certifies them, where the cluster key is.
//!
//! It stands behind the service `enrol` of its node: requests come over a socket in the state directory, from
//! the gateway of the same process, which has checked the grant and tells its user.
//!
//! Security: who asks is the grant's user: `join:ID` for a join token, `node:NAME` for a node key. Only the
//! issuer makes grants for this service. A join token is good once: it is struck out of the ledger before
//! the answer is sent. Whose answer was lost comes again with the node key, which has a grant by then.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, State as Extracted};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use portway_gateway::GatewayHandle;
use portway_gateway::service::{ServiceSpec, Trust};
use portway_protocol::enrolment::{
    Certificate, CertificateRequest, Invitation, MAX_BODY, NODES_PATH, PATH, Refusal, Vouched,
};
use portway_protocol::id::{ClusterName, GrantId, NodeId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceTarget;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::RevokedBy;
use portway_protocol::token::user::{Devices, UserClaims};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::ledger::{Entries, Invited, Ledger, Member, OVERLAP};
use super::revocation::ListLifetime;
use crate::cluster::{Current, MAX_MACHINE_LIFETIME};
use crate::exit::Failure;
use crate::links::{GrantRequest, Granted, Links, unix_now};
use crate::state::{State, random_bytes};
use portway_gateway::portal::Portal;

/// Name of the socket in the state directory.
pub(crate) const SOCKET: &str = "enrol.sock";

/// How long the word for another node is good for, seconds: it is looked at once.
const VOUCHED_FOR: u64 = 300;

/// How the gateway tells who asks.
const USER_HEADER: &str = "x-portway-user";

/// Who has the cluster key, and a gateway by which machines come.
#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) cluster: Current,
    pub(crate) state: State,
    pub(crate) gateway: GatewayHandle,
    /// Where nodes meet browsers.
    pub(crate) portals: Arc<[Portal]>,
    /// The issuer's own node, whose name is taken.
    pub(crate) node: NodeId,
    /// How long lists of revoked nodes are good for.
    pub(crate) lists: ListLifetime,
}

/// What a join token shall be good for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InvitationRequest {
    /// The only name that the machine may have.
    pub(crate) node: Option<NodeId>,
    /// Of the token, seconds.
    pub(crate) lifetime_s: u64,
    /// Of the node's certificates, seconds.
    pub(crate) certificate_s: u64,
}

/// A join token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JoinToken {
    /// The token: a link.
    pub(crate) token: String,
    /// Its grant.
    pub(crate) id: GrantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeId>,
    pub(crate) expires: u64,
}

/// Who asks for a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Caller {
    /// Who has the join token of this invitation.
    Invited(GrantId),
    /// Who has the key of this node.
    Node(NodeId),
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the join token was used already, or its node was forgotten")]
    NotInvited,
    #[error("this join token is for the node `{0}`: give `--node {0}`")]
    OtherName(NodeId),
    #[error(
        "the name `{0}` belongs to another machine: give another `--node NAME`, or free it where the cluster \
         key is with `portway nodes forget {0}`"
    )]
    Taken(NodeId),
    #[error("the cluster has no node `{0}`: `portway nodes` lists those there are")]
    UnknownNode(NodeId),
    #[error("the node key was not proven")]
    Unproven,
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Issuer {
    /// Makes a join token.
    pub(crate) fn invite(&self, request: InvitationRequest) -> anyhow::Result<JoinToken> {
        if request.certificate_s == 0 || request.certificate_s > MAX_MACHINE_LIFETIME {
            return Err(Failure::configuration("a certificate lives at most 30 days").into());
        }
        let id = GrantId::from_bytes(random_bytes());
        let Granted {
            id: grant,
            link,
            token,
            expires,
        } = self.links()?.issue(&GrantRequest {
            services: vec![permission()],
            user: Caller::Invited(id).to_string(),
            lifetime_s: request.lifetime_s,
            devices: Devices::Any,
        })?;
        let invited = Invited {
            id,
            grant,
            node: request.node.clone(),
            certificate_s: request.certificate_s,
            expires,
        };
        self.gateway.add_grant(token)?;
        self.ledger().change(unix_now(), |entries| {
            entries.invite(invited);
            anyhow::Ok(())
        })?;
        self.offer()?;
        Ok(JoinToken {
            token: link,
            id: grant,
            node: request.node,
            expires,
        })
    }

    /// Offers the service if somebody may come for it.
    pub(crate) fn offer_if_awaited(&self) -> anyhow::Result<()> {
        if self.ledger().read()?.is_awaiting() {
            self.offer()?;
        }
        Ok(())
    }

    /// Whom it has certified.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<Member>> {
        Ok(self.ledger().read()?.nodes().to_vec())
    }

    /// The key of the node of that name, if there is one.
    pub(crate) fn key_of(&self, name: &NodeId) -> anyhow::Result<Option<PublicKey>> {
        if *name == self.node {
            return Ok(Some(self.gateway.node_key()));
        }
        let entries = self.ledger().read()?;
        Ok(entries.node(name).map(|member| member.key))
    }

    /// The cluster's word for that key, to another node.
    fn vouch(&self, caller: &Caller, name: &NodeId) -> Result<Vouched, Refused> {
        if let Caller::Invited(_) = caller {
            return Err(Refused::NotInvited);
        }
        let key = self.key_of(name)?;
        let key = key.ok_or_else(|| Refused::UnknownNode(name.clone()))?;
        let cluster = self.cluster.get();
        let made = cluster.machine_token(name, key, VOUCHED_FOR, RevokedBy::List);
        let made = made.map_err(anyhow::Error::from)?;
        Ok(Vouched {
            token: made.token,
            rotations: cluster.rotations,
        })
    }

    /// Frees a name. Whoever had it is no node any more. `None` if nobody had.
    pub(crate) fn forget(&self, name: &NodeId) -> anyhow::Result<Option<Member>> {
        let forgotten = self
            .ledger()
            .change(unix_now(), |entries| entries.forget(name))?;
        if let Some(grant) = forgotten.as_ref().and_then(|member| member.grant) {
            self.gateway.revoke_grant(&grant)?;
        }
        if forgotten.is_some() {
            self.publish()?;
        }
        Ok(forgotten)
    }

    /// Answers requests until cancelled.
    pub(crate) async fn serve(
        self,
        listener: UnixListener,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let socket = self.state.path(SOCKET);
        let router = Router::new()
            .route(PATH, get(invitation).post(certificate))
            .route(&format!("{NODES_PATH}{{name}}"), get(vouched))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self);
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(cancel.cancelled_owned())
            .await
            .context("the socket of enrolment failed");
        drop(std::fs::remove_file(socket));
        served
    }

    /// By the cluster key. Links go by the first signaling service.
    pub(crate) fn links(&self) -> anyhow::Result<Links> {
        let portal = self.portals.first().context("signaling is configured")?;
        Ok(Links::of_cluster(self.cluster.get(), portal.clone()))
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(self.state.clone())
    }

    fn offer(&self) -> anyhow::Result<()> {
        let name = ServiceName::enrol();
        let services = self.gateway.services();
        if services.iter().any(|service| service.spec.name == name) {
            return Ok(());
        }
        self.gateway.add_service(ServiceSpec {
            name,
            target: ServiceTarget::Unix(std::path::absolute(self.state.path(SOCKET))?),
            trust: Trust::System,
        })?;
        Ok(())
    }

    /// What a caller may ask for.
    fn invitation(&self, caller: &Caller) -> Result<Invitation, Refused> {
        let node = match caller {
            Caller::Invited(id) => {
                let entries = self.ledger().read()?;
                let invited = entries.invitation(id).ok_or(Refused::NotInvited)?;
                invited.node.clone()
            }
            Caller::Node(name) => Some(name.clone()),
        };
        Ok(Invitation {
            node,
            cluster_key: Some(self.cluster.get().key.public()),
            revocations: self.gateway.revocations().get().list().cloned(),
        })
    }

    /// Certifies a key, which has a grant to renew the certificate from then on.
    fn certify(
        &self,
        caller: &Caller,
        request: &CertificateRequest,
    ) -> Result<Certificate, Refused> {
        let now = unix_now();
        let cluster = self.cluster.get();
        let certified = self.ledger().change(now, |entries| {
            let terms = self.judge((entries, &cluster.name), caller, request)?;
            let made = cluster
                .machine_token(
                    &request.node,
                    request.key,
                    terms.certificate_s,
                    RevokedBy::List,
                )
                .map_err(anyhow::Error::from)?;
            let grant = grant_of(&cluster.name, request, now, made.expires);
            let (grant, token) = (grant.jti, grant.issue(&cluster.key));
            let added = self.gateway.add_grant(token);
            added.map_err(anyhow::Error::from)?;
            if let Caller::Invited(id) = caller {
                entries.redeem(id);
            }
            let is_back = entries.certify(Member {
                node: request.node.clone(),
                key: request.key,
                grant: Some(grant),
                certificate_s: terms.certificate_s,
                expires: made.expires,
            });
            Ok::<_, Refused>((terms, made, is_back))
        });
        let (terms, made, is_back) = certified?;
        if is_back {
            self.publish()?;
        }
        if let Some(spent) = terms.spent {
            let revoked = self.gateway.revoke_grant(&spent);
            revoked.map_err(anyhow::Error::from)?;
        }
        tracing::info!(node = %request.node, expires = made.expires, "a node was certified");
        Ok(Certificate {
            cluster: cluster.name,
            cluster_key: cluster.key.public(),
            rotations: cluster.rotations,
            node: request.node.clone(),
            token: made.token,
            expires: made.expires,
            signaling: self.portals.iter().map(ToString::to_string).collect(),
        })
    }

    /// Whether the caller may have what it asks for.
    fn judge(
        &self,
        (entries, cluster): (&Entries, &ClusterName),
        caller: &Caller,
        request: &CertificateRequest,
    ) -> Result<Terms, Refused> {
        let terms = match caller {
            Caller::Invited(id) => {
                let invited = entries.invitation(id).ok_or(Refused::NotInvited)?;
                if let Some(node) = invited.node.as_ref().filter(|it| **it != request.node) {
                    return Err(Refused::OtherName(node.clone()));
                }
                Terms {
                    grant: invited.grant,
                    certificate_s: invited.certificate_s,
                    spent: Some(invited.grant),
                }
            }
            Caller::Node(name) => {
                let member = entries.node(name).ok_or(Refused::NotInvited)?;
                if *name != request.node {
                    return Err(Refused::OtherName(name.clone()));
                }
                if member.key != request.key {
                    return Err(Refused::Taken(name.clone()));
                }
                Terms {
                    grant: member.grant.ok_or(Refused::NotInvited)?,
                    certificate_s: member.certificate_s,
                    spent: None,
                }
            }
        };
        request
            .verify(cluster, &terms.grant)
            .map_err(|_| Refused::Unproven)?;
        let holder = entries.node(&request.node);
        if request.node == self.node || holder.is_some_and(|holder| holder.key != request.key) {
            return Err(Refused::Taken(request.node.clone()));
        }
        Ok(terms)
    }
}

/// What lets a node renew its certificate: a grant of its own key.
fn grant_of(
    cluster: &ClusterName,
    request: &CertificateRequest,
    now: u64,
    expires: u64,
) -> UserClaims {
    UserClaims {
        iss: cluster.clone(),
        aud: vec![ServiceName::enrol()],
        sub: Caller::Node(request.node.clone()).to_string(),
        services: vec![permission()],
        iat: now,
        exp: expires + OVERLAP,
        jti: request.key.grant_id(),
        cnf: Confirmation {
            ed25519: request.key,
        },
        devices: Devices::Any,
    }
}

/// Of a certificate.
struct Terms {
    /// What the request names.
    grant: GrantId,
    /// Lifetime, seconds.
    certificate_s: u64,
    /// What is used up by it.
    spent: Option<GrantId>,
}

/// Prepares the socket of the issuer; nobody answers yet.
pub(crate) async fn bind(state: &State) -> anyhow::Result<UnixListener> {
    let path: &Path = &state.path(SOCKET);
    crate::control::bind(path).await
}

/// What grants for the service allow.
fn permission() -> Permission {
    Permission {
        name: ServiceName::enrol(),
        methods: Some(vec!["GET".to_owned(), "POST".to_owned()]),
        paths: Some(vec![PATH.to_owned(), format!("{NODES_PATH}*")]),
    }
}

type Asked = Extracted<Issuer>;

async fn invitation(
    Extracted(issuer): Asked,
    headers: HeaderMap,
) -> Result<Json<Invitation>, Refused> {
    Ok(Json(issuer.invitation(&caller(&headers)?)?))
}

async fn certificate(
    Extracted(issuer): Asked,
    headers: HeaderMap,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<Certificate>, Refused> {
    let caller = caller(&headers)?;
    // Files are locked and written.
    let certified = tokio::task::spawn_blocking(move || issuer.certify(&caller, &request));
    let certified = certified.await.map_err(anyhow::Error::from)?;
    Ok(Json(certified?))
}

async fn vouched(
    Extracted(issuer): Asked,
    headers: HeaderMap,
    UrlPath(name): UrlPath<NodeId>,
) -> Result<Json<Vouched>, Refused> {
    Ok(Json(issuer.vouch(&caller(&headers)?, &name)?))
}

fn caller(headers: &HeaderMap) -> Result<Caller, Refused> {
    let user = headers.get(USER_HEADER).and_then(|it| it.to_str().ok());
    user.and_then(Caller::of_user).ok_or(Refused::NotInvited)
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invited(id) => write!(f, "join:{id}"),
            Self::Node(name) => write!(f, "node:{name}"),
        }
    }
}

impl Caller {
    /// The caller that a user's name stands for.
    fn of_user(user: &str) -> Option<Self> {
        match user.split_once(':')? {
            ("join", id) => Some(Self::Invited(id.parse().ok()?)),
            ("node", name) => Some(Self::Node(name.parse().ok()?)),
            (_other, _name) => None,
        }
    }
}

impl Refused {
    const fn reason(&self) -> Reason {
        match self {
            Self::NotInvited => Reason::GrantUnknown,
            Self::OtherName(_) => Reason::PermissionDenied,
            Self::Taken(_) => Reason::NodeNameTaken,
            Self::UnknownNode(_) => Reason::NodeUnknown,
            Self::Unproven => Reason::ProofInvalid,
            Self::Failed(_) => Reason::Internal,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotInvited
            | Self::OtherName(_)
            | Self::Taken(_)
            | Self::UnknownNode(_)
            | Self::Unproven => StatusCode::FORBIDDEN,
            Self::Failed(error) => {
                tracing::error!("a node was not certified: {error:#}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let refusal = Refusal {
            reason: self.reason(),
            message: self.to_string(),
        };
        (status, Json(refusal)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_who_the_grant_says() {
        for caller in [
            Caller::Invited(GrantId::from_bytes([7; 9])),
            Caller::Node("office".parse().unwrap()),
        ] {
            assert_eq!(Caller::of_user(&caller.to_string()), Some(caller));
        }
        for user in [
            "",
            "owner",
            "guest",
            "join:",
            "join:office",
            "node:",
            "node:A",
            "x:office",
        ] {
            assert_eq!(Caller::of_user(user), None, "{user}");
        }
    }
}
