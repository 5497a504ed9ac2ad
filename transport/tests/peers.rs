//! Two peers on this machine talk over real sockets.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::sync::Arc;

use bytes::Bytes;
use portway_protocol::signal::{SdpKind, SessionDescription};
use portway_transport::webrtc::candidates::LoopbackPolicy;
use portway_transport::webrtc::{NotSent, Peer, PeerConfig, PeerError, PeerEvent, PeerEvents};
use portway_transport::{Channel, PathKind};

const MESSAGES: usize = 2000;
const MESSAGE_LEN: usize = 16 * 1024;

/// Loopback only, so that the tests need no other interface.
fn config() -> PeerConfig {
    PeerConfig {
        bind: vec!["127.0.0.1:0".parse().unwrap()],
        loopback: LoopbackPolicy::Accept,
        ..PeerConfig::default()
    }
}

/// Hands the candidates of one peer to the other until gathering is complete.
async fn trickle(events: &mut PeerEvents, to: &Peer) {
    loop {
        match events.recv().await.expect("the peer lives") {
            PeerEvent::Candidate(Some(candidate)) => {
                to.add_candidate(Some(&candidate)).await.unwrap();
            }
            PeerEvent::Candidate(None) => return,
            PeerEvent::Connected | PeerEvent::Disconnected | PeerEvent::Ended => {}
        }
    }
}

async fn connected() -> (Peer, Peer, PeerEvents) {
    let (client, offer, mut client_events) = Peer::offer(&config()).await.unwrap();
    let (gateway, answer, mut gateway_events) = Peer::answer(&config(), &offer).await.unwrap();
    client.accept_answer(&answer).await.unwrap();
    trickle(&mut gateway_events, &client).await;
    trickle(&mut client_events, &gateway).await;
    (client, gateway, gateway_events)
}

/// Channel 0 of both.
async fn open(a: &Peer, b: &Peer) -> (Arc<dyn Channel>, Arc<dyn Channel>) {
    let (a, b) = tokio::join!(a.open(), b.open());
    (a.unwrap(), b.unwrap())
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order() {
    let (client, gateway, _events) = connected().await;
    let (from, to) = open(&gateway, &client).await;
    let message = |i: usize| Bytes::from(vec![u8::try_from(i % 251).unwrap(); MESSAGE_LEN]);
    let send = async {
        for i in 0..MESSAGES {
            from.send(message(i)).await.unwrap();
        }
    };
    let receive = async {
        for i in 0..MESSAGES {
            assert_eq!(to.recv().await.unwrap(), message(i), "message {i}");
        }
    };
    tokio::join!(send, receive);
    let path = client.path().await.unwrap();
    assert_eq!(path.kind, PathKind::Direct);
    assert!(path.remote.is_loopback(), "{path:?}");
}

#[tokio::test]
async fn datagrams_go_both_ways_beside_channel_0() {
    let (client, gateway, _events) = connected().await;
    let (_near, _far) = open(&client, &gateway).await;
    let (near, far) = tokio::join!(client.open_datagrams(), gateway.open_datagrams());
    let (near, far) = (near.unwrap(), far.unwrap());
    // The largest is cut up on its way.
    for len in [1, portway_protocol::datagram::MTU, MESSAGE_LEN] {
        let datagram = Bytes::from(vec![7; len]);
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.try_send(datagram.clone()).await.unwrap();
            assert_eq!(to.recv().await.unwrap(), datagram);
        }
    }
    gateway.close().await;
    assert_eq!(near.recv().await, None);
}

#[tokio::test]
async fn datagrams_that_find_the_way_full_are_dropped() {
    let (client, gateway, _events) = connected().await;
    let (near, far) = open(&client, &gateway).await;
    let (datagrams, unread) = tokio::join!(client.open_datagrams(), gateway.open_datagrams());
    let (datagrams, unread) = (datagrams.unwrap(), unread.unwrap());
    let datagram = Bytes::from(vec![7; 1024]);
    let mut refused = 0;
    // As fast as it goes, until some have to be refused.
    while refused < 100 {
        match datagrams.try_send(datagram.clone()).await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, NotSent::Full);
                refused += 1;
            }
        }
    }
    // Channel 0 is not held up by what was dropped, nor by what was not.
    near.send(Bytes::from_static(b"hi")).await.unwrap();
    let unread = async { while unread.recv().await.is_some() {} };
    tokio::select! {
        message = far.recv() => assert_eq!(message.unwrap(), "hi"),
        () = unread => panic!("the channel ended"),
    }
}

