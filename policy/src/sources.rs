//! Reads policies: files and folders of `.rego` modules, and `data.json` documents beside them.
//!
//! What looks like a policy and is not read is an error, since a rule that nobody asks looks just
//! like a rule that nobody breaks: a link inside a folder, a folder or file that cannot be read, a
//! folder without any policy. Hidden folders and files of other names are passed by.
//! All sizes and counts are bounded. Nothing is parsed here but data.

use std::ffi::OsStr;
use std::fs::{DirEntry, File, FileType, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maestro_core::limits::{
    POLICY_DATA_BYTES_MAX, POLICY_ENTRIES_MAX, POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX,
};
use maestro_core::record::canonical_json;
use maestro_core::{Digest, DigestFunction, FailureKind};
use serde_json::{Map, Value, json};

use crate::error::{Code, Finding, LoadError, sorted};

/// The end of the names of test files.
const TEST_SUFFIX: &str = "_test.rego";
/// The end of the names of modules.
const MODULE_SUFFIX: &str = ".rego";
/// The name of files of data.
const DATA_FILE: &str = "data.json";
/// The root of decision points, which data may not touch.
const RESERVED: &str = "maestro";

/// The text of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// How messages call it.
    pub name: Arc<str>,
    /// The text.
    pub text: Arc<str>,
}

impl SourceFile {
    /// A module that is in memory.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Whether it holds tests: such a file takes no part in decisions.
    pub fn is_test(&self) -> bool {
        self.name.ends_with(TEST_SUFFIX)
    }
}

/// Policies as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Modules, in the order of their names.
    pub modules: Vec<SourceFile>,
    /// What modules see as `data`, beside their own rules.
    pub data: Map<String, Value>,
}

impl Sources {
    /// Reads what `paths` below `root` name; messages call files by the same names.
    pub fn read(root: &Path, paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut reader = Reader { root: root.to_owned(), ..Reader::default() };
        for path in paths {
            reader.path(&root.join(path));
        }
        reader.sources.modules.sort_by(|left, right| left.name.cmp(&right.name));
        match reader.findings.is_empty() {
            true => Ok(reader.sources),
            false => Err(LoadError(sorted(reader.findings))),
        }
    }

    /// These and others.
    pub fn with(mut self, modules: impl IntoIterator<Item = SourceFile>) -> Self {
        self.modules.extend(modules);
        self
    }

    /// SHA-256 of all that decides: the texts of the modules, without those of tests, and the data.
    /// Names of files and their order do not enter.
    pub fn digest(&self) -> Digest {
        let sha256 = |text: &str| DigestFunction::Sha256.digest(text.as_bytes()).hex();
        let deciding = self.modules.iter().filter(|module| !module.is_test());
        let mut modules: Vec<String> = deciding.map(|module| sha256(&module.text)).collect();
        modules.sort();
        modules.dedup();
        let whole = json!({"data": self.data, "modules": modules});
        // Data holds only numbers that have a canonical form, see `Reader::data`.
        let bytes = canonical_json(&whole).unwrap_or_else(|_| whole.to_string().into_bytes());
        DigestFunction::Sha256.digest(&bytes)
    }
}

/// Collects files and problems.
#[derive(Default)]
struct Reader {
    root: PathBuf,
    sources: Sources,
    seen: Vec<PathBuf>,
    entries: usize,
    findings: Vec<Finding>,
}

