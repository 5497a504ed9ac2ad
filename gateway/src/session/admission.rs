//! Who is let in: the gateway's side of the handshake, to a new session or one that goes on.

use std::sync::Arc;

use portway_protocol::id::{GrantId, Nonce, ServiceName, SessionId};
use portway_protocol::key::PublicKey;
use portway_protocol::lane::MaxMessage;
use portway_protocol::limits::HANDSHAKE_TIMEOUT;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::session::binding::Binding;
use portway_protocol::session::handshake::{self, Accepted, Claim, HandshakeError};
use portway_protocol::session::party::Node;
use portway_protocol::session::resumption::ResumptionKey;
use portway_protocol::target::ServiceKind;
use portway_protocol::token::user::UserClaims;
use portway_transport::{Channel, Closed, Path};
use tokio::sync::mpsc;

use super::Context;
use super::table::{Attachment, Claimed, Entry, Registered};
use crate::random::random;
use crate::service::Service;

/// Channels that may wait for a session.
const ATTACHMENTS: usize = 4;

/// Why nobody was let in.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The other end broke the handshake.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// The channel closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The client was turned away.
    #[error("refused: {0}")]
    Refused(Reason),
}

/// Whoever is let in.
pub(super) struct Admitted {
    /// By what signaling knows their channel.
    pub(super) introduction: SessionId,
    pub(super) purpose: Purpose,
}

/// What a channel is for.
pub(super) enum Purpose {
    New(Session),
    Resumed(Arc<Entry>),
}

/// A new session.
pub(super) struct Session {
    pub(super) registered: Registered,
    pub(super) attachments: mpsc::Receiver<Attachment>,
    pub(super) permission: Permission,
    pub(super) service: Arc<Service>,
    /// User token, if the gateway cannot know the grant.
    pub(super) token: Option<String>,
    /// What the client takes.
    pub(super) max_message: MaxMessage,
}

/// What somebody asks for, as far as they have said it.
#[derive(Default)]
struct Asked(Option<(ServiceName, GrantId)>);

/// Runs the handshake with whoever comes by a path. Who is turned away is told why.
pub(super) async fn admit(
    context: &Arc<Context>,
    channel: &dyn Channel,
    binding: Binding,
    path: Option<Path>,
) -> Result<Admitted, SessionError> {
    let mut asked = Asked::default();
    let conversation = converse(context, channel, binding, &mut asked);
    let admitted = tokio::time::timeout(HANDSHAKE_TIMEOUT, conversation)
        .await
        .unwrap_or(Err(SessionError::Timeout));
    if let Err(error) = &admitted
        && let Some(reason) = refusal(error)
    {
        let (service, grant) = asked.0.unzip();
        context.audit.refused(service, grant, reason, path);
        let said = channel.send(handshake::refused(reason).into()).await;
        if said.is_ok() {
            // The client closes once it has read why.
            while channel.recv().await.is_some() {}
        }
    }
    admitted
}

async fn converse(
    context: &Arc<Context>,
    channel: &dyn Channel,
    binding: Binding,
    asked: &mut Asked,
) -> Result<Admitted, SessionError> {
    let first = channel.recv().await.ok_or(Closed)?;
    let nonce = Nonce::from_bytes(random());
    let identity = &context.identity;
    let certificate = identity.certificate();
    let node = Node {
        cluster: &identity.cluster,
        id: &identity.node,
        certificate: certificate.shown(),
        key: &identity.key,
    };
    let (reply, handshake) = handshake::hello(&first, &node, nonce, binding)?;
    channel.send(reply.into()).await?;
    let proof = channel.recv().await.ok_or(Closed)?;
    let claim = handshake.receive(&proof)?;
    asked.0 = Some((claim.service.clone(), claim.grant));
    let judged = judge(context, claim).await;
    let (admitted, verdict) = judged.map_err(SessionError::Refused)?;
    channel.send(handshake::accepted(&verdict).into()).await?;
    Ok(admitted)
}

/// Believes a claim or not. The proof is checked before anything about services is revealed.
async fn judge(context: &Arc<Context>, claim: Claim) -> Result<(Admitted, Accepted), Reason> {
    let token = claim.token.as_deref();
    let claims = context.claims(&claim.grant, token, &claim.service)?;
    let known = match claim.resumes {
        Some(session) => Some(context.table.get(&session).ok_or(Reason::SessionLost)?),
        None => None,
    };
    claim
        .verify(&claims.cnf.ed25519, known.as_deref().map(Entry::key))
        .map_err(|_| Reason::ProofInvalid)?;
    let permission = claims
        .permission(&claim.service)
        .ok_or(Reason::PermissionDenied)?
        .clone();
    let introduction = claim.session;
    let purpose = match known {
        Some(entry) => {
            let claimed = entry.claimed();
            if claimed.grant != claim.grant
                || claimed.service != claim.service
                || claimed.device != claim.device
            {
                return Err(Reason::PermissionDenied);
            }
            Purpose::Resumed(entry)
        }
        None => {
            let device = claim.device;
            let session = begin(context, &claims.sub, permission.clone(), claim)?;
            redeem(context, &claims, device).await?;
            Purpose::New(session)
        }
    };
    let (key, kind) = match &purpose {
        Purpose::New(session) => (session.registered.key(), session.service.spec.target.kind()),
        // It was told when the session began.
        Purpose::Resumed(entry) => (entry.key(), ServiceKind::default()),
    };
    let verdict = Accepted {
        user: claims.sub,
        expires: claims.exp,
        services: vec![permission],
        resumption: key.clone(),
        kind,
        max_message: MaxMessage::Native,
    };
    let admitted = Admitted {
        introduction,
        purpose,
    };
    Ok((admitted, verdict))
}

/// Only a grant for the first device has something to write.
async fn redeem(
    context: &Arc<Context>,
    claims: &UserClaims,
    device: PublicKey,
) -> Result<(), Reason> {
    let (context, claims) = (context.clone(), claims.clone());
    let redeemed =
        tokio::task::spawn_blocking(move || context.grants.redeem(&claims, device)).await;
    redeemed.unwrap_or(Err(Reason::Internal))
}

fn begin(
    context: &Context,
    user: &str,
    permission: Permission,
    claim: Claim,
) -> Result<Session, Reason> {
    let service = context
        .services
        .get(&claim.service)
        .ok_or(Reason::ServiceUnknown)?;
    let claimed = Claimed {
        session: claim.session,
        user: user.to_owned(),
        service: claim.service,
        grant: claim.grant,
        device: claim.device,
    };
    let (attach, attachments) = mpsc::channel(ATTACHMENTS);
    let key = ResumptionKey::from_bytes(random());
    Ok(Session {
        registered: context.table.insert(Entry::new(claimed, key, attach))?,
        attachments,
        permission,
        service,
        token: claim.token,
        max_message: claim.max_message,
    })
}

fn refusal(error: &SessionError) -> Option<Reason> {
    match error {
        SessionError::Handshake(error) => Some(error.reason()),
        SessionError::Refused(reason) => Some(*reason),
        SessionError::Timeout => Some(Reason::SessionTimeout),
        SessionError::Closed(_) => None,
    }
}
