//! Nonces that need no memory: the time, and a keyed hash over it and the client (RFC 8489 §9.2).
//!
//! Security: bound to one client and a few minutes, so a nonce that is overheard is of no use
//! elsewhere. A server holds nothing for sources that it has not authenticated.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use subtle::ConstantTimeEq as _;

use crate::five_tuple::FiveTuple;
use crate::limits::NONCE_LIFETIME;

/// Prefix of a nonce whose server knows password algorithms and user hashes (RFC 8489 §9.2): the
/// cookie, then 24 bits of which the first two are set.
const SECURITY_FEATURES: &str = "obMatJos2wAAA";

/// Bytes of the time, then of the hash: 15 in all, 20 characters, so that a 401 stays small.
const TIME: usize = 4;
const HASH: usize = 11;

/// Makes and checks nonces.
#[derive(Debug)]
pub struct Nonces {
    key: hmac::Key,
    prefix: &'static str,
}

impl Nonces {
    /// With a key of this server's own; `announce` tells clients that SHA-256 is understood.
    #[must_use]
    pub fn new(key: &[u8; 32], announce: bool) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            prefix: if announce { SECURITY_FEATURES } else { "" },
        }
    }

    /// A fresh one.
    #[must_use]
    pub fn issue(&self, client: &FiveTuple, unix: u64) -> String {
        let time = self.time(unix).to_be_bytes();
        let mut bytes = [0; TIME + HASH];
        bytes[..TIME].copy_from_slice(&time);
        bytes[TIME..].copy_from_slice(&self.hash(client, time).as_ref()[..HASH]);
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Whether this server gave it to this client, of late.
    #[must_use]
    pub fn is_valid(&self, nonce: &str, client: &FiveTuple, unix: u64) -> bool {
        let mut bytes = [0; TIME + HASH];
        let decoded = nonce
            .strip_prefix(self.prefix)
            .map(|rest| URL_SAFE_NO_PAD.decode_slice(rest, &mut bytes));
        if !matches!(decoded, Some(Ok(length)) if length == bytes.len()) {
            return false;
        }
        let (time, hash) = bytes.split_at(TIME);
        let time: [u8; TIME] = time.try_into().expect("split there");
        let expected = self.hash(client, time);
        let is_ours: bool = hash.ct_eq(&expected.as_ref()[..HASH]).into();
        let age = self.time(unix).wrapping_sub(u32::from_be_bytes(time));
        is_ours && u64::from(age) <= NONCE_LIFETIME
    }

    /// Seconds, modulo 2^32.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unused_self,
        reason = "ages are differences of far less than 2^32"
    )]
    const fn time(&self, unix: u64) -> u32 {
        unix as u32
    }

    fn hash(&self, client: &FiveTuple, time: [u8; TIME]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&time);
        context.update(&client.listener.0.to_be_bytes());
        match client.client.ip() {
            std::net::IpAddr::V4(v4) => context.update(&v4.octets()),
            std::net::IpAddr::V6(v6) => context.update(&v6.octets()),
        }
        context.update(&client.client.port().to_be_bytes());
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::five_tuple::ListenerId;

    fn client(address: &str) -> FiveTuple {
        FiveTuple {
            listener: ListenerId(0),
            client: address.parse().unwrap(),
            local: None,
        }
    }

    #[test]
    fn a_nonce_is_good_for_its_client_and_time_only() {
        for announce in [false, true] {
            let nonces = Nonces::new(&[7; 32], announce);
            let a = client("192.0.2.1:1000");
            let nonce = nonces.issue(&a, 5000);
            assert!(nonces.is_valid(&nonce, &a, 5000));
            assert!(nonces.is_valid(&nonce, &a, 5000 + NONCE_LIFETIME));
            assert!(!nonces.is_valid(&nonce, &a, 5001 + NONCE_LIFETIME));
            assert!(!nonces.is_valid(&nonce, &a, 4999), "from the future");
            assert!(!nonces.is_valid(&nonce, &client("192.0.2.1:1001"), 5000));
            assert!(!nonces.is_valid(&nonce, &client("192.0.2.2:1000"), 5000));
            assert!(!Nonces::new(&[8; 32], announce).is_valid(&nonce, &a, 5000));
            for wrong in ["", "x", &nonce[1..], &format!("{nonce}A")] {
                assert!(!nonces.is_valid(wrong, &a, 5000), "{wrong}");
            }
        }
    }
}
