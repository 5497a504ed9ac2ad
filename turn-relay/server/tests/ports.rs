//! Ports of relay sockets, at the edges of their range.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use client::Client;
use client::world::code;
use portway_relay::Relay;
use portway_relay::config::Config;
use portway_relay_proto::quota::Quota;
use stun_types::message::Message;
use turn_types::attribute::{EvenPort, RequestedTransport, ReservationToken};
use turn_types::message::ALLOCATE;

fn relay(ports: std::ops::RangeInclusive<u16>) -> Relay {
    Relay::start(&Config {
        relay_ports: ports,
        quota: Quota {
            allocations_per_user: usize::MAX,
            strangers_per_second: u32::MAX,
            ..Quota::default()
        },
        ..loopback::config(1)
    })
    .unwrap()
}

#[test]
fn the_last_port_is_a_port() {
    let relay = relay(65_535..=65_535);
    let (_client, relayed) = Client::allocated(relay.listening()[0].address);
    assert_eq!(relayed.port(), 65_535);
}

#[test]
fn a_small_range_is_used_to_its_last_port() {
    let relay = relay(21_100..=21_139);
    let server = relay.listening()[0].address;
    let mut clients: Vec<Client> = (0..40).map(|_| Client::allocated(server).0).collect();
    let stranger = Client::new(server);
    let answer = stranger.ask(ALLOCATE, &[&udp()]);
    assert_eq!(code(&answer), Some(508), "the range is used up");
    clients.pop().unwrap().leave();
    Client::allocated(server);
}

#[test]
fn the_last_pair_is_a_pair() {
    let relay = relay(65_532..=65_533);
    let server = relay.listening()[0].address;
    let first = Client::new(server);
    let (port, token) = even(&first);
    assert_eq!(port, 65_532);

    let stranger = Client::new(server);
    let answer = stranger.ask(ALLOCATE, &[&udp()]);
    assert_eq!(code(&answer), Some(508), "the range is used up");

    let second = Client::new(server);
    assert_eq!(beside(&second, token), 65_533);
}

#[test]
fn a_kept_port_is_found_whichever_worker_is_asked() {
    let relay = loopback::relay(4);
    let server = relay.listening()[0].address;
    for _pair in 0..16 {
        let (first, second) = (Client::new(server), Client::new(server));
        let (port, token) = even(&first);
        assert_eq!(beside(&second, token), port + 1);
        first.leave();
        second.leave();
    }
}

#[test]
fn a_port_that_shall_be_even_is() {
    let relay = loopback::relay(1);
    for _attempt in 0..16 {
        let client = Client::new(relay.listening()[0].address);
        let answer = client.ask(ALLOCATE, &[&udp(), &EvenPort::new(false)]);
        assert_eq!(code(&answer), None);
        assert_eq!(client::relayed(&answer)[0].port() % 2, 0);
        client.leave();
    }
}

fn udp() -> RequestedTransport {
    RequestedTransport::new(RequestedTransport::UDP)
}

/// Allocates an even port; also returns the token of the next one.
fn even(client: &Client) -> (u16, u64) {
    let answer = client.ask(ALLOCATE, &[&udp(), &EvenPort::new(true)]);
    assert_eq!(code(&answer), None);
    let message = Message::from_bytes(&answer).unwrap();
    let token: ReservationToken = message.attribute().unwrap();
    (client::relayed(&answer)[0].port(), token.token())
}

/// Allocates the port that was kept.
fn beside(client: &Client, token: u64) -> u16 {
    let answer = client.ask(ALLOCATE, &[&udp(), &ReservationToken::new(token)]);
    assert_eq!(code(&answer), None);
    client::relayed(&answer)[0].port()
}
