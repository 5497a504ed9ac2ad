//! STUN messages and ChannelData in a stream (RFC 8656 §12.5, §3.1). Sans-IO.

use bytes::{Buf as _, BufMut as _, BytesMut};

/// Bytes before the length of a STUN message counts.
const STUN_HEADER: usize = 20;

/// Bytes before the data of ChannelData.
const CHANNEL_HEADER: usize = 4;

/// The magic cookie of STUN (RFC 8489 §5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Largest packet: a length of 16 bits with what comes before it, padded.
pub(super) const MAX_PACKET: usize = STUN_HEADER + 64 * 1024;

/// What came is neither STUN nor ChannelData: there is no way to find the next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the relay's stream holds something else than its packets")]
pub(super) struct Garbage;

/// A packet at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    /// Its length.
    length: usize,
    /// Its length in the stream.
    padded: usize,
}

impl Frame {
    /// Looks at the beginning of a packet; `None`: too few bytes to know.
    fn of(bytes: &[u8]) -> Result<Option<Self>, Garbage> {
        let &[first, _, high, low, ..] = bytes else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        match first {
            0..=63 => {
                let cookie = bytes.get(4..8);
                if length % 4 != 0 || cookie.is_some_and(|cookie| cookie != COOKIE) {
                    return Err(Garbage);
                }
                let length = STUN_HEADER + length;
                Ok(Some(Self {
                    length,
                    padded: length,
                }))
            }
            64..=127 => {
                let length = CHANNEL_HEADER + length;
                Ok(Some(Self {
                    length,
                    padded: length.next_multiple_of(4),
                }))
            }
            128..=255 => Err(Garbage),
        }
    }
}

/// Takes the first whole packet out of what has come, without its padding.
pub(super) fn take(stream: &mut BytesMut) -> Result<Option<BytesMut>, Garbage> {
    let Some(frame) = Frame::of(stream)? else {
        return Ok(None);
    };
    if stream.len() < frame.padded {
        return Ok(None);
    }
    let packet = stream.split_to(frame.length);
    stream.advance(frame.padded - frame.length);
    Ok(Some(packet))
}

/// Appends a packet as a stream has it.
///
/// # Errors
/// [`Garbage`] if it is none, or not a whole one; then nothing is appended.
pub(super) fn put(packet: &[u8], stream: &mut BytesMut) -> Result<(), Garbage> {
    let frame = Frame::of(packet)?.ok_or(Garbage)?;
    let packet = packet.get(..frame.length).ok_or(Garbage)?;
    stream.put_slice(packet);
    stream.put_bytes(0, frame.padded - frame.length);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(words: u8) -> Vec<u8> {
        let mut packet = vec![0x00, 0x03, 0, words * 4];
        packet.extend(COOKIE);
        packet.resize(STUN_HEADER + usize::from(words) * 4, 7);
        packet
    }

    fn channel_data(data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&[0x40, 0x01], &length[..], data].concat()
    }

    fn packet() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0..60_u8).prop_map(stun),
            prop::collection::vec(any::<u8>(), 0..1500).prop_map(|data| channel_data(&data)),
        ]
    }

    #[test]
    fn channel_data_is_padded_in_a_stream() {
        let mut stream = BytesMut::new();
        put(&channel_data(b"abcde"), &mut stream).unwrap();
        assert_eq!(&stream[..], b"\x40\x01\x00\x05abcde\0\0\0");
        assert_eq!(take(&mut stream).unwrap().unwrap(), channel_data(b"abcde"));
        assert!(stream.is_empty());
    }

    #[test]
    fn padding_of_a_datagram_is_not_repeated() {
        let mut padded = channel_data(b"abc");
        padded.push(0);
        let mut stream = BytesMut::new();
        put(&padded, &mut stream).unwrap();
        assert_eq!(&stream[..], &padded);
    }

    #[test]
    fn the_largest_packets_pass() {
        let mut stream = BytesMut::new();
        let largest = channel_data(&vec![1; usize::from(u16::MAX)]);
        put(&largest, &mut stream).unwrap();
        assert!(stream.len() <= MAX_PACKET);
        assert_eq!(take(&mut stream).unwrap().unwrap(), largest);
    }

    #[test]
    fn other_bytes_end_the_stream() {
        for garbage in [
            &b"HTTP/1.1 400 Bad Request"[..],
            &[0x80, 0, 0, 0],
            &[0, 1, 0, 3],
            &[0, 1, 0, 4, 1, 2, 3, 4],
        ] {
            let is_text = garbage[0].is_ascii_alphabetic();
            let taken = take(&mut BytesMut::from(garbage));
            // Text looks like ChannelData of a length that never comes.
            assert_eq!(taken, if is_text { Ok(None) } else { Err(Garbage) });
        }
        let mut stream = BytesMut::new();
        for part in [&b""[..], &[0x40], &[0x40, 1, 0, 9, 1]] {
            assert_eq!(put(part, &mut stream), Err(Garbage));
        }
        assert!(stream.is_empty());
    }

    proptest! {
        #[test]
        fn packets_survive_a_stream_that_is_cut_anywhere(
            packets in prop::collection::vec(packet(), 1..8),
            cuts in prop::collection::vec(1..700_usize, 1..20),
        ) {
            let mut sent = BytesMut::new();
            for packet in &packets {
                put(packet, &mut sent).unwrap();
            }
            let (mut stream, mut taken) = (BytesMut::new(), Vec::new());
            let mut cuts = cuts.iter().cycle();
            while !sent.is_empty() {
                let cut = sent.len().min(*cuts.next().unwrap());
                stream.extend_from_slice(&sent.split_to(cut));
                while let Some(packet) = take(&mut stream).unwrap() {
                    taken.push(packet.to_vec());
                }
            }
            prop_assert_eq!(taken, packets);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = take(&mut stream) {
                prop_assert!(packet.len() >= CHANNEL_HEADER);
            }
        }
    }
}
