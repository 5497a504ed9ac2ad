//! A signaling service that lies: a real one, with an adversary on the way between it and a gateway, or a
//! client, who reads, changes, drops and makes up whatever it likes. To both ends that is the same as a
//! hostile service.
//!
//! - [`middle`]: a man in the middle with a peer connection to each end. `pages`: what a browser needs besides.
//! - [`impostor`]: one who answers in the gateway's place. [`forgery`]: what it shows for that.

pub mod forgery;
pub mod impostor;
pub mod middle;
mod pages;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use portway_protocol::signal::{PATH, SUBPROTOCOL};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// Messages of a scheme that may wait.
const OUTGOING: usize = 256;

/// Which end a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toward {
    /// The client.
    Client,
    /// The gateway.
    Gateway,
}

impl Toward {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Gateway,
            Self::Gateway => Self::Client,
        }
    }
}

/// What is done with each message: a scheme passes it on, or not, as it is or otherwise.
pub type Scheme = Box<dyn FnMut(Toward, Value, &Outlet) + Send>;

/// Where a scheme's messages go.
#[derive(Debug, Clone)]
pub struct Outlet(mpsc::Sender<(Toward, Value)>);

impl Outlet {
    /// Sends one. A scheme that sends more than fit in the queue loses some.
    pub fn send(&self, toward: Toward, message: Value) {
        drop(self.0.try_send((toward, message)));
    }

    /// Waits until either side has closed the socket.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Sends a notification.
    pub fn notify(&self, toward: Toward, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        self.send(toward, message);
    }
}

/// Everything that the adversary has seen.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Captured>>);

#[derive(Debug, Default)]
struct Captured {
    signaling: Vec<Value>,
    channel: Vec<(Toward, Vec<u8>)>,
}

impl Capture {
    /// Notes a message of channel 0.
    pub fn note(&self, toward: Toward, message: &[u8]) {
        self.lock().channel.push((toward, message.to_vec()));
    }

    /// Messages of channel 0 for one end, that it could read.
    #[must_use]
    pub fn channel(&self, toward: Toward) -> Vec<Vec<u8>> {
        let captured = self.lock();
        let those = captured.channel.iter().filter(|(to, _)| *to == toward);
        those.map(|(_, message)| message.clone()).collect()
    }

    /// Messages of signaling with this method.
    #[must_use]
    pub fn signaling(&self, method: &str) -> Vec<Value> {
        let captured = self.lock();
        let those = captured.signaling.iter();
        those.filter(|it| it["method"] == method).cloned().collect()
    }

    /// Whether a text was in any message of either kind.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        let captured = self.lock();
        let said = captured.signaling.iter().map(Value::to_string);
        let mut bytes = captured.channel.iter().map(|(_, message)| message);
        said.into_iter().any(|it| it.contains(text))
            || bytes.any(|it| it.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody between an end and a signaling service. Ends when dropped.
pub struct Adversary {
    /// Where that end finds it, instead of signaling.
    pub address: SocketAddr,
    /// What it has seen.
    pub capture: Capture,
    outlet: watch::Receiver<Option<Outlet>>,
    _tasks: JoinSet<()>,
}

impl Adversary {
    /// Waits for one end. `signaling` is the service's `HOST:PORT` for sockets, on this machine.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(
        (near, signaling): (Toward, &str),
        scheme: impl FnOnce(&Capture) -> Scheme,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let capture = Capture::default();
        let (present, outlet) = watch::channel(None);
        let between = Arc::new(Between {
            near,
            signaling: signaling.to_owned(),
            scheme: Mutex::new(scheme(&capture)),
            capture: capture.clone(),
            present,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                let between = between.clone();
                connections.spawn(async move {
                    if let Err(error) = between.take(stream).await {
                        eprintln!("adversary: {error:#}");
                    }
                });
            }
        });
        Ok(Self {
            address,
            capture,
            outlet,
            _tasks: tasks,
        })
    }

    /// The way to both sides of the latest socket, for words that no message calls for.
    #[must_use]
    pub fn outlet(&self) -> Option<Outlet> {
        self.outlet.borrow().clone()
    }
}

/// What the connections of the near end share.
struct Between {
    near: Toward,
    signaling: String,
    scheme: Mutex<Scheme>,
    capture: Capture,
    /// To the latest socket.
    present: watch::Sender<Option<Outlet>>,
}

impl Between {
    /// Serves one connection: a socket, or the pages that a browser wants first.
    async fn take(&self, stream: TcpStream) -> anyhow::Result<()> {
        if pages::are_wanted(&stream).await? {
            return pages::pass(stream, &self.signaling).await;
        }
        let mut end = accept(stream).await?;
        let mut service = connect(&self.signaling).await?;
        let (outgoing, mut made) = mpsc::channel(OUTGOING);
        let outlet = Outlet(outgoing);
        self.present.send_replace(Some(outlet.clone()));
        loop {
            tokio::select! {
                message = end.next() => match message.transpose()? {
                    Some(Message::Text(text)) => self.meddle(self.near.other(), &text, &outlet)?,
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(_) => {}
                },
                message = service.next() => match message.transpose()? {
                    Some(Message::Text(text)) => self.meddle(self.near, &text, &outlet)?,
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(_) => {}
                },
                Some((toward, message)) = made.recv() => {
                    let text = Message::text(message.to_string());
                    if toward == self.near {
                        end.send(text).await?;
                    } else {
                        service.send(text).await?;
                    }
                }
            }
        }
    }

    fn meddle(&self, toward: Toward, text: &str, outlet: &Outlet) -> anyhow::Result<()> {
        let message: Value = serde_json::from_str(text)?;
        self.capture.lock().signaling.push(message.clone());
        let mut scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        scheme(toward, message, outlet);
        Ok(())
    }
}

#[allow(
    clippy::result_large_err,
    reason = "the library says what such a function returns"
)]
async fn accept(stream: TcpStream) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let echo = |_request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        response.headers_mut().insert(
            "sec-websocket-protocol",
            HeaderValue::from_static(SUBPROTOCOL),
        );
        Ok(response)
    };
    Ok(tokio_tungstenite::accept_hdr_async(stream, echo).await?)
}

async fn connect(signaling: &str) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let (_name, port) = signaling.rsplit_once(':').context("HOST:PORT")?;
    let stream = TcpStream::connect(("127.0.0.1", port.parse()?)).await?;
    let mut request = format!("ws://{signaling}{PATH}").into_client_request()?;
    request.headers_mut().insert(
        "sec-websocket-protocol",
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// Passes everything on.
pub fn honest(toward: Toward, message: Value, outlet: &Outlet) {
    outlet.send(toward, message);
}

/// A scheme that changes the parameters of one method's messages on their way to one end.
pub fn changing(
    to: Toward,
    method: &'static str,
    change: impl Fn(&mut Value) + Send + 'static,
) -> Scheme {
    Box::new(move |toward, mut message, outlet| {
        if toward == to && message["method"] == method {
            change(&mut message["params"]);
        }
        outlet.send(toward, message);
    })
}
