//! A link cannot be sent: two people compare six digits by voice, and it is there.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use portway_protocol::id::{Nonce, PairingId};
use portway_protocol::pairing::guest::{self, AwaitingReply, AwaitingVerdict, Fresh, Wanted};
use portway_protocol::secret::Secret;
use portway_protocol::signal::pairing::{Pair, PairReply};
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_tests::PATIENCE;
use portway_tests::adversary::forgery::{foreign_cluster_key, own_key};
use portway_tests::adversary::{Adversary, Outlet, Toward};
use portway_tests::browser::Browser;
use portway_tests::client::{LinkFile, ping};
use portway_tests::pairing::Person;
use portway_tests::portway::{Portway, State};
use portway_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::roles_apart::{Owner, portal, text};
use crate::{APP, BOTH, NativeStory, native, story};

pub(crate) const STORIES: &[crate::Story] = &[
    story!(BOTH, a_browser_is_paired_by_six_digits),
    story!(BOTH, a_browser_with_other_digits_opens_nothing),
    story!(BOTH, a_pairing_with_another_cluster_is_a_hard_stop),
];

pub(crate) const NATIVE_STORIES: &[NativeStory] = &[
    native!(a_machine_is_paired_by_six_digits),
    native!(other_digits_end_a_pairing),
    native!(who_guesses_is_not_listened_to_for_long),
    native!(nobody_is_paired_whom_one_side_has_left),
    native!(a_man_in_the_middle_is_heard),
];

const ONE_PING: &[&str] = &["--count", "1"];

/// A service behind Portway.
struct Stage {
    portway: Portway,
    upstream: Upstream,
    state: State,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let upstream = Upstream::start().await?;
        let state = State::new()?;
        let expose = format!("app={}", upstream.target());
        let portway = Portway::up(&state, "127.0.0.1:0", &["--expose", &expose]).await?;
        Ok(Self {
            portway,
            upstream,
            state,
        })
    }

    /// An owner whose window is open, and where.
    async fn owner(&self, args: &[&str]) -> anyhow::Result<(Person, String)> {
        let mut owner = Person::owner(&self.state, "app", args)?;
        let waiting = owner.hears("waiting").await?;
        Ok((owner, text(&waiting["url"])))
    }

    /// Links that somebody else than `up` has made.
    async fn links(&self) -> anyhow::Result<Vec<Value>> {
        let links = self.portway.ask(&["links"]).await?;
        let links = links["links"].as_array().cloned().unwrap_or_default();
        let others = links.into_iter().filter(|link| link["user"] != "owner");
        Ok(others.collect())
    }
}

/// The same digits but for the last one.
fn others(digits: &str) -> String {
    let last = if digits.ends_with('7') { '8' } else { '7' };
    format!("{}{last}", &digits[..digits.len() - 1])
}

async fn a_machine_is_paired_by_six_digits() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let terms = ["--user", "ann", "--for", "2h", "--methods", "GET"];
    let (mut owner, url) = stage.owner(&terms).await?;
    let mut guest = Person::guest(&url)?;
    let digits = text(&guest.hears("digits").await?["digits"]);
    assert_eq!(owner.hears("guest").await?["address"], "127.0.0.1");
    let second = Person::guest(&url)?.ends().await?;
    second.because("PAIRING_TAKEN", 69)?;
    // A slip of another length is no try.
    owner.types(&digits[..5]).await?;
    owner
        .types(&format!("{} {}", &digits[..3], &digits[3..]))
        .await?;
    let paired = owner.hears("paired").await?;
    assert!(owner.ends().await?.status.success());
    guest.hears("accepted").await?;
    guest.types("y").await?;
    let link = text(&guest.hears("paired").await?["link"]);
    assert!(guest.ends().await?.status.success());
    assert!(link.contains(&text(&paired["id"])), "{paired}");

    let file = LinkFile::new(&link)?;
    let pinged = ping(&file, ONE_PING).await?;
    assert!(pinged.status.success(), "{}", pinged.error);
    assert_eq!(stage.upstream.requests(), ["GET /"]);
    let links = stage.links().await?;
    assert_eq!(links.len(), 1);
    assert_eq!(
        (&links[0]["user"], &links[0]["sessions"]),
        (&json!("ann"), &json!(1))
    );
    assert_eq!(links[0]["services"][0]["methods"], json!(["GET"]));
    let id = text(&links[0]["id"]);
    let revoked = stage.portway.ask(&["links", "revoke", &id]).await?;
    assert_eq!(revoked["revoked"], true);
    let pinged = ping(&file, ONE_PING).await?;
    assert_eq!(pinged.error["error"]["reason"], "GRANT_UNKNOWN");
    Ok(())
}

