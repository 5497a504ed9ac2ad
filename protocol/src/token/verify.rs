//! The checks that every token passes: size, form, header, key, signature, times.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Header;
use crate::check::Check;
use crate::id::decode_array;
use crate::key::{KeyId, PublicKey, Signature};
use crate::limits::MAX_TOKEN;
use crate::reason::Reason;

/// Tolerated difference between the clocks of issuer and verifier, in seconds.
pub const LEEWAY: u64 = 30;

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not three parts of base64url, or a header or claim of another shape than ours.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// No trusted key has this id.
    #[error("signed by a key that is not trusted here")]
    UnknownKey,
    /// The signature does not match.
    #[error("the signature does not match")]
    BadSignature,
    /// Past its `exp`.
    #[error("expired at {expired}, it is {now} (seconds since 1970)")]
    Expired {
        /// `exp`.
        expired: u64,
        /// Time of the check.
        now: u64,
    },
    /// Its `iat` lies in the future.
    #[error("issued at {issued}, it is only {now} (seconds since 1970): check the clocks")]
    FromTheFuture {
        /// `iat`.
        issued: u64,
        /// Time of the check.
        now: u64,
    },
    /// Issued by or for another cluster or service.
    #[error("`{claim}` does not fit: expected `{expected}`")]
    WrongParty {
        /// Which claim.
        claim: &'static str,
        /// What this verifier stands for.
        expected: String,
    },
}

impl TokenError {
    /// The reason code to answer with.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Expired { .. } => Reason::TokenExpired,
            Self::TooLong
            | Self::Malformed(_)
            | Self::UnknownKey
            | Self::BadSignature
            | Self::FromTheFuture { .. }
            | Self::WrongParty { .. } => Reason::TokenInvalid,
        }
    }
}

/// Public keys by key id: the only way from a `kid` to a key.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(HashMap<KeyId, PublicKey>);

impl TrustedKeys {
    /// Trusts these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }

    fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0
            .iter()
            .find_map(|(id, key)| (id.as_str() == kid).then_some(key))
    }
}

/// Times that every token carries, seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) iat: u64,
    pub(super) exp: u64,
}

impl Times {
    pub(super) fn check(self, now: u64) -> Result<(), TokenError> {
        if !Check::TokenTimes.is_on() {
            return Ok(());
        }
        if self.exp.saturating_add(LEEWAY) <= now {
            return Err(TokenError::Expired {
                expired: self.exp,
                now,
            });
        }
        if self.iat > now.saturating_add(LEEWAY) {
            return Err(TokenError::FromTheFuture {
                issued: self.iat,
                now,
            });
        }
        Ok(())
    }
}

/// Checks form and signature and types the claims. Times and parties are the caller's.
pub(super) fn open<C: DeserializeOwned + Serialize>(
    token: &str,
    keys: &TrustedKeys,
) -> Result<C, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or(TokenError::Malformed("three parts expected"))?;
    let (header, claims) = signed
        .split_once('.')
        .ok_or(TokenError::Malformed("three parts expected"))?;
    let header: Header = decode_json(header, "header")?;
    let signature =
        decode_array(signature).map_err(|_| TokenError::Malformed("signature encoding"))?;
    let verified = keys
        .get(&header.kid)
        .ok_or(TokenError::UnknownKey)
        .and_then(|key| {
            key.verify(signed.as_bytes(), &Signature::from_bytes(signature))
                .map_err(|_| TokenError::BadSignature)
        });
    Check::TokenSignature.enforce(verified)?;
    decode_json(claims, "claims")
}

