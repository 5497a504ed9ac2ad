//! Sessions over a channel inside the process, real HTTP/2, real services on real sockets.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod audit;
mod limits;
mod messages;
mod one_device;
mod resumption;
mod udp;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason as H2Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use portway_gateway::Limits;
use portway_gateway::audit::Log;
use portway_gateway::grants::{Grants, Issuers};
use portway_gateway::revocations::KnownRevocations;
use portway_gateway::service::{ServiceSpec, Services, Trust};
use portway_gateway::session::table::Table;
use portway_gateway::session::{self, Audit, Context, Identity, NodeCertificate, SessionError};
use portway_protocol::id::{GrantId, Nonce, SessionId};
use portway_protocol::key::SigningKey;
use portway_protocol::lane::MaxMessage;
use portway_protocol::liveness;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::revocation::Revocations;
use portway_protocol::secret::Secret;
use portway_protocol::session::binding::{Binding, Fingerprint};
use portway_protocol::session::handshake::{self, Accepted, HandshakeError};
use portway_protocol::session::party::{self, Holder};
use portway_protocol::session::resumption::Resumption;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::token::user::{Devices, UserClaims};
use portway_tests::upstream::{Upstream, byte};
use portway_transport::Channel as _;
use portway_transport::lane::{self, Ask, CARRIERS, Carrier, EndedBy, Traffic};
use portway_transport::loopback::{self, LoopbackChannel};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const GRANT: [u8; 9] = [7; 9];

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A user token of ann, who has key 2.
fn token(grant: [u8; 9], permission: Permission) -> String {
    claims(grant, permission).issue(&key(1))
}

fn claims(grant: [u8; 9], permission: Permission) -> UserClaims {
    UserClaims {
        iss: "home".parse().unwrap(),
        aud: vec!["app".parse().unwrap()],
        sub: "ann".into(),
        services: vec![permission],
        iat: unix_now(),
        exp: unix_now() + 3600,
        jti: GrantId::from_bytes(grant),
        cnf: Confirmation {
            ed25519: key(2).public(),
        },
        devices: Devices::Any,
    }
}

/// Loopback channels have no certificates: both ends agree on these.
const BINDING: Binding = Binding {
    client: Fingerprint::from_bytes([1; 32]),
    gateway: Fingerprint::from_bytes([2; 32]),
};

fn identity() -> Identity {
    let node_key = key(3);
    let claims = MachineClaims {
        iss: "home".parse().unwrap(),
        aud: "home".parse().unwrap(),
        sub: "nas".parse().unwrap(),
        node_id: "nas".parse().unwrap(),
        cluster_id: "home".parse().unwrap(),
        iat: unix_now(),
        exp: unix_now() + 3600,
        jti: "1".into(),
        cnf: Confirmation {
            ed25519: node_key.public(),
        },
        revoked_by: RevokedBy::Nothing,
    };
    Identity {
        cluster: "home".parse().unwrap(),
        node: "nas".parse().unwrap(),
        certificate: RwLock::new(Arc::new(NodeCertificate {
            token: claims.issue(&key(1)),
            rotations: Vec::new(),
        })),
        key: node_key,
    }
}

/// A node that offers one service, `app`.
struct Node {
    context: Arc<Context>,
    tasks: JoinSet<Result<(), SessionError>>,
    state: TempDir,
}

impl Node {
    /// One grant with this permission leads to `target`, whose certificate is trusted so.
    fn new(target: &str, trust: Trust, permission: Permission, limits: Limits) -> Self {
        let state = tempfile::tempdir().unwrap();
        let grants = Grants::open(
            &state.path().join("grants.json"),
            "home".parse().unwrap(),
            Issuers::new([key(1).public()], &[]),
            unix_now(),
        )
        .unwrap();
        grants.add(token(GRANT, permission), unix_now()).unwrap();
        let services = Services::new(limits);
        services
            .add(ServiceSpec {
                name: "app".parse().unwrap(),
                target: target.parse().unwrap(),
                trust,
            })
            .unwrap();
        let log = Log::open(state.path(), "nas".parse().unwrap(), key(3)).unwrap();
        let audit = Audit::new(log);
        Self {
            context: Arc::new(Context {
                shortcut: None,
                stream_relays: Arc::default(),
                identity: identity(),
                services,
                grants,
                table: Table::default(),
                audit,
                revocations: KnownRevocations::new("home".parse().unwrap(), key(1).public()),
                suspicion: tokio::sync::watch::Sender::default(),
                tasks: TaskTracker::new(),
                draining: CancellationToken::new(),
            }),
            tasks: JoinSet::new(),
            state,
        }
    }

