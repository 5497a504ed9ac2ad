use proptest::prelude::*;

use super::code::{Compared, Digits};
use super::guest::{AwaitingVerdict, Fresh, Wanted};
use super::host::{AwaitingDigits, Offered, Open};
use super::*;
use crate::id::{GrantId, PairingId};
use crate::key::SigningKey;
use crate::secret::Secret;
use crate::signal::pairing::{PairReply, Reveal};
use crate::token::Confirmation;
use crate::token::machine::{MachineClaims, RevokedBy};

const NOW: u64 = 1000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

fn nonce(byte: u8) -> Nonce {
    Nonce::from_bytes([byte; Nonce::LEN])
}

fn wanted() -> Wanted {
    Wanted {
        cluster: "home".parse().unwrap(),
        service: "lab".parse().unwrap(),
        node: None,
    }
}

fn fresh(byte: u8) -> Fresh {
    Fresh {
        pairing: PairingId::from_bytes([byte; PairingId::LEN]),
        secret: Secret::new([byte; 32]),
        nonce: nonce(byte),
    }
}

/// A node, or who stands for one: a cluster key and a node key.
fn offered(cluster_key: u8) -> Offered {
    Offered {
        cluster: "home".parse().unwrap(),
        service: "lab".parse().unwrap(),
        node: "pi".parse().unwrap(),
        cluster_key: key(cluster_key).public(),
        node_key: key(cluster_key + 1).public(),
        grant: GrantId::from_bytes([7; 9]),
    }
}

/// What the node says, its certificate by that cluster key.
fn reply(offered: &Offered, cluster_key: u8, nonce: Nonce) -> PairReply {
    let claims = MachineClaims {
        iss: offered.cluster.clone(),
        aud: offered.cluster.clone(),
        sub: offered.node.clone(),
        node_id: offered.node.clone(),
        cluster_id: offered.cluster.clone(),
        iat: NOW,
        exp: NOW + 100,
        jti: "1".into(),
        cnf: Confirmation {
            ed25519: offered.node_key,
        },
        revoked_by: RevokedBy::Nothing,
    };
    PairReply {
        node: offered.node.clone(),
        cluster_key: offered.cluster_key,
        certificate: claims.issue(&key(cluster_key)),
        nonce,
        grant: offered.grant,
    }
}

/// Of what the node says, on its way.
type Change = Box<dyn FnOnce(&mut PairReply)>;

/// The two ends, after somebody between them has changed what they say.
fn pair(
    change_reply: impl FnOnce(&mut PairReply),
    change_reveal: impl FnOnce(&mut Reveal),
) -> Result<(AwaitingVerdict, AwaitingDigits), PairingError> {
    let (asked, guest) = guest::start(wanted(), fresh(3));
    let offered = offered(10);
    let mut said = reply(&offered, 10, nonce(4));
    let host = Open::new(offered).commit(asked.commitment, nonce(4));
    change_reply(&mut said);
    let (mut reveal, guest) = guest.receive(&said, NOW)?;
    change_reveal(&mut reveal);
    let host = host.reveal(reveal.key, &reveal.nonce)?;
    Ok((guest, host))
}

fn honest() -> (AwaitingVerdict, AwaitingDigits) {
    pair(|_| {}, |_| {}).unwrap()
}

#[test]
fn two_ends_that_agree_have_a_link_and_the_key_that_it_proves() {
    let (guest, host) = honest();
    let granted = host.compare(guest.digits()).unwrap();
    let link = guest.paired().confirmed();
    assert_eq!(link.grant_key().public(), granted);
    assert_eq!(link.cluster_key, key(10).public());
    assert_eq!(link.grant, GrantId::from_bytes([7; 9]));
}

#[test]
fn digits_of_a_pairing_never_change() {
    assert_eq!(honest().0.digits().to_string(), "086 732");
}

#[test]
fn other_digits_are_refused() {
    let (guest, host) = honest();
    let right = String::from(guest.digits());
    let last = if right.ends_with('0') { "1" } else { "0" };
    let slip: Digits = format!("{}{last}", &right[..5]).parse().unwrap();
    assert_eq!(host.compare(slip), Err(PairingError::DigitsDiffer));
}

/// Two pairings, one with each end: two different codes.
#[test]
fn a_man_in_the_middle_has_other_digits_on_either_side() {
    let (asked, guest) = guest::start(wanted(), fresh(3));
    let host = Open::new(offered(10));
    // Towards the node it is a guest of its own, towards the guest a node with a cluster of its own.
    let (own_asked, own_guest) = guest::start(wanted(), fresh(5));
    let own_host = Open::new(offered(20)).commit(asked.commitment, nonce(6));
    let host = host.commit(own_asked.commitment, nonce(4));
    let (reveal, guest) = guest
        .receive(&reply(&offered(20), 20, nonce(6)), NOW)
        .unwrap();
    let theirs = own_host.reveal(reveal.key, &reveal.nonce).unwrap();
    assert!(
        theirs.compare(guest.digits()).is_ok(),
        "it has what the guest has"
    );
    let (own_reveal, own_guest) = own_guest
        .receive(&reply(&offered(10), 10, nonce(4)), NOW)
        .unwrap();
    let host = host.reveal(own_reveal.key, &own_reveal.nonce).unwrap();
    assert_ne!(own_guest.digits(), guest.digits());
    assert_eq!(
        host.compare(guest.digits()),
        Err(PairingError::DigitsDiffer)
    );
}

