//! From a file to a body, with the digest of the whole in its trailers where that is wanted.
//!
//! Chunks are read when they are asked for: nothing of the file waits here, and whoever takes them slowly holds
//! no thread. A file that changes meanwhile ends the body with an error, never with an end.
//! Hot path.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use hyper::body::Frame;
use portway_protocol::files::{REPR_DIGEST, Sha256Digest};
use sha2::{Digest as _, Sha256};

use super::FileError;
use super::error::blocking;
use super::root::{Source, attributes};

/// Bytes read at a time: each costs a change of thread.
pub(super) const CHUNK: u64 = 256 * 1024;

/// Whether the body ends with the digest of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digesting {
    /// It does: what comes before and after the range is read, too.
    Whole,
    /// It does not.
    Nothing,
}

/// Reads one part of a file.
struct Reader {
    source: Source,
    /// Read so far.
    position: u64,
    range: Range<u64>,
    /// Of all that was read, if it is wanted.
    hasher: Option<Sha256>,
}

/// What a step has come to.
enum Step {
    /// Nothing to send: it was not in the range.
    Skipped(Reader),
    /// Something to send, and more to come.
    Frame(Frame<Bytes>, Reader),
    /// The last, if there is one.
    Last(Option<Frame<Bytes>>),
}

/// Frames of a body: the part of the file, then the digest of the whole as a trailer.
///
/// The stream fails with the system's error, or [`FileError::Changed`].
pub fn frames(
    source: Source,
    range: Range<u64>,
    digesting: Digesting,
) -> impl Stream<Item = Result<Frame<Bytes>, FileError>> + Send {
    let reader = Reader {
        source,
        position: 0,
        range,
        hasher: match digesting {
            Digesting::Whole => Some(Sha256::new()),
            Digesting::Nothing => None,
        },
    };
    stream::try_unfold(Some(reader), |reader| async move {
        let Some(mut reader) = reader else {
            return Ok(None);
        };
        loop {
            match blocking(move || reader.step()).await? {
                Step::Skipped(next) => reader = next,
                Step::Frame(frame, next) => return Ok(Some((frame, Some(next)))),
                Step::Last(frame) => return Ok(frame.map(|frame| (frame, None))),
            }
        }
    })
}

/// Digest of a whole file. Blocking.
///
/// # Errors
/// The system's, or [`FileError::Changed`].
pub fn digest(source: Source) -> Result<Sha256Digest, FileError> {
    let size = source.attributes.size;
    let mut reader = Reader {
        source,
        position: 0,
        range: size..size,
        hasher: Some(Sha256::new()),
    };
    while reader.position < size {
        reader.read(size)?;
    }
    reader.check()?;
    let hasher = reader.hasher.unwrap_or_default();
    Ok(Sha256Digest(hasher.finalize().into()))
}

impl Reader {
    fn step(mut self) -> Result<Step, FileError> {
        if self.position < self.range.start {
            if self.hasher.is_none() {
                self.position = self.source.file.seek(SeekFrom::Start(self.range.start))?;
            } else {
                self.read(self.range.start)?;
            }
            return Ok(Step::Skipped(self));
        }
        if self.position < self.range.end {
            let data = self.read(self.range.end)?;
            return Ok(Step::Frame(Frame::data(data), self));
        }
        if self.hasher.is_some() && self.position < self.source.attributes.size {
            self.read(self.source.attributes.size)?;
            return Ok(Step::Skipped(self));
        }
        self.check()?;
        Ok(Step::Last(self.hasher.map(|hasher| {
            let digest = Sha256Digest(hasher.finalize().into());
            Frame::trailers(trailers(&digest))
        })))
    }

    /// Reads a chunk, no further than `end`.
    fn read(&mut self, end: u64) -> Result<Bytes, FileError> {
        let wanted = CHUNK.min(end - self.position);
        let mut data = Vec::with_capacity(usize::try_from(wanted).unwrap_or_default());
        (&self.source.file).take(wanted).read_to_end(&mut data)?;
        let read = data.len() as u64;
        if read < wanted {
            return Err(FileError::Changed);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&data);
        }
        self.position += read;
        Ok(data.into())
    }

    /// Whether the file is the one that was opened.
    fn check(&self) -> Result<(), FileError> {
        let now = attributes(&self.source.file.metadata()?);
        if now == self.source.attributes {
            Ok(())
        } else {
            Err(FileError::Changed)
        }
    }
}

/// What ends a body whose digest is wanted.
pub(crate) fn trailers(digest: &Sha256Digest) -> HeaderMap {
    let value = HeaderValue::from_str(&digest.to_field());
    let name = HeaderName::from_static(REPR_DIGEST);
    value.map(|value| (name, value)).into_iter().collect()
}
