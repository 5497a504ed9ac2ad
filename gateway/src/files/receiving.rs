//! From a body to a partial file. What has come before the body was cut off stays there.
//! Hot path.

use ::http::HeaderMap;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use portway_protocol::files::{REPR_DIGEST, Sha256Digest};

use super::FileError;
use super::error::blocking;
use super::partial::Partial;
use super::sending::CHUNK;

/// Why a body did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It was cut off.
    #[error("it was cut off: {0}")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Frames that have come and are not written yet.
#[derive(Default)]
struct Batch {
    data: Vec<Bytes>,
    size: u64,
    digest: Option<Sha256Digest>,
}

impl Batch {
    fn add(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.size += data.len() as u64;
                self.data.push(data);
            }
            Err(frame) => self.digest = frame.trailers_ref().and_then(digest_of),
        }
    }
}

/// Writes a body to its end, which is no further than `limit`. Returns the digest that its sender tells.
///
/// # Errors
/// See [`ReceiveError`].
pub async fn receive<B>(
    mut body: B,
    mut partial: Partial,
    limit: u64,
) -> Result<(Partial, Option<Sha256Digest>), ReceiveError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut digest = None;
    let mut next = body.frame().await;
    while let Some(frame) = next.take() {
        let mut batch = Batch::default();
        batch.add(frame.map_err(|error| ReceiveError::Cut(error.into()))?);
        // What is here already goes with it: to write costs a change of thread.
        let ended = loop {
            if batch.size >= CHUNK {
                break None;
            }
            match body.frame().now_or_never() {
                Some(Some(Ok(frame))) => batch.add(frame),
                Some(end) => break Some(end),
                None => break None,
            }
        };
        digest = batch.digest.or(digest);
        partial = blocking(move || write(partial, &batch, limit)).await?;
        next = match ended {
            Some(end) => end,
            None => body.frame().await,
        };
    }
    Ok((partial, digest))
}

fn write(mut partial: Partial, batch: &Batch, limit: u64) -> Result<Partial, FileError> {
    if partial.length().saturating_add(batch.size) > limit {
        return Err(FileError::TooLong);
    }
    for data in &batch.data {
        partial.append(data)?;
    }
    Ok(partial)
}

/// The digest that headers or trailers tell.
#[must_use]
pub fn digest_of(headers: &HeaderMap) -> Option<Sha256Digest> {
    let field = headers.get(REPR_DIGEST)?.to_str().ok()?;
    Sha256Digest::from_field(field)
}
