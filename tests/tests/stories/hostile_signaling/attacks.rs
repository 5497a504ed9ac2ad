//! The lies, and what refuses each.

use portway_protocol::key::{KeyId, SigningKey};
use portway_protocol::revocation::RevocationList;
use portway_protocol::token::machine::RevokedBy;
use portway_tests::adversary::forgery::{Claims, Identity, foreign_cluster_key, own_key};
use portway_tests::adversary::middle::Alteration;
use portway_tests::adversary::{Capture, Scheme, Toward, changing, impostor, middle};
use serde_json::{Value, json};

use crate::roles_apart::text;

/// Name of the node.
pub(super) const NODE: &str = "office";

/// Message types of channel 0: the gateway's hello, what a client sends once the node has proven itself.
const GATEWAY_HELLO: u8 = 0x02;
pub(super) const AUTHENTICATE: u8 = 0x03;

const E2E: &str = "E2E_AUTH_FAILED";
const PROOF: &str = "PROOF_INVALID";
const VIOLATION: &str = "PROTOCOL_VIOLATION";

/// A lie.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Where the liar sits: next to the gateway, or next to the client.
    pub(super) near: Toward,
    pub(super) scheme: fn(&Spoils, &Capture) -> anyhow::Result<Scheme>,
    /// More arguments of `portway ping`.
    pub(super) args: &'static [&'static str],
    /// Sessions that it needs, the last of which is the one that it lies in.
    pub(super) sessions: usize,
    /// Checks that stop it before it comes to those that it is about.
    pub(super) before: &'static [&'static str],
    /// Checks each of which refuses it alone, and what the client hears then. The first one is met first.
    pub(super) layers: &'static [(&'static str, &'static str)],
    pub(super) goal: Goal,
}

/// What the liar wants, and gets without the checks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// That a session opens all the same.
    Open,
    /// To read it.
    Read,
    /// That the client takes it for the gateway.
    Believed,
    /// That the gateway answers, twice.
    Answered,
    /// It does not get there: what follows has no such shape, or no such certificate.
    Nothing,
}

/// What an adversary may have come by, and what it needs to tell good from bad.
pub(super) struct Spoils {
    /// The cluster's own key: what only the owner has. For certificates that were good once.
    pub(super) cluster_key: SigningKey,
    /// Another grant of the gateway.
    pub(super) other_grant: String,
    pub(super) now: u64,
}

impl Attack {
    pub(super) const fn new(
        name: &'static str,
        scheme: fn(&Spoils, &Capture) -> anyhow::Result<Scheme>,
    ) -> Self {
        Self {
            name,
            near: Toward::Gateway,
            scheme,
            args: &[],
            sessions: 1,
            before: &[],
            layers: &[],
            goal: Goal::Open,
        }
    }

    const fn refused_by(mut self, layers: &'static [(&'static str, &'static str)]) -> Self {
        self.layers = layers;
        self
    }

    const fn wants(mut self, goal: Goal) -> Self {
        self.goal = goal;
        self
    }

    const fn behind(mut self, before: &'static [&'static str]) -> Self {
        self.before = before;
        self
    }

    const fn in_session(mut self, number: usize) -> Self {
        self.sessions = number;
        self
    }

    const fn asking(mut self, args: &'static [&'static str]) -> Self {
        self.args = args;
        self
    }

    pub(super) const fn next_to_the_client(mut self) -> Self {
        self.near = Toward::Client;
        self
    }

    /// What the client hears when all checks are made.
    pub(super) const fn heard(&self) -> &'static str {
        if self.before.is_empty() {
            self.layers[0].1
        } else {
            E2E
        }
    }
}

/// Stop a man in the middle before the handshake.
const INTRODUCED: &[&str] = &["offer", "answer", "binding"];

