//! Clients that are not ours talk to a relay over real sockets: coturn's. `coturn_modes` has the table of
//! their ways to do it.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod coturn;
mod loopback;

use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use coturn::{NOTHING_LOST, run};
use loopback::{SECRET, config, relay};
use portway_relay::Relay;
use portway_relay::config::{Config, Listen, Transport};
use portway_relay_proto::auth::ephemeral_credentials;

/// Two clients exchange messages through their relayed addresses, by Send and Data indications.
fn exchange(args: &[&str], username: &str, password: &str, server: Listen) -> String {
    let all = [
        args,
        &["-y", "-s", "-c", "-m", "2", "-n", "10", "-l", "500"],
        &["-u", username, "-w", password],
    ];
    run("turnutils_uclient", &all.concat(), server.address)
}

#[test]
fn a_client_learns_its_address() {
    let relay = relay(1);
    for server in &relay.listening()[..2] {
        let server = server.address;
        let said = run("turnutils_stunclient", &[], server);
        let reflexive = format!("UDP reflexive addr: {}", server.ip());
        assert!(
            said.contains(&reflexive)
                || said.contains(&format!("UDP reflexive addr: [{}]", server.ip())),
            "{said}"
        );
    }
}

#[test]
fn clients_talk_through_their_relayed_addresses() {
    let relay = relay(2);
    let said = exchange(&[], "ann", "ann's", relay.listening()[0]);
    assert!(said.contains(NOTHING_LOST), "{said}");
    let passed = relay.metrics();
    assert!(
        passed.packets_to_peers >= 20 && passed.packets_to_clients >= 20,
        "{passed:?}"
    );
}

#[test]
fn ephemeral_credentials_open_and_revocation_closes() {
    let relay = relay(1);
    let far = 4_000_000_000;
    let (username, password) = ephemeral_credentials(SECRET, "eve", far);
    let said = exchange(&[], &username, &password, relay.listening()[0]);
    assert!(said.contains(NOTHING_LOST), "{said}");
    let (username, _) = ephemeral_credentials(b"another secret", "eve", far);
    let said = exchange(&[], &username, "wrong", relay.listening()[0]);
    assert!(!said.contains(NOTHING_LOST), "{said}");
    assert_eq!(relay.revoke("nobody", Duration::ZERO).ended, 0);
}

#[test]
fn a_revoked_user_is_cut_off_while_it_talks() {
    let relay = relay(2);
    let server = relay.listening()[0].address;
    let mut client = Command::new("turnutils_uclient")
        .args(["-y", "-s", "-c", "-m", "2", "-n", "100000"])
        .args(["-u", "ann", "-w", "ann's"])
        .args(["-p", &server.port().to_string(), &server.ip().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("coturn's tools are installed by `cargo xtask test`");
    while relay.metrics().packets_to_clients == 0 {
        assert!(client.try_wait().unwrap().is_none(), "the client gave up");
        std::thread::yield_now();
    }
    let alive = relay.metrics().allocations;
    assert!(alive >= 2);
    let sessions = relay.sessions(usize::MAX);
    assert_eq!(sessions.len() as u64, alive);
    assert!(sessions.iter().any(|its| its.traffic.bytes_to_client > 0));
    let one = &sessions[0];
    assert_eq!((&*one.user, one.transport), ("ann", Transport::Udp));
    assert_eq!(relay.sessions(1).len(), 1);
    assert_eq!(relay.revoke_session(&one.id).as_deref(), Some("ann"));
    assert_eq!(relay.revoke_session(&one.id), None);
    let revoked = relay.revoke("ann", Duration::ZERO);
    assert_eq!(revoked.ended as u64, alive - 1);
    assert!(revoked.has_password, "it may come back");
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(relay.metrics().allocations, 0);
}

#[test]
fn a_port_that_is_taken_is_told() {
    let first = relay(2);
    let config = Config {
        listen: vec![first.listening()[0]],
        ..config(2)
    };
    let error = Relay::start(&config).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
}

/// Two ports that are free now, on both addresses.
fn two_ports() -> (u16, u16) {
    let free = || {
        let first = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        UdpSocket::bind(("127.0.0.2", port)).map(|second| (port, first, second))
    };
    let sockets: Vec<_> = std::iter::repeat_with(free).flatten().take(2).collect();
    (sockets[0].0, sockets[1].0)
}

#[test]
fn a_client_finds_out_what_nat_it_is_behind() {
    let (first, second) = two_ports();
    let primary: SocketAddr = ([127, 0, 0, 1], first).into();
    let relay = Relay::start(&Config {
        listen: vec![Listen {
            transport: Transport::Udp,
            address: primary,
        }],
        alternate: Some(([127, 0, 0, 2], second).into()),
        ..config(1)
    })
    .unwrap();
    let said = run("turnutils_natdiscovery", &["-m", "-f"], primary);
    for found in [
        "NAT with Endpoint Independent Mapping",
        "NAT with Endpoint Independent Filtering",
    ] {
        assert!(said.contains(found), "{said}");
    }
    drop(relay);
}

#[test]
fn a_client_that_could_move_is_served() {
    let relay = relay(1);
    let said = exchange(&["-M"], "ann", "ann's", relay.listening()[0]);
    assert!(said.contains(NOTHING_LOST), "{said}");
}
