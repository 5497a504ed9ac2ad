//! Any packets of clients and peers, with time passing: the relay never panics, and what it forwards is
//! a part of what it got.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portway_relay_proto::Now;
use portway_relay_proto::auth::Users;
use portway_relay_proto::command::{Command, Family};
use portway_relay_proto::five_tuple::{FiveTuple, ListenerId};
use portway_relay_proto::peer_policy::PeerPolicy;
use portway_relay_proto::quota::{Ledger, Quota};
use portway_relay_proto::server::{Config, FromClient, Server};

fuzz_target!(|packets: Vec<(u8, Vec<u8>)>| {
    let mut users = Users::new("fuzz");
    users.add("ann", "ann's");
    let config = Config {
        users,
        peers: PeerPolicy::default(),
        quota: Quota::default(),
        families: vec![Family::V4, Family::V6],
        announce_sha256: true,
        mobility: true,
        discovery: None,
        nonce_key: [0; 32],
    };
    let mut server = Server::new(config, Arc::new(Ledger::default()), 0);
    let relayed = SocketAddr::from(([198, 51, 100, 1], 50_000));
    for (at, (port, packet)) in packets.into_iter().enumerate() {
        let now = Now {
            monotonic: Duration::from_secs(at as u64 * 60),
            unix: at as u64 * 60,
        };
        let client = FiveTuple {
            listener: ListenerId(0),
            client: ([192, 0, 2, 1], u16::from(port)).into(),
            local: None,
        };
        if let FromClient::ToPeer { payload, .. } = server.handle_client(client, &packet, now) {
            assert!(packet.get(payload).is_some());
        }
        server.handle_timeout(now);
        while let Some(command) = server.next_command() {
            if let Command::Bind { relay, .. } = command {
                server.relay_bound(relay, Some(relayed), now);
                server.handle_peer(relay, relayed, packet.len(), now);
            }
        }
    }
});
