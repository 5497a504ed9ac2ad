//! The command line's grammar, nothing else. [`role`]: what runs until it is told to end. [`link`]: links.
//! [`messages`]: message buses.

mod link;
mod messages;
mod role;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portway_gateway::Limits;
use portway_gateway::audit::Hash;
use portway_gateway::tunnel::LocalAddress;
use portway_protocol::id::ServiceName;
use portway_protocol::key::PublicKey;
use portway_protocol::target::ServiceTarget;
use portway_relay::config::{Listen, Transport};
use portway_relay_proto::peer_policy::Network;

pub(crate) use link::{Links, LinksCommand, Pair, Share, Terms};
pub(crate) use messages::{At, Publish, Subscribe};
use portway_gateway::portal::Portal;
pub(crate) use role::{Gateway, Init, Join, Signaling, Up, Web};

/// Open a service behind any NAT from any browser: peer to peer, encrypted end to end.
#[derive(Debug, Parser)]
#[command(
    name = "portway",
    version = crate::VERSION,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:\n  portway up --expose lab=http://127.0.0.1:8888   open JupyterLab from any browser\n  portway share lab --for 2h                       a link to it for somebody else\n  portway expose nas=https://192.168.1.5:5001      add a service while it runs\n  portway services                                 what is offered, and whether it is healthy"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where keys, grants and the control socket are kept [default: the XDG state directory]
    #[arg(long, global = true, env = "PORTWAY_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Configuration file [default: portway/portway.toml in the XDG configuration directory, if it is there]
    #[arg(long, global = true, env = "PORTWAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File with the passphrase of the cluster key, if it has one; a new key gets it
    #[arg(
        long,
        global = true,
        env = "PORTWAY_PASSPHRASE_FILE",
        value_name = "FILE"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Print JSON: one object, or one object per line for streams
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more (-v info, -vv debug, -vvv trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: signaling, STUN, gateway and the services given
    Up(Up),
    /// Make a cluster: its key, which says what belongs to it
    Init(Init),
    /// Make this machine a node of a cluster, with a join token
    Join(Join),
    /// Run the signaling service alone: where browsers and gateways meet
    Signaling(Signaling),
    /// Run a STUN/TURN relay alone: for Portway, or for any other WebRTC
    Relay(Relay),
    /// Run a gateway alone: opens this machine's services
    Gateway(Gateway),
    /// Add a service to the running gateway, or start one, and print its link
    Expose(Expose),
    /// Make a link that opens a service, for somebody else; with --pair by six spoken digits
    Share(Share),
    /// Get a link to a service by reading six digits to its owner
    ///
    /// The owner runs `portway share SERVICE --pair` meanwhile. The link goes to standard output: keep it in a
    /// file that nobody else reads, e.g. (umask 077; portway pair URL > lab.link).
    Pair(Pair),
    /// Links: what they allow, who opened them, what has passed; revoke them
    Links(Links),
    /// What runs here: role, version, and for a gateway whether signaling knows it
    Status,
    /// Nodes of the cluster and their state
    Nodes(Nodes),
    /// Services, their targets and their health
    Services,
    /// Browsers that are connected now
    Sessions,
    /// What happened: nodes that came and went, who opened what and how it ended
    ///
    /// With --follow, also what happens to every node of the cluster: it comes, goes, drains, its sessions take
    /// another path. A gateway keeps an audit log in its state directory, in which each record is bound to the one
    /// before and signed: `portway events verify` tells whether it is as it was written.
    Events(Events),
    /// Open a service as a browser would, and tell how it is reached and how fast
    Ping(Ping),
    /// Make a service of another machine local: its requests go to it, peer to peer
    Connect(Connect),
    /// Copy files to and from a service of files: resumes, and compares SHA-256 at both ends
    ///
    /// One of the two is on another machine: `SERVICE:PATH`, `NODE/SERVICE:PATH`, or `:PATH` for the service of
    /// the link. `-` is standard input or output. A file of this machine whose name looks so is `./NAME:…`.
    /// What ends in a slash, or is a directory that is there, gets the file under its own name. Run the same
    /// command again after an interruption: it sends what is missing.
    Cp(Cp),
    /// Say something on a message bus: whoever has subscribed to the topic hears it, up to 64 KiB
    ///
    /// A node offers a bus as the target `messages:`, e.g. `portway expose bus=messages:`. It needs a link, or a
    /// node grant, as every service does.
    Publish(Publish),
    /// Hear what is said on message buses, until it is told to end
    ///
    /// After a loss of the connection it goes on with the message after the last one that was heard, and says so
    /// if that is not kept any more.
    Subscribe(Subscribe),
    /// Issue, accept, inspect and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// Keys in the state directory
    #[command(subcommand)]
    Key(Key),
    /// Check this machine: network, clock, ports; says what to do
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print version, commit and the hash of the embedded browser client
    Version,
}

