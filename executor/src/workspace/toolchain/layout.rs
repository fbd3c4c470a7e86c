//! Arranges host paths into the tree of a toolchain.
//!
//! Paths are brought to the one place where the host really has them: on a merged-`/usr` system
//! `/bin/bash` is `usr/bin/bash`, and the root has the links `bin`, `sbin`, `lib`, `lib64`.
//! Links become relative, so that the tree means the same wherever it is mounted; links through
//! `/etc/alternatives` lead straight to their target; links to nothing in the tree are dropped.
//! Pure functions over a map, except where a name says that the host is asked.

use std::collections::{BTreeMap, BTreeSet};

/// Root folders that merged-`/usr` systems have as links.
pub(super) const ROOT_LINKS: [&str; 7] =
    ["bin", "sbin", "lib", "lib64", "lib32", "libx32", "libo32"];

/// Prefixes of absolute paths that no toolchain has: documentation, state, and `/etc`, which
/// inside the sandbox is Maestro's own.
pub(super) const EXCLUDED_PREFIXES: [&str; 15] = [
    "/etc",
    "/var",
    "/boot",
    "/dev",
    "/home",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/lintian",
    "/usr/share/locale",
];

/// Most links that are followed on the way to one path, as in Linux.
const LINKS_MAX: usize = 40;

/// One entry of the tree before files are read. Keys of maps are paths without leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular file of the host.
    File,
    /// A link, with the text that it has on the host.
    Link(String),
}

/// Whether a path is left out, given the declaration's own prefixes.
pub(super) fn is_excluded(path: &str, own: &[String]) -> bool {
    let below = |prefix: &str| {
        let prefix = prefix.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path.ends_with(".pyc")
        || path.split('/').any(|name| name == "__pycache__")
        || EXCLUDED_PREFIXES.into_iter().any(below)
        || own.iter().any(|prefix| below(prefix))
}

/// Collects entries, then makes links relative.
#[derive(Debug, Default)]
pub(super) struct Layout {
    entries: BTreeMap<String, Entry>,
    folders: BTreeSet<String>,
    /// Name below `/etc/alternatives` → its target, an absolute path.
    alternatives: BTreeMap<String, String>,
}

impl Layout {
    /// Starts with the links of the root, as (name, text).
    pub(super) fn new(root_links: &[(String, String)]) -> Self {
        let mut layout = Self::default();
        for (name, target) in root_links {
            layout.entries.insert(name.clone(), Entry::Link(target.clone()));
        }
        layout
    }

    /// Adds what the host has at an absolute path, at the place where links of folders lead.
    /// The first entry at a place counts.
    pub(super) fn add(&mut self, path: &str, entry: Entry) {
        let Some(place) = self.place(path) else { return };
        if place.is_empty() || self.folders.contains(&place) {
            return;
        }
        let mut parent = place.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            self.folders.insert(above.to_owned());
            parent = above;
        }
        self.entries.entry(place).or_insert(entry);
    }

    /// Where the host keeps the entry of an absolute path: its parents' links are followed, the
    /// last segment's is not. `None` where the links lead out of the root or in circles.
    pub(super) fn place(&self, path: &str) -> Option<String> {
        self.resolve(path, false)
    }

    /// Whether something stands at an absolute path, after following all links.
    pub(super) fn has(&self, path: &str) -> bool {
        self.target(path).is_some()
    }

    /// Says where a name below `/etc/alternatives` leads.
    pub(super) fn alternative(&mut self, name: &str, target: &str) {
        self.alternatives.insert(name.to_owned(), target.to_owned());
    }

    /// The finished entries: paths without leading `/`, and for links their relative text.
    pub(super) fn finish(self) -> Vec<(String, Entry)> {
        let mut finished = Vec::new();
        for (path, entry) in &self.entries {
            match entry {
                Entry::File => finished.push((path.clone(), Entry::File)),
                Entry::Link(text) => {
                    if let Some(text) = self.relative(path, text) {
                        finished.push((path.clone(), Entry::Link(text)));
                    }
                }
            }
        }
        finished
    }

    /// The relative text of a link, or `None` if it leads to nothing.
    fn relative(&self, link: &str, text: &str) -> Option<String> {
        let target = self.target(&format!("/{link}"))?;
        let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !text.starts_with('/') && !text.is_empty() && self.stays_inside(parent, text) {
            return Some(text.to_owned());
        }
        Some(relative_path(parent, &target))
    }

    /// Whether a relative text never climbs above the root, read segment by segment, and does
    /// not pass the alternatives.
    fn stays_inside(&self, parent: &str, text: &str) -> bool {
        let mut depth = parent.split('/').filter(|s| !s.is_empty()).count();
        for segment in text.split('/') {
            match segment {
                "" | "." => {}
                ".." if depth == 0 => return false,
                ".." => depth -= 1,
                _ => depth += 1,
            }
        }
        !text.split('/').any(|segment| segment == "alternatives")
    }

    /// The file or folder that an absolute path leads to, if the tree has it.
    fn target(&self, path: &str) -> Option<String> {
        let place = self.resolve(path, true)?;
        let there = place.is_empty()
            || self.folders.contains(&place)
            || matches!(self.entries.get(&place), Some(Entry::File));
        there.then_some(place)
    }

    /// Walks a path segment by segment, following the links of the tree and the alternatives.
    fn resolve(&self, path: &str, follow_last: bool) -> Option<String> {
        let mut waiting: Vec<String> = segments(path);
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(segment) = waiting.pop() {
            if segment == ".." {
                done.pop();
                continue;
            }
            done.push(segment);
            if waiting.is_empty() && !follow_last {
                break;
            }
            let place = done.join("/");
            let text = match self.entries.get(&place) {
                Some(Entry::Link(text)) => Some(text.as_str()),
                _ => place
                    .strip_prefix("etc/alternatives/")
                    .and_then(|name| self.alternatives.get(name))
                    .map(String::as_str),
            };
            if let Some(text) = text {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                done.pop();
                if text.starts_with('/') {
                    done.clear();
                }
                waiting.extend(segments(text));
            }
        }
        Some(done.join("/"))
    }
}

