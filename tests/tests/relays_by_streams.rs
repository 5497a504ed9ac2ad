//! Two native peers that no UDP connects: all between them goes through a relay by TCP or TLS.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::sync::Arc;

use bytes::Bytes;
use portway_gateway::StreamRelays;
use portway_gateway::proxy::connect::tls_config;
use portway_gateway::service::Trust;
use portway_protocol::signal::IceServer;
use portway_tests::coturn::{self, Coturn};
use portway_tests::relay::Relay;
use portway_tests::{PATIENCE, authority};
use portway_transport::webrtc::{Peer, PeerConfig, PeerEvent, PeerEvents};
use portway_transport::{CandidateKind, PathKind};

/// Messages each way: more than fit into what waits for a connection.
const MESSAGES: usize = 300;
const MESSAGE: usize = 16 * 1024;

#[tokio::test]
async fn our_relay_carries_peers_within_tls() {
    let relay = Relay::start().await.unwrap();
    let password = std::fs::read_to_string(relay.password_file()).unwrap();
    let trust = Trust::Authority(authority::certificate().unwrap());
    let relays = StreamRelays::new(tls_config(&trust).unwrap());
    let server = server(relay.url(), relay.username(), password);
    talk(&config(server, relays)).await;
}

#[tokio::test]
async fn coturn_carries_peers_over_tcp() {
    let relay = Coturn::start().await.unwrap();
    let password = std::fs::read_to_string(relay.password_file()).unwrap();
    let url = format!("{}?transport=tcp", relay.url());
    let server = server(url, coturn::USERNAME, password);
    talk(&config(server, StreamRelays::default())).await;
}

#[tokio::test]
async fn a_relay_that_is_not_trusted_carries_nothing() {
    let relay = Relay::start().await.unwrap();
    let password = std::fs::read_to_string(relay.password_file()).unwrap();
    let relays = StreamRelays::new(tls_config(&Trust::System).unwrap());
    let config = config(server(relay.url(), relay.username(), password), relays);
    let (_peer, _offer, mut events) = Peer::offer(&config).await.unwrap();
    // The stack gives it up, and gathering ends.
    let gathered = tokio::time::timeout(PATIENCE, relayed(&mut events)).await;
    assert_eq!(gathered.unwrap(), None);
}

fn server(url: String, username: &str, password: String) -> IceServer {
    IceServer {
        urls: vec![url],
        username: Some(username.to_owned()),
        credential: Some(password),
    }
}

fn config(server: IceServer, relays: StreamRelays) -> PeerConfig {
    PeerConfig {
        ice_servers: vec![server],
        stream_relays: Arc::new(relays),
        // The relays have addresses of IPv4: neither the peers nor their relays reach each other otherwise.
        bind: vec!["[::1]:0".parse().unwrap()],
        ..PeerConfig::default()
    }
}

/// Connects two peers by what relays are allocated to them, and has them talk.
async fn talk(config: &PeerConfig) {
    let (near, offer, mut near_events) = Peer::offer(config).await.unwrap();
    let (far, answer, mut far_events) = Peer::answer(config, &offer).await.unwrap();
    near.accept_answer(&answer).await.unwrap();
    let exchange = async {
        let for_far = relayed(&mut near_events).await.unwrap();
        let for_near = relayed(&mut far_events).await.unwrap();
        far.add_candidate(Some(&for_far)).await.unwrap();
        near.add_candidate(Some(&for_near)).await.unwrap();
        tokio::join!(near.open(), far.open())
    };
    let (a, b) = tokio::time::timeout(PATIENCE, exchange).await.unwrap();
    let (a, b) = (a.unwrap(), b.unwrap());
    for (from, to) in [(&a, &b), (&b, &a)] {
        let send = async {
            for at in 0..MESSAGES {
                let byte = u8::try_from(at % 251).unwrap();
                from.send(Bytes::from(vec![byte; MESSAGE])).await.unwrap();
            }
        };
        let receive = async {
            for at in 0..MESSAGES {
                let message = to.recv().await.unwrap();
                assert_eq!(
                    (message.len(), usize::from(message[0])),
                    (MESSAGE, at % 251)
                );
            }
        };
        let both = async { tokio::join!(send, receive) };
        tokio::time::timeout(PATIENCE, both).await.unwrap();
    }
    let path = near.path().await.unwrap();
    assert_eq!(path.kind, PathKind::Relayed);
    assert_eq!(path.local_kind, CandidateKind::Relay);
}

/// The first relayed candidate; `None` if gathering ends without.
async fn relayed(events: &mut PeerEvents) -> Option<portway_protocol::signal::IceCandidate> {
    loop {
        match events.recv().await.unwrap() {
            PeerEvent::Candidate(Some(candidate)) if candidate.candidate.contains("typ relay") => {
                return Some(candidate);
            }
            PeerEvent::Candidate(None) => return None,
            PeerEvent::Candidate(Some(_))
            | PeerEvent::Connected
            | PeerEvent::Disconnected
            | PeerEvent::Ended => {}
        }
    }
}
