//! `unpack`: the tree that an archive holds. Archives come from outside and may be hostile.
//!
//! Nothing is ever extracted to a folder: each file goes into the store by its digest, and the
//! tree is composed of digests, so that no entry can be written through a link or over another.
//! What is refused, always with the name of the entry:
//!
//! | attack | rule |
//! |---|---|
//! | absolute paths, `..`, control characters, not UTF-8 | [`RelPath`] |
//! | links that leave the tree, also by way of others | `..` only begins a link, and stays inside |
//! | files written through a link, over a file, or twice | two entries never share a place |
//! | hard links to files outside | a hard link names a file that came before it |
//! | devices, pipes | refused |
//! | bombs | bytes, entries and depth are bounded, also before decompression ends |

#[cfg(test)]
mod tests;
mod zip;

use std::io::{self, Read, Write};

use maestro_core::path::RelPath;
use maestro_core::{Digest, limits};

use super::compose::{Composition, LinkRule, Place};
use super::request::{self, ArchiveFormat};
use super::scratch::{BlobReader, Bounded, ScratchFile, io_failure};
use super::tar_reader::{MemberKind, TarError, TarReader};
use super::{Made, NativeError, Step};

/// The bytes up to which a file is held in memory.
const SMALL_FILE_BYTES: u64 = 1024 * 1024;
/// The decompressed bytes that even the smallest archive may have.
const DECOMPRESSED_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The formats that are understood, for messages.
const SUPPORTED: &str = "supported are tar, tar.gz and zip";

/// `unpack`: see the module.
pub(super) fn unpack(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Unpack { archive, format, strip_prefix, bytes_max } = step.request()?;
    let (blob, _) = step.inputs.file("archive", &archive)?;
    let mut sink = Sink {
        step,
        archive: &archive,
        prefix: parse_prefix(strip_prefix.as_deref().unwrap_or_default())?,
        tree: Composition::new(step.store, LinkRule::Inside),
        bytes_left: bytes_max.unwrap_or(u64::MAX).min(limits::ARCHIVE_BYTES_MAX),
        entries: 0,
    };
    let format = match format.unwrap_or_default() {
        ArchiveFormat::Auto => sink.detect(&blob)?,
        format => format,
    };
    let reader = BlobReader::buffered(step.store, &blob, step.cancel)?;
    match format {
        ArchiveFormat::Tar | ArchiveFormat::Auto => sink.tar(reader)?,
        ArchiveFormat::TarGz => {
            let bound = blob.size.saturating_mul(limits::ARCHIVE_RATIO_MAX);
            let bound = bound.clamp(DECOMPRESSED_BYTES_MIN, limits::ARCHIVE_BYTES_MAX);
            let plain = Bounded::new(flate2::bufread::MultiGzDecoder::new(reader), bound);
            sink.tar(io::BufReader::with_capacity(128 * 1024, plain))?;
        }
        ArchiveFormat::Zip => zip::unpack(&mut sink, reader)?,
    }
    Ok(Made::Tree { root: sink.tree.finish()? })
}

/// Takes the entries of an archive, in its order.
struct Sink<'a, 'b> {
    step: &'a Step<'b>,
    archive: &'a str,
    prefix: Vec<String>,
    tree: Composition<'b>,
    bytes_left: u64,
    entries: usize,
}

impl Sink<'_, '_> {
    fn fail(&self, why: impl Into<String>) -> NativeError {
        NativeError::Archive { archive: self.archive.to_owned(), why: why.into() }
    }

    fn refuse(&self, entry: &[u8], why: impl std::fmt::Display) -> NativeError {
        self.fail(format!("entry `{}`: {why}", entry.escape_ascii()))
    }

    fn detect(&self, blob: &Digest) -> Result<ArchiveFormat, NativeError> {
        let head = BlobReader::head(self.step.store, blob, self.step.cancel)?;
        let known: [(&[u8], &str); 4] = [
            (b"\xfd7zXZ\0", "xz"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"BZh", "bzip2"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
        ];
        if head.starts_with(&[0x1f, 0x8b]) {
            return Ok(ArchiveFormat::TarGz);
        }
        if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
            return Ok(ArchiveFormat::Zip);
        }
        if head.get(257..262) == Some(b"ustar") {
            return Ok(ArchiveFormat::Tar);
        }
        match known.iter().find(|(magic, _)| head.starts_with(magic)) {
            Some((_, name)) => Err(self.fail(format!("{name} is not supported; {SUPPORTED}"))),
            None => Err(self.fail(format!("its format is not known; {SUPPORTED}"))),
        }
    }

    fn tar(&mut self, input: impl Read) -> Result<(), NativeError> {
        let mut reader = TarReader::new(input);
        while let Some(member) = reader.next().map_err(|error| self.tar_failure(error))? {
            let name = member.name.as_slice();
            match &member.kind {
                MemberKind::File => self.file(name, member.executable, &mut reader)?,
                MemberKind::Folder => self.folder(name)?,
                MemberKind::Symlink(target) => self.symlink(name, target)?,
                MemberKind::HardLink(target) => self.hard_link(name, target)?,
                MemberKind::Other(what) => return Err(self.refuse(name, format!("it is {what}"))),
            }
        }
        // What follows the end is ignored, but a checksum there is not.
        io::copy(&mut reader.into_inner(), &mut io::sink())
            .map_err(|error| self.tar_failure(error.into()))?;
        Ok(())
    }

    fn tar_failure(&self, error: TarError) -> NativeError {
        match error {
            TarError::Io(error) => io_failure(error, |error| self.fail(error.to_string())),
            TarError::Malformed(why) => self.fail(why),
        }
    }

