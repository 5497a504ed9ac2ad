//! Requests over the session.
//!
//! Flow control is HTTP/2's own: a chunk of a response is released only when the next one is asked
//! for, a chunk of a request is taken only when the gateway has room.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason as ResetReason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use portway_protocol::reason::Reason;
use tokio_util::sync::CancellationToken;
use wasm_bindgen::prelude::*;

use crate::connection::{Connection, Inner, unix_now};
use crate::error::Failure;

/// Where the browser-visible origin is told to the gateway.
const ORIGIN_HEADER: HeaderName = HeaderName::from_static("portway-origin");

/// One request and its response.
#[wasm_bindgen]
pub struct Exchange {
    inner: Rc<Inner>,
    path: String,
    sending: RefCell<Option<SendStream<Bytes>>>,
    awaited: RefCell<Option<ResponseFuture>>,
    receiving: RefCell<Option<RecvStream>>,
    /// Bytes handed out and not yet released to the sender.
    unreleased: RefCell<usize>,
    cancelled: CancellationToken,
}

#[wasm_bindgen]
impl Connection {
    /// Sends the head of a request, waiting for a session if there is none. `url` is path and
    /// query; `headers` an array of pairs.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub async fn open(
        &self,
        method: String,
        url: String,
        headers: js_sys::Array,
        has_body: bool,
    ) -> Result<Exchange, JsValue> {
        let inner = self.0.clone();
        Ok(Exchange::open(inner, &method, &url, &headers, has_body).await?)
    }
}

impl Exchange {
    async fn open(
        inner: Rc<Inner>,
        method: &str,
        url: &str,
        headers: &js_sys::Array,
        has_body: bool,
    ) -> Result<Self, Failure> {
        let invalid = |_| Failure::new(Reason::RequestInvalid);
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Failure::new(Reason::RequestInvalid))?;
        let mut request = Request::new(());
        *request.headers_mut() = header_map(headers)?;
        let is_safe = method == Method::GET || method == Method::HEAD;
        *request.method_mut() = method;
        *request.uri_mut() = uri(&inner, url)?;
        identify(&inner, request.headers_mut(), url, !is_safe).map_err(invalid)?;
        if request.headers().get(header::ACCEPT_ENCODING).is_none() {
            // The browser does not decode what a service worker answers with.
            let identity = HeaderValue::from_static("identity");
            request
                .headers_mut()
                .insert(header::ACCEPT_ENCODING, identity);
        }
        let mut requests = inner.requests().await?;
        let (response, sending) = requests.send_request(request, !has_body)?;
        Ok(Self {
            path: url.to_owned(),
            inner,
            sending: RefCell::new(has_body.then_some(sending)),
            awaited: RefCell::new(Some(response)),
            receiving: RefCell::new(None),
            unreleased: RefCell::new(0),
            cancelled: CancellationToken::new(),
        })
    }
}

#[wasm_bindgen]
impl Exchange {
    /// Sends a piece of the body, waiting for room.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<(), JsValue> {
        Ok(self.write_all(Bytes::from(bytes)).await?)
    }

    /// The body is complete.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub fn finish(&self) -> Result<(), JsValue> {
        if let Some(mut sending) = self.sending.borrow_mut().take() {
            sending
                .send_data(Bytes::new(), true)
                .map_err(Failure::from)?;
        }
        Ok(())
    }

    /// Waits for the head of the response: `{status, headers, cookies}`. Cookies are taken into the
    /// jar and do not appear among the headers.
    ///
    /// # Errors
    /// An `Error` with a `reason`.
    pub async fn response(&self) -> Result<js_sys::Object, JsValue> {
        Ok(self.head().await?)
    }

    /// The next piece of the body, `undefined` at its end.
    ///
    /// # Errors
    /// An `Error` with a `reason`, if the body ended early.
    pub async fn read(&self) -> Result<Option<js_sys::Uint8Array>, JsValue> {
        let bytes = self.next_bytes().await?;
        Ok(bytes.map(|bytes| js_sys::Uint8Array::from(&bytes[..])))
    }

    /// Nobody wants the rest.
    pub fn cancel(&self) {
        self.cancelled.cancel();
        if let Some(mut sending) = self.sending.borrow_mut().take() {
            sending.send_reset(ResetReason::CANCEL);
        }
        // Dropping what is awaited or received resets the stream.
        self.awaited.borrow_mut().take();
        self.receiving.borrow_mut().take();
    }
}