/// `portway relay`. What is not given here may stand in the configuration file, under `[relay]`.
#[derive(Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Relay {
    #[command(subcommand)]
    pub(crate) command: Option<RelayCommand>,
    /// Where clients come: udp://, tcp:// or tls:// and ADDRESS:PORT; may be repeated
    /// [default: udp://0.0.0.0:3478 and tcp://0.0.0.0:3478]
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<ListenUrl>,
    /// Certificate chain (PEM) for tls:// addresses
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address of this machine that relayed packets leave from, one of each family
    /// [default: the one that packets leave from anyway]
    #[arg(long, value_name = "IP")]
    pub(crate) relay_ip: Vec<IpAddr>,
    /// Second address and port for clients that find out what NAT they are behind (RFC 5780)
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) alternate: Option<SocketAddr>,
    /// Address that peers see, if a NAT stands before this machine
    #[arg(long, value_name = "IP")]
    pub(crate) external_ip: Vec<IpAddr>,
    /// Ports of relayed addresses [default: 49152-65535]
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) relay_ports: Option<PortRange>,
    /// Realm of passwords [default: portway]
    #[arg(long, value_name = "NAME")]
    pub(crate) realm: Option<String>,
    /// File with the secret of ephemeral credentials (coturn: static-auth-secret), one on a line; the
    /// last two count
    #[arg(long, env = "PORTWAY_RELAY_SECRET_FILE", value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Peers that are reachable although their range is private, e.g. 192.168.0.0/16; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) allow_peer: Vec<Network>,
    /// Peers that are not; may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) deny_peer: Vec<Network>,
    /// Serve metrics for Prometheus here, at /metrics, e.g. 127.0.0.1:9641
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// After SIGTERM, how long those who are there may go on; nobody new is let in [default: 30s]
    #[arg(long, value_parser = parse_wait, value_name = "DURATION")]
    pub(crate) drain: Option<std::time::Duration>,
}

/// `portway relay …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RelayCommand {
    /// Make credentials that end by themselves, from a shared secret
    Credentials {
        /// File with the secret, as the relay has it
        #[arg(long, env = "PORTWAY_RELAY_SECRET_FILE", value_name = "FILE")]
        secret_file: PathBuf,
        /// Who they are for: quotas and revocation know this name
        #[arg(long, default_value = "guest", value_name = "NAME")]
        user: String,
        /// How long they are valid: 30s, 15m, 2h, 7d
        #[arg(long = "for", default_value = "10m", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
    },
    /// Tell whether a STUN/TURN server is good, ours or anybody's
    ///
    /// Does what a client does, step by step, and says what it finds: address, TLS, credentials,
    /// relayed addresses, data, round trips, loss, throughput, IPv6, and whether peers are refused that
    /// should be. Gentle: at most 2000 packets of data. Give credentials for all of it; they are never
    /// taken from the command line.
    Test(Box<RelayTest>),
    /// Show a running relay: who is there, by which addresses, and how much has passed
    Status,
    /// End what a user relays, or one session, at once
    ///
    /// A session of ephemeral credentials (EXPIRY:NAME) belongs to NAME. Revoking NAME also refuses the
    /// credentials that were handed out for it until now. A user with a password in the configuration
    /// may come back until it is removed there.
    Revoke {
        /// Name of a user, or id of a session as `portway relay status` shows it
        #[arg(value_name = "USER|SESSION")]
        target: String,
        /// Lifetime of the ephemeral credentials that you hand out: those of the user that end within
        /// it from now are refused. Too short lets older ones in again; too long refuses newer ones, too
        #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
    },
}

