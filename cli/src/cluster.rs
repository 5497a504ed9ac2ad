//! The cluster whose key is in a state directory: who has it may say who belongs to the cluster.

use std::fs;
use std::io;
use std::sync::Arc;

use portway_gateway::enrolment::certificate::BACKDATED;
use portway_protocol::id::{ClusterName, NodeId, decode_array, encode};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::rotation::{MAX_ROTATIONS, Rotation};
use portway_protocol::secret::Secret;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::args::Global;
use crate::exit::Failure;
use crate::links::{random_id, unix_now};
use crate::passphrase;
use crate::sealed_key::{Passphrase, SealedKey};
use crate::state::{State, random_secret};

/// Files in the state directory.
const KEY: &str = "cluster.key";
const NAME: &str = "cluster.name";
const ROTATIONS: &str = "cluster.rotations";

/// A key that takes the place of the present one, until it has.
const NEXT_KEY: &str = "cluster.key.next";

/// Name of the cluster unless told otherwise.
const DEFAULT_NAME: &str = "home";

/// Longest life of a machine token, seconds.
pub(crate) const MAX_MACHINE_LIFETIME: u64 = 30 * 24 * 3600;

/// A cluster and its key.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: ClusterName,
    pub(crate) key: SigningKey,
    /// How it came to have this key.
    pub(crate) rotations: Vec<Rotation>,
}

/// The cluster that a process has the key of, and whoever in it signs for the cluster shares.
#[derive(Debug, Clone)]
pub(crate) struct Current(Arc<watch::Sender<Cluster>>);

impl Current {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self(Arc::new(watch::Sender::new(cluster)))
    }

    /// With the key of now.
    pub(crate) fn get(&self) -> Cluster {
        self.0.borrow().clone()
    }

    /// With another key from now on.
    pub(crate) fn replace(&self, cluster: Cluster) {
        self.0.send_replace(cluster);
    }

    /// Waits until its key is another one than this.
    pub(crate) async fn rotated(&self, since: PublicKey) {
        let mut watched = self.0.subscribe();
        let is_other = |cluster: &Cluster| cluster.key.public() != since;
        // The sender lives in `self`, so waiting cannot fail.
        drop(watched.wait_for(is_other).await);
    }
}

/// The file of rotations.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotationsFile {
    version: u32,
    rotations: Vec<Rotation>,
}

/// A cluster whose key is in a state directory, and maybe under a passphrase.
pub(crate) struct Kept {
    pub(crate) name: ClusterName,
    key: KeptKey,
    rotations: Vec<Rotation>,
}

enum KeptKey {
    Open(SigningKey),
    Sealed(SealedKey),
}

/// A machine token that was made.
#[derive(Debug, Serialize)]
pub(crate) struct MachineToken {
    pub(crate) token: String,
    pub(crate) expires: u64,
}

impl Kept {
    /// The one of the directory, if there is one.
    pub(crate) fn find(state: &State) -> anyhow::Result<Option<Self>> {
        let name = match fs::read_to_string(state.path(NAME)) {
            Ok(name) => name.trim().parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut rotations = read_rotations(state)?;
        loop {
            if let Some(next) = KeptKey::read(state, NEXT_KEY)? {
                finish_rotation(state, next.public(), &rotations)?;
            }
            let key = KeptKey::read(state, KEY)?;
            let now = read_rotations(state)?;
            if now == rotations {
                return Ok(key.map(|key| Self {
                    name,
                    key,
                    rotations,
                }));
            }
            // Another process has replaced the key meanwhile: what was read may not belong together.
            rotations = now;
        }
    }

    /// The one of the directory, which must be there.
    pub(crate) fn required(state: &State) -> anyhow::Result<Self> {
        Self::find(state)?.ok_or_else(|| {
            Failure::configuration(format!(
                "there is no cluster key in {}: make one with `portway init` or `portway up`, or give the \
                 --state DIR that has it",
                state.dir().display()
            ))
            .into()
        })
    }

    /// Refuses another name than the one that it has.
    pub(crate) fn require_name(
        &self,
        state: &State,
        wanted: Option<&ClusterName>,
    ) -> Result<(), Failure> {
        if wanted.is_none_or(|wanted| *wanted == self.name) {
            return Ok(());
        }
        Err(Failure::configuration(format!(
            "the state directory {} has the key of the cluster `{}`: give another --state DIR for another \
             cluster",
            state.dir().display(),
            self.name
        )))
    }

    /// The public half of its key.
    pub(crate) fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// All keys of the cluster that somebody may know, the newest last.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        keys(&self.rotations, self.public())
    }

