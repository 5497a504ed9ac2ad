//! Threads of a relay that end.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use client::Client;
use portway_relay::{Attachment, LocalPeer, Relay, WorkerLost};

/// A peer in the relay's process that cannot even listen.
#[derive(Debug)]
struct Broken;

impl LocalPeer for Broken {
    fn receive(&self, _from: SocketAddr, _packets: &[u8], _segment: usize) {
        panic!("a peer is broken, as this test wants it");
    }
}

/// Brings the only worker down, as soon as it has read what this sends.
fn break_worker(relay: &Relay) -> Attachment {
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let attachment = relay.attach(peer, Arc::new(Broken));
    let (client, _) = Client::allocated(relay.listening()[0].address);
    assert_eq!(client.bind(0x4000, peer), None);
    client.send_on(0x4000, b"x");
    attachment
}

#[tokio::test]
async fn a_thread_that_panics_is_missed() {
    let relay = loopback::relay(1);
    let early = relay.lost();
    let task = async {
        let _attached = break_worker(&relay);
        relay.lost().await
    };
    let both = async { tokio::join!(early, task) };
    let lost = tokio::time::timeout(client::PATIENCE, both).await.unwrap();
    let first = WorkerLost { worker: 0 };
    assert_eq!(lost, (first, first));
}

#[test]
fn a_relay_that_is_ended_misses_nobody() {
    let relay = loopback::relay(2);
    let mut lost = pin!(relay.lost());
    drop(relay);
    let polled = lost.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Pending);
}
