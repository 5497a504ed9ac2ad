//! Static files of the browser client: a flat map, so that no path can lead anywhere else.

use std::collections::HashMap;

use axum::body::Bytes;

/// Flat file name → file.
#[derive(Debug, Clone, Default)]
pub struct Assets(HashMap<&'static str, Asset>);

/// One file.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Content.
    pub content: Bytes,
    /// The content compressed, where that pays, in the order of [`Coding::ALL`].
    pub compressed: Vec<(Coding, Bytes)>,
    /// Media type.
    pub content_type: &'static str,
    /// Strong validator, with quotes.
    pub etag: String,
}

/// How a file is compressed, RFC 9110 §8.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932. Browsers take it over https and from their own machine.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Each of them, what compresses best first.
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Its name in `accept-encoding` and `content-encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// End of the name of a file that is compressed so.
    const fn ending(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }

    /// The name of the file that this one is the compressed form of.
    fn original(self, name: &str) -> Option<&str> {
        name.strip_suffix(self.ending())
    }
}

impl Assets {
    /// Files by name. The names `NAME.br` and `NAME.gz` are compressed forms of `NAME`. `hash` names the
    /// contents as a whole and becomes part of every validator.
    #[must_use]
    pub fn new(files: &[(&'static str, &'static [u8])], hash: &str) -> Self {
        let assets = files
            .iter()
            .filter(|(name, _)| Coding::ALL.iter().all(|c| c.original(name).is_none()))
            .map(|(name, content)| {
                let compressed = Coding::ALL.iter().filter_map(|coding| {
                    let (_, content) = files
                        .iter()
                        .find(|(other, _)| coding.original(other) == Some(name))?;
                    Some((*coding, Bytes::from_static(content)))
                });
                let asset = Asset {
                    content: Bytes::from_static(content),
                    compressed: compressed.collect(),
                    content_type: content_type(name),
                    etag: format!("\"{hash}\""),
                };
                (*name, asset)
            })
            .collect();
        Self(assets)
    }

    /// The file of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Asset> {
        self.0.get(name)
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("wasm") => "application/wasm",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
