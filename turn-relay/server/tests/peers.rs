//! Addresses that no client may name, over real sockets: as themselves and in every IPv6 spelling.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod client;
mod loopback;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use client::Client;
use client::world::request;
use portway_relay::Relay;
use portway_relay::config::Config;
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;
use stun_types::message::{BINDING, MessageWrite as _};

const FORBIDDEN: Option<u16> = Some(403);

const PORT: u16 = 4000;

/// Special use of IPv4: first and last address of each range (the registry of RFC 6890).
const SPECIAL_V4: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("127.0.0.1", "127.0.0.53"),
    ("169.254.0.0", "169.254.255.255"),
    // Where clouds tell a machine its secrets.
    ("169.254.169.254", "169.254.169.254"),
    ("169.254.170.2", "169.254.170.23"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("224.0.0.1", "224.0.0.251"),
    ("240.0.0.0", "255.255.255.254"),
    ("255.255.255.255", "255.255.255.255"),
];

/// The public addresses beside those ranges.
const PUBLIC_V4: &[&str] = &[
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
];

/// Special use of IPv6: first and last address of each range.
const SPECIAL_V6: &[(&str, &str)] = &[
    ("::", "::1"),
    ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
    ("100::", "100::ffff:ffff:ffff:ffff"),
    ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    // A cloud's metadata, once more.
    ("fd00:ec2::254", "fd00:ec2::254"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("ff02::1", "ff02::fb"),
];

const PUBLIC_V6: &[&str] = &[
    "2000::1",
    "2001:200::1",
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
    "2001:db9::",
    "2a00:1450::1",
    "3ffe:ffff::1",
    "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "fe00::1",
];

/// An IPv4 address in the ways that a router or kernel could take for it.
fn spellings(v4: Ipv4Addr) -> Vec<IpAddr> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        v4.into(),
        v4.to_ipv6_mapped().into(),
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low).into(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0).into(),
        Ipv6Addr::new(0x2002, high, low, 1, 2, 3, 4, 5).into(),
    ]
}

/// A relay as on the Internet, but for its addresses.
fn relay() -> Relay {
    Relay::start(&strict()).unwrap()
}

fn strict() -> Config {
    Config {
        peers: PeerPolicy::default(),
        quota: Quota {
            permissions: usize::MAX,
            channels: usize::MAX,
            ..Quota::default()
        },
        ..loopback::config(1)
    }
}

/// No request installs anything for this peer, and data for it is dropped for that reason.
fn assert_forbidden(relay: &Relay, client: &Client, peer: SocketAddr, payload: &[u8]) {
    assert_eq!(client.permit(peer), FORBIDDEN, "CreatePermission {peer}");
    assert_eq!(client.bind(0x4000, peer), FORBIDDEN, "ChannelBind {peer}");
    assert_dropped(relay, client, peer, payload);
}

/// Data for this peer goes nowhere: neither by an indication nor by a channel.
fn assert_dropped(relay: &Relay, client: &Client, peer: SocketAddr, payload: &[u8]) {
    let before = relay.metrics();
    client.send_to(peer, payload);
    client.send_on(0x4000, payload);
    client.settle();
    let after = relay.metrics();
    assert_eq!(
        after.dropped_forbidden,
        before.dropped_forbidden + 1,
        "{peer}"
    );
    assert_eq!(
        after.dropped_no_channel,
        before.dropped_no_channel + 1,
        "{peer}"
    );
    assert_eq!(after.packets_to_peers, before.packets_to_peers, "{peer}");
}

#[test]
fn special_addresses_are_forbidden_in_every_spelling() {
    let relay = relay();
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    let v4 = SPECIAL_V4.iter().flat_map(|(first, last)| [first, last]);
    let v6 = SPECIAL_V6.iter().flat_map(|(first, last)| [first, last]);
    let all = v4
        .flat_map(|v4| spellings(v4.parse().unwrap()))
        .chain(v6.map(|v6| v6.parse().unwrap()));
    for ip in all {
        assert_forbidden(&relay, &client, SocketAddr::new(ip, PORT), b"x");
    }
}

#[test]
fn the_addresses_beside_them_are_not() {
    let relay = relay();
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    let v4 = PUBLIC_V4
        .iter()
        .flat_map(|v4| spellings(v4.parse().unwrap()));
    let v6 = PUBLIC_V6.iter().map(|v6| v6.parse().unwrap());
    for (number, ip) in (0x4000..).zip(v4.chain(v6)) {
        let peer = SocketAddr::new(ip, PORT);
        assert_eq!(client.permit(peer), None, "CreatePermission {peer}");
        assert_eq!(client.bind(number, peer), None, "ChannelBind {peer}");
    }
}

