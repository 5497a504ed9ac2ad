//! Any text on the signaling socket, or as a description; what is understood survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::session::binding::Fingerprint;
use portway_protocol::signal::pairing::PairReply;
use portway_protocol::signal::{Call, Envelope, decode_result};

fuzz_target!(|text: &str| {
    let _named = Fingerprint::of_description(text);
    let Ok(envelope) = Envelope::parse(text) else {
        return;
    };
    if let Some(result) = &envelope.result
        && let Ok(reply) = decode_result::<PairReply>(result)
    {
        let again = Envelope::result(String::new(), &reply).to_text();
        Envelope::parse(&again).expect("our own message");
    }
    if let Some(method) = &envelope.method
        && let Ok(call) = Call::from_parts(method, envelope.params.as_deref())
    {
        let again = Envelope::call(None, &call).to_text();
        Envelope::parse(&again).expect("our own message");
    }
});
