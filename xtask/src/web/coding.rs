//! Compressed forms of what is served, made once a build, so as small as can be.

use std::io::Write as _;

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Files smaller than this are not worth compressing.
const MIN_LENGTH: usize = 1024;

/// The best that there is.
const BROTLI_QUALITY: i32 = 11;

/// The widest window that browsers take: 16 MiB.
const BROTLI_WINDOW_BITS: i32 = 24;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// What browsers take on the origins where we can be: over https, and on this machine.
    Brotli,
    /// What everything takes.
    Gzip,
}

impl Coding {
    pub(super) const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// Name of a file's compressed form: signaling's code for assets knows these endings.
    pub(super) fn name(self, file: &str) -> String {
        match self {
            Self::Brotli => format!("{file}.br"),
            Self::Gzip => format!("{file}.gz"),
        }
    }

    pub(super) fn compress(self, content: &[u8]) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Brotli => {
                let parameters = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW_BITS,
                    size_hint: content.len(),
                    ..BrotliEncoderParams::default()
                };
                let mut compressed = Vec::new();
                brotli::BrotliCompress(&mut &*content, &mut compressed, &parameters)?;
                Ok(compressed)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(content)?;
                Ok(encoder.finish()?)
            }
        }
    }
}

/// Whether a file has compressed forms. Pages have none: they are filled in when they are served.
pub(super) fn pays(name: &str, content: &[u8]) -> bool {
    content.len() >= MIN_LENGTH && !name.ends_with(".html")
}
