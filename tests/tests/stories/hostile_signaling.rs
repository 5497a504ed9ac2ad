//! A signaling service that lies is found out: at once, by name, before anything reaches the service or the
//! liar. And every check is what it is found out by: without it, the lie would work.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use portway_protocol::id::decode_array;
use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;
use portway_tests::adversary::forgery::{Claims, Identity, foreign_cluster_key, own_key};
use portway_tests::adversary::middle::Alteration;
use portway_tests::adversary::{
    Adversary, Capture, Scheme, Toward, changing, honest, impostor, middle,
};
use portway_tests::browser::Browser;
use portway_tests::client::{LinkFile, Pinged, ping_as};
use portway_tests::portway::{Portway, Program, State};
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::{Value, json};

use crate::roles_apart::{Owner, portal, text};
use crate::{APP, BOTH, NativeStory, native, story};

pub(crate) const NATIVE_STORIES: &[NativeStory] =
    &[native!(lies_are_refused), native!(each_check_bites)];

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_browser_refuses_lies)];

/// The node.
const NODE: &str = "office";

/// What the service says: no adversary may read it.
const SECRET: &str = "Hello from the service";

/// Message types of channel 0: the gateway's hello, what a client sends once the node has proven itself.
const GATEWAY_HELLO: u8 = 0x02;
const AUTHENTICATE: u8 = 0x03;

const E2E: &str = "E2E_AUTH_FAILED";
const PROOF: &str = "PROOF_INVALID";
const VIOLATION: &str = "PROTOCOL_VIOLATION";

/// A lie.
struct Attack {
    name: &'static str,
    /// Where the liar sits: next to the gateway, or next to the client.
    near: Toward,
    scheme: fn(&Spoils, &Capture) -> anyhow::Result<Scheme>,
    /// More arguments of `portway ping`.
    args: &'static [&'static str],
    /// Sessions that it needs, the last of which is the one that it lies in.
    sessions: usize,
    /// Checks that stop it before it comes to those that it is about.
    before: &'static [&'static str],
    /// Checks each of which refuses it alone, and what the client hears then. The first one is met first.
    layers: &'static [(&'static str, &'static str)],
    goal: Goal,
}

/// What the liar wants, and gets without the checks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
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
struct Spoils {
    /// The cluster's own key: what only the owner has. For certificates that were good once.
    cluster_key: SigningKey,
    /// Another grant of the gateway.
    other_grant: String,
    now: u64,
}

impl Attack {
    const fn new(
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

    const fn next_to_the_client(mut self) -> Self {
        self.near = Toward::Client;
        self
    }

    /// What the client hears when all checks are made.
    const fn heard(&self) -> &'static str {
        if self.before.is_empty() {
            self.layers[0].1
        } else {
            E2E
        }
    }
}

/// Stop a man in the middle before the handshake.
const INTRODUCED: &[&str] = &["offer", "answer", "binding"];

const ATTACKS: &[Attack] = &[
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
    Attack::new("the node's certificate without its key", |_, capture| {
        Ok(impostor::scheme(Identity::of_the_gateway(NODE)?, capture))
    })
    .refused_by(&[("answer", E2E), ("node-proof", E2E)])
    .wants(Goal::Believed),
];

/// All of them on, in the build that people use.
async fn lies_are_refused() -> anyhow::Result<()> {
    let truth = Attack::new("the truth", |_, _| Ok(Box::new(honest)));
    let stage = Stage::set(&truth, &Program::default()).await?;
    let pinged = stage.ping(&truth).await?;
    ensure!(pinged.status.success(), "{}", pinged.error);
    assert_eq!(stage.upstream.requests(), ["GET /"]);
    for attack in ATTACKS {
        let refused = refuse(attack, &Program::default(), attack.heard()).await;
        refused.context(attack.name)?;
    }
    Ok(())
}

/// One alone of those that refuse a lie, then none.
async fn each_check_bites() -> anyhow::Result<()> {
    for attack in ATTACKS {
        for (alone, reason) in attack.layers {
            let others = attack.layers.iter().map(|(name, _)| *name);
            let off: Vec<&str> = others.filter(|name| name != alone).collect();
            let program = Program::without(&[attack.before, &off].concat());
            let refused = refuse(attack, &program, reason).await;
            refused.with_context(|| format!("{}, only {alone}", attack.name))?;
        }
        if attack.goal != Goal::Nothing {
            let succeeded = succeed(attack).await;
            succeeded.with_context(|| format!("{}, unchecked", attack.name))?;
        }
    }
    Ok(())
}

