//! Files of a service: how they are named, listed and digested (`docs/protocol.md` §12).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};

/// Longest name of a file, bytes: what file systems have.
pub const MAX_NAME: usize = 255;

/// Names in a path.
pub const MAX_DEPTH: usize = 64;

/// Longest path, bytes of names and separators: what systems take.
pub const MAX_PATH: usize = 4096;

/// Entries of one listing; more come with the next.
pub const MAX_ENTRIES: usize = 1000;

/// Longest name of an upload, see [`UPLOAD_QUERY`].
pub const MAX_UPLOAD_KEY: usize = 64;

/// How a name begins that no file of a service has: those of transfers that are not complete.
pub const PARTIAL_PREFIX: &str = ".portway-partial-";

/// Header of every answer of a service of files; no other service can send it.
pub const FILES_HEADER: &str = "portway-files";

/// Header: when a file was modified, milliseconds since 1970.
pub const MODIFIED_HEADER: &str = "portway-modified";

/// Header: whether a file may be run, `?1` or `?0`.
pub const EXECUTABLE_HEADER: &str = "portway-executable";

/// Header: where an upload goes on, and how long what is uploaded has come to be.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// Header: length of the whole that is uploaded.
pub const UPLOAD_LENGTH: &str = "upload-length";

/// Header of RFC 9530: wants [`REPR_DIGEST`].
pub const WANT_REPR_DIGEST: &str = "want-repr-digest";

/// Header or trailer of RFC 9530: digest of the whole file.
pub const REPR_DIGEST: &str = "repr-digest";

/// Parameter of a query that names an upload, so that it can be found again.
pub const UPLOAD_QUERY: &str = "upload";

/// Parameter of a query: a listing begins after this name.
pub const AFTER_QUERY: &str = "after";

/// Media type of a [`Listing`].
pub const LISTING_TYPE: &str = "application/json";

/// Everything but the unreserved characters (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why something is no path of a service's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A name is empty.
    #[error("it has a name without characters")]
    Empty,
    /// `.` or `..`.
    #[error("it has `.` or `..` for a name")]
    Dots,
    /// A name has a separator or a zero in it.
    #[error("it has a name with a slash or a zero in it")]
    Separator,
    /// A name is longer than [`MAX_NAME`].
    #[error("it has a name of more than {MAX_NAME} bytes")]
    NameTooLong,
    /// More than [`MAX_DEPTH`] names, or longer than [`MAX_PATH`].
    #[error("it has more than {MAX_DEPTH} names, or {MAX_PATH} bytes")]
    TooLong,
    /// A name that begins with [`PARTIAL_PREFIX`].
    #[error("names that begin with `{PARTIAL_PREFIX}` are those of transfers under way")]
    Partial,
}

/// Name of a file or directory: bytes, as the system has them. Written percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(Vec<u8>);

impl FileName {
    /// Checks that the bytes are one name, which leads nowhere else.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        match bytes.as_slice() {
            b"" => Err(PathError::Empty),
            b"." | b".." => Err(PathError::Dots),
            name if name.iter().any(|byte| [b'/', 0].contains(byte)) => Err(PathError::Separator),
            name if name.len() > MAX_NAME => Err(PathError::NameTooLong),
            name if name.starts_with(PARTIAL_PREFIX.as_bytes()) => Err(PathError::Partial),
            _ => Ok(Self(bytes)),
        }
    }

    /// From its percent-encoded form.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn decode(text: &str) -> Result<Self, PathError> {
        Self::new(percent_decode_str(text).collect::<Vec<u8>>())
    }

    /// As the system has it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For people: what is no text is replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent_encode(&self.0, RESERVED).fmt(f)
    }
}

impl TryFrom<String> for FileName {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        Self::decode(&text)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.to_string()
    }
}

/// What a path is said to lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathForm {
    /// It does not say: a file, or a directory.
    Plain,
    /// It ends in a slash: a directory.
    Directory,
}

/// Way from a service's root to a file or directory. That of the root has no names.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(Vec<FileName>);

impl FilePath {
    /// From the path of a URI.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn decode(path: &str) -> Result<(Self, PathForm), PathError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok((Self::default(), PathForm::Directory));
        }
        let (path, form) = match path.strip_suffix('/') {
            Some(path) => (path, PathForm::Directory),
            None => (path, PathForm::Plain),
        };
        let names = path.split('/').map(FileName::decode);
        Ok((Self::of(names)?, form))
    }

    /// From what somebody has typed: not encoded, and names like `.` say nothing.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn typed(path: &[u8]) -> Result<(Self, PathForm), PathError> {
        let names = path.split(|byte| *byte == b'/');
        let form = match names.clone().next_back() {
            Some(b"" | b".") | None => PathForm::Directory,
            Some(_) => PathForm::Plain,
        };
        let names = names.filter(|name| ![&b""[..], b"."].contains(name));
        Ok((Self::of(names.map(FileName::new))?, form))
    }

    fn of(names: impl Iterator<Item = Result<FileName, PathError>>) -> Result<Self, PathError> {
        let mut path = Self::default();
        for name in names {
            path = path.join(name?)?;
        }
        Ok(path)
    }

    /// That of an entry of this directory.
    ///
    /// # Errors
    /// [`PathError::TooLong`].
    pub fn join(&self, name: FileName) -> Result<Self, PathError> {
        let mut names = self.0.clone();
        names.push(name);
        let length: usize = names.iter().map(|name| name.0.len() + 1).sum();
        if names.len() > MAX_DEPTH || length > MAX_PATH {
            return Err(PathError::TooLong);
        }
        Ok(Self(names))
    }

    /// The directory that it is in, and its name there; none for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &FileName)> {
        let (name, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), name))
    }

    /// Its names, from the root.
    #[must_use]
    pub fn names(&self) -> &[FileName] {
        &self.0
    }

    /// Path of a URI.
    #[must_use]
    pub fn to_uri(&self, form: PathForm) -> String {
        let mut path: String = self.0.iter().map(|name| format!("/{name}")).collect();
        if form == PathForm::Directory || path.is_empty() {
            path.push('/');
        }
        path
    }

    /// For people: what is no text is replaced.
    #[must_use]
    pub fn to_text(&self) -> String {
        let names: Vec<_> = self.0.iter().map(FileName::to_text).collect();
        names.join("/")
    }
}

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A file with content.
    File,
    /// A directory.
    Directory,
    /// Something that cannot be copied: a device, a socket, a link that leads out of the root.
    Other,
}