#[test]
fn who_listens_on_the_relays_machine_hears_nothing() {
    let relay = relay();
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    for own in ["127.0.0.1", "::1"] {
        let listening = UdpSocket::bind((own, 0)).unwrap();
        let port = listening.local_addr().unwrap().port();
        let mut names = vec!["0.0.0.0", "127.0.0.1", "127.0.0.2", "127.255.255.254"]
            .into_iter()
            .flat_map(|v4| spellings(v4.parse().unwrap()))
            .collect::<Vec<_>>();
        names.extend(["::", "::1"].map(|v6| v6.parse::<IpAddr>().unwrap()));
        for name in names {
            assert_forbidden(&relay, &client, SocketAddr::new(name, port), b"x");
        }
        assert_silent(&listening);
    }
}

#[test]
fn the_relay_does_not_talk_to_itself() {
    let relay = relay();
    let (client, mut selves) = Client::with_both_families(relay.listening()[0].address);
    selves.extend(relay.listening().iter().map(|listen| listen.address));
    let binding = request(BINDING, &[]).finish();
    for own in selves {
        let before = relay.metrics().answers;
        assert_forbidden(&relay, &client, own, &binding);
        let for_us = ["permission", "channel", "settled"].len();
        assert_eq!(relay.metrics().answers - before, for_us as u64, "{own}");
    }
}

#[test]
fn no_data_goes_to_port_zero() {
    let relay = relay();
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    for peer in ["8.8.8.8:0", "[2a00:1450::1]:0"] {
        let peer = peer.parse().unwrap();
        assert_eq!(client.permit(peer), None, "a permission has no port");
        assert_eq!(client.bind(0x4000, peer), FORBIDDEN);
        let before = relay.metrics().dropped_forbidden;
        client.send_to(peer, b"x");
        client.settle();
        assert_eq!(relay.metrics().dropped_forbidden, before + 1);
    }
}

#[test]
fn a_peer_that_is_forbidden_later_is_cut_off() {
    let relay = loopback::relay(1);
    let (client, relayed) = Client::allocated(relay.listening()[0].address);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(relayed).unwrap();
    peer.set_read_timeout(Some(client::PATIENCE)).unwrap();
    let address = peer.local_addr().unwrap();
    assert_eq!(client.bind(0x4000, address), None);
    let mut heard = [0; 16];
    client.send_to(address, b"by indication");
    assert_eq!(peer.recv(&mut heard).unwrap(), 13);
    client.send_on(0x4000, b"by channel");
    assert_eq!(peer.recv(&mut heard).unwrap(), 10);
    peer.send(b"back").unwrap();
    assert_eq!(&client.receive()[4..], b"back");

    relay.reload(&strict()).unwrap();
    // Orders are obeyed one after the other, and this one is answered.
    assert_eq!(relay.revoke("nobody", std::time::Duration::ZERO).ended, 0);
    peer.send(b"back").unwrap();
    let before = relay.metrics();
    assert_dropped(&relay, &client, address, b"x");
    assert_silent(&peer);
    let after = relay.metrics();
    assert_eq!(after.packets_to_clients, before.packets_to_clients);
    assert_eq!(client.permit(address), FORBIDDEN);
}

/// What the relay has sent is there: it sends to peers before it answers.
fn assert_silent(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    let heard = socket.recv(&mut [0; 16]);
    assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn the_relay_is_no_peer_of_its_own_although_its_address_may_be_named() {
    let relay = loopback::relay(1);
    let (client, _) = Client::with_both_families(relay.listening()[0].address);
    let v4 = relay
        .listening()
        .iter()
        .filter(|listen| listen.address.is_ipv4());
    for (number, listen) in (0x4000..).zip(v4) {
        assert_eq!(client.bind(number, listen.address), Some(403), "{listen:?}");
    }
    let before = relay.metrics();
    client.permit(relay.listening()[0].address);
    client.send_to(relay.listening()[0].address, b"round and round");
    client.settle();
    let after = relay.metrics();
    assert_eq!(after.dropped_forbidden - before.dropped_forbidden, 1);
    assert_eq!(after.packets_to_peers, before.packets_to_peers);
}
