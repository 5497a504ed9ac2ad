//! Any messages, over any number of channels: a lane breaks or goes on, never panics, and reads bytes in
//! order. An empty message stands for the loss of the channel.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use portway_protocol::lane::Lane;

fuzz_target!(|messages: Vec<Vec<u8>>| {
    let mut lane = Lane::default();
    for (at, message) in messages.into_iter().enumerate() {
        let now = Duration::from_millis(at as u64);
        if lane.room() > 0 {
            lane.write(Bytes::from_static(b"answer"));
        }
        if message.is_empty() {
            lane.resume();
            continue;
        }
        if lane.receive(Bytes::from(message), now).is_err() {
            return;
        }
        while lane.read().is_some() {}
        while lane.poll_transmit(now).is_some() {}
        lane.flush_acks();
    }
});
