//! The client's socket to signaling: authenticate with the grant key, or as a guest, then calls both ways.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use portway_protocol::id::{ClusterName, GrantId, SessionId};
use portway_protocol::key::SigningKey;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::RevocationList;
use portway_protocol::signal::{
    Authenticate, Authenticated, Challenge, Envelope, IceServer, PATH, SUBPROTOCOL, decode_result,
};
use portway_protocol::transcript::sign_challenge;
use tokio::sync::mpsc;
use wasm_bindgen::prelude::*;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

use crate::error::Failure;

/// Messages that may wait to be read; the server sends a few per session.
const QUEUE: usize = 256;

const AUTHENTICATE_ID: &str = "authenticate";

/// Answers as soon as the server is there.
const HEALTH_PATH: &str = "/_portway/health";

/// What an attempt to meet is given at least in Firefox while nothing answers. It keeps the connections of a
/// socket that was closed before it opened. From the sixth on it opens no other one to that host, and those
/// that it has ask ever more seldom.
const FIREFOX_PATIENCE: Duration = Duration::from_secs(3);

/// Attempts before that: some go by connections that are left from the network before, and have to be
/// followed soon.
const FIREFOX_QUICK_ATTEMPTS: u32 = 3;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(thread_local_v2, js_namespace = navigator, js_name = userAgent)]
    static USER_AGENT: String;

    #[wasm_bindgen(catch)]
    async fn fetch(url: &str, options: &js_sys::Object) -> Result<JsValue, JsValue>;

    #[wasm_bindgen(js_namespace = AbortSignal, js_name = timeout)]
    fn abort_after(millis: f64) -> JsValue;
}

/// An authenticated socket.
pub(crate) struct Signaling {
    socket: WebSocket,
    incoming: mpsc::Receiver<Incoming>,
    /// STUN and TURN servers of the cluster.
    pub(crate) ice_servers: Vec<IceServer>,
    _callbacks: Callbacks,
}

enum Incoming {
    Text(String),
    Closed(String),
}

/// Kept as long as the socket may call them.
struct Callbacks {
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
}

/// Whether the server behind `url`, that of its socket, is there. To be asked before a socket is tried
/// again: Firefox makes each attempt after a failed one wait longer, up to a minute.
pub(crate) async fn is_there(url: &str, patience: Duration) -> Result<(), Failure> {
    // `ws…` becomes `http…`.
    let address = url
        .strip_prefix("ws")
        .and_then(|rest| rest.strip_suffix(PATH))
        .ok_or_else(|| Failure::new(Reason::Internal))?;
    let options = js_sys::Object::new();
    // What is given up shall not keep one of the few connections that a browser opens to a host.
    let signal = abort_after(patience.as_secs_f64() * 1000.0);
    // Setting a property of a fresh object cannot fail.
    drop(js_sys::Reflect::set(&options, &"signal".into(), &signal));
    match fetch(&format!("http{address}{HEALTH_PATH}"), &options).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::new(Reason::SignalingUnreachable)),
    }
}

/// What an attempt to meet is given at least, in this browser, after so many that failed.
pub(crate) fn patience(failures: u32) -> Duration {
    let is_firefox = USER_AGENT.with(|agent| agent.contains("Firefox/"));
    if is_firefox && failures >= FIREFOX_QUICK_ATTEMPTS {
        FIREFOX_PATIENCE
    } else {
        Duration::ZERO
    }
}

impl Signaling {
    /// Connects and authenticates, to open a session. The newest list of revoked nodes that the other end knows
    /// comes along; nobody has checked it.
    pub(crate) async fn connect(
        url: &str,
        cluster: &ClusterName,
        grant: GrantId,
        session: SessionId,
        key: &SigningKey,
    ) -> Result<(Self, Option<RevocationList>), Failure> {
        Self::enter(url, |challenge| Authenticate::Client {
            cluster: cluster.clone(),
            grant,
            session,
            proof: sign_challenge(key, &challenge.nonce, cluster),
        })
        .await
    }

    /// The same without a grant: to pair, and for nothing else.
    pub(crate) async fn connect_as_guest(
        url: &str,
        cluster: &ClusterName,
    ) -> Result<Self, Failure> {
        let cluster = cluster.clone();
        let entered = Self::enter(url, |_challenge| Authenticate::Guest { cluster }).await;
        entered.map(|(signaling, _)| signaling)
    }

    async fn enter(
        url: &str,
        who: impl FnOnce(Challenge) -> Authenticate,
    ) -> Result<(Self, Option<RevocationList>), Failure> {
        let unreachable = |_| Failure::new(Reason::SignalingUnreachable);
        let socket = WebSocket::new_with_str(url, SUBPROTOCOL).map_err(unreachable)?;
        let (sender, incoming) = mpsc::channel(QUEUE);
        let callbacks = listen(&socket, sender);
        let mut signaling = Self {
            socket,
            incoming,
            ice_servers: Vec::new(),
            _callbacks: callbacks,
        };
        let challenge: Challenge = (signaling.next().await?)
            .params()
            .map_err(|error| Failure::with(Reason::ProtocolViolation, error))?;
        let id = Some(AUTHENTICATE_ID.into());
        signaling.send(&Envelope::of(id, &who(challenge)))?;
        let reply = signaling.next().await?;
        if let Some(error) = reply.error {
            return Err(Failure {
                reason: error.reason(),
                message: error.message,
            });
        }
        let violation = || Failure::new(Reason::ProtocolViolation);
        let result = reply.result.ok_or_else(violation)?;
        let authenticated: Authenticated = decode_result(&result).map_err(|_| violation())?;
        signaling.ice_servers = authenticated.ice_servers;
        Ok((signaling, authenticated.revocations))
    }

    /// The next message. Fails once the socket is closed.
    pub(crate) async fn next(&mut self) -> Result<Envelope, Failure> {
        match self.incoming.recv().await {
            Some(Incoming::Text(text)) => Envelope::parse(&text)
                .map_err(|error| Failure::with(Reason::ProtocolViolation, error)),
            Some(Incoming::Closed(reason)) => Err(Failure::with(
                Reason::SignalingUnreachable,
                if reason.is_empty() { "closed" } else { &reason },
            )),
            None => Err(Failure::new(Reason::SignalingUnreachable)),
        }
    }

    /// Sends a message.
    pub(crate) fn send(&self, envelope: &Envelope) -> Result<(), Failure> {
        self.socket
            .send_with_str(&envelope.to_text())
            .map_err(|_| Failure::new(Reason::SignalingUnreachable))
    }
}

impl Drop for Signaling {
    fn drop(&mut self) {
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        // Closing a closed socket is no error.
        drop(self.socket.close());
    }
}

fn listen(socket: &WebSocket, sender: mpsc::Sender<Incoming>) -> Callbacks {
    let sender = Rc::new(RefCell::new(Some(sender)));
    let on_message = {
        let sender = sender.clone();
        Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let Some(text) = event.data().as_string() else {
                return;
            };
            let mut slot = sender.borrow_mut();
            let is_full = slot
                .as_ref()
                .is_some_and(|sender| sender.try_send(Incoming::Text(text)).is_err());
            if is_full {
                // The reader sees the end instead of a gap.
                *slot = None;
            }
        })
    };
    let on_close = Closure::<dyn FnMut(CloseEvent)>::new(move |event: CloseEvent| {
        if let Some(sender) = sender.borrow_mut().take() {
            drop(sender.try_send(Incoming::Closed(event.reason())));
        }
    });
    socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
    Callbacks {
        _message: on_message,
        _close: on_close,
    }
}
