//! A running signaling service, met over real sockets by gateways, clients and strangers.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "in a test, a panic is the report"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use portway_protocol::id::{GrantId, Nonce, SessionId, encode};
use portway_protocol::key::SigningKey;
use portway_protocol::limits::{MAX_SIGNAL_MESSAGE, SIGNAL_AUTH_TIMEOUT};
use portway_protocol::revocation::RevocationList;
use portway_protocol::secret::Secret;
use portway_protocol::signal::news::NodeEvent;
use portway_protocol::signal::{IceServer, NodeStatus};
use portway_protocol::stun;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::transcript::sign_challenge;
use portway_signaling::config::Stun;
use portway_signaling::relay::{Issuer, Lease};
use portway_signaling::server::SignalingHandle;
use portway_signaling::store::{ClientEvent, Event, Sqlite};
use portway_signaling::{Assets, Config, Signaling};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

const GRANT: [u8; 9] = [7; 9];
/// A signature, which only the two ends look at.
const PROOF: &str =
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ";

const SESSION: &str = "AwMDAwMDAwMDAwMDAwMDAw";

/// Longest wait for something that may not come.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A service of the cluster `home` on a free port. Ends when dropped.
struct Server {
    address: SocketAddr,
    signaling: SignalingHandle,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(Sqlite::in_memory().unwrap()).await
    }

    async fn start_with(store: Sqlite) -> Self {
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            cluster: "home".parse().unwrap(),
            cluster_keys: vec![key(1).public()],
            domain: "localhost".into(),
            tls: None,
            ice_servers: Vec::new(),
            stun: Stun::Own,
            version: "test".into(),
        };
        let files: &[(&'static str, &'static [u8])] = &[
            (
                "wrapper.html",
                b"<meta name=\"portway-service\" content=\"\">",
            ),
            ("sw.js", b"// worker"),
            ("sw.js.br", b"smallest"),
            ("sw.js.gz", b"smaller"),
            ("style.css", b"body {}"),
            ("style.css.gz", b"smaller"),
        ];
        let signaling = Signaling::bind(config, Assets::new(files, "hash"), Box::new(store))
            .await
            .unwrap();
        let address = signaling.local_addr().unwrap();
        let handle = signaling.handle();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(signaling.run(stop.clone()));
        Self {
            address,
            signaling: handle,
            stop,
            tasks,
        }
    }

    /// Ends as it does on a signal.
    async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
    }

    /// A socket, and the nonce that it must sign.
    async fn socket(&self) -> (Socket, Nonce) {
        let host = format!("conn.home.localhost:{}", self.address.port());
        let mut request = format!("ws://{host}/_portway/signal")
            .into_client_request()
            .unwrap();
        let protocol = "portway.signal.v1".parse().unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap();
        let mut socket = Socket(socket);
        let challenge = socket.next().await;
        assert_eq!(challenge["method"], "challenge");
        let nonce = serde_json::from_value(challenge["params"]["nonce"].clone()).unwrap();
        (socket, nonce)
    }

    /// A gateway of the node `nas` that offers `lab` to the holder of the grant.
    async fn gateway(&self, epoch: u64) -> Socket {
        self.node("nas", announcement(epoch)).await
    }

    /// A gateway of a node, and what it announces.
    async fn node(&self, name: &str, announcement: Value) -> Socket {
        let (mut socket, nonce) = self.socket().await;
        let credentials = node_credentials(name, &nonce, unix_now() + 3600);
        socket.request("authenticate", credentials).await;
        socket.next_result().await;
        socket.request("announce", announcement).await;
        socket.next_result().await;
        socket
    }

    async fn client(&self) -> Socket {
        let (mut socket, nonce) = self.socket().await;
        socket
            .request("authenticate", client_credentials(&nonce, &key(2)))
            .await;
        socket.next_result().await;
        socket
    }

    /// Status line and the rest of the answer to a plain request.
    async fn http(&self, head: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.to_ascii_lowercase())
    }

    fn host(&self, label: &str) -> String {
        format!("host: {label}home.localhost:{}", self.address.port())
    }
}

fn gateway_credentials(nonce: &Nonce, expires: u64) -> Value {
    node_credentials("nas", nonce, expires)
}

