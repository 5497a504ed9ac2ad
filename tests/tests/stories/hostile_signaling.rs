//! A signaling service that lies is found out: at once, by name, before anything reaches the service or the
//! liar. And every check is what it is found out by: without it, the lie would work.
//!
//! `attacks`: the lies. `live_sessions`: those about sessions that are there already.

mod attacks;
pub(crate) mod live_sessions;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use portway_protocol::id::decode_array;
use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;
use portway_tests::adversary::{Adversary, Capture, Scheme, Toward, honest};
use portway_tests::browser::Browser;
use portway_tests::client::{LinkFile, Pinged, ping_as};
use portway_tests::portway::{Portway, Program, State};
use portway_tests::upstream::Upstream;
use portway_tests::{LOOK_AGAIN, PATIENCE};
use serde_json::json;

use crate::roles_apart::{Owner, portal};
use crate::{APP, BOTH, NativeStory, native, story};
use attacks::{ATTACKS, AUTHENTICATE, Attack, Goal, NODE, Spoils};

pub(crate) const NATIVE_STORIES: &[NativeStory] =
    &[native!(lies_are_refused), native!(each_check_bites)];

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, a_browser_refuses_lies)];

/// What the service says: no adversary may read it.
const SECRET: &str = "Hello from the service";

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
    let one_session = |attack: &&Attack| attack.sessions == 1 && attack.args.is_empty();
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
            let outcome = stage.until(attack, told).await;
            // It may have ended at once, and was one all the same.
            if !told_us(capture) {
                outcome?;
            }
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
