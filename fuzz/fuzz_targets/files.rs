//! Any text where the path of a file, a digest or a listing is expected. No path leads out of a root, and each is
//! the same after it was written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::files::{FilePath, Listing, Sha256Digest};

fuzz_target!(|text: &str| {
    if let Ok((path, form)) = FilePath::decode(text) {
        for name in path.names() {
            assert!(![&b""[..], b".", b".."].contains(&name.as_bytes()));
            assert!(!name.as_bytes().iter().any(|byte| [b'/', 0].contains(byte)));
        }
        assert_eq!(FilePath::decode(&path.to_uri(form)), Ok((path, form)));
    }
    if let Some(digest) = Sha256Digest::from_field(text) {
        assert_eq!(Sha256Digest::from_field(&digest.to_field()), Some(digest));
    }
    drop(serde_json::from_str::<Listing>(text));
});
