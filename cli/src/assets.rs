//! The browser client, embedded by the build script.

use portway_protocol::id::encode;
use sha2::{Digest as _, Sha256};

/// Flat file name and content.
pub(crate) const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Whether the browser client was built in.
pub(crate) const fn are_embedded() -> bool {
    !FILES.is_empty()
}

/// SHA-256 over names and contents, base64url: the identity of the browser client.
pub(crate) fn hash() -> String {
    let mut hash = Sha256::new();
    for (name, content) in FILES {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    encode(&hash.finalize())
}
