//! Lists a folder of a workspace, the same way for evaluation and for checking.
//!
//! What Maestro itself puts into a workspace and what Git keeps there is never seen, so that a
//! build does not invalidate itself. Whether a subfolder is a workspace of its own is not decided
//! here.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use maestro_core::host::{DirEntry, FileType};
use maestro_core::{Digest, DigestFunction, RelPath};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};

/// Names that no listing shows, at any depth.
pub(super) const HIDDEN_NAMES: [&str; 2] = ["maestro-out", ".git"];

/// Opens a folder below `base`; an empty path is `base` itself.
pub(super) fn open_folder(base: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(base, path, flags, Mode::empty())?)
}

/// The entries of an open folder, sorted by name, without the hidden ones.
pub(super) fn read_listing(folder: impl AsFd) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(folder.as_fd())? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes == b"." || bytes == b".." || HIDDEN_NAMES.iter().any(|n| n.as_bytes() == bytes) {
            continue;
        }
        let file_type = match entry.file_type() {
            rustix::fs::FileType::Unknown => {
                let name = OsStr::from_bytes(bytes);
                match rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => rustix::fs::FileType::from_raw_mode(stat.st_mode),
                    Err(rustix::io::Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            known => known,
        };
        entries.push(dir_entry(bytes, file_type));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn dir_entry(bytes: &[u8], file_type: rustix::fs::FileType) -> DirEntry {
    let file_type = to_core(file_type);
    match std::str::from_utf8(bytes) {
        Ok(name) if RelPath::new(name).is_ok() => {
            DirEntry { name: name.to_owned(), valid: true, file_type }
        }
        Ok(name) => {
            let name = name.chars().flat_map(|c| {
                let odd = c.is_control();
                odd.then(|| c.escape_default()).into_iter().flatten().chain((!odd).then_some(c))
            });
            DirEntry { name: name.collect(), valid: false, file_type }
        }
        Err(_) => DirEntry { name: bytes.escape_ascii().to_string(), valid: false, file_type },
    }
}

/// The core's word for a type of file.
pub(super) fn to_core(file_type: rustix::fs::FileType) -> FileType {
    match file_type {
        rustix::fs::FileType::RegularFile => FileType::File,
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        _ => FileType::Other,
    }
}

/// What two listings must have in common to be the same.
pub(super) fn listing_digest(entries: &[DirEntry]) -> Digest {
    let mut hasher = DigestFunction::Blake3.hasher();
    for DirEntry { name, valid, file_type } in entries {
        let kind = type_code(*file_type) | u8::from(*valid) << 7;
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&[kind]);
    }
    hasher.finish()
}

/// A stable number for each type of file.
pub(super) fn type_code(file_type: FileType) -> u8 {
    match file_type {
        FileType::File => 0,
        FileType::Directory => 1,
        FileType::Symlink => 2,
        FileType::Other => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_sorted_with_odd_names_escaped_and_ours_hidden() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let root = folder.path();
        for name in ["b", "a", "new\nline"] {
            std::fs::write(root.join(name), "").expect("writable");
        }
        std::fs::write(root.join(OsStr::from_bytes(b"x\xff")), "").expect("writable");
        std::os::unix::fs::symlink("a", root.join("link")).expect("writable");
        for name in ["sub", "maestro-out", ".git"] {
            std::fs::create_dir(root.join(name)).expect("writable");
        }
        let open = || open_folder(rustix::fs::CWD, root.to_str().expect("UTF-8")).expect("there");
        let entries = read_listing(open()).expect("readable");
        let seen: Vec<_> =
            entries.iter().map(|e| (e.name.as_str(), e.valid, e.file_type)).collect();
        let expect = [
            ("a", true, FileType::File),
            ("b", true, FileType::File),
            ("link", true, FileType::Symlink),
            ("new\\nline", false, FileType::File),
            ("sub", true, FileType::Directory),
            ("x\\xff", false, FileType::File),
        ];
        assert_eq!(seen, expect);

        let before = listing_digest(&entries);
        std::fs::remove_dir(root.join("maestro-out")).expect("there");
        assert_eq!(before, listing_digest(&read_listing(open()).expect("readable")));
        std::fs::remove_file(root.join("b")).expect("there");
        std::fs::create_dir(root.join("b")).expect("writable");
        assert_ne!(before, listing_digest(&read_listing(open()).expect("readable")));
    }
}
