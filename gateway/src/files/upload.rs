//! PUT and MKCOL: a file comes, in as many requests as it takes.
//!
//! A file that is uploaded under a key (`?upload=KEY`) can be gone on with: HEAD tells how much of it is here,
//! and PUT with that `Upload-Offset` adds the rest. It has no name before all of it is here and its digest is
//! that of the sender, if that tells one. Whoever comes last with a key goes on with it: the other request may
//! be of a client that is gone, which nobody here has noticed yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{Request, Response, StatusCode, Uri};
use cap_std::fs::Dir;
use hyper::body::Body;
use portway_protocol::files::{
    EXECUTABLE_HEADER, FileName, MAX_UPLOAD_KEY, MODIFIED_HEADER, PathForm, REPR_DIGEST,
    UPLOAD_LENGTH, UPLOAD_OFFSET, UPLOAD_QUERY,
};
use portway_protocol::reason::Reason;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::download::refused;
use super::error::blocking;
use super::headers::{self, insert, query, text};
use super::partial::{self, Executable, Partial, PartialName, Replace, Unfinished};
use super::receiving::{ReceiveError, digest_of, receive};
use super::root::{self, Root, os_name};
use super::{FileError, Files, Place};
use crate::proxy::{ProxyBody, Visitor};

/// Uploads of a service at a time.
const MAX_UPLOADS: usize = 64;

/// The uploads of a service that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<HashMap<PartialName, Running>>>);

/// Who works at an upload.
#[derive(Debug, Default)]
struct Running {
    /// Tells the last who came to end.
    stop: CancellationToken,
    /// Held by who writes.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// How many hold or wait.
    claims: usize,
}

/// The right to write an upload, until somebody else wants it.
struct Claim {
    uploads: Uploads,
    name: PartialName,
    stop: CancellationToken,
    writing: Option<OwnedMutexGuard<()>>,
}

impl Uploads {
    /// Has whoever writes there end, and waits for that.
    async fn claim(&self, name: &PartialName) -> Result<Claim, Reason> {
        let (mut claim, writing) = self.enter(name)?;
        let waited = writing.lock_owned();
        let writing = claim.stop.run_until_cancelled(waited).await;
        claim.writing = Some(writing.ok_or(Reason::RateLimited)?);
        Ok(claim)
    }

    fn enter(&self, name: &PartialName) -> Result<(Claim, Arc<tokio::sync::Mutex<()>>), Reason> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_UPLOADS && !all.contains_key(name) {
            return Err(Reason::RateLimited);
        }
        let running = all.entry(name.clone()).or_default();
        running.stop.cancel();
        running.stop = CancellationToken::new();
        running.claims += 1;
        let claim = Claim {
            uploads: self.clone(),
            name: name.clone(),
            stop: running.stop.clone(),
            writing: None,
        };
        Ok((claim, running.writing.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.writing = None;
        let mut all = self
            .uploads
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = all.get_mut(&self.name) {
            running.claims -= 1;
            if running.claims == 0 {
                all.remove(&self.name);
            }
        }
    }
}

/// What an upload is to become.
struct Wanted {
    directory: Dir,
    name: FileName,
    replace: Replace,
}

/// How a file is told that is uploaded.
struct Told {
    offset: u64,
    length: Option<u64>,
    modified_ms: Option<i64>,
    executable: Executable,
}

impl Told {
    fn of(headers: &HeaderMap) -> Result<Self, Reason> {
        let number = |name: &str| {
            let told = text(headers, name).map(str::parse::<u64>);
            told.transpose().map_err(|_| Reason::RequestInvalid)
        };
        let modified = text(headers, MODIFIED_HEADER).map(str::parse);
        Ok(Self {
            offset: number(UPLOAD_OFFSET)?.unwrap_or_default(),
            length: number(UPLOAD_LENGTH)?,
            modified_ms: modified.transpose().map_err(|_| Reason::RequestInvalid)?,
            executable: match text(headers, EXECUTABLE_HEADER) {
                Some("?1") => Executable::Yes,
                Some(_) | None => Executable::No,
            },
        })
    }
}

/// Tells how much of an upload is here.
///
/// # Errors
/// Why none can be.
pub(super) async fn offset(
    files: &Files,
    visitor: &Visitor,
    place: &Place,
    uri: &Uri,
) -> Result<Response<ProxyBody>, Reason> {
    let wanted = wanted(&files.root, place, Replace::Always).await?;
    let (name, _) = partial_name(visitor, place, uri)?;
    let _claim = files.uploads.claim(&name).await?;
    let length = blocking(move || partial::length(&wanted.directory, &name)).await;
    let length = length.map_err(|error| refused(place, &error))?;
    Ok(at(StatusCode::NO_CONTENT, length))
}

/// Takes a file, or the rest of one.
///
/// # Errors
/// Why not.
pub(super) async fn put<B>(
    files: &Files,
    visitor: &Visitor,
    place: &Place,
    request: Request<B>,
) -> Result<Response<ProxyBody>, Reason>
where
    B: Body<Data = bytes::Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let told = Told::of(request.headers())?;
    let replace = match text(request.headers(), header::IF_NONE_MATCH.as_str()) {
        Some("*") => Replace::Never,
        Some(_) => return Err(Reason::RequestInvalid),
        None => Replace::Always,
    };
    let wanted = wanted(&files.root, place, replace).await?;
    let (name, unfinished) = partial_name(visitor, place, request.uri())?;
    let claim = files.uploads.claim(&name).await?;
    let Wanted {
        directory,
        name: final_name,
        replace,
    } = wanted;
    let executable = told.executable;
    let opening = move || Partial::open(directory, name, executable, unfinished);
    let partial = blocking(opening).await;
    let partial = partial.map_err(|error| refused(place, &error))?;
    if partial.length() != told.offset {
        return Ok(at(StatusCode::CONFLICT, partial.length()));
    }
    let announced = digest_of(request.headers());
    let limit = told.length.unwrap_or(u64::MAX);
    let receiving = receive(request.into_body(), partial, limit);
    let received = claim.stop.run_until_cancelled(receiving).await;
    let (partial, trailing) = match received {
        Some(Ok(received)) => received,
        Some(Err(ReceiveError::File(error))) => return Err(refused(place, &error)),
        // Nobody is there to be answered.
        Some(Err(ReceiveError::Cut(error))) => {
            tracing::debug!(%error, "an upload was cut off");
            return Err(Reason::BodyTruncated);
        }
        None => return Err(Reason::RateLimited),
    };
    if told.length.is_some_and(|length| partial.length() != length) {
        return Ok(at(StatusCode::BAD_REQUEST, partial.length()));
    }
    let got = partial.digest();
    let finishing = blocking(move || match trailing.or(announced) {
        Some(expected) if expected != got => {
            partial.discard();
            Err(FileError::Mismatch { expected, got })
        }
        Some(_) | None => partial.finish(&final_name, replace, told.modified_ms),
    });
    finishing.await.map_err(|error| refused(place, &error))?;
    let mut response = headers::empty(StatusCode::CREATED);
    let digest = HeaderName::from_static(REPR_DIGEST);
    insert(response.headers_mut(), digest, &got.to_field());
    Ok(response)
}

