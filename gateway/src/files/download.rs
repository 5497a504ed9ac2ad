//! GET and HEAD: a file, the rest of one, or what a directory holds (RFC 9110 §13, §14).

use std::ops::Range;

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{Method, Request, Response, StatusCode};
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use portway_protocol::files::{Attributes, PathForm, REPR_DIGEST, WANT_REPR_DIGEST};
use portway_protocol::reason::Reason;

use super::error::blocking;
use super::headers::{self, insert, text};
use super::root::{self, Found, Source};
use super::sending::{self, Digesting};
use super::{FileError, Files, Place, listing};
use crate::proxy::ProxyBody;

/// Which part of a file is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range(Range<u64>),
    /// One that it does not have.
    Outside,
}

/// Answers a request for what is there.
///
/// # Errors
/// Why there is nothing.
pub(super) async fn answer<B>(
    files: &Files,
    place: &Place,
    request: &Request<B>,
) -> Result<Response<ProxyBody>, Reason> {
    let (root, path) = (files.root.clone(), place.path.clone());
    let found = blocking(move || root::find(&root.open()?, &path)).await;
    match found.map_err(|error| refused(place, &error))? {
        Found::Directory(_) if place.form == PathForm::Plain => Ok(moved(place, request)),
        Found::Directory(directory) => {
            listing::answer(directory, files.access, place, request).await
        }
        Found::File(_) if place.form == PathForm::Directory => Err(Reason::FileNotFound),
        Found::File(source) => file(source, place, request).await,
    }
}

async fn file<B>(
    source: Source,
    place: &Place,
    request: &Request<B>,
) -> Result<Response<ProxyBody>, Reason> {
    let attributes = source.attributes.clone();
    let asked = request.headers();
    let mut response = headers::empty(StatusCode::OK);
    let told = response.headers_mut();
    let name = place.path.names().last().ok_or(Reason::FileNotFound)?;
    headers::describe(told, &attributes, name);
    if is_known(asked, &attributes) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let digesting = match text(asked, WANT_REPR_DIGEST) {
        Some(wanted) if wanted.contains("sha-256") => Digesting::Whole,
        Some(_) | None => Digesting::Nothing,
    };
    if request.method() == Method::HEAD {
        insert(told, header::CONTENT_LENGTH, &attributes.size.to_string());
        if digesting == Digesting::Whole {
            let digest = blocking(move || sending::digest(source)).await;
            let digest = digest.map_err(|error| refused(place, &error))?;
            let name = HeaderName::from_static(REPR_DIGEST);
            insert(told, name, &digest.to_field());
        }
        return Ok(response);
    }
    let size = attributes.size;
    let range = match part(asked, &attributes) {
        Part::Whole => 0..size,
        Part::Range(range) => {
            let last = range.end - 1;
            let content_range = format!("bytes {}-{last}/{size}", range.start);
            insert(told, header::CONTENT_RANGE, &content_range);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
        Part::Outside => {
            insert(told, header::CONTENT_RANGE, &format!("bytes */{size}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(response);
        }
    };
    let length = (range.end - range.start).to_string();
    insert(response.headers_mut(), header::CONTENT_LENGTH, &length);
    let frames = sending::frames(source, range, digesting);
    let frames = frames.inspect_err(|error| tracing::warn!(%error, "a file was not sent whole"));
    *response.body_mut() = StreamBody::new(frames.map_err(Into::into)).boxed_unsync();
    Ok(response)
}

/// A directory is what ends in a slash: names on its page go by that.
fn moved<B>(place: &Place, request: &Request<B>) -> Response<ProxyBody> {
    let mut response = headers::empty(StatusCode::PERMANENT_REDIRECT);
    let query = request.uri().query().map(|query| format!("?{query}"));
    let location = place.path.to_uri(PathForm::Directory) + &query.unwrap_or_default();
    insert(response.headers_mut(), header::LOCATION, &location);
    response
}

/// Whether who asks has it already (`If-None-Match`).
fn is_known(asked: &HeaderMap, attributes: &Attributes) -> bool {
    text(asked, header::IF_NONE_MATCH.as_str()).is_some_and(|known| {
        known
            .split(',')
            .any(|tag| [attributes.etag.as_str(), "*"].contains(&tag.trim()))
    })
}

/// The part that is wanted: one range at most, others get the whole (RFC 9110 §14.2).
fn part(asked: &HeaderMap, attributes: &Attributes) -> Part {
    let same = text(asked, header::IF_RANGE.as_str()).is_none_or(|tag| tag == attributes.etag);
    let wanted = text(asked, header::RANGE.as_str()).filter(|_| same);
    let Some(wanted) = wanted.and_then(|range| range.strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let size = attributes.size;
    let range = match wanted.split_once('-') {
        Some(("", last)) => last
            .parse()
            .ok()
            .map(|last| size.saturating_sub(last)..size),
        Some((first, "")) => first.parse().ok().map(|first| first..size),
        Some((first, last)) => {
            first
                .parse()
                .ok()
                .zip(last.parse().ok())
                .and_then(|(first, last): (u64, u64)| {
                    (first <= last).then(|| first..last.saturating_add(1).min(size))
                })
        }
        None => None,
    };
    match range {
        None => Part::Whole,
        Some(range) if range.start < range.end => Part::Range(range),
        Some(_) => Part::Outside,
    }
}

/// Why a visitor does not get it; the machine's own troubles are logged.
pub(super) fn refused(place: &Place, error: &FileError) -> Reason {
    let reason = error.reason();
    if reason == Reason::FileFailed {
        tracing::warn!(path = ?place.path.to_text(), %error, "a file cannot be used");
    } else {
        tracing::debug!(path = ?place.path.to_text(), %error, "a file was refused");
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(headers: &[(HeaderName, &str)]) -> Part {
        let attributes = Attributes {
            size: 10,
            modified_ms: 0,
            executable: false,
            etag: "\"e\"".into(),
        };
        let mut asked = HeaderMap::new();
        for (name, value) in headers {
            insert(&mut asked, name.clone(), value);
        }
        part(&asked, &attributes)
    }

    #[test]
    fn one_range_is_understood() {
        for (range, part) in [
            ("bytes=0-", Part::Range(0..10)),
            ("bytes=9-", Part::Range(9..10)),
            ("bytes=2-3", Part::Range(2..4)),
            ("bytes=2-99999999999999999999", Part::Whole),
            ("bytes=2-18446744073709551615", Part::Range(2..10)),
            ("bytes=-4", Part::Range(6..10)),
            ("bytes=-40", Part::Range(0..10)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=x-", Part::Whole),
        ] {
            assert_eq!(wanted(&[(header::RANGE, range)]), part, "{range}");
        }
    }

    #[test]
    fn another_content_is_sent_whole() {
        let range = (header::RANGE, "bytes=4-");
        assert_eq!(
            wanted(&[range.clone(), (header::IF_RANGE, "\"e\"")]),
            Part::Range(4..10)
        );
        for other in ["\"f\"", "W/\"e\"", "Fri, 27 Nov 2026 12:00:00 GMT"] {
            assert_eq!(
                wanted(&[range.clone(), (header::IF_RANGE, other)]),
                Part::Whole
            );
        }
    }
}
