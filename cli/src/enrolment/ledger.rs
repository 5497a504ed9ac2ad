//! Whom the cluster key has invited and certified: `enrolled.json` in its state directory.
//!
//! Several processes may use it: the instance that runs, and commands beside it. Each change reads, changes
//! and writes the file while it holds a lock.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use portway_protocol::id::{GrantId, NodeId};
use portway_protocol::key::{KeyId, PublicKey};
use portway_protocol::revocation::MAX_REVOKED;
use portway_protocol::token::verify::LEEWAY;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::state::State;

/// Files in the state directory.
const FILE: &str = "enrolled.json";
const LOCK: &str = "enrolled.lock";

/// How long after the end of its certificate a node may still renew it, seconds: it may have been switched
/// off meanwhile.
pub(crate) const OVERLAP: u64 = 7 * 24 * 3600;

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(State);

/// What it says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entries {
    version: u32,
    invitations: Vec<Invited>,
    nodes: Vec<Member>,
    #[serde(default)]
    revoked: Vec<Revoked>,
    /// Of the last list of those.
    #[serde(default)]
    serial: u64,
}

/// A join token that nobody has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invited {
    /// How the issuer knows it again.
    pub(crate) id: GrantId,
    /// The grant of the token.
    pub(crate) grant: GrantId,
    /// The only name that it is good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeId>,
    /// Lifetime of the node's certificates, seconds.
    pub(crate) certificate_s: u64,
    /// End of the token, seconds since 1970.
    pub(crate) expires: u64,
}

/// A node that has a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) key: PublicKey,
    /// By which it renews its certificate; none if that was made by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grant: Option<GrantId>,
    /// Lifetime of its certificates, seconds.
    pub(crate) certificate_s: u64,
    /// End of the last one, seconds since 1970.
    pub(crate) expires: u64,
}

/// A node that was forgotten while its certificate was good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Revoked {
    key: KeyId,
    /// End of the certificate, seconds since 1970.
    expires: u64,
}

impl Ledger {
    /// The one of a state directory.
    pub(crate) fn new(state: State) -> Self {
        Self(state)
    }

