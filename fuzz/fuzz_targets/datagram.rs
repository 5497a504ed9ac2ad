//! Any bytes as messages of the datagram channel, and as a stream of capsules cut anywhere: they are refused or
//! understood, and what is understood is written as it was, but for longer spellings of numbers.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use portway_protocol::datagram::{self, capsule};

fuzz_target!(|parts: Vec<Vec<u8>>| {
    let mut reader = capsule::Reader::default();
    for part in parts {
        reader.push(&part);
        loop {
            match reader.take() {
                Ok(Some(payload)) => {
                    let written = capsule::encode(&payload).expect("it was short enough");
                    let mut again = capsule::Reader::default();
                    again.push(&written);
                    assert_eq!(again.take(), Ok(Some(payload)));
                }
                Ok(None) => break,
                Err(_) => {}
            }
        }
        if let Ok((flow, payload)) = datagram::parse(Bytes::from(part)) {
            let written = datagram::encode(flow, &payload).expect("it was short enough");
            assert_eq!(datagram::parse(written), Ok((flow, payload)));
        }
    }
});
