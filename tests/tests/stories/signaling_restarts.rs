//! Signaling goes away while somebody works, and comes back.
//!
//! `portway up` runs signaling and gateway in one process; here they are apart, so that one of them
//! can end alone.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use portway_gateway::config::SignalingEndpoint;
use portway_gateway::service::{ServiceSpec, Trust};
use portway_gateway::session::NodeCertificate;
use portway_gateway::{Gateway, GatewayConfig, Limits};
use portway_protocol::id::{ClusterName, GrantId, NodeId, ServiceName};
use portway_protocol::key::SigningKey;
use portway_protocol::link::Link;
use portway_protocol::permission::Permission;
use portway_protocol::secret::Secret;
use portway_protocol::token::Confirmation;
use portway_protocol::token::machine::{MachineClaims, RevokedBy};
use portway_protocol::token::user::{Devices, UserClaims};
use portway_signaling::config::Stun;
use portway_signaling::host::Origin;
use portway_signaling::store::Sqlite;
use portway_signaling::{Assets, Config, Signaling};
use portway_tests::PATIENCE;
use portway_tests::browser::Browser;
use portway_tests::client::{Connected, LinkFile};
use portway_tests::upstream::Upstream;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::{APP, BOTH, in_app, native, story};

pub(crate) const STORIES: &[crate::Story] = &[story!(BOTH, live_sessions_do_not_notice)];

pub(crate) const NATIVE_STORIES: &[crate::NativeStory] =
    &[native!(live_local_sessions_do_not_notice)];

/// Life of the tokens here, seconds.
const LIFETIME: u64 = 3600;

const OPEN_SOCKET: &str = "new Promise((resolve, reject) => { \
    window.socket = new WebSocket(`ws://${location.host}/ws`); \
    socket.onopen = () => resolve(true); socket.onerror = reject; \
    socket.onclose = () => { window.closed = true; }; })";

const ECHO: &str = "new Promise((resolve) => { \
    socket.onmessage = ({ data }) => resolve(data); socket.send('still here'); })";

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// A cluster of one node, whose parts can be started and ended alone.
struct Cluster {
    name: ClusterName,
    node: NodeId,
    service: ServiceName,
    key: SigningKey,
    node_key: SigningKey,
    secret: Secret<[u8; 32]>,
    state: TempDir,
    tasks: JoinSet<()>,
}

/// A running signaling service.
struct Running {
    address: SocketAddr,
    /// Origin of the service.
    origin: String,
    /// Host of the holder's origin.
    host: String,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Running {
    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.task.join_next().await.context("it runs")??;
        Ok(())
    }
}

impl Cluster {
    fn new() -> anyhow::Result<Self> {
        let key = |seed| SigningKey::from_seed(&Secret::new([seed; 32]));
        Ok(Self {
            name: "home".parse()?,
            node: "nas".parse()?,
            service: "app".parse()?,
            key: key(1),
            node_key: key(2),
            secret: Secret::new([3; 32]),
            state: tempfile::tempdir()?,
            tasks: JoinSet::new(),
        })
    }

    async fn signaling(&self, listen: SocketAddr) -> anyhow::Result<Running> {
        let config = Config {
            listen,
            cluster: self.name.clone(),
            cluster_keys: vec![self.key.public()],
            domain: "localhost".into(),
            tls: None,
            ice_servers: Vec::new(),
            stun: Stun::Nobody,
            version: "test".into(),
        };
        let store = Sqlite::open(&self.state.path().join("registry.db"))?;
        let signaling = Signaling::bind(config, client()?, Box::new(store)).await?;
        let handle = signaling.handle();
        let holder = handle.origin(&Origin::Holder);
        let stop = CancellationToken::new();
        let address = signaling.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(signaling.run(stop.clone()));
        Ok(Running {
            address,
            origin: handle.origin(&Origin::Service(self.service.clone())),
            host: holder.trim_start_matches("http://").to_owned(),
            stop,
            task,
        })
    }

