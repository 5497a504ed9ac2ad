//! Any lists of revoked nodes: none is taken that the cluster key has not signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::key::SigningKey;
use portway_protocol::revocation::{MAX_REVOKED, RevocationList, Revocations};
use portway_protocol::secret::Secret;

fuzz_target!(|text: &[u8]| {
    if let Ok(list) = serde_json::from_slice::<RevocationList>(text) {
        let key = SigningKey::from_seed(&Secret::new([1; 32])).public();
        let mut known = Revocations::new("home".parse().expect("a valid name"), key);
        if known.learn(&list).is_ok() {
            assert!(list.nodes.len() <= MAX_REVOKED);
            assert!(known.list() == Some(&list));
        } else {
            assert!(known.list().is_none());
        }
    }
});
