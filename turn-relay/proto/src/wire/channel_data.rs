//! ChannelData (RFC 8656 §12.4): number, length, payload. Hot path.

use std::ops::Range;

use crate::channel::ChannelNumber;

/// Bytes before the payload.
pub const HEADER: usize = 4;

/// Whether a packet is ChannelData: STUN begins with two zero bits (RFC 7983).
#[must_use]
pub fn is_channel_data(packet: &[u8]) -> bool {
    packet
        .first()
        .is_some_and(|byte| (0x40..=0x4f).contains(byte))
}

/// Number and place of the payload. What follows it is padding.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<(ChannelNumber, Range<usize>)> {
    let [a, b, c, d] = *packet.first_chunk()?;
    let number = ChannelNumber::new(u16::from_be_bytes([a, b]))?;
    let end = HEADER + usize::from(u16::from_be_bytes([c, d]));
    (end <= packet.len()).then_some((number, HEADER..end))
}

/// The header before a payload.
#[must_use]
pub const fn header(number: ChannelNumber, length: u16) -> [u8; HEADER] {
    let [a, b] = number.get().to_be_bytes();
    let [c, d] = length.to_be_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_short_or_reserved_is_refused() {
        assert!(parse(&[0x40, 0, 0, 1]).is_none());
        assert!(parse(&[0x40, 0, 0]).is_none());
        assert!(parse(&[0x50, 0, 0, 0]).is_none());
        let number = ChannelNumber::new(0x4000).unwrap();
        assert_eq!(parse(&[0x40, 0, 0, 0]), Some((number, 4..4)));
        assert_eq!(parse(&[0x40, 0, 0, 1, 9, 0, 0, 0]), Some((number, 4..5)));
    }

    proptest! {
        #[test]
        fn a_header_is_read_as_written(number in 0x4000u16..=0x4fff, payload: Vec<u8>) {
            let number = ChannelNumber::new(number).unwrap();
            let length = u16::try_from(payload.len()).unwrap();
            let mut packet = header(number, length).to_vec();
            packet.extend_from_slice(&payload);
            prop_assert!(is_channel_data(&packet));
            prop_assert_eq!(parse(&packet), Some((number, HEADER..packet.len())));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(packet: Vec<u8>) {
            if let Some((_, range)) = parse(&packet) {
                prop_assert!(packet.get(range).is_some());
            }
        }
    }
}
