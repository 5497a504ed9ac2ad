//! A node, or the holder of links, inside another program.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use portway_gateway::Node;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! // What `portway join` has left in this directory makes the program a node of the cluster.
//! let node = Node::builder()
//!     .joined("/var/lib/my-program")
//!     .expose("web", "http://127.0.0.1:3000")
//!     .start()
//!     .await?;
//! // A service of another node, which has let this one in: `portway share echo --to-node NAME`.
//! let mut echo = node.connect("echo").await?;
//! echo.write_all(b"hello").await?;
//! echo.shutdown().await?;
//! let mut answer = Vec::new();
//! echo.read_to_end(&mut answer).await?;
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//! With [`NodeBuilder::link`] in place of [`NodeBuilder::joined`] the program opens what links open, and offers
//! nothing.
//!
//! Everything runs in tasks of the tokio runtime in which it is started. [`Node::shutdown`] ends them in order;
//! dropping the node ends them at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use portway_protocol::id::{IdError, NodeId, ServiceName};
use portway_protocol::key::SigningKey;
use portway_protocol::permission::Permission;
use portway_protocol::reason::Reason;
use portway_protocol::target::{ServiceTarget, TargetError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::agent::{Gateway, GatewayHandle, OpenError};
use crate::client::address::AddressError;
use crate::client::keeper::Event;
use crate::client::session::RequestBody;
use crate::client::{ServiceAddress, Target};
use crate::config::{GatewayConfig, SignalingEndpoint};
use crate::enrolment::certificate::By;
use crate::enrolment::enrolled::{Enrolled, EnrolledError};
use crate::enrolment::renewal::{MakeError, Maker as _, Renewal};
use crate::enrolment::request::RequestError;
use crate::grants::{GRANTS_FILE, GrantsError};
use crate::limits::Limits;
use crate::proxy::connect::{ConnectorError, tls_config};
use crate::random::random;
use crate::revocations::{self, KnownRevocations};
use crate::service::{AddServiceError, ServiceSpec, Trust};
use crate::state::{Lock, State, StateError};
use crate::tunnel::pool::News;
use crate::tunnel::{Connection, Pool};
use portway_transport::webrtc::StreamRelays;

/// News of sessions that may wait to be logged.
const NEWS: usize = 16;

/// Why there is no node, or why it has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Neither a directory nor a link was given, or both.
    #[error("a node needs either the directory of a machine that has joined a cluster, or links")]
    NoIdentity,
    /// `portway join` has not been there.
    #[error("the machine has not joined a cluster: run `portway join --state {0}`")]
    NotJoined(PathBuf),
    /// Only a node of a cluster offers services.
    #[error("links open services: to offer any, join a cluster")]
    NoMember,
    /// A link is damaged.
    #[error("the link: {0}")]
    Link(#[from] AddressError),
    /// The name of a service or a node is none.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The target of a service is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// What the machine keeps of its cluster.
    #[error(transparent)]
    Enrolled(#[from] EnrolledError),
    /// Its certificate has ended, and there is no other.
    #[error("the certificate of this machine has ended and was not renewed: {0}")]
    Certificate(#[from] MakeError),
    /// The issuer was asked in vain.
    #[error(transparent)]
    Issuer(#[from] RequestError),
    /// Whom to believe to be signaling cannot be read.
    #[error(transparent)]
    Tls(#[from] ConnectorError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] OpenError),
    /// A service cannot be offered.
    #[error(transparent)]
    Service(#[from] AddServiceError),
    /// A grant cannot be made.
    #[error(transparent)]
    Grant(#[from] GrantsError),
    /// There is no connection.
    #[error("{}", .0.message())]
    Refused(Reason),
}

impl NodeError {
    /// The reason code, where there is one.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(reason) => Some(*reason),
            Self::Certificate(error) => Some(error.reason()),
            Self::Issuer(error) => Some(error.reason()),
            Self::Link(_) => Some(Reason::LinkInvalid),
            Self::NoIdentity
            | Self::NotJoined(_)
            | Self::NoMember
            | Self::Name(_)
            | Self::Target(_)
            | Self::State(_)
            | Self::Enrolled(_)
            | Self::Tls(_)
            | Self::Gateway(_)
            | Self::Service(_)
            | Self::Grant(_) => None,
        }
    }
}

/// Collects what a node is to be; see the [module](self).
#[derive(Debug, Default)]
#[must_use]
pub struct NodeBuilder {
    joined: Option<PathBuf>,
    links: Vec<String>,
    services: Vec<(String, String)>,
    authority: Option<PathBuf>,
    limits: Limits,
}

/// A node that runs, or the holder of links.
pub struct Node {
    pool: Pool,
    member: Option<Member>,
    /// What runs beside the gateway ends with it.
    tasks: JoinSet<()>,
    drain: CancellationToken,
    _dropped: DropGuard,
}

/// A member of a cluster.
struct Member {
    gateway: GatewayHandle,
    state: State,
    key: SigningKey,
    _lock: Lock,
}

impl NodeBuilder {
    /// The machine that has joined a cluster with this state directory (`portway join --state DIR`). No other process
    /// may use it at the same time.
    pub fn joined(mut self, state: impl Into<PathBuf>) -> Self {
        self.joined = Some(state.into());
        self
    }

    /// A link to a service, the whole of it; may be given several times. It is a secret.
    pub fn link(mut self, link: impl Into<String>) -> Self {
        self.links.push(link.into());
        self
    }

    /// Offers a service of this machine: a name that is a DNS label, and a target such as `http://127.0.0.1:3000`
    /// or `tcp://127.0.0.1:5432`; may be given several times. Nobody can open it before they are let in.
    pub fn expose(mut self, name: impl Into<String>, target: impl Into<String>) -> Self {
        self.services.push((name.into(), target.into()));
        self
    }

    /// The authority (PEM file) of signaling's certificate, if it is not one of the system's; a machine that has
    /// joined knows it.
    pub fn authority(mut self, file: impl Into<PathBuf>) -> Self {
        self.authority = Some(file.into());
        self
    }

    /// Limits of the tunnels to its services. What the program itself connects to is the program's to limit.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Starts it: its services are announced, nothing else is connected.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start(self) -> Result<Node, NodeError> {
        match (&self.joined, self.links.is_empty()) {
            (Some(dir), true) => {
                let dir = dir.clone();
                self.member(dir).await
            }
            (None, false) => self.holder(),
            (None, true) | (Some(_), false) => Err(NodeError::NoIdentity),
        }
    }

    /// The holder of links.
    fn holder(self) -> Result<Node, NodeError> {
        if !self.services.is_empty() {
            return Err(NodeError::NoMember);
        }
        let links = self.links.iter().map(|link| link.parse());
        let links: Vec<ServiceAddress> = links.collect::<Result<_, _>>()?;
        let trust = self.authority.map_or(Trust::System, Trust::Authority);
        let tls = tls_config(&trust)?;
        // Links for one device only are for one that keeps its key.
        let device = SigningKey::from_seed(&portway_protocol::secret::Secret::new(random()));
        let known: Vec<_> = links
            .into_iter()
            .map(|link| {
                let credential = &link.credential;
                let cluster = credential.cluster.clone();
                let revocations = KnownRevocations::new(cluster, credential.cluster_key);
                Target::new(link, device.clone(), &tls, revocations)
            })
            .collect();
        let open = move |service: &ServiceName| {
            let mut targets = known.iter();
            let target = targets.find(|target| target.address.site.service == *service);
            target.cloned().ok_or(Reason::PermissionDenied)
        };
        Ok(Node::of(
            open,
            None,
            JoinSet::new(),
            CancellationToken::new(),
        ))
    }

    /// The machine that has joined.
    async fn member(self, dir: PathBuf) -> Result<Node, NodeError> {
        let state = State::at(dir);
        state.prepare()?;
        let lock = state.lock()?;
        let joined = Enrolled::open(&state)?;
        let mut enrolled = joined.ok_or_else(|| NodeError::NotJoined(state.dir().to_owned()))?;
        if let Some(file) = self.authority {
            enrolled.signaling_ca = Some(file);
        }
        let key = state.node_key()?;
        let certificate = match enrolled.certificate(&state) {
            Ok(certificate) => certificate,
            Err(_ended) => {
                let node = enrolled.node.clone();
                enrolled.make(&node, &key, &state).await?
            }
        };
        let trust = enrolled.signaling_ca.clone();
        let tls = tls_config(&trust.map_or(Trust::System, Trust::Authority))?;
        let gateway = Gateway::new(GatewayConfig {
            cluster: enrolled.cluster.clone(),
            cluster_key: certificate.cluster_key,
            node: enrolled.node.clone(),
            node_key: key.clone(),
            certificate: certificate.shown(),
            revocations: revocations::kept(&state),
            signaling: endpoints(&enrolled, &tls),
            shortcut: None,
            stream_relays: Arc::new(StreamRelays::new(tls)),
            grants_file: state.path(GRANTS_FILE),
            audit_dir: state.dir().to_owned(),
            limits: self.limits,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
        })?;
        let handle = gateway.handle();
        for (name, target) in self.services {
            handle.add_service(ServiceSpec {
                name: name.parse()?,
                target: target.parse::<ServiceTarget>()?,
                trust: Trust::System,
            })?;
        }
        let drain = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let renewal = Renewal {
            maker: enrolled.clone(),
            node: enrolled.node.clone(),
            key: key.clone(),
            state: state.clone(),
            gateway: handle.clone(),
            standing: watch::Sender::new(certificate.standing(By::Itself)),
            certificate,
        };
        tasks.spawn(renewal.run(drain.clone()));
        tasks.spawn(revocations::keep(
            state.clone(),
            handle.clone(),
            drain.clone(),
        ));
        tasks.spawn(gateway.run(drain.clone()));
        let (own, opener) = (state.clone(), key.clone());
        let open = move |service: &ServiceName| {
            // Another key of the cluster may have come meanwhile.
            let enrolled = Enrolled::open(&own).ok().flatten();
            let enrolled = enrolled.ok_or(Reason::Internal)?;
            let target = enrolled.target(service, &opener);
            target.map_err(|error| error.reason())
        };
        let member = Member {
            gateway: handle,
            state,
            key,
            _lock: lock,
        };
        Ok(Node::of(open, Some(member), tasks, drain))
    }
}

impl Node {
    /// Begins to say what it is to be.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    fn of(
        open: impl Fn(&ServiceName) -> Result<Target, Reason> + Send + Sync + 'static,
        member: Option<Member>,
        mut tasks: JoinSet<()>,
        drain: CancellationToken,
    ) -> Self {
        let (news, told) = mpsc::channel(NEWS);
        tasks.spawn(log(told));
        Self {
            pool: Pool::new(open, news),
            member,
            tasks,
            _dropped: drain.clone().drop_guard(),
            drain,
        }
    }

    /// Opens a connection to a service that speaks something else than HTTP. Where there is no session to it yet, or
    /// not now, this waits for one, for half a minute; then it is kept for the next.
    ///
    /// # Errors
    /// [`NodeError::Name`], or [`NodeError::Refused`] with why there is no connection.
    pub async fn connect(&self, service: &str) -> Result<Connection, NodeError> {
        let connection = self.pool.connect(&service.parse()?).await;
        connection.map_err(NodeError::Refused)
    }

    /// Sends a request to a service that speaks HTTP; waits as [`Node::connect`] does. The response's body streams. A
    /// request is never sent twice.
    ///
    /// # Errors
    /// [`NodeError::Name`], or [`NodeError::Refused`] with why there is no response.
    pub async fn request(
        &self,
        service: &str,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, NodeError> {
        let response = self.pool.request(&service.parse()?, request).await;
        response.map_err(NodeError::Refused)
    }

    /// What this node offers, to whom, and who is there; none of the holder of links.
    #[must_use]
    pub fn gateway(&self) -> Option<&GatewayHandle> {
        self.member.as_ref().map(|member| &member.gateway)
    }

    /// Waits until a signaling service knows what this node offers; the holder of links has nothing to wait for.
    pub async fn online(&self) {
        if let Some(member) = &self.member {
            member.gateway.online().await;
        }
    }

    /// Lets another node of the cluster open a service of this one, by its own key, as
    /// `portway share SERVICE --to-node NAME` does. Asks the cluster's issuer whose key the name stands for.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn let_in(
        &self,
        node: &str,
        service: &str,
        lifetime: Duration,
    ) -> Result<(), NodeError> {
        let member = self.member.as_ref().ok_or(NodeError::NoMember)?;
        let node: NodeId = node.parse()?;
        let service = Permission::all(service.parse()?);
        let not_joined = || NodeError::NotJoined(member.state.dir().to_owned());
        let enrolled = Enrolled::open(&member.state)?.ok_or_else(not_joined)?;
        let key = enrolled.key_of(&node, &member.key).await?;
        member.gateway.let_in((&node, &key), service, lifetime)?;
        Ok(())
    }

    /// Ends it in order: requests under way may end, sessions say goodbye.
    pub async fn shutdown(mut self) {
        self.pool.close().await;
        self.drain.cancel();
        let pool = self.pool;
        // With it goes whoever tells the news.
        drop(pool);
        while self.tasks.join_next().await.is_some() {}
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

fn endpoints(enrolled: &Enrolled, tls: &rustls::ClientConfig) -> Vec<SignalingEndpoint> {
    let tls = Arc::new(tls.clone());
    let portals = enrolled.signaling.iter();
    portals.map(|portal| portal.endpoint(&tls)).collect()
}

/// What happens to sessions, for whoever reads the log.
async fn log(mut told: mpsc::Receiver<News>) {
    while let Some(news) = told.recv().await {
        match news {
            News::Session(service, Event::Connected { node, .. }) => {
                tracing::info!(%service, %node, "a session is there");
            }
            News::Session(service, Event::Path(path)) => {
                tracing::debug!(%service, ?path, "a session has another path");
            }
            News::Session(service, Event::Lost { error, retry_in }) => {
                let retry_in_ms = retry_in.as_millis();
                tracing::info!(%service, %error, retry_in_ms, "no session");
            }
            News::Refused(service, error) => {
                tracing::warn!(%service, %error, "a session was refused")
            }
        }
    }
}