impl Reader {
    fn path(&mut self, path: &Path) {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => self.folder(path),
            Ok(found) => self.file(path, path.parent().unwrap_or(path), &found),
            Err(error) => self.io(path, &error),
        }
    }

    fn folder(&mut self, top: &Path) {
        let (mut folders, mut has_files) = (vec![top.to_owned()], false);
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).and_then(Iterator::collect);
            let mut entries: Vec<DirEntry> = match entries {
                Ok(entries) => entries,
                Err(error) => return self.io(&folder, &error),
            };
            self.entries += entries.len();
            if self.entries > POLICY_ENTRIES_MAX {
                let message =
                    format!("`{}` holds more than {POLICY_ENTRIES_MAX} files", self.shown(top));
                return self.report(message, "name the folder that holds the policies");
            }
            entries.sort_by_key(DirEntry::file_name);
            for path in entries.into_iter().map(|entry| entry.path()) {
                match std::fs::symlink_metadata(&path) {
                    Ok(found) if is_policy(&path) && !found.is_dir() => {
                        has_files = true;
                        self.entry(&path, top, &found);
                    }
                    Ok(found) if is_hidden(&path) || !may_hold(&path, found.file_type()) => {}
                    Ok(found) if found.is_dir() => folders.push(path),
                    Ok(_) => self.link(&path),
                    Err(error) => self.io(&path, &error),
                }
            }
        }
        if !has_files {
            let message = format!("`{}` holds no policies", self.shown(top));
            let hint = "policies end in `.rego`, data is called `data.json`; name another folder, \
                        or none";
            self.report(message, hint);
        }
    }

    /// Reads a file of a folder.
    fn entry(&mut self, path: &Path, top: &Path, found: &Metadata) {
        match found.is_symlink() {
            true => self.link(path),
            false => self.file(path, top, found),
        }
    }

    fn link(&mut self, path: &Path) {
        let message = format!("`{}` is a link, and links are not followed", self.shown(path));
        let hint = "put what it points to in its place, or name that beside the folder";
        self.report(message, hint);
    }

    /// Reads a file; `top` is the folder that was named, or the one in which the file lies.
    fn file(&mut self, path: &Path, top: &Path, found: &Metadata) {
        let is_data = is_data(path);
        if !found.is_file() || !is_policy(path) {
            let message = format!("`{}` is no policy", self.shown(path));
            return self.report(message, "policies end in `.rego`, data is called `data.json`");
        }
        // The same file, named twice, counts once.
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.seen.contains(&whole) {
            return;
        }
        self.seen.push(whole);
        if self.seen.len() > POLICY_FILES_MAX {
            let message = format!("there are more than {POLICY_FILES_MAX} policy files");
            return self.report(message, "name the folder that holds the policies");
        }
        let limit = if is_data { POLICY_DATA_BYTES_MAX } else { POLICY_FILE_BYTES_MAX };
        let Some(text) = self.text(path, found.len(), limit) else { return };
        if is_data {
            self.data(path, path.parent().unwrap_or(top).strip_prefix(top).ok(), &text);
        } else {
            let name = self.shown(path);
            self.sources.modules.push(SourceFile::new(&name, &text));
        }
    }

    fn text(&mut self, path: &Path, size: u64, limit: u64) -> Option<String> {
        let mut bytes = Vec::new();
        if size <= limit {
            // It may have grown since.
            let read = File::open(path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
            if let Err(error) = read {
                self.io(path, &error);
                return None;
            }
        }
        if size > limit || bytes.len() as u64 > limit {
            let message = format!("`{}` is larger than {limit} bytes", self.shown(path));
            self.report(message, "split it; large lists belong into `data.json`");
            return None;
        }
        match String::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let message = format!("`{}` is not UTF-8, at byte {at}", self.shown(path));
                self.report(message, "save it as UTF-8");
                None
            }
        }
    }

    /// Adds a document of data below the folders that lead to it.
    fn data(&mut self, path: &Path, below: Option<&Path>, text: &str) {
        let shown = self.shown(path);
        let bad = |why: String| Finding::new(Code::Data, format!("`{shown}` is not valid: {why}"));
        let document = serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
        let checked = document.and_then(|document| match canonical_json(&document) {
            Ok(_) => Ok(document),
            Err(error) => Err(error.to_string()),
        });
        let mut value = match checked {
            Ok(Value::Object(fields)) => Value::Object(fields),
            Ok(_) => return self.findings.push(bad("it is no object".to_owned())),
            Err(why) => return self.findings.push(bad(why)),
        };
        let folders: Vec<_> = below.into_iter().flat_map(Path::components).collect();
        for folder in folders.into_iter().rev() {
            let key = folder.as_os_str().to_string_lossy().into_owned();
            value = Value::Object(Map::from_iter([(key, value)]));
        }
        let Value::Object(fields) = value else { return };
        if fields.contains_key(RESERVED) {
            let why = format!("it defines `data.{RESERVED}`, which is where policies stand");
            return self.findings.push(bad(why).hint("choose another name for the key or folder"));
        }
        if let Err(key) = merge(&mut self.sources.data, fields) {
            let why = format!("another file gives `data.{key}` another value");
            self.findings.push(bad(why));
        }
    }

    /// How messages call a file.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    fn io(&mut self, path: &Path, error: &std::io::Error) {
        let message = format!("cannot read `{}`: {error}", self.shown(path));
        let mut finding = Finding::new(Code::File, message);
        if error.kind() != std::io::ErrorKind::NotFound {
            finding.kind = FailureKind::Environment;
        }
        self.findings.push(finding);
    }

    fn report(&mut self, message: String, hint: &str) {
        self.findings.push(Finding::new(Code::File, message).hint(hint));
    }
}

fn is_data(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == DATA_FILE)
}

/// Whether a name is one of those that are read.
fn is_policy(path: &Path) -> bool {
    let name = path.file_name().map_or(&[][..], OsStr::as_encoded_bytes);
    is_data(path) || name.ends_with(MODULE_SUFFIX.as_bytes())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether policies may lie below a path: it is a folder, or a link to one.
fn may_hold(path: &Path, kind: FileType) -> bool {
    kind.is_dir() || (kind.is_symlink() && path.is_dir())
}

/// Adds the keys of `other`; the path of a key that has another value already is an error.
fn merge(into: &mut Map<String, Value>, other: Map<String, Value>) -> Result<(), String> {
    for (key, value) in other {
        match (into.get_mut(&key), value) {
            (None, value) => {
                into.insert(key, value);
            }
            (Some(Value::Object(inner)), Value::Object(fields)) => {
                merge(inner, fields).map_err(|path| format!("{key}.{path}"))?;
            }
            (Some(present), value) if *present == value => {}
            (Some(_), _) => return Err(key),
        }
    }
    Ok(())
}
