//! Roles: `up`, `init`, `join`, `signaling`, `gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use portway_protocol::id::{ClusterName, NodeId};

use super::Exposed;

/// Where browsers meet. What is not given here may stand in the configuration file.
#[derive(Debug, Default, Args)]
pub(crate) struct Web {
    /// Name of the cluster, part of every address [default: that of the state directory, or home]
    #[arg(long, env = "PORTWAY_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// Address of the web and signaling server [default: 127.0.0.1:8080]
    #[arg(long, env = "PORTWAY_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Domain that points here, with a wildcard below it; needs a certificate
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// Certificate chain (PEM) for the domain and its wildcard
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// STUN or TURN server for both ends, e.g. stun:stun.example.org:3478; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) ice_server: Vec<String>,
    /// Do not answer STUN on the listening port over UDP (behind a proxy that forwards only HTTP);
    /// `up` does not relay either then
    #[arg(long)]
    pub(crate) no_stun: bool,
    /// User name for the TURN servers given
    #[arg(long, env = "PORTWAY_TURN_USERNAME", value_name = "NAME")]
    pub(crate) turn_username: Option<String>,
    /// File with the password for the TURN servers given
    #[arg(long, env = "PORTWAY_TURN_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) turn_password_file: Option<PathBuf>,
}

/// `portway up`.
#[derive(Debug, Default, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) web: Web,
    /// A service, e.g. lab=http://127.0.0.1:8888; may be repeated. Without any: a demo
    #[arg(long, value_name = "NAME=TARGET")]
    pub(crate) expose: Vec<Exposed>,
    /// Do not relay for those who find no direct path
    #[arg(long)]
    pub(crate) no_relay: bool,
}

/// `portway init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the cluster, part of every address [default: home]
    #[arg(long, env = "PORTWAY_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// Ask for a passphrase, under which the key is kept; with --passphrase-file it is anyway
    #[arg(long)]
    pub(crate) encrypt: bool,
}

/// `portway join`.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// File with the join token, as `portway token issue join` printed it; `-` is standard input
    #[arg(
        long,
        default_value = "-",
        env = "PORTWAY_JOIN_TOKEN_FILE",
        value_name = "FILE"
    )]
    pub(crate) token_file: PathBuf,
    /// Name of this machine in the cluster [default: that of the token, or else the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeId>,
    /// Authority (PEM) of signaling's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// `portway signaling`. Whom it believes stands in the configuration file, under `[signaling]`.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "The file of `--config` names the cluster's key, and relays if there are any:\n\n  cluster = \"home\"\n  listen = \"0.0.0.0:443\"\n  domain = \"example.org\"\n  tls_cert = \"chain.pem\"\n  tls_key = \"key.pem\"\n\n  [signaling]\n  cluster_keys = [\"KEY\"]            # as `portway init` printed it\n\n  [[signaling.relays]]\n  urls = [\"turn:relay.example.org:3478?transport=udp\"]\n  secret_file = \"relay.secret\""
)]
pub(crate) struct Signaling {
    #[command(flatten)]
    pub(crate) web: Web,
}

/// `portway gateway`. It knows its cluster from `portway join`, or from the configuration file, under
/// `[gateway]`.
#[derive(Debug, Default, Args)]
#[command(
    after_help = "After `portway join` it needs no file. Without that, the file of `--config`:\n\n  cluster = \"home\"\n\n  [gateway]\n  cluster_key = \"KEY\"               # as `portway init` printed it\n  signaling = [\"https://home.example.org\"]\n  machine_token_file = \"machine.token\"\n\n  [services]\n  lab = \"http://127.0.0.1:8888\"\n\nWithout a machine token it says how to make one."
)]
pub(crate) struct Gateway {
    /// A service, e.g. lab=http://127.0.0.1:8888; may be repeated. Without any, here and in the file: a demo
    #[arg(long, value_name = "NAME=TARGET")]
    pub(crate) expose: Vec<Exposed>,
}
