//! A signaling service that lies: a real one, with an adversary on the way between it and a gateway, or a
//! client, who reads, changes, drops and makes up whatever it likes. To both ends that is the same as a
//! hostile service.
//!
//! - [`middle`]: a man in the middle with a peer connection to each end.
//! - [`impostor`]: one who answers in the gateway's place. [`forgery`]: what it shows for that.

pub mod forgery;
pub mod impostor;
pub mod middle;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use portway_protocol::signal::{PATH, SUBPROTOCOL};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
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
        let mut scheme = scheme(&capture);
        let (signaling, seen) = (signaling.to_owned(), capture.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // An end has one socket at a time.
            while let Ok((stream, _peer)) = listener.accept().await {
                if let Err(error) = meddle((near, stream), &signaling, &seen, &mut scheme).await {
                    eprintln!("adversary: {error:#}");
                }
            }
        });
        Ok(Self {
            address,
            capture,
            _tasks: tasks,
        })
    }
}

/// Serves one socket of the near end.
async fn meddle(
    (near, stream): (Toward, TcpStream),
    signaling: &str,
    capture: &Capture,
    scheme: &mut Scheme,
) -> anyhow::Result<()> {
    let far = near.other();
    let mut end = accept(stream).await?;
    let mut service = connect(signaling).await?;
    let (outgoing, mut made) = mpsc::channel(OUTGOING);
    let outlet = Outlet(outgoing);
    loop {
        tokio::select! {
            message = end.next() => match message.transpose()? {
                Some(Message::Text(text)) => take(far, &text, capture, scheme, &outlet)?,
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            message = service.next() => match message.transpose()? {
                Some(Message::Text(text)) => take(near, &text, capture, scheme, &outlet)?,
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            Some((toward, message)) = made.recv() => {
                let text = Message::text(message.to_string());
                if toward == near {
                    end.send(text).await?;
                } else {
                    service.send(text).await?;
                }
            }
        }
    }
}

fn take(
    toward: Toward,
    text: &str,
    capture: &Capture,
    scheme: &mut Scheme,
    outlet: &Outlet,
) -> anyhow::Result<()> {
    let message: Value = serde_json::from_str(text)?;
    capture.lock().signaling.push(message.clone());
    scheme(toward, message, outlet);
    Ok(())
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
