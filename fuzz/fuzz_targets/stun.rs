//! Any datagram; an answer is never much longer than the question.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::stun;

fuzz_target!(|packet: &[u8]| {
    let source = "[2001:db8::1]:9".parse().expect("a valid address");
    if let Some(answer) = stun::answer(packet, source) {
        assert!(answer.len() <= packet.len() + 24);
    }
    let _address = stun::mapped_address(packet, &[0; 12]);
});
