//! Addresses of services with the link that opens them, as `portway up` prints them.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use portway_protocol::enrolment::grant_of_node;
use portway_protocol::id::{ClusterName, GrantId, IdError, ServiceName};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::link::{Link, LinkError};

use crate::config::SignalingEndpoint;
use crate::portal::Portal;

/// A parsed `https://SERVICE.CLUSTER.DOMAIN/#v1.…`. Its `Debug` hides the secret.
#[derive(Debug, Clone)]
pub struct ServiceAddress {
    /// Where the service is.
    pub site: Site,
    /// What opens it.
    pub credential: Credential,
}

/// A service's own origin, `https://SERVICE.CLUSTER.DOMAIN`.
#[derive(Debug, Clone)]
pub struct Site {
    /// The service.
    pub service: ServiceName,
    /// Its cluster.
    pub cluster: ClusterName,
    /// How signaling is spoken to.
    pub scheme: Scheme,
    origin: String,
    /// `Host` of the holder origin, where signaling is; with the port unless it is the default one.
    holder: String,
    /// The name in it.
    name: String,
    port: u16,
}

/// What opens a service: that of a link, or a key that a grant is bound to.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Cluster that the service belongs to.
    pub cluster: ClusterName,
    /// The cluster's key, by which its nodes are believed.
    pub cluster_key: PublicKey,
    /// The grant.
    pub grant: GrantId,
    /// Key that the grant is bound to.
    pub key: SigningKey,
}

impl From<&Link> for Credential {
    fn from(link: &Link) -> Self {
        Self {
            cluster: link.cluster.clone(),
            cluster_key: link.cluster_key,
            grant: link.grant,
            key: link.grant_key(),
        }
    }
}

/// Whether signaling speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// It does not: loopback.
    Http,
    /// It does.
    Https,
}

/// Why a text is no address of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form of one.
    #[error(
        "expected a whole link, https://SERVICE.CLUSTER.DOMAIN/#v1.…, as `portway up` prints it"
    )]
    Form,
    /// The link in it is damaged.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its first part names no service.
    #[error(transparent)]
    Service(#[from] IdError),
    /// The link opens services of another cluster than the one that the address names.
    #[error("the link is for another cluster than its address")]
    OtherCluster,
}

impl ServiceAddress {
    /// A service of another node that lets the holder of a node key in; the cluster, with its key, meets at the
    /// portal.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn of_node(
        portal: &Portal,
        (cluster, cluster_key): (&ClusterName, PublicKey),
        service: &ServiceName,
        key: &SigningKey,
    ) -> Result<Self, AddressError> {
        let credential = Credential {
            cluster: cluster.clone(),
            cluster_key,
            grant: grant_of_node(&key.public(), service),
            key: key.clone(),
        };
        Self::new(&portal.service(service), credential)
    }

    /// A service at `https://SERVICE.CLUSTER.DOMAIN`, and what opens it.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn new(url: &str, credential: Credential) -> Result<Self, AddressError> {
        let site: Site = url.parse()?;
        if site.cluster != credential.cluster {
            return Err(AddressError::OtherCluster);
        }
        Ok(Self { site, credential })
    }
}

impl Site {
    /// Scheme, host and port, as browsers write them.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// `Host` of the holder origin.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Where signaling is if that needs no looking up: names below `localhost` are this machine
    /// (RFC 6761 §6.3), and few resolvers know.
    #[must_use]
    pub fn on_this_machine(&self) -> Option<SocketAddr> {
        self.name
            .ends_with(".localhost")
            .then(|| (Ipv4Addr::LOCALHOST, self.port).into())
    }

    /// Where signaling is spoken to. `tls`: whom to believe, where it speaks TLS.
    pub(super) fn signaling(&self, tls: Option<&Arc<rustls::ClientConfig>>) -> SignalingEndpoint {
        SignalingEndpoint {
            host: self.holder.clone(),
            address: self.on_this_machine(),
            tls: match self.scheme {
                Scheme::Https => tls.cloned(),
                Scheme::Http => None,
            },
        }
    }
}

impl FromStr for Site {
    type Err = AddressError;

