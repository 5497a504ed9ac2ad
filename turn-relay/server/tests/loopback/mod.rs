//! A relay on loopback, of both families and all transports, whose peers may be there too.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]
#![allow(dead_code, reason = "each test uses a part")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use portway_relay::Relay;
use portway_relay::config::{Config, Listen, RELAY_PORTS, Transport};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::Quota;
use rustls::pki_types::PrivateKeyDer;

/// What the clients of `portway-relay-proto`'s tests expect.
pub(crate) const REALM: &str = "portway";

pub(crate) const SECRET: &[u8] = b"a secret of tests";

fn listen(transport: Transport, address: &str) -> Listen {
    Listen {
        transport,
        address: address.parse().unwrap(),
    }
}

/// A certificate that nobody else has signed, and the configuration of a server that has it.
pub(crate) fn certificate() -> (rcgen::Certificate, Arc<rustls::ServerConfig>) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert, Arc::new(config))
}

/// What a client speaks that trusts this certificate only.
pub(crate) fn trusting(certificate: &rcgen::Certificate) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A relay on loopback, whose peers may be there too.
pub(crate) fn relay(workers: usize) -> Relay {
    Relay::start(&config(workers)).unwrap()
}

pub(crate) fn config(workers: usize) -> Config {
    Config {
        listen: vec![
            listen(Transport::Udp, "127.0.0.1:0"),
            listen(Transport::Udp, "[::1]:0"),
            listen(Transport::Tcp, "127.0.0.1:0"),
            listen(Transport::Tls, "127.0.0.1:0"),
        ],
        tls: Some(certificate().1),
        relay_ips: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        external_ips: Vec::new(),
        relay_ports: RELAY_PORTS,
        realm: REALM.to_owned(),
        users: vec![("ann".to_owned(), "ann's".to_owned())],
        secrets: vec![SECRET.to_vec()],
        alternate: None,
        tcp_allocations: false,
        session_separator: None,
        prolong: Duration::ZERO,
        peers: PeerPolicy {
            allow: vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()],
            ..PeerPolicy::default()
        },
        quota: Quota::default(),
        announce_sha256: false,
        workers: NonZeroUsize::new(workers).unwrap(),
    }
}
