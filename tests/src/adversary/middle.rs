//! A man in the middle: a peer connection to the client, another to the gateway, and everything read on its
//! way from one to the other.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use portway_protocol::signal::{Candidate, Offer, SessionDescription};
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent, PeerEvents};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Capture, Outlet, Scheme, Toward};

/// Messages that may wait for the peer connections.
const QUEUE: usize = 64;

/// What is done with each message of channel 0.
pub type Alteration = Box<dyn FnMut(Toward, Vec<u8>) -> Vec<u8> + Send>;

/// Sits between client and gateway in every session.
#[must_use]
pub fn scheme(alteration: Alteration, capture: &Capture) -> Scheme {
    let (alteration, capture) = (Arc::new(Mutex::new(alteration)), capture.clone());
    let mut sessions = JoinSet::new();
    let mut inbox: Option<mpsc::Sender<(Toward, Value)>> = None;
    Box::new(move |toward, message, outlet| {
        let method = message["method"].as_str().unwrap_or_default();
        match (toward, method) {
            (Toward::Gateway, "offer") => {
                let (sender, heard) = mpsc::channel(QUEUE);
                inbox = Some(sender);
                let session = Session {
                    alteration: alteration.clone(),
                    capture: capture.clone(),
                    outlet: outlet.clone(),
                    heard,
                };
                sessions.spawn(async move {
                    if let Err(error) = session.run(message).await {
                        eprintln!("man in the middle: {error:#}");
                    }
                });
            }
            (_, "answer" | "candidate") => {
                if let Some(inbox) = &inbox {
                    drop(inbox.try_send((toward, message)));
                }
            }
            _ => outlet.send(toward, message),
        }
    })
}

struct Session {
    alteration: Arc<Mutex<Alteration>>,
    capture: Capture,
    outlet: Outlet,
    heard: mpsc::Receiver<(Toward, Value)>,
}

/// The two connections.
struct Ends {
    client: (Peer, PeerEvents),
    /// Our answer to the client, until the gateway has answered us.
    answer: SessionDescription,
    gateway: (Peer, PeerEvents),
}

impl Session {
    async fn run(mut self, mut message: Value) -> anyhow::Result<()> {
        let offer: Offer = serde_json::from_value(message["params"].clone())?;
        let config = PeerConfig::default();
        let (client, answer, client_events) = Peer::answer(&config, &offer.description).await?;
        let (gateway, description, gateway_events) = Peer::offer(&config).await?;
        message["params"]["description"] = json!(description);
        self.outlet.send(Toward::Gateway, message);
        let mut ends = Ends {
            client: (client, client_events),
            answer,
            gateway: (gateway, gateway_events),
        };
        let session = json!(offer.session);
        let (relay_client, relay_gateway) = (&ends.client.0, &ends.gateway.0);
        let relaying = relay(relay_client, relay_gateway, &self.alteration, &self.capture);
        tokio::pin!(relaying);
        let (client_events, gateway_events) = (&mut ends.client.1, &mut ends.gateway.1);
        loop {
            let (toward, event) = tokio::select! {
                ended = &mut relaying => return ended,
                Some((toward, message)) = self.heard.recv() => {
                    let peers = (&ends.client.0, &ends.gateway.0);
                    hear(peers, &ends.answer, toward, message, &self.outlet).await?;
                    continue;
                }
                event = client_events.recv() => (Toward::Client, event),
                event = gateway_events.recv() => (Toward::Gateway, event),
            };
            if let PeerEvent::Candidate(candidate) = event.context("a connection ended")? {
                let params = json!({"session": session, "candidate": candidate});
                self.outlet.notify(toward, "candidate", params);
            }
        }
    }
}

async fn hear(
    (client, gateway): (&Peer, &Peer),
    own_answer: &SessionDescription,
    toward: Toward,
    mut message: Value,
    outlet: &Outlet,
) -> anyhow::Result<()> {
    if message["method"] == "answer" {
        let theirs = serde_json::from_value(message["params"]["description"].take())?;
        gateway.accept_answer(&theirs).await?;
        message["params"]["description"] = json!(own_answer);
        outlet.send(Toward::Client, message);
        return Ok(());
    }
    let candidate: Candidate = serde_json::from_value(message["params"].take())?;
    // What is meant for one end comes from the other.
    let from = match toward {
        Toward::Gateway => client,
        Toward::Client => gateway,
    };
    from.add_candidate(candidate.candidate.as_ref()).await?;
    Ok(())
}

/// Reads and passes on what is said on channel 0.
async fn relay(
    client: &Peer,
    gateway: &Peer,
    alteration: &Mutex<Alteration>,
    capture: &Capture,
) -> anyhow::Result<()> {
    let (client, gateway) = tokio::try_join!(client.open(), gateway.open())?;
    let pass = |toward, message: Bytes| {
        capture.note(toward, &message);
        let mut alteration = alteration.lock().unwrap_or_else(PoisonError::into_inner);
        Bytes::from(alteration(toward, message.to_vec()))
    };
    loop {
        tokio::select! {
            message = client.recv() => match message {
                Some(message) => gateway.send(pass(Toward::Gateway, message)).await?,
                None => return Ok(()),
            },
            message = gateway.recv() => match message {
                Some(message) => client.send(pass(Toward::Client, message)).await?,
                None => return Ok(()),
            },
        }
    }
}
