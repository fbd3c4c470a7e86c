//! Takes an action's outputs out of its writable layer and into the store.
//!
//! Whoever made the layer may be hostile, but is dead: nothing changes while we look. Everything
//! is looked at before anything is stored. Paths are opened beneath the layer's descriptor, with
//! no link followed on the way (`openat2`), so that a folder that was replaced by a link leads to
//! an error and not to the host.
//!
//! | found | becomes |
//! |---|---|
//! | regular file | a blob; of its mode only the owner's execute bit counts |
//! | folder, in a tree | a directory message; empty ones are kept |
//! | link inside its tree | a link; absolute and escaping ones are errors |
//! | socket, pipe, device | an error |
//! | attributes, flags, holes | nothing: a file that has some is copied, not moved |

mod keep;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use maestro_cas::{Store, StoreError};
use maestro_core::wire::{OutputDirectory, OutputFile};
use maestro_core::{ArtifactKind, RelPath, limits};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use keep::{store_file, store_folder};

/// An output that an action declares.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its path below the execution root.
    pub(super) path: RelPath,
    /// What it must be; `None` takes whatever there is, links as they stand among it.
    pub(super) kind: Option<ArtifactKind>,
    /// Whether it may be left out.
    pub(super) optional: bool,
}

/// The outputs of an action, all in the store; sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Collected {
    /// Files.
    pub(super) files: Vec<OutputFile>,
    /// Trees.
    pub(super) directories: Vec<OutputDirectory>,
    /// Links, by path, with what they point to.
    pub(super) symlinks: Vec<(String, String)>,
}

