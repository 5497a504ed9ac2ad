//! An open WebSocket.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::ext::Protocol;
use h2::{Reason as ResetReason, RecvStream, SendStream};
use http::{Method, Request};
use portway_protocol::reason::Reason;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use wasm_bindgen::prelude::*;

use super::frame::{self, Decoder, FrameError, Incoming, Opcode};
use crate::clock;
use crate::connection::{Connection, Inner};
use crate::error::Failure;
use crate::fetch::{header_map, identify, uri};

/// How often to look whether the gateway's settings have arrived.
const SETTINGS_POLL: Duration = Duration::from_millis(20);
const SETTINGS_POLLS: u32 = 250;

/// How long a service may take to end after the last frame.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// An open WebSocket.
#[wasm_bindgen]
pub struct Socket {
    protocol: String,
    sending: Mutex<Option<SendStream<Bytes>>>,
    receiving: RefCell<Option<(RecvStream, Decoder)>>,
    /// What the service did wrong: it is told at the end.
    violation: Cell<Option<FrameError>>,
    cancelled: CancellationToken,
}

#[wasm_bindgen]
impl Connection {
    /// Opens a WebSocket; `url` is path and query, `headers` an array of pairs.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub async fn websocket(
        &self,
        url: String,
        protocols: Vec<String>,
        headers: js_sys::Array,
    ) -> Result<Socket, JsValue> {
        Ok(Socket::open(self.0.clone(), &url, &protocols, &headers).await?)
    }
}

impl Socket {
    async fn open(
        inner: Rc<Inner>,
        url: &str,
        protocols: &[String],
        headers: &js_sys::Array,
    ) -> Result<Self, Failure> {
        let invalid = |_| Failure::new(Reason::RequestInvalid);
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri(&inner, url)?;
        *request.headers_mut() = header_map(headers)?;
        request
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        identify(&inner, request.headers_mut(), url, true).map_err(invalid)?;
        let headers = request.headers_mut();
        headers.insert(
            "sec-websocket-version",
            http::HeaderValue::from_static("13"),
        );
        if !protocols.is_empty() {
            let protocols = protocols.join(", ").parse().map_err(invalid)?;
            headers.insert("sec-websocket-protocol", protocols);
        }
        let mut requests = inner.requests().await?;
        for _poll in 0..SETTINGS_POLLS {
            if requests.is_extended_connect_protocol_enabled() {
                break;
            }
            clock::sleep(SETTINGS_POLL).await;
        }
        let (response, sending) = requests.send_request(request, false)?;
        let response = response.await?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(Failure::with(Reason::UpstreamInvalid, status));
        }
        let protocol = response
            .headers()
            .get("sec-websocket-protocol")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        if !is_acceptable(&protocol, protocols) {
            return Err(Failure::with(
                Reason::UpstreamInvalid,
                "a subprotocol that was not offered, or none",
            ));
        }
        Ok(Self {
            protocol,
            sending: Mutex::new(Some(sending)),
            receiving: RefCell::new(Some((response.into_body(), Decoder::default()))),
            violation: Cell::new(None),
            cancelled: CancellationToken::new(),
        })
    }
}

/// A service chooses one of the subprotocols that the page offers, if it offers any.
fn is_acceptable(chosen: &str, offered: &[String]) -> bool {
    match chosen {
        "" => offered.is_empty(),
        chosen => offered.iter().any(|each| each == chosen),
    }
}

