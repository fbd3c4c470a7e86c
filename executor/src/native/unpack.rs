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

mod npm;
#[cfg(test)]
mod tests;
mod zip;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use maestro_core::path::RelPath;
use maestro_core::{Digest, limits};

use super::compose::{Composition, LinkRule, Place};
use super::request::{self, ArchiveFormat};
use super::scratch::{BlobReader, Bounded, ScratchFile, io_failure};
use super::tar_reader::{MemberKind, TarError, TarReader};
use super::{Made, NativeError, Step};

pub(super) use npm::npm_package;

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
    let prefix = parse_prefix(strip_prefix.as_deref().unwrap_or_default())?;
    let mut sink = Sink::new(step, &archive, Manner::strict(prefix), bytes_max);
    let format = match format.unwrap_or_default() {
        ArchiveFormat::Auto => sink.detect(&blob)?,
        format => format,
    };
    sink.take(&blob, format)?;
    Ok(Made::Tree { root: sink.tree.finish()? })
}

/// All that a zip holds, as a tree.
pub(super) fn zip_tree(
    step: &Step<'_>,
    archive: &str,
    blob: &Digest,
) -> Result<Digest, NativeError> {
    let mut sink = Sink::new(step, archive, Manner::strict(Vec::new()), None);
    sink.take(blob, ArchiveFormat::Zip)?;
    sink.tree.finish()
}

/// What is left out at the front of every name.
enum Strip {
    /// These folders; what lies elsewhere is refused.
    Prefix(Vec<String>),
    /// One folder, whatever it is called; what lies in none is left out.
    First,
}

/// How the entries of an archive are taken.
struct Manner {
    strip: Strip,
    /// Whether links are left out, and a file may stand twice if it is the same.
    lenient: bool,
    /// Files that become programs.
    programs: BTreeSet<String>,
}

impl Manner {
    /// As archives are unpacked that nothing is known of.
    fn strict(prefix: Vec<String>) -> Self {
        Self { strip: Strip::Prefix(prefix), lenient: false, programs: BTreeSet::new() }
    }
}

/// Takes the entries of an archive, in its order.
struct Sink<'a, 'b> {
    step: &'a Step<'b>,
    archive: &'a str,
    manner: Manner,
    tree: Composition<'b>,
    bytes_left: u64,
    entries: usize,
}

impl<'a, 'b> Sink<'a, 'b> {
    fn new(step: &'a Step<'b>, archive: &'a str, manner: Manner, bytes_max: Option<u64>) -> Self {
        Self {
            step,
            archive,
            manner,
            tree: Composition::new(step.store, LinkRule::Inside),
            bytes_left: bytes_max.unwrap_or(u64::MAX).min(limits::ARCHIVE_BYTES_MAX),
            entries: 0,
        }
    }

    /// Takes all that is in the archive.
    fn take(&mut self, blob: &Digest, format: ArchiveFormat) -> Result<(), NativeError> {
        let reader = BlobReader::buffered(self.step.store, blob, self.step.cancel)?;
        match format {
            ArchiveFormat::Tar | ArchiveFormat::Auto => self.tar(reader),
            ArchiveFormat::TarGz => {
                let bound = blob.size.saturating_mul(limits::ARCHIVE_RATIO_MAX);
                let bound = bound.clamp(DECOMPRESSED_BYTES_MIN, limits::ARCHIVE_BYTES_MAX);
                let plain = Bounded::new(flate2::bufread::MultiGzDecoder::new(reader), bound);
                self.tar(io::BufReader::with_capacity(128 * 1024, plain))
            }
            ArchiveFormat::Zip => zip::unpack(self, reader),
        }
    }

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
                MemberKind::Symlink(_) | MemberKind::HardLink(_) if self.manner.lenient => {}
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
        let path = match self.manner.lenient {
            true => match self.path(name, false)? {
                Some(path) => path,
                None => return Ok(()),
            },
            false => self.new_path(name)?,
        };
        let digest = self.store(name, content)?;
        let executable = executable || self.manner.programs.contains(path.as_str());
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
        let prefix = match &self.manner.strip {
            Strip::Prefix(prefix) => prefix.as_slice(),
            Strip::First => {
                let below: Vec<&str> = segments.skip(1).collect();
                let path = (!below.is_empty()).then(|| RelPath::new(&below.join("/")));
                return path.transpose().map_err(|error| self.refuse(name, error));
            }
        };
        for wanted in prefix {
            match segments.next() {
                Some(segment) if segment == wanted => {}
                None if folder => return Ok(None),
                _ => {
                    let why = format!("it lies outside `{}`", prefix.join("/"));
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
