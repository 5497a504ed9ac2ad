//! What opens services of other machines.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use portway_gateway::Limits;
use portway_gateway::tunnel::LocalAddress;
use portway_protocol::id::ServiceName;

use super::duration::{parse_duration, parse_interval};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
