//! Relative paths inside a tree: UTF-8, `/`-separated, already normal.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// A path below some root, shared cheaply.
///
/// Invariant: not empty, no leading or trailing `/`, no `.`, `..` or empty segment, no control
/// character, at most [`limits::PATH_BYTES_MAX`] bytes, each segment at most
/// [`limits::NAME_BYTES_MAX`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<str>);

/// Why a text is not a [`RelPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Empty, absolute, or with an empty, `.` or `..` segment.
    #[error("`{path}` is not a normal relative path")]
    NotNormal {
        /// The path with control characters escaped.
        path: String,
    },
    /// A control character, such as a newline, stands in a name.
    #[error("`{path}` has a control character in a name")]
    Control {
        /// The path with control characters escaped.
        path: String,
    },
    /// A name or the whole path is too long.
    #[error("the path `{path}` is too long")]
    TooLong {
        /// The beginning of the path.
        path: String,
    },
    /// The name is not UTF-8.
    #[error("the name `{path}` is not UTF-8")]
    NotUtf8 {
        /// The path with its odd bytes escaped.
        path: String,
    },
}

impl RelPath {
    /// Checks and wraps `text`.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.chars().any(char::is_control) {
            return Err(PathError::Control { path: escape(text) });
        }
        if text.len() > limits::PATH_BYTES_MAX
            || text.split('/').any(|s| s.len() > limits::NAME_BYTES_MAX)
        {
            return Err(PathError::TooLong { path: text.chars().take(80).collect() });
        }
        if text.split('/').any(|s| matches!(s, "" | "." | "..")) {
            return Err(PathError::NotNormal { path: text.to_owned() });
        }
        Ok(Self(text.into()))
    }

    /// Checks a name that came from the file system as bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::new(text),
            Err(_) => Err(PathError::NotUtf8 { path: bytes.escape_ascii().to_string() }),
        }
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Everything before the last segment, if there is more than one.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The segments from the root down.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// `self/tail`.
    pub fn join(&self, tail: &str) -> Result<Self, PathError> {
        Self::new(&format!("{}/{tail}", self.0))
    }

    /// Whether `self` is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        self.0
            .strip_prefix(&*ancestor.0)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The part of `self` below `ancestor`, if it lies strictly below.
    pub fn below(&self, ancestor: &Self) -> Option<&str> {
        self.0.strip_prefix(&*ancestor.0)?.strip_prefix('/')
    }
}

/// Where the link `link` with text `target` points, or `None` if it is absolute or leaves the root.
///
/// `..` counts only at the beginning of the text: behind a name that is a link itself it would
/// lead elsewhere than the text says. The root itself is returned as an empty text.
pub fn resolve_link(link: &RelPath, target: &str) -> Option<String> {
    if target.starts_with('/') || target.is_empty() || target.chars().any(char::is_control) {
        return None;
    }
    let mut stack: Vec<&str> = link.segments().collect();
    stack.pop();
    let mut named = false;
    for segment in target.split('/') {
        match segment {
            "" | "." => {}
            ".." if named => return None,
            ".." => {
                stack.pop()?;
            }
            name => {
                named = true;
                stack.push(name);
            }
        }
    }
    Some(stack.join("/"))
}

fn escape(text: &str) -> String {
    text.chars().flat_map(char::escape_default).collect()
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for RelPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for RelPath {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&*self.0)
    }
}

impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_normal() {
        for bad in ["", "/a", "a/", "a//b", ".", "a/./b", "..", "a/../b", "a\nb", "a\0b"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b", "a b", "…/ü", "..a", "a..b", "-x"] {
            assert_eq!(RelPath::new(good).expect(good).as_str(), good);
        }
        let error = RelPath::from_bytes(b"a\xffb").expect_err("not UTF-8");
        assert_eq!(error.to_string(), "the name `a\\xffb` is not UTF-8");
    }

    #[test]
    fn links_stay_inside() {
        let check = |link: &str, target: &str, expect: Option<&str>| {
            let link = RelPath::new(link).expect("valid");
            assert_eq!(resolve_link(&link, target).as_deref(), expect, "{link} -> {target}");
        };
        check("a/b", "c", Some("a/c"));
        check("a/b", "../c", Some("c"));
        check("a/b", "..", Some(""));
        check("a/b", "../../c", None);
        check("a", "/etc/passwd", None);
        check("a", "x/../../y", None);
        check("a/l", "b/../x", None);
    }

    #[test]
    fn below_needs_a_border() {
        let path = |text| RelPath::new(text).expect("valid");
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(path("a/b/c").below(&path("a")), Some("b/c"));
        assert_eq!(path("a").below(&path("a")), None);
    }
}
