//! Datagrams as capsules of a stream (RFC 9297 §3), for when there is no channel for them. Sans-IO.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{CONTEXT, DatagramError, check, payload, varint};
use crate::limits::MAX_MESSAGE;

/// Header that says that a body consists of capsules, with [`PROTOCOL_VALUE`].
pub const PROTOCOL_HEADER: &str = "capsule-protocol";

/// A true boolean (RFC 8941 §3.3.6).
pub const PROTOCOL_VALUE: &str = "?1";

/// Type of the capsule of a datagram. All others are skipped.
const DATAGRAM: u32 = 0;

/// Longest head of ours: type, length, context.
const HEAD: usize = 1 + 4 + 1;

/// A capsule with a datagram.
///
/// # Errors
/// [`DatagramError::TooLong`].
pub fn encode(payload: &[u8]) -> Result<Bytes, DatagramError> {
    check(payload)?;
    let too_long = |_| DatagramError::TooLong(payload.len() as u64);
    let length = u32::try_from(1 + payload.len()).map_err(too_long)?;
    let mut capsule = BytesMut::with_capacity(HEAD + payload.len());
    varint::put(&mut capsule, DATAGRAM);
    varint::put(&mut capsule, length);
    varint::put(&mut capsule, CONTEXT);
    capsule.put_slice(payload);
    Ok(capsule.freeze())
}

/// Finds the datagrams in a stream of capsules. Keeps no more than the beginning of one, if all are taken
/// out after each [`Reader::push`].
#[derive(Debug, Default)]
pub struct Reader {
    unread: BytesMut,
    /// Bytes of a capsule that nobody wants.
    skip: u64,
}

impl Reader {
    /// Takes what comes next on the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.put_slice(bytes);
    }

    /// The payload of the next datagram, once it is whole. The stream goes on behind one that is refused.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn take(&mut self) -> Result<Option<Bytes>, DatagramError> {
        loop {
            let skipped = usize::try_from(self.skip)
                .map_or(self.unread.len(), |skip| skip.min(self.unread.len()));
            self.unread.advance(skipped);
            self.skip -= skipped as u64;
            let mut rest = &self.unread[..];
            let (Some(kind), Some(length)) = (varint::take(&mut rest), varint::take(&mut rest))
            else {
                return Ok(None);
            };
            let head = self.unread.len() - rest.len();
            let wanted = usize::try_from(length).ok().filter(|it| *it <= MAX_MESSAGE);
            match wanted {
                Some(length) if kind == u64::from(DATAGRAM) => {
                    if rest.len() < length {
                        return Ok(None);
                    }
                    self.unread.advance(head);
                    return payload(self.unread.split_to(length).freeze()).map(Some);
                }
                Some(_) | None => {
                    self.unread.advance(head);
                    self.skip = length;
                    if kind == u64::from(DATAGRAM) {
                        return Err(DatagramError::TooLong(length));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MAX_PAYLOAD;
    use super::*;

    #[test]
    fn golden_capsules() {
        assert_eq!(encode(b"").unwrap(), &b"\0\x01\0"[..]);
        assert_eq!(encode(b"hi").unwrap(), &b"\0\x03\0hi"[..]);
        let long = encode(&[7; 100]).unwrap();
        assert_eq!(long[..5], *b"\0\x40\x65\0\x07");
        assert!(encode(&[0; MAX_PAYLOAD + 1]).is_err());
    }

    #[test]
    fn what_is_refused_or_unknown_is_skipped() {
        let mut stream = Reader::default();
        stream.push(b"\x21\x03abc");
        stream.push(b"\0\x02\x07?");
        stream.push(b"\0\0");
        stream.push(b"\0\x80\x01\0\0");
        stream.push(&[0; 0x1_0000]);
        stream.push(b"\0\x03\0hi\0");
        assert_eq!(stream.take(), Err(DatagramError::Context(7)));
        assert_eq!(stream.take(), Err(DatagramError::Truncated));
        assert_eq!(stream.take(), Err(DatagramError::TooLong(0x1_0000)));
        assert_eq!(stream.take(), Ok(Some(Bytes::from_static(b"hi"))));
        assert_eq!(stream.take(), Ok(None));
    }

    proptest! {
        #[test]
        fn datagrams_survive_any_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..10),
            cut in 1_usize..50,
        ) {
            let capsules = payloads.iter().map(|it| encode(it).unwrap());
            let stream = capsules.fold(Vec::new(), |all, it| [&all[..], &it[..]].concat());
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            for part in stream.chunks(cut) {
                reader.push(part);
                while let Some(payload) = reader.take().unwrap() {
                    read.push(payload.to_vec());
                }
            }
            prop_assert_eq!(read, payloads);
        }
    }
}
