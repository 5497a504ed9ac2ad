//! Names under which a local listener may be asked by HTTP.

use std::net::{IpAddr, SocketAddr};

use ::http::Request;
use ::http::header;
use hyper::body::Incoming;

use super::local::LocalAddress;

/// The hosts that a request may be for.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    names: Vec<String>,
    port: Port,
}

/// The port that has to be in the host.
#[derive(Debug, Clone, Copy)]
enum Port {
    Is(u16),
    /// There is none that would mean anything.
    Any,
}

impl Hosts {
    /// Those of a listener.
    pub(super) fn of(address: &LocalAddress) -> Self {
        match address {
            LocalAddress::Tcp(address) => Self::of_tcp(*address),
            // No browser comes by a Unix socket.
            LocalAddress::Unix(_) => Self {
                names: vec!["localhost".to_owned()],
                port: Port::Any,
            },
        }
    }

    /// A name that was asked for by it.
    pub(super) fn only(name: &str) -> Self {
        Self {
            names: vec![name.to_ascii_lowercase()],
            port: Port::Any,
        }
    }

    /// This machine's own names, and the address listened on if there is just one.
    fn of_tcp(address: SocketAddr) -> Self {
        let mut names = ["localhost", "127.0.0.1", "[::1]"]
            .map(str::to_owned)
            .to_vec();
        if !address.ip().is_unspecified() {
            names.push(match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        Self {
            names,
            port: Port::Is(address.port()),
        }
    }

    /// Whether a request is for one of them, and says so only once.
    pub(super) fn are_meant(&self, request: &Request<Incoming>) -> bool {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let target = request.uri().authority().map(|target| target.as_str());
        hosts.next().is_none()
            && host.is_some_and(|host| self.contain(host))
            && target.is_none_or(|target| self.contain(target))
    }

    fn contain(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let name = match self.port {
            Port::Is(port) => match host.strip_suffix(&format!(":{port}")) {
                Some(name) => name,
                // Nobody writes the default port.
                None if port == 80 => &host,
                None => return false,
            },
            Port::Any => match host.rsplit_once(':') {
                Some((name, port)) if port.parse::<u16>().is_ok() => name,
                Some(_) | None => &host,
            },
        };
        self.names.iter().any(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_s_own_names_are_meant() {
        let hosts = Hosts::of_tcp(([127, 0, 0, 1], 8080).into());
        for good in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "LOCALHOST:8080",
        ] {
            assert!(hosts.contain(good), "{good}");
        }
        for bad in [
            "localhost",
            "localhost:80",
            "localhost:80800",
            "evil.example:8080",
            "localhost.evil.example:8080",
            "evil.localhost:8080",
            "127.0.0.1:8081",
            "127.0.0.2:8080",
            ":8080",
            "",
        ] {
            assert!(!hosts.contain(bad), "{bad}");
        }
    }

    #[test]
    fn the_address_listened_on_is_meant_too() {
        let one = Hosts::of_tcp(([192, 0, 2, 7], 80).into());
        assert!(one.contain("192.0.2.7") && one.contain("192.0.2.7:80"));
        let all = Hosts::of_tcp(([0, 0, 0, 0], 8080).into());
        assert!(!all.contain("0.0.0.0:8080"));
        let six = Hosts::of_tcp("[2001:db8::7]:8080".parse().unwrap());
        assert!(six.contain("[2001:db8::7]:8080"));
    }

    #[test]
    fn what_was_asked_for_by_name_is_meant_at_any_port() {
        let lab = Hosts::only("Lab.Home");
        assert!(
            lab.contain("lab.home") && lab.contain("lab.home:80") && lab.contain("LAB.home:8443")
        );
        for bad in [
            "lab",
            "lab.home:x",
            "lab.home.evil.example",
            "localhost",
            "",
        ] {
            assert!(!lab.contain(bad), "{bad}");
        }
    }
}
