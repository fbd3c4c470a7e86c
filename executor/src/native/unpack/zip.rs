//! The entries of zip archives.
//!
//! The central directory counts; archives whose entries share names or bytes are refused, since
//! readers disagree on what they hold.

use std::io::{Read, Seek};

use ::zip::ZipArchive;
use ::zip::result::ZipError;

use super::super::NativeError;
use super::super::scratch::io_failure;
use super::Sink;

const FILE_TYPE_MASK: u32 = 0o170_000;
const FILE_TYPE_NONE: u32 = 0;
const FILE_TYPE_REGULAR: u32 = 0o100_000;
const FILE_TYPE_FOLDER: u32 = 0o040_000;
const FILE_TYPE_SYMLINK: u32 = 0o120_000;
/// The longest text of a link, in bytes (Linux `PATH_MAX`).
const LINK_BYTES_MAX: u64 = 4096;

pub(super) fn unpack(sink: &mut Sink<'_, '_>, input: impl Read + Seek) -> Result<(), NativeError> {
    let fail = |sink: &Sink<'_, '_>, error: ZipError| match error {
        ZipError::Io(error) => io_failure(error, |error| sink.fail(error.to_string())),
        error => sink.fail(error.to_string()),
    };
    let mut archive = ZipArchive::new(input).map_err(|error| fail(sink, error))?;
    if archive.has_duplicate_names() {
        return Err(sink.fail("two entries have the same name"));
    }
    if archive.has_overlapping_entries().map_err(|error| fail(sink, error))? {
        return Err(sink.fail("two entries share bytes"));
    }
    for index in 0..archive.len() {
        entry(sink, &mut archive, index)?;
    }
    Ok(())
}

fn entry<R: Read + Seek>(
    sink: &mut Sink<'_, '_>,
    archive: &mut ZipArchive<R>,
    index: usize,
) -> Result<(), NativeError> {
    let about = archive.by_index_data(index).map_err(|error| sink.fail(error.to_string()))?;
    let name = about.name_raw().to_vec();
    let mode = about.unix_mode().unwrap_or(0);
    if about.encrypted() {
        return Err(sink.refuse(&name, "it is encrypted"));
    }
    if name.contains(&b'\\') {
        return Err(sink.refuse(&name, "it has a backslash in its name"));
    }
    let is_folder = name.ends_with(b"/");
    drop(about);
    match mode & FILE_TYPE_MASK {
        _ if is_folder => sink.folder(&name),
        FILE_TYPE_FOLDER => sink.folder(&name),
        FILE_TYPE_NONE | FILE_TYPE_REGULAR => {
            let content = archive.by_index(index).map_err(|error| sink.refuse(&name, error))?;
            sink.file(&name, mode & 0o100 != 0, content)
        }
        FILE_TYPE_SYMLINK => {
            let content = archive.by_index(index).map_err(|error| sink.refuse(&name, error))?;
            let mut target = Vec::new();
            content
                .take(LINK_BYTES_MAX + 1)
                .read_to_end(&mut target)
                .map_err(|error| sink.unreadable(&name, error))?;
            if target.len() as u64 > LINK_BYTES_MAX {
                return Err(sink.refuse(&name, "the text of the link is too long"));
            }
            sink.symlink(&name, &target)
        }
        _ => Err(sink.refuse(&name, "it is neither file, folder nor link")),
    }
}