    /// Whether its key is under a passphrase.
    pub(crate) const fn is_sealed(&self) -> bool {
        match self.key {
            KeptKey::Open(_) => false,
            KeptKey::Sealed(_) => true,
        }
    }

    /// With its private key. Asks for the passphrase if there is one.
    pub(crate) fn open(self, global: &Global, state: &State) -> anyhow::Result<Cluster> {
        Ok(self.unlock(global, state)?.0)
    }

    /// The same, and the passphrase if there is one.
    pub(crate) fn unlock(
        self,
        global: &Global,
        state: &State,
    ) -> anyhow::Result<(Cluster, Option<Passphrase>)> {
        let (key, passphrase) = match self.key {
            KeptKey::Open(key) => (key, None),
            KeptKey::Sealed(sealed) => {
                let passphrase = passphrase::given(global)?;
                let key = sealed.open(&passphrase).map_err(|error| {
                    let path = state.path(KEY);
                    Failure::configuration(format!("{}: {error}", path.display()))
                })?;
                (key, Some(passphrase))
            }
        };
        let cluster = Cluster {
            name: self.name,
            key,
            rotations: self.rotations,
        };
        Ok((cluster, passphrase))
    }
}

impl KeptKey {
    fn read(state: &State, file: &str) -> anyhow::Result<Option<Self>> {
        let Some(text) = state.read_private(file)? else {
            return Ok(None);
        };
        let key = if SealedKey::is_one(text.expose()) {
            let sealed = text.expose().parse().map_err(|_| state.damaged(file))?;
            Self::Sealed(sealed)
        } else {
            let seed = decode_array(text.expose().trim()).map_err(|_| state.damaged(file))?;
            Self::Open(SigningKey::from_seed(&Secret::new(seed)))
        };
        Ok(Some(key))
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Open(key) => key.public(),
            Self::Sealed(sealed) => sealed.public(),
        }
    }
}

/// The keys that statements lead away from, and the one that they lead to.
fn keys(rotations: &[Rotation], newest: PublicKey) -> Vec<PublicKey> {
    let former = rotations.iter().map(|rotation| rotation.old);
    former.chain([newest]).collect()
}

