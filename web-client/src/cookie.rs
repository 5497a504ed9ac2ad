//! The cookies of one service (RFC 6265). Sans-IO.
//!
//! The browser's own jar must stay empty: it would send a service's cookies to the signaling host
//! with the next navigation. There is one host, so `Domain` is ignored; `Secure` cookies are sent,
//! for the connection is always encrypted.
//!
//! Bounds: [`MAX_COOKIES`] of [`MAX_SIZE`] bytes; the one used longest ago makes room.

mod date;

use serde::{Deserialize, Serialize};

/// Cookies of a service.
pub const MAX_COOKIES: usize = 200;

/// Longest name and value together (RFC 6265 §6.1).
pub const MAX_SIZE: usize = 4096;

/// Longest attribute value.
const MAX_ATTRIBUTE: usize = 1024;

/// All cookies of a service.
#[derive(Debug, Default)]
pub struct Jar(Vec<Cookie>);

/// What one tab tells the others of the same person about its jar.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum News {
    /// Something was set, in this order.
    Changed(Vec<Change>),
    /// Everything that there is, for a tab that is new.
    Whole(Vec<Cookie>),
}

/// Something that was set; repeated on another jar it does the same.
#[derive(Debug, Serialize, Deserialize)]
pub struct Change {
    url: String,
    text: String,
    now: u64,
    source: Source,
}

/// One cookie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cookie {
    name: String,
    value: String,
    path: String,
    /// Seconds since 1970; absent = until the browser forgets us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    http_only: bool,
    created: u64,
}

impl Jar {
    /// What [`Jar::save`] made; anything else is an empty jar.
    #[must_use]
    pub fn load(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_default())
    }

    /// To be stored.
    #[must_use]
    pub fn save(&self, now: u64) -> String {
        let live: Vec<&Cookie> = self.0.iter().filter(|c| c.is_live(now)).collect();
        serde_json::to_string(&live).unwrap_or_default()
    }

    /// Takes a `Set-Cookie` header of a response to `url`; `None` if it was not acceptable.
    pub fn set_by_response(&mut self, url: &str, header: &str, now: u64) -> Option<Change> {
        self.change(url, header, now, Source::Response)
    }

    /// Takes an assignment to `document.cookie` at `url`; `None` if it was not acceptable.
    pub fn set_by_script(&mut self, url: &str, text: &str, now: u64) -> Option<Change> {
        self.change(url, text, now, Source::Script)
    }

    /// Takes what another tab has told.
    pub fn hear(&mut self, news: News) {
        match news {
            News::Changed(changes) => {
                for change in changes {
                    self.set(&change.url, &change.text, change.now, change.source);
                }
            }
            News::Whole(cookies) => {
                for cookie in cookies {
                    if let Some(known) = self.position(&cookie) {
                        self.0.remove(known);
                    }
                    self.0.push(cookie);
                }
                let excess = self.0.len().saturating_sub(MAX_COOKIES);
                self.0.drain(..excess);
            }
        }
    }

    /// All there is, for a tab that is new.
    #[must_use]
    pub fn whole(&self) -> News {
        News::Whole(self.0.clone())
    }

    /// The `Cookie` header of a request for `url`; empty if there is none.
    #[must_use]
    pub fn for_request(&self, url: &str, now: u64) -> String {
        self.matching(url, now, Source::Response)
    }

    /// What `document.cookie` shows at `url`.
    #[must_use]
    pub fn for_script(&self, url: &str, now: u64) -> String {
        self.matching(url, now, Source::Script)
    }

    fn change(&mut self, url: &str, text: &str, now: u64, source: Source) -> Option<Change> {
        self.set(url, text, now, source).then(|| Change {
            url: url.to_owned(),
            text: text.to_owned(),
            now,
            source,
        })
    }

    /// Where the cookie of the same name and path is.
    fn position(&self, cookie: &Cookie) -> Option<usize> {
        let same = |c: &Cookie| c.name == cookie.name && c.path == cookie.path;
        self.0.iter().position(same)
    }

    fn set(&mut self, url: &str, header: &str, now: u64, source: Source) -> bool {
        let Some(cookie) = Cookie::parse(url, header, now, source) else {
            return false;
        };
        if let Some(known) = self.position(&cookie) {
            if source == Source::Script && self.0[known].http_only {
                return false;
            }
            let created = self.0.remove(known).created;
            if cookie.is_live(now) {
                self.0.push(Cookie { created, ..cookie });
            }
            return true;
        }
        self.0.retain(|c| c.is_live(now));
        if self.0.len() >= MAX_COOKIES {
            self.0.remove(0);
        }
        if cookie.is_live(now) {
            self.0.push(cookie);
        }
        true
    }

    /// Longer paths first, then older cookies (RFC 6265 §5.4).
    fn matching(&self, url: &str, now: u64, source: Source) -> String {
        let path = path_of(url);
        let mut cookies: Vec<&Cookie> = self
            .0
            .iter()
            .filter(|c| c.is_live(now) && path_matches(path, &c.path))
            .filter(|c| source == Source::Response || !c.http_only)
            .collect();
        cookies.sort_by_key(|c| (std::cmp::Reverse(c.path.len()), c.created));
        let pairs: Vec<String> = cookies
            .iter()
            .map(|c| {
                if c.name.is_empty() {
                    c.value.clone()
                } else {
                    format!("{}={}", c.name, c.value)
                }
            })
            .collect();
        pairs.join("; ")
    }
}

