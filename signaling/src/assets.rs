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
    /// The content compressed with gzip, where that pays.
    pub gzip: Option<Bytes>,
    /// Media type.
    pub content_type: &'static str,
    /// Strong validator, with quotes.
    pub etag: String,
}

impl Assets {
    /// Files by name. A name `NAME.gz` is the compressed form of `NAME`. `hash` names the contents
    /// as a whole and becomes part of every validator.
    #[must_use]
    pub fn new(files: &[(&'static str, &'static [u8])], hash: &str) -> Self {
        let assets = files
            .iter()
            .filter(|(name, _)| !name.ends_with(".gz"))
            .map(|(name, content)| {
                let gzip = files
                    .iter()
                    .find(|(other, _)| other.strip_suffix(".gz") == Some(name))
                    .map(|(_, content)| Bytes::from_static(content));
                let asset = Asset {
                    content: Bytes::from_static(content),
                    gzip,
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
