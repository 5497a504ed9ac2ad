//! Any first two messages of a client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::id::Nonce;
use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;
use portway_protocol::session::binding::{Binding, Fingerprint};
use portway_protocol::session::handshake;
use portway_protocol::session::party::Node;

fuzz_target!(|messages: (Vec<u8>, Vec<u8>)| {
    let cluster = "home".parse().expect("a valid name");
    let node = "nas".parse().expect("a valid name");
    let nonce = Nonce::from_bytes([1; Nonce::LEN]);
    let node = Node {
        cluster: &cluster,
        id: &node,
        certificate: "",
        key: &SigningKey::from_seed(&Secret::new([1; 32])),
    };
    let binding = Binding {
        client: Fingerprint::from_bytes([1; 32]),
        gateway: Fingerprint::from_bytes([2; 32]),
    };
    if let Ok((_reply, state)) = handshake::hello(&messages.0, &node, nonce, binding) {
        drop(state.receive(&messages.1));
    }
});