#[wasm_bindgen]
impl Socket {
    /// The subprotocol that the service chose.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn protocol(&self) -> String {
        self.protocol.clone()
    }

    /// Sends a text message, waiting for room.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    #[wasm_bindgen(js_name = sendText)]
    pub async fn send_text(&self, text: String) -> Result<(), JsValue> {
        Ok(self.send(Opcode::Text, text.as_bytes()).await?)
    }

    /// Sends a binary message, waiting for room.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    #[wasm_bindgen(js_name = sendBinary)]
    pub async fn send_binary(&self, bytes: Vec<u8>) -> Result<(), JsValue> {
        Ok(self.send(Opcode::Binary, &bytes).await?)
    }

    /// Starts to close; the other end's close follows from [`Socket::next`].
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub async fn close(&self, code: Option<u16>, reason: String) -> Result<(), JsValue> {
        Ok(self
            .send(Opcode::Close, &frame::close_payload(code, &reason))
            .await?)
    }

    /// The next message: a string, a `Uint8Array`, or `{code, reason}` at the end.
    ///
    /// # Errors
    /// An `Error` with a `reason`, if the connection was lost.
    pub async fn next(&self) -> Result<JsValue, JsValue> {
        Ok(match self.next_message().await? {
            Incoming::Text(text) => text.into(),
            Incoming::Binary(bytes) => js_sys::Uint8Array::from(&bytes[..]).into(),
            Incoming::Close { code, reason } => {
                let object = js_sys::Object::new();
                // Setting a property of a fresh object cannot fail.
                drop(js_sys::Reflect::set(&object, &"code".into(), &code.into()));
                drop(js_sys::Reflect::set(
                    &object,
                    &"reason".into(),
                    &reason.into(),
                ));
                object.into()
            }
            Incoming::Ping(_) => JsValue::UNDEFINED,
        })
    }

    /// After the last frame, or frames that are none: says so to the service, and waits a while until
    /// it ends, too. Giving up at once could overtake what was said.
    pub async fn finish(&self) {
        tokio::select! {
            () = self.part() => {}
            () = clock::sleep(END_PATIENCE) => {}
            () = self.cancelled.cancelled() => {}
        }
        self.abort();
    }

    /// Gives the socket up at once.
    pub fn abort(&self) {
        self.cancelled.cancel();
        self.receiving.borrow_mut().take();
        // Whoever holds the lock is sending, and gives up by itself.
        if let Ok(mut sending) = self.sending.try_lock() {
            sending.take();
        }
    }
}

impl Socket {
    async fn send(&self, opcode: Opcode, payload: &[u8]) -> Result<(), Failure> {
        // One message at a time, whole: the lock is held while waiting for room.
        let mut slot = self.sending.lock().await;
        let sending = slot
            .as_mut()
            .ok_or_else(|| Failure::new(Reason::SessionLost))?;
        let mut bytes = frame::encode(opcode, payload, clock::random());
        while !bytes.is_empty() {
            sending.reserve_capacity(bytes.len());
            let granted = tokio::select! {
                granted = poll_fn(|cx| sending.poll_capacity(cx)) => granted,
                () = self.cancelled.cancelled() => None,
            };
            let Some(granted) = granted else {
                sending.send_reset(ResetReason::CANCEL);
                return Err(Failure::new(Reason::SessionLost));
            };
            let piece = bytes.split_to(granted?.min(bytes.len()));
            sending.send_data(piece, false)?;
        }
        Ok(())
    }

    /// Says the last word, and takes what still comes.
    async fn part(&self) {
        if let Some(violation) = self.violation.take() {
            // One that is gone cannot be told.
            let complaint = frame::close_payload(Some(violation.close_code()), "");
            drop(self.send(Opcode::Close, &complaint).await);
        }
        if let Some(mut sending) = self.sending.lock().await.take() {
            drop(sending.send_data(Bytes::new(), true));
        }
        let Some((mut stream, _decoder)) = self.receiving.borrow_mut().take() else {
            return;
        };
        while let Some(Ok(bytes)) = stream.data().await {
            drop(stream.flow_control().release_capacity(bytes.len()));
        }
    }

    async fn next_message(&self) -> Result<Incoming, Failure> {
        let lost = || Failure::new(Reason::SessionLost);
        let (mut stream, mut decoder) = self.receiving.borrow_mut().take().ok_or_else(lost)?;
        loop {
            match decoder.next_message() {
                Ok(Some(Incoming::Ping(payload))) => {
                    self.send(Opcode::Pong, &payload).await?;
                    continue;
                }
                Ok(Some(message)) => {
                    *self.receiving.borrow_mut() = Some((stream, decoder));
                    return Ok(message);
                }
                Ok(None) => {}
                Err(error) => {
                    *self.receiving.borrow_mut() = Some((stream, decoder));
                    self.violation.set(Some(error));
                    return Err(Failure::with(Reason::UpstreamInvalid, error));
                }
            }
            let next = tokio::select! {
                next = stream.data() => next,
                () = self.cancelled.cancelled() => return Err(lost()),
            };
            let bytes = next.ok_or_else(lost)??;
            stream.flow_control().release_capacity(bytes.len())?;
            decoder.feed(BytesMut::from(bytes));
        }
    }
}
