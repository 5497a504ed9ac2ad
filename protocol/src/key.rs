//! Ed25519 keys: strict verification, no small-order keys.
//!
//! Security: browsers' and many libraries' Ed25519 accept signatures under small-order public
//! keys. A peer that chose such a key could claim any message as signed, so they are refused when
//! parsed, and `verify_strict` (RFC 8032 with the checks of "Taming the many EdDSAs") is the only
//! verification offered.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::check::Check;
use crate::id::{GrantId, IdError, decode_array, encode};
use crate::secret::Secret;
use crate::words::Words;

/// Characters of the hash of a public key that make its [`KeyId`].
const KEY_ID_LEN: usize = 12;

/// Why a key or signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64url of the right length.
    #[error(transparent)]
    Encoding(#[from] IdError),
    /// Not a point of the curve, or one of small order.
    #[error("not a usable Ed25519 public key")]
    UnusableKey,
    /// The signature does not belong to this message and key.
    #[error("the signature does not match")]
    BadSignature,
}

/// An Ed25519 private key. Wiped on drop, never printed.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Length of the seed in bytes.
    pub const SEED_LEN: usize = 32;

    /// The key of a 32-byte seed that the caller drew at random (or derived).
    #[must_use]
    pub fn from_seed(seed: &Secret<[u8; 32]>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    /// The key that a link's secret stands for: seed = SHA-256("portway/grant-key/1" ‖ secret).
    #[must_use]
    pub fn from_link_secret(secret: &Secret<[u8; 32]>) -> Self {
        let digest = Sha256::new()
            .chain_update(b"portway/grant-key/1")
            .chain_update(secret.expose())
            .finalize();
        Self::from_seed(&Secret::new(digest.into()))
    }

    /// The seed, to store the key.
    #[must_use]
    pub fn seed(&self) -> Secret<[u8; 32]> {
        Secret::new(*Zeroizing::new(self.0.to_bytes()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message. Callers prefix it with a domain, see [`crate::transcript`].
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

/// An Ed25519 public key that is on the curve and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// The id of a grant that is known by its key alone.
    #[must_use]
    pub fn grant_id(&self) -> GrantId {
        let mut id = [0; GrantId::LEN];
        id.copy_from_slice(&self.as_bytes()[..GrantId::LEN]);
        GrantId::typeable(id)
    }

    /// Checks 32 bytes.
    ///
    /// # Errors
    /// [`KeyError::UnusableKey`] for what is no point or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::UnusableKey)?;
        if key.is_weak() && Check::StrictKeys.is_on() {
            return Err(KeyError::UnusableKey);
        }
        Ok(Self(key))
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Short name of the key, the `kid` of the tokens that it signs.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut text = encode(&Sha256::digest(self.as_bytes()));
        text.truncate(KEY_ID_LEN);
        KeyId(text)
    }

    /// Its fingerprint, for people.
    #[must_use]
    pub fn words(&self) -> Words {
        Words::of(self)
    }

    /// Verifies strictly.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`].
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), KeyError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        #[cfg(feature = "weakened")]
        if !Check::StrictKeys.is_on() {
            use ed25519_dalek::Verifier as _;
            let verified = self.0.verify(message, &signature);
            return verified.map_err(|_| KeyError::BadSignature);
        }
        self.0
            .verify_strict(message, &signature)
            .map_err(|_| KeyError::BadSignature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode_array(text)?)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// Short name of a public key: the first 12 characters of base64url(SHA-256(key)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        let _bytes: [u8; KEY_ID_LEN / 4 * 3] = decode_array(&text)?;
        Ok(Self(text))
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An Ed25519 signature, base64url on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps raw bytes; nothing is checked before [`PublicKey::verify`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl TryFrom<String> for Signature {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        Ok(Self(decode_array(&text)?))
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        encode(&signature.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    #[test]
    fn a_signature_belongs_to_its_message_and_key() {
        let signature = key(1).sign(b"message");
        assert!(key(1).public().verify(b"message", &signature).is_ok());
        assert!(key(1).public().verify(b"messagf", &signature).is_err());
        assert!(key(2).public().verify(b"message", &signature).is_err());
    }

    #[test]
    fn small_order_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        for weak in [identity, [0; 32]] {
            assert_eq!(PublicKey::from_bytes(&weak), Err(KeyError::UnusableKey));
        }
    }

    #[test]
    fn the_key_of_a_link_secret_never_changes() {
        let key = SigningKey::from_link_secret(&Secret::new([7; 32]));
        assert_eq!(
            key.public().to_string(),
            "B1uzOS_9V-AHyNxJ-tJRQWfbs3n8jhaVrGOlsO3ZPnw"
        );
    }

    #[test]
    fn debug_of_a_private_key_shows_its_id_only() {
        let text = format!("{:?}", key(1));
        assert_eq!(text, format!("SigningKey({})", key(1).public().id()));
    }
}