pub(super) const ATTACKS: &[Attack] = &[
    Attack::new("the offer names another certificate", |_, _| {
        Ok(changing(Toward::Gateway, "offer", |offer| {
            replace_fingerprint(offer)
        }))
    })
    .refused_by(&[("offer", E2E)])
    .wants(Goal::Nothing),
    Attack::new("the answer names another certificate", |_, _| {
        Ok(changing(Toward::Client, "answer", |answer| {
            replace_fingerprint(answer)
        }))
    })
    .refused_by(&[("answer", E2E)])
    .wants(Goal::Nothing),
    Attack::new("the offer names a second certificate", |_, _| {
        Ok(changing(Toward::Gateway, "offer", |offer| {
            add_fingerprint(offer)
        }))
    })
    .refused_by(&[("one-certificate", E2E)]),
    Attack::new("the answer names a second certificate", |_, _| {
        Ok(changing(Toward::Client, "answer", |answer| {
            add_fingerprint(answer)
        }))
    })
    .refused_by(&[("one-certificate", E2E)]),
    Attack::new("the offer is for another service", |_, _| {
        Ok(changing(Toward::Gateway, "offer", |offer| {
            offer["service"] = json!("nas")
        }))
    })
    .refused_by(&[("offer", E2E), ("answer", E2E)]),
    Attack::new("the offer is for another node", |_, _| {
        Ok(changing(Toward::Gateway, "offer", |offer| {
            offer["node"] = json!("other")
        }))
    })
    .refused_by(&[("offer", E2E), ("node", E2E)]),
    Attack::new("the offer is of another grant", |spoils, _| {
        let other = spoils.other_grant.clone();
        Ok(changing(Toward::Gateway, "offer", move |offer| {
            offer["grant"] = json!(other)
        }))
    })
    .refused_by(&[("offer", E2E)]),
    Attack::new("the offer is for another session", |_, _| {
        Ok(another_session())
    })
    .refused_by(&[("offer", E2E), ("answer", E2E)]),
    Attack::new("an offer comes again", |_, _| {
        Ok(again(Toward::Gateway, "offer"))
    })
    .in_session(2)
    .refused_by(&[("replay", "OFFER_REPLAYED")])
    .wants(Goal::Answered),
    Attack::new("an answer comes again", |_, _| {
        Ok(again(Toward::Client, "answer"))
    })
    .in_session(2)
    .refused_by(&[("answer", E2E)])
    .wants(Goal::Nothing),
    Attack::new("the offer is not signed", |_, _| {
        Ok(stripping(Toward::Gateway, "offer", "proof"))
    })
    .refused_by(&[("", VIOLATION)])
    .wants(Goal::Nothing),
    Attack::new("the answer is not signed", |_, _| {
        Ok(stripping(Toward::Client, "answer", "proof"))
    })
    .next_to_the_client()
    .refused_by(&[("", VIOLATION)])
    .wants(Goal::Nothing),
    Attack::new("the answer has no certificate", |_, _| {
        Ok(stripping(Toward::Client, "answer", "certificate"))
    })
    .next_to_the_client()
    .refused_by(&[("", VIOLATION)])
    .wants(Goal::Nothing),
    Attack::new("a man in the middle", |_, capture| {
        Ok(middle::scheme(Box::new(|_, message| message), capture))
    })
    .refused_by(&[("offer", E2E), ("answer", E2E), ("binding", E2E)])
    .wants(Goal::Read),
    Attack::new("the gateway's hello comes again", |_, capture| {
        Ok(middle::scheme(repeating(GATEWAY_HELLO), capture))
    })
    .in_session(2)
    .behind(INTRODUCED)
    .refused_by(&[("node-proof", E2E), ("client-proof", PROOF)]),
    Attack::new("the client's proof comes again", |_, capture| {
        Ok(middle::scheme(repeating(AUTHENTICATE), capture))
    })
    .in_session(2)
    .behind(INTRODUCED)
    .refused_by(&[("client-proof", PROOF)]),
    Attack::new(
        "the client's proof is for another grant",
        |spoils, capture| {
            let other = spoils.other_grant.clone();
            let swap = move |body: &mut Value| body["grant"] = json!(other);
            Ok(middle::scheme(rewriting(AUTHENTICATE, swap), capture))
        },
    )
    .behind(INTRODUCED)
    .refused_by(&[("client-proof", PROOF)]),
    Attack::new("the client's versions are changed", |_, capture| {
        let add = |body: &mut Value| body["versions"] = json!([1, 0]);
        Ok(middle::scheme(rewriting(0x01, add), capture))
    })
    .behind(INTRODUCED)
    .refused_by(&[("node-proof", E2E), ("client-proof", PROOF)]),
    Attack::new("the gateway's hello has no proof", |_, capture| {
        let strip = |body: &mut Value| drop(body.as_object_mut().map(|body| body.remove("proof")));
        Ok(middle::scheme(rewriting(GATEWAY_HELLO, strip), capture))
    })
    .behind(INTRODUCED)
    .refused_by(&[("", VIOLATION)])
    .wants(Goal::Nothing),
    Attack::new(
        "a node that signed its certificate itself",
        |spoils, capture| {
            let named = spoils.cluster_key.public().id();
            let identity =
                Identity::new(&claims("home", NODE, 3600), &own_key(), &named, spoils.now)?;
            Ok(impostor::scheme(identity, capture))
        },
    )
    .refused_by(&[("token-signature", E2E)])
    .wants(Goal::Believed),
    Attack::new("a node of another cluster", |spoils, capture| {
        let issuer = foreign_cluster_key();
        let claims = claims("work", NODE, 3600);
        let identity = Identity::new(&claims, &issuer, &issuer.public().id(), spoils.now)?;
        Ok(impostor::scheme(identity, capture))
    })
    .refused_by(&[("token-signature", E2E), ("token-parties", E2E)])
    .wants(Goal::Believed),
    Attack::new("a node whose certificate has expired", |spoils, capture| {
        let named = spoils.cluster_key.public().id();
        let claims = claims("home", NODE, -3600);
        let identity = Identity::new(&claims, &spoils.cluster_key, &named, spoils.now)?;
        Ok(impostor::scheme(identity, capture))
    })
    .refused_by(&[("token-times", "NODE_CERTIFICATE_EXPIRED")])
    .wants(Goal::Believed),
    Attack::new("a node with a key of small order", |spoils, capture| {
        let claims = claims("home", NODE, 3600);
        let identity = Identity::of_small_order(&claims, &spoils.cluster_key, spoils.now)?;
        Ok(impostor::scheme(identity, capture))
    })
    .refused_by(&[("strict-keys", E2E)])
    .wants(Goal::Believed),
    Attack::new("another node of the cluster", |spoils, capture| {
        let named = spoils.cluster_key.public().id();
        let claims = claims("home", "evil", 3600);
        let identity = Identity::new(&claims, &spoils.cluster_key, &named, spoils.now)?;
        Ok(impostor::scheme(identity, capture))
    })
    .asking(&["--node", NODE])
    .refused_by(&[("node", E2E)])
    .wants(Goal::Believed),
    Attack::new("a revoked node", |spoils, capture| {
        let impostor = impostor::scheme(stolen(spoils, RevokedBy::Nothing)?, capture);
        let nodes = vec![own_key().public().id()];
        let list = list(&spoils.cluster_key, nodes, (spoils.now, 3600))?;
        Ok(announcing(&list, capture, impostor))
    })
    .refused_by(&[("revocation", "NODE_REVOKED")])
    .wants(Goal::Believed),
    Attack::new("a list of revoked nodes is held back", |spoils, capture| {
        let impostor = impostor::scheme(stolen(spoils, RevokedBy::List)?, capture);
        let last = list(&spoils.cluster_key, Vec::new(), (spoils.now, -3600))?;
        Ok(announcing(&last, capture, impostor))
    })
    .refused_by(&[("revocation", "REVOCATIONS_OUTDATED")])
    .wants(Goal::Believed),
    Attack::new("a list of revoked nodes is forged", |spoils, capture| {
        let impostor = impostor::scheme(stolen(spoils, RevokedBy::List)?, capture);
        let forged = list(&foreign_cluster_key(), Vec::new(), (spoils.now, 3600))?;
        Ok(telling(&forged, impostor))
    })
    .next_to_the_client()
    .refused_by(&[("revocation", "REVOCATIONS_OUTDATED")])
    .wants(Goal::Believed),
    Attack::new("the node's certificate without its key", |_, capture| {
        Ok(impostor::scheme(Identity::of_the_gateway(NODE)?, capture))
    })
    .refused_by(&[("answer", E2E), ("node-proof", E2E)])
    .wants(Goal::Believed),
];

