//! Content from there to here.

use ::http::header::{self, HeaderValue};
use ::http::{Method, Response, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use portway_protocol::files::{Attributes, FilePath, PathForm, Sha256Digest, WANT_REPR_DIGEST};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    ATTEMPTS, Counter, FilesClient, FilesError, SHA_256, Transferred, attributes, refusal,
};
use crate::files::FileError;
use crate::files::error::blocking;
use crate::files::partial::Partial;
use crate::files::receiving::{digest_of, receive};

/// What comes, and from where in the file.
struct Coming {
    response: Response<Incoming>,
    from: u64,
    attributes: Attributes,
}

impl FilesClient {
    /// Gets a file as a partial one, which the caller gives its name. `open` opens what an earlier attempt has
    /// left of the file with these attributes; should it have become another one meanwhile, it is asked again.
    ///
    /// # Errors
    /// See [`FilesError`]. What has come stays.
    pub async fn download(
        &self,
        path: &FilePath,
        mut wanted: Attributes,
        open: impl Fn(&Attributes) -> Result<Partial, FileError> + Clone + Send + 'static,
        counter: &Counter,
    ) -> Result<(Partial, Attributes, Transferred), FilesError> {
        let mut attempts = 0;
        let mut resumed_at = None;
        loop {
            let (opening, file) = (open.clone(), wanted.clone());
            let partial = blocking(move || {
                let mut partial = opening(&file)?;
                // Of what is whole, the last byte is asked for again: there is no empty range.
                partial.truncate(file.size.saturating_sub(1))?;
                Ok::<_, FileError>(partial)
            });
            let partial = partial.await?;
            let start = partial.length();
            if resumed_at.is_none() {
                resumed_at = Some(start);
                counter.add_present(start);
            }
            let before = counter.moved();
            match self.attempt(path, &wanted, partial, counter).await {
                Ok(Attempt::Whole(partial)) => {
                    let transferred = Transferred {
                        digest: partial.digest(),
                        resumed_at: resumed_at.unwrap_or_default(),
                    };
                    return Ok((partial, wanted, transferred));
                }
                Ok(Attempt::Other(attributes)) => {
                    wanted = attributes;
                    resumed_at = None;
                    attempts += 1;
                }
                // What was left of another attempt may be of whatever.
                Err(FilesError::Local(FileError::Mismatch { .. })) if start > 0 => attempts += 1,
                Err(error) if error.may_pass() && attempts < ATTEMPTS => {
                    tracing::info!(%error, "a download goes on");
                    attempts = if counter.moved() > before {
                        1
                    } else {
                        attempts + 1
                    };
                }
                Err(error) => return Err(error),
            }
            if attempts > ATTEMPTS {
                return Err(FileError::Changed.into());
            }
        }
    }

    async fn attempt(
        &self,
        path: &FilePath,
        wanted: &Attributes,
        mut partial: Partial,
        counter: &Counter,
    ) -> Result<Attempt, FilesError> {
        let coming = self.get(path, wanted, partial.length()).await?;
        if coming.attributes.etag != wanted.etag {
            return Ok(Attempt::Other(coming.attributes));
        }
        if coming.from != partial.length() {
            let truncating = move || {
                partial.truncate(coming.from)?;
                Ok::<_, FileError>(partial)
            };
            partial = blocking(truncating).await?;
        }
        let body = counted(coming.response.into_body(), counter);
        let (partial, told) = receive(body, partial, wanted.size).await?;
        if partial.length() != wanted.size {
            return Err(FilesError::Cut("it is shorter than it should be".into()));
        }
        let (expected, got) = (told.ok_or(FilesError::Invalid)?, partial.digest());
        if expected == got {
            return Ok(Attempt::Whole(partial));
        }
        let discarding = move || {
            partial.discard();
            Err::<(), _>(FileError::Mismatch { expected, got })
        };
        blocking(discarding).await?;
        Err(FilesError::Invalid)
    }

