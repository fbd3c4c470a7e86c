//! The lock on disk: reading it and its answers, and changing both together.
//!
//! Invariants. Files change only while [`Writer`] holds an exclusive lock on the workspace's root
//! folder. Each file is replaced whole, by rename; `maestro.lock` comes last, so that whoever
//! reads it finds every answer that it names. No symbolic link is followed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maestro_core::{FailureKind, limits};

use super::lock::parse::{LOCK_BYTES_MAX, ParseError, parse};
use super::lock::{CONTENT_DIR, LOCK_FILE, Lock};

/// Longest wait for another process that writes the lock.
const WRITER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why the lock cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The system refused.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was tried, such as `read`.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The text is no lock.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The file is not UTF-8.
    #[error("`{path}` is not UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A file is longer than it may be.
    #[error("`{path}` has more than {limit} bytes")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something else stands where a file or folder belongs.
    #[error("`{path}` is not a regular {expected}")]
    NotPlain {
        /// The path.
        path: PathBuf,
        /// `file` or `folder`.
        expected: &'static str,
    },
    /// Another process holds the lock's lock.
    #[error("another process has been writing the lock of `{root}` for {seconds} seconds")]
    Busy {
        /// The workspace.
        root: PathBuf,
        /// How long this one waited.
        seconds: u64,
    },
}

impl LockError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Parse(_)
            | Self::NotUtf8 { .. }
            | Self::TooLong { .. }
            | Self::NotPlain { .. } => FailureKind::Input,
            Self::Io { .. } | Self::Busy { .. } => FailureKind::Environment,
        }
    }

    /// What can be done.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Parse(error) => vec![error.hint.clone()],
            Self::NotUtf8 { .. } | Self::TooLong { .. } | Self::NotPlain { .. } => {
                vec!["take it from version control again".to_owned()]
            }
            Self::Io { .. } | Self::Busy { .. } => Vec::new(),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Reads the lock of a workspace with its text; a missing one is empty.
pub fn read_lock(root: &Path) -> Result<(Lock, String), LockError> {
    let path = root.join(LOCK_FILE);
    let Some(bytes) = read_plain(&path, LOCK_BYTES_MAX)? else {
        return Ok((Lock::default(), String::new()));
    };
    let text = String::from_utf8(bytes).map_err(|_| LockError::NotUtf8 { path })?;
    Ok((parse(&text)?, text))
}

/// Reads one answer of [`CONTENT_DIR`]; `None` if there is no such file.
pub fn read_content(root: &Path, name: &str) -> Result<Option<Vec<u8>>, LockError> {
    if !check_content_dir(root)? {
        return Ok(None);
    }
    read_plain(&content_path(root, name), limits::LOCK_TEXT_BYTES_MAX as u64)
}

/// Where an answer lies.
pub fn content_path(root: &Path, name: &str) -> PathBuf {
    root.join(CONTENT_DIR).join(name)
}

/// Whether the folder of answers exists; an error if it is anything but a folder.
fn check_content_dir(root: &Path) -> Result<bool, LockError> {
    let path = root.join(CONTENT_DIR);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => Ok(true),
        Ok(_) => Err(LockError::NotPlain { path, expected: "folder" }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(LockError::io("look at", &path)(e)),
    }
}