    fn grants_file(&self) -> std::path::PathBuf {
        self.state.path().join("grants.json")
    }

    fn everything(target: &str) -> Self {
        Self::trusting(target, Trust::System)
    }

    fn granting(target: &str, permission: Permission) -> Self {
        Self::new(target, Trust::System, permission, Limits::default())
    }

    fn trusting(target: &str, trust: Trust) -> Self {
        let everything = Permission::all("app".parse().unwrap());
        Self::new(target, trust, everything, Limits::default())
    }

    fn limited(target: &str, limits: Limits) -> Self {
        let everything = Permission::all("app".parse().unwrap());
        Self::new(target, Trust::System, everything, limits)
    }

    /// The client's end of a new channel.
    fn channel(&mut self) -> LoopbackChannel {
        let (near, far) = loopback::pair();
        let context = self.context.clone();
        self.tasks.spawn(async move {
            let arrival = session::admit(&context, Arc::new(far), BINDING, None).await?;
            arrival.serve(&context, |_flows| async {}).await;
            Ok(())
        });
        near
    }

    async fn open(&mut self) -> Client {
        let channel = self.channel();
        shake_hands(&channel, "app", &key(2)).await.unwrap();
        Client::over(channel).await
    }
}

/// The one that a client is on.
fn device() -> SigningKey {
    key(20)
}

async fn shake_hands(
    channel: &LoopbackChannel,
    service: &str,
    key: &SigningKey,
) -> Result<Resumption, HandshakeError> {
    let visit = Visit {
        service,
        key,
        grant: GRANT,
        device: device(),
        resumption: None,
    };
    let (session, accepted) = visit.shake_hands(channel).await?;
    assert_eq!(accepted.max_message, MaxMessage::Native);
    Ok(Resumption {
        session,
        key: accepted.resumption,
    })
}

/// What a client says of itself.
struct Visit<'a> {
    service: &'a str,
    key: &'a SigningKey,
    grant: [u8; 9],
    device: SigningKey,
    resumption: Option<Resumption>,
}

impl Visit<'_> {
    async fn shake_hands(
        self,
        channel: &LoopbackChannel,
    ) -> Result<(SessionId, Accepted), HandshakeError> {
        static VISITS: AtomicU8 = AtomicU8::new(0);
        let session = SessionId::from_bytes([VISITS.fetch_add(1, Ordering::Relaxed); 16]);
        let (hello, mut state) = handshake::start(
            session,
            "home".parse().unwrap(),
            self.service.parse().unwrap(),
            Nonce::from_bytes([4; Nonce::LEN]),
        );
        if let Some(resumption) = self.resumption {
            state = state.resuming(resumption);
        }
        channel.send(hello.into()).await.unwrap();
        let reply = channel.recv().await.unwrap();
        let grant = GrantId::from_bytes(self.grant);
        let revocations = Revocations::new("home".parse().unwrap(), key(1).public());
        let trust = party::Trust {
            revocations: &revocations,
            node: None,
            pinned: None,
            cluster_key: key(1).public(),
            binding: BINDING,
            now: unix_now(),
        };
        let holder = Holder {
            grant,
            token: None,
            key: self.key,
            device: self.device.public(),
        };
        let state = state.receive(&reply, &trust, holder)?;
        let by_device = self.device.sign(state.to_sign());
        let (proof, state) = state.signed(by_device);
        channel.send(proof.into()).await.unwrap();
        let verdict = channel.recv().await.unwrap();
        let (_node, accepted) = state.receive(&verdict)?;
        Ok((session, accepted))
    }
}

