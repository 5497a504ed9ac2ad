//! Where a server is: `turn:host:3478?transport=udp` (RFC 7064, RFC 7065).

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream within TLS.
    Tls,
}

/// What is expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Addresses only.
    Stun,
    /// Relayed addresses, too.
    Turn,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// What is expected there.
    pub service: Service,
    /// How it is spoken to.
    pub transport: Transport,
    /// Name or address, an IPv6 one without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What is not such a URL, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}, e.g. turn:turn.example.org:3478?transport=udp")]
pub struct NoUrl {
    text: String,
    why: &'static str,
}

/// Port of `stun:` and `turn:`.
const PORT: u16 = 3478;

/// Port of `stuns:` and `turns:`.
const TLS_PORT: u16 = 5349;

impl std::str::FromStr for Url {
    type Err = NoUrl;

    fn from_str(text: &str) -> Result<Self, NoUrl> {
        let wrong = |why| NoUrl {
            text: text.to_owned(),
            why,
        };
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| wrong("expected stun:, turn: or turns: and HOST[:PORT]"))?;
        // Some write it like an address of the web.
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (service, is_secure) = match scheme {
            "stun" => (Service::Stun, false),
            "stuns" => (Service::Stun, true),
            "turn" => (Service::Turn, false),
            "turns" => (Service::Turn, true),
            _ => return Err(wrong("expected stun:, stuns:, turn: or turns:")),
        };
        let transport = match (query, is_secure) {
            (None, false) | (Some("transport=udp"), false) => Transport::Udp,
            (Some("transport=tcp"), false) => Transport::Tcp,
            (None, true) | (Some("transport=tcp"), true) => Transport::Tls,
            (Some("transport=udp"), true) => {
                return Err(wrong("DTLS cannot be tried: use transport=tcp"));
            }
            (Some(_), _) => {
                return Err(wrong("after `?`, expected transport=udp or transport=tcp"));
            }
        };
        let default = if is_secure { TLS_PORT } else { PORT };
        let (host, port) = place_of(place, default).ok_or_else(|| wrong("expected HOST[:PORT]"))?;
        Ok(Self {
            service,
            transport,
            host,
            port,
        })
    }
}

/// Host and port. An IPv6 address stands in brackets.
fn place_of(place: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, after)
        }
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => default,
        None => return None,
    };
    let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
    is_host.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_browsers_are_understood() {
        let parse = |text: &str| {
            let url: Url = text.parse().unwrap();
            (url.service, url.transport, url.host, url.port)
        };
        let host = || "turn.example.org".to_owned();
        for (text, expected) in [
            (
                "stun:turn.example.org",
                (Service::Stun, Transport::Udp, host(), 3478),
            ),
            (
                "turn:turn.example.org:80?transport=tcp",
                (Service::Turn, Transport::Tcp, host(), 80),
            ),
            (
                "turn://turn.example.org?transport=udp",
                (Service::Turn, Transport::Udp, host(), 3478),
            ),
            (
                "turns:turn.example.org?transport=tcp",
                (Service::Turn, Transport::Tls, host(), 5349),
            ),
            (
                "turn:[::1]:34",
                (Service::Turn, Transport::Udp, "::1".to_owned(), 34),
            ),
            (
                "turn:[::1]",
                (Service::Turn, Transport::Udp, "::1".to_owned(), 3478),
            ),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn others_are_refused_with_an_example() {
        for text in [
            "",
            "turn",
            "turn:",
            "http://x",
            "turn:h:0",
            "turn:h:99999",
            "turn:h:1:2",
            "turn:::1",
            "turns:h?transport=udp",
            "turn:h?transport=sctp",
            "turn:[x]:1",
            "turn:[::1]1",
            "turn:u@h",
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains("turn:turn.example.org"), "{error}");
        }
    }
}
