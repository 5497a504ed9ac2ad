//! Where something is copied from or to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use portway_protocol::files::{FilePath, PathForm};
use portway_protocol::id::{NodeId, ServiceName};
use portway_protocol::reason::Exit;

use crate::exit::Failure;

/// One of the two ends of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Standard input or output.
    Standard,
    /// On this machine.
    Local(PathBuf),
    /// On the other one.
    Remote(Remote),
}

/// A place of a service of files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) node: Option<NodeId>,
    /// That of the link, unless it is given.
    pub(super) service: Option<ServiceName>,
    pub(super) path: FilePath,
    pub(super) form: PathForm,
}

impl Place {
    /// `-`, `[[NODE/]SERVICE]:PATH`, or a path of this machine.
    pub(super) fn of(text: &OsStr) -> Result<Self, Failure> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Standard);
        }
        let local = || Ok(Self::Local(PathBuf::from(text)));
        let Some(colon) = bytes.iter().position(|byte| *byte == b':') else {
            return local();
        };
        let Some((node, service)) = std::str::from_utf8(&bytes[..colon]).ok().and_then(site) else {
            return local();
        };
        let path = FilePath::typed(&bytes[colon + 1..]);
        let (path, form) = path
            .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", text.display())))?;
        Ok(Self::Remote(Remote {
            node,
            service,
            path,
            form,
        }))
    }
}

/// What stands before the colon, if it names a service.
fn site(text: &str) -> Option<(Option<NodeId>, Option<ServiceName>)> {
    if text.is_empty() {
        return Some((None, None));
    }
    match text.split_once('/') {
        Some((node, service)) => Some((Some(node.parse().ok()?), Some(service.parse().ok()?))),
        None => Some((None, Some(text.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Option<String> {
        match Place::of(OsStr::new(text)).unwrap() {
            Place::Remote(remote) => Some(format!(
                "{}/{}{}",
                remote.node.map(String::from).unwrap_or_default(),
                remote.service.map(String::from).unwrap_or_default(),
                remote.path.to_uri(remote.form)
            )),
            Place::Standard | Place::Local(_) => None,
        }
    }

    #[test]
    fn a_colon_after_a_service_is_another_machine() {
        assert_eq!(remote("docs:a/b").as_deref(), Some("/docs/a/b"));
        assert_eq!(remote(":/a/").as_deref(), Some("//a/"));
        assert_eq!(remote(":").as_deref(), Some("//"));
        assert_eq!(remote("nas/docs:a:b").as_deref(), Some("nas/docs/a%3Ab"));
        for local in [
            "a",
            "./docs:a",
            "/docs:a",
            "-",
            "A:b",
            "a/b/c:d",
            "my file:x",
            ".",
        ] {
            assert_eq!(remote(local), None, "{local}");
        }
    }

    #[test]
    fn nothing_leads_out() {
        let failure = Place::of(OsStr::new("docs:../x")).unwrap_err().to_string();
        assert!(failure.contains("`..`"), "{failure}");
    }
}
