//! `glob`: the files of a package whose paths match patterns.
//!
//! `*` matches inside one name, `**` any number of folders. A glob never enters a folder that is a
//! package of its own, nor `maestro-out` and `.git`. The result is sorted, so that it does not
//! depend on the order of the disk.

use std::cell::Cell;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use maestro_core::RelPath;
use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::limits::GLOB_ENTRIES_MAX;

use crate::error::{Code, RuleError};
use crate::scope::PACKAGE_FILE;

/// Folders that no glob enters.
const SKIPPED: [&str; 2] = ["maestro-out", ".git"];
/// Most patterns of one glob.
const PATTERNS_MAX: usize = 10_000;

/// What a glob asks for.
pub(crate) struct Glob<'a> {
    pub(crate) include: &'a [&'a str],
    pub(crate) exclude: &'a [&'a str],
    pub(crate) allow_empty: bool,
    pub(crate) exclude_directories: bool,
    /// How many entries the globs of the file looked at so far.
    pub(crate) seen: &'a Cell<usize>,
}

/// The matching paths, relative to the package, sorted.
pub(crate) fn glob(
    host: &dyn Host,
    package: &str,
    request: &Glob<'_>,
) -> Result<Vec<String>, RuleError> {
    if request.include.len() + request.exclude.len() > PATTERNS_MAX {
        let message = format!("the glob has more than {PATTERNS_MAX} patterns");
        return Err(RuleError::new(Code::Limit, message).hint("name the files in a list"));
    }
    let exclude = compile(request.exclude)?;
    let mut walk = Walk {
        host,
        include: compile(request.include)?,
        reach: request.include.iter().map(|pattern| Reach::of(pattern)).collect(),
        files_only: request.exclude_directories,
        found: Vec::new(),
        seen: request.seen,
    };
    walk.folder(package)?;
    let mut found = walk.found;
    found.retain(|path| !exclude.is_match(path));
    found.sort_unstable();
    if found.is_empty() && !request.allow_empty {
        let patterns = request.include.join("`, `");
        let message = match request.include {
            [] => "the glob has no pattern".to_owned(),
            _ => format!("the glob `{patterns}` matches no file"),
        };
        return Err(RuleError::new(Code::Glob, message)
            .hint("say `allow_empty = True` where that is intended"));
    }
    Ok(found)
}

/// Tells which paths globs match, of files that somebody else lists.
pub fn glob_matcher(patterns: &[String]) -> Result<impl Fn(&str) -> bool, String> {
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let set = compile(&patterns).map_err(|error| error.message)?;
    Ok(move |path: &str| set.is_match(path))
}

fn compile(patterns: &[&str]) -> Result<GlobSet, RuleError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        check_pattern(pattern)?;
        let glob =
            GlobBuilder::new(pattern).literal_separator(true).backslash_escape(false).build();
        set.add(glob.map_err(|e| {
            RuleError::new(Code::Glob, format!("`{pattern}` is no glob: {}", e.kind()))
        })?);
    }
    set.build().map_err(|e| RuleError::new(Code::Glob, format!("the globs are too large: {e}")))
}

fn check_pattern(pattern: &str) -> Result<(), RuleError> {
    let why = if pattern.is_empty() {
        "it is empty"
    } else if pattern.starts_with('/') {
        "it starts with `/`"
    } else if pattern.split('/').any(|s| matches!(s, "" | "." | "..")) {
        "it has an empty, `.` or `..` segment"
    } else if pattern.split('/').any(|s| s.contains("**") && s != "**") {
        "`**` stands alone between two `/`"
    } else if pattern.contains(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(RuleError::new(Code::Glob, format!("`{}` is no glob: {why}", pattern.escape_debug())))
}

/// How deep, and into which folder, a pattern can match; keeps walks short.
struct Reach {
    /// The folders before the first wildcard.
    fixed: String,
    /// How many segments a match has at most; unbounded with `**`.
    depth: Option<usize>,
}

impl Reach {
    fn of(pattern: &str) -> Self {
        let wild = |segment: &&str| segment.contains(['*', '?', '[', '{']);
        let fixed: Vec<&str> = pattern.split('/').take_while(|s| !wild(s)).collect();
        let depth = (!pattern.contains("**")).then(|| pattern.split('/').count());
        Self { fixed: fixed.join("/"), depth }
    }

    /// Whether something below the folder `path` (empty: the package) could match.
    fn enters(&self, path: &str) -> bool {
        let depth = if path.is_empty() { 0 } else { path.split('/').count() };
        let inside = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner.strip_prefix(outer).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        self.depth.is_none_or(|max| depth < max)
            && (inside(path, &self.fixed) || inside(&self.fixed, path))
    }
}

struct Walk<'a> {
    host: &'a dyn Host,
    include: GlobSet,
    reach: Vec<Reach>,
    files_only: bool,
    found: Vec<String>,
    seen: &'a Cell<usize>,
}

