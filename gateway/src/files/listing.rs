//! What a directory holds: as a page for people, as JSON for programs.

use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::header::{self, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use cap_std::fs::Dir;
use portway_protocol::files::{
    AFTER_QUERY, Entry, EntryKind, FileName, FilePath, LISTING_TYPE, Listing, MAX_ENTRIES,
};
use portway_protocol::reason::Reason;
use portway_protocol::target::FilesAccess;

use super::download::refused;
use super::error::blocking;
use super::headers::{self, insert, query, text};
use super::partial::{is_partial, sweep};
use super::root::look;
use super::{FileError, Place};
use crate::proxy::ProxyBody;

/// What [`page`] looks like.
const STYLE: &str = ":root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.35rem;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%}\
th,td{text-align:start;padding:.35rem .75rem .35rem 0;vertical-align:top}td{border-top:1px solid #8884}\
td:first-child{overflow-wrap:anywhere}th:nth-child(2),td:nth-child(2){text-align:end;white-space:nowrap}\
@media(max-width:40rem){th:nth-child(3),td:nth-child(3){display:none}}";

/// Answers with what a directory holds.
///
/// # Errors
/// Why it cannot be told.
pub(super) async fn answer<B>(
    directory: Dir,
    access: FilesAccess,
    place: &Place,
    request: &Request<B>,
) -> Result<Response<ProxyBody>, Reason> {
    let after = query(request.uri(), AFTER_QUERY).map(FileName::decode);
    let after = after.transpose().map_err(|_| Reason::RequestInvalid)?;
    let reading = move || read(&directory, access, after.as_ref(), MAX_ENTRIES);
    let listing = blocking(reading).await;
    let listing = listing.map_err(|error| refused(place, &error))?;
    let wants_json = text(request.headers(), header::ACCEPT.as_str())
        .is_some_and(|accept| accept.contains(LISTING_TYPE));
    let (media_type, content) = if wants_json {
        let json = serde_json::to_vec(&listing).map_err(|_| Reason::Internal)?;
        (LISTING_TYPE, Bytes::from(json))
    } else {
        (
            "text/html; charset=utf-8",
            page(&place.path, &listing).into(),
        )
    };
    let length = content.len().to_string();
    let content = match *request.method() {
        Method::HEAD => Bytes::new(),
        _ => content,
    };
    let mut response = headers::with_content(StatusCode::OK, content);
    let told = response.headers_mut();
    told.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    insert(told, header::CONTENT_LENGTH, &length);
    told.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// The first `limit` entries after a name. No more than these are kept, however many there are. What was left of
/// transfers long ago is removed where it may be. Blocking.
///
/// # Errors
/// The system's.
pub fn read(
    directory: &Dir,
    access: FilesAccess,
    after: Option<&FileName>,
    limit: usize,
) -> Result<Listing, FileError> {
    let now = SystemTime::now();
    // The greatest is dropped first.
    let mut names = BinaryHeap::new();
    let mut more = false;
    for entry in directory.entries()? {
        let name = entry?.file_name();
        if is_partial(&name) {
            if access == FilesAccess::ReadWrite {
                sweep(directory, &name, now);
            }
            continue;
        }
        // What is no name has none in a path either: nobody could ask for it.
        let Ok(name) = FileName::new(name.as_bytes()) else {
            continue;
        };
        if after.is_none_or(|after| name > *after) {
            names.push(name);
            if names.len() > limit {
                names.pop();
                more = true;
            }
        }
    }
    let names = names.into_sorted_vec();
    let entries = names.into_iter().filter_map(|name| look(directory, name));
    Ok(Listing {
        entries: entries.collect(),
        more,
    })
}

/// For people: no script, everything that is not ours escaped.
fn page(path: &FilePath, listing: &Listing) -> String {
    let title = escape(&match path.names() {
        [] => "Files".to_owned(),
        _ => path.to_text(),
    });
    let mut rows = String::new();
    if !path.names().is_empty() {
        rows.push_str("<tr><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n");
    }
    for entry in &listing.entries {
        row(&mut rows, entry);
    }
    let next = match listing.entries.last() {
        Some(last) if listing.more => {
            format!(
                "<p><a rel=\"next\" href=\"?{AFTER_QUERY}={}\">More</a></p>",
                last.name
            )
        }
        Some(_) | None => String::new(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main><h1>{title}</h1>\n\
         <table><thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>\
         <th scope=\"col\">Modified</th></tr></thead>\n<tbody>{rows}</tbody></table>{next}</main></body></html>\n"
    )
}

fn row(rows: &mut String, entry: &Entry) {
    let name = escape(&entry.name.to_text());
    // A name may look like a scheme; behind `./` it is none.
    let cells = match entry.kind {
        EntryKind::Directory => format!("<a href=\"./{}/\">{name}/</a></td><td>", entry.name),
        EntryKind::File => {
            format!(
                "<a href=\"./{}\">{name}</a></td><td>{}",
                entry.name,
                size(entry.attributes.size)
            )
        }
        EntryKind::Other => format!("{name}</td><td>"),
    };
    let modified = u64::try_from(entry.attributes.modified_ms).unwrap_or_default();
    let modified = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(modified));
    writeln!(rows, "<tr><td>{cells}</td><td>{modified}</td></tr>")
        .expect("a string takes everything");
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mut scaled = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 10 * 1024 {
            return format!("{scaled} {unit}");
        }
        scaled /= 1024;
    }
    format!("{scaled} TiB")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use portway_protocol::files::{Attributes, Via};

    use super::*;
    use crate::files::root::Root;

    #[test]
    fn pages_follow_each_other_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "d", "c", ".portway-partial-x", "e"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let directory = Root::new(folder.path().to_owned()).open().unwrap();
        let mut after = None;
        let mut seen = Vec::new();
        loop {
            let listing = read(&directory, FilesAccess::ReadOnly, after.as_ref(), 2).unwrap();
            after = listing.entries.last().map(|last| last.name.clone());
            seen.extend(listing.entries.iter().map(|entry| entry.name.to_text()));
            if !listing.more {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        let exactly = read(&directory, FilesAccess::ReadOnly, None, 5).unwrap();
        assert!(!exactly.more);
    }

    #[test]
    fn names_are_no_markup() {
        let name = FileName::new("javascript:<img src=x onerror='a()'>\"&").unwrap();
        let listing = Listing {
            entries: vec![Entry {
                name,
                kind: EntryKind::File,
                via: Via::Itself,
                attributes: Attributes {
                    size: 10_240,
                    ..Attributes::default()
                },
            }],
            more: true,
        };
        let page = page(&FilePath::typed(b"<b>/x").unwrap().0, &listing);
        assert!(!page.contains("<img") && !page.contains("<b>"), "{page}");
        assert!(
            page.contains("href=\"./javascript%3A%3Cimg%20src"),
            "{page}"
        );
        assert!(page.contains("10 KiB"), "{page}");
    }

    #[test]
    fn what_was_left_long_ago_is_removed_where_files_may_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] =
            ["old", "new"].map(|it| folder.path().join(format!(".portway-partial-{it}")));
        let long_ago =
            SystemTime::now() - super::super::partial::LIFETIME - Duration::from_secs(60);
        std::fs::write(&new, "x").unwrap();
        let file = std::fs::File::create(&old).unwrap();
        file.set_modified(long_ago).unwrap();
        let directory = Root::new(folder.path().to_owned()).open().unwrap();
        read(&directory, FilesAccess::ReadOnly, None, 2).unwrap();
        assert!(old.exists());
        read(&directory, FilesAccess::ReadWrite, None, 2).unwrap();
        assert!(!old.exists() && new.exists());
    }
}
