//! From an offer to an accepted session, and what of it comes again with each restart of ICE.

use portway_protocol::id::{NodeId, SessionId};
use portway_protocol::reason::Reason;
use portway_protocol::signal::{
    Bye, Call, Candidate, Envelope, Generation, NodeStatus, Offer, SessionDescription,
};
use tokio::sync::mpsc;

use super::holder::{FromHolder, ToHolder};
use super::{Event, Inner};
use crate::error::Failure;
use crate::session::{self, Accepted};
use crate::signaling::Signaling;

pub(super) const OFFER_ID: &str = "offer";

/// Whose offers and answers are passed on.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    pub(super) session: SessionId,
    pub(super) generation: Generation,
    /// The node that has the session, once there is one.
    pub(super) node: Option<NodeId>,
}

/// A handshake under way.
type Opening = std::pin::Pin<Box<dyn Future<Output = Result<Accepted, Failure>>>>;

/// Exchanges descriptions and candidates until the session is accepted.
pub(super) async fn introduce(
    inner: &Inner,
    signaling: &mut Signaling,
    events: &mut mpsc::Receiver<Event>,
    session: SessionId,
) -> Result<Accepted, Failure> {
    inner.holder(&ToHolder::Open {
        session,
        ice_servers: &signaling.ice_servers,
    });
    let introduction = Introduction {
        session,
        generation: Generation::FIRST,
        node: None,
    };
    let mut opening: Option<Opening> = None;
    loop {
        let opened = async {
            match &mut opening {
                Some(opening) => opening.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = opened => return accepted,
            event = events.recv() => match event {
                Some(Event::Channel(of, channel)) if of == session => {
                    let identity = inner.identity.clone();
                    opening = Some(Box::pin(async move {
                        session::open(channel, session, &identity).await
                    }));
                }
                Some(Event::Holder(message)) => relay(inner, signaling, &introduction, message)?,
                Some(Event::Channel(..) | Event::Retry) => {}
                None => return Err(Failure::new(Reason::Internal)),
            },
            message = signaling.next() => hear(inner, &introduction, message?)?,
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
        } if session == current => signaling.send(&offer(inner, introduction, description)),
        FromHolder::Candidate { session, candidate } if session == current => {
            let candidate = Call::Candidate(Candidate { session, candidate });
            signaling.send(&Envelope::call(None, &candidate))
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
        | FromHolder::Path { .. }
        | FromHolder::NetworkChanged => Ok(()),
    }
}

fn offer(inner: &Inner, introduction: &Introduction, description: SessionDescription) -> Envelope {
    let offer = Call::Offer(Offer {
        session: introduction.session,
        service: inner.identity.service.clone(),
        node: introduction.node.clone(),
        generation: introduction.generation,
        grant: None,
        description,
        ice_servers: Vec::new(),
    });
    Envelope::call(Some(OFFER_ID.into()), &offer)
}

/// Messages of signaling.
pub(super) fn hear(
    inner: &Inner,
    introduction: &Introduction,
    envelope: Envelope,
) -> Result<(), Failure> {
    let current = introduction.session;
    let Some(method) = envelope.method else {
        return match envelope.error {
            Some(error) => Err(Failure {
                reason: error.reason(),
                message: error.message,
            }),
            None => Ok(()),
        };
    };
    match Call::from_parts(&method, envelope.params.as_deref()) {
        Ok(Call::Answer(answer))
            if answer.session == current && answer.generation == introduction.generation =>
        {
            inner.holder(&ToHolder::Answer {
                session: current,
                description: &answer.description,
            });
            Ok(())
        }
        Ok(Call::Candidate(candidate)) if candidate.session == current => {
            inner.holder(&ToHolder::Candidate {
                session: current,
                candidate: &candidate.candidate,
            });
            Ok(())
        }
        Ok(Call::Bye(Bye { session, reason })) if session == current => Err(Failure::new(reason)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a message tells of the machine that offers the service.
pub(super) fn presence(envelope: &Envelope) -> Option<NodeStatus> {
    let method = envelope.method.as_ref()?;
    match Call::from_parts(method, envelope.params.as_deref()) {
        Ok(Call::Presence(presence)) => Some(presence.status),
        Ok(_) | Err(_) => None,
    }
}
