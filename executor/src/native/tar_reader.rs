//! Reads tar archives that may be hostile: ustar, pax and GNU long names.
//!
//! Unlike general readers it holds at most [`EXTENSION_BYTES_MAX`] of an archive in memory, checks
//! every header's checksum, and refuses what readers interpret differently (sparse files, content
//! behind folders and links, global overrides of names), since such archives can show different
//! files to different tools. What names mean is the caller's business.

use std::io::{self, Read};

const BLOCK: u64 = 512;
/// The largest pax or GNU extension of one entry, in bytes.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;

/// One entry, whose content (if it is a file) is read from the [`TarReader`] next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The name, as bytes of unknown encoding.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: MemberKind,
    /// Whether the owner may execute it.
    pub(super) executable: bool,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Folder,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// Something that has no place in a tree, in words.
    Other(&'static str),
}

/// Why the archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TarError {
    /// The input failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not a tar that is understood.
    #[error("{0}")]
    Malformed(&'static str),
}

/// Walks the entries of a tar.
pub(super) struct TarReader<R> {
    input: R,
    /// The content of the current entry that was not read yet.
    content: u64,
    /// The zeros after it.
    padding: u64,
}

/// What extension headers say of the entry after them.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, content: 0, padding: 0 }
    }

    /// Goes to the next entry; what was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.byte(156);
            let size = match (kind, extension.size) {
                (b'x' | b'g' | b'L' | b'K', _) | (_, None) => header.number(124, 12)?,
                (_, Some(size)) => size,
            };
            self.content = size;
            self.padding = (BLOCK - size % BLOCK) % BLOCK;
            match kind {
                b'x' => parse_pax(&self.extension()?, &mut extension)?,
                b'g' => parse_pax_global(&self.extension()?)?,
                b'L' => extension.name = Some(until_nul(&self.extension()?).to_vec()),
                b'K' => extension.link = Some(until_nul(&self.extension()?).to_vec()),
                _ => return self.member(&header, kind, extension).map(Some),
            }
        }
    }

    /// The input, to check what comes after the archive.
    pub(super) fn into_inner(self) -> R {
        self.input
    }

    fn member(&self, header: &Header, kind: u8, extension: Extension) -> Result<Member, TarError> {
        let name = extension.name.unwrap_or_else(|| header.name());
        let link = || extension.link.clone().unwrap_or_else(|| header.text(157, 100));
        let kind = match kind {
            // Before POSIX, a folder was a file whose name ends with a slash.
            0 | b'0' if name.ends_with(b"/") => MemberKind::Folder,
            0 | b'0' | b'7' => MemberKind::File,
            b'5' => MemberKind::Folder,
            b'2' => MemberKind::Symlink(link()),
            b'1' => MemberKind::HardLink(link()),
            b'3' | b'4' => MemberKind::Other("a device"),
            b'6' => MemberKind::Other("a named pipe"),
            b'S' => MemberKind::Other("a sparse file"),
            _ => MemberKind::Other("of an unknown type"),
        };
        let empty = !matches!(kind, MemberKind::File | MemberKind::Other(_));
        if empty && self.content > 0 {
            return Err(TarError::Malformed("a folder or link has content"));
        }
        Ok(Member { name, kind, executable: header.number(100, 8)? & 0o100 != 0 })
    }

    /// The next header, or `None` at the end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = Vec::with_capacity(BLOCK as usize);
        (&mut self.input).take(BLOCK).read_to_end(&mut block)?;
        if block.is_empty() || block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if block.len() as u64 != BLOCK {
            return Err(TarError::Malformed("it is cut off"));
        }
        let header = Header(block);
        if header.number(148, 8)? != header.sum() {
            return Err(TarError::Malformed("a header has a wrong checksum"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self) -> Result<Vec<u8>, TarError> {
        if self.content > EXTENSION_BYTES_MAX {
            return Err(TarError::Malformed("an extended header is too large"));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if self.content > 0 {
            return Err(TarError::Malformed("it is cut off"));
        }
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarError> {
        match io::copy(&mut (&mut self.input).take(bytes), &mut io::sink())? {
            skipped if skipped == bytes => Ok(()),
            _ => Err(TarError::Malformed("it is cut off")),
        }
    }
}

/// Reads the content of the current entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.input).take(self.content).read(buffer)?;
        if count == 0 && self.content > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.content -= count as u64;
        Ok(count)
    }
}

/// One header block of 512 bytes.
struct Header(Vec<u8>);

impl Header {
    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn field(&self, at: usize, length: usize) -> &[u8] {
        self.0.get(at..at + length).unwrap_or_default()
    }

    fn text(&self, at: usize, length: usize) -> Vec<u8> {
        until_nul(self.field(at, length)).to_vec()
    }

    /// The name with its prefix; GNU's own format uses the place of the prefix otherwise.
    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = self.text(345, 155);
        if self.field(257, 6) != b"ustar\0" || prefix.is_empty() {
            return name;
        }
        [prefix.as_slice(), b"/", name.as_slice()].concat()
    }

    /// The sum of all bytes, where those of the checksum itself count as spaces.
    fn sum(&self) -> u64 {
        let in_checksum = |at: usize| (148..156).contains(&at);
        let bytes = self.0.iter().enumerate();
        bytes.map(|(at, byte)| u64::from(if in_checksum(at) { b' ' } else { *byte })).sum()
    }

    /// Octal digits, or GNU's big-endian binary for large numbers.
    fn number(&self, at: usize, length: usize) -> Result<u64, TarError> {
        let bad = TarError::Malformed("a header has a malformed number");
        let field = self.field(at, length);
        if let Some((0x80, binary)) = field.split_first() {
            return binary
                .iter()
                .try_fold(0u64, |value, byte| {
                    value.checked_mul(256).map(|value| value | u64::from(*byte))
                })
                .filter(|value| *value <= i64::MAX as u64)
                .ok_or(bad);
        }
        let digits = until_nul(field).trim_ascii();
        digits
            .iter()
            .try_fold(0u64, |value, byte| match byte {
                b'0'..=b'7' => value.checked_mul(8).map(|value| value | u64::from(byte - b'0')),
                _ => None,
            })
            .ok_or(bad)
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Key and value of a pax record.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits `LENGTH key=value\n` records.
fn pax_records(bytes: &[u8]) -> Result<Vec<Record<'_>>, TarError> {
    let bad = || TarError::Malformed("a pax header is malformed");
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = rest
            .get(..space)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(bad)?;
        let (record, after) = rest.split_at_checked(length).ok_or_else(bad)?;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n"));
        let body = body.ok_or_else(bad)?;
        let equals = body.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let (key, value) = body.split_at(equals);
        records.push((key, value.get(1..).unwrap_or_default()));
        rest = after;
    }
    Ok(records)
}

fn parse_pax(bytes: &[u8], extension: &mut Extension) -> Result<(), TarError> {
    for (key, value) in pax_records(bytes)? {
        match key {
            b"path" => extension.name = Some(value.to_vec()),
            b"linkpath" => extension.link = Some(value.to_vec()),
            b"size" => {
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let size = size.filter(|size| *size <= i64::MAX as u64);
                let bad = TarError::Malformed("a pax header has a malformed size");
                extension.size = Some(size.ok_or(bad)?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Malformed("sparse files are not supported"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Global headers carry comments, such as the commit of `git archive`.
fn parse_pax_global(bytes: &[u8]) -> Result<(), TarError> {
    for (key, _) in pax_records(bytes)? {
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(TarError::Malformed("a global header renames or resizes entries"));
        }
    }
    Ok(())
}