    /// Writes a file's content, for whoever reads it as it comes.
    ///
    /// # Errors
    /// See [`FilesError`]. What was written was right as far as it came, unless the digests differ.
    pub async fn copy_to(
        &self,
        path: &FilePath,
        wanted: &Attributes,
        writer: &mut (impl AsyncWrite + Unpin),
        counter: &Counter,
    ) -> Result<Transferred, FilesError> {
        let mut hasher = Sha256::new();
        let mut written = 0;
        let mut attempts = 0;
        loop {
            let before = counter.moved();
            let copying = self.copy_from(path, wanted, &mut written, &mut hasher, writer, counter);
            match copying.await {
                Ok(expected) => {
                    let got = Sha256Digest(hasher.finalize().into());
                    if expected != got {
                        return Err(FileError::Mismatch { expected, got }.into());
                    }
                    return Ok(Transferred {
                        digest: got,
                        resumed_at: 0,
                    });
                }
                Err(error) if error.may_pass() && attempts < ATTEMPTS => {
                    tracing::info!(%error, "a download goes on");
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

    async fn copy_from(
        &self,
        path: &FilePath,
        wanted: &Attributes,
        written: &mut u64,
        hasher: &mut Sha256,
        writer: &mut (impl AsyncWrite + Unpin),
        counter: &Counter,
    ) -> Result<Sha256Digest, FilesError> {
        // Of what is whole, nothing can be asked for but its digest.
        if *written > 0 && *written == wanted.size {
            return self.digest(path).await;
        }
        let coming = self.get(path, wanted, *written).await?;
        if coming.attributes.etag != wanted.etag || coming.from != *written {
            return Err(FileError::Changed.into());
        }
        let mut body = counted(coming.response.into_body(), counter);
        let mut told = None;
        while let Some(frame) = body.frame().await {
            match frame
                .map_err(|error| FilesError::Cut(error.into()))?
                .into_data()
            {
                Ok(data) => {
                    writer.write_all(&data).await.map_err(FileError::from)?;
                    hasher.update(&data);
                    *written += data.len() as u64;
                }
                Err(frame) => told = frame.trailers_ref().and_then(digest_of),
            }
        }
        writer.flush().await.map_err(FileError::from)?;
        if *written != wanted.size {
            return Err(FilesError::Cut("it is shorter than it should be".into()));
        }
        told.ok_or(FilesError::Invalid)
    }

    /// Asks for the rest of a file; it all comes if it is another one by now.
    async fn get(
        &self,
        path: &FilePath,
        wanted: &Attributes,
        from: u64,
    ) -> Result<Coming, FilesError> {
        let mut request = self.request(Method::GET, &path.to_uri(PathForm::Plain))?;
        let headers = request.headers_mut();
        headers.insert(WANT_REPR_DIGEST, SHA_256);
        if from > 0 {
            let value = |text: &str| HeaderValue::from_str(text).map_err(|_| FilesError::Invalid);
            headers.insert(header::RANGE, value(&format!("bytes={from}-"))?);
            headers.insert(header::IF_RANGE, value(&wanted.etag)?);
        }
        let response = self.way.send(request).await?;
        let known = attributes(response.headers());
        match response.status() {
            StatusCode::OK => Ok(Coming {
                response,
                from: 0,
                attributes: known?,
            }),
            StatusCode::PARTIAL_CONTENT => {
                let known = known?;
                Ok(Coming {
                    response,
                    from,
                    attributes: Attributes {
                        size: known.size + from,
                        ..known
                    },
                })
            }
            // It has become shorter.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(FileError::Changed.into()),
            _ => Err(refusal(&response)),
        }
    }
}

/// What an attempt has come to.
enum Attempt {
    /// All of it, with the digest that was told.
    Whole(Partial),
    /// The file is another one by now.
    Other(Attributes),
}

/// Counts what comes.
fn counted(
    body: Incoming,
    counter: &Counter,
) -> impl Body<Data = Bytes, Error = hyper::Error> + Unpin {
    let counter = counter.clone();
    body.map_frame(move |frame| {
        counter.add_moved(frame.data_ref().map_or(0, |data| data.len() as u64));
        frame
    })
}