/// An HTTP/2 client over a lane.
struct Client {
    requests: SendRequest<Bytes>,
    /// Ends with the session.
    lane: JoinSet<Result<(), EndedBy>>,
    asks: mpsc::Sender<Ask>,
    _http: JoinSet<()>,
}

impl Client {
    /// It ends with its channel.
    async fn over(channel: LoopbackChannel) -> Self {
        Self::start(channel, None).await
    }

    /// Goes on over what is sent to the other thing that is returned.
    async fn lasting(channel: LoopbackChannel) -> (Self, mpsc::Sender<Carrier>) {
        let (carriers, next_carriers) = mpsc::channel(CARRIERS);
        (Self::start(channel, Some(next_carriers)).await, carriers)
    }

    async fn start(channel: LoopbackChannel, carriers: Option<mpsc::Receiver<Carrier>>) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (asks, asked) = mpsc::channel(1);
        let mut lane = JoinSet::new();
        lane.spawn(async move {
            let terms = lane::Terms {
                traffic: &Traffic::default(),
                patience: liveness::CLIENT,
                max_message: MaxMessage::default(),
                asks: Some(asked),
                news: None,
                carriers,
            };
            lane::run(carrier(channel), far, terms).await
        });
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        let mut http = JoinSet::new();
        http.spawn(async move { drop(connection.await) });
        // The server's settings tell that extended CONNECT may be used.
        let requests = requests.ready().await.unwrap();
        Self {
            requests,
            lane,
            asks,
            _http: http,
        }
    }

    /// Says goodbye.
    async fn leave(&self) {
        let leave = Ask::Leave(Reason::SessionLost);
        self.asks.send(leave).await.unwrap();
    }

    /// A request without a body.
    async fn get(&self, path: &str) -> Result<Response<RecvStream>, h2::Error> {
        self.send(request(Method::GET, path)).await
    }

    async fn send(&self, request: Request<()>) -> Result<Response<RecvStream>, h2::Error> {
        let requests = self.requests.clone().ready().await?;
        let (response, _stream) = { requests }.send_request(request, true)?;
        response.await
    }
}

fn carrier(channel: LoopbackChannel) -> Carrier {
    Carrier::new(Arc::new(channel)).0
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://app{path}"))
        .body(())
        .unwrap()
}

/// The whole body, or why it did not come whole.
async fn body(response: Response<RecvStream>) -> Result<Vec<u8>, h2::Error> {
    rest(response.into_body()).await
}

/// What is left of a body.
async fn rest(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn reason(response: &Response<RecvStream>) -> &str {
    response.headers()["portway-reason"].to_str().unwrap()
}

#[tokio::test]
async fn bodies_pass_whole_in_both_directions() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut client = node.open().await;
    let length = 3_000_000;
    let response = client.get(&format!("/bytes?n={length}")).await.unwrap();
    let right: Vec<u8> = (0..length).map(byte).collect();
    assert!(body(response).await.unwrap() == right);

    let (response, mut stream) = client
        .requests
        .send_request(request(Method::POST, "/sum"), false)
        .unwrap();
    stream.send_data(right.into(), true).unwrap();
    let answer = body(response.await.unwrap()).await.unwrap();
    assert_eq!(answer, format!("{length} of {length}").into_bytes());
}

#[tokio::test]
async fn an_absent_body_has_a_length() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    let response = client.send(request(Method::POST, "/sum")).await.unwrap();
    assert_eq!(body(response).await.unwrap(), b"0 of 0");
}

#[tokio::test]
async fn a_body_cut_short_by_the_service_is_an_error() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    for path in ["/cut", "/cut-chunked"] {
        let response = client.get(path).await.unwrap();
        assert!(body(response).await.is_err(), "{path}");
    }
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "the session goes on");
}

