//! A flood of strangers. Alone in its process, whose memory is measured.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::UdpSocket;
use std::num::NonZeroUsize;
use std::time::Duration;

use portway_relay::Relay;
use portway_relay::config::{Config, Listen, RELAY_PORTS, Transport};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;

#[test]
fn strangers_leave_nothing_behind() {
    const SOURCES: usize = 200;
    const EACH: usize = 500;
    let relay = Relay::start(&Config {
        listen: vec![Listen {
            transport: Transport::Udp,
            address: "127.0.0.1:0".parse().unwrap(),
        }],
        tls: None,
        relay_ips: vec!["127.0.0.1".parse().unwrap()],
        external_ips: Vec::new(),
        relay_ports: RELAY_PORTS,
        realm: "tests".to_owned(),
        users: vec![("ann".to_owned(), "ann's".to_owned())],
        secrets: Vec::new(),
        alternate: None,
        tcp_allocations: false,
        session_separator: None,
        prolong: Duration::ZERO,
        peers: PeerPolicy::default(),
        quota: Quota {
            strangers_per_second: u32::MAX,
            ..Quota::default()
        },
        announce_sha256: false,
        workers: NonZeroUsize::MIN,
    })
    .unwrap();
    let server = relay.listening()[0].address;
    let mut request = vec![0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([7; 12]);
    request.extend([0, 0x19, 0, 4, 17, 0, 0, 0]);
    let before = resident_memory();
    let mut answer = [0; 2048];
    for _source in 0..SOURCES {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        for _request in 0..EACH {
            socket.send(&request).unwrap();
            let length = socket.recv(&mut answer).unwrap();
            assert!(length <= 64, "{length} bytes");
        }
    }
    assert_eq!(relay.metrics().answers, (SOURCES * EACH) as u64);
    let grew = resident_memory().saturating_sub(before);
    assert!(grew < 8 << 20, "{grew} bytes for {SOURCES} strangers");
}

/// Of this process, bytes.
fn resident_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes * 1024
}