/// The same from a page. Which check it is that refuses is not told apart here.
async fn a_browser_refuses_lies(browser: &mut Browser) -> anyhow::Result<()> {
    let one_session = |attack: &&Attack| {
        attack.sessions == 1 && attack.args.is_empty() && attack.near == Toward::Gateway
    };
    for attack in ATTACKS.iter().filter(one_session) {
        let refused = refuse_in(browser, attack).await;
        refused.with_context(|| format!("{} [{:?}]", attack.name, browser.kind()))?;
    }
    Ok(())
}

async fn refuse_in(browser: &mut Browser, attack: &Attack) -> anyhow::Result<()> {
    let stage = Stage::set(attack, &Program::default()).await?;
    browser.open(&stage.link).await?;
    let told = format!(
        "document.body.innerText.includes('{}') || (!!{APP}.document.querySelector('#hello') && 'opened')",
        attack.heard()
    );
    let told = browser.wait_for(&told, PATIENCE).await?;
    ensure!(told == true, "it was opened");
    stage.assert_nothing_leaked(attack)
}

async fn refuse(attack: &Attack, program: &Program, reason: &str) -> anyhow::Result<()> {
    let stage = Stage::set(attack, program).await?;
    for _session in 1..attack.sessions {
        let pinged = stage.ping(attack).await?;
        if !attack.before.is_empty() && !pinged.status.success() {
            // With all checks there is not even a first one to record.
            assert_eq!(pinged.error["error"]["reason"], reason);
            return stage.assert_nothing_leaked(attack);
        }
        ensure!(pinged.status.success(), "{}", pinged.error);
        stage.has_no_session().await?;
    }
    let before = stage.upstream.requests().len();
    let begun = Instant::now();
    let pinged = stage.ping(attack).await?;
    let took = begun.elapsed().as_millis();
    eprintln!("{}: {reason} after {took} ms", attack.name);
    ensure!(
        !pinged.status.success(),
        "it was not refused: {:?}",
        pinged.lines
    );
    ensure!(
        pinged.error["error"]["reason"] == reason,
        "refused for another reason: {}",
        pinged.error
    );
    assert_eq!(
        stage.upstream.requests().len(),
        before,
        "a request came through"
    );
    if attack.sessions == 1 && attack.before.is_empty() {
        stage.assert_nothing_leaked(attack)?;
    }
    Ok(())
}

/// Without any check that stands in its way.
async fn succeed(attack: &Attack) -> anyhow::Result<()> {
    let layers = attack.layers.iter().map(|(name, _)| *name);
    let off: Vec<&str> = attack.before.iter().copied().chain(layers).collect();
    let stage = Stage::set(attack, &Program::without(&off)).await?;
    for _session in 1..attack.sessions {
        let pinged = stage.ping(attack).await?;
        ensure!(pinged.status.success(), "{}", pinged.error);
        stage.has_no_session().await?;
    }
    let capture = &stage.adversary.capture;
    match attack.goal {
        Goal::Open | Goal::Read => {
            let pinged = stage.ping(attack).await?;
            ensure!(pinged.status.success(), "{}", pinged.error);
            ensure!(
                attack.goal != Goal::Read || capture.holds(SECRET),
                "not read"
            );
        }
        Goal::Believed => {
            let told = async {
                while !told_us(capture) {
                    look_again().await
                }
            };
            stage.until(attack, told).await?;
        }
        Goal::Answered => {
            let answers = || capture.signaling("answer").len();
            let answered = async {
                while answers() < attack.sessions {
                    look_again().await
                }
            };
            stage.until(attack, answered).await?;
        }
        Goal::Nothing => {}
    }
    Ok(())
}

async fn look_again() {
    tokio::time::sleep(LOOK_AGAIN).await;
}

/// Whether a client has proven itself to the adversary, as it does to a node only.
fn told_us(capture: &Capture) -> bool {
    let said = capture.channel(Toward::Gateway);
    said.iter()
        .any(|message| message.first() >= Some(&AUTHENTICATE))
}

/// Signaling, a gateway with two services, a link to both, and somebody in between.
struct Stage {
    program: Program,
    upstream: Upstream,
    adversary: Adversary,
    link: String,
    gateway: Portway,
    _signaling: Portway,
    _states: [State; 3],
}

