//! Who a client is: long-term credentials (RFC 8489 §9.2) of users that the operator names, and
//! ephemeral ones in the form that coturn calls `use-auth-secret`.
//!
//! An ephemeral user name is `EXPIRY:NAME` (or `EXPIRY` alone), its password
//! base64(HMAC-SHA1(secret, user name)): whoever knows the secret can hand them out, and the server
//! needs no list. Two secrets may be live, so that one can be changed without cutting anyone off.
//!
//! Security: integrity is checked over the received bytes, in constant time, before any attribute is
//! believed. An unknown user costs as much as a wrong password.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message};

use crate::limits::MAX_USERNAME;

/// Live secrets at a time.
const MAX_SECRETS: usize = 2;

/// Who has proved itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The name that quotas, logs and revocation know: `NAME` of an ephemeral one.
    pub user: Arc<str>,
    /// The user name as sent, which later requests must repeat.
    pub username: Arc<str>,
    /// What it is for, where ephemeral names tell (see [`Users::separate_sessions`]).
    pub session: Option<Arc<str>>,
    /// When it ends, seconds since 1970.
    pub expires: Option<u64>,
    /// Signs the responses.
    pub key: Key,
}

/// What a message is signed with.
#[derive(Debug, Clone)]
pub struct Key {
    pub(crate) key: IntegrityKey,
    pub(crate) algorithm: IntegrityAlgorithm,
}

/// Who may come in.
pub struct Users {
    realm: String,
    passwords: HashMap<String, Keys>,
    /// Users by the hash that hides their name (RFC 8489 §14.4).
    hashes: HashMap<[u8; 32], String>,
    secrets: Vec<hmac::Key>,
    separator: Option<char>,
    /// How long an allocation may outlive its ephemeral credentials.
    prolonged: Duration,
    /// Wrong on purpose: for names that nobody has.
    nobody: Keys,
}

/// The keys of one user, made once: MD5 and SHA-256 of name, realm and password.
#[derive(Clone)]
struct Keys {
    md5: IntegrityKey,
    sha256: IntegrityKey,
}

impl Keys {
    fn new(username: &str, realm: &str, password: &str) -> Self {
        let credentials =
            LongTermKeyCredentials::new(username.to_owned(), password.to_owned(), realm.to_owned());
        Self {
            md5: credentials.make_key(IntegrityAlgorithm::Sha1),
            sha256: credentials.make_key(IntegrityAlgorithm::Sha256),
        }
    }

    /// The key that signed a message.
    fn verify(&self, message: &Message<'_>) -> Option<Key> {
        for key in [&self.sha256, &self.md5] {
            if let Ok(algorithm) = message.validate_integrity_with_key(key) {
                return Some(Key {
                    key: key.clone(),
                    algorithm,
                });
            }
        }
        None
    }
}

