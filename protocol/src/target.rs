//! Service targets: where on the node's side a service listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// Local address of a service. Comes from the node's own configuration only, never from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ServiceTarget {
    /// `http://host:port`.
    Http(HostPort),
    /// `https://host:port`.
    Https(HostPort),
    /// `unix:/path`: HTTP over a Unix socket.
    Unix(PathBuf),
    /// `tcp://host:port`: bytes both ways, whatever they mean.
    Tcp(HostPort),
    /// `tcp+unix:/path`: the same over a Unix socket.
    TcpUnix(PathBuf),
    /// `udp://host:port`: datagrams both ways.
    Udp(HostPort),
    /// `listen://host:port`: where the node takes connections that a client serves.
    Listen(HostPort),
    /// `files:/path` or `files+rw:/path`: a directory, which the node itself serves.
    Files(PathBuf, FilesAccess),
    /// `messages:`, a message bus, which the node itself serves.
    Messages,
}

/// What visitors may do with the files of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesAccess {
    /// List and read.
    ReadOnly,
    /// Write as well.
    ReadWrite,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// HTTP: requests, and WebSockets.
    #[default]
    Http,
    /// Bytes both ways.
    Tcp,
    /// The same, from who connects to the node: the client serves them.
    Listen,
    /// Datagrams both ways.
    Udp,
}

impl ServiceKind {
    /// Refuses another kind than the one that is wanted, with what to use in its place.
    ///
    /// # Errors
    /// A reason of the class [`Usage`](crate::reason::Exit::Usage).
    pub const fn require(self, wanted: Self) -> Result<(), Reason> {
        match (wanted, self) {
            (Self::Http, Self::Http)
            | (Self::Tcp, Self::Tcp)
            | (Self::Listen, Self::Listen)
            | (Self::Udp, Self::Udp) => Ok(()),
            (Self::Listen, Self::Http | Self::Tcp | Self::Udp) => Err(Reason::ServiceNotListening),
            (Self::Http | Self::Tcp | Self::Udp, Self::Listen) => Err(Reason::ServiceListens),
            (Self::Udp, Self::Http | Self::Tcp) => Err(Reason::ServiceNotUdp),
            (Self::Http | Self::Tcp, Self::Udp) => Err(Reason::ServiceIsUdp),
            (Self::Tcp, Self::Http) => Err(Reason::ServiceIsHttp),
            (Self::Http, Self::Tcp) => Err(Reason::ServiceNotHttp),
        }
    }

    /// Whether it is the one that goes without saying.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(crate) const fn is_http(&self) -> bool {
        match self {
            Self::Http => true,
            Self::Tcp | Self::Listen | Self::Udp => false,
        }
    }
}

/// Host and port of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP or UDP port.
    pub port: u16,
}

/// The target of a message bus.
const MESSAGES: &str = "messages:";

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The scheme is missing or not one of ours.
    #[error(
        "`{0}` is not a target: use http://HOST:PORT, https://HOST:PORT or unix:/PATH for what speaks HTTP, \
         tcp://HOST:PORT, tcp+unix:/PATH or udp://HOST:PORT for everything else, files:/DIRECTORY (files+rw: if it \
         may be written) for files, messages: for a message bus, \
         listen://HOST:PORT for what a client serves"
    )]
    Scheme(String),
    /// There is no port, and none goes without saying.
    #[error("`{0}`: expected HOST:PORT after the scheme")]
    NoPort(String),
    /// Host or port is missing or malformed.
    #[error("`{0}`: expected HOST or HOST:PORT after the scheme")]
    Authority(String),
    /// A path, query or user name was given.
    #[error("`{0}`: a target has no path, query or user; the service sees the visitor's own path")]
    Extra(String),
    /// The path of a Unix socket or a directory is not absolute.
    #[error("`{0}`: the path must be absolute, from /")]
    RelativePath(String),
}

impl FromStr for ServiceTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.chars().any(char::is_control) {
            return Err(TargetError::Scheme(text.escape_debug().to_string()));
        }
        if let Some(path) = text.strip_prefix("files:") {
            return parse_path(text, path).map(|path| Self::Files(path, FilesAccess::ReadOnly));
        }
        if let Some(path) = text.strip_prefix("files+rw:") {
            return parse_path(text, path).map(|path| Self::Files(path, FilesAccess::ReadWrite));
        }
        if text.chars().any(char::is_whitespace) {
            return Err(TargetError::Scheme(text.escape_debug().to_string()));
        }
        if text == MESSAGES {
            return Ok(Self::Messages);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return parse_authority(text, rest, Some(80)).map(Self::Http);
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return parse_authority(text, rest, Some(443)).map(Self::Https);
        }
        if let Some(rest) = text.strip_prefix("tcp://") {
            return parse_authority(text, rest, None).map(Self::Tcp);
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return parse_authority(text, rest, None).map(Self::Udp);
        }
        if let Some(rest) = text.strip_prefix("listen://") {
            return parse_authority(text, rest, None).map(Self::Listen);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_path(text, path).map(Self::Unix);
        }
        if let Some(path) = text.strip_prefix("tcp+unix:") {
            return parse_path(text, path).map(Self::TcpUnix);
        }
        Err(TargetError::Scheme(text.to_owned()))
    }
}

