//! The checks that keep others out of a session, by name.
//!
//! Every one of them is always on. Tests of a hostile signaling service show of each attack that it fails,
//! and that it would not without the check: for them alone the feature `weakened` exists, with which checks
//! can be switched off. Without it nothing here is left after compilation.

/// A check, and what it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// A description names one certificate.
    OneCertificate,
    /// The gateway: an offer is signed by the grant's key.
    Offer,
    /// The gateway: an offer came once only.
    Replay,
    /// The client: an answer is signed by a node's key.
    Answer,
    /// A token is signed by a key that is trusted.
    TokenSignature,
    /// A token is valid now.
    TokenTimes,
    /// A token is of and for the cluster.
    TokenParties,
    /// The client: the node is the one that is meant.
    Node,
    /// The client: the node has signed the session.
    NodeProof,
    /// The gateway: the grant's holder has signed the session.
    ClientProof,
    /// What both sign covers the certificates of the channel.
    Binding,
    /// The client: the node's certificate was not taken back.
    Revocation,
    /// A public key is not of small order, and signatures are verified strictly.
    StrictKeys,
}

impl Check {
    /// All of them, by the names that tests use.
    #[cfg(feature = "weakened")]
    const NAMES: &[(&str, Self)] = &[
        ("one-certificate", Self::OneCertificate),
        ("offer", Self::Offer),
        ("replay", Self::Replay),
        ("answer", Self::Answer),
        ("token-signature", Self::TokenSignature),
        ("token-times", Self::TokenTimes),
        ("token-parties", Self::TokenParties),
        ("node", Self::Node),
        ("node-proof", Self::NodeProof),
        ("client-proof", Self::ClientProof),
        ("binding", Self::Binding),
        ("revocation", Self::Revocation),
        ("strict-keys", Self::StrictKeys),
    ];

    /// Whether it is made.
    #[cfg(not(feature = "weakened"))]
    #[must_use]
    pub const fn is_on(self) -> bool {
        true
    }

    /// Whether it is made.
    #[cfg(feature = "weakened")]
    #[must_use]
    pub fn is_on(self) -> bool {
        let off = OFF.get().map_or(&[][..], Vec::as_slice);
        !off.contains(&self)
    }

    /// What came of the check: an error counts.
    ///
    /// # Errors
    /// That of `outcome`.
    pub fn enforce<E>(self, outcome: Result<(), E>) -> Result<(), E> {
        if self.is_on() { outcome } else { Ok(()) }
    }
}

#[cfg(feature = "weakened")]
static OFF: std::sync::OnceLock<Vec<Check>> = std::sync::OnceLock::new();

/// Switches checks off for the rest of the process, by their names with commas in between.
///
/// # Panics
/// If there is no check of a name, or if it was called before.
#[cfg(feature = "weakened")]
pub fn switch_off(names: &str) {
    let find = |name: &str| {
        let found = Check::NAMES.iter().find(|(known, _)| *known == name);
        found
            .unwrap_or_else(|| panic!("there is no check `{name}`"))
            .1
    };
    let off = names.split(',').filter(|name| !name.is_empty());
    OFF.set(off.map(find).collect()).expect("switched off once");
}
