//! Host names of a cluster: which origin a request is for.
//!
//! Security: a request for any other name is misdirected or an attempt at DNS rebinding, and gets
//! nothing. The comparison is exact after lower-casing, with the port that we listen on.

use portway_protocol::id::{ClusterName, ServiceName};
use portway_protocol::signal::IceServer;

/// Names of one cluster below one domain.
#[derive(Debug, Clone)]
pub struct Hosts {
    cluster: ClusterName,
    domain: String,
    port: u16,
    scheme: &'static str,
}

/// What a host name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The cluster's portal.
    Portal,
    /// The holder of connections and keys.
    Holder,
    /// A service.
    Service(ServiceName),
}

impl Hosts {
    /// Names as seen by browsers at `port`.
    #[must_use]
    pub const fn new(
        cluster: ClusterName,
        domain: String,
        port: u16,
        scheme: &'static str,
    ) -> Self {
        Self {
            cluster,
            domain,
            port,
            scheme,
        }
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Which origin a `Host` header means.
    #[must_use]
    pub fn parse(&self, host: &str) -> Option<Origin> {
        let host = host.to_ascii_lowercase();
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (host.as_str(), self.default_port()),
        };
        if port != self.port {
            return None;
        }
        let label = name.strip_suffix(&self.domain)?.strip_suffix('.')?;
        let cluster = self.cluster.as_str();
        if label == cluster {
            return Some(Origin::Portal);
        }
        let service = label
            .strip_suffix(cluster)
            .and_then(|rest| rest.strip_suffix('.').or_else(|| rest.strip_suffix("--")))?;
        if service == "conn" {
            return Some(Origin::Holder);
        }
        service.parse().ok().map(Origin::Service)
    }

    /// The browser-visible origin, e.g. `http://lab.home.localhost:8080`.
    #[must_use]
    pub fn origin(&self, of: &Origin) -> String {
        let label = match of {
            Origin::Portal => String::new(),
            Origin::Holder => "conn.".to_owned(),
            Origin::Service(name) => format!("{name}."),
        };
        let port = if self.port == self.default_port() {
            String::new()
        } else {
            format!(":{}", self.port)
        };
        format!(
            "{}://{label}{}.{}{port}",
            self.scheme, self.cluster, self.domain
        )
    }

    /// Our own STUN server, on the port that we listen on.
    #[must_use]
    pub fn stun_server(&self) -> IceServer {
        IceServer {
            urls: vec![format!(
                "stun:{}.{}:{}",
                self.cluster, self.domain, self.port
            )],
            username: None,
            credential: None,
        }
    }

    /// A CSP source that matches every service origin.
    #[must_use]
    pub fn service_origins(&self) -> String {
        format!(
            "{}://*.{}.{}:{} {}://*.{}:{}",
            self.scheme, self.cluster, self.domain, self.port, self.scheme, self.domain, self.port
        )
    }

    fn default_port(&self) -> u16 {
        if self.scheme == "https" { 443 } else { 80 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new("home".parse().unwrap(), "localhost".into(), 8080, "http")
    }

    #[test]
    fn names_of_the_cluster_are_known() {
        let service = Origin::Service("lab".parse().unwrap());
        for (host, origin) in [
            ("home.localhost:8080", Origin::Portal),
            ("conn.home.localhost:8080", Origin::Holder),
            ("lab.home.localhost:8080", service.clone()),
            ("LAB.home.localhost:8080", service.clone()),
            ("lab--home.localhost:8080", service.clone()),
        ] {
            assert_eq!(hosts().parse(host), Some(origin), "{host}");
        }
        assert_eq!(hosts().origin(&service), "http://lab.home.localhost:8080");
    }

    #[test]
    fn any_other_name_is_refused() {
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "home.localhost",
            "home.localhost:81",
            "a.b.home.localhost:8080",
            "lab.home.localhost.evil:8080",
            "evilhome.localhost:8080",
            "rebind.evil",
            "www.home.localhost:8080",
            ".home.localhost:8080",
            "--home.localhost:8080",
            "",
            ":8080",
        ] {
            assert_eq!(hosts().parse(host), None, "{host}");
        }
    }

    #[test]
    fn default_ports_are_not_written() {
        let hosts = Hosts::new("home".parse().unwrap(), "example.org".into(), 443, "https");
        assert_eq!(hosts.origin(&Origin::Portal), "https://home.example.org");
        assert_eq!(hosts.parse("home.example.org"), Some(Origin::Portal));
    }
}