impl Exchange {
    async fn write_all(&self, mut bytes: Bytes) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let Some(mut sending) = self.sending.borrow_mut().take() else {
                return Err(Failure::new(Reason::SessionLost));
            };
            sending.reserve_capacity(bytes.len());
            let granted = tokio::select! {
                granted = poll_fn(|cx| sending.poll_capacity(cx)) => granted,
                () = self.cancelled.cancelled() => None,
            };
            match granted {
                Some(Ok(count)) => {
                    let piece = bytes.split_to(count.min(bytes.len()));
                    sending.send_data(piece, false)?;
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::new(Reason::SessionLost)),
            }
            *self.sending.borrow_mut() = Some(sending);
        }
        Ok(())
    }

    async fn head(&self) -> Result<js_sys::Object, Failure> {
        let Some(awaited) = self.awaited.borrow_mut().take() else {
            return Err(Failure::new(Reason::Internal));
        };
        let response = tokio::select! {
            response = awaited => response.map_err(Failure::from)?,
            () = self.cancelled.cancelled() => return Err(Failure::new(Reason::SessionLost)),
        };
        let (parts, body) = response.into_parts();
        *self.receiving.borrow_mut() = Some(body);
        self.take_cookies(&parts.headers);
        let pairs = js_sys::Array::new();
        for (name, value) in &parts.headers {
            if name != header::SET_COOKIE {
                let pair = js_sys::Array::of2(&name.as_str().into(), &latin1(value).into());
                pairs.push(&pair);
            }
        }
        let cookies = self.inner.jar.borrow().for_script(&self.path, unix_now());
        let head = js_sys::Object::new();
        for (name, value) in [
            ("status", JsValue::from(parts.status.as_u16())),
            ("headers", pairs.into()),
            ("cookies", cookies.into()),
        ] {
            // Setting a property of a fresh object cannot fail.
            drop(js_sys::Reflect::set(&head, &name.into(), &value));
        }
        Ok(head)
    }

    fn take_cookies(&self, headers: &HeaderMap) {
        let mut jar = self.inner.jar.borrow_mut();
        let changes: Vec<_> = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter_map(|value| jar.set_by_response(&self.path, &latin1(value), unix_now()))
            .collect();
        drop(jar);
        if !changes.is_empty() {
            self.inner.cookies_changed(changes);
        }
    }

    async fn next_bytes(&self) -> Result<Option<Bytes>, Failure> {
        let Some(mut receiving) = self.receiving.borrow_mut().take() else {
            return Err(Failure::new(Reason::SessionLost));
        };
        let consumed = self.unreleased.replace(0);
        receiving.flow_control().release_capacity(consumed)?;
        let next = tokio::select! {
            next = receiving.data() => next,
            () = self.cancelled.cancelled() => return Err(Failure::new(Reason::SessionLost)),
        };
        match next {
            Some(Ok(bytes)) => {
                *self.unreleased.borrow_mut() = bytes.len();
                *self.receiving.borrow_mut() = Some(receiving);
                Ok(Some(bytes))
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok(None),
        }
    }
}

/// The URI of a request: our authority is the service's label.
pub(crate) fn uri(inner: &Inner, url: &str) -> Result<Uri, Failure> {
    Uri::builder()
        .scheme("http")
        .authority(inner.service())
        .path_and_query(url)
        .build()
        .map_err(|_| Failure::new(Reason::RequestInvalid))
}

/// Adds what a browser would have added and hides from service workers.
pub(crate) fn identify(
    inner: &Inner,
    headers: &mut HeaderMap,
    url: &str,
    with_origin: bool,
) -> Result<(), header::InvalidHeaderValue> {
    let origin = HeaderValue::from_str(inner.origin())?;
    if with_origin && !headers.contains_key(header::ORIGIN) {
        headers.insert(header::ORIGIN, origin.clone());
    }
    headers.insert(ORIGIN_HEADER, origin);
    let cookies = inner.jar.borrow().for_request(url, unix_now());
    if !cookies.is_empty() {
        headers.insert(header::COOKIE, HeaderValue::from_str(&cookies)?);
    }
    Ok(())
}

/// An array of pairs as headers. What only the two ends of a connection may say is left out.
pub(crate) fn header_map(pairs: &js_sys::Array) -> Result<HeaderMap, Failure> {
    let invalid = || Failure::new(Reason::RequestInvalid);
    let mut headers = HeaderMap::new();
    for pair in pairs.iter() {
        let pair = js_sys::Array::from(&pair);
        let name = pair.get(0).as_string().ok_or_else(invalid)?;
        let value = pair.get(1).as_string().ok_or_else(invalid)?;
        let name: HeaderName = name.parse().map_err(|_| invalid())?;
        let is_ours = [
            header::HOST,
            header::COOKIE,
            header::CONNECTION,
            header::CONTENT_LENGTH,
        ]
        .contains(&name);
        if !is_ours {
            let bytes: Vec<u8> = value
                .chars()
                .map(|c| u8::try_from(u32::from(c)).map_err(|_| invalid()))
                .collect::<Result<_, _>>()?;
            let value = HeaderValue::from_bytes(&bytes).map_err(|_| invalid())?;
            headers.append(name, value);
        }
    }
    Ok(headers)
}

/// Header values are bytes; JavaScript has them as Latin-1 text.
fn latin1(value: &HeaderValue) -> String {
    value
        .as_bytes()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}
