//! Keeps a session to one service alive, and says how it goes.
//!
//! ```text
//! signaling ─► peer connection (made by the holder) ─► session ─► requests
//!     ▲            │ lost: try again at once, then with growing pauses
//!     └────────────┴── a node that comes back online: try again now
//! ```
//! Live sessions do not depend on signaling: when its socket closes, a session goes on.
//!
//! - `introduce`: to an accepted session. `run`: from there to its end, on changing paths.
//! - `holder`: what passes between here and the peer connection.

mod holder;
mod introduce;
mod run;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use portway_protocol::backoff::Backoff;
use portway_protocol::id::SessionId;
use portway_protocol::key::PublicKey;
use portway_protocol::link::Link;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::{RevocationList, Revocations};
use portway_protocol::session::resumption::Deadlines;
use portway_protocol::signal::NodeStatus;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::RtcDataChannel;

use crate::clock;
use crate::cookie::{Change, Jar, News};
use crate::device::Device;
use crate::error::Failure;
use crate::session::{self, Identity, Requests, Unreached};
use crate::signaling::{Signaling, is_there};
use holder::{FromHolder, ToHolder};
use introduce::{Introduction, introduce, presence};
use run::drive;

/// First and longest pause between attempts.
const RETRY_BASE: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(3);

/// Time from an offer to an open channel.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a request waits for a session.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// Events of the holder that may wait.
const QUEUE: usize = 256;

#[wasm_bindgen]
extern "C" {
    /// The worker that this runs in.
    #[derive(Debug, Clone)]
    pub type Host;

    /// Has the device key sign; an `ArrayBuffer` comes.
    #[wasm_bindgen(method, catch)]
    pub(crate) async fn sign(this: &Host, message: js_sys::Uint8Array) -> Result<JsValue, JsValue>;

    /// A status message for the page, as JSON.
    #[wasm_bindgen(method)]
    fn status(this: &Host, json: &str);

    /// A message for the holder, which owns the peer connection, as JSON.
    #[wasm_bindgen(method)]
    fn peer(this: &Host, json: &str);

    /// The cookie jar has changed; to be stored.
    #[wasm_bindgen(method, js_name = saveCookies)]
    fn save_cookies(this: &Host, json: &str);

    /// There is a newer list of revoked nodes, JSON; to be stored.
    #[wasm_bindgen(method, js_name = saveRevocations)]
    fn save_revocations(this: &Host, json: &str);

    /// Cookies were set here; the other tabs are to hear of it.
    #[wasm_bindgen(method, js_name = shareCookies)]
    fn share_cookies(this: &Host, json: &str);
}

/// What the holder knows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Options {
    signal_url: String,
    service: String,
    link: String,
    /// Key of this device.
    device: PublicKey,
    /// Newest key of the cluster by which the service was opened here before.
    #[serde(default)]
    pinned: Option<PublicKey>,
    /// The newest list of revoked nodes that was known here before, JSON.
    #[serde(default)]
    revocations: Option<String>,
    origin: String,
    cookies: Option<String>,
}

impl Options {
    /// What is known of revoked nodes to begin with. A list of another cluster's key is of no use any more.
    fn known_revocations(&self, identity: &Identity) -> Revocations {
        let believed = identity.pinned.unwrap_or(identity.cluster_key);
        let mut known = Revocations::new(identity.cluster.clone(), believed);
        let stored = self.revocations.as_deref();
        if let Some(Ok(list)) = stored.map(serde_json::from_str) {
            drop(known.learn(&list));
        }
        known
    }
}

/// How it goes, as `messages.js` has it.
#[derive(Debug, Clone, Default, Serialize)]
struct Status {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<f64>,
    /// Newest key of the cluster: the one to pin.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PublicKey>,
    /// Of the cluster key, for people to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<String>,
    /// Of the one that was believed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
}

enum Event {
    Holder(FromHolder),
    Channel(SessionId, RtcDataChannel),
    Retry,
}

/// A connection to one service. Lives as long as its worker.
#[wasm_bindgen]
pub struct Connection(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    host: Host,
    options: Options,
    identity: Identity,
    events: mpsc::Sender<Event>,
    requests: watch::Sender<Option<Requests>>,
    status: RefCell<Status>,
    /// Which nodes are none any more.
    revocations: watch::Sender<Revocations>,
    pub(crate) jar: RefCell<Jar>,
}

