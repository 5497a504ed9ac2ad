use std::sync::{Arc, RwLock};

use portway_protocol::id::{ClusterName, NodeId};
use portway_protocol::key::SigningKey;
use portway_protocol::pairing::guest::{self, AwaitingVerdict, Fresh, Wanted};
use portway_protocol::secret::Secret;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};

use super::*;
use crate::audit::Log;
use crate::session::{NodeCertificate, unix_now};

const VIA: Via = Via(0);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

/// A node, and windows of it.
struct Stage {
    pairings: Pairings,
    identity: Identity,
    audit: Audit,
    outgoing: mpsc::Sender<Envelope>,
    said: mpsc::Receiver<Envelope>,
    _dir: tempfile::TempDir,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let (cluster, node): (ClusterName, NodeId) = ("home".parse().unwrap(), "pi".parse().unwrap());
    let claims = MachineClaims {
        iss: cluster.clone(),
        aud: cluster.clone(),
        sub: node.clone(),
        node_id: node.clone(),
        cluster_id: cluster.clone(),
        iat: unix_now(),
        exp: unix_now() + 100,
        jti: "1".into(),
        cnf: Confirmation {
            ed25519: key(2).public(),
        },
        revoked_by: RevokedBy::Nothing,
    };
    let certificate = NodeCertificate {
        token: claims.issue(&key(1)),
        rotations: Vec::new(),
    };
    let log = Log::open(dir.path(), node.clone(), key(2)).unwrap();
    let (outgoing, said) = mpsc::channel(8);
    Stage {
        pairings: Pairings::default(),
        identity: Identity {
            cluster,
            node,
            key: key(2),
            certificate: RwLock::new(Arc::new(certificate)),
        },
        audit: Audit::new(log),
        outgoing,
        said,
        _dir: dir,
    }
}

impl Stage {
    fn open(&self, service: &str, grant: u8) -> Result<watch::Receiver<News>, Reason> {
        let offered = self.offered(service, grant);
        self.pairings.lock().open(offered, Instant::now())
    }

    fn offered(&self, service: &str, grant: u8) -> Offered {
        Offered {
            cluster: self.identity.cluster.clone(),
            service: service.parse().unwrap(),
            node: self.identity.node.clone(),
            cluster_key: key(1).public(),
            node_key: key(2).public(),
            grant: GrantId::from_bytes([grant; 9]),
        }
    }

    fn pair(&self, pair: Pair) -> Result<PairReply, Reason> {
        let way = (VIA, &self.outgoing);
        self.pairings.pair(&self.identity, way, pair)
    }

    fn reveal(&self, reveal: &Reveal) {
        self.pairings.reveal(VIA, reveal, &self.audit);
    }

    /// What a guest was told that it is over for.
    fn cancelled(&mut self) -> Option<Reason> {
        let said = self.said.try_recv().ok()?;
        match Call::from_parts(said.method.as_deref()?, said.params.as_deref()) {
            Ok(Call::Cancel(cancel)) => Some(cancel.reason),
            other => panic!("expected a cancel, got {other:?}"),
        }
    }

    /// A guest that has revealed itself.
    fn compared(&self, service: &str, seed: u8) -> AwaitingVerdict {
        let (asked, guest) = begin(service, seed);
        let reply = self.pair(asked).unwrap();
        let (reveal, guest) = guest.receive(&reply, unix_now()).unwrap();
        self.reveal(&reveal);
        guest
    }
}

fn begin(service: &str, seed: u8) -> (Pair, guest::AwaitingReply) {
    let wanted = Wanted {
        cluster: "home".parse().unwrap(),
        service: service.parse().unwrap(),
        node: None,
    };
    let fresh = Fresh {
        pairing: PairingId::from_bytes([seed; 16]),
        secret: Secret::new([seed; 32]),
        nonce: Nonce::from_bytes([seed; 32]),
    };
    guest::start(wanted, fresh)
}

#[test]
fn a_window_is_for_one_guest_of_its_service() {
    let stage = stage();
    let asked = |service, seed| stage.pair(begin(service, seed).0);
    assert_eq!(asked("lab", 3), Err(Reason::PairingClosed));
    let heard = stage.open("lab", 7).unwrap();
    assert_eq!(stage.open("lab", 8).err(), Some(Reason::PairingTaken));
    assert_eq!(asked("nas", 3), Err(Reason::PairingClosed));
    let elsewhere = Pair {
        node: Some("nas".parse().unwrap()),
        ..begin("lab", 3).0
    };
    assert_eq!(stage.pair(elsewhere), Err(Reason::E2eAuthFailed));
    stage.compared("lab", 3);
    assert!(matches!(*heard.borrow(), News::Compared(None)));
    assert_eq!(asked("lab", 4), Err(Reason::PairingTaken));
}

#[test]
fn a_guest_who_tells_something_else_than_before_ends_the_window() {
    let mut stage = stage();
    let heard = stage.open("lab", 7).unwrap();
    let (asked, guest) = begin("lab", 3);
    let reply = stage.pair(asked).unwrap();
    let (mut reveal, _guest) = guest.receive(&reply, unix_now()).unwrap();
    reveal.key = key(9).public();
    stage.reveal(&reveal);
    assert!(matches!(*heard.borrow(), News::Over(Reason::E2eAuthFailed)));
    assert_eq!(stage.cancelled(), Some(Reason::E2eAuthFailed));
    assert!(stage.pairings.services().is_empty());
}

#[test]
fn a_guest_who_leaves_ends_the_window_and_nobody_else_s() {
    let stage = stage();
    let (lab, nas) = (stage.open("lab", 7).unwrap(), stage.open("nas", 8).unwrap());
    stage.compared("lab", 3);
    stage.compared("nas", 4);
    let cancel = Cancel {
        pairing: PairingId::from_bytes([3; 16]),
        reason: Reason::PairingCancelled,
    };
    stage.pairings.cancel(Via(1), &cancel);
    assert_eq!(stage.pairings.services().len(), 2, "from another service");
    stage.pairings.cancel(VIA, &cancel);
    assert!(matches!(
        *lab.borrow(),
        News::Over(Reason::PairingCancelled)
    ));
    assert!(matches!(*nas.borrow(), News::Compared(_)));
    stage.pairings.lost(VIA);
    assert!(matches!(*nas.borrow(), News::Over(_)));
    assert!(stage.pairings.services().is_empty());
}

#[test]
fn windows_that_come_to_nothing_are_counted_for_a_day() {
    let stage = stage();
    for at in 0..MAX_SPOILED {
        // One that nobody came to was no guess.
        drop(stage.open("lab", 99).unwrap());
        stage.pairings.lock().open.clear();
        let seed = u8::try_from(at).unwrap();
        stage.open("lab", seed).unwrap();
        assert!(stage.pair(begin("lab", seed).0).is_ok());
        stage.pairings.lost(VIA);
    }
    assert_eq!(stage.open("lab", 50).err(), Some(Reason::PairingSuspended));
    assert!(stage.open("nas", 51).is_ok(), "another service");
    let mut windows = stage.pairings.lock();
    let later = Instant::now() + SPOILED_MEMORY;
    assert!(!windows.is_suspended(&"lab".parse().unwrap(), later));
    assert!(windows.spoiled.is_empty());
}

#[test]
fn there_are_only_so_many_windows() {
    let stage = stage();
    for at in 0..MAX_WINDOWS {
        let grant = u8::try_from(at).unwrap();
        stage.open(&format!("s{at}"), grant).unwrap();
    }
    assert_eq!(stage.open("lab", 50).err(), Some(Reason::RateLimited));
}