/// Makes a directory (RFC 4918 §9.3).
///
/// # Errors
/// Why not.
pub(super) async fn make_directory(
    root: &Root,
    place: &Place,
) -> Result<Response<ProxyBody>, Reason> {
    let Some((parent, name)) = place.path.split() else {
        return Err(Reason::FileExists);
    };
    let (root, name) = (root.clone(), name.clone());
    let making = move || {
        let parent = root::directory(&root.open()?, &parent)?;
        Ok::<_, FileError>(parent.create_dir(os_name(&name))?)
    };
    blocking(making)
        .await
        .map_err(|error| missing(place, &error))?;
    Ok(headers::empty(StatusCode::CREATED))
}

/// Opens the directory that a file is to be in, and looks whether it may.
async fn wanted(root: &Root, place: &Place, replace: Replace) -> Result<Wanted, Reason> {
    if place.form == PathForm::Directory {
        return Err(Reason::FileIsDirectory);
    }
    let (parent, name) = place.path.split().ok_or(Reason::FileIsDirectory)?;
    let (root, name, place) = (root.clone(), name.clone(), place.clone());
    blocking(move || {
        let directory = root
            .open()
            .and_then(|root| Ok(root::directory(&root, &parent)?));
        let directory = directory.map_err(|error| missing(&place, &error))?;
        match directory.symlink_metadata(os_name(&name)) {
            Ok(there) if there.is_dir() => Err(Reason::FileIsDirectory),
            Ok(_) if replace == Replace::Never => Err(Reason::FileExists),
            Ok(_) | Err(_) => Ok(Wanted {
                directory,
                name,
                replace,
            }),
        }
    })
    .await
}

/// The name of an upload's file until it is complete: each user has uploads of their own.
fn partial_name(
    visitor: &Visitor,
    place: &Place,
    uri: &Uri,
) -> Result<(PartialName, Unfinished), Reason> {
    let Some(key) = query(uri, UPLOAD_QUERY) else {
        return Ok((PartialName::random(), Unfinished::Goes));
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if key.is_empty() || key.len() > MAX_UPLOAD_KEY || !key.bytes().all(is_plain) {
        return Err(Reason::RequestInvalid);
    }
    let path = place.path.to_uri(place.form);
    let name = PartialName::of(&[visitor.user.as_bytes(), path.as_bytes(), key.as_bytes()]);
    Ok((name, Unfinished::Stays))
}

/// What is not found is not the file, but where it should be.
fn missing(place: &Place, error: &FileError) -> Reason {
    let reason = refused(place, error);
    if reason == Reason::FileNotFound {
        return Reason::DirectoryMissing;
    }
    reason
}

/// How much is here.
fn at(status: StatusCode, offset: u64) -> Response<ProxyBody> {
    let mut response = headers::empty(status);
    let name = HeaderName::from_static(UPLOAD_OFFSET);
    insert(response.headers_mut(), name, &offset.to_string());
    response
}
