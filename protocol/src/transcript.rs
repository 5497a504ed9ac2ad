//! Canonical bytes that proofs are signed over: a domain, then length-prefixed fields.
//!
//! Every signature in Portway covers exactly one of these, and no two domains are equal, so a
//! proof made for one purpose never serves another.

use sha2::{Digest as _, Sha256};

use crate::id::{ClusterName, GrantId, Nonce};
use crate::key::{KeyError, PublicKey, Signature, SigningKey};

/// Collects fields; [`Transcript::bytes`] are what is signed, [`Transcript::digest`] a hash of it.
#[derive(Debug, Clone)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// Starts with a domain such as `portway/session/1`.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self(domain.as_bytes().to_vec())
    }

    /// Appends a field of variable length: 4-byte big-endian length, then the bytes.
    ///
    /// # Panics
    /// If a field is longer than 4 GiB; every caller's fields are bounded far below.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("fields are bounded by the message size");
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a field whose length the protocol fixes.
    #[must_use]
    pub fn fixed<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes so far.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// What is signed to authenticate a signaling socket: domain, challenge nonce, cluster.
fn signal_proof(nonce: &Nonce, cluster: &ClusterName) -> Transcript {
    Transcript::new("portway/signal-proof/1")
        .field(nonce.as_bytes())
        .field(cluster.as_str().as_bytes())
}

/// Answers signaling's challenge with a node key or grant key.
#[must_use]
pub fn sign_challenge(key: &SigningKey, nonce: &Nonce, cluster: &ClusterName) -> Signature {
    key.sign(signal_proof(nonce, cluster).bytes())
}

/// Checks an answer to signaling's challenge.
///
/// # Errors
/// [`KeyError::BadSignature`].
pub fn verify_challenge(
    key: &PublicKey,
    nonce: &Nonce,
    cluster: &ClusterName,
    proof: &Signature,
) -> Result<(), KeyError> {
    key.verify(signal_proof(nonce, cluster).bytes(), proof)
}

/// What a node key signs inside a session: domain, then the session transcript's hash.
fn node_proof(transcript: &[u8; 32]) -> Transcript {
    Transcript::new("portway/node-proof/1").fixed(transcript)
}

/// Proves possession of a node key to a client.
#[must_use]
pub fn sign_node(key: &SigningKey, transcript: &[u8; 32]) -> Signature {
    key.sign(node_proof(transcript).bytes())
}

/// Checks possession of a node key.
///
/// # Errors
/// [`KeyError::BadSignature`].
pub fn verify_node(
    key: &PublicKey,
    transcript: &[u8; 32],
    proof: &Signature,
) -> Result<(), KeyError> {
    key.verify(node_proof(transcript).bytes(), proof)
}

/// What a grant key signs inside a session: domain, the session transcript's hash, the grant, and the key of
/// the device for which its holder vouches.
fn session_proof(transcript: &[u8; 32], grant: &GrantId, device: &PublicKey) -> Transcript {
    Transcript::new("portway/session-proof/1")
        .fixed(transcript)
        .fixed(grant.as_bytes())
        .fixed(device.as_bytes())
}

/// Proves possession of a grant key to a gateway, and vouches for a device.
#[must_use]
pub fn sign_session(
    key: &SigningKey,
    transcript: &[u8; 32],
    grant: &GrantId,
    device: &PublicKey,
) -> Signature {
    key.sign(session_proof(transcript, grant, device).bytes())
}

/// Checks possession of a grant key.
///
/// # Errors
/// [`KeyError::BadSignature`].
pub fn verify_session(
    key: &PublicKey,
    transcript: &[u8; 32],
    grant: &GrantId,
    device: &PublicKey,
    proof: &Signature,
) -> Result<(), KeyError> {
    key.verify(session_proof(transcript, grant, device).bytes(), proof)
}

