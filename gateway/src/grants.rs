//! Grants: which keys open which services, until when, on which devices; and what became of them.
//!
//! A grant is a user token that the cluster key signed, or this node's own key, for it may say who opens its
//! services; its `cnf` is the key that its holder proves. The file holds tokens and what became of them. They
//! are no secrets (nobody can use one without the key), but they name people, so the file is private all the
//! same.
//!
//! Security: every session asks here while it lasts. A grant that was revoked is not taken from a client that
//! presents its token. A device that a grant is bound to is on disk before it is let in.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use portway_protocol::id::{ClusterName, GrantId, ServiceName};
use portway_protocol::key::PublicKey;
use portway_protocol::limits::MAX_GRANTS;
use portway_protocol::reason::Reason;
use portway_protocol::rotation::Rotation;
use portway_protocol::signal::AnnouncedGrant;
use portway_protocol::token::TrustedKeys;
use portway_protocol::token::user::{Devices, UserClaims};
use portway_protocol::token::verify::LEEWAY;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::private_file;

/// Its file in a state directory.
pub const GRANTS_FILE: &str = "grants.json";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GrantsError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Too many.
    #[error("a node keeps at most {MAX_GRANTS} grants: revoke some")]
    TooMany,
    /// The token is not one of this cluster.
    #[error("the token was refused: {0}")]
    Token(#[from] portway_protocol::token::TokenError),
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    tokens: Vec<String>,
    #[serde(default)]
    usage: BTreeMap<GrantId, Usage>,
    #[serde(default)]
    revoked: BTreeMap<GrantId, u64>,
}

/// Revoked grants to remember; beyond that, those that end first are forgotten.
const MAX_REVOKED: usize = 4 * MAX_GRANTS;

/// What became of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// The one device that a grant is bound to, if it is for the first one and there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PublicKey>,
    /// Sessions that have begun.
    pub sessions: u64,
    /// Bytes from clients, of sessions that have ended.
    pub received: u64,
    /// Bytes to clients, of sessions that have ended.
    pub sent: u64,
    /// The last session that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Opened>,
}

/// How a session began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Seconds since 1970.
    pub at: u64,
    /// Key of the device.
    pub device: PublicKey,
    /// Where its packets came from, if that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// A grant and its token.
#[derive(Debug, Clone)]
struct Grant {
    claims: UserClaims,
    token: String,
    usage: Usage,
}

/// Who may sign grants.
#[derive(Debug)]
pub struct Issuers {
    now: TrustedKeys,
    /// And those who could once: what they signed and is kept is good to its end.
    ever: TrustedKeys,
}

/// How a token came here.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// Somebody shows it.
    Presented,
    /// It was believed before, and kept.
    Kept,
}

impl Issuers {
    /// These, and for what they have signed already the cluster keys that gave way.
    #[must_use]
    pub fn new(now: impl IntoIterator<Item = PublicKey>, rotations: &[Rotation]) -> Self {
        let now: Vec<_> = now.into_iter().collect();
        let former = rotations.iter().map(|rotation| rotation.old);
        Self {
            ever: TrustedKeys::new(now.iter().copied().chain(former)),
            now: TrustedKeys::new(now),
        }
    }

    const fn keys(&self, standing: Standing) -> &TrustedKeys {
        match standing {
            Standing::Presented => &self.now,
            Standing::Kept => &self.ever,
        }
    }
}

/// What is in the file, or is to be.
#[derive(Debug, Default)]
struct Kept {
    grants: BTreeMap<GrantId, Grant>,
    /// Until when their tokens would be good, seconds since 1970.
    revoked: BTreeMap<GrantId, u64>,
    /// Counts changes.
    changes: u64,
}

/// All grants of a node.
#[derive(Debug)]
pub struct Grants {
    path: PathBuf,
    cluster: ClusterName,
    issuers: RwLock<Issuers>,
    kept: Mutex<Kept>,
    /// Changes that are in the file. Who holds this writes it.
    written: Mutex<u64>,
    revoked: watch::Sender<()>,
}