/// Who sets or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Response,
    Script,
}

impl Cookie {
    /// RFC 6265 §5.2, with the prefixes of its successor.
    fn parse(url: &str, header: &str, now: u64, source: Source) -> Option<Self> {
        if header.chars().any(|c| c.is_control() && c != '\t') {
            return None;
        }
        let mut parts = header.split(';');
        let pair = parts.next()?;
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name.trim(), value.trim()),
            None => ("", pair.trim()),
        };
        if (name.is_empty() && value.is_empty()) || name.len() + value.len() > MAX_SIZE {
            return None;
        }
        let mut cookie = Self {
            name: name.to_owned(),
            value: value.to_owned(),
            path: default_path(url),
            expires: None,
            http_only: false,
            created: now,
        };
        let (mut max_age, mut secure, mut root_path, mut domain) = (None, false, false, false);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            if value.len() > MAX_ATTRIBUTE {
                continue;
            }
            match key.trim().to_ascii_lowercase().as_str() {
                "expires" => cookie.expires = date::parse(value).or(cookie.expires),
                "max-age" => max_age = parse_max_age(value, now).or(max_age),
                "path" if value.starts_with('/') => {
                    value.clone_into(&mut cookie.path);
                    root_path = value == "/";
                }
                "path" => cookie.path = default_path(url),
                "httponly" => cookie.http_only = true,
                "secure" => secure = true,
                "domain" => domain = !value.is_empty(),
                _ => {}
            }
        }
        cookie.expires = max_age.or(cookie.expires);
        let lower = cookie.name.to_ascii_lowercase();
        let prefix_broken = (lower.starts_with("__secure-") && !secure)
            || (lower.starts_with("__host-") && !(secure && root_path && !domain));
        if prefix_broken || (source == Source::Script && cookie.http_only) {
            return None;
        }
        Some(cookie)
    }

    fn is_live(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

/// Zero and negative ages expire at once.
fn parse_max_age(value: &str, now: u64) -> Option<u64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    if value.starts_with('-') {
        return Some(0);
    }
    match digits.parse::<u64>().unwrap_or(u64::MAX) {
        0 => Some(0),
        seconds => Some(now.saturating_add(seconds)),
    }
}

fn path_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// RFC 6265 §5.1.4.
fn default_path(url: &str) -> String {
    let path = path_of(url);
    match path.rfind('/') {
        Some(last) if last > 0 && path.starts_with('/') => path[..last].to_owned(),
        _ => "/".to_owned(),
    }
}

