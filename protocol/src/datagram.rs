//! Datagrams of a session: HTTP Datagrams (RFC 9297) with the payload of connect-udp (RFC 9298 §5), see
//! `docs/protocol.md` §6. Sans-IO. Hot path.
//!
//! ```text
//! on the datagram channel, a message each:  flow ‖ context 0 ‖ payload
//! on the stream of the flow, a capsule each: type 0 ‖ length ‖ context 0 ‖ payload
//! ```
//! A number is a variable-length integer (RFC 9000 §16). HTTP/2 knows no datagrams beside its streams, so the
//! flow is named by the client, in a header of the request that opens it.
//!
//! - [`capsule`]: the second form.

pub mod capsule;
mod varint;

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::limits::MAX_MESSAGE;

/// Header by which a request opens a flow: its [`FlowId`].
pub const FLOW_HEADER: &str = "portway-flow";

/// The only context there is: the payload of a UDP datagram, unaltered.
const CONTEXT: u32 = 0;

/// Longest head of a message: flow and context.
const HEAD: usize = 4 + 1;

/// Bytes of a message that fit into one packet of SCTP within the smallest packet that IPv6 carries.
const PACKET: usize = 1160;

/// Largest payload that travels in one packet. What is larger is cut up, and lost with any of its parts.
pub const MTU: usize = PACKET - HEAD;

/// Largest payload at all.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - HEAD;

/// A flow of a session: what goes between one local address and the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(u32);

impl FlowId {
    /// The highest: it takes four bytes on the wire.
    pub const MAX: Self = Self((1 << 30) - 1);

    /// `None` above [`FlowId::MAX`].
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id <= Self::MAX.0 {
            Some(Self(id))
        } else {
            None
        }
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for FlowId {
    type Err = DatagramError;

    fn from_str(text: &str) -> Result<Self, DatagramError> {
        // No sign, no space: one spelling.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let id = text.parse().ok().filter(|_| is_plain);
        id.and_then(Self::new).ok_or(DatagramError::Flow)
    }
}

/// Why bytes are no datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It ends within its head.
    #[error("a datagram ends within its head")]
    Truncated,
    /// There is no flow of such a number.
    #[error("no number of a flow")]
    Flow,
    /// Of another context than that of UDP payloads.
    #[error("unknown context {0}")]
    Context(u64),
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("a datagram of {0} bytes")]
    TooLong(u64),
}

/// A message of the datagram channel.
///
/// # Errors
/// [`DatagramError::TooLong`].
pub fn encode(flow: FlowId, payload: &[u8]) -> Result<Bytes, DatagramError> {
    check(payload)?;
    let mut message = BytesMut::with_capacity(HEAD + payload.len());
    varint::put(&mut message, flow.0);
    varint::put(&mut message, CONTEXT);
    message.put_slice(payload);
    Ok(message.freeze())
}

/// Reads a message of the datagram channel. The payload shares its memory.
///
/// # Errors
/// See [`DatagramError`].
pub fn parse(mut message: Bytes) -> Result<(FlowId, Bytes), DatagramError> {
    let flow = varint::take(&mut message).ok_or(DatagramError::Truncated)?;
    let flow = u32::try_from(flow).ok().and_then(FlowId::new);
    Ok((flow.ok_or(DatagramError::Flow)?, payload(message)?))
}

/// What is behind the context.
fn payload(mut datagram: Bytes) -> Result<Bytes, DatagramError> {
    let context = varint::take(&mut datagram).ok_or(DatagramError::Truncated)?;
    if context != u64::from(CONTEXT) {
        return Err(DatagramError::Context(context));
    }
    check(&datagram)?;
    Ok(datagram)
}

fn check(payload: &[u8]) -> Result<(), DatagramError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(DatagramError::TooLong(payload.len() as u64));
    }
    Ok(())
}

const _: () = assert!(MTU < MAX_PAYLOAD);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_messages() {
        for (flow, golden) in [
            (5, &b"\x05\0hi"[..]),
            (300, b"\x41\x2c\0hi"),
            (70_000, b"\x80\x01\x11\x70\0hi"),
        ] {
            let flow = FlowId::new(flow).unwrap();
            assert_eq!(encode(flow, b"hi").unwrap(), golden);
        }
        assert_eq!(
            encode(FlowId::MAX, b"").unwrap(),
            &b"\xbf\xff\xff\xff\0"[..]
        );
    }

    #[test]
    fn what_is_no_datagram_is_refused() {
        for (message, error) in [
            (&b""[..], DatagramError::Truncated),
            (b"\x05", DatagramError::Truncated),
            (b"\x41", DatagramError::Truncated),
            (b"\xc0\0\0\0\x40\0\0\0\0", DatagramError::Flow),
            (b"\x05\x02hi", DatagramError::Context(2)),
        ] {
            assert_eq!(parse(Bytes::from_static(message)), Err(error));
        }
        let flow = FlowId::MAX;
        assert_eq!(encode(flow, &[0; MAX_PAYLOAD]).unwrap().len(), MAX_MESSAGE);
        assert!(encode(flow, &[0; MAX_PAYLOAD + 1]).is_err());
        let long = [&b"\x05\0"[..], &[0; MAX_PAYLOAD + 1]].concat();
        assert!(parse(long.into()).is_err());
    }

    #[test]
    fn a_flow_has_one_spelling() {
        assert_eq!("70000".parse(), Ok(FlowId(70_000)));
        for text in [
            "",
            "+5",
            "-5",
            " 5",
            "5 ",
            "0x5",
            "1073741824",
            "99999999999",
        ] {
            assert!(text.parse::<FlowId>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            flow in 0..=FlowId::MAX.0,
            payload in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let message = encode(FlowId(flow), &payload).unwrap();
            prop_assert_eq!(parse(message), Ok((FlowId(flow), payload.into())));
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes: Vec<u8>) {
            let _outcome = parse(bytes.into());
        }
    }
}