impl Walk<'_> {
    /// Visits a package folder and everything below it that belongs to the package.
    fn folder(&mut self, package: &str) -> Result<(), RuleError> {
        let mut pending = vec![String::new()];
        while let Some(inner) = pending.pop() {
            let folder = join(package, &inner);
            let entries = list(self.host, &folder)?;
            if !inner.is_empty() && entries.iter().any(|e| e.name == PACKAGE_FILE) {
                continue;
            }
            // A folder costs something even where it is empty.
            self.seen.set(self.seen.get() + 1 + entries.len());
            if self.seen.get() > GLOB_ENTRIES_MAX {
                let message =
                    format!("the globs of this file look at more than {GLOB_ENTRIES_MAX} entries");
                return Err(RuleError::new(Code::Limit, message)
                    .hint("glob once and pick from the list, or split the package"));
            }
            for entry in entries {
                let path = join(&inner, &entry.name);
                if !entry.valid {
                    self.check_name(&path, &folder)?;
                    continue;
                }
                self.entry(path, &entry, package, &mut pending)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: String,
        entry: &DirEntry,
        package: &str,
        pending: &mut Vec<String>,
    ) -> Result<(), RuleError> {
        let file_type = match entry.file_type {
            // A link counts as what it points to; one that points nowhere is left out.
            FileType::Symlink => match stat(self.host, &join(package, &path))? {
                Some(file_type) => file_type,
                None => return Ok(()),
            },
            other => other,
        };
        if file_type == FileType::Directory {
            let skipped = path.is_empty() || SKIPPED.contains(&entry.name.as_str());
            // Links to folders could make circles, so they are not entered.
            let real = entry.file_type == FileType::Directory;
            if !skipped && real && self.reach.iter().any(|reach| reach.enters(&path)) {
                pending.push(path.clone());
            }
            if !self.files_only && !skipped && self.include.is_match(&path) {
                self.found.push(path);
            }
        } else if file_type == FileType::File && self.include.is_match(&path) {
            self.found.push(path);
        }
        Ok(())
    }

    fn check_name(&self, path: &str, folder: &str) -> Result<(), RuleError> {
        if !self.include.is_match(path) {
            return Ok(());
        }
        let folder = if folder.is_empty() { "." } else { folder };
        let name = path.rsplit('/').next().unwrap_or(path); // escaped by the host
        let message = format!("the name `{name}` in folder `{folder}` cannot stand in a build");
        Err(RuleError::new(Code::Glob, message)
            .hint("names are UTF-8 without control characters; rename the file or exclude it"))
    }
}

fn join(folder: &str, name: &str) -> String {
    match (folder.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => folder.to_owned(),
        (false, false) => format!("{folder}/{name}"),
    }
}

/// The entries of a folder, empty for the root.
pub(crate) fn list(host: &dyn Host, folder: &str) -> Result<Vec<DirEntry>, RuleError> {
    let path = match folder {
        "" => None,
        _ => Some(RelPath::new(folder).map_err(|e| RuleError::new(Code::File, e.to_string()))?),
    };
    host.list(path.as_ref()).map_err(|e| host_error(&e))
}

/// What stands at a path; nothing where it is no path.
pub(crate) fn stat(host: &dyn Host, path: &str) -> Result<Option<FileType>, RuleError> {
    match RelPath::new(path) {
        Ok(path) => host.stat(&path).map_err(|e| host_error(&e)),
        Err(_) => Ok(None),
    }
}

/// An error of the machine as one of ours.
pub(crate) fn host_error(error: &HostError) -> RuleError {
    use std::error::Error;
    let message = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    match error {
        HostError::Io { .. } => RuleError::new(Code::File, message).environment(),
        HostError::TooLarge { .. } => RuleError::new(Code::File, message),
        HostError::NoRepository { hints, .. } => {
            let error = RuleError::new(Code::Repository, message);
            hints.iter().fold(error, |error, hint| error.hint(hint))
        }
        HostError::Repository { kind, hints, .. } => {
            let mut error = RuleError::new(Code::Repository, message);
            error.kind = *kind;
            hints.iter().fold(error, |error, hint| error.hint(hint))
        }
    }
}