/// RFC 6265 §5.1.4.
fn path_matches(request: &str, cookie: &str) -> bool {
    match request.strip_prefix(cookie) {
        Some(rest) => rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn jar(headers: &[&str]) -> Jar {
        let mut jar = Jar::default();
        for header in headers {
            jar.set_by_response("/app/page", header, NOW);
        }
        jar
    }

    #[test]
    fn paths_select_and_order() {
        let jar = jar(&["a=1; Path=/", "b=2; Path=/app", "c=3; Path=/other", "d=4"]);
        assert_eq!(jar.for_request("/app/x?q", NOW), "b=2; d=4; a=1");
        assert_eq!(jar.for_request("/apple", NOW), "a=1");
        assert_eq!(jar.for_request("/other", NOW), "c=3; a=1");
    }

    #[test]
    fn http_only_cookies_are_hidden_from_scripts_and_safe_from_them() {
        let mut jar = jar(&["s=secret; HttpOnly; Path=/", "v=1; Path=/"]);
        assert_eq!(jar.for_script("/", NOW), "v=1");
        assert!(jar.set_by_script("/", "s=forged; Path=/", NOW).is_none());
        assert!(jar.set_by_script("/", "t=1; HttpOnly", NOW).is_none());
        assert_eq!(jar.for_request("/", NOW), "s=secret; v=1");
    }

    #[test]
    fn cookies_expire_and_are_deleted() {
        let mut jar = jar(&["a=1; Max-Age=60; Path=/", "b=2; Path=/"]);
        assert_eq!(jar.for_request("/", NOW + 59), "a=1; b=2");
        assert_eq!(jar.for_request("/", NOW + 60), "b=2");
        jar.set_by_response("/", "b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", NOW);
        assert_eq!(jar.for_request("/", NOW), "a=1");
        jar.set_by_response("/", "a=; Max-Age=0", NOW);
        assert_eq!(jar.for_request("/", NOW), "");
    }

    #[test]
    fn max_age_wins_over_expires() {
        let jar = jar(&["a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"]);
        assert_eq!(jar.for_request("/", NOW), "a=1");
    }

    #[test]
    fn prefixes_are_enforced() {
        let jar = jar(&[
            "__Host-a=1; Path=/",
            "__Host-b=1; Secure; Path=/app",
            "__Host-c=1; Secure; Path=/; Domain=x",
            "__Host-d=1; Secure; Path=/",
            "__Secure-e=1",
        ]);
        assert_eq!(jar.for_request("/app/", NOW), "__Host-d=1");
    }

    #[test]
    fn a_jar_survives_storage() {
        let first = jar(&["a=1; Path=/; HttpOnly", "b=2; Max-Age=5"]);
        let second = Jar::load(&first.save(NOW));
        assert_eq!(second.0, first.0);
        assert!(Jar::load("garbage").0.is_empty());
    }

    #[test]
    fn a_jar_is_bounded() {
        let mut jar = Jar::default();
        for i in 0..1000 {
            jar.set_by_response("/", &format!("c{i}=1"), NOW);
        }
        assert_eq!(jar.0.len(), MAX_COOKIES);
        let big = format!("big={}", "x".repeat(MAX_SIZE));
        assert!(jar.set_by_response("/", &big, NOW).is_none());
    }

    fn passed_on(news: &News) -> News {
        serde_json::from_str(&serde_json::to_string(news).unwrap()).unwrap()
    }

    #[test]
    fn tabs_keep_each_other_up_to_date() {
        let mut first = jar(&["a=1; Path=/", "s=1; Path=/; HttpOnly"]);
        let mut second = Jar::default();
        second.hear(passed_on(&first.whole()));
        assert_eq!(second.0, first.0);
        let changes = [
            first.set_by_response("/x/y", "b=2", NOW + 1),
            first.set_by_response("/", "a=; Path=/; Max-Age=0", NOW + 2),
            first.set_by_script("/", "s=stolen; Path=/", NOW + 3),
        ];
        second.hear(passed_on(&News::Changed(
            changes.into_iter().flatten().collect(),
        )));
        assert_eq!(second.0, first.0);
        assert_eq!(second.for_request("/x/", NOW + 4), "b=2; s=1");
    }

    #[test]
    fn news_of_another_tab_do_not_overfill_a_jar() {
        let many = |prefix| {
            let mut jar = Jar::default();
            for i in 0..MAX_COOKIES {
                jar.set_by_response("/", &format!("{prefix}{i}=1"), NOW);
            }
            jar
        };
        let mut jar = many("a");
        jar.hear(many("b").whole());
        assert_eq!(jar.0.len(), MAX_COOKIES);
    }

    proptest! {
        #[test]
        fn any_header_is_taken_or_refused(header: String, url: String) {
            let mut jar = Jar::default();
            let _taken = jar.set_by_response(&url, &header, NOW);
            prop_assert!(!jar.for_request(&url, NOW).contains(['\r', '\n']));
        }
    }
}