/// `portway relay test`.
#[derive(Debug, Args)]
pub(crate) struct RelayTest {
    /// As browsers have it, e.g. turn:turn.example.org:3478?transport=tcp; also turns:, stun:, stuns:
    #[arg(value_name = "URL")]
    pub(crate) url: portway_relay_client::url::Url,
    /// User name
    #[arg(long, env = "PORTWAY_TURN_USERNAME", value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// File with the user's password; `-` reads it from standard input
    #[arg(long, env = "PORTWAY_TURN_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) credential_file: Option<PathBuf>,
    /// File with the server's secret instead: makes credentials for this test
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Something that sends UDP packets back, as a peer [default: the server relays to itself]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) peer: Option<SocketAddr>,
    /// How long to measure, 1s to 60s
    #[arg(long, default_value = "5s", value_parser = parse_measure, value_name = "DURATION")]
    pub(crate) duration: std::time::Duration,
    /// Authority (PEM) of the server's certificate [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub(crate) insecure: bool,
}

impl Relay {
    /// A relay that listens here; everything else is as the file or the defaults say.
    pub(crate) fn at(addresses: Vec<SocketAddr>) -> Self {
        let url = |address| {
            ListenUrl(Listen {
                transport: Transport::Udp,
                address,
            })
        };
        Self {
            listen: addresses.into_iter().map(url).collect(),
            ..Self::default()
        }
    }
}

/// `udp://ADDRESS:PORT`, `tcp://…`, `tls://…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenUrl(pub(crate) Listen);

impl std::str::FromStr for ListenUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}`: expected udp://, tcp:// or tls:// and ADDRESS:PORT, e.g. udp://0.0.0.0:3478"
            )
        };
        let (scheme, address) = text.split_once("://").ok_or_else(wrong)?;
        let transport = match scheme {
            "udp" => Transport::Udp,
            "tcp" => Transport::Tcp,
            "tls" => Transport::Tls,
            _ => return Err(wrong()),
        };
        let address = address.parse().map_err(|_| wrong())?;
        Ok(Self(Listen { transport, address }))
    }
}

/// `FIRST-LAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange(pub(crate) u16, pub(crate) u16);

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected FIRST-LAST, e.g. 49152-65535");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self(first, last)),
            _ => Err(wrong()),
        }
    }
}

/// Bytes in a second, written as `800kbit/s`, `10Mbit/s`, `1Gbit/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) std::num::NonZeroU64);

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected a rate, e.g. 800kbit/s, 10Mbit/s, 1Gbit/s");
        let bits = text.strip_suffix("bit/s").ok_or_else(wrong)?;
        let (number, unit) = match bits.char_indices().next_back().ok_or_else(wrong)? {
            (at, 'k') => (&bits[..at], 1_000),
            (at, 'M') => (&bits[..at], 1_000_000),
            (at, 'G') => (&bits[..at], 1_000_000_000),
            _ => (bits, 1),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(unit).map(|bits| bits / 8);
        bytes
            .and_then(std::num::NonZeroU64::new)
            .map(Self)
            .ok_or_else(wrong)
    }
}

/// `portway expose`.
#[derive(Debug, Args)]
pub(crate) struct Expose {
    /// Name and target, e.g. lab=http://127.0.0.1:8888, nas=https://10.0.0.5, app=unix:/run/app.sock,
    /// ssh=tcp://127.0.0.1:22, dns=udp://127.0.0.1:53, docs=files:/srv/docs, bus=messages: (a message bus),
    /// hook=listen://127.0.0.1:9000 (for `connect -R`)
    #[arg(value_name = "NAME=TARGET")]
    pub(crate) service: Exposed,
}

/// Which service to open, and by whom.
#[derive(Debug, Args)]
pub(crate) struct Opened {
    /// Service to open [default: the link's]
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<ServiceName>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
}

