//! Files that a node serves itself: a directory of its own as a service that speaks HTTP.
//!
//! ```text
//! GET, HEAD ──► download ──► sending ─────► body, digest
//!           └─► listing                                     ┐
//! PUT ────────► upload ────► receiving ──► partial ──► name │ all in one `root`
//! MKCOL ──────► upload                                      ┘
//! ```
//! - [`root`]: the directory, and that nothing leads out of it. [`error`]: what can fail there.
//! - `download`, [`listing`], `upload`: requests. `headers`: what every answer says.
//! - [`sending`]: from a file to a body. [`receiving`]: from a body to a [`partial`] file, which gets its name
//!   when it is complete. A client that copies uses these at its end, too.
//!
//! Security: every file is opened beneath the root by the kernel (`openat2` with `RESOLVE_BENEATH`), which
//! follows no link that leads out and has no gap between check and use. What a visitor has put there never
//! runs on the service's origin: pages are ours alone, and what may hold a script is only ever saved.
//! Method and path were checked against the grant before anything here is asked.

mod download;
pub mod error;
mod headers;
pub mod listing;
pub mod partial;
pub mod receiving;
pub mod root;
pub mod sending;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Body;
use portway_protocol::files::{FilePath, PathForm, UPLOAD_QUERY};
use portway_protocol::reason::Reason;
use portway_protocol::target::FilesAccess;
use tokio::sync::Mutex;

pub use cap_std::fs::Dir;
pub use error::FileError;

use crate::proxy::{ProxyBody, Visitor, page};
use headers::query;
use root::Root;
use upload::Uploads;

/// Time that a file system has to show that the directory is there.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a visitor may use.
const METHODS: &str = "GET, HEAD, PUT, MKCOL";

/// The directory of a service, and what is uploaded into it now.
#[derive(Debug)]
pub(crate) struct Files {
    root: Root,
    access: FilesAccess,
    uploads: Uploads,
    /// Held by who looks whether it is there.
    looking: Arc<Mutex<()>>,
}

/// What a request is about.
#[derive(Debug, Clone)]
struct Place {
    path: FilePath,
    form: PathForm,
}

impl Files {
    /// Nothing is opened yet: the directory may come later.
    pub(crate) fn new(root: PathBuf, access: FilesAccess) -> Self {
        Self {
            root: Root::new(root),
            access,
            uploads: Uploads::default(),
            looking: Arc::default(),
        }
    }

    /// Whether the directory is there and can be read. A file system that hangs is not asked again before it
    /// has answered: each question takes a thread.
    pub(crate) async fn is_there(&self) -> bool {
        let Ok(looking) = self.looking.clone().try_lock_owned() else {
            return false;
        };
        let root = self.root.clone();
        let looked = error::blocking(move || {
            let there = root.check();
            drop(looking);
            there
        });
        tokio::time::timeout(CHECK_TIMEOUT, looked)
            .await
            .is_ok_and(|there| there.is_ok())
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(
        &self,
        visitor: &Visitor,
        request: Request<B>,
    ) -> Response<ProxyBody>
    where
        B: Body<Data = bytes::Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let as_page = page::is_wanted(request.headers());
        let mut response = match self.try_answer(visitor, request).await {
            Ok(response) => response,
            Err(reason) => page::with_status(headers::status(reason), reason, as_page),
        };
        headers::protect(response.headers_mut());
        response
    }

    async fn try_answer<B>(
        &self,
        visitor: &Visitor,
        request: Request<B>,
    ) -> Result<Response<ProxyBody>, Reason>
    where
        B: Body<Data = bytes::Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let decoded = FilePath::decode(request.uri().path());
        let (path, form) = decoded.map_err(|_| Reason::RequestInvalid)?;
        let place = Place { path, form };
        let writes = match *request.method() {
            Method::GET => false,
            Method::HEAD => query(request.uri(), UPLOAD_QUERY).is_some(),
            _ => true,
        };
        if writes && self.access == FilesAccess::ReadOnly {
            return Err(Reason::FilesReadOnly);
        }
        match request.method().as_str() {
            "HEAD" if writes => upload::offset(self, visitor, &place, request.uri()).await,
            "GET" | "HEAD" => download::answer(self, &place, &request).await,
            "PUT" => upload::put(self, visitor, &place, request).await,
            "MKCOL" => upload::make_directory(&self.root, &place).await,
            _ => {
                let mut response = page::with_status(
                    StatusCode::METHOD_NOT_ALLOWED,
                    Reason::RequestInvalid,
                    false,
                );
                let methods = ::http::HeaderValue::from_static(METHODS);
                response.headers_mut().insert(header::ALLOW, methods);
                Ok(response)
            }
        }
    }
}