impl Stage {
    async fn set(attack: &Attack, program: &Program) -> anyhow::Result<Self> {
        let upstream = Upstream::start().await?;
        let owner = Owner::init().await?;
        let (signaling_state, config) = owner.signaling("")?;
        let args = ["signaling", "--config", &config];
        let signaling = Portway::start(&signaling_state, &args).await?;
        let real = portal(&signaling);
        let real = real.trim_end_matches('/');
        let sockets = real.replace("http://", "conn.");

        let spoils = Arc::new(std::sync::OnceLock::new());
        let mut waiting: Option<Scheme> = None;
        let make = attack.scheme;
        let known = spoils.clone();
        let adversary = Adversary::start((attack.near, &sockets), |capture| {
            let capture = capture.clone();
            Box::new(move |toward, message, outlet| {
                let Some(spoils) = known.get() else {
                    return outlet.send(toward, message);
                };
                let scheme = waiting
                    .get_or_insert_with(|| make(spoils, &capture).expect("a scheme of the table"));
                scheme(toward, message, outlet);
            })
        })
        .await?;
        let between = format!("http://home.localhost:{}", adversary.address.port());
        let (to_gateway, to_client) = match attack.near {
            Toward::Gateway => (between.as_str(), real),
            Toward::Client => (real, between.as_str()),
        };
        let services = format!(
            "app = {:?}\nnas = {:?}\n",
            upstream.target(),
            upstream.target()
        );
        let (gateway_state, gateway) = owner
            .gateway_as(program, NODE, &[to_gateway], &services)
            .await?;
        let asked = [
            "--service",
            "app",
            "--service",
            "nas",
            "--origin",
            to_client,
        ];
        let link = owner.link_to(&gateway, &asked).await?;
        let other = owner.link_to(&gateway, &asked).await?;
        let parts = other.split('.');
        let spoilt = Spoils {
            cluster_key: cluster_key(&owner.state)?,
            other_grant: parts.rev().nth(1).context("a link has an id")?.to_owned(),
            now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        ensure!(spoils.set(spoilt).is_ok());
        Ok(Self {
            program: program.clone(),
            upstream,
            adversary,
            link,
            gateway,
            _signaling: signaling,
            _states: [owner.state, signaling_state, gateway_state],
        })
    }

    async fn ping(&self, attack: &Attack) -> anyhow::Result<Pinged> {
        let args = [&["--count", "1"], attack.args].concat();
        ping_as(&self.program, &LinkFile::new(&self.link)?, &args).await
    }

    /// Waits for something that happens while somebody tries to connect.
    async fn until(
        &self,
        attack: &Attack,
        happened: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        tokio::select! {
            happened = tokio::time::timeout(PATIENCE, happened) => Ok(happened?),
            pinged = self.ping(attack) => {
                let pinged = pinged?;
                anyhow::bail!("it ended before: {:?} {}", pinged.lines, pinged.error)
            }
        }
    }

    /// Waits until the last one has ended.
    async fn has_no_session(&self) -> anyhow::Result<()> {
        let ended = async {
            while self.gateway.ask(&["sessions"]).await?["sessions"] != json!([]) {
                look_again().await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, ended).await?
    }

    /// Nothing reached the service, and nothing of the client the adversary.
    fn assert_nothing_leaked(&self, attack: &Attack) -> anyhow::Result<()> {
        let requests = self.upstream.requests();
        ensure!(requests.is_empty(), "{}: {requests:?}", attack.name);
        let capture = &self.adversary.capture;
        ensure!(
            !told_us(capture),
            "the client has proven itself to the liar"
        );
        let secret = self
            .link
            .rsplit('.')
            .next()
            .context("a link has a secret")?;
        ensure!(!capture.holds(secret), "the link's secret was told");
        ensure!(!capture.holds(SECRET), "the service was read");
        Ok(())
    }
}

fn cluster_key(owner: &State) -> anyhow::Result<SigningKey> {
    let seed = std::fs::read_to_string(owner.path().join("cluster.key"))?;
    Ok(SigningKey::from_seed(&Secret::new(decode_array(
        seed.trim(),
    )?)))
}

fn claims(cluster: &'static str, node: &str, expires: i64) -> Claims {
    Claims {
        cluster,
        node: node.to_owned(),
        expires,
    }
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