/// Whether a name is that of the thing itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// It is.
    #[default]
    Itself,
    /// A symbolic link leads to it.
    Link,
}

/// What is known of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Length, bytes.
    pub size: u64,
    /// When it was modified, milliseconds since 1970.
    pub modified_ms: i64,
    /// Whether somebody may run it.
    pub executable: bool,
    /// Strong validator (RFC 9110 §8.8.3), with its quotes: changes when the content does.
    pub etag: String,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: FileName,
    /// What it is, or what the link leads to.
    pub kind: EntryKind,
    /// Whether it is a link.
    #[serde(default)]
    pub via: Via,
    /// What is known of it, or of what the link leads to.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// Entries of a directory, by the bytes of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// At most [`MAX_ENTRIES`].
    pub entries: Vec<Entry>,
    /// There are more after the last.
    pub more: bool,
}

/// SHA-256 of a whole file. Shown in hexadecimal, as `sha256sum` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Value of `Repr-Digest` (RFC 9530 §3).
    #[must_use]
    pub fn to_field(&self) -> String {
        format!("sha-256=:{}:", STANDARD.encode(self.0))
    }

    /// From such a value, which may have digests of other kinds beside.
    #[must_use]
    pub fn from_field(field: &str) -> Option<Self> {
        field.split(',').find_map(|member| {
            let encoded = member.trim().strip_prefix("sha-256=:")?.strip_suffix(':')?;
            let digest = STANDARD.decode(encoded).ok()?;
            digest.try_into().ok().map(Self)
        })
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_uris_are_decoded() {
        let text = |path: &str| FilePath::decode(path).map(|(path, form)| (path.to_text(), form));
        for (uri, path, form) in [
            ("/", "", PathForm::Directory),
            ("/a", "a", PathForm::Plain),
            ("/a%20b/%23/", "a b/#", PathForm::Directory),
            ("/%2E%2e%2e", "...", PathForm::Plain),
        ] {
            assert_eq!(text(uri), Ok((path.to_owned(), form)), "{uri}");
        }
        for (uri, error) in [
            ("//", PathError::Empty),
            ("/a//b", PathError::Empty),
            ("/..", PathError::Dots),
            ("/a/%2e%2E/b", PathError::Dots),
            ("/./a", PathError::Dots),
            ("/a%2Fb", PathError::Separator),
            ("/a%00", PathError::Separator),
            ("/.portway-partial-x", PathError::Partial),
            ("/%2eportway-partial-x/y", PathError::Partial),
        ] {
            assert_eq!(text(uri), Err(error), "{uri}");
        }
        assert_eq!(text(&"/a".repeat(65)), Err(PathError::TooLong));
        assert_eq!(
            text(&format!("/{}", "a".repeat(256))),
            Err(PathError::NameTooLong)
        );
        assert_eq!(
            text(&format!("/{}", "a".repeat(255)).repeat(20)),
            Err(PathError::TooLong)
        );
    }

    #[test]
    fn typed_paths_are_taken_as_they_are() {
        let typed = |path: &str| {
            let (path, form) = FilePath::typed(path.as_bytes())?;
            Ok::<_, PathError>(path.to_uri(form))
        };
        assert_eq!(typed("").unwrap(), "/");
        assert_eq!(typed(".").unwrap(), "/");
        assert_eq!(typed("/a b/./100%").unwrap(), "/a%20b/100%25");
        assert_eq!(typed("a//b/").unwrap(), "/a/b/");
        assert_eq!(typed("a/../b"), Err(PathError::Dots));
    }

    #[test]
    fn digests_are_those_of_the_rfc() {
        // RFC 9530, appendix B.
        let field = "sha-512=:AAAA:, sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        let digest = Sha256Digest::from_field(field).unwrap();
        assert_eq!(
            digest.to_string(),
            "44aff4ab2d7c3250525675a08f0cfa9591168cffe51791c5f5bbc417c15a6c38"
        );
        assert_eq!(Sha256Digest::from_field(&digest.to_field()), Some(digest));
        for wrong in ["", "sha-256=", "sha-256=:AAAA:", "sha-256=AAAA"] {
            assert_eq!(Sha256Digest::from_field(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_a_uri(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = FileName::new(bytes) {
                let path = FilePath::default().join(name).unwrap();
                for form in [PathForm::Plain, PathForm::Directory] {
                    let uri = path.to_uri(form);
                    prop_assert_eq!(FilePath::decode(&uri), Ok((path.clone(), form)));
                    prop_assert!(uri.bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
        }

        #[test]
        fn no_uri_leads_out_of_the_root(path in "(/|\\.|%2e|%2E|%2f|%00|a|%|\\\\){0,12}") {
            if let Ok((path, _)) = FilePath::decode(&path) {
                for name in path.names() {
                    prop_assert!(![&b""[..], b".", b".."].contains(&name.as_bytes()));
                    prop_assert!(!name.as_bytes().contains(&b'/'));
                }
            }
        }
    }
}