/// What is wrong with the outputs of an action.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// Declared outputs were not made.
    #[error("{}", missing_text(.0))]
    Missing(Vec<RelPath>),
    /// An output is something else than declared.
    #[error("output `{path}` is declared as {declared} but is {found}")]
    Kind {
        /// The output.
        path: String,
        /// What it must be.
        declared: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Something that no output can be stands in a tree.
    #[error("`{path}` is {found}, which an output cannot be")]
    Special {
        /// Where it stands.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// A link that does not stay in its tree.
    #[error("the link `{path}` points to `{target}`, {why}")]
    Link {
        /// Where it stands.
        path: String,
        /// Its text, escaped.
        target: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A folder on the way to an output is a link.
    #[error("a folder on the way to output `{path}` is a link")]
    Way {
        /// The output.
        path: String,
    },
    /// A name that no tree can have.
    #[error("the name `{name}` in `{folder}` {why}")]
    Name {
        /// The folder.
        folder: String,
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A tree is too large or too deep.
    #[error("output `{path}` has {what}, the limit is {limit}")]
    TooMuch {
        /// The output.
        path: String,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The system failed.
    #[error("cannot read output `{path}`")]
    Io {
        /// What was read.
        path: String,
        /// The failure.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn missing_text(paths: &[RelPath]) -> String {
    let shown: Vec<String> = paths.iter().take(10).map(|path| format!("`{path}`")).collect();
    let more = paths.len().saturating_sub(shown.len());
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("declared outputs were not made: {}{rest}", shown.join(", "))
}

/// Checks all outputs below `layer`, then stores them.
pub(super) fn collect(
    store: &Store,
    layer: BorrowedFd<'_>,
    wanted: &[Wanted],
) -> Result<Collected, OutputError> {
    let mut scan = Scan { layer, entries: 0, takes_links: false };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for output in wanted {
        match scan.output(output)? {
            Some(node) => found.push((&output.path, node)),
            None if output.optional => {}
            None => missing.push(output.path.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(OutputError::Missing(missing));
    }
    let mut out = Collected::default();
    for (path, node) in found {
        let text = path.as_str();
        match node {
            Found::File { executable } => {
                let (parent, name) = text.rsplit_once('/').unwrap_or(("", text));
                let folder = open_folder(layer, parent)?;
                let digest = store_file(store, folder.as_fd(), text, OsStr::new(name))?;
                out.files.push(OutputFile {
                    path: text.to_owned(),
                    digest,
                    is_executable: executable,
                });
            }
            Found::Folder(entries) => out.directories.push(OutputDirectory {
                path: text.to_owned(),
                root_directory_digest: store_folder(store, layer, text, &entries)?,
            }),
            Found::Link { target } => out.symlinks.push((text.to_owned(), target)),
        }
    }
    out.files.sort_by(|a, b| a.path.cmp(&b.path));
    out.directories.sort_by(|a, b| a.path.cmp(&b.path));
    out.symlinks.sort();
    Ok(out)
}

/// Lists the regular files below `layer`, up to `most` of them, to say what was made instead.
pub(super) fn list_files(layer: BorrowedFd<'_>, most: usize) -> Vec<String> {
    let (mut out, mut queue) = (Vec::new(), vec![String::new()]);
    let mut folders = 0;
    while let Some(folder) = queue.pop() {
        folders += 1;
        if out.len() >= most || folders > most {
            break;
        }
        let Ok(entries) = open_folder(layer, &folder).and_then(|fd| read_names(&fd, &folder))
        else {
            continue;
        };
        for (name, kind) in entries {
            let Some(name) = name.to_str().filter(|name| !name.contains(char::is_control)) else {
                continue;
            };
            let path = join(&folder, name);
            match kind {
                FileType::Directory if path.len() < limits::PATH_BYTES_MAX => queue.push(path),
                FileType::RegularFile => out.push(path),
                _ => {}
            }
        }
    }
    out.sort();
    out.truncate(most);
    out
}

/// What stands at a path of the layer.
#[derive(Debug)]
enum Found {
    File { executable: bool },
    Link { target: String },
    Folder(Vec<(String, Found)>),
}

struct Scan<'a> {
    layer: BorrowedFd<'a>,
    entries: usize,
    /// Whether links are taken wherever they lead.
    takes_links: bool,
}

impl Scan<'_> {
    fn output(&mut self, output: &Wanted) -> Result<Option<Found>, OutputError> {
        let path = output.path.as_str();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = match open_folder(self.layer, parent) {
            Ok(folder) => folder,
            Err(OutputError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(None);
            }
            Err(OutputError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOTDIR) => {
                return Ok(None);
            }
            Err(OutputError::Way { .. }) => {
                return Err(OutputError::Way { path: path.to_owned() });
            }
            Err(other) => return Err(other),
        };
        let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(io_error(path, errno)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        self.takes_links = output.kind.is_none();
        let (declared, is_expected) = match output.kind {
            Some(ArtifactKind::File) => ("a file", kind == FileType::RegularFile),
            Some(ArtifactKind::Tree) => ("a folder", kind == FileType::Directory),
            None => ("an output", !is_whiteout(&stat)),
        };
        if is_expected {
            if let Some(file) = self.leaf(folder.as_fd(), path, path, name, 0)? {
                return Ok(Some(file));
            }
            drop(folder);
            return self.folder(path, path, 0).map(Some);
        }
        if is_whiteout(&stat) {
            return Ok(None);
        }
        if kind == FileType::Symlink {
            let target = read_link(folder.as_fd(), path, OsStr::new(name))?;
            return Err(OutputError::Link {
                path: path.to_owned(),
                target: target.escape_debug().to_string(),
                why: "and a declared output must not be a link itself",
            });
        }
        Err(OutputError::Kind { path: path.to_owned(), declared, found: describe(kind) })
    }

    /// Looks at `name` in `folder`; `path` is its path below the layer, `tree` that of the output.
    /// `None` is a folder, to be entered when its parent is closed.
    fn leaf(
        &mut self,
        folder: BorrowedFd<'_>,
        tree: &str,
        path: &str,
        name: &str,
        depth: usize,
    ) -> Result<Option<Found>, OutputError> {
        self.entries += 1;
        bound(tree, "too many entries", self.entries, limits::TREE_ENTRIES_MAX)?;
        bound(tree, "folders nested too deeply", depth, limits::TREE_DEPTH_MAX)?;
        bound(tree, "a path with too many bytes", path.len(), limits::PATH_BYTES_MAX - 1)?;
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| io_error(path, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let executable = stat.st_mode & 0o100 != 0;
                normalize_mode(folder, path, name, if executable { 0o755 } else { 0o644 }, &stat)?;
                Ok(Some(Found::File { executable }))
            }
            FileType::Directory => {
                normalize_mode(folder, path, name, 0o755, &stat)?;
                Ok(None)
            }
            FileType::Symlink => {
                let target = read_link(folder, path, OsStr::new(name))?;
                if !self.takes_links {
                    check_link(tree, path, &target)?;
                }
                Ok(Some(Found::Link { target }))
            }
            other => Err(OutputError::Special { path: path.to_owned(), found: describe(other) }),
        }
    }

    /// Looks at everything in the folder `path`. Folders below are opened by their whole path
    /// after this one is closed, so that depth costs no descriptors.
    fn folder(&mut self, tree: &str, path: &str, depth: usize) -> Result<Found, OutputError> {
        let folder = open_folder(self.layer, path)?;
        let mut names = Vec::new();
        for (name, kind) in read_names(&folder, path)? {
            let is_deleted = kind == FileType::CharacterDevice
                && rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| is_whiteout(&stat));
            if !is_deleted {
                names.push(check_name(path, &name)?);
            }
        }
        names.sort_unstable();
        let (mut out, mut folders) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            let below = join(path, &name);
            match self.leaf(folder.as_fd(), tree, &below, &name, depth + 1)? {
                Some(leaf) => out.push((name, leaf)),
                None => folders.push((name, below)),
            }
        }
        drop(folder);
        for (name, below) in folders {
            let found = self.folder(tree, &below, depth + 1)?;
            out.push((name, found));
        }
        Ok(Found::Folder(out))
    }
}

/// Gives a file or folder a mode with which we can read it, and which has no special bits.
fn normalize_mode(
    folder: BorrowedFd<'_>,
    path: &str,
    name: &str,
    mode: u32,
    stat: &rustix::fs::Stat,
) -> Result<(), OutputError> {
    if stat.st_mode & 0o7777 == mode {
        return Ok(());
    }
    // The name was just seen to be no link, and nothing changes any more.
    rustix::fs::chmodat(folder, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(|errno| io_error(path, errno))
}

/// A link stays in its tree if going up comes first and stops at the tree's root.
///
/// Going up after a name would be resolved by the kernel relative to where that name leads, which
/// may be another link; so `a/../b` is refused even where it looks harmless.
fn check_link(tree: &str, path: &str, target: &str) -> Result<(), OutputError> {
    let fail = |why| {
        let target = target.escape_debug().to_string();
        Err(OutputError::Link { path: path.to_owned(), target, why })
    };
    if target.starts_with('/') {
        return fail("which is absolute");
    }
    if target.is_empty() || target.chars().any(char::is_control) {
        return fail("which has a control character");
    }
    let below = path.strip_prefix(tree).unwrap_or(path).trim_start_matches('/');
    let depth = below.split('/').count() - 1;
    let segments = || target.split('/').filter(|segment| !matches!(*segment, "" | "."));
    let up = segments().take_while(|segment| *segment == "..").count();
    if up > depth {
        return fail("which is outside of the output");
    }
    if segments().skip(up).any(|segment| segment == "..") {
        return fail("which goes up after a name");
    }
    Ok(())
}

fn check_name(folder: &str, name: &OsStr) -> Result<String, OutputError> {
    let fail = |why| {
        let name = name.as_bytes().escape_ascii().to_string();
        Err(OutputError::Name { folder: folder.to_owned(), name, why })
    };
    match name.to_str() {
        None => fail("is not UTF-8"),
        Some(text) if text.contains(char::is_control) => fail("has a control character"),
        Some(text) => Ok(text.to_owned()),
    }
}

/// Opens a folder of the layer, following no link on the way.
fn open_folder(layer: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, OutputError> {
    // Without `NOFOLLOW`, which would call a link at the end "not a folder".
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let shown = if path.is_empty() { "." } else { path };
    match rustix::fs::openat2(layer, shown, flags, Mode::empty(), resolve) {
        Ok(folder) => Ok(folder),
        Err(Errno::LOOP | Errno::XDEV) => Err(OutputError::Way { path: path.to_owned() }),
        Err(errno) => Err(io_error(shown, errno)),
    }
}

fn read_names(folder: &OwnedFd, path: &str) -> Result<Vec<(OsString, FileType)>, OutputError> {
    let fail = |errno| io_error(path, errno);
    let mut out = Vec::new();
    for entry in Dir::read_from(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            out.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

fn read_link(folder: BorrowedFd<'_>, path: &str, name: &OsStr) -> Result<String, OutputError> {
    let target =
        rustix::fs::readlinkat(folder, name, Vec::new()).map_err(|errno| io_error(path, errno))?;
    let escaped = || target.as_bytes().escape_ascii().to_string();
    target.to_str().map(str::to_owned).map_err(|_| OutputError::Link {
        path: path.to_owned(),
        target: escaped(),
        why: "which is not UTF-8",
    })
}

/// Where an overlay's upper layer says that something of the lower one was deleted.
fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown kind",
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn bound(path: &str, what: &'static str, value: usize, limit: usize) -> Result<(), OutputError> {
    if value <= limit {
        return Ok(());
    }
    Err(OutputError::TooMuch { path: path.to_owned(), what, limit })
}

fn io_error(path: &str, errno: Errno) -> OutputError {
    OutputError::Io { path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests;
