//! Files of a service of another machine, over whatever session there is.
//!
//! - [`FilesClient`]: what there is, and what is made. [`download`], [`upload`]: content, which goes on where it
//!   was interrupted and ends with digests of both ends compared. [`error`]: why it does not.

pub mod download;
pub mod error;
pub mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri, Version};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use portway_protocol::files::{
    AFTER_QUERY, Attributes, EXECUTABLE_HEADER, FILES_HEADER, FileName, FilePath, LISTING_TYPE,
    Listing, MODIFIED_HEADER, PathForm, Sha256Digest, WANT_REPR_DIGEST,
};
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use tokio::sync::watch;

pub use error::FilesError;

use super::keeper::Current;
use super::session::RequestBody;
use super::stream::reason_of;
use crate::files::receiving::digest_of;
use crate::tunnel::way::Way;

/// Value of [`WANT_REPR_DIGEST`].
const SHA_256: HeaderValue = HeaderValue::from_static("sha-256=10");

/// Longest listing that is taken, bytes: names may be long, and each byte of one takes three.
const MAX_LISTING: usize = 2 * 1024 * 1024;

/// Attempts of something that came to nothing, one after the other without a byte that came through.
const ATTEMPTS: u32 = 5;

/// The files of one service.
#[derive(Clone)]
pub struct FilesClient {
    way: Way,
}

/// What a path leads to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteFound {
    /// A file.
    File(Attributes),
    /// A directory.
    Directory,
}

/// Counts bytes of content.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    moved: AtomicU64,
    present: AtomicU64,
}

/// What a transfer has come to.
#[derive(Debug, Clone, Copy)]
pub struct Transferred {
    /// Of the whole file, the same at both ends.
    pub digest: Sha256Digest,
    /// Bytes that were there already.
    pub resumed_at: u64,
}

impl Counter {
    /// Bytes that have passed between the machines.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    /// Bytes that did not have to, for they were there.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.0.present.load(Ordering::Relaxed)
    }

    /// Counts bytes that were there.
    pub fn add_present(&self, bytes: u64) {
        self.0.present.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add_moved(&self, bytes: u64) {
        self.0.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl FilesClient {
    /// Nothing is asked yet.
    #[must_use]
    pub const fn new(service: ServiceName, current: watch::Receiver<Current>) -> Self {
        Self {
            way: Way::new(service, current),
        }
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// [`Reason::FileNotFound`] among others, see [`FilesError`].
    pub async fn find(&self, path: &FilePath, form: PathForm) -> Result<RemoteFound, FilesError> {
        let request = || self.request(Method::HEAD, &path.to_uri(form));
        let response = self.ask(request).await?;
        if response.status() == StatusCode::PERMANENT_REDIRECT {
            return Ok(RemoteFound::Directory);
        }
        let response = expect(response, StatusCode::OK)?;
        // A directory has none.
        if !response.headers().contains_key(header::ETAG) {
            return Ok(RemoteFound::Directory);
        }
        Ok(RemoteFound::File(attributes(response.headers())?))
    }

    /// What a directory holds, after this name.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub async fn list(
        &self,
        path: &FilePath,
        after: Option<&FileName>,
    ) -> Result<Listing, FilesError> {
        let mut uri = path.to_uri(PathForm::Directory);
        if let Some(after) = after {
            uri.push_str(&format!("?{AFTER_QUERY}={after}"));
        }
        let request = || {
            let mut request = self.request(Method::GET, &uri)?;
            let json = HeaderValue::from_static(LISTING_TYPE);
            request.headers_mut().insert(header::ACCEPT, json);
            Ok(request)
        };
        let response = expect(self.ask(request).await?, StatusCode::OK)?;
        let content = Limited::new(response.into_body(), MAX_LISTING).collect();
        let content = content.await.map_err(FilesError::Cut)?.to_bytes();
        serde_json::from_slice(&content).map_err(|_| FilesError::Invalid)
    }

    /// Digest of a file, which that machine reads for it.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub async fn digest(&self, path: &FilePath) -> Result<Sha256Digest, FilesError> {
        let request = || {
            let mut request = self.request(Method::HEAD, &path.to_uri(PathForm::Plain))?;
            request.headers_mut().insert(WANT_REPR_DIGEST, SHA_256);
            Ok(request)
        };
        let response = expect(self.ask(request).await?, StatusCode::OK)?;
        digest_of(response.headers()).ok_or(FilesError::Invalid)
    }

    /// Makes a directory, in one that is there.
    ///
    /// # Errors
    /// [`Reason::FileExists`] among others, see [`FilesError`].
    pub async fn make_directory(&self, path: &FilePath) -> Result<(), FilesError> {
        let method = Method::from_bytes(b"MKCOL").map_err(|_| FilesError::Invalid)?;
        let request = || self.request(method.clone(), &path.to_uri(PathForm::Directory));
        expect(self.ask(request).await?, StatusCode::CREATED)?;
        Ok(())
    }

    /// Asks something that may be asked twice.
    async fn ask(
        &self,
        request: impl Fn() -> Result<Request<RequestBody>, FilesError>,
    ) -> Result<Response<Incoming>, FilesError> {
        let mut attempt = 1;
        loop {
            match self.way.send(request()?).await {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    let error = FilesError::from(failure);
                    if !error.may_pass() || attempt == ATTEMPTS {
                        return Err(error);
                    }
                    attempt += 1;
                }
            }
        }
    }

    fn request(&self, method: Method, uri: &str) -> Result<Request<RequestBody>, FilesError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.way.service.as_str())
            .path_and_query(uri);
        let mut request = Request::new(
            Empty::<Bytes>::new()
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.build().map_err(|_| FilesError::Invalid)?;
        Ok(request)
    }
}

/// What is known of a file, as an answer tells it.
fn attributes(headers: &HeaderMap) -> Result<Attributes, FilesError> {
    let text = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or(FilesError::Invalid)
    };
    let parse = |_| FilesError::Invalid;
    Ok(Attributes {
        size: text(header::CONTENT_LENGTH)?.parse().map_err(parse)?,
        modified_ms: text(HeaderName::from_static(MODIFIED_HEADER))?
            .parse()
            .map_err(parse)?,
        executable: text(HeaderName::from_static(EXECUTABLE_HEADER))? == "?1",
        etag: text(header::ETAG)?.to_owned(),
    })
}

/// The answer, if it is the one that is wanted.
fn expect<B>(response: Response<B>, status: StatusCode) -> Result<Response<B>, FilesError> {
    if response.status() == status && response.headers().contains_key(FILES_HEADER) {
        return Ok(response);
    }
    Err(refusal(&response))
}

/// Why an answer is another one.
fn refusal<B>(response: &Response<B>) -> FilesError {
    let reason = reason_of(response);
    // What a grant does not allow is refused before anybody looks what the service is.
    if reason == Reason::PermissionDenied || response.headers().contains_key(FILES_HEADER) {
        FilesError::Refused(reason)
    } else {
        FilesError::NotFiles
    }
}