async fn other_digits_end_a_pairing() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let (mut owner, url) = stage.owner(&[]).await?;
    let mut guest = Person::guest(&url)?;
    let digits = text(&guest.hears("digits").await?["digits"]);
    owner.hears("guest").await?;
    owner.types(&others(&digits)).await?;
    owner.ends().await?.because("PAIRING_MISMATCH", 77)?;
    guest.ends().await?.because("PAIRING_MISMATCH", 77)?;
    // That was the only try.
    let late = Person::guest(&url)?.ends().await?;
    late.because("PAIRING_CLOSED", 69)?;
    assert!(stage.links().await?.is_empty());
    assert!(stage.upstream.requests().is_empty());
    Ok(())
}

async fn who_guesses_is_not_listened_to_for_long() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    for _ in 0..10 {
        let (mut owner, url) = stage.owner(&[]).await?;
        let mut guest = Person::guest(&url)?;
        let digits = text(&guest.hears("digits").await?["digits"]);
        owner.hears("guest").await?;
        owner.types(&others(&digits)).await?;
        owner.ends().await?.because("PAIRING_MISMATCH", 77)?;
    }
    let owner = Person::owner(&stage.state, "app", &[])?;
    owner.ends().await?.because("PAIRING_SUSPENDED", 77)
}

async fn nobody_is_paired_whom_one_side_has_left() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let (mut owner, url) = stage.owner(&[]).await?;
    let mut guest = Person::guest(&url)?;
    guest.hears("digits").await?;
    owner.hears("guest").await?;
    owner.interrupts().await?;
    assert_eq!(owner.ends().await?.status.code(), Some(130));
    guest.ends().await?.because("PAIRING_CANCELLED", 69)?;

    let (mut owner, _) = stage.owner(&[]).await?;
    let mut guest = Person::guest(&url)?;
    guest.hears("digits").await?;
    owner.hears("guest").await?;
    guest.interrupts().await?;
    assert_eq!(guest.ends().await?.status.code(), Some(130));
    owner.ends().await?.because("PAIRING_CANCELLED", 69)?;
    assert!(stage.links().await?.is_empty());

    // Somebody says "accepted", and the owner has said no such thing.
    let (mut owner, _) = stage.owner(&[]).await?;
    let mut guest = Person::guest(&url)?;
    let digits = text(&guest.hears("digits").await?["digits"]);
    owner.hears("guest").await?;
    owner.types(&digits).await?;
    guest.hears("accepted").await?;
    guest.types("n").await?;
    guest.ends().await?.because("PAIRING_MISMATCH", 77)?;
    Ok(())
}

/// Makes a browser ask for a pairing, and returns its digits.
async fn digits_of(browser: &mut Browser) -> anyhow::Result<String> {
    let button = "!document.querySelector('#pw-pair').hidden";
    browser.wait_for(button, PATIENCE).await?;
    browser
        .eval("document.querySelector('#pw-pair').click()")
        .await?;
    let shown = "(() => { const it = document.querySelector('#pw-digits'); return !it.hidden && it.textContent; })()";
    let digits = browser.wait_for(shown, PATIENCE).await?;
    let digits = text(&digits);
    assert_eq!(digits.len(), "042 917".len(), "{digits}");
    Ok(digits)
}

async fn a_browser_is_paired_by_six_digits(browser: &mut Browser) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    browser.open(&stage.portway.url("app")).await?;
    // Nobody waits yet.
    let button = "!document.querySelector('#pw-pair').hidden";
    browser.wait_for(button, PATIENCE).await?;
    browser
        .eval("document.querySelector('#pw-pair').click()")
        .await?;
    let closed = "document.body.innerText.includes('PAIRING_CLOSED')";
    browser.wait_for(closed, PATIENCE).await?;

    let (mut owner, _) = stage.owner(&["--user", "ann"]).await?;
    let digits = digits_of(browser).await?;
    owner.hears("guest").await?;
    let yes = "!document.querySelector('#pw-accepted').hidden";
    assert_eq!(browser.eval(yes).await?, false, "nobody has said so yet");
    owner.types(&digits).await?;
    owner.hears("paired").await?;
    browser.wait_for(yes, PATIENCE).await?;
    assert!(stage.upstream.requests().is_empty());
    browser
        .eval("document.querySelector('#pw-accepted').click()")
        .await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    let links = stage.links().await?;
    assert_eq!((links.len(), &links[0]["user"]), (1, &json!("ann")));
    let words = stage.portway.ask(&["key", "show"]).await?["cluster_words"].clone();
    let pinned = format!("document.querySelector('#pw-facts').textContent.includes({words})");
    browser.wait_for(&pinned, PATIENCE).await?;

    // It is kept as a link is.
    browser.open(&stage.portway.url("app")).await?;
    browser.wait_for(&hello, PATIENCE).await?;
    let id = text(&links[0]["id"]);
    stage.portway.ask(&["links", "revoke", &id]).await?;
    let revoked = "document.body.innerText.includes('GRANT_UNKNOWN')";
    browser.wait_for(revoked, PATIENCE).await?;
    Ok(())
}

