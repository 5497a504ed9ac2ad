//! Certificates of nodes that are none, or not the right ones.

use portway_protocol::id::{ClusterName, NodeId, encode};
use portway_protocol::key::{KeyId, Signature, SigningKey};
use portway_protocol::secret::Secret;
use portway_protocol::token::machine::RevokedBy;
use serde_json::json;

/// Encoding of the curve's neutral element: as a public key, of order 1.
const SMALL_ORDER: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// Who the impostor says it is.
pub struct Identity {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeId,
    /// None: the one that the gateway shows to signaling.
    pub(super) certificate: Option<String>,
    pub(super) key: SigningKey,
    /// Shown for every signature, if it has none that is made by the key.
    pub(super) proof: Option<Signature>,
}

/// What makes a certificate good or bad.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Issuer and audience.
    pub cluster: &'static str,
    /// The node.
    pub node: String,
    /// Seconds from now to its end.
    pub expires: i64,
    /// What takes it back before.
    pub revoked_by: RevokedBy,
}

impl Identity {
    /// With a certificate that `issuer` signed, under the name of the key `named`.
    ///
    /// # Errors
    /// If a name is none.
    pub fn new(
        claims: &Claims,
        issuer: &SigningKey,
        named: &KeyId,
        now: u64,
    ) -> anyhow::Result<Self> {
        let key = own_key();
        let certificate = forge(claims, issuer, named, now, key.public().as_bytes());
        Ok(Self {
            cluster: "home".parse()?,
            node: claims.node.parse()?,
            certificate: Some(certificate),
            key,
            proof: None,
        })
    }

    /// With the certificate of the gateway itself, and not its key.
    ///
    /// # Errors
    /// If the name is none.
    pub fn of_the_gateway(node: &str) -> anyhow::Result<Self> {
        Ok(Self {
            cluster: "home".parse()?,
            node: node.parse()?,
            certificate: None,
            key: own_key(),
            proof: None,
        })
    }

    /// With a certificate for a key of small order, for which anybody can sign anything.
    ///
    /// # Errors
    /// If a name is none.
    pub fn of_small_order(claims: &Claims, issuer: &SigningKey, now: u64) -> anyhow::Result<Self> {
        let named = issuer.public().id();
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&SMALL_ORDER);
        Ok(Self {
            certificate: Some(forge(claims, issuer, &named, now, &SMALL_ORDER)),
            proof: Some(Signature::from_bytes(signature)),
            ..Self::new(claims, issuer, &named, now)?
        })
    }
}

/// A key that no cluster knows.
#[must_use]
pub fn own_key() -> SigningKey {
    SigningKey::from_seed(&Secret::new([0xAD; 32]))
}

/// Another.
#[must_use]
pub fn foreign_cluster_key() -> SigningKey {
    SigningKey::from_seed(&Secret::new([0xFC; 32]))
}

fn forge(
    claims: &Claims,
    issuer: &SigningKey,
    named: &KeyId,
    now: u64,
    node_key: &[u8; 32],
) -> String {
    const DAY: u64 = 24 * 3600;
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": named.as_str()});
    let mut body = json!({
        "iss": claims.cluster,
        "aud": claims.cluster,
        "sub": claims.node,
        "node_id": claims.node,
        "cluster_id": claims.cluster,
        "iat": now - 2 * DAY,
        "exp": now.saturating_add_signed(claims.expires),
        "jti": "forged",
        "cnf": {"ed25519": encode(node_key)},
    });
    if claims.revoked_by != RevokedBy::Nothing {
        body["revoked_by"] = json!(claims.revoked_by);
    }
    let part = |json: &serde_json::Value| encode(json.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&body));
    let signature = issuer.sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_bytes()))
}
