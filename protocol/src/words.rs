//! The fingerprint of a key as eight words, which people compare by reading them to each other.
//!
//! The words are those of BIP-39 (the English list of 2048, `words/english.txt`, SHA-256
//! `2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda`): no two begin with the same four
//! letters.
//!
//! Security: 88 bits. Who wants another key with the same words has to try about 2⁸⁸ of them.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::key::PublicKey;

/// How many words there are.
pub const COUNT: usize = 8;

/// What is hashed before the key.
const DOMAIN: &[u8] = b"portway/key-words/1";

/// A word stands for so many bits.
const BITS: u32 = 11;

const LIST: &str = include_str!("words/english.txt");

/// Eight words that stand for a public key. Their text has spaces between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words([&'static str; COUNT]);

impl Words {
    /// The first 88 bits of SHA-256("portway/key-words/1" ‖ key), the highest ones first, 11 to a word.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        let digest = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(key.as_bytes())
            .finalize();
        let first: [u8; 16] = std::array::from_fn(|at| digest[at]);
        let bits = u128::from_be_bytes(first);
        let mut shift = u128::BITS;
        Self(std::array::from_fn(|_| {
            shift -= BITS;
            let index = (bits >> shift) & ((1 << BITS) - 1);
            let index = usize::try_from(index).expect("eleven bits");
            LIST.lines().nth(index).expect("there are 2048 words")
        }))
    }

    /// Each of them.
    #[must_use]
    pub const fn as_array(&self) -> &[&'static str; COUNT] {
        &self.0
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::secret::Secret;

    fn words(seed: u8) -> String {
        let key = SigningKey::from_seed(&Secret::new([seed; 32])).public();
        key.words().to_string()
    }

    #[test]
    fn the_list_is_the_one_of_the_standard() {
        assert_eq!(LIST.lines().count(), 1 << BITS);
        let digest = Sha256::digest(LIST.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
        );
    }

    #[test]
    fn the_words_of_a_key_never_change() {
        assert_eq!(words(1), "advice dizzy amused when render there grass mix");
        assert_eq!(
            words(2),
            "trouble album legend vote seminar bounce coast illegal"
        );
    }
}