#[tokio::test]
async fn a_service_that_is_down_is_a_502_with_a_reason() {
    let upstream = Upstream::start().await.unwrap();
    let target = upstream.target();
    drop(upstream);
    let mut node = Node::everything(&target);
    let client = node.open().await;
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(reason(&response), "UPSTREAM_REFUSED");
}

/// Takes as long as the named limit, `proxy::http::RESPONSE_TIMEOUT`.
#[tokio::test]
async fn a_service_that_never_answers_is_a_504_with_a_reason() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    let response = client.get("/silent").await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(reason(&response), "UPSTREAM_TIMEOUT");
}

#[tokio::test]
async fn a_header_bomb_harms_only_itself() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    let mut bomb = request(Method::GET, "/headers");
    for i in 0..100 {
        let name: http::HeaderName = format!("x-bomb-{i}").parse().unwrap();
        let value = "x".repeat(1024).parse().unwrap();
        bomb.headers_mut().insert(name, value);
    }
    match client.send(bomb).await {
        Ok(response) => assert!(response.status().is_client_error()),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.requests(), ["GET /"], "the bomb did not pass");
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_no_second_request() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut client = node.open().await;
    let mut lying = request(Method::POST, "/sum");
    lying
        .headers_mut()
        .insert("content-length", "5".parse().unwrap());
    let (response, mut stream) = client.requests.send_request(lying, false).unwrap();
    let smuggled = Bytes::from_static(b"xxxxxGET /admin HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.send_data(smuggled, true).unwrap();
    match response.await {
        Ok(response) => assert!(!response.status().is_success()),
        Err(error) => assert_eq!(error.reason(), Some(H2Reason::PROTOCOL_ERROR)),
    }
    let passed = upstream.requests();
    assert!(!passed.contains(&"GET /admin".to_owned()), "{passed:?}");
}

#[tokio::test]
async fn strange_paths_pass_as_they_are() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    for path in ["/%FF%00", "/a/../b", "/%0d%0aX-Evil:%201", "/?q=%ff;'\"{}"] {
        if path.parse::<http::Uri>().is_err() {
            continue;
        }
        let response = client.get(path).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(upstream.requests().pop().unwrap(), format!("GET {path}"));
    }
}

#[tokio::test]
async fn a_permission_is_kept() {
    let upstream = Upstream::start().await.unwrap();
    let permission = Permission {
        name: "app".parse().unwrap(),
        methods: Some(vec!["GET".into()]),
        paths: Some(vec!["/next".into()]),
    };
    let mut node = Node::granting(&upstream.target(), permission);
    let client = node.open().await;
    for (method, path) in [
        (Method::POST, "/next"),
        (Method::GET, "/"),
        (Method::GET, "/next/../headers"),
    ] {
        let response = client.send(request(method, path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{path}");
        assert_eq!(reason(&response), "PERMISSION_DENIED");
    }
    let response = client.get("/next?x=1").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.requests(), ["GET /next?x=1"]);
}

/// Answers one request.
async fn greet(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut stream = BufStream::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return;
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    stream.write_all(answer).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { greet(listener.accept().await.unwrap().0).await });
    let mut node = Node::everything(&format!("unix:{}", path.display()));
    let client = node.open().await;
    let response = client.get("/").await.unwrap();
    assert_eq!(body(response).await.unwrap(), b"hello");
}

/// A device with a certificate that it made itself: refused, unless that is its authority, or any
/// certificate will do.
#[tokio::test]
async fn a_certificate_is_trusted_as_configured() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, own.cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.cert.der().clone()],
            PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                greet(stream).await;
            }
        }
    });

    let mut node = Node::everything(&target);
    let client = node.open().await;
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(reason(&response), "UPSTREAM_CERTIFICATE");
    for trust in [Trust::Authority(authority), Trust::Any] {
        let mut node = Node::trusting(&target, trust.clone());
        let client = node.open().await;
        let response = client.get("/").await.unwrap();
        assert_eq!(body(response).await.unwrap(), b"hello", "{trust:?}");
    }
}

