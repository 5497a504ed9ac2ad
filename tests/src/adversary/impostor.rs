//! One who answers in the gateway's place, and never asks it.

use std::sync::Arc;

use anyhow::Context as _;
use portway_protocol::id::Nonce;
use portway_protocol::key::Signature;
use portway_protocol::lane::MaxMessage;
use portway_protocol::session::handshake::{self, Accepted};
use portway_protocol::session::introduction::Introduction;
use portway_protocol::session::party::{Certificate, Node};
use portway_protocol::session::resumption::ResumptionKey;
use portway_protocol::signal::{Candidate, Offer, SessionDescription};
use portway_protocol::target::ServiceKind;
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::forgery::Identity;
use super::{Capture, Outlet, Scheme, Toward};

/// Messages that may wait for the peer connection.
const QUEUE: usize = 64;

/// Answers every offer as this node.
#[must_use]
pub fn scheme(identity: Identity, capture: &Capture) -> Scheme {
    let (identity, capture) = (Arc::new(identity), capture.clone());
    let mut sessions = JoinSet::new();
    let mut inbox: Option<mpsc::Sender<Value>> = None;
    Box::new(
        move |toward, message, outlet| match (toward, message["method"].as_str()) {
            (Toward::Gateway, Some("offer")) => {
                outlet.send(
                    Toward::Client,
                    json!({"jsonrpc": "2.0", "id": message["id"], "result": {}}),
                );
                let (sender, candidates) = mpsc::channel(QUEUE);
                inbox = Some(sender);
                let (identity, capture, outlet) =
                    (identity.clone(), capture.clone(), outlet.clone());
                sessions.spawn(async move {
                    let params = message["params"].clone();
                    let ended = deceive(params, candidates, &identity, &capture, &outlet).await;
                    if let Err(error) = ended {
                        eprintln!("impostor: {error:#}");
                    }
                });
            }
            (Toward::Gateway, Some("candidate")) => {
                if let Some(inbox) = &inbox {
                    drop(inbox.try_send(message["params"].clone()));
                }
            }
            _ => outlet.send(toward, message),
        },
    )
}

async fn deceive(
    offer: Value,
    mut candidates: mpsc::Receiver<Value>,
    identity: &Identity,
    capture: &Capture,
    outlet: &Outlet,
) -> anyhow::Result<()> {
    let offer: Offer = serde_json::from_value(offer)?;
    let config = PeerConfig::default();
    let (peer, answer, mut events) = Peer::answer(&config, &offer.description).await?;
    let shown = capture.signaling("authenticate");
    let certificate = match (&identity.certificate, shown.last()) {
        (Some(forged), _) => forged.as_str(),
        (None, shown) => shown
            .and_then(|shown| shown["params"]["token"].as_str())
            .context("the gateway's certificate")?,
    };
    let node = Node {
        cluster: &identity.cluster,
        id: &identity.node,
        certificate: Certificate {
            token: certificate,
            rotations: &[],
        },
        key: &identity.key,
    };
    let proof = identity.proof.as_ref();
    let answer = answered(&offer, &answer, (&node, proof), &peer)?;
    outlet.notify(Toward::Client, "answer", answer);
    let talking = talk(&peer, (&node, proof), capture);
    tokio::pin!(talking);
    loop {
        tokio::select! {
            ended = &mut talking => return ended,
            Some(candidate) = candidates.recv() => {
                let candidate: Candidate = serde_json::from_value(candidate)?;
                peer.add_candidate(candidate.candidate.as_ref()).await?;
            }
            event = events.recv() => if let PeerEvent::Candidate(candidate) = event.context("ended")? {
                let params = json!({"session": offer.session, "candidate": candidate});
                outlet.notify(Toward::Client, "candidate", params);
            }
        }
    }
}

fn answered(
    offer: &Offer,
    description: &SessionDescription,
    (node, proof): (&Node<'_>, Option<&Signature>),
    peer: &Peer,
) -> anyhow::Result<Value> {
    let introduction = Introduction {
        cluster: node.cluster,
        service: &offer.service,
        node: offer.node.as_ref(),
        session: offer.session,
    };
    let binding = peer.binding().context("both are known")?;
    let made = introduction.sign_answer(node, &binding);
    Ok(json!({
        "session": offer.session,
        "description": description,
        "node": node.id,
        "certificate": node.certificate.token,
        "proof": proof.unwrap_or(&made),
    }))
}

/// The gateway's side of the handshake, which lets everybody in.
async fn talk(
    peer: &Peer,
    (node, proof): (&Node<'_>, Option<&Signature>),
    capture: &Capture,
) -> anyhow::Result<()> {
    let channel = peer.open().await?;
    let hello = channel.recv().await.context("a hello")?;
    capture.note(Toward::Gateway, &hello);
    let binding = peer.binding().context("it is open")?;
    let nonce = Nonce::from_bytes([1; Nonce::LEN]);
    let (mut reply, _state) = handshake::hello(&hello, node, nonce, binding)?;
    if let Some(proof) = proof {
        let (kind, body) = reply.split_first().context("a message")?;
        let mut body: Value = serde_json::from_slice(body)?;
        body["proof"] = json!(proof);
        reply = [&[*kind], body.to_string().as_bytes()].concat();
    }
    channel.send(reply.into()).await?;
    let authenticate = channel.recv().await.context("a proof")?;
    capture.note(Toward::Gateway, &authenticate);
    let accepted = handshake::accepted(&Accepted {
        user: "guest".into(),
        expires: u64::MAX,
        services: Vec::new(),
        resumption: ResumptionKey::from_bytes([2; 32]),
        kind: ServiceKind::Http,
        max_message: MaxMessage::default(),
    });
    channel.send(accepted.into()).await?;
    while let Some(message) = channel.recv().await {
        capture.note(Toward::Gateway, &message);
    }
    Ok(())
}
