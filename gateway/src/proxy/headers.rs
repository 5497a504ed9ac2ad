//! What may pass between client and service, and what is added.
//!
//! Security: hop-by-hop headers and whatever `Connection` names are dropped in both directions;
//! identity and forwarding headers of a client are dropped and our own added, so that a service can
//! believe them.

use ::http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use super::Visitor;
use super::connect::Upstream;

/// Tells the browser-visible origin, e.g. `http://lab.home.localhost:8080`; client → gateway.
pub const ORIGIN_HEADER: HeaderName = HeaderName::from_static("portway-origin");

/// Longest header section of a request, bytes of names and values.
pub const MAX_HEADERS: usize = 64 * 1024;

/// Hop-by-hop (RFC 9110 §7.6.1), framing, and expectations that we do not play.
const DROPPED: [HeaderName; 10] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Claims about who asks; ours replace the client's.
const FORWARDED: [HeaderName; 5] = [
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
];

/// Of responses: would steer the browser around us.
const STEERING: [HeaderName; 3] = [
    header::ALT_SVC,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("service-worker-allowed"),
];

/// The browser-visible origin of a request, if the client gave a plausible one.
#[must_use]
pub fn public_origin(headers: &HeaderMap) -> Option<String> {
    let origin = headers.get(&ORIGIN_HEADER)?.to_str().ok()?;
    let host = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))?;
    let plausible = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    (!host.is_empty() && host.chars().all(plausible)).then(|| origin.to_owned())
}

/// Turns the client's request headers into the service's.
pub fn to_service(
    headers: &mut HeaderMap,
    upstream: &Upstream,
    visitor: &Visitor,
    public: Option<&str>,
) {
    let trailers = wants_trailers(headers);
    drop_hop_by_hop(headers);
    drop_matching(headers, |name| {
        name.starts_with("x-forwarded-")
            || name.starts_with("x-portway-")
            || name.starts_with("portway-")
    });
    for name in FORWARDED {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Ok(host) = HeaderValue::from_str(upstream.authority()) {
        headers.insert(header::HOST, host);
    }
    if let Entry::Vacant(entry) = headers.entry(header::ACCEPT_ENCODING) {
        entry.insert(HeaderValue::from_static("identity"));
    }
    if let Some(public) = public {
        let own = upstream.origin();
        for name in [header::ORIGIN, header::REFERER] {
            replace_origin(headers, &name, public, &own);
        }
        let (scheme, host) = public.split_once("://").unwrap_or(("http", public));
        insert(headers, "x-forwarded-proto", scheme);
        insert(headers, "x-forwarded-host", host);
    }
    if let Some(path) = *visitor.path.borrow() {
        insert(headers, "x-forwarded-for", &path.remote.to_string());
        insert(headers, "x-portway-path", path.kind.as_str());
    }
    insert(headers, "x-portway-user", &visitor.user);
}

/// Turns the service's response headers into the client's.
pub fn to_client(headers: &mut HeaderMap, upstream: &Upstream, public: Option<&str>) {
    drop_hop_by_hop(headers);
    drop_matching(headers, |name| name.starts_with("portway-"));
    for name in STEERING {
        headers.remove(name);
    }
    if let Some(public) = public {
        let own = upstream.origin();
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            replace_origin(headers, &name, &own, public);
        }
    }
}

/// Bytes of names and values.
#[must_use]
pub fn size(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

/// Whether the other end of a connection wants trailers.
pub(crate) fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get(header::TE)
        .is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Drops what is between the two ends of one connection.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&DROPPED) {
        headers.remove(name);
    }
}

fn drop_matching(headers: &mut HeaderMap, is_dropped: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_dropped(name.as_str()))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Replaces the origin of an URL in a header if it is `from`.
fn replace_origin(headers: &mut HeaderMap, name: &HeaderName, from: &str, to: &str) {
    let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Some(rest) = value.strip_prefix(from) else {
        return;
    };
    if !(rest.is_empty() || rest.starts_with(['/', '?', '#'])) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{to}{rest}")) {
        headers.insert(name.clone(), value);
    }
}

/// Sets a header of ours; a value that no header can hold (a user's name, say) is left out.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portway_protocol::permission::Permission;
    use portway_transport::{CandidateKind, Path, PathKind, Protocol};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::flows::Flows;
    use crate::limits::CONNECT_TIMEOUT;
    use crate::service::{ServiceSpec, Trust};

    const PUBLIC: &str = "http://lab.home.localhost:8080";

    fn upstream() -> Upstream {
        let spec = ServiceSpec {
            name: "lab".parse().unwrap(),
            target: "http://127.0.0.1:8888".parse().unwrap(),
            trust: Trust::System,
        };
        Upstream::new(&spec, CONNECT_TIMEOUT).unwrap()
    }

    fn visitor() -> Visitor {
        Visitor {
            user: "ann".into(),
            path: watch::Sender::new(Some(Path {
                kind: PathKind::Direct,
                remote: [192, 0, 2, 7].into(),
                local_kind: CandidateKind::Host,
                remote_kind: CandidateKind::Host,
                protocol: Protocol::Udp,
            }))
            .subscribe(),
            permission: Permission::all("lab".parse().unwrap()),
            flows: Arc::new(Flows::new(Arc::default())),
            publishing: crate::messages::allowance(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn a_client_cannot_claim_to_be_somebody() {
        let mut headers = headers(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-user", "root"),
            ("x-portway-user", "root"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("portway-anything", "x"),
        ]);
        to_service(&mut headers, &upstream(), &visitor(), Some(PUBLIC));
        assert_eq!(headers["x-portway-user"], "ann");
        assert_eq!(headers["x-forwarded-host"], "lab.home.localhost:8080");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        for name in [
            "x-forwarded-user",
            "x-real-ip",
            "forwarded",
            "portway-anything",
        ] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn hop_by_hop_headers_do_not_pass() {
        let mut headers = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("keep-alive", "timeout=5"),
            ("accept", "*/*"),
        ]);
        to_service(&mut headers, &upstream(), &visitor(), None);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "accept-encoding",
                "host",
                "x-forwarded-for",
                "x-portway-path",
                "x-portway-user"
            ]
        );
    }

    #[test]
    fn the_service_sees_its_own_origin() {
        let mut headers = headers(&[
            ("origin", PUBLIC),
            ("referer", "http://lab.home.localhost:8080/tree?x"),
        ]);
        to_service(&mut headers, &upstream(), &visitor(), Some(PUBLIC));
        assert_eq!(headers["host"], "127.0.0.1:8888");
        assert_eq!(headers["origin"], "http://127.0.0.1:8888");
        assert_eq!(headers["referer"], "http://127.0.0.1:8888/tree?x");
    }

    #[test]
    fn a_foreign_origin_stays_foreign() {
        for origin in ["http://evil.example", "http://lab.home.localhost:80801"] {
            let mut headers = HeaderMap::new();
            headers.insert("origin", HeaderValue::from_static(origin));
            to_service(&mut headers, &upstream(), &visitor(), Some(PUBLIC));
            assert_eq!(headers["origin"], origin);
        }
    }

    #[test]
    fn redirects_to_the_service_s_own_address_come_to_us() {
        let mut headers = headers(&[("location", "http://127.0.0.1:8888/login?next=%2F")]);
        to_client(&mut headers, &upstream(), Some(PUBLIC));
        assert_eq!(
            headers["location"],
            "http://lab.home.localhost:8080/login?next=%2F"
        );
    }
}
