//! The built-in service: a page that measures the connection that it came over.
//!
//! A real HTTP server on a loopback port of its own, so that it is proxied like any other service.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Largest download that may be asked for.
const MAX_DOWNLOAD: u64 = 1024 * 1024 * 1024;

/// Bytes made at a time.
const CHUNK: usize = 64 * 1024;

/// A demo that listens and is ready to be run.
#[derive(Debug)]
pub(crate) struct Demo {
    listener: TcpListener,
}

impl Demo {
    /// Binds a free loopback port.
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot listen on a loopback port for the demo")?;
        Ok(Self { listener })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let router = Router::new()
            .route("/", get(page))
            .route("/demo.js", get(script))
            .route("/where", get(place))
            .route("/ping", get(async || "pong"))
            .route("/bytes/{count}", get(download))
            .route("/sink", post(upload).layer(DefaultBodyLimit::disable()))
            .route("/echo", get(echo));
        axum::serve(self.listener, router)
            .with_graceful_shutdown(cancel.cancelled_owned())
            .await
            .context("the demo service failed")
    }
}

async fn page() -> Response {
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (html, include_str!("demo/index.html")).into_response()
}

async fn script() -> Response {
    let js = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (js, include_str!("demo/demo.js")).into_response()
}

/// Where the page comes from, and by which way.
async fn place(headers: HeaderMap) -> Json<serde_json::Value> {
    let path = headers.get("x-portway-path");
    let path = path.and_then(|path| path.to_str().ok()).unwrap_or_default();
    let host = crate::node::host_name();
    Json(serde_json::json!({ "host": host, "path": path }))
}

async fn download(Path(count): Path<u64>) -> Response {
    if count > MAX_DOWNLOAD {
        return (StatusCode::BAD_REQUEST, "too much").into_response();
    }
    let chunk = Bytes::from(vec![0x5a; CHUNK]);
    let body = stream::unfold(count, move |left| {
        let chunk = chunk.clone();
        async move {
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            (len > 0).then(|| {
                (
                    Ok::<_, std::io::Error>(chunk.slice(..len)),
                    left - len as u64,
                )
            })
        }
    });
    let length = [(header::CONTENT_LENGTH, count)];
    (length, Body::from_stream(body)).into_response()
}

async fn upload(body: Body) -> Result<String, StatusCode> {
    let mut count = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        count += chunk.map_err(|_| StatusCode::BAD_REQUEST)?.len();
    }
    Ok(count.to_string())
}

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(repeat)
}

async fn repeat(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let echoed = matches!(message, Message::Text(_) | Message::Binary(_));
        if echoed && socket.send(message).await.is_err() {
            return;
        }
    }
}