#[test]
fn a_guest_is_held_to_its_commitment() {
    let other_key = |reveal: &mut Reveal| reveal.key = key(99).public();
    let other_nonce = |reveal: &mut Reveal| reveal.nonce = nonce(99);
    for change in [other_key as fn(&mut Reveal), other_nonce] {
        let broken = pair(|_| {}, change).unwrap_err();
        assert_eq!(broken, PairingError::Uncommitted);
    }
    // A commitment is to one service of one cluster.
    for (cluster, service) in [("away", "lab"), ("home", "nas")] {
        let elsewhere = Wanted {
            cluster: cluster.parse().unwrap(),
            service: service.parse().unwrap(),
            node: None,
        };
        let (asked, _guest) = guest::start(elsewhere, fresh(3));
        let (here, _guest) = guest::start(wanted(), fresh(3));
        assert_ne!(asked.commitment, here.commitment);
    }
}

#[test]
fn whatever_is_changed_on_the_way_to_the_guest_shows() {
    let another_node: Offered = Offered {
        node: "nas".parse().unwrap(),
        ..offered(10)
    };
    let another_key = Offered {
        node_key: key(98).public(),
        ..offered(10)
    };
    let changes: [Change; 5] = [
        Box::new(|said| said.nonce = nonce(97)),
        Box::new(|said| said.grant = GrantId::from_bytes([8; 9])),
        Box::new(|said| *said = reply(&offered(20), 20, nonce(4))),
        Box::new(move |said| *said = reply(&another_node, 10, nonce(4))),
        Box::new(move |said| *said = reply(&another_key, 10, nonce(4))),
    ];
    for change in changes {
        let (guest, host) = pair(change, |_| {}).unwrap();
        assert_eq!(
            host.compare(guest.digits()),
            Err(PairingError::DigitsDiffer)
        );
    }
}

#[test]
fn a_certificate_is_the_node_s_by_the_key_that_is_told() {
    let refused = |change: Change| pair(change, |_| {}).unwrap_err();
    let foreign = refused(Box::new(|said| said.cluster_key = key(20).public()));
    assert!(matches!(foreign, PairingError::Certificate(_)));
    assert_eq!(foreign.reason(), Reason::E2eAuthFailed);
    let renamed = refused(Box::new(|said| said.node = "nas".parse().unwrap()));
    assert!(matches!(renamed, PairingError::NotItsCertificate { .. }));
    let (_, guest) = guest::start(wanted(), fresh(3));
    let late = guest.receive(&reply(&offered(10), 10, nonce(4)), NOW + 200);
    assert_eq!(late.unwrap_err().reason(), Reason::CertificateExpired);
    let meant = Wanted {
        node: Some("nas".parse().unwrap()),
        ..wanted()
    };
    let (_, guest) = guest::start(meant, fresh(3));
    let another = guest.receive(&reply(&offered(10), 10, nonce(4)), NOW);
    assert!(matches!(
        another.unwrap_err(),
        PairingError::WrongNode { .. }
    ));
}

/// Everything that is compared, from a few values of each.
type Values = ([&'static str; 3], [u8; 3], [u8; 3]);

fn bytes_of((names, keys, others): Values) -> Vec<u8> {
    let [cluster, service, node] = names;
    let [cluster_key, node_key, own] = keys.map(|seed| key(seed).public());
    let [grant, guest_nonce, node_nonce] = others;
    Compared {
        cluster: &cluster.parse().unwrap(),
        service: &service.parse().unwrap(),
        node: &node.parse().unwrap(),
        cluster_key: &cluster_key,
        node_key: &node_key,
        grant: &GrantId::from_bytes([grant; 9]),
        key: &own,
        guest_nonce: &nonce(guest_nonce),
        node_nonce: &nonce(node_nonce),
    }
    .transcript()
    .bytes()
    .to_vec()
}

fn values() -> impl Strategy<Value = Values> {
    // Names that run into each other, few keys.
    let name = prop_oneof![Just("a"), Just("ab"), Just("b"), Just("ba")];
    let names = [name.clone(), name.clone(), name];
    (names, [1u8..4, 1..4, 1..4], [0u8..3, 0..3, 0..3])
}

proptest! {
    #[test]
    fn what_is_compared_encodes_alike_only_if_it_is_alike(a in values(), b in values()) {
        prop_assert_eq!(a == b, bytes_of(a) == bytes_of(b));
    }
}