fn read_rotations(state: &State) -> anyhow::Result<Vec<Rotation>> {
    match fs::read(state.path(ROTATIONS)) {
        Ok(json) => {
            let file: RotationsFile =
                serde_json::from_slice(&json).map_err(|_| state.damaged(ROTATIONS))?;
            Ok(file.rotations)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Ends a rotation that was cut off, if its statement was written: that is what counts. Another process may
/// be at the same, or in the middle of one: nothing is ever taken away here.
fn finish_rotation(state: &State, next: PublicKey, rotations: &[Rotation]) -> anyhow::Result<()> {
    if rotations.last().is_none_or(|last| last.new != next) {
        return Ok(());
    }
    match fs::rename(state.path(NEXT_KEY), state.path(KEY)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Cluster {
    /// Keeps the key under a passphrase from now on, or under none.
    pub(crate) fn keep(
        &self,
        state: &State,
        passphrase: Option<&Passphrase>,
    ) -> anyhow::Result<()> {
        self.keep_as(state, KEY, passphrase)
    }

    fn keep_as(
        &self,
        state: &State,
        file: &str,
        passphrase: Option<&Passphrase>,
    ) -> anyhow::Result<()> {
        let line = Secret::new(match passphrase {
            Some(passphrase) => format!("{}\n", SealedKey::seal(&self.key, passphrase)?),
            None => format!("{}\n", encode(self.key.seed().expose())),
        });
        Ok(state.replace(file, line.expose().as_bytes())?)
    }

    /// Gives way to a new key, which is kept like the old one. Whatever happens on the way, the directory has
    /// a key and the statements that lead to it.
    pub(crate) fn rotate(
        &self,
        state: &State,
        passphrase: Option<&Passphrase>,
    ) -> anyhow::Result<Self> {
        let next = self.vouch_for_another();
        next.keep_as(state, NEXT_KEY, passphrase)?;
        next.write_rotations(state)?;
        finish_rotation(state, next.key.public(), &next.rotations)?;
        Ok(next)
    }

    /// The same cluster with a new key, and a statement for it. Nothing is written.
    fn vouch_for_another(&self) -> Self {
        let key = SigningKey::from_seed(&random_secret());
        let serial = self.rotations.last().map_or(1, |last| last.serial + 1);
        let mut rotations = self.rotations.clone();
        rotations.push(Rotation::sign(&self.name, serial, &self.key, key.public()));
        let oldest = rotations.len().saturating_sub(MAX_ROTATIONS);
        rotations.drain(..oldest);
        Self {
            name: self.name.clone(),
            key,
            rotations,
        }
    }

    fn write_rotations(&self, state: &State) -> anyhow::Result<()> {
        let file = RotationsFile {
            version: 1,
            rotations: self.rotations.clone(),
        };
        Ok(state.replace(ROTATIONS, &serde_json::to_vec_pretty(&file)?)?)
    }

    /// All keys of the cluster that somebody may know, the newest last.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        keys(&self.rotations, self.key.public())
    }

    /// The one of the directory, or a new one: of the name that is wanted, if one is.
    pub(crate) fn open_or_make(
        global: &Global,
        state: &State,
        wanted: Option<&ClusterName>,
    ) -> anyhow::Result<Self> {
        if let Some(kept) = Kept::find(state)? {
            kept.require_name(state, wanted)?;
            return kept.open(global, state);
        }
        let passphrase = passphrase::of_file(global)?;
        Self::make(state, wanted.cloned(), passphrase.as_ref())
    }

    /// A new one, under a passphrase if there is one.
    pub(crate) fn make(
        state: &State,
        name: Option<ClusterName>,
        passphrase: Option<&Passphrase>,
    ) -> anyhow::Result<Self> {
        let name = name.unwrap_or_else(|| DEFAULT_NAME.parse().expect("a valid label"));
        let key = SigningKey::from_seed(&random_secret());
        match passphrase {
            Some(passphrase) => {
                let sealed = SealedKey::seal(&key, passphrase)?;
                state.write_private(KEY, &Secret::new(sealed.to_string()))?;
            }
            None => state.write_secret(KEY, &key.seed())?,
        }
        fs::write(state.path(NAME), name.as_str())?;
        Ok(Self {
            name,
            key,
            rotations: Vec::new(),
        })
    }

    /// The one of the directory, which must be there.
    pub(crate) fn required(global: &Global, state: &State) -> anyhow::Result<Self> {
        Kept::required(state)?.open(global, state)
    }

    /// Says that a node key is a node.
    pub(crate) fn machine_token(
        &self,
        node: &NodeId,
        key: PublicKey,
        lifetime: u64,
        revoked_by: RevokedBy,
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
            revoked_by,
        };
        Ok(MachineToken {
            token: claims.issue(&self.key),
            expires,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough for somebody who looks all the time to meet every instant of one.
    const ROTATED: usize = 200;

    /// What a command finds that looks at the directory now.
    fn found(state: &State) -> Vec<PublicKey> {
        Kept::find(state).unwrap().unwrap().keys()
    }

    #[test]
    fn whoever_looks_in_the_middle_of_a_rotation_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state"));
        state.prepare().unwrap();
        let old = Cluster::make(&state, None, None).unwrap();
        let next = old.vouch_for_another();
        let both = [old.key.public(), next.key.public()];

        next.keep_as(&state, NEXT_KEY, None).unwrap();
        assert_eq!(found(&state), both[..1]);
        next.write_rotations(&state).unwrap();
        assert_eq!(found(&state), both, "the statement is what counts");
        finish_rotation(&state, both[1], &next.rotations).unwrap();
        assert_eq!(found(&state), both);
        assert!(!state.path(NEXT_KEY).exists());
    }

    #[test]
    fn a_key_is_found_with_the_statements_that_lead_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::at(dir.path().join("state"));
        state.prepare().unwrap();
        let first = Cluster::make(&state, None, None).unwrap();
        let mut cluster = first.rotate(&state, None).unwrap();
        // Gets something across only while the other end waits for it.
        let (looked, wait) = std::sync::mpsc::sync_channel(0);
        std::thread::scope(|scope| {
            // Ends with this thread, if that panics.
            let looked = looked;
            let shared = &state;
            let rotating = scope.spawn(move || {
                for _ in 0..ROTATED {
                    cluster = cluster.rotate(shared, None).unwrap();
                    // Nobody rotates twice while a command looks.
                    if wait.recv().is_err() {
                        return;
                    }
                }
            });
            while !rotating.is_finished() {
                let kept = Kept::find(&state).unwrap().unwrap();
                assert_eq!(kept.rotations.last().unwrap().new, kept.public());
                let _unheard = looked.try_send(());
            }
        });
    }
}