#[tokio::test]
async fn a_revoked_grant_ends_its_session() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut client = node.open().await;
    // More than all windows take: it is under way, and nobody reads.
    let response = client.get("/bytes?n=50000000").await.unwrap();
    assert_eq!(node.context.table.views().len(), 1);
    let id = GrantId::from_bytes(GRANT);
    assert!(node.context.grants.revoke(&id).unwrap());
    let ended = client.lane.join_next().await.unwrap().unwrap();
    assert!(
        matches!(ended, Err(EndedBy::Bye(Reason::GrantUnknown))),
        "it was told why: {ended:?}"
    );
    node.tasks.join_next().await.unwrap().unwrap().unwrap();
    assert!(body(response).await.is_err(), "it was cut");
    node.context.tasks.close();
    node.context.tasks.wait().await;
    assert!(node.context.table.views().is_empty());
}

#[tokio::test]
async fn who_cannot_prove_gets_a_reason_and_nothing_else() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    for (service, key, expected) in [
        ("app", key(9), Reason::ProofInvalid),
        ("other", key(2), Reason::PermissionDenied),
    ] {
        let channel = node.channel();
        let refused = shake_hands(&channel, service, &key).await.unwrap_err();
        assert!(
            matches!(refused, HandshakeError::Refused { reason, .. } if reason == expected),
            "{refused}"
        );
        channel.close().await;
        let outcome = node.tasks.join_next().await.unwrap().unwrap();
        assert!(matches!(outcome, Err(SessionError::Refused(reason)) if reason == expected));
    }
    assert!(node.context.table.views().is_empty());
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_all_answered_rightly() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    let mut answers = JoinSet::new();
    for n in 0..100_usize {
        let requests = client.requests.clone();
        answers.spawn(async move {
            let mut requests = requests.ready().await.unwrap();
            let request = request(Method::GET, &format!("/bytes?n={n}"));
            let (response, _stream) = requests.send_request(request, true).unwrap();
            let bytes = body(response.await.unwrap()).await.unwrap();
            assert_eq!(bytes, (0..n).map(byte).collect::<Vec<u8>>());
        });
    }
    while let Some(answer) = answers.join_next().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn head_and_no_content_have_no_body() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    let head = client.send(request(Method::HEAD, "/")).await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert!(head.headers().contains_key("content-length"));
    assert!(body(head).await.unwrap().is_empty());
    let none = client.get("/no-content").await.unwrap();
    assert_eq!(none.status(), StatusCode::NO_CONTENT);
    assert!(body(none).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_websocket_is_opened_by_extended_connect() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let mut client = node.open().await;
    let mut connect = request(Method::CONNECT, "/ws?x=1");
    connect
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    connect
        .headers_mut()
        .insert("sec-websocket-protocol", "chat, other".parse().unwrap());
    let (response, mut outgoing) = client.requests.send_request(connect, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    // A masked text frame of RFC 6455 §5.7; its echo comes unmasked.
    let hello = Bytes::from_static(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    outgoing.send_data(hello, false).unwrap();
    let mut incoming = response.into_body();
    let mut echo = Vec::new();
    while echo.len() < 7 {
        echo.extend_from_slice(&incoming.data().await.unwrap().unwrap());
    }
    assert_eq!(echo, b"\x81\x05Hello");
    assert_eq!(upstream.requests(), ["GET /ws?x=1"]);
}

#[tokio::test]
async fn a_websocket_that_the_service_refuses_is_refused_with_its_words() {
    let upstream = Upstream::start().await.unwrap();
    let mut node = Node::everything(&upstream.target());
    let client = node.open().await;
    for (path, status) in [("/ws-refused", 403), ("/next", 502)] {
        let mut connect = request(Method::CONNECT, path);
        connect
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let mut requests = client.requests.clone().ready().await.unwrap();
        let (response, _outgoing) = requests.send_request(connect, false).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{path}");
    }
}
