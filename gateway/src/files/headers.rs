//! What requests and answers say in their heads.
//!
//! Security: [`protect`] stands on every answer. Nothing runs on the service's origin: no script, no plug-in, no
//! form, and no type but the one that is told. What is not known to be harmless is saved, not shown.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use portway_protocol::files::{
    Attributes, EXECUTABLE_HEADER, FILES_HEADER, FileName, MODIFIED_HEADER,
};
use portway_protocol::reason::Reason;

use crate::proxy::ProxyBody;

/// Of our own pages: our styles, and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
);

/// Of files: as above, and in an origin of their own.
const FILE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'self'; sandbox",
);

/// Types that a browser may show, by the ending of the name; none of them can hold a script.
const SHOWN: &[(&str, &str)] = &[
    ("txt", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/plain; charset=utf-8"),
    ("csv", "text/plain; charset=utf-8"),
    ("json", "text/plain; charset=utf-8"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
];

/// Makes whatever it is harmless.
pub(super) fn protect(headers: &mut HeaderMap) {
    headers.insert(FILES_HEADER, HeaderValue::from_static("1"));
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let no_referrer = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, no_referrer);
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(POLICY);
    let revalidate = HeaderValue::from_static("private, no-cache");
    headers.entry(header::CACHE_CONTROL).or_insert(revalidate);
}

/// What is said of a file beside its content.
pub(super) fn describe(headers: &mut HeaderMap, attributes: &Attributes, name: &FileName) {
    insert(headers, header::ETAG, &attributes.etag);
    let modified = u64::try_from(attributes.modified_ms).unwrap_or_default();
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(modified);
    let modified = httpdate::fmt_http_date(modified);
    insert(headers, header::LAST_MODIFIED, &modified);
    let millis = attributes.modified_ms.to_string();
    insert(headers, HeaderName::from_static(MODIFIED_HEADER), &millis);
    let executable = if attributes.executable { "?1" } else { "?0" };
    let name_of = HeaderName::from_static(EXECUTABLE_HEADER);
    headers.insert(name_of, HeaderValue::from_static(executable));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_SECURITY_POLICY, FILE_POLICY);
    let (media_type, disposition) = match shown(name) {
        Some(media_type) => (media_type, "inline"),
        None => ("application/octet-stream", "attachment"),
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // RFC 6266, with the name as RFC 8187 has it.
    let disposition = format!("{disposition}; filename*=UTF-8''{name}");
    insert(headers, header::CONTENT_DISPOSITION, &disposition);
}

fn shown(name: &FileName) -> Option<&'static str> {
    let text = name.to_text().to_lowercase();
    let (_, ending) = text.rsplit_once('.')?;
    let (_, media_type) = SHOWN.iter().find(|(known, _)| *known == ending)?;
    Some(media_type)
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Response<ProxyBody> {
    with_content(status, Bytes::new())
}

/// An answer with this content.
pub(super) fn with_content(status: StatusCode, content: Bytes) -> Response<ProxyBody> {
    let body = Full::new(content).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Sets a header whose value is ours.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("no control character is in it");
    headers.insert(name, value);
}

/// A header as text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// A parameter of the query, as it stands there.
pub(super) fn query<'u>(uri: &'u Uri, name: &str) -> Option<&'u str> {
    let parameters = uri.query()?.split('&');
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find_map(|(given, value)| (given == name).then_some(value))
}

/// Status of an answer that says why there is no other.
pub(super) fn status(reason: Reason) -> StatusCode {
    let known = [
        (Reason::RequestInvalid, StatusCode::BAD_REQUEST),
        (Reason::FileNotFound, StatusCode::NOT_FOUND),
        (Reason::FileDenied, StatusCode::FORBIDDEN),
        (Reason::FileNotRegular, StatusCode::FORBIDDEN),
        (Reason::FilesReadOnly, StatusCode::FORBIDDEN),
        (Reason::FileIsDirectory, StatusCode::CONFLICT),
        (Reason::DirectoryMissing, StatusCode::CONFLICT),
        (Reason::FileExists, StatusCode::PRECONDITION_FAILED),
        (Reason::DigestMismatch, StatusCode::UNPROCESSABLE_ENTITY),
        (Reason::DiskFull, StatusCode::INSUFFICIENT_STORAGE),
        (Reason::RateLimited, StatusCode::SERVICE_UNAVAILABLE),
    ];
    let status = known.iter().find(|(known, _)| *known == reason);
    status.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_hold_a_script_is_saved() {
        let name = |name: &str| FileName::new(name).unwrap();
        for harmless in ["a.txt", "Photo.JPG", "x.y.png"] {
            assert!(shown(&name(harmless)).is_some(), "{harmless}");
        }
        for other in ["a.html", "a.svg", "a.xml", "a.pdf", "txt", "a.js", "a."] {
            assert!(shown(&name(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn odd_names_fit_a_header() {
        let mut headers = HeaderMap::new();
        let attributes = Attributes {
            size: 1,
            modified_ms: -1,
            executable: true,
            etag: "\"1\"".into(),
        };
        let name = FileName::new(b"a\r\nb\"\xff;c".to_vec()).unwrap();
        describe(&mut headers, &attributes, &name);
        assert_eq!(
            headers[header::CONTENT_DISPOSITION],
            "attachment; filename*=UTF-8''a%0D%0Ab%22%FF%3Bc"
        );
    }

    #[test]
    fn parameters_are_found() {
        let uri: Uri = "/a?x=1&upload=k&after=".parse().unwrap();
        assert_eq!(query(&uri, "upload"), Some("k"));
        assert_eq!(query(&uri, "after"), Some(""));
        assert_eq!(query(&uri, "x1"), None);
    }
}