impl Grants {
    /// Reads the store, or starts an empty one. Expired grants are dropped. `issuers`: who may sign grants.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn open(
        path: &Path,
        cluster: ClusterName,
        issuers: Issuers,
        now: u64,
    ) -> Result<Self, GrantsError> {
        let mut file: File = match fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|source| GrantsError::Damaged {
                path: path.to_owned(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => File::default(),
            Err(source) => {
                return Err(GrantsError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let store = Self {
            path: path.to_owned(),
            cluster,
            issuers: RwLock::new(issuers),
            kept: Mutex::default(),
            written: Mutex::default(),
            revoked: watch::Sender::default(),
        };
        store.lock().revoked = std::mem::take(&mut file.revoked);
        for token in file.tokens {
            match store.check(&token, Standing::Kept, now) {
                Ok(claims) => {
                    let usage = file.usage.remove(&claims.jti).unwrap_or_default();
                    let grant = Grant {
                        claims,
                        token,
                        usage,
                    };
                    store.lock().grants.insert(grant.claims.jti, grant);
                }
                Err(error) => tracing::debug!(%error, "a stored grant is not valid any more"),
            }
        }
        Ok(store)
    }

    /// Adds a token that an issuer signed, also if its grant was revoked before. One that takes the place of
    /// another keeps what became of that.
    ///
    /// # Errors
    /// See [`GrantsError`].
    pub fn add(&self, token: String, now: u64) -> Result<UserClaims, GrantsError> {
        let claims = self.check(&token, Standing::Presented, now)?;
        {
            let mut kept = self.lock();
            kept.grants.retain(|_, grant| grant.claims.exp > now);
            kept.revoked
                .retain(|_, expires| expires.saturating_add(LEEWAY) > now);
            let before = kept.grants.remove(&claims.jti);
            if kept.grants.len() >= MAX_GRANTS {
                return Err(GrantsError::TooMany);
            }
            let same = before.filter(|before| before.claims.cnf == claims.cnf);
            let grant = Grant {
                claims: claims.clone(),
                token,
                usage: same.map(|before| before.usage).unwrap_or_default(),
            };
            kept.grants.insert(claims.jti, grant);
            kept.revoked.remove(&claims.jti);
            kept.changes += 1;
        }
        self.write()?;
        Ok(claims)
    }

    /// Removes a grant; `false` if there was none. [`Grants::revoked`] tells.
    ///
    /// # Errors
    /// It is removed, but would be back after a restart; see [`GrantsError`].
    pub fn revoke(&self, id: &GrantId) -> Result<bool, GrantsError> {
        let existed = {
            let mut kept = self.lock();
            kept.changes += 1;
            let revoked = kept.grants.remove(id);
            if let Some(grant) = &revoked {
                kept.remember_revoked(*id, grant.claims.exp);
            }
            revoked.is_some()
        };
        self.revoked.send_replace(());
        self.write()?;
        Ok(existed)
    }

    /// Changes whenever a grant has been revoked.
    #[must_use]
    pub fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// A device whose proof is good opens a grant: binds the grant to it, if it is for the first one. That
    /// is on disk when this returns. Blocks.
    ///
    /// # Errors
    /// [`Reason::LinkUsed`] if it is bound to another one; [`Reason::Internal`] if it cannot be written.
    pub fn redeem(&self, claims: &UserClaims, device: PublicKey) -> Result<(), Reason> {
        match claims.devices {
            Devices::Any => return Ok(()),
            Devices::First => {}
        }
        {
            let mut kept = self.lock();
            // Without a place in the store nobody would know the next time.
            let grant = kept.grants.get_mut(&claims.jti);
            let bound = &mut grant.ok_or(Reason::GrantUnknown)?.usage.device;
            match bound {
                Some(bound) if *bound == device => {}
                Some(_) => return Err(Reason::LinkUsed),
                None => {
                    *bound = Some(device);
                    kept.changes += 1;
                }
            }
        }
        // Also who was bound by another session, which may not have written yet.
        self.write().map_err(|error| {
            tracing::error!(%error, "a link for one device cannot be opened");
            Reason::Internal
        })
    }

    /// A session has begun.
    pub fn opened(&self, id: &GrantId, opened: Opened) {
        let mut kept = self.lock();
        if let Some(grant) = kept.grants.get_mut(id) {
            grant.usage.sessions += 1;
            grant.usage.last = Some(opened);
            kept.changes += 1;
        }
    }

    /// A session has ended after so many bytes from its client and to it. Blocks until that is written.
    pub fn closed(&self, id: &GrantId, received: u64, sent: u64) {
        {
            let mut kept = self.lock();
            let Some(grant) = kept.grants.get_mut(id) else {
                return;
            };
            let usage = &mut grant.usage;
            usage.received = usage.received.saturating_add(received);
            usage.sent = usage.sent.saturating_add(sent);
            kept.changes += 1;
        }
        if let Err(error) = self.write() {
            tracing::error!(%error, "what became of a link is not kept");
        }
    }

    /// All grants and what became of them, in no order that means anything.
    #[must_use]
    pub fn all(&self) -> Vec<(UserClaims, Usage)> {
        let kept = self.lock();
        let each = |grant: &Grant| (grant.claims.clone(), grant.usage.clone());
        kept.grants.values().map(each).collect()
    }

    /// What a grant allows on a service now. `token` may carry a grant that is not in the store.
    ///
    /// # Errors
    /// Why it allows nothing.
    pub fn claims(
        &self,
        id: &GrantId,
        token: Option<&str>,
        service: &ServiceName,
        now: u64,
    ) -> Result<UserClaims, Reason> {
        let (stored, is_revoked) = {
            let kept = self.lock();
            let stored = kept.grants.get(id).map(|grant| grant.token.clone());
            (stored, kept.revoked.contains_key(id))
        };
        let token = token.filter(|_| !is_revoked);
        let token = match (&stored, token) {
            (Some(stored), _) => stored,
            (None, Some(presented)) => presented,
            (None, None) => return Err(Reason::GrantUnknown),
        };
        let standing = match stored {
            Some(_) => Standing::Kept,
            None => Standing::Presented,
        };
        let issuers = self.issuers();
        let keys = issuers.keys(standing);
        let claims =
            UserClaims::verify(token, &self.cluster, service, keys, now).map_err(|error| {
                let reason = error.reason();
                if reason == Reason::TokenExpired {
                    Reason::GrantExpired
                } else if stored.is_some() {
                    Reason::PermissionDenied
                } else {
                    reason
                }
            })?;
        if claims.jti != *id {
            return Err(Reason::TokenInvalid);
        }
        Ok(claims)
    }

    /// What signaling may know of the grants.
    #[must_use]
    pub fn announced(&self) -> Vec<AnnouncedGrant> {
        self.lock()
            .grants
            .values()
            .map(|grant| AnnouncedGrant {
                id: grant.claims.jti,
                key: grant.claims.cnf.ed25519,
                services: grant.claims.aud.clone(),
                expires: grant.claims.exp,
            })
            .collect()
    }

    /// Whom to believe from now on. What is kept stays.
    pub fn believe(&self, issuers: Issuers) {
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = issuers;
    }

    fn issuers(&self) -> RwLockReadGuard<'_, Issuers> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(
        &self,
        token: &str,
        standing: Standing,
        now: u64,
    ) -> Result<UserClaims, portway_protocol::token::TokenError> {
        let issuers = self.issuers();
        UserClaims::verify_any_service(token, &self.cluster, issuers.keys(standing), now)
    }

    /// Writes a new file beside the old one and puts it in its place, unless all is in it. Who waits for
    /// another to write finds its own change written, too.
    fn write(&self) -> Result<(), GrantsError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, file) = {
            let kept = self.lock();
            if kept.changes == *written {
                return Ok(());
            }
            (kept.changes, File::of(&kept))
        };
        let new = self.path.with_extension("new");
        let write = || {
            let json = serde_json::to_vec_pretty(&file)?;
            private_file::replace(&self.path, &new, &json)
        };
        write().map_err(|source| GrantsError::Io {
            path: self.path.clone(),
            source,
        })?;
        *written = changes;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remember_revoked(&mut self, id: GrantId, expires: u64) {
        self.revoked.insert(id, expires);
        if self.revoked.len() > MAX_REVOKED {
            let first = self.revoked.iter().min_by_key(|(_, expires)| **expires);
            if let Some(first) = first.map(|(id, _)| *id) {
                self.revoked.remove(&first);
            }
        }
    }
}

impl File {
    fn of(kept: &Kept) -> Self {
        let grants = &kept.grants;
        let used = |(id, grant): (&GrantId, &Grant)| {
            (grant.usage != Usage::default()).then(|| (*id, grant.usage.clone()))
        };
        Self {
            version: 1,
            tokens: grants.values().map(|grant| grant.token.clone()).collect(),
            usage: grants.iter().filter_map(used).collect(),
            revoked: kept.revoked.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::key::SigningKey;
    use portway_protocol::permission::Permission;
    use portway_protocol::secret::Secret;
    use portway_protocol::token::Confirmation;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Secret::new([seed; 32]))
    }

    fn token(expires: u64) -> String {
        claims(expires).issue(&key(1))
    }

    fn claims(expires: u64) -> UserClaims {
        UserClaims {
            iss: "home".parse().unwrap(),
            aud: vec!["lab".parse().unwrap()],
            sub: "guest".into(),
            services: vec![Permission::all("lab".parse().unwrap())],
            iat: 100,
            exp: expires,
            jti: GrantId::from_bytes([7; 9]),
            cnf: Confirmation {
                ed25519: key(2).public(),
            },
            devices: Devices::Any,
        }
    }

    fn for_one_device() -> UserClaims {
        UserClaims {
            devices: Devices::First,
            ..claims(1000)
        }
    }

    fn open(path: &Path, now: u64) -> Grants {
        let issuers = [key(1), key(4)].map(|key| key.public());
        let issuers = Issuers::new(issuers, &[]);
        Grants::open(path, "home".parse().unwrap(), issuers, now).unwrap()
    }

    #[test]
    fn what_a_former_key_has_signed_stays_and_grows_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let store = open(&path, 100);
        let kept = claims(1000);
        store.add(kept.issue(&key(1)), 100).unwrap();
        let home = "home".parse().unwrap();
        let rotation = [Rotation::sign(&home, 1, &key(1), key(5).public())];
        let lab = "lab".parse().unwrap();
        let another = UserClaims {
            jti: GrantId::from_bytes([9; 9]),
            ..claims(1000)
        };
        let again = |store: &Grants| {
            assert!(store.claims(&kept.jti, None, &lab, 200).is_ok());
            let token = another.issue(&key(1));
            assert!(store.claims(&another.jti, Some(&token), &lab, 200).is_err());
            assert!(store.add(token, 200).is_err());
        };
        store.believe(Issuers::new([key(5).public()], &rotation));
        again(&store);
        let issuers = Issuers::new([key(5).public()], &rotation);
        again(&Grants::open(&path, home, issuers, 200).unwrap());
        store.add(another.issue(&key(5)), 200).unwrap();
    }

    #[test]
    fn a_grant_survives_a_restart_until_it_expires_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let (lab, nas) = ("lab".parse().unwrap(), "nas".parse().unwrap());
        let id = open(&path, 100).add(token(1000), 100).unwrap().jti;

        let store = open(&path, 200);
        assert!(store.claims(&id, None, &lab, 200).is_ok());
        assert_eq!(
            store.claims(&id, None, &nas, 200),
            Err(Reason::PermissionDenied)
        );
        assert_eq!(
            store.claims(&id, None, &lab, 2000),
            Err(Reason::GrantExpired)
        );
        assert!(store.revoke(&id).unwrap());
        assert_eq!(
            open(&path, 200).claims(&id, None, &lab, 200),
            Err(Reason::GrantUnknown)
        );
    }

    #[test]
    fn a_presented_token_must_be_the_cluster_s_and_name_the_grant() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("grants.json"), 100);
        let lab = "lab".parse().unwrap();
        let id = GrantId::from_bytes([7; 9]);
        assert!(store.claims(&id, Some(&token(1000)), &lab, 200).is_ok());
        let other = GrantId::from_bytes([8; 9]);
        assert_eq!(
            store.claims(&other, Some(&token(1000)), &lab, 200),
            Err(Reason::TokenInvalid)
        );
        assert_eq!(
            store.claims(&id, Some("x.y.z"), &lab, 200),
            Err(Reason::TokenInvalid)
        );
    }

    #[test]
    fn the_first_device_is_the_only_one_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let (ours, other) = (key(5).public(), key(6).public());
        let store = open(&path, 100);
        let claims = for_one_device();
        assert_eq!(
            store.redeem(&claims, ours),
            Err(Reason::GrantUnknown),
            "nobody would know the next time"
        );
        store.add(claims.issue(&key(1)), 100).unwrap();
        assert_eq!(store.redeem(&claims, ours), Ok(()));
        assert_eq!(store.redeem(&claims, other), Err(Reason::LinkUsed));
        // As if the process had been killed: what was let in is on disk.
        let store = open(&path, 200);
        assert_eq!(store.redeem(&claims, other), Err(Reason::LinkUsed));
        assert_eq!(store.redeem(&claims, ours), Ok(()));
        // The same token again is no way around it.
        store.add(claims.issue(&key(1)), 200).unwrap();
        assert_eq!(store.redeem(&claims, other), Err(Reason::LinkUsed));
    }

    #[test]
    fn who_cannot_be_kept_in_mind_is_not_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/grants.json");
        fs::create_dir(dir.path().join("gone")).unwrap();
        let store = open(&path, 100);
        let claims = for_one_device();
        store.add(claims.issue(&key(1)), 100).unwrap();
        fs::remove_dir_all(dir.path().join("gone")).unwrap();
        for _ in 0..2 {
            let refused = store.redeem(&claims, key(5).public());
            assert_eq!(refused, Err(Reason::Internal));
        }
    }

    #[test]
    fn what_became_of_a_grant_is_kept_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let store = open(&path, 100);
        let id = store.add(token(1000), 100).unwrap().jti;
        let opened = Opened {
            at: 150,
            device: key(5).public(),
            address: Some([192, 0, 2, 1].into()),
        };
        store.opened(&id, opened);
        store.opened(&id, opened);
        store.closed(&id, 10, 2000);
        store.closed(&id, 1, 30);
        let store = open(&path, 200);
        let usage = Usage {
            device: None,
            sessions: 2,
            received: 11,
            sent: 2030,
            last: Some(opened),
        };
        assert_eq!(store.all()[0].1, usage);
        let mut revoked = store.revoked();
        assert!(store.revoke(&id).unwrap());
        assert!(revoked.has_changed().unwrap());
        revoked.mark_unchanged();
        store.closed(&id, 1, 1);
        store.add(token(1000), 200).unwrap();
        assert_eq!(open(&path, 200).all()[0].1, Usage::default());
    }

    #[test]
    fn who_presents_the_token_of_a_revoked_grant_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grants.json");
        let store = open(&path, 100);
        let lab = "lab".parse().unwrap();
        let id = store.add(token(1000), 100).unwrap().jti;
        store.revoke(&id).unwrap();
        for store in [&store, &open(&path, 200)] {
            let refused = store.claims(&id, Some(&token(1000)), &lab, 200);
            assert_eq!(refused, Err(Reason::GrantUnknown));
        }
        // Whoever runs the node may think better of it.
        store.add(token(1000), 200).unwrap();
        assert!(store.claims(&id, None, &lab, 200).is_ok());
    }

    #[test]
    fn of_many_revoked_grants_those_are_forgotten_that_end_first() {
        let mut kept = Kept::default();
        for i in 0..=MAX_REVOKED {
            let mut id = [0; GrantId::LEN];
            id[..8].copy_from_slice(&i.to_be_bytes());
            kept.remember_revoked(GrantId::from_bytes(id), i as u64);
        }
        assert_eq!(kept.revoked.len(), MAX_REVOKED);
        assert!(!kept.revoked.values().any(|expires| *expires == 0));
    }

    #[test]
    fn a_grant_is_of_the_cluster_or_of_the_node_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("grants.json"), 100);
        for (issuer, is_one) in [(key(1), true), (key(4), true), (key(3), false)] {
            let added = store.add(claims(1000).issue(&issuer), 100);
            assert_eq!(added.is_ok(), is_one, "{added:?}");
        }
    }
}