/// What opens services.
#[derive(Debug, Args)]
pub(crate) struct Credentials {
    /// File with a link, the whole of it, as `portway up` prints it; `-` reads it from standard input; may be
    /// repeated, for several services. Without one, this machine's own key as a node of the cluster opens what was
    /// shared with it (`portway share SERVICE --to-node NAME`)
    #[arg(long = "link-file", env = "PORTWAY_LINK_FILE", value_name = "FILE")]
    pub(crate) link_files: Vec<PathBuf>,
    /// Node that shall serve it [default: any that offers it]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<portway_protocol::id::NodeId>,
    /// Authority (PEM) of signaling's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// `portway ping`.
#[derive(Debug, Args)]
pub(crate) struct Ping {
    #[command(flatten)]
    pub(crate) opened: Opened,
    /// How many round trips to measure
    #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    pub(crate) count: u32,
    /// Time between them: 200ms, 1s, 1m
    #[arg(long, short, default_value = "1s", value_parser = parse_interval, value_name = "DURATION")]
    pub(crate) interval: std::time::Duration,
}

/// `portway connect`.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    pub(crate) opened: Opened,
    /// Where programs of this machine find a service, the one meant unless =SERVICE follows: a PORT on loopback
    /// (any free one for 0), ADDR:PORT, or the /PATH of a Unix socket; may be repeated
    #[arg(
        long = "listen",
        short = 'L',
        value_name = "[ADDR:]PORT[=SERVICE]",
        required_unless_present_any = ["stdio", "socks", "reverse"]
    )]
    pub(crate) listen: Vec<Forward>,
    /// The other way: who connects to the machine of a listen:// service comes to this program here, a PORT on
    /// loopback, ADDR:PORT, or the /PATH of a Unix socket; may be repeated
    #[arg(
        long = "reverse",
        short = 'R',
        value_name = "[ADDR:]PORT[=SERVICE]",
        conflicts_with = "udp"
    )]
    pub(crate) reverse: Vec<Forward>,
    /// A SOCKS5 proxy for all services of the cluster that may be opened, by the names SERVICE.CLUSTER
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub(crate) socks: Option<LocalAddress>,
    /// One connection over standard input and output, e.g. as ssh's ProxyCommand; for tcp:// services
    #[arg(long, conflicts_with_all = ["listen", "socks", "reverse"])]
    pub(crate) stdio: bool,
    /// The service speaks UDP (udp://): -L takes datagrams
    #[arg(long, conflicts_with = "stdio")]
    pub(crate) udp: bool,
    /// End local connections that have carried nothing in either direction for so long, e.g. 30m
    /// [default: never; flows of --udp after 5m]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) idle_timeout: Option<std::time::Duration>,
    /// Local connections at a time, at each address of -L and --socks; more wait. With --udp, flows: one more ends
    /// the idlest [default: 1024; 240 flows]
    #[arg(long, value_name = "N", conflicts_with = "stdio")]
    pub(crate) max_connections: Option<std::num::NonZeroU32>,
}

impl Connect {
    /// Of its local ends.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            idle_timeout: self.idle_timeout,
            connections: self.max_connections.unwrap_or(default.connections),
            ..default
        }
    }
}

/// `portway cp`.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    #[command(flatten)]
    pub(crate) credentials: Credentials,
    /// Copy a directory and what is in it; DST is its copy, or with a slash at its end gets it under its own name
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Replace files that differ
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Tell files that are the same already by their SHA-256, not by size and time
    #[arg(long, short)]
    pub(crate) checksum: bool,
    /// What to copy: PATH here, [[NODE/]SERVICE]:PATH there, or - for standard input
    #[arg(value_name = "SRC")]
    pub(crate) source: OsString,
    /// Where to, in the same forms; - is standard output
    #[arg(value_name = "DST")]
    pub(crate) destination: OsString,
}

/// `ADDRESS[=SERVICE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) address: LocalAddress,
    /// The one that is meant if there is none.
    pub(crate) service: Option<ServiceName>,
}

impl std::str::FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, service) = match text.rsplit_once('=') {
            Some((address, service)) => (address, Some(service)),
            None => (text, None),
        };
        let service = service.map(str::parse).transpose();
        Ok(Self {
            address: address.parse().map_err(|e| format!("{e}"))?,
            service: service.map_err(|e| format!("{e}"))?,
        })
    }
}

/// `portway nodes`.
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,
}

/// `portway nodes …`, where the cluster key is.
#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Whom this cluster key has certified: name, key, end of the certificate
    Enrolled,
    /// Take a node out of the cluster: nobody believes its certificate any more, and its name is free
    ///
    /// It may join again with a new join token.
    Forget {
        /// Name of the node
        #[arg(value_name = "NAME")]
        node: portway_protocol::id::NodeId,
    },
}

/// `portway events`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(crate) command: Option<EventsCommand>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Also each sign of life of each node, as it comes
    #[arg(long, requires = "follow")]
    pub(crate) heartbeats: bool,
    /// How many of the last ones
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
    pub(crate) limit: u32,
}

/// What to do with events but show them.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Check the audit log in the state directory: nothing changed, removed, inserted or moved
    ///
    /// Works without a gateway that runs. If one does, the log must go as far as it says.
    Verify(EventsVerify),
}

