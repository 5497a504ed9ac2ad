//! Any bytes that a service may send on a WebSocket, in any pieces.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use portway_web_client::websocket::frame::Decoder;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut decoder = Decoder::default();
    for piece in pieces {
        decoder.feed(BytesMut::from(&piece[..]));
        loop {
            match decoder.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