#[tokio::test]
async fn a_closed_channel_ends_on_both_sides() {
    let (client, gateway, _events) = connected().await;
    let (from, to) = open(&client, &gateway).await;
    from.send(Bytes::from_static(b"hi")).await.unwrap();
    assert_eq!(to.recv().await.unwrap(), "hi");
    from.close().await;
    assert_eq!(to.recv().await, None);
    assert!(from.send(Bytes::new()).await.is_err());
}

#[tokio::test]
async fn dropping_a_peer_ends_its_channel() {
    let (client, gateway, _events) = connected().await;
    let (channel, _other) = open(&gateway, &client).await;
    drop(gateway);
    assert_eq!(channel.recv().await, None);
}

#[tokio::test]
async fn a_description_without_fingerprint_is_refused() {
    let (_client, mut offer, _events) = Peer::offer(&config()).await.unwrap();
    offer.sdp = offer
        .sdp
        .lines()
        .filter(|line| !line.starts_with("a=fingerprint"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    assert!(matches!(
        Peer::answer(&config(), &offer).await,
        Err(PeerError::Fingerprint(_))
    ));
}

#[tokio::test]
async fn both_ends_agree_on_whose_certificates_they_have_seen() {
    let (client, gateway, _events) = connected().await;
    let (_near, _far) = open(&client, &gateway).await;
    let binding = client.binding().unwrap();
    assert_eq!(gateway.binding(), Some(binding));
    assert_ne!(binding.client, binding.gateway);
}

/// A description that names another certificate.
fn naming_another(description: &SessionDescription) -> SessionDescription {
    let mut changed = description.clone();
    let at = changed.sdp.find("a=fingerprint:sha-256 ").unwrap() + 22;
    let other = if &changed.sdp[at..at + 2] == "00" {
        "01"
    } else {
        "00"
    };
    changed.sdp.replace_range(at..at + 2, other);
    changed
}

#[tokio::test]
async fn who_presents_another_certificate_than_named_is_not_talked_to() {
    for tampered in [SdpKind::Offer, SdpKind::Answer] {
        let (client, mut offer, mut client_events) = Peer::offer(&config()).await.unwrap();
        if tampered == SdpKind::Offer {
            offer = naming_another(&offer);
        }
        let (gateway, mut answer, mut gateway_events) =
            Peer::answer(&config(), &offer).await.unwrap();
        if tampered == SdpKind::Answer {
            answer = naming_another(&answer);
        }
        client.accept_answer(&answer).await.unwrap();
        trickle(&mut gateway_events, &client).await;
        trickle(&mut client_events, &gateway).await;
        let deceived = match tampered {
            SdpKind::Offer => &gateway,
            SdpKind::Answer => &client,
        };
        // Where nobody is deceived, channels open in the meantime.
        let honest = async {
            for _pair in 0..3 {
                let (client, gateway, _events) = connected().await;
                let (_near, _far) = open(&client, &gateway).await;
            }
        };
        tokio::select! {
            biased;
            opened = deceived.open() => assert!(opened.is_err(), "{tampered:?}"),
            () = honest => {}
        }
    }
}

#[tokio::test]
async fn an_offer_is_answered_once() {
    let (client, offer, _events) = Peer::offer(&config()).await.unwrap();
    let (_gateway, answer, _events) = Peer::answer(&config(), &offer).await.unwrap();
    client.accept_answer(&answer).await.unwrap();
    assert!(matches!(
        client.accept_answer(&naming_another(&answer)).await,
        Err(PeerError::Answered)
    ));
}

#[tokio::test]
async fn an_answer_is_no_offer() {
    let (_client, mut offer, _events) = Peer::offer(&config()).await.unwrap();
    offer.kind = SdpKind::Answer;
    assert!(matches!(
        Peer::answer(&config(), &offer).await,
        Err(PeerError::WrongKind { .. })
    ));
}
