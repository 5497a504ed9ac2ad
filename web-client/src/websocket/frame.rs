//! Frames of RFC 6455, client side. Sans-IO.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Largest message that is put together from a service's frames.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

/// Close codes that stand for what no close frame said (RFC 6455 §7.4.1). Browsers take all others.
const UNSENT_CODES: [u16; 3] = [1005, 1006, 1015];

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation = 0,
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// To be answered by a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// What a service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// The end. Code 1005 = none was given.
    Close {
        /// Status code.
        code: u16,
        /// In words.
        reason: String,
    },
}

/// Why bytes are not frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved bits or an unknown opcode.
    #[error("a reserved bit or opcode")]
    Reserved,
    /// Servers do not mask (RFC 6455 §5.1).
    #[error("a masked frame from a server")]
    Masked,
    /// A control frame that is long or fragmented.
    #[error("a malformed control frame")]
    Control,
    /// A continuation of nothing, or a new message inside another.
    #[error("fragments out of order")]
    Fragments,
    /// A length in more bytes than it needs, or with the highest bit set (RFC 6455 §5.2).
    #[error("a malformed length")]
    Length,
    /// A close code that no frame may carry (RFC 6455 §7.4.1).
    #[error("a close code that may not be sent")]
    CloseCode,
    /// Longer than [`MAX_MESSAGE`].
    #[error("a message that is too long")]
    TooLong,
    /// Text that is no UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
}

impl FrameError {
    /// The code of the close frame that answers it.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Reserved
            | Self::Masked
            | Self::Control
            | Self::Fragments
            | Self::Length
            | Self::CloseCode => 1002,
            Self::Utf8 => 1007,
            Self::TooLong => 1009,
        }
    }
}

/// A whole message as one masked frame.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 14);
    frame.put_u8(0x80 | opcode as u8);
    match payload.len() {
        len @ 0..=125 => frame.put_u8(0x80 | u8::try_from(len).expect("at most 125")),
        len @ 126..=0xffff => {
            frame.put_u8(0x80 | 126);
            frame.put_u16(u16::try_from(len).expect("at most 65535"));
        }
        len => {
            frame.put_u8(0x80 | 127);
            frame.put_u64(len as u64);
        }
    }
    frame.extend_from_slice(&mask);
    let start = frame.len();
    frame.extend_from_slice(payload);
    for (byte, key) in frame[start..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    frame.freeze()
}

/// Payload of a close frame; the reason is cut to what fits.
#[must_use]
pub fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    let Some(code) = code else {
        return Vec::new();
    };
    let mut payload = code.to_be_bytes().to_vec();
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

/// Puts messages together.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Kind and payload so far of a fragmented message.
    message: Option<(Opcode, BytesMut)>,
}