    /// The content of an entry cannot be read.
    fn unreadable(&self, entry: &[u8], error: io::Error) -> NativeError {
        io_failure(error, |error| self.refuse(entry, error))
    }

    /// Keeps a regular file.
    fn file(
        &mut self,
        name: &[u8],
        executable: bool,
        content: impl Read,
    ) -> Result<(), NativeError> {
        let path = self.new_path(name)?;
        let digest = self.store(name, content)?;
        self.put(name, &path, Place::File { digest, executable })
    }

    /// Keeps a folder; one that stands several times counts once.
    fn folder(&mut self, name: &[u8]) -> Result<(), NativeError> {
        match self.path(name, true)? {
            Some(path) => self.put(name, &path, Place::Folder(Default::default())),
            None => Ok(()),
        }
    }

    /// Keeps a symbolic link.
    fn symlink(&mut self, name: &[u8], target: &[u8]) -> Result<(), NativeError> {
        let path = self.new_path(name)?;
        let target = std::str::from_utf8(target)
            .map_err(|_| self.refuse(name, "the text of the link is not UTF-8"))?;
        self.put(name, &path, Place::Link { target: target.to_owned() })
    }

    /// Keeps a second name of a file that came before.
    fn hard_link(&mut self, name: &[u8], target: &[u8]) -> Result<(), NativeError> {
        let path = self.new_path(name)?;
        let first = match self.path(target, false)? {
            Some(first) => self.tree.get(&first)?.cloned(),
            None => None,
        };
        match first {
            Some(place @ Place::File { .. }) => self.put(name, &path, place),
            _ => {
                let target = target.escape_ascii();
                let why = format!("a hard link to `{target}`, which is no file before it");
                Err(self.refuse(name, why))
            }
        }
    }

    fn put(&mut self, name: &[u8], path: &RelPath, place: Place) -> Result<(), NativeError> {
        self.tree.put(Some(path), place).map_err(|error| match error {
            NativeError::Clash { .. } | NativeError::Link { .. } | NativeError::TooLarge { .. } => {
                self.refuse(name, error)
            }
            error => error,
        })
    }

    /// The place of an entry that is no folder: nothing may stand there yet.
    fn new_path(&mut self, name: &[u8]) -> Result<RelPath, NativeError> {
        let path = self.path(name, false)?.ok_or_else(|| self.refuse(name, "it has no name"))?;
        match self.tree.get(&path)? {
            None => Ok(path),
            Some(_) => Err(self.refuse(name, "it stands twice")),
        }
    }

    /// The place that a name means, below the prefix; `None` for the root and what is above it.
    fn path(&mut self, name: &[u8], folder: bool) -> Result<Option<RelPath>, NativeError> {
        self.entries += 1;
        if self.entries > limits::TREE_ENTRIES_MAX {
            return Err(self.fail(format!("it has more than {} entries", limits::TREE_ENTRIES_MAX)));
        }
        let mut inner = name;
        while let Some(rest) = inner.strip_prefix(b"./") {
            inner = rest;
        }
        if folder {
            inner = inner.strip_suffix(b"/").unwrap_or(inner);
        }
        if folder && matches!(inner, b"" | b".") {
            return Ok(None);
        }
        let path = RelPath::from_bytes(inner).map_err(|error| self.refuse(name, error))?;
        let mut segments = path.segments();
        for wanted in &self.prefix {
            match segments.next() {
                Some(segment) if segment == wanted => {}
                None if folder => return Ok(None),
                _ => {
                    let why = format!("it lies outside `{}`", self.prefix.join("/"));
                    return Err(self.refuse(name, why));
                }
            }
        }
        let below: Vec<&str> = segments.collect();
        match below.as_slice() {
            [] if folder => Ok(None),
            [] => Err(self.refuse(name, "it stands where a folder is stripped")),
            names => RelPath::new(&names.join("/")).map(Some).map_err(|e| self.refuse(name, e)),
        }
    }

    /// Puts content into the store; large content by way of a file.
    fn store(&mut self, name: &[u8], mut content: impl Read) -> Result<Digest, NativeError> {
        let mut head = Vec::new();
        let wanted = SMALL_FILE_BYTES.min(self.bytes_left) + 1;
        (&mut content)
            .take(wanted)
            .read_to_end(&mut head)
            .map_err(|error| self.unreadable(name, error))?;
        self.spend(name, head.len() as u64)?;
        if (head.len() as u64) < wanted {
            return Ok(self.step.store.put_bytes(&head)?);
        }
        let mut scratch = ScratchFile::create(self.step.store)?;
        let mut buffer = head;
        loop {
            scratch.write_all(&buffer).map_err(|error| scratch.error(error))?;
            buffer.clear();
            (&mut content)
                .take(SMALL_FILE_BYTES)
                .read_to_end(&mut buffer)
                .map_err(|error| self.unreadable(name, error))?;
            if buffer.is_empty() {
                return Ok(scratch.adopt()?);
            }
            self.spend(name, buffer.len() as u64)?;
        }
    }

    fn spend(&mut self, name: &[u8], bytes: u64) -> Result<(), NativeError> {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or_else(|| {
            self.refuse(name, "with it, the archive unpacks to more bytes than are allowed")
        })?;
        Ok(())
    }
}

/// The segments of `strip_prefix`.
fn parse_prefix(text: &str) -> Result<Vec<String>, NativeError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let path = RelPath::new(text.strip_suffix('/').unwrap_or(text))
        .map_err(|error| NativeError::field("strip_prefix", error.to_string()))?;
    Ok(path.segments().map(str::to_owned).collect())
}
