//! Variable-length integers (RFC 9000 §16): the first two bits tell how many bytes there are. Sans-IO.

use bytes::{Buf, BufMut as _, BytesMut};

/// Writes one below 2³⁰, in the fewest bytes.
pub(super) fn put(to: &mut BytesMut, value: u32) {
    match value {
        0..0x40 => to.put_u8(value.to_be_bytes()[3]),
        0x40..0x4000 => to.put_slice(&(value | 0x4000).to_be_bytes()[2..]),
        0x4000.. => {
            debug_assert!(value < 1 << 30, "it has to fit");
            to.put_u32(value | 0x8000_0000);
        }
    }
}

/// Takes one off the front; nothing if it is not whole.
pub(super) fn take(from: &mut impl Buf) -> Option<u64> {
    let first = *from.chunk().first()?;
    let len = 1_usize << (first >> 6);
    if from.remaining() < len {
        return None;
    }
    let value = from.get_uint(len);
    Some(value & (u64::MAX >> (64 - 8 * len + 2)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000 §A.1.
    #[test]
    fn the_examples_of_the_standard() {
        for (mut bytes, value) in [
            (
                &b"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c"[..],
                151_288_809_941_952_652,
            ),
            (b"\x9d\x7f\x3e\x7d", 494_878_333),
            (b"\x7b\xbd", 15_293),
            (b"\x25", 37),
            (b"\x40\x25", 37),
        ] {
            assert_eq!(take(&mut bytes), Some(value));
            assert_eq!(bytes.len(), 0);
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value in 0_u32..1 << 30) {
            let mut bytes = BytesMut::new();
            put(&mut bytes, value);
            prop_assert_eq!(take(&mut bytes), Some(u64::from(value)));
            prop_assert!(bytes.is_empty());
        }
    }
}
