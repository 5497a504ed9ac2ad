//! Any bytes that a message bus may send, in any pieces; what is understood says the same when it is sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::message::event::Decoder;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.feed(&piece);
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => {
                    let mut again = Decoder::default();
                    again.feed(&event.encode());
                    assert_eq!(again.next_event().ok().flatten(), Some(event));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