/// What a device key signs inside a session: domain, the session transcript's hash, the grant. Whoever has the
/// key may be another program: what it is to sign leaves here as bytes.
#[must_use]
pub fn device_proof(transcript: &[u8; 32], grant: &GrantId) -> Transcript {
    Transcript::new("portway/device-proof/1")
        .fixed(transcript)
        .fixed(grant.as_bytes())
}

/// Checks possession of a device key.
///
/// # Errors
/// [`KeyError::BadSignature`].
pub fn verify_device(
    key: &PublicKey,
    transcript: &[u8; 32],
    grant: &GrantId,
    proof: &Signature,
) -> Result<(), KeyError> {
    key.verify(device_proof(transcript, grant).bytes(), proof)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    /// What is signed or hashed anywhere, and how its fields are framed.
    const FORMS: [(&str, &[Kind]); 13] = [
        ("portway/signal-proof/1", &[Kind::Variable, Kind::Variable]),
        ("portway/node-proof/1", &[Kind::Fixed]),
        ("portway/session-proof/1", &[Kind::Fixed; 3]),
        ("portway/device-proof/1", &[Kind::Fixed; 2]),
        (
            "portway/enrolment/1",
            &[Kind::Variable, Kind::Variable, Kind::Fixed],
        ),
        ("portway/session/1", SESSION.split_at(9).0),
        ("portway/resumption/1", &SESSION),
        ("portway/offer/1", &INTRODUCTION),
        ("portway/answer/1", &INTRODUCTION),
        ("portway/audit/1", &[Kind::Fixed, Kind::Variable]),
        ("portway/audit-proof/1", &[Kind::Fixed]),
        (
            "portway/pairing-commit/1",
            &[Kind::Variable, Kind::Variable, Kind::Fixed, Kind::Fixed],
        ),
        ("portway/pairing-code/1", &PAIRING),
    ];

    /// Cluster, service, node; session, two nonces, two certificates; versions; what is resumed, its key.
    const SESSION: [Kind; 11] = [
        Kind::Variable,
        Kind::Variable,
        Kind::Variable,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Variable,
        Kind::Fixed,
        Kind::Fixed,
    ];

    /// Cluster, service, session, node, and two that say whose: grant or certificate, certificate.
    const INTRODUCTION: [Kind; 6] = [
        Kind::Variable,
        Kind::Variable,
        Kind::Fixed,
        Kind::Variable,
        Kind::Fixed,
        Kind::Fixed,
    ];

    /// Cluster, service, node; keys of cluster and node, grant, key of the guest, two nonces.
    const PAIRING: [Kind; 9] = [
        Kind::Variable,
        Kind::Variable,
        Kind::Variable,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
        Kind::Fixed,
    ];

    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Variable,
        Fixed,
    }

    /// Which form, and the value of each of its fields. A fixed field is four bytes long, as long as the
    /// length of a variable one: what looks most alike.
    #[derive(Debug, Clone, PartialEq)]
    struct Message(usize, Vec<Vec<u8>>);

    fn encode(Message(form, fields): &Message) -> Vec<u8> {
        let (domain, kinds) = FORMS[*form];
        let mut transcript = Transcript::new(domain);
        for (kind, field) in kinds.iter().zip(fields) {
            transcript = match kind {
                Kind::Variable => transcript.field(field),
                Kind::Fixed => transcript.fixed::<4>(field.as_slice().try_into().unwrap()),
            };
        }
        transcript.0
    }

    /// The one message that encodes so.
    fn decode(bytes: &[u8]) -> Option<Message> {
        let is_domain = |(domain, _): &(&str, _)| bytes.starts_with(domain.as_bytes());
        let form = FORMS.iter().position(is_domain)?;
        let (domain, kinds) = FORMS[form];
        let mut rest = &bytes[domain.len()..];
        let mut fields = Vec::new();
        for kind in kinds {
            let length = match kind {
                Kind::Fixed => 4,
                Kind::Variable => {
                    let (length, after) = rest.split_first_chunk::<4>()?;
                    rest = after;
                    u32::from_be_bytes(*length) as usize
                }
            };
            let (field, after) = rest.split_at_checked(length)?;
            fields.push(field.to_vec());
            rest = after;
        }
        rest.is_empty().then_some(Message(form, fields))
    }

    fn message() -> impl Strategy<Value = Message> {
        // Few values, short ones, and such as are lengths: the more alike the better.
        let byte = prop_oneof![Just(0u8), Just(1), Just(4), Just(b'a')];
        (0..FORMS.len()).prop_flat_map(move |form| {
            let fields: Vec<_> = FORMS[form]
                .1
                .iter()
                .map(|kind| {
                    let length = match kind {
                        Kind::Variable => 0..6,
                        Kind::Fixed => 4..5,
                    };
                    proptest::collection::vec(byte.clone(), length)
                })
                .collect();
            (Just(form), fields).prop_map(|(form, fields)| Message(form, fields))
        })
    }

    /// The next field's first byte belongs to this one, or a byte changes its value: the least change.
    fn neighbour(message: &Message, at: usize, change: Change) -> Message {
        let Message(form, mut fields) = message.clone();
        let at = at % fields.len();
        let next = (at + 1) % fields.len();
        let is_variable = |at: usize| matches!(FORMS[form].1[at], Kind::Variable);
        match change {
            Change::Slide if is_variable(at) && is_variable(next) && !fields[next].is_empty() => {
                let byte = fields[next].remove(0);
                fields[at].push(byte);
            }
            Change::Swap if is_variable(at) == is_variable(next) => fields.swap(at, next),
            Change::Slide | Change::Swap => {}
            Change::Flip => {
                if let Some(byte) = fields[at].first_mut() {
                    *byte ^= 1;
                }
            }
        }
        Message(form, fields)
    }

    #[derive(Debug, Clone, Copy)]
    enum Change {
        Slide,
        Swap,
        Flip,
    }

    #[test]
    fn no_domain_begins_another() {
        for (a, _) in FORMS {
            let begun = FORMS.iter().filter(|(b, _)| b.starts_with(a)).count();
            assert_eq!(begun, 1, "{a}");
        }
    }

    proptest! {
        /// So no two messages encode alike: an encoding leads back to one message.
        #[test]
        fn an_encoding_can_be_read_back(a in message()) {
            prop_assert_eq!(decode(&encode(&a)), Some(a));
        }

        #[test]
        fn the_least_change_of_a_message_shows(
            a in message(),
            at in 0..SESSION.len(),
            change in prop_oneof![Just(Change::Slide), Just(Change::Swap), Just(Change::Flip)],
        ) {
            let b = neighbour(&a, at, change);
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }
    }

    #[test]
    fn fields_cannot_slide_into_each_other() {
        let a = Transcript::new("d").field(b"ab").field(b"c");
        let b = Transcript::new("d").field(b"a").field(b"bc");
        assert_ne!(a.bytes(), b.bytes());
    }

    #[test]
    fn bytes_of_a_transcript_never_change() {
        let transcript = Transcript::new("d").field(b"ab").fixed(&[1, 2]);
        assert_eq!(transcript.bytes(), b"d\0\0\0\x02ab\x01\x02");
    }

    #[test]
    fn golden_proofs_of_a_client() {
        let device = SigningKey::from_seed(&Secret::new([9; 32])).public();
        let (transcript, grant) = ([1; 32], GrantId::from_bytes([2; GrantId::LEN]));
        let signed_by_both = [&[1; 32][..], &[2; 9]].concat();
        assert_eq!(
            device_proof(&transcript, &grant).bytes(),
            [b"portway/device-proof/1", &signed_by_both[..]].concat()
        );
        assert_eq!(
            session_proof(&transcript, &grant, &device).bytes(),
            [
                b"portway/session-proof/1",
                &signed_by_both[..],
                device.as_bytes()
            ]
            .concat()
        );
    }
}
