//! The values of `docs/protocol-vectors.json`, which another implementation can be held against.
//!
//! With `PORTWAY_WRITE_VECTORS` set, the file is written instead of compared.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use portway_protocol::datagram::{self, FlowId, capsule};
use portway_protocol::id::{
    ClusterName, GrantId, NodeId, Nonce, PairingId, ServiceName, SessionId, encode,
};
use portway_protocol::key::SigningKey;
use portway_protocol::lane::MaxMessage;
use portway_protocol::link::Link;
use portway_protocol::pairing::guest::{self, Fresh, Wanted};
use portway_protocol::pairing::host::{Offered, Open};
use portway_protocol::permission::Permission;
use portway_protocol::revocation::{RevocationList, Revocations};
use portway_protocol::rotation::Rotation;
use portway_protocol::secret::Secret;
use portway_protocol::session::binding::{Binding, Fingerprint};
use portway_protocol::session::handshake::{self, Accepted};
use portway_protocol::session::introduction::Introduction;
use portway_protocol::session::party::{Certificate, Holder, Node, Trust};
use portway_protocol::session::resumption::{Resumption, ResumptionKey};
use portway_protocol::signal::pairing::PairReply;
use portway_protocol::target::ServiceKind;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::token::user::{Devices, UserClaims};
use portway_protocol::transcript::sign_challenge;
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;

/// Of a session that goes on, and of the one that begins.
const RESUMPTION_KEY: [u8; 32] = [12; 32];

/// Everything that the two ends start from.
struct World {
    cluster: ClusterName,
    service: ServiceName,
    node: NodeId,
    session: SessionId,
    grant: GrantId,
    cluster_key: SigningKey,
    node_key: SigningKey,
    secret: Secret<[u8; 32]>,
    device: SigningKey,
    client_nonce: Nonce,
    gateway_nonce: Nonce,
    binding: Binding,
    resumption: Resumption,
}

fn seeded(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([byte; 32]))
}

fn world() -> World {
    World {
        cluster: "home".parse().unwrap(),
        service: "lab".parse().unwrap(),
        node: "pi".parse().unwrap(),
        session: SessionId::from_bytes([5; 16]),
        grant: GrantId::from_bytes([6; 9]),
        cluster_key: seeded(1),
        node_key: seeded(2),
        secret: Secret::new([3; 32]),
        device: seeded(4),
        client_nonce: Nonce::from_bytes([7; 32]),
        gateway_nonce: Nonce::from_bytes([8; 32]),
        binding: Binding {
            client: Fingerprint::from_bytes([9; 32]),
            gateway: Fingerprint::from_bytes([10; 32]),
        },
        resumption: Resumption {
            session: SessionId::from_bytes([11; 16]),
            key: ResumptionKey::from_bytes(RESUMPTION_KEY),
        },
    }
}

/// A message of channel 0: its type, and its body as text.
fn message(bytes: &[u8]) -> Value {
    json!({"type": bytes[0], "body": std::str::from_utf8(&bytes[1..]).unwrap()})
}

impl World {
    fn certificate(&self) -> String {
        let claims = MachineClaims {
            iss: self.cluster.clone(),
            aud: self.cluster.clone(),
            sub: self.node.clone(),
            node_id: self.node.clone(),
            cluster_id: self.cluster.clone(),
            iat: NOW,
            exp: NOW + 3600,
            jti: "certificate".into(),
            cnf: Confirmation {
                ed25519: self.node_key.public(),
            },
            revoked_by: RevokedBy::Nothing,
        };
        claims.issue(&self.cluster_key)
    }

    /// A list that the next cluster key has signed.
    fn revocations(&self) -> RevocationList {
        let next = seeded(13);
        let rotation = Rotation::sign(&self.cluster, 1, &self.cluster_key, next.public());
        let nodes = [14, 15].map(|seed| seeded(seed).public().id());
        let ends = (NOW, NOW + 3600);
        RevocationList::sign(&self.cluster, (&next, &[rotation]), ends, nodes.to_vec())
    }

    fn node<'a>(&'a self, certificate: &'a str) -> Node<'a> {
        Node {
            cluster: &self.cluster,
            id: &self.node,
            certificate: Certificate {
                token: certificate,
                rotations: &[],
            },
            key: &self.node_key,
        }
    }

    fn grant_token(&self, key: &SigningKey) -> String {
        let claims = UserClaims {
            iss: self.cluster.clone(),
            aud: vec![self.service.clone()],
            sub: "guest".into(),
            services: vec![Permission::all(self.service.clone())],
            iat: NOW,
            exp: NOW + 3600,
            jti: self.grant,
            cnf: Confirmation {
                ed25519: key.public(),
            },
            devices: Devices::Any,
        };
        claims.issue(&self.cluster_key)
    }