/// `portway events verify`.
#[derive(Debug, Args)]
pub(crate) struct EventsVerify {
    /// Head that was noted before (`portway status`, or `verify` at another time): it must be there
    #[arg(long, allow_hyphen_values = true, value_name = "HASH")]
    pub(crate) head: Vec<Hash>,
    /// Public key of the node, where its private key is not [default: that of the state directory]
    #[arg(long, allow_hyphen_values = true, value_name = "KEY")]
    pub(crate) key: Option<PublicKey>,
}

/// `portway token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Issue a token
    #[command(subcommand)]
    Issue(Box<Issue>),
    /// Give a user token to the running gateway: its link opens services here from then on; reads it
    /// from standard input
    ///
    /// For a gateway without the cluster key: `portway token issue user … --origin …` where that key is
    /// prints the token. It is no secret; the link is.
    Accept,
    /// Show what a token says and whether it is valid; reads it from standard input
    Inspect,
    /// Revoke the grant of a user token: its sessions end at once; the same as `portway links revoke`
    Revoke {
        /// Grant id, as `token issue` printed it
        grant: portway_protocol::id::GrantId,
    },
}

/// `portway token issue`.
#[derive(Debug, Subcommand)]
pub(crate) enum Issue {
    /// For a person: prints a link that opens a service
    User {
        /// Service that it opens; may be repeated
        #[arg(long = "service", required = true, value_name = "NAME")]
        services: Vec<ServiceName>,
        #[command(flatten)]
        terms: Terms,
        /// Portal of a signaling service, e.g. `https://home.example.org`: makes the link here and now
        ///
        /// By the cluster key of the state directory; nobody is asked. Give the token to `portway token
        /// accept` where the service is.
        #[arg(long, value_name = "URL")]
        origin: Option<Portal>,
    },
    /// For another machine: a one-time join token, for `portway join` there
    ///
    /// Ask the running instance that has the cluster key. The token is a secret: whoever uses it first
    /// becomes a node of the cluster.
    Join {
        /// The only name that the machine may have [default: any that is free]
        #[arg(long, value_name = "NAME")]
        node: Option<portway_protocol::id::NodeId>,
        /// How long the token is valid: 15m, 1h, 7d
        #[arg(long = "for", default_value = "1h", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
        /// How long the machine's certificates are valid, at most 30d; it renews them by itself
        #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "DURATION")]
        certificate: std::time::Duration,
    },
    /// For a node key of another machine, by hand
    Machine {
        /// Name of the node
        #[arg(long, value_name = "NAME")]
        node: portway_protocol::id::NodeId,
        /// Public key of the node, as `portway key show` tells it there
        #[arg(long, allow_hyphen_values = true, value_name = "KEY")]
        key: portway_protocol::key::PublicKey,
        /// How long it is valid, at most 30d
        #[arg(long = "for", default_value = "30d", value_parser = parse_duration, value_name = "DURATION")]
        lifetime: std::time::Duration,
    },
}

/// `portway key`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Key {
    /// Show the public keys of this state directory; makes the node key if there is none
    Show,
    /// Put the cluster key under a passphrase: that of --passphrase-file, or typed twice
    Encrypt,
    /// Take the passphrase off the cluster key
    Decrypt,
    /// Replace the cluster key: the old one says that the new one takes its place
    ///
    /// Links, nodes and sessions go on: who knows the old key follows to the new one. Do it when the key may
    /// have been seen by somebody, or a machine that had it is given away.
    Rotate,
}

/// `portway doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// STUN server to ask for this machine's public address, e.g. stun.example.org:3478
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) stun: Option<String>,
    /// Address that `portway up` shall listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
}

/// `NAME=TARGET[,option…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exposed {
    pub(crate) name: ServiceName,
    pub(crate) target: ServiceTarget,
    pub(crate) trust: Trust,
}

/// How the certificate of an `https` target is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Trust {
    /// By the system's authorities.
    #[default]
    System,
    /// By this authority alone.
    Authority(PathBuf),
    /// Not at all.
    Any,
}

impl Trust {
    /// A relative path is one below `folder`.
    pub(crate) fn resolve(&mut self, folder: &std::path::Path) {
        if let Self::Authority(path) = self {
            *path = folder.join(&*path);
        }
    }
}

