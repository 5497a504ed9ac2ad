//! Services to open: real HTTP over real sockets, as small as a test needs, with the misbehaviour
//! that a library would not allow.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Page of the service; its title and content are what tests look for.
const PAGE: &str = r#"<!doctype html><html><head><title>The service</title></head>
<body><h1 id="hello">Hello from the service</h1><a id="next" href="/next?x=1">next</a></body></html>"#;

const NEXT: &str =
    r"<!doctype html><html><head><title>Next page</title></head><body><h1>Next</h1></body></html>";

/// A running service. Ends when dropped.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// What its connections share.
#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Vec<String>>,
    /// Lets `/held` go on.
    release: Notify,
}

impl Upstream {
    /// Starts on a free port.
    ///
    /// # Errors
    /// The system's.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1:0").await
    }

    /// Starts at an address.
    ///
    /// # Errors
    /// The system's.
    pub async fn start_at(address: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Ok(Self {
            address,
            shared,
            _tasks: tasks,
        })
    }

    /// `http://…` for `--expose`.
    #[must_use]
    pub fn target(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets a body of `/held` go on.
    pub fn release(&self) {
        self.shared.release.notify_one();
    }

    /// Request lines so far.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            // A client that goes away is no failure of the service.
            drop(serve(stream, &shared).await);
        });
    }
}

/// The head of a request.
struct Head {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut stream = BufStream::new(stream);
    while let Some(head) = read_head(&mut stream).await? {
        let line = format!("{} {}", head.method, head.path);
        shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
        if head.path.starts_with("/ws-refused") {
            stream
                .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
                .await?;
        } else if head.path.starts_with("/ws")
            && head
                .header("upgrade")
                .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        {
            return echo(stream, &head).await;
        } else if !answer(&mut stream, &head, shared).await? {
            return Ok(());
        }
        stream.flush().await?;
    }
    Ok(())
}

async fn read_head(stream: &mut BufStream<TcpStream>) -> anyhow::Result<Option<Head>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut head = Head {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        headers: Vec::new(),
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(head));
        };
        head.headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Answers one request; `false` ends the connection.
async fn answer(
    stream: &mut BufStream<TcpStream>,
    head: &Head,
    shared: &Shared,
) -> anyhow::Result<bool> {
    let path = head.path.split('?').next().unwrap_or_default();
    match (head.method.as_str(), path) {
        ("GET", "/") => page(stream, "text/html; charset=utf-8", PAGE, "").await?,
        ("GET", "/next" | "/deep/link") => {
            page(stream, "text/html; charset=utf-8", NEXT, "").await?
        }
        ("GET", "/headers") => {
            let text = serde_json::to_string(&head.headers)?;
            page(stream, "application/json", &text, "").await?;
        }
        ("GET", "/set-cookies") => {
            let cookies =
                "set-cookie: session=s3cret; HttpOnly; Path=/\r\nset-cookie: seen=1; Path=/\r\n";
            page(stream, "text/plain", "set", cookies).await?;
        }
        ("GET", "/cut") => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nonly this")
                .await?;
            stream.flush().await?;
            return Ok(false);
        }
        ("GET", "/cut-chunked") => {
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n",
                )
                .await?;
            stream.flush().await?;
            return Ok(false);
        }
        ("HEAD", "/") => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", PAGE.len());
            stream.write_all(head.as_bytes()).await?;
        }
        ("GET", "/no-content") => {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        }
        ("GET", "/own-pages-only") => {
            let own = head
                .header("referer")
                .zip(head.header("host"))
                .is_some_and(|(referer, host)| referer.starts_with(&format!("http://{host}/")));
            let text = if own {
                "a file"
            } else {
                "strangers get nothing"
            };
            page(stream, "application/octet-stream", text, "").await?;
        }
        ("GET", "/silent") => {
            // Until the client hangs up.
            stream.read_u8().await?;
        }
        ("GET", "/halting") => {
            let halts = length(&head.path);
            in_parts(stream, halts, || tokio::time::sleep(HALT)).await?;
        }
        ("GET", "/held") => in_parts(stream, 1, || shared.release.notified()).await?,
        ("GET", "/release") => {
            shared.release.notify_one();
            page(stream, "text/plain", "released", "").await?;
        }
        ("GET", "/bytes") => bytes(stream, length(&head.path)).await?,
        ("POST", "/sum") => {
            let text = sum_body(stream, head).await?;
            page(stream, "text/plain", &text, "").await?;
        }
        _ => {
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
    Ok(true)
}

