//! Any messages of either end of a handshake: the first two of a client, and the two of a gateway.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::id::{ClusterName, GrantId, Nonce, SessionId};
use portway_protocol::key::SigningKey;
use portway_protocol::revocation::Revocations;
use portway_protocol::secret::Secret;
use portway_protocol::session::binding::{Binding, Fingerprint};
use portway_protocol::session::handshake;
use portway_protocol::session::party::{Certificate, Holder, Node, Trust};

const BINDING: Binding = Binding {
    client: Fingerprint::from_bytes([1; 32]),
    gateway: Fingerprint::from_bytes([2; 32]),
};

fuzz_target!(|messages: (bool, Vec<u8>, Vec<u8>)| {
    let (is_gateway, first, second) = messages;
    let key = SigningKey::from_seed(&Secret::new([1; 32]));
    let cluster = "home".parse().expect("a valid name");
    if is_gateway {
        visit(cluster, &key, [&first, &second]);
    } else {
        receive(&cluster, &key, [&first, &second]);
    }
});

/// A gateway hears them.
fn receive(cluster: &ClusterName, key: &SigningKey, messages: [&[u8]; 2]) {
    let node = Node {
        cluster,
        id: &"nas".parse().expect("a valid name"),
        certificate: Certificate {
            token: "",
            rotations: &[],
        },
        key,
    };
    let nonce = Nonce::from_bytes([1; Nonce::LEN]);
    if let Ok((_reply, state)) = handshake::hello(messages[0], &node, nonce, BINDING)
        && let Ok(claim) = state.receive(messages[1])
    {
        drop(claim.verify(&key.public(), None));
    }
}

/// A client hears them. Nobody has signed what a gateway needs.
fn visit(cluster: ClusterName, key: &SigningKey, messages: [&[u8]; 2]) {
    let session = SessionId::from_bytes([1; 16]);
    let service = "lab".parse().expect("a valid name");
    let nonce = Nonce::from_bytes([1; Nonce::LEN]);
    let revocations = Revocations::new(cluster.clone(), key.public());
    let (_hello, state) = handshake::start(session, cluster, service, nonce);
    let trust = Trust {
        cluster_key: key.public(),
        pinned: None,
        revocations: &revocations,
        node: None,
        binding: BINDING,
        now: 0,
    };
    let holder = Holder {
        grant: GrantId::from_bytes([1; GrantId::LEN]),
        token: None,
        key,
        device: key.public(),
    };
    if let Ok(state) = state.receive(messages[0], &trust, holder) {
        let signature = key.sign(state.to_sign());
        drop(state.signed(signature).1.receive(messages[1]));
    }
}
