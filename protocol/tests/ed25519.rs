//! Ed25519 as others test it: the vectors of Wycheproof, that of RFC 8037 for JWS, and the public keys that vouch
//! for anything.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use portway_protocol::id::{decode_array, encode};
use portway_protocol::key::{KeyError, PublicKey, Signature, SigningKey};
use portway_protocol::secret::Secret;
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::{TokenError, TrustedKeys};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

/// All encodings of the eight points of small order, those that no encoder writes (y ≥ p) included.
const SMALL_ORDER: [(&str, &str); 14] = [
    (
        "order 1",
        "0100000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "order 1, sign set",
        "0100000000000000000000000000000000000000000000000000000000000080",
    ),
    (
        "order 1, y = p + 1",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
    (
        "order 1, y = p + 1, sign set",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ),
    (
        "order 2",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
    (
        "order 2, sign set",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ),
    (
        "order 4",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "order 4, sign set",
        "0000000000000000000000000000000000000000000000000000000000000080",
    ),
    (
        "order 4, y = p",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
    (
        "order 4, y = p, sign set",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ),
    (
        "order 8",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    ),
    (
        "order 8, sign set",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    ),
    (
        "order 8, the other y",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ),
    (
        "order 8, the other y, sign set",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ),
];

fn bytes(hex: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn a_key_of_small_order_is_no_key() {
    for (name, hex) in SMALL_ORDER {
        assert_eq!(
            PublicKey::from_bytes(&bytes(hex)),
            Err(KeyError::UnusableKey),
            "{name}"
        );
    }
}

/// Strict verification refuses no vector that Wycheproof calls valid, and it has none that it calls
/// acceptable for this curve. The one difference is that a signature of another length than 64 bytes
/// does not even get a type.
#[test]
fn the_vectors_of_wycheproof_are_judged_as_they_say() {
    let vectors = TestSet::load(TestName::Ed25519).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for group in &vectors.test_groups {
        let key: [u8; 32] = group.key.pk.as_slice().try_into().unwrap();
        let key = PublicKey::from_bytes(&key).unwrap();
        for test in &group.tests {
            let signature = <[u8; 64]>::try_from(test.sig.as_slice()).map(Signature::from_bytes);
            let is_good = signature.is_ok_and(|sig| key.verify(&test.msg, &sig).is_ok());
            let expected = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => {
                    panic!("vector {}: say here how it is judged", test.tc_id)
                }
            };
            assert_eq!(is_good, expected, "vector {}: {}", test.tc_id, test.comment);
            *(if is_good { &mut accepted } else { &mut refused }) += 1;
        }
    }
    assert_eq!((accepted, refused), (88, 63));
}

/// RFC 8037, appendix A.1 and A.2: a key.
const JWK_D: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const JWK_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// RFC 8037, appendix A.4: its signature of "Example of Ed25519 signing".
const JWS_INPUT: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
const JWS_SIGNATURE: &str =
    "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

#[test]
fn the_jws_of_rfc_8037_is_signed_and_checked_byte_by_byte() {
    let key = SigningKey::from_seed(&Secret::new(decode_array(JWK_D).unwrap()));
    assert_eq!(encode(key.public().as_bytes()), JWK_X);
    let signed = key.sign(JWS_INPUT.as_bytes());
    assert_eq!(encode(signed.as_bytes()), JWS_SIGNATURE);
    let public: PublicKey = JWK_X.parse().unwrap();
    let signature = Signature::from_bytes(decode_array(JWS_SIGNATURE).unwrap());
    assert_eq!(public.verify(JWS_INPUT.as_bytes(), &signature), Ok(()));
    let other = JWS_INPUT.replacen("RXhh", "RXhi", 1);
    assert!(public.verify(other.as_bytes(), &signature).is_err());
}

/// It names no key and says nothing that a token has to say.
#[test]
fn the_jws_of_rfc_8037_is_no_token_although_its_key_is_trusted() {
    let keys = TrustedKeys::new([JWK_X.parse().unwrap()]);
    let token = format!("{JWS_INPUT}.{JWS_SIGNATURE}");
    let refused = MachineClaims::verify(&token, &"home".parse().unwrap(), &keys, 0);
    assert_eq!(refused.unwrap_err(), TokenError::Malformed("header"));
}
