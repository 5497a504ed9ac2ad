//! The portal's origin, from which the other names of a cluster below that domain follow.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use portway_protocol::id::{ClusterName, ServiceName};
use serde::{Deserialize, Serialize};

use crate::config::SignalingEndpoint;

/// `https://{cluster}.{domain}`; on one machine `http://{cluster}.localhost:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Portal {
    scheme: Scheme,
    /// With the port, if it is not the default one.
    host: String,
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// A host that browsers take for secure without TLS is this, or below it.
const LOCALHOST: &str = "localhost";

impl Scheme {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Portal {
    /// Whether this is the portal of a cluster of that name.
    #[must_use]
    pub fn is_of(&self, cluster: &ClusterName) -> bool {
        let rest = self.host.strip_prefix(cluster.as_str());
        rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
    }

    /// The origin of a service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> String {
        format!("{}://{name}.{}", self.scheme(), self.host)
    }

    /// Host of the holder's origin, where gateways connect, too.
    #[must_use]
    pub fn holder_host(&self) -> String {
        format!("conn.{}", self.host)
    }

    /// Where its names lead if this machine is meant: not every system knows names below `localhost`
    /// (RFC 6761 §6.3).
    #[must_use]
    pub fn loopback(&self) -> Option<SocketAddr> {
        let (name, port) = match self.host.split_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (self.host.as_str(), self.scheme.default_port()),
        };
        let is_local = name.rsplit('.').next() == Some(LOCALHOST);
        is_local.then(|| (Ipv4Addr::LOCALHOST, port).into())
    }

    /// Signaling there, as a gateway finds it.
    #[must_use]
    pub fn endpoint(&self, tls: &Arc<rustls::ClientConfig>) -> SignalingEndpoint {
        SignalingEndpoint {
            host: self.holder_host(),
            address: self.loopback(),
            tls: self.is_secure().then(|| tls.clone()),
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        match self.scheme {
            Scheme::Http => false,
            Scheme::Https => true,
        }
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)
    }
}

impl FromStr for Portal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}`: expected the portal of the cluster, e.g. https://home.example.org, or on one \
                 machine http://home.localhost:8080"
            )
        };
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else {
            return Err(wrong());
        };
        let default_port = scheme.default_port();
        let host = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
        let (name, port) = match host.split_once(':') {
            Some((name, port)) => (name, port.parse::<u16>().map_err(|_| wrong())?),
            None => (host.as_str(), default_port),
        };
        let is_label = |label: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            !label.is_empty() && label.len() <= 63 && label.chars().all(is_plain)
        };
        let labels: Vec<&str> = name.split('.').collect();
        if labels.len() < 2 || !labels.iter().all(|label| is_label(label)) || port == 0 {
            return Err(wrong());
        }
        if scheme == Scheme::Http && labels.last() != Some(&LOCALHOST) {
            return Err(format!(
                "`{text}`: without TLS only names below `localhost` are secure; use https://"
            ));
        }
        let host = if port == default_port {
            name.to_owned()
        } else {
            format!("{name}:{port}")
        };
        Ok(Self { scheme, host })
    }
}

impl TryFrom<String> for Portal {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Portal> for String {
    fn from(portal: Portal) -> Self {
        portal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_portal() {
        let portal: Portal = "https://Home.Example.org:443/".parse().unwrap();
        assert_eq!(portal.to_string(), "https://home.example.org");
        assert_eq!(portal.holder_host(), "conn.home.example.org");
        let lab = portal.service(&"lab".parse().unwrap());
        assert_eq!(lab, "https://lab.home.example.org");
        assert!(portal.is_of(&"home".parse().unwrap()));
        assert!(!portal.is_of(&"hom".parse().unwrap()));
        let local: Portal = "http://home.localhost:8080".parse().unwrap();
        assert_eq!(local.holder_host(), "conn.home.localhost:8080");
        assert_eq!(local.loopback(), Some(([127, 0, 0, 1], 8080).into()));
        assert_eq!(portal.loopback(), None);
    }

    #[test]
    fn what_is_no_portal_is_refused() {
        for wrong in [
            "home.example.org",
            "ftp://home.example.org",
            "http://home.example.org",
            "https://home",
            "https://home.example.org/path",
            "https://user@home.example.org",
            "https://home..org",
            "https://home.example.org:0",
            "https://",
        ] {
            assert!(wrong.parse::<Portal>().is_err(), "{wrong}");
        }
    }
}
