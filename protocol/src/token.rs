//! JSON Web Tokens (RFC 7519 over RFC 7515 compact form), EdDSA only (RFC 8037).
//!
//! - [`machine`]: what makes a process a node. [`user`]: what a person may open.
//! - [`verify`]: the checks that both share.
//!
//! Security: the algorithm follows from the key, never from the header; the header may carry
//! `alg`, `typ` and `kid` and nothing else, so `jku`, `x5u`, `jwk` and `crit` steer nothing.
//! Claims are typed: an unknown shape (an array for `iss`, say) is refused, not coerced. A token is
//! bound to a key by `cnf` (RFC 7800): it is no bearer secret, its holder proves the key.

pub mod machine;
pub mod user;
pub mod verify;

pub use verify::{TokenError, TrustedKeys};

use serde::{Deserialize, Serialize};

use crate::id::encode;
use crate::key::{PublicKey, SigningKey};

/// The header of every token, exactly.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Alg,
    typ: Typ,
    kid: String,
}

/// The one algorithm.
#[derive(Debug, Serialize, Deserialize)]
enum Alg {
    EdDSA,
}

/// The one type.
#[derive(Debug, Serialize, Deserialize)]
enum Typ {
    #[serde(rename = "JWT")]
    Jwt,
}

/// Confirmation claim (RFC 7800): the key whose possession the bearer proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// The key.
    pub ed25519: PublicKey,
}

/// Signs claims into the compact form.
fn issue<C: Serialize>(key: &SigningKey, claims: &C) -> String {
    let header = Header {
        alg: Alg::EdDSA,
        typ: Typ::Jwt,
        kid: key.public().id().as_str().to_owned(),
    };
    let part = |json: serde_json::Result<Vec<u8>>| encode(&json.expect("our own types serialise"));
    let signed = format!(
        "{}.{}",
        part(serde_json::to_vec(&header)),
        part(serde_json::to_vec(claims))
    );
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_bytes()))
}
