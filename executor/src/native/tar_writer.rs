//! Writes POSIX tar archives whose bytes depend on nothing but what is put into them.
//!
//! The format is ustar (IEEE Std 1003.1-1988); a pax extended header (1003.1-2001) precedes an
//! entry only where a name, a link or a size does not fit. Written here rather than by a library,
//! since every byte is part of a golden digest and of other people's cache keys.
//!
//! | field | value |
//! |---|---|
//! | mode | 0755 folders and executables, 0644 other files, 0777 links |
//! | uid, gid, mtime | those of the [`Stamp`], for every entry |
//! | uname, gname, devmajor, devminor | empty, zero |
//! | end | two blocks of zeros |

use std::io::{self, Read, Write};

/// The size of the blocks that a tar is made of.
const BLOCK: usize = 512;
/// The largest number of eleven octal digits.
pub(super) const OCTAL_11_MAX: u64 = 0o777_7777_7777;
/// The largest number of seven octal digits.
pub(super) const OCTAL_7_MAX: u64 = 0o777_7777;
/// The name of a pax header, which readers do not show.
const PAX_NAME: &str = "././@PaxHeader";

/// What all entries of an archive share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Seconds since 1970, up to [`OCTAL_11_MAX`].
    pub(super) mtime: u64,
    /// The owner, up to [`OCTAL_7_MAX`].
    pub(super) uid: u64,
    /// The group, up to [`OCTAL_7_MAX`].
    pub(super) gid: u64,
}

/// Writes a tar entry by entry.
pub(super) struct TarWriter<W> {
    out: W,
    stamp: Stamp,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W, stamp: Stamp) -> Self {
        Self { out, stamp }
    }

    /// Appends a folder.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.header(&format!("{path}/"), b'5', 0o755, "", 0)
    }

    /// Appends a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.header(path, b'2', 0o777, target, 0)
    }

    /// Appends a file of exactly `size` bytes, read from `content`.
    pub(super) fn file(
        &mut self,
        path: &str,
        executable: bool,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let mode = if executable { 0o755 } else { 0o644 };
        self.header(path, b'0', mode, "", size)?;
        let copied = io::copy(&mut content.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the content is cut off"));
        }
        self.pad(size)
    }

    /// Ends the archive and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn header(&mut self, path: &str, kind: u8, mode: u64, link: &str, size: u64) -> io::Result<()> {
        let name = split_name(path);
        let mut records = Vec::new();
        if name.is_none() {
            records.extend(pax_record("path", path));
        }
        if link.len() > 100 || !link.is_ascii() {
            records.extend(pax_record("linkpath", link));
        }
        if size > OCTAL_11_MAX {
            records.extend(pax_record("size", &size.to_string()));
        }
        if !records.is_empty() {
            let length = records.len() as u64;
            let block = header_block(self.stamp, ("", PAX_NAME), b'x', 0o644, "", length);
            self.out.write_all(&block)?;
            self.out.write_all(&records)?;
            self.pad(length)?;
        }
        // Readers that know pax take these from the records; the others see a shortened text.
        let name = name.unwrap_or(("", shorten(path)));
        let size = if size > OCTAL_11_MAX { 0 } else { size };
        let block = header_block(self.stamp, name, kind, mode, shorten(link), size);
        self.out.write_all(&block)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        match over {
            0 => Ok(()),
            over => self.out.write_all(&vec![0; BLOCK - over]),
        }
    }
}

/// Prefix and name of the ustar header, if the path fits and every reader reads it alike.
fn split_name(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some(("", path));
    }
    // The earliest slash that leaves a name that fits; a folder's final slash cannot split.
    let earliest = path.len().checked_sub(101)?;
    let inner = path.len() - 1;
    let at = path.get(earliest..inner)?.find('/')? + earliest;
    let (prefix, name) = (path.get(..at)?, path.get(at + 1..)?);
    (!prefix.is_empty() && prefix.len() <= 155).then_some((prefix, name))
}

/// The beginning of a text that fits into a name or link field.
fn shorten(text: &str) -> &str {
    let mut end = text.len().min(100);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

/// One header block; `name` is prefix and name.
fn header_block(
    stamp: Stamp,
    (prefix, name): (&str, &str),
    kind: u8,
    mode: u64,
    link: &str,
    size: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK);
    let text = |out: &mut Vec<u8>, value: &str, width: usize| {
        let end = out.len() + width;
        out.extend(value.bytes().take(width));
        out.resize(end, 0);
    };
    text(&mut out, name, 100);
    text(&mut out, &format!("{mode:07o}"), 8);
    text(&mut out, &format!("{:07o}", stamp.uid), 8);
    text(&mut out, &format!("{:07o}", stamp.gid), 8);
    text(&mut out, &format!("{size:011o}"), 12);
    text(&mut out, &format!("{:011o}", stamp.mtime), 12);
    let checksum_at = out.len();
    out.extend(b"        ");
    out.push(kind);
    text(&mut out, link, 100);
    out.extend(b"ustar\x0000");
    text(&mut out, "", 32);
    text(&mut out, "", 32);
    text(&mut out, "0000000", 8);
    text(&mut out, "0000000", 8);
    text(&mut out, prefix, 155);
    out.resize(BLOCK, 0);
    let sum: u64 = out.iter().map(|byte| u64::from(*byte)).sum();
    let checksum = format!("{sum:06o}\0 ").into_bytes();
    out.splice(checksum_at..checksum_at + 8, checksum);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_where_they_fit() {
        let check = |path: &str, expect: Option<(usize, usize)>| {
            let lengths = split_name(path).map(|(prefix, name)| (prefix.len(), name.len()));
            assert_eq!(lengths, expect, "{path}");
        };
        check("a/b", Some((0, 3)));
        check(&"x".repeat(100), Some((0, 100)));
        check(&"x".repeat(101), None);
        check(&format!("{}/{}", "p".repeat(155), "n".repeat(100)), Some((155, 100)));
        check(&format!("{}/{}", "p".repeat(156), "n".repeat(100)), None);
        check(&format!("{}/{}", "p".repeat(10), "n".repeat(101)), None);
        check(&format!("{}/{}/", "p".repeat(10), "n".repeat(99)), Some((10, 100)));
        check(&format!("{}/", "n".repeat(100)), None);
        check("ü", None);
    }

    #[test]
    fn pax_lengths_count_themselves() {
        let check = |value: &str, expect: &str| {
            let record = String::from_utf8(pax_record("path", value)).expect("UTF-8");
            assert_eq!(record, expect);
            let length: usize =
                record.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            assert_eq!(length, record.len());
        };
        check("a", "9 path=a\n");
        check("", "8 path=\n");
        let long = "v".repeat(92);
        check(&long, &format!("102 path={long}\n"));
    }

    #[test]
    fn sizes_beyond_eight_gigabytes_are_read_by_others() {
        let size = OCTAL_11_MAX + 1;
        let mut writer = TarWriter::new(Vec::new(), Stamp::default());
        writer.header("big", b'0', 0o644, "", size).expect("memory");
        let mut archive = tar::Archive::new(writer.out.as_slice());
        let entry = archive.entries().expect("a tar").next().expect("an entry");
        assert_eq!(entry.expect("a header").size(), size);
    }
}