    /// Starts the gateway; returns the link to the service.
    async fn gateway(&mut self, signaling: &Running, target: &str) -> anyhow::Result<String> {
        let now = unix_now();
        let machine = MachineClaims {
            iss: self.name.clone(),
            aud: self.name.clone(),
            sub: self.node.clone(),
            node_id: self.node.clone(),
            cluster_id: self.name.clone(),
            iat: now,
            exp: now + LIFETIME,
            jti: "m".into(),
            cnf: Confirmation {
                ed25519: self.node_key.public(),
            },
            revoked_by: RevokedBy::Nothing,
        };
        let gateway = Gateway::new(GatewayConfig {
            shortcut: None,
            stream_relays: std::sync::Arc::default(),
            cluster: self.name.clone(),
            cluster_key: self.key.public(),
            node: self.node.clone(),
            node_key: self.node_key.clone(),
            revocations: None,
            certificate: NodeCertificate {
                token: machine.issue(&self.key),
                rotations: Vec::new(),
            },
            signaling: vec![SignalingEndpoint {
                address: Some(signaling.address),
                host: signaling.host.clone(),
                tls: None,
            }],
            grants_file: self.state.path().join("grants.json"),
            audit_dir: self.state.path().to_owned(),
            limits: Limits::default(),
            version: "test".into(),
            commit: "test".into(),
        })?;
        let handle = gateway.handle();
        handle.add_service(ServiceSpec {
            name: self.service.clone(),
            target: target.parse()?,
            trust: Trust::System,
        })?;
        let grant = UserClaims {
            iss: self.name.clone(),
            aud: vec![self.service.clone()],
            sub: "ann".into(),
            services: vec![Permission::all(self.service.clone())],
            iat: now,
            exp: now + LIFETIME,
            jti: GrantId::from_bytes([7; GrantId::LEN]),
            cnf: Confirmation {
                ed25519: SigningKey::from_link_secret(&self.secret).public(),
            },
            devices: Devices::Any,
        };
        let grant = handle.add_grant(grant.issue(&self.key))?;
        self.tasks.spawn(gateway.run(CancellationToken::new()));
        handle.online().await;
        let link = Link {
            cluster: self.name.clone(),
            cluster_key: self.key.public(),
            grant: grant.jti,
            secret: self.secret.clone(),
        };
        Ok(format!("{}/#{link}", signaling.origin))
    }
}

/// The browser client that the binary under test has too.
fn client() -> anyhow::Result<Assets> {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../web-client/dist");
    let mut files: Vec<(&'static str, &'static [u8])> = Vec::new();
    for entry in std::fs::read_dir(dist).context("run `cargo xtask test`")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let content = std::fs::read(entry.path())?;
        files.push((name.leak(), content.leak()));
    }
    Ok(Assets::new(&files, "test"))
}

async fn live_sessions_do_not_notice(browser: &mut Browser) -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let mut cluster = Cluster::new()?;
    let signaling = cluster.signaling("127.0.0.1:0".parse()?).await?;
    let (address, origin) = (signaling.address, signaling.origin.clone());
    let link = cluster.gateway(&signaling, &upstream.target()).await?;
    browser.open(&link).await?;
    let hello = format!("!!{APP}.document.querySelector('#hello')");
    browser.wait_for(&hello, PATIENCE).await?;
    browser.eval(&in_app(OPEN_SOCKET)).await?;

    signaling.stop().await?;
    assert_eq!(browser.eval(&in_app(ECHO)).await?, "still here");
    let fetch =
        in_app("fetch('/bytes?n=2000000').then((r) => r.arrayBuffer()).then((b) => b.byteLength)");
    assert_eq!(browser.eval(&fetch).await?, 2_000_000);

    let _signaling = cluster.signaling(address).await?;
    let first = browser.another_tab().await?;
    browser.open(&origin).await?;
    browser.wait_for(&hello, PATIENCE).await?;

    browser.switch_to(first);
    assert_eq!(browser.eval(&in_app(ECHO)).await?, "still here");
    assert_eq!(
        browser.eval(&in_app("window.closed ?? false")).await?,
        false
    );
    Ok(())
}

async fn live_local_sessions_do_not_notice() -> anyhow::Result<()> {
    let upstream = Upstream::start().await?;
    let mut cluster = Cluster::new()?;
    let signaling = cluster.signaling("127.0.0.1:0".parse()?).await?;
    let link = LinkFile::new(&cluster.gateway(&signaling, &upstream.target()).await?)?;
    let local = Connected::start(&link).await?;
    let url = format!("ws://{}/ws", local.listen());
    let (mut socket, _response) = tokio_tungstenite::connect_async(url).await?;

    signaling.stop().await?;
    socket.send(Message::text("still here")).await?;
    let echoed = socket.next().await.context("it is open")??;
    assert_eq!(echoed, Message::text("still here"));
    let (_, body) = local.request("GET /bytes?n=2000000 HTTP/1.1", b"").await?;
    assert_eq!(body.len(), 2_000_000);
    Ok(())
}
