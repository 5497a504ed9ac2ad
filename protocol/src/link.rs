//! Links: what a visitor is given, all of it in the fragment that browsers never send.
//!
//! `v1.<cluster>.<key>.<id>.<secret>`, see `docs/protocol.md` §2.

use std::fmt;
use std::str::FromStr;

use crate::id::{ClusterName, GrantId, IdError, decode_array, encode};
use crate::key::{KeyError, PublicKey, SigningKey};
use crate::secret::Secret;

/// The parsed fragment of a link. Its `Display` contains the secret: print it only for the user.
#[derive(Debug, Clone)]
pub struct Link {
    /// Cluster that the service belongs to.
    pub cluster: ClusterName,
    /// The cluster key, pinned by the link.
    pub cluster_key: PublicKey,
    /// Which grant the secret proves.
    pub grant: GrantId,
    /// Seed material of the grant key.
    pub secret: Secret<[u8; 32]>,
}

impl Link {
    /// The key whose possession the link proves.
    #[must_use]
    pub fn grant_key(&self) -> SigningKey {
        SigningKey::from_link_secret(&self.secret)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "v1.{}.{}.{}.{}",
            self.cluster,
            self.cluster_key,
            self.grant,
            encode(self.secret.expose())
        )
    }
}

/// Why a text is not a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not five parts that start with `v1`.
    #[error("not a link of version 1")]
    Form,
    /// A part is damaged.
    #[error("damaged link: {0}")]
    Part(#[from] IdError),
    /// The key is damaged.
    #[error("damaged link: {0}")]
    Key(#[from] KeyError),
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(LinkError::Form);
        if part()? != "v1" {
            return Err(LinkError::Form);
        }
        let link = Self {
            cluster: part()?.parse()?,
            cluster_key: part()?.parse()?,
            grant: part()?.parse()?,
            secret: Secret::new(decode_array(part()?)?),
        };
        match parts.next() {
            None => Ok(link),
            Some(_) => Err(LinkError::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link() -> Link {
        Link {
            cluster: "home".parse().unwrap(),
            cluster_key: SigningKey::from_seed(&Secret::new([1; 32])).public(),
            grant: GrantId::from_bytes([2; 9]),
            secret: Secret::new([3; 32]),
        }
    }

    #[test]
    fn a_link_round_trips() {
        let text = link().to_string();
        assert_eq!(text.parse::<Link>().unwrap().to_string(), text);
        assert_eq!(
            text,
            "v1.home.iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w.AgICAgICAgIC.AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM"
        );
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", link()).contains("AwMDAw"));
    }

    proptest! {
        #[test]
        fn a_cut_link_is_refused(cut in 0usize..100) {
            let text = link().to_string();
            prop_assume!(cut < text.len());
            prop_assert!(text[..cut].parse::<Link>().is_err());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text: String) {
            prop_assert!(text.parse::<Link>().is_err());
        }
    }
}