fn read_plain(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LockError> {
    // O_NONBLOCK: a fifo must not hang the build before it is seen to be one.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Err(LockError::NotPlain { path: path.to_owned(), expected: "file" });
        }
        Err(e) => return Err(LockError::io("open", path)(e)),
    };
    let meta = file.metadata().map_err(LockError::io("look at", path))?;
    if !meta.is_file() {
        return Err(LockError::NotPlain { path: path.to_owned(), expected: "file" });
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(LockError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(LockError::TooLong { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// The right to change the lock of one workspace; ends when dropped or when the process dies.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    _held: File,
}

/// What one change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Whether `maestro.lock` has new bytes.
    pub lock: bool,
    /// Names of answers that were written.
    pub contents: Vec<String>,
    /// Names of answers that nobody names any more and that were removed.
    pub removed: Vec<String>,
}

impl Writer {
    /// Waits for other writers.
    pub fn acquire(root: &Path) -> Result<Self, LockError> {
        let held = File::open(root).map_err(LockError::io("open", root))?;
        let began = Instant::now();
        loop {
            match held.try_lock() {
                Ok(()) => return Ok(Self { root: root.to_owned(), _held: held }),
                Err(TryLockError::Error(e)) => return Err(LockError::io("lock", root)(e)),
                Err(TryLockError::WouldBlock) if began.elapsed() < WRITER_WAIT_MAX => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => {
                    let seconds = began.elapsed().as_secs();
                    return Err(LockError::Busy { root: root.to_owned(), seconds });
                }
            }
        }
    }

    /// Reads the lock as it is now, applies `change` and writes what differs.
    ///
    /// `contents` are the answers of new records by file name.
    pub fn change(
        &self,
        contents: &[(String, Vec<u8>)],
        change: impl FnOnce(&mut Lock),
    ) -> Result<Written, LockError> {
        let (mut lock, old_text) = read_lock(&self.root)?;
        let before = content_names(&lock);
        change(&mut lock);
        let text = lock.print();
        // What we print must be what we read: a lock that cannot be read again helps nobody.
        parse(&text)?;
        let mut written = Written::default();
        for (name, bytes) in contents {
            if self.write_content(name, bytes)? {
                written.contents.push(name.clone());
            }
        }
        let nothing = lock == Lock::default() && old_text.is_empty();
        if text != old_text && !nothing {
            write_whole(&self.root.join(LOCK_FILE), text.as_bytes())?;
            written.lock = true;
        }
        let after = content_names(&lock);
        for name in before.iter().filter(|name| !after.contains(*name)) {
            if self.remove_content(name)? {
                written.removed.push(name.clone());
            }
        }
        Ok(written)
    }

    /// Removes answers that no record names.
    pub fn sweep(&self) -> Result<Vec<String>, LockError> {
        let (lock, _) = read_lock(&self.root)?;
        let named = content_names(&lock);
        let dir = self.root.join(CONTENT_DIR);
        if !check_content_dir(&self.root)? {
            return Ok(Vec::new());
        }
        let mut removed = Vec::new();
        let entries = fs::read_dir(&dir).map_err(LockError::io("list", &dir))?;
        for entry in entries {
            let entry = entry.map_err(LockError::io("list", &dir))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if is_ours(&name) && !named.contains(&name) && self.remove_content(&name)? {
                removed.push(name);
            }
        }
        removed.sort_unstable();
        Ok(removed)
    }

    /// Writes an answer; says whether the file was new or other.
    pub fn write_content(&self, name: &str, bytes: &[u8]) -> Result<bool, LockError> {
        if read_content(&self.root, name)?.as_deref() == Some(bytes) {
            return Ok(false);
        }
        let dir = self.root.join(CONTENT_DIR);
        if !check_content_dir(&self.root)? {
            fs::create_dir(&dir).map_err(LockError::io("create", &dir))?;
        }
        write_whole(&dir.join(name), bytes)?;
        Ok(true)
    }

    fn remove_content(&self, name: &str) -> Result<bool, LockError> {
        let path = content_path(&self.root, name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(LockError::io("remove", &path)(e)),
        }
    }
}

fn content_names(lock: &Lock) -> Vec<String> {
    let mut names: Vec<String> =
        lock.records.iter().filter_map(|r| r.content_file.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether Maestro makes files of this name, so that it may remove them.
fn is_ours(name: &str) -> bool {
    let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".txt"));
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let temporary = name.starts_with('.') && name.contains(TEMPORARY);
    stem.is_some_and(|s| s.len() == 16 && hex(s)) || temporary
}

const TEMPORARY: &str = ".maestro-new-";

/// Replaces a file by rename; on stable storage before the name changes hands.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), LockError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}{TEMPORARY}{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.mode(0o644).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary); // the first error is the one to tell
        LockError::Io { what: "write", path: path.to_owned(), source }
    })
}
