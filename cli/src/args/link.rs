//! What makes links and lists them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use portway_protocol::id::{GrantId, NodeId, ServiceName};
use portway_protocol::permission::Permission;
use portway_protocol::token::user::Devices;

use super::duration::parse_duration;
use crate::links::MAX_NODE_LIFETIME;

/// How long a link is valid unless told otherwise.
const LINK_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// `portway share`.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Service that it opens, as `portway services` names it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: ServiceName,
    /// Where a link cannot be sent: wait for the other device, and compare six digits by voice
    #[arg(long)]
    pub(crate) pair: bool,
    /// To this node of the cluster, for good or as long as --for says, in place of a link: it opens the service by
    /// its own key, e.g. with `portway connect SERVICE`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["pair", "once", "user"])]
    pub(crate) to_node: Option<NodeId>,
    #[command(flatten)]
    pub(crate) terms: Terms,
}

/// `portway pair`.
#[derive(Debug, Args)]
pub(crate) struct Pair {
    /// Address of the service, as its owner tells it: `https://SERVICE.CLUSTER.DOMAIN`
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Node that shall be paired with [default: any that waits]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeId>,
    /// Authority (PEM) of signaling's certificate [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// What a link allows, to whom, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// How long it is valid: 30s, 15m, 2h, 7d [default: 24h; a node's: 366d]
    #[arg(long = "for", value_parser = parse_duration, value_name = "DURATION")]
    lifetime: Option<Duration>,
    /// Only the first device that opens it may use it
    #[arg(long)]
    pub(crate) once: bool,
    /// Allowed methods, e.g. GET,HEAD [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parse_method, value_name = "LIST")]
    pub(crate) methods: Option<Vec<String>>,
    /// Allowed paths, exact or a prefix that ends in *; may be repeated [default: all]
    #[arg(long = "path", value_parser = parse_path, value_name = "GLOB")]
    pub(crate) paths: Option<Vec<String>>,
    /// Who it is for; the service sees it as X-Portway-User
    #[arg(long, default_value = "guest", value_name = "NAME")]
    pub(crate) user: String,
}

impl Terms {
    /// How long a link is valid.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime.unwrap_or(LINK_LIFETIME)
    }

    /// How long a node may come.
    pub(crate) fn node_lifetime(&self) -> Duration {
        self.lifetime.unwrap_or(MAX_NODE_LIFETIME)
    }

    /// What it allows on a service.
    pub(crate) fn permission(&self, service: &ServiceName) -> Permission {
        Permission {
            name: service.clone(),
            methods: self.methods.clone(),
            paths: self.paths.clone(),
        }
    }

    /// Where it may be opened.
    pub(crate) const fn devices(&self) -> Devices {
        if self.once {
            Devices::First
        } else {
            Devices::Any
        }
    }
}

/// `portway links`.
#[derive(Debug, Args)]
pub(crate) struct Links {
    #[command(subcommand)]
    pub(crate) command: Option<LinksCommand>,
}

/// `portway links …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LinksCommand {
    /// Revoke a link: what it opened is closed at once
    Revoke {
        /// Id of the link, as `portway links` lists it
        #[arg(value_name = "ID")]
        link: GrantId,
    },
}

/// A method (RFC 9110 §9.1), in capitals.
fn parse_method(text: &str) -> Result<String, String> {
    let method = text.to_ascii_uppercase();
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '-';
    if method.is_empty() || !method.chars().all(is_name) {
        return Err(format!("`{text}` is no method: use GET,HEAD,POST …"));
    }
    Ok(method)
}

/// A path, or the beginning of one.
fn parse_path(text: &str) -> Result<String, String> {
    let prefix = text.strip_suffix('*').unwrap_or(text);
    if !prefix.starts_with('/') || prefix.contains(['*', '?', '#']) {
        return Err(format!(
            "`{text}` is no path: it begins with `/`, and may end in `*` for all that begin so"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_in_capitals() {
        assert_eq!(parse_method("get").unwrap(), "GET");
        for wrong in ["", "GET ", "G*"] {
            assert!(parse_method(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_is_whole_or_a_beginning() {
        for right in ["/", "/*", "/d/*", "/d/a*"] {
            assert_eq!(parse_path(right).unwrap(), right);
        }
        for wrong in ["", "*", "d/*", "/*/x", "/a?b", "/a#b"] {
            assert!(parse_path(wrong).is_err(), "{wrong}");
        }
    }
}
