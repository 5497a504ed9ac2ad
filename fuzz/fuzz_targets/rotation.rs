//! Any statements of other cluster keys: a client gets no further than they lead, or nowhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::key::SigningKey;
use portway_protocol::rotation::{Rotation, follow};
use portway_protocol::secret::Secret;

fuzz_target!(|statements: &[u8]| {
    if let Ok(rotations) = serde_json::from_slice::<Vec<Rotation>>(statements) {
        let key = SigningKey::from_seed(&Secret::new([1; 32])).public();
        let cluster = "home".parse().expect("a valid name");
        if let Ok(keys) = follow(&cluster, key, &rotations) {
            assert_eq!(keys[0], key);
            assert!(keys.len() <= rotations.len() + 1);
        }
    }
});