fn node_credentials(name: &str, nonce: &Nonce, expires: u64) -> Value {
    let cluster = "home".parse().unwrap();
    let claims = MachineClaims {
        iss: "home".parse().unwrap(),
        aud: "home".parse().unwrap(),
        sub: name.parse().unwrap(),
        node_id: name.parse().unwrap(),
        cluster_id: "home".parse().unwrap(),
        iat: expires - 7200,
        exp: expires,
        jti: "x".into(),
        cnf: Confirmation {
            ed25519: key(3).public(),
        },
        revoked_by: RevokedBy::Nothing,
    };
    json!({
        "role": "gateway",
        "token": claims.issue(&key(1)),
        "proof": sign_challenge(&key(3), nonce, &cluster),
    })
}

fn client_credentials(nonce: &Nonce, key: &SigningKey) -> Value {
    let cluster = "home".parse().unwrap();
    json!({
        "role": "client",
        "cluster": "home",
        "grant": GrantId::from_bytes(GRANT),
        "session": SESSION,
        "proof": sign_challenge(key, nonce, &cluster),
    })
}

fn announcement(epoch: u64) -> Value {
    json!({
        "epoch": epoch, "status": "online", "version": "1", "commit": "c",
        "services": [{"name": "lab", "health": "healthy"}],
        "grants": [{
            "id": GrantId::from_bytes(GRANT), "key": key(2).public(),
            "services": ["lab"], "expires": unix_now() + 3600,
        }],
    })
}

fn offer() -> Value {
    json!({
        "session": SESSION, "service": "lab",
        "description": {"type": "offer", "sdp": "v=0"},
        "proof": PROOF,
    })
}

/// A JSON-RPC peer.
struct Socket(tokio_tungstenite::WebSocketStream<TcpStream>);