    /// What it says now.
    pub(crate) fn read(&self) -> anyhow::Result<Entries> {
        let path = self.0.path(FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Entries::default()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        serde_json::from_slice(&json).map_err(|error| {
            Failure::configuration(format!(
                "{} is damaged: {error}; restore it from a backup (without it every machine has to join anew)",
                path.display()
            ))
            .into()
        })
    }

    /// Changes it. What `change` refuses leaves it as it was.
    pub(crate) fn change<T, E: From<anyhow::Error>>(
        &self,
        now: u64,
        change: impl FnOnce(&mut Entries) -> Result<T, E>,
    ) -> Result<T, E> {
        // Held until the end of this function.
        let _lock = self.lock()?;
        let mut entries = self.read()?;
        entries.forget_expired(now);
        let outcome = change(&mut entries)?;
        entries.version = 1;
        let json = serde_json::to_vec_pretty(&entries).map_err(anyhow::Error::from)?;
        self.0.replace(FILE, &json).map_err(anyhow::Error::from)?;
        Ok(outcome)
    }

    fn lock(&self) -> anyhow::Result<fs::File> {
        let path = self.0.path(LOCK);
        let context = || format!("cannot lock {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(context)?;
        file.lock().with_context(context)?;
        Ok(file)
    }
}

impl Entries {
    /// Whether anybody may come for a certificate.
    pub(crate) fn is_awaiting(&self) -> bool {
        !self.invitations.is_empty() || self.nodes.iter().any(|node| node.grant.is_some())
    }

    /// All nodes, by name.
    pub(crate) fn nodes(&self) -> &[Member] {
        &self.nodes
    }

    /// An invitation that has not been used.
    pub(crate) fn invitation(&self, id: &GrantId) -> Option<&Invited> {
        self.invitations.iter().find(|invited| invited.id == *id)
    }

    /// The node of a name.
    pub(crate) fn node(&self, name: &NodeId) -> Option<&Member> {
        self.nodes.iter().find(|node| node.node == *name)
    }

    /// Adds an invitation.
    pub(crate) fn invite(&mut self, invited: Invited) {
        self.invitations.push(invited);
    }

    /// An invitation is used up.
    pub(crate) fn redeem(&mut self, id: &GrantId) {
        self.invitations.retain(|invited| invited.id != *id);
    }

    /// Takes a node, in place of the one that has its name or its key. Returns whether it had been forgotten,
    /// so that the next list is news.
    pub(crate) fn certify(&mut self, member: Member) -> bool {
        self.nodes
            .retain(|node| node.node != member.node && node.key != member.key);
        let listed = self.revoked.len();
        self.revoked
            .retain(|revoked| revoked.key != member.key.id());
        self.nodes.push(member);
        self.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        self.revoked.len() < listed
    }

    /// Frees a name; returns who had it. Its key is revoked.
    pub(crate) fn forget(&mut self, name: &NodeId) -> anyhow::Result<Option<Member>> {
        let Some(at) = self.nodes.iter().position(|node| node.node == *name) else {
            return Ok(None);
        };
        if self.revoked.len() >= MAX_REVOKED {
            let message = format!(
                "{MAX_REVOKED} nodes were forgotten whose certificates have not ended: `portway key rotate` makes \
                 them end for all who follow"
            );
            return Err(Failure::configuration(message).into());
        }
        let forgotten = self.nodes.remove(at);
        self.revoked.push(Revoked {
            key: forgotten.key.id(),
            expires: forgotten.expires,
        });
        Ok(Some(forgotten))
    }

    /// What the next list says: its serial, and whom it names. `last`: the highest serial that is known.
    /// Serials rise even where this file was lost.
    pub(crate) fn next_list(&mut self, last: u64, now: u64) -> (u64, Vec<KeyId>) {
        self.serial = now.max(self.serial.max(last) + 1);
        let nodes = self.revoked.iter().map(|revoked| revoked.key.clone());
        (self.serial, nodes.collect())
    }

    fn forget_expired(&mut self, now: u64) {
        self.invitations.retain(|invited| invited.expires > now);
        self.nodes.retain(|node| node.expires + OVERLAP > now);
        self.revoked
            .retain(|revoked| revoked.expires + LEEWAY > now);
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::key::SigningKey;
    use portway_protocol::secret::Secret;

    use super::*;

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(State::at(dir.path().to_owned()));
        (dir, ledger)
    }

    fn member(name: &str, key: u8, expires: u64) -> Member {
        Member {
            node: name.parse().unwrap(),
            key: SigningKey::from_seed(&Secret::new([key; 32])).public(),
            grant: Some(GrantId::from_bytes([key; 9])),
            certificate_s: 100,
            expires,
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "as `change` wants it")]
    fn certify(entries: &mut Entries, member: Member) -> anyhow::Result<()> {
        entries.certify(member);
        Ok(())
    }

    #[test]
    fn a_node_is_kept_until_its_overlap_is_over() {
        let (_dir, ledger) = ledger();
        let office = member("office", 1, 1000);
        ledger
            .change(0, |entries| certify(entries, office.clone()))
            .unwrap();
        let known = |now| {
            let name = "office".parse().unwrap();
            let found = |entries: &mut Entries| anyhow::Ok(entries.node(&name).cloned());
            ledger.change(now, found).unwrap()
        };
        assert_eq!(known(1000 + OVERLAP - 1), Some(office));
        assert_eq!(known(1000 + OVERLAP), None);
    }

    #[test]
    fn a_name_and_a_key_are_there_once() {
        let mut entries = Entries::default();
        entries.certify(member("office", 1, 1000));
        entries.certify(member("attic", 2, 1000));
        entries.certify(member("office", 3, 1000));
        entries.certify(member("cellar", 2, 1000));
        let names: Vec<&str> = entries.nodes().iter().map(|it| it.node.as_str()).collect();
        assert_eq!(names, ["cellar", "office"]);
    }

    #[test]
    fn who_was_forgotten_is_listed_until_its_certificate_ends_or_it_is_back() {
        let mut entries = Entries::default();
        let (office, attic) = (member("office", 1, 1000), member("attic", 2, 2000));
        for it in [&office, &attic] {
            assert!(!entries.certify(it.clone()));
            let forgotten = entries.forget(&it.node).unwrap();
            assert_eq!(forgotten.as_ref(), Some(it));
            assert_eq!(entries.forget(&it.node).unwrap(), None);
        }
        let (both, one) = (vec![office.key.id(), attic.key.id()], vec![attic.key.id()]);
        assert_eq!(entries.next_list(0, 10), (10, both.clone()));
        assert_eq!(entries.next_list(20, 10), (21, both.clone()));
        entries.forget_expired(1000 + LEEWAY - 1);
        assert_eq!(entries.next_list(20, 10), (22, both));
        entries.forget_expired(1000 + LEEWAY);
        assert_eq!(entries.next_list(0, 10), (23, one));
        assert!(entries.certify(member("cellar", 2, 3000)), "the same key");
        assert_eq!(entries.next_list(0, 10), (24, Vec::new()));
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (_dir, ledger) = ledger();
        let refused: anyhow::Result<()> = ledger.change(0, |entries| {
            entries.certify(member("office", 1, 1000));
            anyhow::bail!("no")
        });
        assert!(refused.is_err());
        assert!(ledger.read().unwrap().nodes().is_empty());
    }
}