fn claims(cluster: &'static str, node: &str, expires: i64) -> Claims {
    Claims {
        cluster,
        node: node.to_owned(),
        expires,
        revoked_by: RevokedBy::Nothing,
    }
}

/// A node that the cluster has certified, with a key that was stolen say.
fn stolen(spoils: &Spoils, revoked_by: RevokedBy) -> anyhow::Result<Identity> {
    let claims = Claims {
        revoked_by,
        ..claims("home", NODE, 3600)
    };
    let named = spoils.cluster_key.public().id();
    Identity::new(&claims, &spoils.cluster_key, &named, spoils.now)
}

/// A list of revoked nodes that ends so many seconds from now.
fn list(
    by: &SigningKey,
    nodes: Vec<KeyId>,
    (now, expires): (u64, i64),
) -> anyhow::Result<RevocationList> {
    let ends = (now, now.saturating_add_signed(expires));
    let cluster = "home".parse()?;
    Ok(RevocationList::sign(&cluster, (by, &[]), ends, nodes))
}

/// Signaling hears of a list when an offer comes, by what the gateway announces; the rest is as it is.
fn announcing(list: &RevocationList, capture: &Capture, mut scheme: Scheme) -> Scheme {
    let (list, capture) = (json!(list), capture.clone());
    Box::new(move |toward, message, outlet| {
        let announced = capture.signaling("announce").pop();
        if message["method"] == "offer"
            && let Some(mut announcement) = announced
        {
            announcement["params"]["revocations"] = list.clone();
            outlet.send(Toward::Client, announcement);
        }
        scheme(toward, message, outlet);
    })
}