/// Reads what we would write, and nothing else: serde also takes an array of its members for an object,
/// and `null` for a member that is absent.
fn decode_json<T: DeserializeOwned + Serialize>(
    part: &str,
    what: &'static str,
) -> Result<T, TokenError> {
    use base64::Engine as _;
    let malformed = TokenError::Malformed(what);
    let Ok(json) = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part) else {
        return Err(malformed);
    };
    // Read as text, as all else: a browser carries one parser, not two.
    let Ok(json) = String::from_utf8(json) else {
        return Err(malformed);
    };
    let typed = serde_json::from_str::<T>(&json);
    let read = serde_json::from_str::<Value>(&json);
    match (typed, read) {
        (Ok(typed), Ok(read)) if serde_json::to_value(&typed).is_ok_and(|v| v == read) => Ok(typed),
        _ => Err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::id::encode;
    use crate::key::SigningKey;
    use crate::secret::Secret;
    use crate::token::issue;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn forge(header: &Value, claims: &Value, sign: &SigningKey) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = sign.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_bytes()))
    }

    #[test]
    fn our_own_token_opens() {
        let token = issue(&key(1), &json!({"a": 1}));
        let claims: Value = open(&token, &TrustedKeys::new([key(1).public()])).unwrap();
        assert_eq!(claims, json!({"a": 1}));
    }

    #[test]
    fn headers_that_try_to_steer_are_refused() {
        let kid = key(1).public().id().as_str().to_owned();
        let keys = TrustedKeys::new([key(1).public()]);
        for header in [
            json!({"alg": "none", "typ": "JWT", "kid": kid}),
            json!({"alg": "HS256", "typ": "JWT", "kid": kid}),
            json!({"alg": "RS256", "typ": "JWT", "kid": kid}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": kid, "crit": ["x"]}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": kid, "jku": "http://127.0.0.1/k"}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": kid, "x5u": "http://127.0.0.1/k"}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": kid, "jwk": {}}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": "../../etc/passwd"}),
            json!({"alg": "EdDSA", "typ": "JWT", "kid": "' OR 1=1 --"}),
            json!({"alg": ["EdDSA"], "typ": "JWT", "kid": kid}),
            json!({"alg": "EdDSA", "kid": kid}),
            json!({"typ": "JWT"}),
            json!([]),
        ] {
            let token = forge(&header, &json!({}), &key(1));
            assert!(open::<Value>(&token, &keys).is_err(), "{header}");
        }
    }

    #[test]
    fn signatures_that_do_not_match_are_refused() {
        let keys = TrustedKeys::new([key(1).public()]);
        let good = issue(&key(1), &json!({}));
        let (signed, _) = good.rsplit_once('.').unwrap();
        for signature in ["", "AA", &encode(&[0; 64]), &encode(&[0; 65])] {
            assert!(open::<Value>(&format!("{signed}.{signature}"), &keys).is_err());
        }
        let kid = key(1).public().id().as_str().to_owned();
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let forged = forge(&header, &json!({}), &key(2));
        assert_eq!(
            open::<Value>(&forged, &keys).unwrap_err(),
            TokenError::BadSignature
        );
        let other = issue(&key(2), &json!({}));
        assert_eq!(
            open::<Value>(&other, &keys).unwrap_err(),
            TokenError::UnknownKey
        );
    }

    #[test]
    fn times_have_a_leeway_of_thirty_seconds() {
        let times = Times { iat: 100, exp: 200 };
        assert!(times.check(229).is_ok());
        assert!(times.check(230).is_err());
        assert!(times.check(70).is_ok());
        assert!(times.check(69).is_err());
    }

    #[test]
    fn another_implementation_verifies_our_tokens() {
        let token = issue(&key(1), &json!({"iss": "home", "exp": 4_000_000_000_u64}));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = key(1).public();
        ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public.as_bytes())
            .verify(signed.as_bytes(), &signature)
            .unwrap();

        let (header, claims) = signed.split_once('.').unwrap();
        let [header, claims] = [header, claims].map(|part| {
            let json = URL_SAFE_NO_PAD.decode(part).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()
        });
        assert_eq!(header["alg"], "EdDSA");
        assert_eq!(claims["iss"], "home");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused(text: String) {
            let keys = TrustedKeys::new([key(1).public()]);
            proptest::prop_assert!(open::<Value>(&text, &keys).is_err());
        }

        #[test]
        fn any_changed_byte_is_noticed(at in 0usize..200, to in "[A-Za-z0-9_.-]") {
            let keys = TrustedKeys::new([key(1).public()]);
            let good = issue(&key(1), &json!({"a": 1}));
            proptest::prop_assume!(at < good.len() && good[at..=at] != to);
            let mut bad = good.clone();
            bad.replace_range(at..=at, &to);
            proptest::prop_assert!(open::<Value>(&bad, &keys).is_err());
        }
    }
}
