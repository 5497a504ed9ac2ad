//! What a grant allows on a service: methods and path globs.

use serde::{Deserialize, Serialize};

use crate::id::ServiceName;

/// One service with the methods and paths that are allowed. An absent list allows all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// The service.
    pub name: ServiceName,
    /// Allowed HTTP methods, upper case; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Allowed paths: exact, or a prefix that ends in `*`; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
}

impl Permission {
    /// Everything on `name`.
    #[must_use]
    pub const fn all(name: ServiceName) -> Self {
        Self {
            name,
            methods: None,
            paths: None,
        }
    }

    /// Whether a request may pass. `path` is the path of the very URI that is forwarded.
    ///
    /// A path with `.` or `..` segments, plain or percent-encoded, or an encoded separator passes
    /// no path restriction: the service might resolve it to a place outside.
    #[must_use]
    pub fn allows(&self, method: &str, path: &str) -> bool {
        self.allows_method(method) && self.allows_path(path)
    }

    /// Whether every request to a path that begins with `prefix` may pass.
    #[must_use]
    pub fn allows_below(&self, method: &str, prefix: &str) -> bool {
        let below = |glob: &String| {
            let start = glob.strip_suffix('*');
            start.is_some_and(|start| prefix.starts_with(start))
        };
        let paths = self.paths.as_ref();
        self.allows_method(method) && paths.is_none_or(|globs| globs.iter().any(below))
    }

    fn allows_method(&self, method: &str) -> bool {
        self.methods
            .as_ref()
            .is_none_or(|methods| methods.iter().any(|m| m == method))
    }

    fn allows_path(&self, path: &str) -> bool {
        let Some(globs) = &self.paths else {
            return true;
        };
        !is_ambiguous(path)
            && globs.iter().any(|glob| match glob.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == glob,
            })
    }
}

/// Whether a service could resolve the path to another one than its text says.
fn is_ambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded_separator = ["%2f", "%5c", "%00", "\\", "//"];
    encoded_separator.iter().any(|s| lower.contains(s))
        || lower
            .split('/')
            .map(|segment| segment.replace("%2e", "."))
            .any(|segment| {
                let name = segment.split(';').next().unwrap_or_default();
                name == "." || name == ".."
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restricted() -> Permission {
        Permission {
            name: "docs".parse().unwrap(),
            methods: Some(vec!["GET".into(), "HEAD".into()]),
            paths: Some(vec!["/d/*".into(), "/index.html".into()]),
        }
    }

    #[test]
    fn methods_and_paths_are_both_needed() {
        let permission = restricted();
        assert!(permission.allows("GET", "/d/a/b"));
        assert!(permission.allows("HEAD", "/index.html"));
        assert!(!permission.allows("POST", "/d/a"));
        assert!(!permission.allows("GET", "/index.html2"));
        assert!(!permission.allows("GET", "/"));
    }

    #[test]
    fn a_path_that_leaves_the_prefix_is_refused() {
        let permission = restricted();
        for path in [
            "/d/../admin",
            "/d/%2e%2E/admin",
            "/d/.%2e/x",
            "/d/..;x/admin",
            "/d/%2fadmin",
            "/d/..%5cadmin",
            "/d//admin",
            "/d/%00",
        ] {
            assert!(!permission.allows("GET", path), "{path}");
        }
        assert!(permission.allows("GET", "/d/..x/%C3%28"));
    }

    #[test]
    fn what_is_below_needs_a_glob_that_is_above() {
        let permission = restricted();
        assert!(permission.allows_below("GET", "/d/"));
        assert!(permission.allows_below("GET", "/d/a/"));
        assert!(!permission.allows_below("POST", "/d/"));
        assert!(!permission.allows_below("GET", "/"));
        assert!(!permission.allows_below("GET", "/index.html"));
        assert!(Permission::all("docs".parse().unwrap()).allows_below("GET", "/"));
        let odd = Permission {
            paths: Some(vec!["/d/**".into(), "/d/".into()]),
            ..restricted()
        };
        assert!(odd.allows("GET", "/d/*") && odd.allows("GET", "/d/"));
        assert!(!odd.allows_below("GET", "/d/"));
    }

    #[test]
    fn no_list_allows_all() {
        let permission = Permission::all("docs".parse().unwrap());
        assert!(permission.allows("PURGE", "/../x"));
    }
}