    /// The messages of a handshake, and what of it is signed.
    fn handshake(&self, grant_key: &SigningKey, resumption: Option<&Resumption>) -> Value {
        let certificate = self.certificate();
        let node = self.node(&certificate);
        let (hello, mut client) = handshake::start(
            self.session,
            self.cluster.clone(),
            self.service.clone(),
            self.client_nonce,
        );
        if let Some(resumption) = resumption {
            client = client.resuming(resumption.clone());
        }
        let (reply, gateway) =
            handshake::hello(&hello, &node, self.gateway_nonce, self.binding).unwrap();
        let revocations = Revocations::new(self.cluster.clone(), self.cluster_key.public());
        let trust = Trust {
            cluster_key: self.cluster_key.public(),
            pinned: None,
            revocations: &revocations,
            node: None,
            binding: self.binding,
            now: NOW,
        };
        let holder = Holder {
            grant: self.grant,
            token: None,
            key: grant_key,
            device: self.device.public(),
        };
        let client = client.receive(&reply, &trust, holder).unwrap();
        let device_signs = encode(client.to_sign());
        let signature = self.device.sign(client.to_sign());
        let (authenticate, client) = client.signed(signature);
        let claim = gateway.receive(&authenticate).unwrap();
        let key = resumption.map(|resumption| &resumption.key);
        claim.verify(&grant_key.public(), key).unwrap();
        let accepted = handshake::accepted(&Accepted {
            user: "guest".into(),
            expires: NOW + 3600,
            services: vec![Permission::all(self.service.clone())],
            resumption: ResumptionKey::from_bytes(RESUMPTION_KEY),
            kind: ServiceKind::Http,
            max_message: MaxMessage::default(),
        });
        client.receive(&accepted).unwrap();
        json!({
            "client_hello": message(&hello),
            "gateway_hello": message(&reply),
            "device_signs": device_signs,
            "authenticate": message(&authenticate),
            "accepted": message(&accepted),
        })
    }

    /// The messages of a pairing, what both ends see, and what comes of it.
    fn pairing(&self) -> Value {
        let wanted = Wanted {
            cluster: self.cluster.clone(),
            service: self.service.clone(),
            node: None,
        };
        let fresh = Fresh {
            pairing: PairingId::from_bytes([13; 16]),
            secret: self.secret.clone(),
            nonce: self.client_nonce,
        };
        let (pair, guest) = guest::start(wanted, fresh);
        let offered = Offered {
            cluster: self.cluster.clone(),
            service: self.service.clone(),
            node: self.node.clone(),
            cluster_key: self.cluster_key.public(),
            node_key: self.node_key.public(),
            grant: self.grant,
        };
        let host = Open::new(offered).commit(pair.commitment, self.gateway_nonce);
        let reply = PairReply {
            node: self.node.clone(),
            cluster_key: self.cluster_key.public(),
            certificate: self.certificate(),
            nonce: self.gateway_nonce,
            grant: self.grant,
        };
        let (reveal, guest) = guest.receive(&reply, NOW).unwrap();
        let digits = guest.digits();
        let host = host.reveal(reveal.key, &reveal.nonce).unwrap();
        host.compare(digits).unwrap();
        json!({
            "pair": pair,
            "reply": reply,
            "reveal": reveal,
            "digits": digits,
            "link": guest.paired().confirmed().to_string(),
        })
    }

    fn vectors(&self) -> Value {
        let link = Link {
            cluster: self.cluster.clone(),
            cluster_key: self.cluster_key.public(),
            grant: self.grant,
            secret: self.secret.clone(),
        };
        let grant_key = link.grant_key();
        let introduction = Introduction {
            cluster: &self.cluster,
            service: &self.service,
            node: None,
            session: self.session,
        };
        let certificate = self.certificate();
        let node = self.node(&certificate);
        let key = |key: &SigningKey| {
            json!({
                "seed": encode(key.seed().expose()),
                "public": key.public(),
                "id": key.public().id().as_str(),
            })
        };
        json!({
            "about": "Every binary value is base64url without padding. See protocol.md for what is what.",
            "now": NOW,
            "cluster": self.cluster,
            "service": self.service,
            "node": self.node,
            "session": self.session,
            "grant": self.grant,
            "client_certificate": encode(self.binding.client.as_bytes()),
            "gateway_certificate": encode(self.binding.gateway.as_bytes()),
            "cluster_key": key(&self.cluster_key),
            "cluster_words": self.cluster_key.public().words().to_string(),
            "node_key": key(&self.node_key),
            "device_key": key(&self.device),
            "link": link.to_string(),
            "grant_key": key(&grant_key),
            "grant_token": self.grant_token(&grant_key),
            "machine_token": certificate,
            "challenge": {
                "nonce": self.client_nonce,
                "proof_of_gateway": sign_challenge(&self.node_key, &self.client_nonce, &self.cluster),
                "proof_of_client": sign_challenge(&grant_key, &self.client_nonce, &self.cluster),
            },
            "rotation": Rotation::sign(&self.cluster, 1, &self.cluster_key, seeded(13).public()),
            "revocations": self.revocations(),
            "offer_proof": introduction.sign_offer((&self.grant, &grant_key), &self.binding.client),
            "answer_proof": introduction.sign_answer(&node, &self.binding),
            "handshake": self.handshake(&grant_key, None),
            "pairing": self.pairing(),
            "datagram": datagram(),
            "resumed": {
                "session": self.resumption.session,
                "key": encode(&RESUMPTION_KEY),
                "handshake": self.handshake(&grant_key, Some(&self.resumption)),
            },
        })
    }
}

/// One datagram, by channel and by stream.
fn datagram() -> Value {
    const FLOW: u32 = 300;
    let payload = b"where is nas.lab?";
    let flow = FlowId::new(FLOW).unwrap();
    json!({
        "flow": FLOW,
        "payload": encode(payload),
        "message": encode(&datagram::encode(flow, payload).unwrap()),
        "capsule": encode(&capsule::encode(payload).unwrap()),
    })
}

#[test]
fn values_are_as_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol-vectors.json");
    let made = world().vectors();
    if std::env::var_os("PORTWAY_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap();
        std::fs::write(path, text + "\n").unwrap();
        return;
    }
    let published: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (name, value) in published.as_object().unwrap() {
        assert_eq!(&made[name], value, "{name}");
    }
    assert_eq!(made, published);
}