fn parse_path(text: &str, path: &str) -> Result<PathBuf, TargetError> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(TargetError::RelativePath(text.to_owned()))
    }
}

fn parse_authority(
    text: &str,
    rest: &str,
    default_port: Option<u16>,
) -> Result<HostPort, TargetError> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(TargetError::Extra(text.to_owned()));
    }
    let malformed = || TargetError::Authority(text.to_owned());
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(malformed)?;
            host.parse::<std::net::Ipv6Addr>()
                .map_err(|_| malformed())?;
            (
                host,
                after.strip_prefix(':').or((after.is_empty()).then_some("")),
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, Some("")),
        },
    };
    let port = match port.ok_or_else(malformed)? {
        "" => default_port.ok_or_else(|| TargetError::NoPort(text.to_owned()))?,
        digits => digits.parse().map_err(|_| malformed())?,
    };
    if host.is_empty() || port == 0 {
        return Err(malformed());
    }
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}

impl HostPort {
    /// `host:port`, with brackets around an IPv6 address.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(at) => write!(f, "http://{}", at.authority()),
            Self::Https(at) => write!(f, "https://{}", at.authority()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(at) => write!(f, "tcp://{}", at.authority()),
            Self::TcpUnix(path) => write!(f, "tcp+unix:{}", path.display()),
            Self::Listen(at) => write!(f, "listen://{}", at.authority()),
            Self::Udp(at) => write!(f, "udp://{}", at.authority()),
            Self::Files(path, FilesAccess::ReadOnly) => write!(f, "files:{}", path.display()),
            Self::Files(path, FilesAccess::ReadWrite) => write!(f, "files+rw:{}", path.display()),
            Self::Messages => f.write_str(MESSAGES),
        }
    }
}

impl ServiceTarget {
    /// What is spoken there.
    #[must_use]
    pub const fn kind(&self) -> ServiceKind {
        match self {
            Self::Http(_) | Self::Https(_) | Self::Unix(_) | Self::Files(..) | Self::Messages => {
                ServiceKind::Http
            }
            Self::Tcp(_) | Self::TcpUnix(_) => ServiceKind::Tcp,
            Self::Listen(_) => ServiceKind::Listen,
            Self::Udp(_) => ServiceKind::Udp,
        }
    }
}

impl TryFrom<String> for ServiceTarget {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<ServiceTarget> for String {
    fn from(target: ServiceTarget) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_parse_and_print() {
        for (text, printed) in [
            ("http://127.0.0.1:8888", "http://127.0.0.1:8888"),
            ("http://localhost", "http://localhost:80"),
            ("https://nas.lan/", "https://nas.lan:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("tcp://[::1]:5432", "tcp://[::1]:5432"),
            ("tcp+unix:/run/db.sock", "tcp+unix:/run/db.sock"),
            ("listen://127.0.0.1:9000", "listen://127.0.0.1:9000"),
            ("udp://127.0.0.1:53", "udp://127.0.0.1:53"),
            ("files:/srv/My files", "files:/srv/My files"),
            ("files+rw:/srv", "files+rw:/srv"),
            ("messages:", "messages:"),
        ] {
            assert_eq!(text.parse::<ServiceTarget>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_not_a_target_is_refused() {
        for text in [
            "8888",
            "ftp://x",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a/path",
            "http://u@a",
            "http://a:1#x",
            "unix:rel",
            "files:rel",
            "files:/srv/a\nb",
            "files+rw:",
            "tcp+unix:rel",
            "messages",
            "messages:x",
            "tcp://nas",
            "listen://nas",
            "tcp://nas/",
            "tcp://:22",
            "udp://nas",
            "http://[::1",
            "http://a b",
            "http://a\r\nb",
            "http://[zz]:1",
        ] {
            assert!(text.parse::<ServiceTarget>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(text in "(http|https|tcp|udp)://[a-z0-9.:\\[\\]]{1,20}") {
            if let Ok(target) = text.parse::<ServiceTarget>() {
                prop_assert_eq!(target.to_string().parse::<ServiceTarget>(), Ok(target));
            }
        }
    }
}
