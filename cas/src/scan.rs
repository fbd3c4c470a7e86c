//! Lists what lies in the cache folder. Names that are not ours are reported, never followed.

use maestro_core::{Digest, DigestFunction};
use rustix::fs::{Dir, Mode, OFlags};

use crate::error::StoreError;
use crate::layout::{self, Form, Layout};

/// A file of a fan-out folder, by name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The path below the cache folder.
    pub(crate) path: String,
    /// The hash; the size is not in the name and is zero here.
    pub(crate) digest: Digest,
    /// Which inode of a blob it is.
    pub(crate) form: Form,
}

/// The files of a fan-out folder, and the paths of entries that do not belong there.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Found>,
    pub(crate) strange: Vec<String>,
}

/// The names in a folder, sorted; none where the folder is not there.
pub(crate) fn names(layout: &Layout, folder: &str) -> Result<Vec<String>, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(layout.fd(), folder, flags, Mode::empty()) {
        Ok(dir) => dir,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(layout.error(folder, errno)),
    };
    let mut names = Vec::new();
    for entry in Dir::new(dir).map_err(|errno| layout.error(folder, errno))? {
        let entry = entry.map_err(|errno| layout.error(folder, errno))?;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Every blob of every digest function, below `prefix` (empty, or the folder of suspects).
pub(crate) fn blobs(layout: &Layout, prefix: &str) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
        let folder = format!("{prefix}{}", layout::blobs_of(function));
        fan_out(layout, &folder, function, true, &mut listing)?;
    }
    Ok(listing)
}

/// Every result.
pub(crate) fn results(layout: &Layout) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
        fan_out(layout, layout::results_of(function), function, false, &mut listing)?;
    }
    Ok(listing)
}

/// The paths of every materialized tree.
pub(crate) fn trees(layout: &Layout) -> Result<Vec<String>, StoreError> {
    let mut trees = Vec::new();
    for head in names(layout, layout::TREES)? {
        let folder = format!("{}/{head}", layout::TREES);
        trees.extend(names(layout, &folder)?.into_iter().map(|name| format!("{folder}/{name}")));
    }
    Ok(trees)
}

fn fan_out(
    layout: &Layout,
    folder: &str,
    function: DigestFunction,
    forms: bool,
    out: &mut Listing,
) -> Result<(), StoreError> {
    for head in names(layout, folder)? {
        let below = format!("{folder}/{head}");
        if head.len() != 2 {
            out.strange.push(below);
            continue;
        }
        for name in names(layout, &below)? {
            let path = format!("{below}/{name}");
            let (hex, form) = match name.strip_suffix(".x") {
                Some(hex) if forms => (hex, Form::Executable),
                _ => (name.as_str(), Form::Plain),
            };
            match Digest::from_hex(function, hex, 0) {
                Ok(digest) if hex.starts_with(&head) => {
                    out.files.push(Found { path, digest, form });
                }
                _ => out.strange.push(path),
            }
        }
    }
    Ok(())
}
