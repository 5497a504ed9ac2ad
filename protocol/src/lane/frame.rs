//! Frames of a lane, see the table in `docs/protocol.md` §5. Sans-IO. Hot path.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::limits::MAX_NATIVE_MESSAGE;
use crate::reason::Reason;

const DATA: u8 = 0x10;
const ACK: u8 = 0x11;
const END: u8 = 0x12;
const BYE: u8 = 0x13;
const PING: u8 = 0x18;
const PONG: u8 = 0x19;

/// Bytes before the payload of a data frame: type, lane, offset.
pub const DATA_HEADER: usize = 1 + 1 + 8;

/// Longest [`Frame::Bye`]: its type, and the longest code that a newer version may have.
const MAX_BYE: usize = 1 + 64;

/// Opaque bytes of a ping.
pub type PingToken = [u8; 8];

/// A parsed frame. A payload shares the memory of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes at an offset.
    Data {
        /// Which lane.
        lane: u8,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        payload: Bytes,
    },
    /// All bytes below the offset have been received.
    Ack {
        /// Which lane.
        lane: u8,
        /// First byte that has not been received.
        offset: u64,
    },
    /// The lane ends at the offset.
    End {
        /// Which lane.
        lane: u8,
        /// Total length.
        offset: u64,
    },
    /// Whoever says this has ended the session.
    Bye(Reason),
    /// To be answered by a pong.
    Ping(PingToken),
    /// Answers a ping.
    Pong(PingToken),
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_NATIVE_MESSAGE`].
    #[error("a message of {0} bytes")]
    TooLong(usize),
    /// Shorter or longer than its type allows.
    #[error("a frame of type {kind:#04x} with {len} bytes")]
    Length {
        /// First byte; 0 for an empty message.
        kind: u8,
        /// Length of the message.
        len: usize,
    },
    /// An unknown type.
    #[error("unknown frame type {0:#04x}")]
    Kind(u8),
}

/// Parses a message.
///
/// # Errors
/// See [`FrameError`].
pub fn parse(mut message: Bytes) -> Result<Frame, FrameError> {
    let len = message.len();
    if len > MAX_NATIVE_MESSAGE {
        return Err(FrameError::TooLong(len));
    }
    let kind = message
        .first()
        .copied()
        .ok_or(FrameError::Length { kind: 0, len })?;
    let fits = match kind {
        DATA => len > DATA_HEADER,
        ACK | END => len == DATA_HEADER,
        BYE => (2..=MAX_BYE).contains(&len),
        PING | PONG => len == 9,
        other => return Err(FrameError::Kind(other)),
    };
    if !fits {
        return Err(FrameError::Length { kind, len });
    }
    message.advance(1);
    if kind == BYE {
        return Ok(Frame::Bye(Reason::from_code(&message)));
    }
    if kind == PING || kind == PONG {
        let token = message.get_u64().to_be_bytes();
        return Ok(if kind == PING {
            Frame::Ping(token)
        } else {
            Frame::Pong(token)
        });
    }
    let lane = message.get_u8();
    let offset = message.get_u64();
    Ok(match kind {
        DATA => Frame::Data {
            lane,
            offset,
            payload: message,
        },
        ACK => Frame::Ack { lane, offset },
        _ => Frame::End { lane, offset },
    })
}

/// A data frame of lane 0.
#[must_use]
pub fn data(offset: u64, payload: &[u8]) -> Bytes {
    let mut message = header(DATA, offset, payload.len());
    message.extend_from_slice(payload);
    message.freeze()
}

/// An acknowledgement of lane 0.
#[must_use]
pub fn ack(offset: u64) -> Bytes {
    header(ACK, offset, 0).freeze()
}

/// The end of lane 0.
#[must_use]
pub fn end(offset: u64) -> Bytes {
    header(END, offset, 0).freeze()
}

/// The end of the session, and why.
#[must_use]
pub fn bye(reason: Reason) -> Bytes {
    [&[BYE], reason.code().as_bytes()].concat().into()
}

/// A ping.
#[must_use]
pub fn ping(token: PingToken) -> Bytes {
    liveness(PING, token)
}

/// A pong.
#[must_use]
pub fn pong(token: PingToken) -> Bytes {
    liveness(PONG, token)
}

fn header(kind: u8, offset: u64, payload: usize) -> BytesMut {
    let mut message = BytesMut::with_capacity(DATA_HEADER + payload);
    message.put_u8(kind);
    message.put_u8(0);
    message.put_u64(offset);
    message
}

fn liveness(kind: u8, token: PingToken) -> Bytes {
    let mut message = BytesMut::with_capacity(9);
    message.put_u8(kind);
    message.extend_from_slice(&token);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_frames() {
        assert_eq!(data(258, b"hi")[..], *b"\x10\x00\0\0\0\0\0\0\x01\x02hi");
        assert_eq!(ack(1)[..], *b"\x11\x00\0\0\0\0\0\0\0\x01");
        assert_eq!(end(2)[..], *b"\x12\x00\0\0\0\0\0\0\0\x02");
        assert_eq!(bye(Reason::GrantUnknown)[..], *b"\x13GRANT_UNKNOWN");
        assert_eq!(ping(*b"12345678")[..], *b"\x1812345678");
        assert_eq!(pong(*b"12345678")[..], *b"\x1912345678");
    }

    #[test]
    fn lengths_are_exact() {
        for bad in [
            &b""[..],
            b"\x10",
            b"\x11\0\0",
            b"\x13",
            b"\x18\0",
            b"\x10\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(parse(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        assert!(parse(Bytes::from(vec![DATA; MAX_NATIVE_MESSAGE + 1])).is_err());
        assert_eq!(
            parse(Bytes::from_static(b"\x42")),
            Err(FrameError::Kind(0x42))
        );
    }

    #[test]
    fn a_bye_has_a_reason_which_may_be_a_newer_one() {
        for reason in Reason::ALL {
            assert_eq!(parse(bye(*reason)), Ok(Frame::Bye(*reason)));
        }
        let newer = parse(Bytes::from_static(b"\x13SOMETHING_NEW"));
        assert_eq!(newer, Ok(Frame::Bye(Reason::Unknown)));
        let long = parse(Bytes::from(vec![BYE; MAX_BYE + 1]));
        assert!(long.is_err(), "{long:?}");
    }

    proptest! {
        #[test]
        fn data_round_trips(offset: u64, payload in proptest::collection::vec(any::<u8>(), 1..2000)) {
            let parsed = parse(data(offset, &payload)).unwrap();
            prop_assert_eq!(parsed, Frame::Data { lane: 0, offset, payload: payload.into() });
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes: Vec<u8>) {
            let _outcome = parse(Bytes::from(bytes));
        }
    }
}