async fn a_browser_with_other_digits_opens_nothing(browser: &mut Browser) -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let (mut owner, url) = stage.owner(&[]).await?;
    browser.open(&url).await?;
    let digits = digits_of(browser).await?;
    owner.hears("guest").await?;
    owner.types(&others(&digits)).await?;
    owner.ends().await?.because("PAIRING_MISMATCH", 77)?;
    let told = "document.body.innerText.includes('PAIRING_MISMATCH') && document.querySelector('#pw-accepted').hidden";
    browser.wait_for(told, PATIENCE).await?;
    has_no_link(browser, &url).await?;

    // The right ones, but the owner has not said so.
    let (mut owner, _) = stage.owner(&[]).await?;
    agree(browser, &mut owner).await?;
    browser
        .eval("document.querySelector('#pw-stop').click()")
        .await?;
    has_no_link(browser, &url).await?;
    assert!(stage.upstream.requests().is_empty());
    Ok(())
}

/// The owner types what the page shows, and the page asks whether they have said so.
async fn agree(browser: &mut Browser, owner: &mut Person) -> anyhow::Result<()> {
    let digits = digits_of(browser).await?;
    owner.types(&digits).await?;
    owner.hears("guest").await?;
    owner.hears("paired").await?;
    let yes = "!document.querySelector('#pw-accepted').hidden";
    browser.wait_for(yes, PATIENCE).await?;
    Ok(())
}

async fn has_no_link(browser: &mut Browser, url: &str) -> anyhow::Result<()> {
    browser.open(url).await?;
    let missing = "document.body.innerText.includes('LINK_MISSING')";
    browser.wait_for(missing, PATIENCE).await?;
    Ok(())
}

/// A link of another key is stopped, and so is one that comes of a pairing.
async fn a_pairing_with_another_cluster_is_a_hard_stop(
    browser: &mut Browser,
) -> anyhow::Result<()> {
    let first = Stage::set().await?;
    browser.open(&first.portway.link("app")).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    let listen = first.portway.listen()?;
    first.portway.kill().await?;

    let state = State::new()?;
    let expose = format!("app={}", first.upstream.target());
    let portway = Portway::up(&state, &listen, &["--expose", &expose]).await?;
    let upstream = first.upstream;
    let before = upstream.requests().len();
    browser.open(&portway.url("app")).await?;
    let mut owner = Person::owner(&state, "app", &[])?;
    owner.hears("waiting").await?;
    agree(browser, &mut owner).await?;
    browser
        .eval("document.querySelector('#pw-accepted').click()")
        .await?;
    let stopped = "document.body.innerText.includes('CLUSTER_KEY_CHANGED')";
    browser.wait_for(stopped, PATIENCE).await?;
    assert_eq!(upstream.requests().len(), before, "nothing was asked for");
    browser
        .eval("document.querySelector('#pw-replace').click()")
        .await?;
    browser.wait_for(&hello, PATIENCE).await?;
    Ok(())
}

/// Signaling that pairs with either side itself.
#[derive(Default)]
struct Middle {
    /// Towards the node it is this guest.
    towards_node: Option<AwaitingReply>,
    /// What the node would have to be told.
    paired: Option<AwaitingVerdict>,
}