#[wasm_bindgen]
impl Connection {
    /// Starts to connect. `options` is JSON: `signalUrl`, `service`, `link`, `device`, `pinned`,
    /// `revocations`, `origin`, `cookies`.
    ///
    /// # Errors
    /// If the link is not one.
    #[wasm_bindgen(constructor)]
    pub fn new(options: &str, host: Host) -> Result<Connection, JsValue> {
        console_error_panic_hook::set_once();
        let invalid = |error: &dyn std::fmt::Display| {
            JsValue::from(Failure::with(Reason::LinkInvalid, error))
        };
        let options: Options = serde_json::from_str(options).map_err(|e| invalid(&e))?;
        let link: Link = options.link.parse().map_err(|e| invalid(&e))?;
        let identity = Identity {
            service: options.service.parse().map_err(|e| invalid(&e))?,
            grant: link.grant,
            key: link.grant_key(),
            cluster_key: link.cluster_key,
            pinned: options.pinned,
            cluster: link.cluster,
            device: Device {
                key: options.device,
                host: host.clone(),
            },
        };
        let (events, receiver) = mpsc::channel(QUEUE);
        let revocations = options.known_revocations(&identity);
        let jar = options
            .cookies
            .as_deref()
            .map(Jar::load)
            .unwrap_or_default();
        let inner = Rc::new(Inner {
            host,
            options,
            identity,
            events,
            requests: watch::Sender::new(None),
            status: RefCell::default(),
            revocations: watch::Sender::new(revocations),
            jar: RefCell::new(jar),
        });
        spawn_local(supervise(inner.clone(), receiver));
        Ok(Self(inner))
    }

    /// A message of the holder, as JSON.
    pub fn peer(&self, json: &str) {
        if let Ok(message) = serde_json::from_str(json) {
            self.post(Event::Holder(message));
        }
    }

    /// The data channel of a session that the holder has opened.
    pub fn attach(&self, session: &str, channel: RtcDataChannel) {
        if let Ok(session) = session.parse() {
            self.post(Event::Channel(session, channel));
        }
    }

    /// Try now, whatever happened before.
    pub fn retry(&self) {
        self.post(Event::Retry);
    }

    /// What `document.cookie` shows at a path.
    #[must_use]
    pub fn cookies(&self, path: &str) -> String {
        self.0.jar.borrow().for_script(path, unix_now())
    }

    /// A script sets a cookie at a path.
    #[wasm_bindgen(js_name = setCookie)]
    pub fn set_cookie(&self, path: &str, cookie: &str) {
        let mut jar = self.0.jar.borrow_mut();
        let change = jar.set_by_script(path, cookie, unix_now());
        drop(jar);
        self.0.cookies_changed(change.into_iter().collect());
    }

    /// The whole jar, for [`Connection::hear_cookies`] of a new tab.
    #[must_use]
    #[wasm_bindgen(js_name = allCookies)]
    pub fn all_cookies(&self) -> String {
        serde_json::to_string(&self.0.jar.borrow().whole()).unwrap_or_default()
    }

    /// What another tab of the same person has told of its jar.
    #[wasm_bindgen(js_name = hearCookies)]
    pub fn hear_cookies(&self, json: &str) {
        if let Ok(news) = serde_json::from_str(json) {
            self.0.jar.borrow_mut().hear(news);
            self.0.save_cookies();
        }
    }

    fn post(&self, event: Event) {
        // Only a flood could fill the queue, and then the connect timeout cleans up.
        drop(self.0.events.try_send(event));
    }
}

impl Inner {
    /// A handle for a request, as soon as there is a session.
    pub(crate) async fn requests(&self) -> Result<Requests, Failure> {
        let mut watched = self.requests.subscribe();
        let patience = clock::sleep(REQUEST_PATIENCE);
        let requests = tokio::select! {
            requests = watched.wait_for(Option::is_some) => match requests {
                Ok(requests) => requests.clone(),
                Err(_) => None,
            },
            () = patience => None,
        };
        match requests {
            Some(requests) => session::ready(requests).await,
            None => {
                let reason = self.status.borrow().reason;
                Err(Failure::new(reason.unwrap_or(Reason::SessionTimeout)))
            }
        }
    }

    /// The browser-visible origin of the service.
    pub(crate) fn origin(&self) -> &str {
        &self.options.origin
    }

    /// The label of the service.
    pub(crate) fn service(&self) -> &str {
        &self.options.service
    }

    /// Stores the jar and tells the other tabs.
    pub(crate) fn cookies_changed(&self, changes: Vec<Change>) {
        self.save_cookies();
        if !changes.is_empty()
            && let Ok(json) = serde_json::to_string(&News::Changed(changes))
        {
            self.host.share_cookies(&json);
        }
    }

    fn save_cookies(&self) {
        let json = self.jar.borrow().save(unix_now());
        self.host.save_cookies(&json);
    }

    /// A new socket to signaling, for a session.
    async fn meet(&self, session: SessionId) -> Result<Signaling, Failure> {
        let identity = &self.identity;
        let (signaling, revocations) = Signaling::connect(
            &self.options.signal_url,
            &identity.cluster,
            identity.grant,
            session,
            &identity.key,
        )
        .await?;
        if let Some(list) = revocations {
            self.learn(&list);
        }
        Ok(signaling)
    }

