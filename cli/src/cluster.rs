//! The cluster whose key is in a state directory: who has it may say who belongs to the cluster.

use std::fs;
use std::io;

use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::MachineClaims;

use crate::exit::Failure;
use crate::links::{random_id, unix_now};
use crate::state::State;

/// Files in the state directory.
const KEY: &str = "cluster.key";
const NAME: &str = "cluster.name";

/// Name of the cluster unless told otherwise.
const DEFAULT_NAME: &str = "home";

/// Longest life of a machine token, seconds.
pub(crate) const MAX_MACHINE_LIFETIME: u64 = 30 * 24 * 3600;

/// How long before it is made a machine token begins, seconds: it is shown to visitors, whose clocks may be
/// slow.
const BACKDATED: u64 = 24 * 3600;

/// When a machine token was made, seconds since 1970.
pub(crate) fn made_at(claims: &MachineClaims) -> u64 {
    claims.iat + BACKDATED
}

/// A cluster and its key.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) key: SigningKey,
}

/// A machine token that was made.
#[derive(Debug, serde::Serialize)]
pub(crate) struct MachineToken {
    pub(crate) token: String,
    pub(crate) expires: u64,
}

impl Cluster {
    /// The one of the directory, or a new one: of the name that is wanted, if one is.
    pub(crate) fn open_or_make(
        state: &State,
        wanted: Option<&ClusterName>,
    ) -> anyhow::Result<Self> {
        if let Some(cluster) = Self::open(state)? {
            if wanted.is_some_and(|wanted| *wanted != cluster.name) {
                return Err(Failure::configuration(format!(
                    "the state directory {} has the key of the cluster `{}`: give another --state DIR for \
                     another cluster",
                    state.dir().display(),
                    cluster.name
                ))
                .into());
            }
            return Ok(cluster);
        }
        let name = wanted
            .cloned()
            .unwrap_or_else(|| DEFAULT_NAME.parse().expect("a valid label"));
        let key = state.key(KEY)?;
        fs::write(state.path(NAME), name.as_str())?;
        Ok(Self { name, key })
    }

    /// The one of the directory, if there is one.
    pub(crate) fn open(state: &State) -> anyhow::Result<Option<Self>> {
        let name = match fs::read_to_string(state.path(NAME)) {
            Ok(name) => name.trim().parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let key = state.read_secret(KEY)?;
        Ok(key.map(|seed| Self {
            name,
            key: SigningKey::from_seed(&seed),
        }))
    }

    /// The one of the directory, which must be there.
    pub(crate) fn required(state: &State) -> anyhow::Result<Self> {
        Self::open(state)?.ok_or_else(|| {
            Failure::configuration(format!(
                "there is no cluster key in {}: make one with `portway init` or `portway up`, or give the \
                 --state DIR that has it",
                state.dir().display()
            ))
            .into()
        })
    }

    /// Says that a node key is a node.
    pub(crate) fn machine_token(
        &self,
        node: &NodeId,
        key: PublicKey,
        lifetime: u64,
    ) -> Result<MachineToken, Failure> {
        if lifetime > MAX_MACHINE_LIFETIME {
            return Err(Failure::configuration(
                "a machine token lives at most 30 days",
            ));
        }
        let now = unix_now();
        let expires = now + lifetime;
        let claims = MachineClaims {
            iss: self.name.clone(),
            aud: self.name.clone(),
            sub: node.clone(),
            node_id: node.clone(),
            cluster_id: self.name.clone(),
            iat: now.saturating_sub(BACKDATED),
            exp: expires,
            jti: random_id(),
            cnf: Confirmation { ed25519: key },
        };
        Ok(MachineToken {
            token: claims.issue(&self.key),
            expires,
        })
    }
}