impl std::str::FromStr for Exposed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text
            .split_once('=')
            .ok_or("expected NAME=TARGET, e.g. lab=http://127.0.0.1:8888")?;
        let (target, options) = match rest.split_once(',') {
            Some((target, options)) => (target, Some(options)),
            None => (rest, None),
        };
        let trust = match options {
            None => Trust::System,
            Some("insecure") => Trust::Any,
            Some(option) => match option.strip_prefix("ca=") {
                Some(path) => Trust::Authority(path.into()),
                None => {
                    return Err(format!(
                        "unknown option `{option}`: use ca=FILE or insecure"
                    ));
                }
            },
        };
        let name: ServiceName = name.parse().map_err(|e| format!("{e}"))?;
        if name.is_internal() {
            return Err(format!("the name `{name}` is reserved"));
        }
        Ok(Self {
            name,
            target: target.parse().map_err(|e| format!("{e}"))?,
            trust,
        })
    }
}

/// A span of time in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) std::time::Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

/// A time to wait in a file: none is a time, too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait(pub(crate) std::time::Duration);

impl std::str::FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_wait(text).map(Self)
    }
}

/// `90`, `30s`, `15m`, `2h`, `7d`.
fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let duration = parse_wait(text)?;
    if duration.is_zero() {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(duration)
}

/// The same, or `0`: not at all.
fn parse_wait(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is no duration: use 30s, 15m, 2h or 7d"))?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("unknown unit `{other}`: use s, m, h or d")),
    };
    number
        .checked_mul(unit)
        .map(std::time::Duration::from_secs)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

/// The same, or `200ms`.
fn parse_interval(text: &str) -> Result<std::time::Duration, String> {
    match text.strip_suffix("ms").map(str::parse) {
        Some(Ok(millis @ 1..)) => Ok(std::time::Duration::from_millis(millis)),
        Some(_) => Err(format!("`{text}` is no duration: use 200ms, 30s, 15m")),
        None => parse_duration(text),
    }
}

/// A time that a test may take.
fn parse_measure(text: &str) -> Result<std::time::Duration, String> {
    let duration = parse_duration(text)?;
    if duration.as_secs() > 60 {
        return Err(format!("`{text}` is too long: at most 60s"));
    }
    Ok(duration)
}

/// Shape of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

impl Global {
    /// Shape of what is printed.
    pub(crate) const fn format(&self) -> Format {
        if self.json {
            Format::Json
        } else {
            Format::Human
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn services_take_options_for_their_certificate() {
        let plain: Exposed = "lab=http://127.0.0.1:8888".parse().unwrap();
        assert!(matches!(plain.trust, Trust::System));
        let any: Exposed = "nas=https://10.0.0.5,insecure".parse().unwrap();
        assert!(matches!(any.trust, Trust::Any));
        let ca: Exposed = "nas=https://10.0.0.5,ca=/etc/ca.pem".parse().unwrap();
        assert!(matches!(ca.trust, Trust::Authority(_)));
        for bad in [
            "lab",
            "lab=",
            "conn=http://x",
            "enrol=http://x",
            "lab=http://x,what",
            "=http://x",
        ] {
            assert!(bad.parse::<Exposed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_are_in_bits() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0.get()).ok();
        assert_eq!(rate("10Mbit/s"), Some(1_250_000));
        assert_eq!(rate("800kbit/s"), Some(100_000));
        assert_eq!(rate("16bit/s"), Some(2));
        for wrong in [
            "",
            "10",
            "10M",
            "bit/s",
            "7bit/s",
            "1.5Mbit/s",
            "-8bit/s",
            "99999999999Gbit/s",
        ] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_may_be_for_a_service() {
        let forward = |text: &str| text.parse::<Forward>();
        let db = "db".parse().unwrap();
        for (text, address, service) in [
            ("5432", "5432", None),
            ("5432=db", "5432", Some(&db)),
            ("/run/a=b.sock=db", "/run/a=b.sock", Some(&db)),
        ] {
            let expected = Forward {
                address: address.parse().unwrap(),
                service: service.cloned(),
            };
            assert_eq!(forward(text), Ok(expected), "{text}");
        }
        for wrong in ["", "=db", "5432=", "5432=D B", "db=5432"] {
            assert!(forward(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn intervals_may_be_short() {
        assert_eq!(parse_interval("200ms").unwrap().as_millis(), 200);
        assert_eq!(parse_interval("1s").unwrap().as_secs(), 1);
        for bad in ["0ms", "ms", "-1ms", "0", ""] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("15m").unwrap().as_secs(), 900);
        assert_eq!(parse_duration("7d").unwrap().as_secs(), 604_800);
        for bad in ["", "m", "0", "1y", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
