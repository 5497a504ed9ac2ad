//! All that `turnutils_uclient` of coturn can do with a relay that keeps to RFC 8656, over every
//! transport. Mobility, TCP relaying and the discovery of NATs are not here.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod coturn;
mod loopback;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;
use std::thread;

use coturn::{NOTHING_LOST, command, run};
use loopback::{SECRET, config};
use portway_relay::Relay;
use portway_relay::config::{Config, Listen, Transport};
use portway_relay_proto::quota::Quota;

const UCLIENT: &str = "turnutils_uclient";

const ANN: [&str; 4] = ["-u", "ann", "-w", "ann's"];

/// What two clients do that talk to each other through their relayed addresses, and how many messages
/// of 301 bytes each then sends and receives: ten for each relayed address.
const MODES: &[(&str, &[&str], u64)] = &[
    ("Send and Data indications", &["-c"], 20),
    ("DONT-FRAGMENT", &["-c", "-g"], 20),
    ("padding everywhere", &["-c", "-D"], 20),
    ("requests again and again", &["-c", "-G"], 20),
    ("requests that must fail among others", &["-c", "-N"], 20),
    ("REQUESTED-ADDRESS-FAMILY: IPv4", &["-c", "-X"], 20),
    ("REQUESTED-ADDRESS-FAMILY: IPv6", &["-c", "-x"], 20),
    ("RTP and RTCP: EVEN-PORT, RESERVATION-TOKEN", &[], 40),
];

/// A relay whose users may hold much: this client does not always give back what it had.
fn relay() -> Relay {
    Relay::start(&Config {
        quota: Quota {
            allocations_per_user: usize::MAX,
            allocations_per_source: usize::MAX,
            strangers_per_second: u32::MAX,
            ..Quota::default()
        },
        ..config(2)
    })
    .unwrap()
}

const fn transport(listen: Listen) -> &'static [&'static str] {
    match listen.transport {
        Transport::Udp => &[],
        Transport::Tcp => &["-t"],
        Transport::Tls => &["-t", "-S"],
    }
}

/// Two clients talk in a mode through a listener of a relay that is theirs alone.
fn talk(listener: usize, mode: &[&str], credentials: &[&str], messages: u64) {
    let relay = relay();
    let listen = relay.listening()[listener];
    let args = [
        &["-y", "-s", "-m", "2", "-n", "10", "-l", "301"],
        mode,
        transport(listen),
        credentials,
    ]
    .concat();
    match listen.transport {
        Transport::Udp | Transport::Tcp => {
            let said = run(UCLIENT, &args, listen.address);
            assert!(said.contains(NOTHING_LOST), "{said}");
            let sent = format!("tot_send_msgs={messages}, tot_recv_msgs={messages}");
            assert!(said.contains(&sent), "{said}");
        }
        Transport::Tls => until_relayed(&relay, &args, listen.address, messages),
    }
    let passed = relay.metrics();
    assert_eq!(
        (passed.packets_to_peers, passed.packets_to_clients),
        (messages, messages),
        "{passed:?}"
    );
    assert_eq!(passed.dropped_unsent, 0);
}

/// Over TLS this client reads one message when OpenSSL has several, and waits for the others, with
/// coturn's server as well: what counts is what it was sent. It says every second where it is.
fn until_relayed(relay: &Relay, args: &[&str], server: SocketAddr, messages: u64) {
    let mut client = command(UCLIENT, args, server)
        .stdout(Stdio::piped())
        .spawn()
        .expect("coturn's tools are installed by `cargo xtask test`");
    let said = BufReader::new(client.stdout.take().unwrap());
    let is_done = |_: &_| relay.metrics().packets_to_clients >= messages;
    let last = said.lines().map(Result::unwrap).find(is_done);
    assert!(last.is_some(), "{:?}", relay.metrics());
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn two_clients_talk_in_every_mode_over_every_transport() {
    thread::scope(|scope| {
        for listener in 0..config(1).listen.len() {
            for (what, mode, messages) in MODES {
                let talk = move || {
                    talk(listener, mode, &ANN, *messages);
                };
                let name = format!("{what}, listener {listener}");
                thread::Builder::new()
                    .name(name)
                    .spawn_scoped(scope, talk)
                    .unwrap();
            }
        }
    });
}

#[test]
fn the_ephemeral_credentials_that_coturn_makes_are_good() {
    let secret = std::str::from_utf8(SECRET).unwrap();
    talk(0, &["-c"], &["-u", "eve", "-W", secret], 20);
}

/// This client draws the numbers of its channels as RFC 5766 had it, and gives up at a refusal. One in
/// four is still good (RFC 8656 §12), and it needs two.
#[test]
fn a_client_talks_to_a_peer_by_channels_when_it_draws_good_numbers() {
    const DRAWS: usize = 400;
    let relay = relay();
    let peer = echo();
    for (listener, mode) in [(0, ""), (0, "-g"), (2, "")] {
        let listen = relay.listening()[listener];
        let port = peer.port().to_string();
        let mut args = vec![
            "-c",
            "-n",
            "10",
            "-l",
            "301",
            "-e",
            "127.0.0.1",
            "-r",
            &port,
        ];
        args.extend(mode.split_whitespace());
        args.extend(transport(listen));
        args.extend(ANN);
        let before = relay.metrics();
        let drew = (0..DRAWS).any(|_| run(UCLIENT, &args, listen.address).contains(NOTHING_LOST));
        assert!(drew, "{listen:?} {mode}");
        let after = relay.metrics();
        assert_eq!(after.packets_to_peers - before.packets_to_peers, 10);
        assert_eq!(after.packets_to_clients - before.packets_to_clients, 10);
        assert_eq!(after.dropped_no_channel, 0);
    }
}

/// A peer that sends back all it gets, until this process ends.
fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            socket.send_to(&packet[..length], from).unwrap();
        }
    });
    address
}