impl Middle {
    fn take(&mut self, toward: Toward, mut message: Value, outlet: &Outlet) -> anyhow::Result<()> {
        match (toward, message["method"].as_str()) {
            (Toward::Gateway, Some("pair")) => {
                let pair: Pair = serde_json::from_value(message["params"].clone())?;
                let wanted = Wanted {
                    cluster: "home".parse()?,
                    service: pair.service.clone(),
                    node: None,
                };
                let fresh = Fresh {
                    pairing: pair.pairing,
                    secret: Secret::new([66; 32]),
                    nonce: Nonce::from_bytes([66; 32]),
                };
                let (own, state) = guest::start(wanted, fresh);
                message["params"]["commitment"] = json!(own.commitment);
                self.towards_node = Some(state);
            }
            (Toward::Client, None) if is_answer(&message) => {
                let reply: PairReply = serde_json::from_value(message["result"].clone())?;
                let state = self.towards_node.take().context("it has asked")?;
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
                let (reveal, state) = state.receive(&reply, now.as_secs())?;
                self.paired = Some(state);
                outlet.notify(Toward::Gateway, "reveal", json!(reveal));
                message["result"] = json!(own_reply(&reply, now.as_secs())?);
            }
            // The guest's is of no use to the node, which has one.
            (Toward::Gateway, Some("reveal")) => return Ok(()),
            _ => {}
        }
        outlet.send(toward, message);
        Ok(())
    }
}

/// An answer of the node to a request that signaling has passed on.
fn is_answer(message: &Value) -> bool {
    let is_of_a_pairing = |id: &str| {
        id.strip_prefix("pair:")
            .is_some_and(|id| id.parse::<PairingId>().is_ok())
    };
    message["id"].as_str().is_some_and(is_of_a_pairing) && message["result"].is_object()
}

/// The same node, of a cluster that is the liar's.
fn own_reply(reply: &PairReply, now: u64) -> anyhow::Result<PairReply> {
    let claims = MachineClaims {
        iss: "home".parse()?,
        aud: "home".parse()?,
        sub: reply.node.clone(),
        node_id: reply.node.clone(),
        cluster_id: "home".parse()?,
        iat: now,
        exp: now + 3600,
        jti: "1".into(),
        cnf: Confirmation {
            ed25519: own_key().public(),
        },
        revoked_by: RevokedBy::Nothing,
    };
    Ok(PairReply {
        cluster_key: foreign_cluster_key().public(),
        certificate: claims.issue(&foreign_cluster_key()),
        nonce: Nonce::from_bytes([67; 32]),
        ..reply.clone()
    })
}

/// It has paired with both, as far as people let it: only the digits tell.
async fn a_man_in_the_middle_is_heard() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let cluster = Owner::init().await?;
    let (signaling_state, config) = cluster.signaling("")?;
    let signaling = Portway::start(&signaling_state, &["signaling", "--config", &config]).await?;
    let real = portal(&signaling).trim_end_matches('/').to_owned();
    let sockets = real.replace("http://", "conn.");
    let middle = Arc::new(Mutex::new(Middle::default()));
    let known = middle.clone();
    let adversary = Adversary::start((Toward::Gateway, &sockets), |_capture| {
        Box::new(move |toward, message, outlet| {
            let mut middle = known.lock().unwrap_or_else(PoisonError::into_inner);
            middle
                .take(toward, message, outlet)
                .expect("it knows the protocol");
        })
    })
    .await?;
    let between = format!("http://home.localhost:{}", adversary.address.port());
    let services = format!("app = {:?}\n", upstream.target());
    let (gateway_state, gateway) = cluster.gateway("nas", &[&between], &services).await?;
    let url = real.replace("http://", "http://app.");
    let theirs = || {
        let mut middle = middle.lock().unwrap_or_else(PoisonError::into_inner);
        let paired = middle.paired.take();
        paired.context("the liar has digits of its own")
    };

    let mut owner = Person::owner(&gateway_state, "app", &[])?;
    owner.hears("waiting").await?;
    let mut guest = Person::guest(&url)?;
    let digits = text(&guest.hears("digits").await?["digits"]);
    owner.hears("guest").await?;
    let to_node = String::from(theirs()?.digits());
    assert_ne!(digits, to_node, "one time in a million they are the same");
    owner.types(&digits).await?;
    owner.ends().await?.because("PAIRING_MISMATCH", 77)?;
    guest.ends().await?.because("PAIRING_MISMATCH", 77)?;
    let links = gateway.ask(&["links"]).await?;
    assert_eq!(links["links"], json!([]));

    // Nothing else stands in its way: with its own digits it would have been let in.
    let mut owner = Person::owner(&gateway_state, "app", &[])?;
    owner.hears("waiting").await?;
    let mut guest = Person::guest(&url)?;
    guest.hears("digits").await?;
    owner.hears("guest").await?;
    owner.types(&String::from(theirs()?.digits())).await?;
    owner.hears("paired").await?;
    let links = gateway.ask(&["links"]).await?;
    ensure!(links["links"].as_array().is_some_and(|it| it.len() == 1));
    assert!(upstream.requests().is_empty());
    Ok(())
}
