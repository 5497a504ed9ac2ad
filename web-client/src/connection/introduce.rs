//! From an offer to the gateway's verdict: for a new session, or for another channel of one.

use std::rc::Rc;

use portway_protocol::id::{NodeId, SessionId};
use portway_protocol::reason::Reason;
use portway_protocol::revocation::{RevocationList, Revocations};
use portway_protocol::session::binding::Fingerprint;
use portway_protocol::session::introduction;
use portway_protocol::session::resumption::Resumption;
use portway_protocol::signal::{
    Answer, Bye, Candidate, Envelope, NodeStatus, Offer, Params as _, Presence, SessionDescription,
    SignalError,
};
use tokio::sync::mpsc;

use super::holder::{FromHolder, Held, ToHolder};
use super::{Event, Inner};
use crate::error::Failure;
use crate::session::{self, Certificates, Identity, Reached, Unreached, Visit};
use crate::signaling::Signaling;

/// Whose offers and answers are passed on.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    /// As signaling knows it.
    pub(super) session: SessionId,
    /// The node wanted; any that offers the service if there is none.
    pub(super) node: Option<NodeId>,
}

impl Introduction {
    /// What we want, in the words of the protocol.
    fn asked<'a>(&'a self, identity: &'a Identity) -> introduction::Introduction<'a> {
        introduction::Introduction {
            cluster: &identity.cluster,
            service: &identity.service,
            node: self.node.as_ref(),
            session: self.session,
        }
    }

    fn offer(
        &self,
        identity: &Identity,
        description: SessionDescription,
    ) -> Result<Envelope, Failure> {
        let refused = |error| Failure::with(Reason::E2eAuthFailed, error);
        let own = Fingerprint::of_description(&description.sdp).map_err(refused)?;
        let offer = Offer {
            session: self.session,
            service: identity.service.clone(),
            node: self.node.clone(),
            grant: None,
            description,
            proof: self
                .asked(identity)
                .sign_offer((&identity.grant, &identity.key), &own),
            ice_servers: Vec::new(),
        };
        Ok(Envelope::of(Some("offer".into()), &offer))
    }

    /// Whether a node of the cluster has answered this very offer.
    fn verify(
        &self,
        answer: &Answer,
        identity: &Identity,
        certificates: &Certificates,
        revocations: &Revocations,
    ) -> Result<(), Failure> {
        let trust = identity.trust(self.node.as_ref(), certificates, revocations)?;
        let verified = self.asked(identity).verify_answer(answer, &trust);
        verified.map_err(|error| Failure::with(error.reason(), error))
    }
}

/// A handshake under way.
type Opening = std::pin::Pin<Box<dyn Future<Output = Result<Reached, Unreached>>>>;

/// Exchanges descriptions and candidates until the gateway has let us in.
pub(super) async fn introduce<'a>(
    inner: &'a Inner,
    signaling: &mut Signaling,
    events: &mut mpsc::Receiver<Event>,
    introduction: Introduction,
    resumption: Option<Resumption>,
) -> Result<(Held<'a>, Reached), Unreached> {
    let session = introduction.session;
    let held = Held::open(inner, session, &signaling.ice_servers);
    let certificates = Rc::new(Certificates::default());
    let mut opening: Option<Opening> = None;
    loop {
        let opened = async {
            match &mut opening {
                Some(opening) => opening.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reached = opened => return Ok((held, reached?)),
            event = events.recv() => match event {
                Some(Event::Channel(of, channel)) if of == session => {
                    let identity = inner.identity.clone();
                    let visit = Visit {
                        channel,
                        session,
                        node: introduction.node.clone(),
                        certificates: certificates.clone(),
                        resumption: resumption.clone(),
                        revocations: inner.revocations.borrow().clone(),
                    };
                    opening = Some(Box::pin(async move { session::reach(visit, &identity).await }));
                }
                Some(Event::Holder(message)) => {
                    match &message {
                        FromHolder::Offer { session: of, description } if *of == session => {
                            certificates.offered(description)?;
                        }
                        FromHolder::Certificate { session: of, sha256 } if *of == session => {
                            certificates.presented(*sha256)?;
                        }
                        FromHolder::Offer { .. }
                        | FromHolder::Candidate { .. }
                        | FromHolder::State { .. }
                        | FromHolder::Certificate { .. }
                        | FromHolder::Path { .. }
                        | FromHolder::NetworkChanged => {}
                    }
                    relay(inner, signaling, &introduction, message)?;
                }
                Some(Event::Channel(..) | Event::Retry) => {}
                None => return Err(Failure::new(Reason::Internal).into()),
            },
            message = signaling.next() => {
                if let Some(answer) = hear(inner, session, message?)? {
                    certificates.answered(&answer.description)?;
                    let revocations = inner.revocations.borrow().clone();
                    introduction.verify(&answer, &inner.identity, &certificates, &revocations)?;
                    inner.holder(&ToHolder::Answer {
                        session,
                        description: &answer.description,
                    });
                }
            }
        }
    }
}

/// The holder's messages on their way to the gateway.
pub(super) fn relay(
    inner: &Inner,
    signaling: &Signaling,
    introduction: &Introduction,
    message: FromHolder,
) -> Result<(), Failure> {
    let current = introduction.session;
    match message {
        FromHolder::Offer {
            session,
            description,
        } if session == current => {
            signaling.send(&introduction.offer(&inner.identity, description)?)
        }
        FromHolder::Candidate { session, candidate } if session == current => {
            signaling.send(&Envelope::of(None, &Candidate { session, candidate }))
        }
        FromHolder::State { session, state } if session == current && state == "failed" => {
            Err(Failure::new(Reason::IceFailed))
        }
        FromHolder::Path { session, path } if session == current => {
            let mut status = inner.status.borrow().clone();
            status.path = Some(path);
            inner.tell(status);
            Ok(())
        }
        FromHolder::Offer { .. }
        | FromHolder::Candidate { .. }
        | FromHolder::State { .. }
        | FromHolder::Certificate { .. }
        | FromHolder::Path { .. }
        | FromHolder::NetworkChanged => Ok(()),
    }
}

/// Messages of signaling; returns an answer to our offer.
pub(super) fn hear(
    inner: &Inner,
    current: SessionId,
    envelope: Envelope,
) -> Result<Option<Answer>, Failure> {
    let Some(method) = &envelope.method else {
        return match envelope.error {
            Some(error) => Err(Failure {
                reason: error.reason(),
                message: error.message,
            }),
            None => Ok(None),
        };
    };
    match method.as_str() {
        Answer::METHOD => {
            let answer: Answer = envelope.params().map_err(violation)?;
            Ok((answer.session == current).then_some(answer))
        }
        Candidate::METHOD => {
            let Candidate { session, candidate } = envelope.params().map_err(violation)?;
            if session == current {
                inner.holder(&ToHolder::Candidate {
                    session,
                    candidate: &candidate,
                });
            }
            Ok(None)
        }
        RevocationList::METHOD => {
            inner.learn(&envelope.params().map_err(violation)?);
            Ok(None)
        }
        Bye::METHOD => {
            let Bye { session, reason } = envelope.params().map_err(violation)?;
            if session == current {
                return Err(Failure::new(reason));
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn violation(error: SignalError) -> Failure {
    Failure::with(Reason::ProtocolViolation, error)
}

/// What a message tells of the machine that offers the service.
pub(super) fn presence(envelope: &Envelope) -> Option<NodeStatus> {
    let Presence { status, .. } = envelope.params().ok()?;
    Some(status)
}