impl Socket {
    async fn send(&mut self, message: &Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    async fn request(&mut self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "id": method, "method": method, "params": params});
        self.send(&message).await;
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
            .await;
    }

    async fn next(&mut self) -> Value {
        match self.0.next().await.unwrap().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    async fn next_result(&mut self) -> Value {
        let reply = self.next().await;
        assert!(reply["error"].is_null(), "{reply}");
        reply["result"].clone()
    }

    async fn next_reason(&mut self) -> String {
        let reply = self.next().await;
        let reason = reply["error"]["data"]["reason"].as_str();
        reason.unwrap_or_else(|| panic!("no error: {reply}")).into()
    }

    /// Code and reason of the close that comes before anything else but errors.
    async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Close(Some(frame)) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert!(message["result"].is_null(), "{message}");
                }
                other => panic!("expected a close, got {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn two_ends_are_introduced() {
    let server = Server::start().await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;

    client.request("offer", offer()).await;
    let offered = gateway.next().await;
    assert_eq!(offered["method"], "offer");
    assert_eq!(
        offered["params"]["grant"],
        json!(GrantId::from_bytes(GRANT))
    );
    gateway
        .send(&json!({"jsonrpc": "2.0", "id": offered["id"], "result": {}}))
        .await;
    assert_eq!(client.next_result().await, json!({"node": "nas"}));

    let description = json!({"type": "answer", "sdp": "v=0"});
    gateway
        .notify(
            "answer",
            json!({
                "session": SESSION,
                "description": description,
                "node": "nas",
                "certificate": "x.y.z",
                "proof": PROOF,
            }),
        )
        .await;
    let answer = client.next().await;
    assert_eq!(answer["method"], "answer");
    assert_eq!(answer["params"]["description"], description);
    assert_eq!(answer["params"]["certificate"], "x.y.z");
    assert_eq!(answer["params"]["proof"], PROOF);

    let candidate = json!({"session": SESSION, "candidate": {"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0}});
    client.notify("candidate", candidate.clone()).await;
    assert_eq!(gateway.next().await["params"], candidate);
    gateway.notify("candidate", candidate.clone()).await;
    assert_eq!(client.next().await["params"], candidate);

    client
        .notify("bye", json!({"session": SESSION, "reason": "SESSION_LOST"}))
        .await;
    assert_eq!(gateway.next().await["method"], "bye");
}

/// A relay by every transport.
struct Everywhere;

impl Issuer for Everywhere {
    fn issue(&self, lease: &Lease) -> Vec<IceServer> {
        let urls = [
            "turn:r.test?transport=udp",
            "turn:r.test?transport=tcp",
            "turns:r.test",
        ];
        vec![IceServer {
            urls: urls.map(str::to_owned).to_vec(),
            username: Some(lease.session.to_string()),
            credential: Some("secret".into()),
        }]
    }
}

#[tokio::test]
async fn a_node_gets_the_clients_relays_for_networks_without_udp() {
    let server = Server::start().await;
    server.signaling.offer_relays(vec![Arc::new(Everywhere)]);
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;

    client.request("offer", offer()).await;
    let offered = gateway.next().await;
    let servers = offered["params"]["ice_servers"].as_array().unwrap();
    let relay = servers.iter().find(|server| server["username"] == SESSION);
    assert_eq!(
        relay.unwrap()["urls"],
        json!(["turn:r.test?transport=tcp", "turns:r.test"])
    );
}

#[tokio::test]
async fn a_gateway_s_refusal_reaches_the_client() {
    let server = Server::start().await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;
    client.request("offer", offer()).await;
    let offered = gateway.next().await;
    let error = json!({"code": -32000, "message": "Later.", "data": {"reason": "RATE_LIMITED"}});
    gateway
        .send(&json!({"jsonrpc": "2.0", "id": offered["id"], "error": error}))
        .await;
    assert_eq!(client.next_reason().await, "RATE_LIMITED");
}

#[tokio::test]
async fn a_link_leads_to_the_node_that_knows_it() {
    let server = Server::start().await;
    let mut nodes = Vec::new();
    for (i, name) in (1_u8..).zip(["attic", "nas"]) {
        let mut announced = announcement(1);
        announced["grants"][0]["id"] = json!(GrantId::from_bytes([i; GrantId::LEN]));
        nodes.push((i, name, server.node(name, announced).await));
    }
    for (i, name, node) in &mut nodes {
        let session = json!(SessionId::from_bytes([*i; SessionId::LEN]));
        let (mut client, nonce) = server.socket().await;
        let mut credentials = client_credentials(&nonce, &key(2));
        credentials["grant"] = json!(GrantId::from_bytes([*i; GrantId::LEN]));
        credentials["session"] = session.clone();
        client.request("authenticate", credentials).await;
        client.next_result().await;
        let mut offer = offer();
        offer["session"] = session;
        client.request("offer", offer).await;
        let answering = async {
            let offered = node.next().await;
            node.send(&json!({"jsonrpc": "2.0", "id": offered["id"], "result": {}}))
                .await;
            client.next_result().await
        };
        let answered = tokio::time::timeout(PATIENCE, answering).await;
        assert_eq!(answered.expect("it was asked")["node"], *name);
    }
}

/// Whoever had a session with a node that is gone should know whether to wait for it.
#[tokio::test]
async fn who_wants_a_node_that_is_away_learns_whether_another_serves() {
    let server = Server::start().await;
    let nas = server.node("nas", announcement(1)).await;
    let mut attic = server.node("attic", announcement(1)).await;
    attic.request("watch", json!({"interest": "changes"})).await;
    attic.next_result().await;
    let mut wanted = offer();
    wanted["node"] = json!("nas");
    let mut client = server.client().await;
    drop(nas);
    while attic.next().await["params"]["event"] != "node_offline" {}
    client.request("offer", wanted.clone()).await;
    assert_eq!(client.next_reason().await, "SERVED_ELSEWHERE");
    let mut announced = announcement(1);
    announced["services"] = json!([]);
    attic.request("announce", announced).await;
    assert_eq!(client.next().await["params"]["status"], "offline");
    client.request("offer", wanted).await;
    assert_eq!(client.next_reason().await, "NODE_OFFLINE");
}

#[tokio::test]
async fn watchers_learn_that_a_node_left_and_came_back() {
    let server = Server::start().await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;
    client.request("offer", offer()).await;
    gateway.next().await;
    drop(gateway);
    let mut news = [client.next().await, client.next().await];
    news.sort_by_key(|message| message["method"].is_null());
    assert_eq!(news[0]["params"]["status"], "offline");
    assert_eq!(news[1]["error"]["data"]["reason"], "NODE_OFFLINE");
    let _gateway = server.gateway(2).await;
    assert_eq!(client.next().await["params"]["status"], "online");
}

#[tokio::test]
async fn the_later_process_of_a_node_wins() {
    let server = Server::start().await;
    let mut old = server.gateway(5).await;
    let _new = server.gateway(6).await;
    assert_eq!(old.closed().await.1, "REPLACED");

    let (mut late, nonce) = server.socket().await;
    late.request(
        "authenticate",
        gateway_credentials(&nonce, unix_now() + 3600),
    )
    .await;
    late.next_result().await;
    late.request("announce", announcement(5)).await;
    assert_eq!(late.next_reason().await, "REPLACED");
}

/// The same announcement, with a list of revoked nodes.
fn announcement_with(list: &RevocationList) -> Value {
    let mut announcement = announcement(1);
    announcement["revocations"] = json!(list);
    announcement
}

fn list(by: u8, serial: u64, node: u8) -> RevocationList {
    let cluster = "home".parse().unwrap();
    let ends = (serial, unix_now() + 3600);
    let nodes = vec![key(node).public().id()];
    RevocationList::sign(&cluster, (&key(by), &[]), ends, nodes)
}

#[tokio::test]
async fn a_revoked_node_is_shut_out_and_everybody_hears_of_it() {
    let server = Server::start().await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;
    // The first is not the cluster's: nobody hears of it.
    let of_others = list(3, 1, 9);
    for list in [&of_others, &list(1, 1, 9)] {
        let announcement = announcement_with(list);
        gateway.request("announce", announcement).await;
        gateway.next_result().await;
    }
    for socket in [&mut gateway, &mut client] {
        let heard = socket.next().await;
        assert_eq!(heard["method"], "revocations");
        assert_eq!(heard["params"], json!(list(1, 1, 9)));
    }
    let (mut newcomer, nonce) = server.socket().await;
    let credentials = client_credentials(&nonce, &key(2));
    newcomer.request("authenticate", credentials).await;
    let known = newcomer.next_result().await["revocations"].clone();
    assert_eq!(known, json!(list(1, 1, 9)));

    let another = announcement_with(&list(1, 2, 3));
    gateway.request("announce", another).await;
    gateway.next_result().await;
    assert_eq!(gateway.next().await["method"], "revocations");
    assert_eq!(gateway.closed().await.1, "NODE_REVOKED");
    assert_eq!(client.next().await["params"]["serial"], 2);
    let (mut again, nonce) = server.socket().await;
    let credentials = gateway_credentials(&nonce, unix_now() + 3600);
    again.request("authenticate", credentials).await;
    assert_eq!(again.next_reason().await, "NODE_REVOKED");
    assert!(server.signaling.nodes().is_empty(), "it is not remembered");
}

/// After a cut its old socket may still seem open: whoever waits for an answer there need not.
#[tokio::test]
async fn what_a_node_s_old_socket_was_asked_is_refused_when_it_has_another() {
    let server = Server::start().await;
    let _cut_off = server.gateway(5).await;
    let mut client = server.client().await;
    client.request("offer", offer()).await;
    let _back = server.gateway(5).await;
    assert_eq!(client.next_reason().await, "NODE_OFFLINE");
    assert_eq!(client.next().await["params"]["status"], "online");
}

#[tokio::test]
async fn strangers_are_turned_away_with_a_reason() {
    let server = Server::start().await;
    let (mut early, nonce) = server.socket().await;
    early
        .request("authenticate", client_credentials(&nonce, &key(2)))
        .await;
    assert_eq!(early.closed().await, (1008, "NODE_OFFLINE".into()));

    let _gateway = server.gateway(1).await;
    let (mut wrong, nonce) = server.socket().await;
    wrong
        .request("authenticate", client_credentials(&nonce, &key(9)))
        .await;
    assert_eq!(wrong.closed().await, (1008, "PROOF_INVALID".into()));

    let (mut replayed, _other_nonce) = server.socket().await;
    replayed
        .request("authenticate", client_credentials(&nonce, &key(2)))
        .await;
    assert_eq!(replayed.closed().await, (1008, "PROOF_INVALID".into()));

    let (mut expired, nonce) = server.socket().await;
    expired
        .request("authenticate", gateway_credentials(&nonce, unix_now() - 60))
        .await;
    assert_eq!(expired.closed().await, (1008, "TOKEN_EXPIRED".into()));

    let (mut mute, _nonce) = server.socket().await;
    let closed = tokio::time::timeout(SIGNAL_AUTH_TIMEOUT * 3, mute.closed());
    assert_eq!(closed.await.unwrap(), (1008, "SIGNALING_REFUSED".into()));
}

/// A token whose header and claims are ours but for what is given, signed by this key.
fn forged(header: &Value, claims: &Value, signer: &SigningKey) -> String {
    let kid = key(1).public().id().as_str().to_owned();
    let mut whole_header = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
    let mut whole_claims = json!({
        "iss": "home", "aud": "home", "sub": "nas", "node_id": "nas", "cluster_id": "home", "jti": "x",
        "iat": unix_now() - 60, "exp": unix_now() + 60, "cnf": {"ed25519": key(3).public()},
    });
    for (whole, part) in [(&mut whole_header, header), (&mut whole_claims, claims)] {
        let whole = whole.as_object_mut().unwrap();
        whole.extend(part.as_object().unwrap().clone());
    }
    let [header, claims] =
        [whole_header, whole_claims].map(|part| encode(part.to_string().as_bytes()));
    let signed = format!("{header}.{claims}");
    let signature = signer.sign(signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_bytes()))
}

/// The whole table of attacks is in `protocol/tests/tokens.rs`; here is that signaling asks that verifier.
#[tokio::test]
async fn a_forged_machine_token_is_refused_and_leads_nowhere() {
    let server = Server::start().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", elsewhere.local_addr().unwrap());
    let none = json!({});
    let user =
        json!({"aud": ["lab"], "services": [{"name": "lab"}], "jti": GrantId::from_bytes(GRANT)});
    let past = json!({"exp": unix_now() - 60});
    let future = json!({"iat": unix_now() + 60});
    let jwk = json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": key(9).public()}});
    let rows = [
        (
            "alg none",
            json!({"alg": "none"}),
            &none,
            1,
            "TOKEN_INVALID",
        ),
        ("HS256", json!({"alg": "HS256"}), &none, 1, "TOKEN_INVALID"),
        ("jku", json!({"jku": url}), &none, 1, "TOKEN_INVALID"),
        (
            "jku, another key",
            json!({"jku": url, "kid": "x"}),
            &none,
            9,
            "TOKEN_INVALID",
        ),
        ("x5u", json!({"x5u": url}), &none, 1, "TOKEN_INVALID"),
        (
            "kid is a URL",
            json!({"kid": url}),
            &none,
            9,
            "TOKEN_INVALID",
        ),
        (
            "kid is a path",
            json!({"kid": "../../dev/null"}),
            &none,
            1,
            "TOKEN_INVALID",
        ),
        ("jwk", jwk, &none, 9, "TOKEN_INVALID"),
        ("crit", json!({"crit": ["exp"]}), &none, 1, "TOKEN_INVALID"),
        ("another key", none.clone(), &none, 9, "TOKEN_INVALID"),
        (
            "another cluster",
            none.clone(),
            &json!({"iss": "office"}),
            1,
            "TOKEN_INVALID",
        ),
        (
            "another audience",
            none.clone(),
            &json!({"aud": "office"}),
            1,
            "TOKEN_INVALID",
        ),
        ("a user token", none.clone(), &user, 1, "TOKEN_INVALID"),
        ("expired", none.clone(), &past, 1, "TOKEN_EXPIRED"),
        ("from the future", none.clone(), &future, 1, "TOKEN_INVALID"),
        (
            "another node key",
            none.clone(),
            &json!({"cnf": {"ed25519": key(8).public()}}),
            1,
            "PROOF_INVALID",
        ),
    ];
    let authenticate = async |token: String| {
        let (mut socket, nonce) = server.socket().await;
        let proof = sign_challenge(&key(3), &nonce, &"home".parse().unwrap());
        let credentials = json!({"role": "gateway", "token": token, "proof": proof});
        socket.request("authenticate", credentials).await;
        socket
    };
    for (name, header, claims, signer, reason) in rows {
        let mut socket = authenticate(forged(&header, claims, &key(signer))).await;
        assert_eq!(socket.closed().await, (1008, reason.into()), "{name}");
    }
    let mut good = authenticate(forged(&none, &none, &key(1))).await;
    assert_eq!(good.next_result().await["cluster"], "home");
    let came = std::future::poll_fn(|cx| Poll::Ready(elsewhere.poll_accept(cx))).await;
    assert!(came.is_pending(), "a URL of a header was asked");
}

#[tokio::test]
async fn a_guest_learns_that_the_node_is_away_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let server = Server::start_with(Sqlite::open(&path).unwrap()).await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;
    client.request("offer", offer()).await;
    gateway.next().await;
    drop(gateway);
    while server.signaling.nodes()[0].status != NodeStatus::Offline {
        client.next().await;
    }
    server.stop().await;

    let server = Server::start_with(Sqlite::open(&path).unwrap()).await;
    assert_eq!(server.signaling.nodes()[0].status, NodeStatus::Offline);
    let (mut early, nonce) = server.socket().await;
    let credentials = client_credentials(&nonce, &key(2));
    early.request("authenticate", credentials).await;
    assert_eq!(early.closed().await, (1008, "NODE_OFFLINE".into()));
    let (mut wrong, nonce) = server.socket().await;
    let mut credentials = client_credentials(&nonce, &key(2));
    credentials["grant"] = json!(GrantId::from_bytes([9; 9]));
    wrong.request("authenticate", credentials).await;
    assert_eq!(wrong.closed().await, (1008, "GRANT_UNKNOWN".into()));

    let _gateway = server.gateway(2).await;
    let events = server.signaling.events(10).await.unwrap();
    let events: Vec<&Event> = events.iter().map(|entry| &entry.event).collect();
    assert!(
        matches!(
            events[..],
            [
                Event::Node(NodeEvent::NodeJoined { .. }),
                Event::Node(NodeEvent::NodeOnline { .. }),
                Event::Client(ClientEvent::SessionIntroduced { .. }),
                Event::Node(NodeEvent::NodeOffline { .. }),
                Event::Node(NodeEvent::NodeOnline { .. }),
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn nobody_speaks_for_another_session() {
    let server = Server::start().await;
    let mut gateway = server.gateway(1).await;
    let mut client = server.client().await;
    client.request("offer", offer()).await;
    gateway.next().await;
    let mut other = server.client().await;
    other
        .notify("bye", json!({"session": SESSION, "reason": "SESSION_LOST"}))
        .await;
    other.request("offer", offer()).await;
    assert_eq!(other.next_reason().await, "PERMISSION_DENIED");
    client
        .notify("candidate", json!({"session": SESSION, "candidate": null}))
        .await;
    assert_eq!(gateway.next().await["method"], "candidate", "no bye came");
}

#[tokio::test]
async fn floods_and_nonsense_end_a_socket() {
    let server = Server::start().await;
    let _gateway = server.gateway(1).await;

    let (mut nonsense, _nonce) = server.socket().await;
    nonsense.0.send(Message::text("{")).await.unwrap();
    assert_eq!(nonsense.next().await["error"]["code"], -32700);
    assert_eq!(nonsense.closed().await.0, 1002);

    let (mut binary, _nonce) = server.socket().await;
    binary.0.send(Message::binary(vec![0])).await.unwrap();
    assert_eq!(binary.closed().await.0, 1002);

    let (mut long, _nonce) = server.socket().await;
    let text = "x".repeat(MAX_SIGNAL_MESSAGE + 1);
    long.0.send(Message::text(text)).await.unwrap();
    assert_eq!(long.closed().await.0, 1009);

    let mut flood = server.client().await;
    for _ in 0..200 {
        flood
            .0
            .feed(Message::text(
                r#"{"jsonrpc":"2.0","method":"heartbeat","params":{}}"#,
            ))
            .await
            .unwrap();
    }
    flood.0.flush().await.unwrap();
    assert_eq!(flood.closed().await, (1008, "RATE_LIMITED".into()));
}

#[tokio::test]
async fn pages_are_served_only_where_they_belong() {
    let server = Server::start().await;
    let navigation = "sec-fetch-mode: navigate\r\nsec-fetch-dest: document";
    let (lab, portal, holder) = (server.host("lab."), server.host(""), server.host("conn."));

    let (status, page) = server
        .http(&format!("GET /tree?x=1 HTTP/1.1\r\n{lab}\r\n{navigation}"))
        .await;
    assert_eq!(status, 200);
    assert!(page.contains("content=\"lab\""), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"));
    assert!(!page.contains("set-cookie"));

    for (head, expected) in [
        (
            format!("GET /api HTTP/1.1\r\n{lab}\r\nsec-fetch-mode: cors\r\nsec-fetch-dest: empty"),
            403,
        ),
        (
            format!("POST / HTTP/1.1\r\n{lab}\r\ncontent-length: 0"),
            403,
        ),
        ("GET / HTTP/1.1\r\nhost: evil.example".into(), 421),
        ("GET / HTTP/1.0".into(), 400),
        (format!("GET /../etc/passwd HTTP/1.1\r\n{holder}"), 404),
        (
            format!("GET /_portway/../Cargo.toml HTTP/1.1\r\n{portal}"),
            404,
        ),
        (
            format!("GET /_portway/signal HTTP/1.1\r\n{holder}\r\norigin: http://evil.example"),
            403,
        ),
        (format!("GET /_portway/sw.js HTTP/1.1\r\n{lab}"), 200),
        (format!("GET /_portway/health HTTP/1.1\r\n{portal}"), 200),
    ] {
        assert_eq!(server.http(&head).await.0, expected, "{head}");
    }
}

#[tokio::test]
async fn a_file_comes_in_the_smallest_form_that_is_accepted() {
    let server = Server::start().await;
    let lab = server.host("lab.");
    for (file, accepted, coding, content) in [
        ("sw.js", "gzip, deflate, br, zstd", Some("br"), "smallest"),
        ("sw.js", "br;q=0.1, gzip", Some("br"), "smallest"),
        ("sw.js", "gzip, br;q=0", Some("gzip"), "smaller"),
        ("sw.js", "GZIP", Some("gzip"), "smaller"),
        ("sw.js", "gzip; q=0.0", None, "// worker"),
        ("sw.js", "brotli, x-gzip", None, "// worker"),
        ("sw.js", "", None, "// worker"),
        ("style.css", "gzip, deflate, br", Some("gzip"), "smaller"),
    ] {
        let (status, answer) = server
            .http(&format!(
                "GET /_portway/{file} HTTP/1.1\r\n{lab}\r\naccept-encoding: {accepted}"
            ))
            .await;
        assert_eq!(status, 200, "{file} {accepted}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let told = head
            .lines()
            .find_map(|line| line.strip_prefix("content-encoding: "));
        assert_eq!((told, body), (coding, content), "{file} {accepted}");
        assert!(head.contains("vary: accept-encoding"), "{head}");
    }
    let compressed = format!("GET /_portway/sw.js.br HTTP/1.1\r\n{lab}");
    assert_eq!(server.http(&compressed).await.0, 404);
}

#[tokio::test]
async fn stun_is_answered_on_the_same_port() {
    let server = Server::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let transaction = [5; 12];
    socket
        .send_to(&stun::binding_request(&transaction), server.address)
        .await
        .unwrap();
    let mut packet = [0; stun::MAX_MESSAGE];
    let (length, _) = socket.recv_from(&mut packet).await.unwrap();
    assert_eq!(
        stun::mapped_address(&packet[..length], &transaction),
        Some(socket.local_addr().unwrap())
    );
}

const PAIRING: &str = "BAQEBAQEBAQEBAQEBAQEBA";

/// Of a guest with one of its own.
fn pair(pairing: &str) -> Value {
    json!({"pairing": pairing, "service": "lab", "commitment": encode(&[9; 32]), "address": "192.0.2.1"})
}

/// A node that waits for a guest of `lab`.
fn waiting(epoch: u64) -> Value {
    let mut announcement = announcement(epoch);
    announcement["pairing"] = json!(["lab"]);
    announcement
}

impl Server {
    async fn guest(&self) -> Socket {
        let (mut socket, _nonce) = self.socket().await;
        let credentials = json!({"role": "guest", "cluster": "home"});
        socket.request("authenticate", credentials).await;
        let welcome = socket.next_result().await;
        assert_eq!(
            welcome["ice_servers"],
            json!([]),
            "there is nothing to relay"
        );
        socket
    }
}

#[tokio::test]
async fn a_guest_and_a_waiting_node_talk_until_they_are_paired() {
    let server = Server::start().await;
    let mut gateway = server.node("nas", waiting(1)).await;
    let mut guest = server.guest().await;
    guest.request("pair", pair(PAIRING)).await;
    let asked = gateway.next().await;
    assert_eq!(asked["params"]["service"], "lab");
    // What the guest says of its address counts for nothing.
    assert_eq!(asked["params"]["address"], "127.0.0.1");
    let reply = json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"node": "nas"}});
    gateway.send(&reply).await;
    assert_eq!(guest.next_result().await, json!({"node": "nas"}));
    let reveal = json!({"pairing": PAIRING, "key": key(2).public(), "nonce": encode(&[9; 32])});
    guest.notify("reveal", reveal.clone()).await;
    assert_eq!(gateway.next().await["params"], reveal);
    // Somebody else is no end of it.
    let mut other = server.guest().await;
    let cancel = json!({"pairing": PAIRING, "reason": "PAIRING_CANCELLED"});
    other.notify("cancel", cancel.clone()).await;
    other.request("heartbeat", json!({})).await;
    other.next_result().await;
    gateway.notify("paired", json!({"pairing": PAIRING})).await;
    assert_eq!(guest.next().await["method"], "paired");
    // It is over: nothing is passed on any more.
    guest.notify("cancel", cancel).await;
    guest.request("pair", pair("BQUFBQUFBQUFBQUFBQUFBQ")).await;
    assert_eq!(guest.next_reason().await, "RATE_LIMITED");
    gateway.request("heartbeat", json!({})).await;
    assert_eq!(gateway.next().await["id"], "heartbeat");
}

#[tokio::test]
async fn who_is_left_alone_in_a_pairing_is_told() {
    let server = Server::start().await;
    let mut gateway = server.node("nas", waiting(1)).await;
    let mut guest = server.guest().await;
    guest.request("pair", pair(PAIRING)).await;
    gateway.next().await;
    drop(guest);
    let told = gateway.next().await;
    assert_eq!(
        (&told["method"], &told["params"]["reason"]),
        (&json!("cancel"), &json!("PAIRING_CANCELLED"))
    );
    let mut guest = server.guest().await;
    guest.request("pair", pair(PAIRING)).await;
    gateway.next().await;
    drop(gateway);
    assert_eq!(guest.next_reason().await, "NODE_OFFLINE");
}

#[tokio::test]
async fn a_guest_may_pair_and_nothing_else_and_only_with_who_waits() {
    let server = Server::start().await;
    let _gateway = server.gateway(1).await;
    let mut guest = server.guest().await;
    guest.request("pair", pair(PAIRING)).await;
    assert_eq!(guest.next_reason().await, "PAIRING_CLOSED");
    for (method, params) in [("offer", offer()), ("announce", announcement(9))] {
        guest.request(method, params).await;
        assert_eq!(guest.next_reason().await, "PROTOCOL_VIOLATION", "{method}");
    }
    let mut client = server.client().await;
    client.request("pair", pair(PAIRING)).await;
    assert_eq!(client.next_reason().await, "PROTOCOL_VIOLATION");
}

#[tokio::test]
async fn a_node_that_asks_is_told_what_happens_to_others() {
    let server = Server::start().await;
    let mut nas = server.gateway(1).await;
    nas.request("watch", json!({"interest": "changes"})).await;
    nas.next_result().await;
    let mut attic = server.node("attic", announcement(2)).await;
    let mut draining = announcement(2);
    draining["status"] = json!("draining");
    attic.request("announce", draining).await;
    let path = json!({
        "session": SESSION, "service": "lab", "path": "relayed", "local_kind": "srflx",
        "remote_kind": "relay", "protocol": "udp", "rtt_ms": 2.5,
    });
    attic.notify("paths", json!({"paths": [path]})).await;
    attic.request("heartbeat", json!({})).await;
    // As many as are too many.
    attic
        .request("paths", json!({"paths": vec![path; 17]}))
        .await;
    attic.next_result().await;
    attic.next_result().await;
    assert_eq!(attic.next_reason().await, "RATE_LIMITED");
    drop(attic);
    for event in [
        json!({"event": "node_joined"}),
        json!({"event": "node_online", "version": "1"}),
        json!({"event": "node_status", "status": "draining"}),
        json!({
            "event": "session_path", "session": SESSION, "service": "lab", "path": "relayed",
            "local_kind": "srflx", "remote_kind": "relay", "protocol": "udp", "rtt_ms": 2.5,
        }),
        json!({"event": "node_offline"}),
    ] {
        let news = nas.next().await;
        assert_eq!(news["method"], "news");
        let mut told = news["params"].clone();
        assert!(told["at_ms"].take().is_number());
        assert_eq!(told["node"].take(), "attic");
        let told: serde_json::Map<_, _> = told
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|(_, it)| !it.is_null())
            .collect();
        assert_eq!(Value::Object(told), event);
    }

    // Who may only open services is told nothing.
    let mut client = server.client().await;
    client
        .request("watch", json!({"interest": "changes"}))
        .await;
    assert_eq!(client.next_reason().await, "PROTOCOL_VIOLATION");
    nas.request("watch", json!({"interest": "nothing"})).await;
    nas.next_result().await;
    drop(server.node("attic", announcement(3)).await);
    nas.request("heartbeat", json!({})).await;
    assert_eq!(nas.next_result().await, json!({}));
}