/// The client gets a list that nobody has checked, the rest is as it is.
fn telling(list: &RevocationList, mut scheme: Scheme) -> Scheme {
    let list = json!(list);
    Box::new(move |toward, mut message, outlet| {
        if message["result"]["ice_servers"].is_array() {
            message["result"]["revocations"] = list.clone();
        }
        scheme(toward, message, outlet);
    })
}

const FINGERPRINT: &str = "a=fingerprint:sha-256 ";

/// The line of a description that names the certificate.
fn fingerprint(sdp: &str) -> &str {
    let lines = sdp.split_inclusive('\n');
    let mut named = lines.filter(|line| line.starts_with(FINGERPRINT));
    named.next().expect("a description names a certificate")
}

fn another(line: &str) -> String {
    let at = FINGERPRINT.len();
    let first = if line[at..].starts_with("00") {
        "01"
    } else {
        "00"
    };
    format!("{FINGERPRINT}{first}{}", &line[at + 2..])
}

fn replace_fingerprint(params: &mut Value) {
    let sdp = text(&params["description"]["sdp"]);
    let line = fingerprint(&sdp);
    params["description"]["sdp"] = json!(sdp.replace(line, &another(line)));
}

fn add_fingerprint(params: &mut Value) {
    let sdp = text(&params["description"]["sdp"]);
    let line = fingerprint(&sdp);
    let both = format!("{line}{}", another(line));
    params["description"]["sdp"] = json!(sdp.replacen(line, &both, 1));
}

fn stripping(to: Toward, method: &'static str, field: &'static str) -> Scheme {
    changing(to, method, move |params| {
        drop(params.as_object_mut().map(|params| params.remove(field)));
    })
}

/// The gateway knows the session by another id than the client.
fn another_session() -> Scheme {
    let mut own = Value::Null;
    let other = json!("AQEBAQEBAQEBAQEBAQEBAQ");
    Box::new(move |toward, mut message, outlet| {
        let session = &mut message["params"]["session"];
        match toward {
            Toward::Gateway if session.is_string() => {
                own = std::mem::replace(session, other.clone())
            }
            Toward::Client if *session == other => *session = own.clone(),
            Toward::Gateway | Toward::Client => {}
        }
        if message["params"] == json!({"session": null}) {
            message["params"] = json!({});
        }
        outlet.send(toward, message);
    })
}

/// The first message of a method comes again in the place of the next one.
fn again(to: Toward, method: &'static str) -> Scheme {
    let mut first: Option<Value> = None;
    Box::new(move |toward, mut message, outlet| {
        if toward == to && message["method"] == method {
            match &first {
                None => first = Some(message["params"].clone()),
                Some(first) if method == "answer" => {
                    let session = message["params"]["session"].take();
                    message["params"] = first.clone();
                    message["params"]["session"] = session;
                }
                Some(first) => message["params"] = first.clone(),
            }
        }
        outlet.send(toward, message);
    })
}

/// The first message of a type on channel 0 comes again in the place of the next one.
fn repeating(kind: u8) -> Alteration {
    let mut first: Option<Vec<u8>> = None;
    Box::new(move |_, message| {
        if message.first() != Some(&kind) {
            return message;
        }
        first.get_or_insert(message).clone()
    })
}

/// Messages of a type on channel 0 are changed.
fn rewriting(kind: u8, change: impl Fn(&mut Value) + Send + 'static) -> Alteration {
    Box::new(move |_, message| {
        if message.first() != Some(&kind) {
            return message;
        }
        let mut body = serde_json::from_slice(&message[1..]).expect("the body is JSON");
        change(&mut body);
        [&[kind], body.to_string().as_bytes()].concat()
    })
}
