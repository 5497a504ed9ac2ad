//! The command line's grammar, nothing else. [`role`]: what runs until it is told to end. [`relay`]: a relay.
//! [`link`]: links. [`client`]: what opens services of other machines. [`messages`]: message buses.

mod client;
mod duration;
mod link;
mod messages;
mod relay;
mod role;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portway_gateway::audit::Hash;
use portway_gateway::portal::Portal;
use portway_protocol::id::ServiceName;
use portway_protocol::key::PublicKey;
use portway_protocol::target::ServiceTarget;

pub(crate) use client::{Connect, Cp, Credentials, Forward, Ping};
use duration::parse_duration;
pub(crate) use duration::{Span, Wait};
pub(crate) use link::{Links, LinksCommand, Pair, Share, Terms};
pub(crate) use messages::{At, Publish, Subscribe};
pub(crate) use relay::{ListenUrl, PortRange, Rate, Relay, RelayCommand, RelayTest};
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

/// `portway expose`.
#[derive(Debug, Args)]
pub(crate) struct Expose {
    /// Name and target, e.g. lab=http://127.0.0.1:8888, nas=https://10.0.0.5, app=unix:/run/app.sock,
    /// ssh=tcp://127.0.0.1:22, dns=udp://127.0.0.1:53, docs=files:/srv/docs, bus=messages: (a message bus),
    /// hook=listen://127.0.0.1:9000 (for `connect -R`)
    #[arg(value_name = "NAME=TARGET")]
    pub(crate) service: Exposed,
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
}
