//! Ports of relay sockets: at the edges of their range, and after their use.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use client::world::code;
use client::{Client, PATIENCE};
use portway_relay::Relay;
use portway_relay::config::{Config, Transport};
use portway_relay_proto::quota::Quota;
use stun_types::message::Message;
use turn_types::attribute::{EvenPort, RequestedTransport, ReservationToken};
use turn_types::message::ALLOCATE;

const CHANNEL: u16 = 0x4000;

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

#[test]
fn a_relay_that_is_dropped_while_clients_send_leaves_its_ports() {
    const CLIENTS: usize = 4;
    let relay = Relay::start(&Config {
        relay_ports: 21_200..=21_299,
        ..loopback::config(2)
    })
    .unwrap();
    let listening = relay.listening().to_vec();
    let server = listening[0].address;
    let (relayed, ports) = mpsc::channel();
    thread::scope(|scope| {
        for _client in 0..CLIENTS {
            let relayed = relayed.clone();
            scope.spawn(move || {
                let peer = client::peer();
                let (client, own) = Client::talking(server, CHANNEL, &peer);
                relayed.send(own).unwrap();
                let start = Instant::now();
                while client.try_send_on(CHANNEL, b"there").is_ok() {
                    assert!(start.elapsed() < PATIENCE, "somebody listens still");
                }
            });
        }
        let ports: Vec<SocketAddr> = ports.iter().take(CLIENTS).collect();
        let before = relay.metrics().packets_to_peers;
        wait(|| relay.metrics().packets_to_peers > before + 1000);
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            drop(relay);
            ended.send(()).unwrap();
        });
        end.recv_timeout(PATIENCE).expect("the relay ends");
        for port in ports {
            UdpSocket::bind(port).expect("a relay port is free");
        }
    });
    for listen in listening {
        match listen.transport {
            Transport::Udp => drop(UdpSocket::bind(listen.address).unwrap()),
            Transport::Tcp | Transport::Tls => drop(TcpListener::bind(listen.address).unwrap()),
        }
    }
}

#[test]
fn ports_come_back_from_who_leaves_and_from_who_is_gone() {
    /// Of eight ports: how many are in use at a time.
    const PORTS: u64 = 4;
    let relay = Relay::start(&Config {
        relay_ports: 21_300..=21_307,
        ..loopback::config(1)
    })
    .unwrap();
    let [udp, _, tcp, _] = relay.listening() else {
        panic!("four listeners")
    };
    for _round in 0..20 {
        let leaving: Vec<Client> = (0..2).map(|_| Client::new(udp.address)).collect();
        let vanishing: Vec<Client> = (0..2).map(|_| Client::over_tcp(tcp.address)).collect();
        let all = leaving.iter().chain(&vanishing);
        let ports: Vec<SocketAddr> = all.map(Client::allocate).collect();
        assert_eq!(relay.metrics().allocations, PORTS);
        for client in leaving {
            client.leave();
        }
        drop(vanishing);
        wait(|| relay.metrics().allocations == 0);
        for port in ports {
            UdpSocket::bind(port).expect("it is free again");
        }
    }
    assert_eq!(relay.metrics().sockets_total, 20 * PORTS);
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

/// Counters tell nobody when they move.
fn wait(until: impl Fn() -> bool) {
    let start = Instant::now();
    while !until() {
        assert!(start.elapsed() < PATIENCE, "nothing happens");
        thread::yield_now();
    }
}