impl Decoder {
    /// More bytes have come.
    pub fn feed(&mut self, bytes: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The next message, if it is whole. Pongs are dropped.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn next_message(&mut self) -> Result<Option<Incoming>, FrameError> {
        while let Some((is_final, opcode, payload)) = self.frame()? {
            if let Some(message) = self.accept(is_final, opcode, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<(bool, Opcode, BytesMut)>, FrameError> {
        let [first, second, ..] = self.buffer[..] else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::Reserved)?;
        if second & 0x80 != 0 {
            return Err(FrameError::Masked);
        }
        let is_final = first & 0x80 != 0;
        if opcode.is_control() && (!is_final || usize::from(second) > MAX_CONTROL) {
            return Err(FrameError::Control);
        }
        let (header, len) = match second {
            126 => match self.buffer.get(2..4) {
                Some(len) => (4, u64::from(u16::from_be_bytes([len[0], len[1]]))),
                None => return Ok(None),
            },
            127 => match self.buffer.get(2..).and_then(<[u8]>::first_chunk) {
                Some(len) => (10, u64::from_be_bytes(*len)),
                None => return Ok(None),
            },
            len => (2, u64::from(len)),
        };
        let is_minimal = match second {
            126 => len >= 126,
            127 => len > 0xffff,
            _short => true,
        };
        if !is_minimal || len >> 63 != 0 {
            return Err(FrameError::Length);
        }
        let len = usize::try_from(len).map_err(|_| FrameError::TooLong)?;
        if len > MAX_MESSAGE {
            return Err(FrameError::TooLong);
        }
        if self.buffer.len() < header + len {
            return Ok(None);
        }
        self.buffer.advance(header);
        Ok(Some((is_final, opcode, self.buffer.split_to(len))))
    }

    fn accept(
        &mut self,
        is_final: bool,
        opcode: Opcode,
        payload: BytesMut,
    ) -> Result<Option<Incoming>, FrameError> {
        let (kind, whole) = match opcode {
            Opcode::Pong => return Ok(None),
            Opcode::Ping => return Ok(Some(Incoming::Ping(payload.freeze()))),
            Opcode::Close => return close(&payload).map(Some),
            Opcode::Continuation => {
                let (kind, mut message) = self.message.take().ok_or(FrameError::Fragments)?;
                if message.len() + payload.len() > MAX_MESSAGE {
                    return Err(FrameError::TooLong);
                }
                message.unsplit(payload);
                (kind, message)
            }
            Opcode::Text | Opcode::Binary => {
                if self.message.is_some() {
                    return Err(FrameError::Fragments);
                }
                (opcode, payload)
            }
        };
        if !is_final {
            self.message = Some((kind, whole));
            return Ok(None);
        }
        if kind == Opcode::Text {
            let text = String::from_utf8(whole.into()).map_err(|_| FrameError::Utf8)?;
            return Ok(Some(Incoming::Text(text)));
        }
        Ok(Some(Incoming::Binary(whole.freeze())))
    }
}

fn close(payload: &[u8]) -> Result<Incoming, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(Incoming::Close {
                code: 1005,
                reason: String::new(),
            })
        } else {
            Err(FrameError::Control)
        };
    };
    let code = u16::from_be_bytes(*code);
    if UNSENT_CODES.contains(&code) {
        return Err(FrameError::CloseCode);
    }
    Ok(Incoming::Close {
        code,
        reason: String::from_utf8(reason.to_vec()).map_err(|_| FrameError::Utf8)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a server sends it.
    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(u8::try_from(len).unwrap()),
            len @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(127);
                frame.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Incoming>, FrameError> {
        let mut decoder = Decoder::default();
        decoder.feed(BytesMut::from(bytes));
        let mut messages = Vec::new();
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 6455 §5.7.
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        assert_eq!(
            encode(Opcode::Text, b"Hello", mask)[..],
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        assert_eq!(
            decode(b"\x81\x05Hello").unwrap(),
            [Incoming::Text("Hello".into())]
        );
        assert_eq!(
            decode(b"\x01\x03Hel\x80\x02lo").unwrap(),
            [Incoming::Text("Hello".into())]
        );
        assert_eq!(
            decode(b"\x89\x05Hello").unwrap(),
            [Incoming::Ping(Bytes::from_static(b"Hello"))]
        );
    }

    #[test]
    fn a_control_frame_may_interrupt_fragments() {
        assert_eq!(
            decode(b"\x01\x01a\x89\x00\x80\x01b").unwrap(),
            [Incoming::Ping(Bytes::new()), Incoming::Text("ab".into())]
        );
    }

    #[test]
    fn violations_are_refused() {
        for (bytes, error) in [
            (&b"\xc1\x00"[..], FrameError::Reserved),
            (b"\x83\x00", FrameError::Reserved),
            (b"\x81\x80\0\0\0\0", FrameError::Masked),
            (b"\x09\x00", FrameError::Control),
            (b"\x88\x01x", FrameError::Control),
            (b"\x88\x02\x03\xed", FrameError::CloseCode),
            (b"\x82\x7e\x00\x01x", FrameError::Length),
            (b"\x82\x7f\0\0\0\0\0\0\xff\xff", FrameError::Length),
            (b"\x80\x00", FrameError::Fragments),
            (b"\x01\x00\x01\x00", FrameError::Fragments),
            (b"\x81\x01\xff", FrameError::Utf8),
            (
                b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
                FrameError::Length,
            ),
            (b"\x82\x7f\0\0\0\x01\0\0\0\0", FrameError::TooLong),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let payload = close_payload(Some(1000), &"ä".repeat(100));
        assert!(payload.len() <= MAX_CONTROL);
        assert!(std::str::from_utf8(&payload[2..]).is_ok());
    }

    proptest! {
        #[test]
        fn messages_survive_any_split(payload: Vec<u8>, at in 0usize..300) {
            let frame = server_frame(0x82, &payload);
            let at = at.min(frame.len());
            let mut decoder = Decoder::default();
            decoder.feed(BytesMut::from(&frame[..at]));
            let early = decoder.next_message().unwrap();
            decoder.feed(BytesMut::from(&frame[at..]));
            let message = early.or_else(|| decoder.next_message().unwrap());
            prop_assert_eq!(message, Some(Incoming::Binary(payload.into())));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
            let _outcome = decode(&bytes);
        }
    }
}