impl Users {
    /// Nobody yet.
    #[must_use]
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            passwords: HashMap::new(),
            hashes: HashMap::new(),
            secrets: Vec::new(),
            separator: None,
            prolonged: Duration::ZERO,
            nobody: Keys::new("", realm, "nobody"),
        }
    }

    /// The realm that passwords belong to.
    #[must_use]
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Lets a user in with a password.
    pub fn add(&mut self, username: &str, password: &str) {
        let keys = Keys::new(username, &self.realm, password);
        self.passwords.insert(username.to_owned(), keys);
        let hash = stun_types::attribute::Userhash::compute(username, &self.realm);
        self.hashes.insert(hash, username.to_owned());
    }

    /// Lets holders of ephemeral credentials in. The two newest secrets count.
    pub fn add_secret(&mut self, secret: &[u8]) {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
        self.secrets.insert(0, key);
        self.secrets.truncate(MAX_SECRETS);
    }

    /// Takes what follows this character in an ephemeral name as the name of a session: quotas and
    /// revocation go by what is before it.
    pub fn separate_sessions(&mut self, separator: char) {
        self.separator = Some(separator);
    }

    /// Lets allocations that are refreshed outlive the ephemeral credentials that they were made by, for
    /// this long. Nobody can allocate by those any more.
    pub const fn prolong_allocations(&mut self, by: Duration) {
        self.prolonged = by;
    }

    /// Somebody as the holder of an allocation.
    pub(crate) fn holder(&self, identity: &Identity) -> Identity {
        let expires = identity.expires;
        Identity {
            expires: expires.map(|own| own.saturating_add(self.prolonged.as_secs())),
            ..identity.clone()
        }
    }

    /// Whether somebody who came in before would come in again, time apart.
    #[must_use]
    pub fn still_knows(&self, identity: &Identity) -> bool {
        let username = &*identity.username;
        let is_same = |keys: &Keys| [&keys.md5, &keys.sha256].contains(&&identity.key.key);
        match self.passwords.get(username) {
            Some(keys) => is_same(keys),
            None => self.secrets.iter().any(|secret| {
                let password = password(secret, username);
                is_same(&Keys::new(username, &self.realm, &password))
            }),
        }
    }

    /// The name that [`Identity::user`] has, of a user name as a client sends it.
    #[must_use]
    pub fn user_of<'a>(&self, username: &'a str) -> &'a str {
        match ephemeral(username) {
            Some((_, name)) if !self.has_password(username) => name,
            Some(_) | None => username,
        }
    }

    /// Whether a user has a password of its own, which no time ends.
    #[must_use]
    pub fn has_password(&self, user: &str) -> bool {
        self.passwords.contains_key(user)
    }

    /// The name behind a hash.
    #[must_use]
    pub fn name_of(&self, hash: &[u8; 32]) -> Option<&str> {
        self.hashes.get(hash).map(String::as_str)
    }

    /// Who signed a message under this user name, if the signature and the time are right.
    /// `prolonged`: until when these credentials are good for their holder whatever they say.
    #[must_use]
    pub fn verify(
        &self,
        message: &Message<'_>,
        username: &str,
        prolonged: Option<u64>,
        unix: u64,
    ) -> Option<Identity> {
        if username.len() > MAX_USERNAME {
            return None;
        }
        if let Some(keys) = self.passwords.get(username) {
            let key = keys.verify(message)?;
            let name: Arc<str> = username.into();
            return Some(Identity {
                user: name.clone(),
                username: name,
                session: None,
                expires: None,
                key,
            });
        }
        let Some((expires, name)) = ephemeral(username) else {
            let _nobody = self.nobody.verify(message);
            return None;
        };
        let key = self.secrets.iter().find_map(|secret| {
            let password = password(secret, username);
            Keys::new(username, &self.realm, &password).verify(message)
        })?;
        let expires = prolonged.map_or(expires, |until| until.max(expires));
        let (user, session) = self
            .separator
            .and_then(|separator| name.split_once(separator))
            .map_or((name, None), |(user, session)| (user, Some(session)));
        (unix < expires).then(|| Identity {
            user: user.into(),
            username: username.into(),
            session: session.map(Into::into),
            expires: Some(expires),
            key,
        })
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users")
            .field("realm", &self.realm)
            .field("passwords", &self.passwords.len())
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// An ephemeral user name and its password, good until `expires` (seconds since 1970).
#[must_use]
pub fn ephemeral_credentials(secret: &[u8], name: &str, expires: u64) -> (String, String) {
    let username = format!("{expires}:{name}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let password = password(&key, &username);
    (username, password)
}

fn password(secret: &hmac::Key, username: &str) -> String {
    STANDARD.encode(hmac::sign(secret, username.as_bytes()))
}

/// Expiry and name of an ephemeral user name.
fn ephemeral(username: &str) -> Option<(u64, &str)> {
    let (expires, name) = username.split_once(':').unwrap_or((username, username));
    Some((expires.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use stun_types::message::{BINDING, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};

    use super::*;

    fn signed(username: &str, password: &str, algorithm: IntegrityAlgorithm) -> Vec<u8> {
        let mut message = Message::builder_request(BINDING, MessageWriteVec::new());
        let key = LongTermKeyCredentials::new(username.into(), password.into(), "here".into());
        message
            .add_message_integrity(&key.into(), algorithm)
            .unwrap();
        message.finish()
    }

    fn verify(users: &Users, bytes: &[u8], username: &str, unix: u64) -> Option<Identity> {
        users.verify(&Message::from_bytes(bytes).unwrap(), username, None, unix)
    }

    #[test]
    fn a_user_signs_with_either_algorithm() {
        let mut users = Users::new("here");
        users.add("ann", "secret");
        for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
            let message = signed("ann", "secret", algorithm);
            assert!(verify(&users, &message, "ann", 0).is_some());
            assert!(verify(&users, &message, "bob", 0).is_none());
            let message = signed("ann", "wrong", algorithm);
            assert!(verify(&users, &message, "ann", 0).is_none());
        }
    }

    #[test]
    fn ephemeral_credentials_end_and_survive_a_change_of_secret() {
        let mut users = Users::new("here");
        users.add_secret(b"old");
        let (username, password) = ephemeral_credentials(b"old", "ann", 1000);
        assert_eq!(username, "1000:ann");
        let message = signed(&username, &password, IntegrityAlgorithm::Sha1);
        let identity = verify(&users, &message, &username, 999).unwrap();
        assert_eq!((&*identity.user, identity.expires), ("ann", Some(1000)));
        assert!(verify(&users, &message, &username, 1000).is_none());
        users.add_secret(b"new");
        assert!(verify(&users, &message, &username, 999).is_some());
        users.add_secret(b"newer");
        assert!(verify(&users, &message, &username, 999).is_none());
    }

    #[test]
    fn an_ephemeral_name_may_tell_the_session() {
        let mut users = Users::new("here");
        users.add_secret(b"secret");
        let (username, password) = ephemeral_credentials(b"secret", "ann.first.tab", 1000);
        let message = signed(&username, &password, IntegrityAlgorithm::Sha1);
        let identity = verify(&users, &message, &username, 0).unwrap();
        assert_eq!((&*identity.user, identity.session), ("ann.first.tab", None));
        users.separate_sessions('.');
        let identity = verify(&users, &message, &username, 0).unwrap();
        assert_eq!(&*identity.user, "ann");
        assert_eq!(identity.session.as_deref(), Some("first.tab"));
    }

    /// RFC 5769 §2.4: a request with long-term authentication.
    const SAMPLE: &[u8] = &[
        0x00, 0x01, 0x00, 0x60, 0x21, 0x12, 0xa4, 0x42, 0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72,
        0xc0, 0x29, 0xda, 0x41, 0x2e, 0x00, 0x06, 0x00, 0x12, 0xe3, 0x83, 0x9e, 0xe3, 0x83, 0x88,
        0xe3, 0x83, 0xaa, 0xe3, 0x83, 0x83, 0xe3, 0x82, 0xaf, 0xe3, 0x82, 0xb9, 0x00, 0x00, 0x00,
        0x15, 0x00, 0x1c, 0x66, 0x2f, 0x2f, 0x34, 0x39, 0x39, 0x6b, 0x39, 0x35, 0x34, 0x64, 0x36,
        0x4f, 0x4c, 0x33, 0x34, 0x6f, 0x4c, 0x39, 0x46, 0x53, 0x54, 0x76, 0x79, 0x36, 0x34, 0x73,
        0x41, 0x00, 0x14, 0x00, 0x0b, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x2e, 0x6f, 0x72,
        0x67, 0x00, 0x00, 0x08, 0x00, 0x14, 0xf6, 0x70, 0x24, 0x65, 0x6d, 0xd6, 0x4a, 0x3e, 0x02,
        0xb8, 0xe0, 0x71, 0x2e, 0x85, 0xc9, 0xa2, 0x8c, 0xa8, 0x96, 0x66,
    ];

    #[test]
    fn the_sample_of_the_standard_is_believed_and_nothing_near_it() {
        let name = "マトリックス";
        let mut users = Users::new("example.org");
        users.add(name, "TheMatrIX");
        assert!(verify(&users, SAMPLE, name, 0).is_some());
        // Every byte before the signature and in it is covered.
        for at in (4..72).chain(SAMPLE.len() - 20..SAMPLE.len()) {
            let mut forged = SAMPLE.to_vec();
            forged[at] ^= 1;
            if let Ok(message) = Message::from_bytes(&forged) {
                assert!(users.verify(&message, name, None, 0).is_none(), "byte {at}");
            }
        }
    }

    /// Computed with another tool, as for coturn:
    /// `printf 1433895918:ninefingers | openssl dgst -binary -sha1 -hmac north | base64`.
    #[test]
    fn passwords_are_those_of_coturn() {
        let (_, password) = ephemeral_credentials(b"north", "ninefingers", 1_433_895_918);
        assert_eq!(password, "jy8hTxmOO7UtEKXqSkSlvakPVYA=");
    }
}
