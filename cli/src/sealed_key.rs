//! A private key at rest under a passphrase.
//!
//! ```text
//! portway-sealed-key-1 PUBLIC MEMORY PASSES SALT SEALED
//! ```
//! One line. MEMORY (KiB) and PASSES are those of Argon2id (RFC 9106) with one lane, which makes 32 bytes of
//! passphrase and SALT (16 bytes). SEALED is the seed under ChaCha20-Poly1305 (RFC 8439) with these bytes,
//! nonce 0, and all that is before it as additional data. PUBLIC is the public key: it can be told without
//! the passphrase.
//!
//! Security: the salt is drawn anew for each file, so a key and its nonce seal one message. Who has the file
//! can try passphrases, at the price of [`MEMORY`] and [`PASSES`] for each.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use portway_protocol::id::{decode_array, encode};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::secret::Secret;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::state::random_bytes;

/// First word of the file, with its version.
const FORM: &str = "portway-sealed-key-1";

/// Memory of a derivation, KiB, and passes over it: the second choice of RFC 9106 §4, with one lane.
const MEMORY: u32 = 64 * 1024;
const PASSES: u32 = 3;

/// More than this nobody has chosen: the file is damaged.
const MAX_MEMORY: u32 = 4 * 1024 * 1024;
const MAX_PASSES: u32 = 100;

const SALT: usize = 16;
const TAG: usize = 16;
const SEALED: usize = SigningKey::SEED_LEN + TAG;

/// A passphrase of somebody.
pub(crate) type Passphrase = Secret<String>;

/// A private key that its passphrase opens.
#[derive(Debug, Clone)]
pub(crate) struct SealedKey {
    public: PublicKey,
    cost: Cost,
    salt: [u8; SALT],
    sealed: [u8; SEALED],
}

/// Of one derivation.
#[derive(Debug, Clone, Copy)]
struct Cost {
    memory: u32,
    passes: u32,
}

/// Why a sealed key is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedKeyError {
    /// Another text.
    #[error("not a sealed key of version 1")]
    Form,
    /// Another passphrase, or a file that somebody has changed.
    #[error("the passphrase is wrong, or the file is damaged")]
    Passphrase,
    /// The derivation failed.
    #[error("deriving a key from the passphrase: {0}")]
    Derivation(argon2::Error),
    /// The cipher refused.
    #[error("sealing the key failed")]
    Cipher,
}

impl SealedKey {
    /// Whether a file holds one.
    pub(crate) fn is_one(text: &str) -> bool {
        text.starts_with("portway-sealed-key-")
    }

    /// Seals a key.
    pub(crate) fn seal(key: &SigningKey, passphrase: &Passphrase) -> Result<Self, SealedKeyError> {
        let mut new = Self {
            public: key.public(),
            cost: Cost {
                memory: MEMORY,
                passes: PASSES,
            },
            salt: random_bytes(),
            sealed: [0; SEALED],
        };
        let mut seed = *key.seed().expose();
        let sealing = new.sealing_key(passphrase)?;
        let tag = sealing
            .seal_in_place_separate_tag(nonce(), Aad::from(new.header()), &mut seed)
            .map_err(|_| SealedKeyError::Cipher)?;
        new.sealed[..SigningKey::SEED_LEN].copy_from_slice(&seed);
        new.sealed[SigningKey::SEED_LEN..].copy_from_slice(tag.as_ref());
        Ok(new)
    }

    /// The key.
    pub(crate) fn open(&self, passphrase: &Passphrase) -> Result<SigningKey, SealedKeyError> {
        let opening = self.sealing_key(passphrase)?;
        // Wiped when dropped, whatever is in it then.
        let mut sealed = zeroize::Zeroizing::new(self.sealed);
        let opened = opening.open_in_place(nonce(), Aad::from(self.header()), &mut sealed[..]);
        let opened = opened.map_err(|_| SealedKeyError::Passphrase)?;
        let seed: &[u8; SigningKey::SEED_LEN] = (&*opened)
            .try_into()
            .map_err(|_| SealedKeyError::Passphrase)?;
        let key = SigningKey::from_seed(&Secret::new(*seed));
        if key.public() != self.public {
            return Err(SealedKeyError::Passphrase);
        }
        Ok(key)
    }

    /// The public half.
    pub(crate) const fn public(&self) -> PublicKey {
        self.public
    }

