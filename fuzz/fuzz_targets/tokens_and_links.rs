//! Any text where a token, a link or a target is expected.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::key::SigningKey;
use portway_protocol::link::Link;
use portway_protocol::secret::Secret;
use portway_protocol::target::ServiceTarget;
use portway_protocol::token::TrustedKeys;
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::user::UserClaims;

fuzz_target!(|text: &str| {
    let key = SigningKey::from_seed(&Secret::new([1; 32])).public();
    let cluster = "home".parse().expect("a valid name");
    let keys = TrustedKeys::new([key]);
    assert!(UserClaims::verify_any_service(text, &cluster, &keys, 0).is_err());
    assert!(MachineClaims::verify(text, &cluster, &keys, 0).is_err());
    drop(text.parse::<Link>());
    drop(text.parse::<ServiceTarget>());
});