    /// From any address below it.
    fn from_str(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Form)?;
        let (scheme, default_port) = match scheme {
            "http" => (Scheme::Http, 80),
            "https" => (Scheme::Https, 443),
            _ => return Err(AddressError::Form),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let authority = authority.to_ascii_lowercase();
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| AddressError::Form)?),
            None => (authority.as_str(), default_port),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
        if !name.chars().all(is_name) {
            return Err(AddressError::Form);
        }
        let (service, after) = split(name).ok_or(AddressError::Form)?;
        let (cluster, domain) = after
            .trim_start_matches(['.', '-'])
            .split_once('.')
            .ok_or(AddressError::Form)?;
        if domain.is_empty() {
            return Err(AddressError::Form);
        }
        let scheme_name = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        let with_port = |name: &str| {
            if port == default_port {
                name.to_owned()
            } else {
                format!("{name}:{port}")
            }
        };
        let holder = format!("conn{after}");
        Ok(Self {
            service: service.parse()?,
            cluster: cluster.parse()?,
            scheme,
            origin: format!("{scheme_name}://{}", with_port(name)),
            holder: with_port(&holder),
            name: holder,
            port,
        })
    }
}

impl FromStr for ServiceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (url, fragment) = text.trim().split_once('#').ok_or(AddressError::Form)?;
        let link: Link = fragment.parse()?;
        Self::new(url, Credential::from(&link))
    }
}

/// `service` and `.cluster.domain`, or `service` and `--cluster.domain`.
fn split(name: &str) -> Option<(&str, &str)> {
    let dot = name.find('.')?;
    let at = name[..dot].find("--").unwrap_or(dot);
    Some(name.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "v1.home.iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w.AgICAgICAgIC.AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM";

    fn parse(url: &str) -> Result<ServiceAddress, AddressError> {
        format!("{url}#{LINK}").parse()
    }

    #[test]
    fn the_holder_is_beside_the_service() {
        for (url, holder, service) in [
            (
                "http://demo.home.localhost:8080/",
                "conn.home.localhost:8080",
                "demo",
            ),
            (
                "https://lab.home.example.org/",
                "conn.home.example.org",
                "lab",
            ),
            (
                "https://Lab.home.example.org:443",
                "conn.home.example.org",
                "lab",
            ),
            (
                "https://lab--home.example.org/a?b",
                "conn--home.example.org",
                "lab",
            ),
        ] {
            let address = parse(url).unwrap();
            assert_eq!(address.site.holder(), holder, "{url}");
            assert_eq!(address.site.service.as_str(), service, "{url}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_do() {
        for (url, origin) in [
            (
                "http://Lab.home.localhost:80/x?y",
                "http://lab.home.localhost",
            ),
            (
                "https://lab--home.example.org:8443",
                "https://lab--home.example.org:8443",
            ),
        ] {
            let site: Site = url.parse().unwrap();
            assert_eq!(site.origin(), origin);
            assert_eq!(site.cluster.as_str(), "home");
        }
    }

    #[test]
    fn only_names_of_this_machine_need_no_looking_up() {
        let local = parse("http://demo.home.localhost:8080/").unwrap();
        assert_eq!(
            local.site.on_this_machine(),
            Some(([127, 0, 0, 1], 8080).into())
        );
        let other = parse("https://lab.home.example.org/").unwrap();
        assert_eq!(other.site.on_this_machine(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "lab.home.example.org",
            "ftp://lab.home.example.org/",
            "https://lab/",
            "https://lab.home/",
            "https://lab.home./",
            "https://user@lab.home.example.org/",
            "https://lab.home.example.org:x/",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
        assert_eq!(
            parse("https://lab.work.example.org/").unwrap_err(),
            AddressError::OtherCluster
        );
        assert!(parse("https://conn.home.example.org/").is_err());
        assert!(
            "https://lab.home.example.org/"
                .parse::<ServiceAddress>()
                .is_err()
        );
    }

    #[test]
    fn debug_hides_the_secret() {
        let address = parse("https://lab.home.example.org/").unwrap();
        assert!(!format!("{address:?}").contains("AwMDAw"));
    }
}
