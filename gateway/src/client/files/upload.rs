//! Content from here to there.

use std::sync::{Arc, OnceLock};

use ::http::header::{self, HeaderName, HeaderValue};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use portway_protocol::files::{
    Attributes, EXECUTABLE_HEADER, FilePath, MODIFIED_HEADER, PathForm, Sha256Digest,
    UPLOAD_LENGTH, UPLOAD_OFFSET, UPLOAD_QUERY,
};
use portway_protocol::reason::Reason;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{ATTEMPTS, Counter, FilesClient, FilesError, Transferred, expect, refusal};
use crate::client::session::RequestBody;
use crate::files::FileError;
use crate::files::error::blocking;
use crate::files::partial::{PartialName, Replace};
use crate::files::receiving::digest_of;
use crate::files::root::Source;
use crate::files::sending::{self, Digesting};

/// Files that are shorter are sent anew after an interruption: to ask how much is there takes as long.
const RESUMABLE: u64 = 1024 * 1024;

/// Bytes of a stream read at a time.
const CHUNK: usize = 64 * 1024;

/// What a body has come to at its end.
type Sent = Arc<OnceLock<Result<Sha256Digest, Reason>>>;

impl FilesClient {
    /// Puts a file there. `open` opens it from its beginning, once for each attempt.
    ///
    /// # Errors
    /// See [`FilesError`]. What has arrived stays there for the next time.
    pub async fn upload(
        &self,
        path: &FilePath,
        open: impl Fn() -> Result<Source, FileError> + Clone + Send + 'static,
        replace: Replace,
        counter: &Counter,
    ) -> Result<Transferred, FilesError> {
        let mut attempts = 0;
        let mut resumed_at = None;
        let mut offset = None;
        loop {
            let source = blocking(open.clone()).await?;
            let uri = upload_uri(path, &source.attributes);
            let before = counter.moved();
            let attempt = async {
                let known = match offset.take() {
                    Some(known) => known,
                    None => self.offset(&uri, &source.attributes).await?,
                };
                if resumed_at.is_none() {
                    resumed_at = Some(known);
                    counter.add_present(known);
                }
                self.put_from(&uri, source, known, replace, counter).await
            };
            match attempt.await {
                Ok(Put::Done(digest)) => {
                    let resumed_at = resumed_at.unwrap_or_default();
                    return Ok(Transferred { digest, resumed_at });
                }
                // Somebody else has been there, or what we knew was not yet all.
                Ok(Put::At(other)) if attempts < ATTEMPTS => {
                    offset = Some(other);
                    attempts += 1;
                }
                Ok(Put::At(_)) => return Err(FilesError::Refused(Reason::RateLimited)),
                // What was there may be of whatever: it is gone now.
                Err(FilesError::Refused(Reason::DigestMismatch))
                    if resumed_at.is_some_and(|at| at > 0) && attempts < ATTEMPTS =>
                {
                    resumed_at = None;
                    attempts += 1;
                }
                Err(error) if error.may_pass() && attempts < ATTEMPTS => {
                    tracing::info!(%error, "an upload goes on");
                    attempts = if counter.moved() > before {
                        1
                    } else {
                        attempts + 1
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts there what comes, to its end. An interruption cannot be made good: it does not come twice.
    ///
    /// # Errors
    /// See [`FilesError`]. Nothing stays there.
    pub async fn upload_stream(
        &self,
        path: &FilePath,
        reader: impl AsyncRead + Send + Unpin + 'static,
        replace: Replace,
        counter: &Counter,
    ) -> Result<Transferred, FilesError> {
        let mut request = self.request(Method::PUT, &path.to_uri(PathForm::Plain))?;
        conditions(request.headers_mut(), replace);
        let (body, sent) = body(read(reader), counter);
        *request.body_mut() = body;
        match self.put(request, &sent).await? {
            Put::Done(digest) => Ok(Transferred {
                digest,
                resumed_at: 0,
            }),
            Put::At(_) => Err(FilesError::Invalid),
        }
    }

    /// How much is there already.
    async fn offset(&self, uri: &str, attributes: &Attributes) -> Result<u64, FilesError> {
        if attributes.size < RESUMABLE {
            return Ok(0);
        }
        let request = || self.request(Method::HEAD, uri);
        let response = match expect(self.ask(request).await?, StatusCode::NO_CONTENT) {
            // Who may put, and ask nothing, is told by the answer to that.
            Err(FilesError::Refused(Reason::PermissionDenied)) => return Ok(0),
            response => response?,
        };
        told_offset(&response)
            .filter(|offset| *offset <= attributes.size)
            .ok_or(FilesError::Invalid)
    }

    async fn put_from(
        &self,
        uri: &str,
        source: Source,
        offset: u64,
        replace: Replace,
        counter: &Counter,
    ) -> Result<Put, FilesError> {
        let Attributes {
            size,
            modified_ms,
            executable,
            ..
        } = source.attributes;
        if offset > size {
            return Err(FilesError::Invalid);
        }
        let mut request = self.request(Method::PUT, uri)?;
        let headers = request.headers_mut();
        conditions(headers, replace);
        headers.insert(UPLOAD_OFFSET, offset.into());
        headers.insert(UPLOAD_LENGTH, size.into());
        headers.insert(MODIFIED_HEADER, modified_ms.into());
        if executable {
            let name = HeaderName::from_static(EXECUTABLE_HEADER);
            headers.insert(name, HeaderValue::from_static("?1"));
        }
        let frames = sending::frames(source, offset..size, Digesting::Whole);
        let (body, sent) = body(frames, counter);
        *request.body_mut() = body;
        self.put(request, &sent).await
    }

    async fn put(&self, request: Request<RequestBody>, sent: &Sent) -> Result<Put, FilesError> {
        let response = match self.way.send(request).await {
            Ok(response) => response,
            // A body that fails looks as if the session did.
            Err(failure) => {
                return Err(match sent.get() {
                    Some(Err(reason)) => FilesError::Refused(*reason),
                    Some(Ok(_)) | None => failure.into(),
                });
            }
        };
        if response.status() == StatusCode::CONFLICT
            && let Some(offset) = told_offset(&response)
        {
            return Ok(Put::At(offset));
        }
        if response.status() != StatusCode::CREATED {
            return Err(refusal(&response));
        }
        let Some(Ok(expected)) = sent.get().copied() else {
            return Err(FilesError::Invalid);
        };
        let got = digest_of(response.headers()).ok_or(FilesError::Invalid)?;
        if expected != got {
            return Err(FileError::Mismatch { expected, got }.into());
        }
        Ok(Put::Done(got))
    }
}

/// What a PUT has come to.
enum Put {
    /// It is there, with this digest at both ends.
    Done(Sha256Digest),
    /// So much of it is there.
    At(u64),
}

fn told_offset(response: &Response<Incoming>) -> Option<u64> {
    let offset = response.headers().get(UPLOAD_OFFSET)?;
    offset.to_str().ok()?.parse().ok()
}

/// A file that has changed is another upload.
fn upload_uri(path: &FilePath, attributes: &Attributes) -> String {
    let plain = path.to_uri(PathForm::Plain);
    if attributes.size < RESUMABLE {
        return plain;
    }
    let size = attributes.size.to_be_bytes();
    let modified = attributes.modified_ms.to_be_bytes();
    let name = PartialName::of(&[&size, &modified]);
    format!("{plain}?{UPLOAD_QUERY}={}", name.key())
}

fn conditions(headers: &mut HeaderMap, replace: Replace) {
    match replace {
        Replace::Never => {
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        Replace::Always => {}
    }
}

/// A body that counts what is sent, and tells what it has come to.
fn body(
    frames: impl Stream<Item = Result<Frame<Bytes>, FileError>> + Send + 'static,
    counter: &Counter,
) -> (RequestBody, Sent) {
    let sent = Sent::default();
    let (counter, told) = (counter.clone(), sent.clone());
    let frames = frames.inspect(move |frame| match frame {
        Ok(frame) => {
            counter.add_moved(frame.data_ref().map_or(0, |data| data.len() as u64));
            if let Some(digest) = frame.trailers_ref().and_then(digest_of) {
                told.get_or_init(|| Ok(digest));
            }
        }
        Err(error) => {
            told.get_or_init(|| Err(error.reason()));
        }
    });
    let body = StreamBody::new(frames.map_err(Into::into));
    (body.boxed_unsync(), sent)
}

/// What a reader reads, and its digest.
fn read(
    reader: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = Result<Frame<Bytes>, FileError>> + Send {
    stream::try_unfold(Some((reader, Sha256::new())), |state| async move {
        let Some((mut reader, mut hasher)) = state else {
            return Ok(None);
        };
        let mut chunk = Vec::with_capacity(CHUNK);
        reader.read_buf(&mut chunk).await?;
        if chunk.is_empty() {
            let digest = Sha256Digest(hasher.finalize().into());
            let trailers = sending::trailers(&digest);
            return Ok(Some((Frame::trailers(trailers), None)));
        }
        hasher.update(&chunk);
        Ok(Some((Frame::data(chunk.into()), Some((reader, hasher)))))
    })
}
