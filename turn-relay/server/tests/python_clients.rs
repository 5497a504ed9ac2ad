//! Clients in Python talk to each other through a relay over real sockets: aioice and aiortc, which may
//! use nothing but their relayed addresses.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod loopback;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use loopback::config;
use portway_relay::Relay;
use portway_relay::config::{Config, Transport};

/// Runs two clients against each listener of a relay.
fn meet_everywhere(script: &str) {
    let (certificate, tls) = loopback::certificate();
    let mut trusted = tempfile::NamedTempFile::new().unwrap();
    trusted.write_all(certificate.pem().as_bytes()).unwrap();
    let relay = Relay::start(&Config {
        tls: Some(tls),
        ..config(2)
    })
    .unwrap();
    for listen in relay.listening().iter().filter(|l| l.address.is_ipv4()) {
        let transport = match listen.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        let before = relay.metrics();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(here.join("../../target/python-clients/bin/python"))
            .arg(here.join("tests/python").join(script))
            .arg(transport)
            .arg(listen.address.ip().to_string())
            .arg(listen.address.port().to_string())
            .env("SSL_CERT_FILE", trusted.path())
            .output()
            .expect("`cargo xtask test` installs clients in Python");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} over {transport}: {said}");
        let after = relay.metrics();
        assert!(
            after.packets_to_peers > before.packets_to_peers
                && after.packets_to_clients > before.packets_to_clients,
            "{after:?}"
        );
        assert_eq!(after.allocations, 0, "they give back what they had");
    }
}

#[test]
fn aioice_pairs_meet_over_udp_tcp_and_tls() {
    meet_everywhere("aioice_pair.py");
}

#[test]
fn aiortc_pairs_open_a_data_channel_over_udp_tcp_and_tls() {
    meet_everywhere("aiortc_pair.py");
}
