//! Any first two messages of a client.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::id::Nonce;
use portway_protocol::session::handshake;

fuzz_target!(|messages: (Vec<u8>, Vec<u8>)| {
    let cluster = "home".parse().expect("a valid name");
    let node = "nas".parse().expect("a valid name");
    let nonce = Nonce::from_bytes([1; Nonce::LEN]);
    if let Ok((_reply, state)) = handshake::hello(&messages.0, &cluster, &node, nonce) {
        drop(state.receive(&messages.1));
    }
});
