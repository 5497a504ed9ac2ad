//! What binds a session to its channel: the certificates that both ends have presented in DTLS.
//!
//! Security: signaling carries the descriptions that name the certificates, so it could name its own and
//! stand in between. It cannot give both ends the same two, and both ends sign what they see.

use std::fmt;

use crate::check::Check;

/// Attribute of a description that names a certificate (RFC 8122 §5).
const ATTRIBUTE: &str = "a=fingerprint:";

/// The one hash that is accepted; every browser uses it.
const ALGORITHM: &str = "sha-256";

/// SHA-256 of a DTLS certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// The certificates of a channel's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The client's.
    pub client: Fingerprint,
    /// The gateway's.
    pub gateway: Fingerprint,
}

/// Why a description names no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// There is none.
    #[error("the session description has no certificate fingerprint")]
    Missing,
    /// More than one distinct: a stack would accept a peer that matches any, so a second one is an attempt
    /// to sit in the middle.
    #[error("the session description has more than one certificate fingerprint")]
    Several,
    /// Another hash, or not 32 bytes.
    #[error("the session description has a certificate fingerprint that is not SHA-256")]
    Malformed,
}

impl Binding {
    /// What is signed of it: both certificates.
    pub(super) fn signed(&self) -> [&[u8; 32]; 2] {
        #[cfg(feature = "weakened")]
        if !Check::Binding.is_on() {
            return [&[0; 32]; 2];
        }
        [self.client.as_bytes(), self.gateway.as_bytes()]
    }
}

impl Fingerprint {
    /// Wraps a hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The one of a description, which the stack enforces.
    ///
    /// # Errors
    /// See [`FingerprintError`].
    pub fn of_description(sdp: &str) -> Result<Self, FingerprintError> {
        let mut named = sdp
            .lines()
            .filter_map(|line| line.trim_end().strip_prefix(ATTRIBUTE));
        let first = Self::parse(named.next().ok_or(FingerprintError::Missing)?)?;
        for other in named {
            if Self::parse(other)? != first && Check::OneCertificate.is_on() {
                return Err(FingerprintError::Several);
            }
        }
        Ok(first)
    }

    /// `sha-256 AB:CD:…`, case does not matter.
    fn parse(text: &str) -> Result<Self, FingerprintError> {
        let (algorithm, hex) = text.split_once(' ').ok_or(FingerprintError::Malformed)?;
        if !algorithm.eq_ignore_ascii_case(ALGORITHM) {
            return Err(FingerprintError::Malformed);
        }
        let mut pairs = hex.split(':');
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2);
            let pair = pair.filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or(FingerprintError::Malformed)?;
        }
        match pairs.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(FingerprintError::Malformed),
        }
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(")?;
        for byte in &self.0[..4] {
            write!(f, "{byte:02X}:")?;
        }
        f.write_str("…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(byte: u8) -> String {
        let hex = vec![format!("{byte:02X}"); 32].join(":");
        format!("a=fingerprint:sha-256 {hex}\r\n")
    }

    #[test]
    fn exactly_one_distinct_certificate_may_be_named() {
        let of = |sdp: &str| Fingerprint::of_description(sdp);
        let once = Fingerprint::from_bytes([0xAB; 32]);
        assert_eq!(of(&format!("v=0\r\n{}", line(0xAB))), Ok(once));
        let again = line(0xAB).replace("AB", "ab").replace("sha", "SHA");
        assert_eq!(of(&(line(0xAB) + &again)), Ok(once));
        assert_eq!(of("v=0\r\n"), Err(FingerprintError::Missing));
        assert_eq!(of(&(line(1) + &line(2))), Err(FingerprintError::Several));
    }

    #[test]
    fn another_hash_beside_or_instead_is_refused() {
        let refused = Err(FingerprintError::Malformed);
        let weak = "a=fingerprint:sha-1 AA:BB\r\n";
        for sdp in [
            weak.to_owned(),
            line(1) + weak,
            line(1).replace(":01\r", "\r"),
            line(1).replace(":01\r", ":01:01\r"),
            line(1).replace(":01\r", ":+1\r"),
            line(1).replace(" 01", "01"),
        ] {
            assert_eq!(Fingerprint::of_description(&sdp), refused, "{sdp}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused(text: String) {
            let named = format!("a=fingerprint:{text}");
            prop_assert!(Fingerprint::of_description(&named).is_err());
        }

        #[test]
        fn what_is_written_is_read(bytes: [u8; 32]) {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            let sdp = format!("v=0\r\na=fingerprint:sha-256 {}\r\n", hex.join(":"));
            let read = Fingerprint::of_description(&sdp);
            prop_assert_eq!(read, Ok(Fingerprint::from_bytes(bytes)));
        }
    }
}