    fn sealing_key(&self, passphrase: &Passphrase) -> Result<LessSafeKey, SealedKeyError> {
        let Cost { memory, passes } = self.cost;
        let mut derived = zeroize::Zeroizing::new([0; 32]);
        let params = Params::new(memory, passes, 1, Some(derived.len()))
            .map_err(SealedKeyError::Derivation)?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &self.salt, &mut derived[..])
            .map_err(SealedKeyError::Derivation)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &derived[..]);
        Ok(LessSafeKey::new(key.map_err(|_| SealedKeyError::Cipher)?))
    }

    /// All of the file that is not sealed.
    fn header(&self) -> String {
        let Cost { memory, passes } = self.cost;
        let salt = encode(&self.salt);
        format!("{FORM} {} {memory} {passes} {salt}", self.public)
    }
}

/// The key that seals is used for one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl fmt::Display for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.header(), encode(&self.sealed))
    }
}

impl FromStr for SealedKey {
    type Err = SealedKeyError;

    fn from_str(text: &str) -> Result<Self, SealedKeyError> {
        let parts: Vec<&str> = text.trim_end().split(' ').collect();
        let [FORM, public, memory, passes, salt, sealed] = parts[..] else {
            return Err(SealedKeyError::Form);
        };
        let number = |text: &str, max: u32| match text.parse() {
            Ok(number @ 1..) if number <= max => Ok(number),
            Ok(_) | Err(_) => Err(SealedKeyError::Form),
        };
        Ok(Self {
            public: public.parse().map_err(|_| SealedKeyError::Form)?,
            cost: Cost {
                memory: number(memory, MAX_MEMORY)?,
                passes: number(passes, MAX_PASSES)?,
            },
            salt: decode_array(salt).map_err(|_| SealedKeyError::Form)?,
            sealed: decode_array(sealed).map_err(|_| SealedKeyError::Form)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&Secret::new([1; 32]))
    }

    fn passphrase(text: &str) -> Passphrase {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_only() {
        let sealed = SealedKey::seal(&key(), &passphrase("correct horse")).unwrap();
        let read: SealedKey = sealed.to_string().parse().unwrap();
        assert_eq!(read.public(), key().public());
        let opened = read.open(&passphrase("correct horse")).unwrap();
        assert_eq!(opened.seed().expose(), key().seed().expose());
        assert!(matches!(
            read.open(&passphrase("correct horses")),
            Err(SealedKeyError::Passphrase)
        ));
        let seed = encode(key().seed().expose());
        assert!(!sealed.to_string().contains(&seed));
    }

    #[test]
    fn a_changed_file_does_not_open() {
        let sealed = SealedKey::seal(&key(), &passphrase("a")).unwrap();
        let other = SigningKey::from_seed(&Secret::new([2; 32])).public();
        let text = sealed.to_string();
        for changed in [
            text.replace(&key().public().to_string(), &other.to_string()),
            text.replace(" 3 ", " 2 "),
            text.replace(" 65536 ", " 65535 "),
        ] {
            assert_ne!(changed, text);
            let changed: SealedKey = changed.parse().unwrap();
            assert!(changed.open(&passphrase("a")).is_err());
        }
    }

    #[test]
    fn a_file_of_version_1_opens_for_ever() {
        let text = "portway-sealed-key-1 iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w 65536 3 AAECAwQFBgcICQoLDA0ODw 2vHNe2Gyl7s3Rn3rB-ioOj3BcoDqdymUi1UqufuPiJphUZBUBsXNC2Q5kjOReOWE";
        let sealed: SealedKey = text.parse().unwrap();
        let opened = sealed.open(&passphrase("correct horse")).unwrap();
        assert_eq!(opened.public(), key().public());
    }

    #[test]
    fn what_is_no_sealed_key_is_refused() {
        let text = SealedKey::seal(&key(), &passphrase("a"))
            .unwrap()
            .to_string();
        for wrong in [
            "",
            "portway-sealed-key-1",
            &text.replace("-1 ", "-2 "),
            &text.replace(" 65536 ", " 4294967295 "),
            &text.replace(" 3 ", " 0 "),
            &format!("{text} x"),
        ] {
            assert!(wrong.parse::<SealedKey>().is_err(), "{wrong}");
        }
    }
}
