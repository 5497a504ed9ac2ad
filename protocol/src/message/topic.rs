//! What messages are about, and which of them somebody wants. Sans-IO.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::permission::Permission;

/// What a subscription is to a grant.
const METHOD: &str = "GET";

/// Longest topic, bytes.
pub const MAX_TOPIC: usize = 200;

/// Segments of a topic.
pub const MAX_SEGMENTS: usize = 8;

/// What a message is about: segments, the most general first, e.g. `alarms/cellar`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(String);

/// The topics that a subscriber wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// This one.
    One(Topic),
    /// All below this one, but not itself: `alarms/*`.
    Below(Topic),
    /// Every one: `*`.
    All,
}

/// Why a text is no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a topic: use 1 to {MAX_SEGMENTS} segments of a-z, 0-9, `.`, `_` and `-`, parted by `/`, at most \
     {MAX_TOPIC} bytes"
)]
pub struct TopicError(String);

impl Topic {
    /// As text, without a slash in front.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.len() > MAX_TOPIC
            || text.split('/').count() > MAX_SEGMENTS
            || !text.split('/').all(is_segment)
        {
            return Err(TopicError(excerpt(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `.` and `..` mean something else in a path.
fn is_segment(text: &str) -> bool {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || [b'.', b'_', b'-'].contains(&byte)
    };
    !["", ".", ".."].contains(&text) && text.bytes().all(is_allowed)
}

/// What fits an error, without what a terminal would obey.
fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(MAX_TOPIC).collect();
    short.escape_debug().to_string()
}

impl Filter {
    /// Whether it wants messages about a topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        match self {
            Self::One(wanted) => wanted == topic,
            Self::Below(parent) => is_below(topic.as_str(), parent),
            Self::All => true,
        }
    }

    /// Whether a grant lets its holder hear all that it wants.
    #[must_use]
    pub fn is_allowed_by(&self, permission: &Permission) -> bool {
        match self {
            Self::One(topic) => permission.allows(METHOD, &format!("/{topic}")),
            Self::Below(parent) => permission.allows_below(METHOD, &format!("/{parent}/")),
            Self::All => permission.allows_below(METHOD, "/"),
        }
    }

    /// Whether some topic is wanted by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::One(topic), filter) | (filter, Self::One(topic)) => filter.matches(topic),
            (Self::Below(a), Self::Below(b)) => {
                a == b || is_below(a.as_str(), b) || is_below(b.as_str(), a)
            }
        }
    }
}

fn is_below(topic: &str, parent: &Topic) -> bool {
    let rest = topic.strip_prefix(parent.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

impl FromStr for Filter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        match text.strip_suffix("/*") {
            Some(parent) => parent.parse().map(Self::Below),
            None if text == "*" => Ok(Self::All),
            None => text.parse().map(Self::One),
        }
    }
}

impl TryFrom<String> for Topic {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        text.parse()
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(topic) => topic.fmt(f),
            Self::Below(parent) => write!(f, "{parent}/*"),
            Self::All => f.write_str("*"),
        }
    }
}

impl Serialize for Filter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_a_topic_is_refused() {
        let deep = ["a"; MAX_SEGMENTS + 1].join("/");
        let long = "a".repeat(MAX_TOPIC + 1);
        for text in [
            "", "/", "/a", "a/", "a//b", "a/./b", "..", "a/..", "A", "a b", "a%2fb", "a*", "*/a",
            "*", "a/*/b", "ä", "a?", "a#", &deep, &long,
        ] {
            assert!(text.parse::<Topic>().is_err(), "{text:?}");
        }
        for text in ["a", "alarms/cellar.2/..x", "-", "0_0/a-b"] {
            assert_eq!(text.parse::<Topic>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_filter_wants_what_is_below() {
        let filter: Filter = "alarms/*".parse().unwrap();
        for (topic, wanted) in [
            ("alarms/fire", true),
            ("alarms/fire/cellar", true),
            ("alarms", false),
            ("alarmsx/fire", false),
            ("x/alarms/fire", false),
        ] {
            assert_eq!(filter.matches(&topic.parse().unwrap()), wanted, "{topic}");
        }
        for text in ["*", "a/*", "a/b"] {
            assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        }
        for text in ["/*", "a*", "**", "a/**", "*/*"] {
            assert!(text.parse::<Filter>().is_err(), "{text:?}");
        }
    }

    const TOPICS: &str = "[ab.]{1,2}(/[ab.]{1,2}){0,3}";
    const FILTERS: &str = "([ab.]{1,2}/){0,3}([ab.]{1,2}|\\*)";

    proptest! {
        /// Whoever may hear a filter may also hear each topic that it wants.
        #[test]
        fn no_filter_gets_more_than_a_grant_allows(
            glob in "/([ab.]{0,2}/){0,3}[ab.]{0,2}\\*{0,2}", filter in FILTERS, topic in TOPICS,
        ) {
            let (Ok(filter), Ok(topic)) = (filter.parse::<Filter>(), topic.parse::<Topic>()) else {
                return Ok(());
            };
            let permission = Permission {
                paths: Some(vec![glob]),
                ..Permission::all("bus".parse().unwrap())
            };
            if filter.is_allowed_by(&permission) && filter.matches(&topic) {
                let path = format!("/{topic}");
                prop_assert!(permission.allows(METHOD, &path));
            }
        }

        #[test]
        fn filters_overlap_where_a_topic_is_wanted_by_both(
            a in FILTERS, b in FILTERS, topic in TOPICS,
        ) {
            let (Ok(a), Ok(b), Ok(topic)) = (a.parse::<Filter>(), b.parse::<Filter>(), topic.parse::<Topic>()) else {
                return Ok(());
            };
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            if a.matches(&topic) && b.matches(&topic) {
                prop_assert!(a.overlaps(&b));
            }
        }
    }
}