    /// Takes a list of revoked nodes, if it is the cluster's and a newer one. Signaling may say what it likes.
    fn learn(&self, list: &RevocationList) {
        let is_newer = self
            .revocations
            .send_if_modified(|known| known.learn(list) == Ok(true));
        if is_newer && let Ok(json) = serde_json::to_string(list) {
            self.host.save_revocations(&json);
        }
    }

    fn tell(&self, status: Status) {
        if let Ok(json) = serde_json::to_string(&status) {
            self.host.status(&json);
        }
        *self.status.borrow_mut() = status;
    }

    fn state(&self, state: &'static str) {
        let reason = self.status.borrow().reason;
        let message = self.status.borrow().message.clone();
        self.tell(Status {
            state,
            reason,
            message,
            ..Status::default()
        });
    }

    fn failed(&self, state: &'static str, failure: &Failure) {
        let has_changed = failure.reason == Reason::ClusterKeyChanged;
        let words = |key: PublicKey| has_changed.then(|| key.words().to_string());
        self.tell(Status {
            words: words(self.identity.cluster_key),
            pinned: self.identity.pinned.and_then(words),
            state,
            reason: Some(failure.reason),
            message: Some(failure.message.clone()),
            ..Status::default()
        });
    }

    fn holder(&self, message: &ToHolder<'_>) {
        if let Ok(json) = serde_json::to_string(message) {
            self.host.peer(&json);
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds since 1970 are positive and far below 2^53"
    )]
    let seconds = (js_sys::Date::now() / 1000.0) as u64;
    seconds
}

async fn supervise(inner: Rc<Inner>, mut events: mpsc::Receiver<Event>) {
    let mut backoff = Backoff::new(RETRY_BASE, RETRY_CAP);
    let mut had_session = false;
    loop {
        inner.state(if had_session {
            "reconnecting"
        } else {
            "signaling"
        });
        let mut signaling = None;
        let failure = attempt(
            &inner,
            &mut signaling,
            &mut events,
            &mut backoff,
            &mut had_session,
        )
        .await;
        inner.requests.send_replace(None);
        if failure.reason.is_final() {
            inner.failed("locked", &failure);
            wait_for_retry(&mut events).await;
            backoff.reset();
            continue;
        }
        inner.failed(
            if had_session {
                "reconnecting"
            } else {
                "signaling"
            },
            &failure,
        );
        let delay = backoff.next_delay(u32::from_ne_bytes(clock::random()));
        pause(delay, &mut signaling, &mut events).await;
    }
}

/// From signaling to the end of one session. Ends with what went wrong.
async fn attempt(
    inner: &Inner,
    slot: &mut Option<Signaling>,
    events: &mut mpsc::Receiver<Event>,
    backoff: &mut Backoff,
    had_session: &mut bool,
) -> Failure {
    let session = SessionId::from_bytes(clock::random());
    let is_repeated = inner.status.borrow().reason.is_some();
    let connecting = async {
        let url = &inner.options.signal_url;
        if is_repeated {
            is_there(url, CONNECT_TIMEOUT).await?;
        }
        inner.meet(session).await
    };
    let begun = clock::now();
    let timeout = clock::sleep(CONNECT_TIMEOUT);
    let connected = tokio::select! {
        connected = connecting => connected,
        () = timeout => Err(Failure::new(Reason::SignalingUnreachable)),
    };
    let signaling = match connected {
        Ok(signaling) => slot.insert(signaling),
        Err(failure) => return failure,
    };
    if !*had_session {
        inner.state("connecting");
    }
    let met = clock::now();
    let timeout = clock::sleep(CONNECT_TIMEOUT);
    let introduction = Introduction {
        session,
        node: None,
    };
    let opened = tokio::select! {
        opened = introduce(inner, signaling, events, introduction, None) => opened,
        () = timeout => Err(Failure::new(Reason::IceFailed).into()),
    };
    match opened {
        Ok((held, reached)) => {
            backoff.reset();
            *had_session = true;
            let deadlines = Deadlines::after(met - begun, clock::now() - met);
            drive(inner, slot, events, held, reached, deadlines).await
        }
        Err(Unreached { failure, .. }) => failure,
    }
}

/// Waits, but not longer than until the node is back or the user asks.
async fn pause(
    delay: Duration,
    signaling: &mut Option<Signaling>,
    events: &mut mpsc::Receiver<Event>,
) {
    let mut timer = Box::pin(clock::sleep(delay));
    loop {
        let heard = async {
            match signaling.as_mut() {
                Some(signaling) => signaling.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut timer => return,
            event = events.recv() => if let Some(Event::Retry) | None = event {
                return;
            },
            message = heard => match message {
                Ok(envelope) => if presence(&envelope) == Some(NodeStatus::Online) {
                    return;
                },
                Err(_) => *signaling = None,
            },
        }
    }
}

async fn wait_for_retry(events: &mut mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        if matches!(event, Event::Retry) {
            return;
        }
    }
}
