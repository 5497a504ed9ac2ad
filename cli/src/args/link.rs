//! What makes links and lists them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use portway_protocol::id::{GrantId, NodeId, ServiceName};
use portway_protocol::permission::Permission;
use portway_protocol::token::user::Devices;

use super::parse_duration;

/// `portway share`.
#[derive(Debug, Args)]
pub(crate) struct Share {
    /// Service that it opens, as `portway services` names it
    #[arg(value_name = "SERVICE")]
    pub(crate) service: ServiceName,
    /// Where a link cannot be sent: wait for the other device, and compare six digits by voice
    #[arg(long)]
    pub(crate) pair: bool,
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
    /// How long it is valid: 30s, 15m, 2h, 7d
    #[arg(long = "for", default_value = "24h", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) lifetime: Duration,
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