async fn page(
    stream: &mut BufStream<TcpStream>,
    kind: &str,
    body: &str,
    headers: &str,
) -> anyhow::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(())
}

fn length(path: &str) -> usize {
    path.split_once("n=")
        .and_then(|(_, n)| n.parse().ok())
        .unwrap_or(0)
}

/// Byte `i` of every body here, so that both ends can check without sending anything else.
#[must_use]
pub fn byte(i: usize) -> u8 {
    u8::try_from((i.wrapping_mul(31) >> 3) % 251).unwrap_or(0)
}

async fn bytes(stream: &mut BufStream<TcpStream>, n: usize) -> anyhow::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {n}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let pattern = pattern();
    let mut left = n;
    while left > 0 {
        let piece = &pattern[..left.min(pattern.len())];
        stream.write_all(piece).await?;
        left -= piece.len();
    }
    Ok(())
}

/// A download that stops between its parts until something has happened.
async fn in_parts<F: Future<Output = ()>>(
    stream: &mut BufStream<TcpStream>,
    halts: usize,
    happened: impl Fn() -> F,
) -> anyhow::Result<()> {
    let pattern = pattern();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        pattern.len() * (halts + 1)
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&pattern).await?;
    for _halt in 0..halts {
        stream.flush().await?;
        happened().await;
        stream.write_all(&pattern).await?;
    }
    Ok(())
}

/// How long `/halting` stops: longer than browsers let an idle service worker live.
pub const HALT: Duration = Duration::from_secs(45);

/// [`byte`] repeats after so many.
const PERIOD: usize = 251 * 8;

/// The bytes of a body from any multiple of its length on: made once, so that big bodies cost the
/// service next to nothing.
#[must_use]
pub fn pattern() -> Vec<u8> {
    (0..PERIOD * 32).map(byte).collect()
}

/// Whether `bytes`, which start at `at` of a body, are what they should be.
#[must_use]
pub fn is_right(pattern: &[u8], mut at: usize, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let start = at % pattern.len();
        let length = bytes.len().min(pattern.len() - start);
        let (head, rest) = bytes.split_at(length);
        if head != &pattern[start..start + length] {
            return false;
        }
        at += length;
        bytes = rest;
    }
    true
}

/// Reads a body, whole, and tells how many bytes came in right pieces.
async fn sum_body(stream: &mut BufStream<TcpStream>, head: &Head) -> anyhow::Result<String> {
    let mut right = 0;
    let mut at = 0;
    let pattern = pattern();
    let mut check = |chunk: &[u8]| {
        if is_right(&pattern, at, chunk) {
            right += chunk.len();
        }
        at += chunk.len();
    };
    if let Some(length) = head.header("content-length") {
        let mut left: usize = length.parse()?;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = left.min(buffer.len());
            let count = stream.read(&mut buffer[..want]).await?;
            anyhow::ensure!(count > 0, "the body ended early");
            check(&buffer[..count]);
            left -= count;
        }
    } else {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let size = usize::from_str_radix(line.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            if size == 0 {
                break;
            }
            check(&chunk[..size]);
        }
    }
    Ok(format!("{right} of {at}"))
}

async fn echo(mut stream: BufStream<TcpStream>, head: &Head) -> anyhow::Result<()> {
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::Role;
    let key = head.header("sec-websocket-key").unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    let protocol = head
        .header("sec-websocket-protocol")
        .and_then(|all| all.split(',').next())
        .map(|first| format!("sec-websocket-protocol: {}\r\n", first.trim()))
        .unwrap_or_default();
    let reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n{protocol}\r\n"
    );
    stream.write_all(reply.as_bytes()).await?;
    stream.flush().await?;
    // Without the buffer: the last frame must go out although nobody flushes it. Nothing is lost, as
    // a client waits for the answer before it sends frames.
    let stream = stream.into_inner();
    let mut socket =
        tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