/// The segments of a path in reverse, without empty ones and `.`.
fn segments(path: &str) -> Vec<String> {
    let names = path.rsplit('/').filter(|segment| !matches!(*segment, "" | "."));
    names.map(str::to_owned).collect()
}

/// How one gets from the folder `from` to `to`; both are relative to the same root.
fn relative_path(from: &str, to: &str) -> String {
    let split = |path: &str| -> Vec<String> { segments(path).into_iter().rev().collect() };
    let (from, to) = (split(from), split(to));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", from.len() - common);
    let down = to.iter().skip(common).map(String::as_str);
    let path: Vec<&str> = up.chain(down).collect();
    if path.is_empty() { ".".to_owned() } else { path.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged_usr() -> Layout {
        let links = [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];
        Layout::new(&links.map(|(name, target)| (name.to_owned(), target.to_owned())))
    }

    fn check(adds: &[(&str, Option<&str>)], alternatives: &[(&str, &str)], expect: &[&str]) {
        let mut layout = merged_usr();
        for (path, link) in adds {
            let entry = link.map_or(Entry::File, |text| Entry::Link(text.to_owned()));
            layout.add(path, entry);
        }
        for (name, target) in alternatives {
            layout.alternative(name, target);
        }
        let lines: Vec<String> = layout
            .finish()
            .into_iter()
            .map(|(path, entry)| match entry {
                Entry::File => path,
                Entry::Link(text) => format!("{path} -> {text}"),
            })
            .collect();
        assert_eq!(lines, expect);
    }

    #[test]
    fn merged_usr_paths_come_to_their_place() {
        check(
            &[("/bin/bash", None), ("/usr/bin/env", None), ("/bin/sh", Some("dash"))],
            &[],
            &["bin -> usr/bin", "usr/bin/bash", "usr/bin/env"],
        );
    }

    #[test]
    fn absolute_links_become_relative() {
        check(
            &[
                ("/lib64/ld.so.2", Some("/lib/x86/ld.so.2")),
                ("/lib/x86/ld.so.2", None),
                ("/usr/lib/jvm/current", Some("/usr/lib/x86")),
                ("/usr/bin/up", Some("../../../../usr/lib/x86/ld.so.2")),
            ],
            &[],
            &[
                "bin -> usr/bin",
                "lib -> usr/lib",
                "lib64 -> usr/lib64",
                "usr/bin/up -> ../lib/x86/ld.so.2",
                "usr/lib/jvm/current -> ../x86",
                "usr/lib/x86/ld.so.2",
                "usr/lib64/ld.so.2 -> ../lib/x86/ld.so.2",
            ],
        );
    }

    #[test]
    fn alternatives_lead_to_their_target() {
        check(
            &[
                ("/usr/bin/awk", Some("/etc/alternatives/awk")),
                ("/usr/bin/gawk-5", None),
                ("/usr/bin/gawk", Some("gawk-5")),
                ("/usr/bin/vi", Some("/etc/alternatives/vi")),
                ("/usr/bin/rel", Some("../../etc/alternatives/awk")),
            ],
            &[("awk", "/usr/bin/gawk"), ("vi", "/usr/bin/vim")],
            &[
                "bin -> usr/bin",
                "usr/bin/awk -> gawk-5",
                "usr/bin/gawk -> gawk-5",
                "usr/bin/gawk-5",
                "usr/bin/rel -> gawk-5",
            ],
        );
    }

    #[test]
    fn circles_and_links_to_nothing_are_dropped_and_linked_folders_merge() {
        check(
            &[
                ("/usr/a", Some("b")),
                ("/usr/b", Some("a")),
                ("/usr/c", Some("/etc/passwd")),
                ("/usr/share/old", Some("new")),
                ("/usr/share/old/f", None),
                ("/usr/share/new", None),
                ("/usr/share/new/g", None),
            ],
            &[],
            &["usr/share/new/f", "usr/share/new/g", "usr/share/old -> new"],
        );
    }

    #[test]
    fn exclusion_needs_a_border() {
        let own = ["/usr/lib/python3/".to_owned()];
        for out in ["/etc", "/etc/x", "/usr/share/doc/a", "/usr/lib/python3/x", "/x/__pycache__/y"]
        {
            assert!(is_excluded(out, &own), "{out}");
        }
        assert!(is_excluded("/usr/lib/a.pyc", &[]));
        for kept in ["/etcetera", "/usr/share/docs", "/usr/lib/python3.11/x", "/usr/bin/env"] {
            assert!(!is_excluded(kept, &own), "{kept}");
        }
    }
}
