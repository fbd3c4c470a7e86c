//! Append-only files of checked records; knows nothing of what the records mean.
//!
//! Layout: an 8-byte magic and a 4-byte version, then frames of length (u32, little endian), the
//! first 8 bytes of the payload's BLAKE3 hash, and the payload.
//! Reading stops at the first frame that is cut off or damaged; what stands before it counts, what
//! stands after it is cut off by the next append. There is no fsync: a log here is something whose
//! loss costs time, never correctness.
//! Invariant: one writer at a time (the workspace's lock); readers may come and go.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::sealed_file::{Format, temporary_beside};

const HEADER_BYTES: usize = 12;
const FRAME_HEADER_BYTES: usize = 12;
/// How many bytes are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// Largest payload of one frame, in bytes.
pub(super) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A log as it was read, with the place where the next frame goes.
#[derive(Debug)]
pub(super) struct FramedLog {
    path: PathBuf,
    format: Format,
    /// Where whole frames end in the file; 0 where there is not even a good header.
    end: u64,
}

/// The bytes of a log and where its payloads stand in them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    payloads: Vec<Range<usize>>,
}

impl Frames {
    /// The ranges of the payloads, to be kept and given to [`Frames::get`] later.
    pub(super) fn ranges(&self) -> &[Range<usize>] {
        &self.payloads
    }

    /// The payload at a range that this value gave out.
    pub(super) fn get(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

impl FramedLog {
    /// Reads all whole frames. An absent, damaged or newer file reads as empty.
    pub(super) fn open(path: &Path, format: Format) -> io::Result<(Self, Frames)> {
        let mut log = Self { path: path.to_owned(), format, end: 0 };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if !bytes.starts_with(&header(format)) {
            return Ok((log, Frames::default()));
        }
        let payloads = whole_frames(&bytes);
        log.end = payloads.last().map_or(HEADER_BYTES, |range| range.end) as u64;
        Ok((log, Frames { bytes, payloads }))
    }

    /// A log that is known to hold `end` bytes of whole frames, without reading it; `None` where
    /// it is not as long as that.
    pub(super) fn at_end(path: &Path, format: Format, end: u64) -> io::Result<Option<Self>> {
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let same = length == end && end >= HEADER_BYTES as u64;
        Ok(same.then(|| Self { path: path.to_owned(), format, end }))
    }

    /// How many bytes of the file count.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends frames, after cutting off what does not count. They count when all are written.
    pub(super) fn append<P: AsRef<[u8]>>(
        &mut self,
        payloads: impl IntoIterator<Item = P>,
    ) -> io::Result<()> {
        let mut payloads = payloads.into_iter().peekable();
        if payloads.peek().is_none() {
            return Ok(());
        }
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).open(&self.path)?;
        file.set_len(self.end)?;
        file.seek(SeekFrom::Start(self.end))?;
        let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut bytes = 0;
        if self.end == 0 {
            out.write_all(&header(self.format))?;
            bytes += HEADER_BYTES;
        }
        bytes += write_frames(&mut out, payloads)?;
        out.flush()?;
        self.end += bytes as u64;
        Ok(())
    }

    /// Replaces the whole log in one step.
    pub(super) fn rewrite<'a>(
        &mut self,
        payloads: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        let mut buffer = header(self.format).to_vec();
        write_frames(&mut buffer, payloads)?;
        let temporary = temporary_beside(&self.path);
        std::fs::write(&temporary, &buffer)
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .inspect_err(|_| {
                // The first error is the one that counts.
                let _ = std::fs::remove_file(&temporary);
            })?;
        self.end = buffer.len() as u64;
        Ok(())
    }
}

fn header(format: Format) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let version = format.version.to_le_bytes();
    for (slot, byte) in out.iter_mut().zip(format.magic.iter().chain(&version)) {
        *slot = *byte;
    }
    out
}

/// Writes frames, and says how many bytes that makes.
fn write_frames<P: AsRef<[u8]>>(
    out: &mut impl Write,
    payloads: impl IntoIterator<Item = P>,
) -> io::Result<usize> {
    let mut bytes = 0;
    for payload in payloads {
        let payload = payload.as_ref();
        if payload.len() > FRAME_BYTES_MAX {
            let text = format!("a record of {} bytes is too large", payload.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let length = u32::try_from(payload.len()).expect("the limit is below 4 GiB");
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&checksum(payload))?;
        out.write_all(payload)?;
        bytes += FRAME_HEADER_BYTES + payload.len();
    }
    Ok(bytes)
}

fn whole_frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut payloads = Vec::new();
    let mut position = HEADER_BYTES;
    while let Some(range) = frame_at(bytes, position) {
        position = range.end;
        payloads.push(range);
    }
    payloads
}

fn frame_at(bytes: &[u8], position: usize) -> Option<Range<usize>> {
    let (length, rest) = bytes.get(position..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let payload = rest.get(..length)?;
    let start = position + FRAME_HEADER_BYTES;
    (length <= FRAME_BYTES_MAX && checksum(payload) == *sum).then_some(start..start + length)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let hash = *blake3::hash(payload).as_bytes();
    *hash.first_chunk::<8>().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { magic: *b"MAELOG\0\0", version: 1 };

    fn read(path: &Path) -> Vec<Vec<u8>> {
        let (_, frames) = FramedLog::open(path, FORMAT).expect("readable");
        frames.ranges().iter().map(|range| frames.get(range).to_vec()).collect()
    }

    #[test]
    fn every_byte_prefix_and_flip_gives_a_prefix_of_the_records() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let path = folder.path().join("log");
        let records: [&[u8]; 4] = [b"one", b"", b"three", b"\0\0\0\0"];
        let (mut log, _) = FramedLog::open(&path, FORMAT).expect("absent is no error");
        log.append(records).expect("writable");
        assert_eq!(read(&path), records);
        let good = std::fs::read(&path).expect("readable");
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).expect("writable");
            let some = read(&path);
            assert!(some.len() < records.len() && records.starts_with(&as_slices(&some)), "{cut}");
            let (mut log, _) = FramedLog::open(&path, FORMAT).expect("readable");
            log.append([b"new".as_slice()]).expect("writable");
            let after = read(&path);
            assert_eq!(after.len(), some.len() + 1, "appending after a cut at {cut}");
            assert_eq!(after.last().map(Vec::as_slice), Some(b"new".as_slice()));
        }
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 0x40;
            std::fs::write(&path, &bad).expect("writable");
            assert!(records.starts_with(&as_slices(&read(&path))), "flip at {index}");
        }
    }

    fn as_slices(records: &[Vec<u8>]) -> Vec<&[u8]> {
        records.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn appending_nothing_touches_nothing_and_rewriting_replaces() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let path = folder.path().join("log");
        let (mut log, _) = FramedLog::open(&path, FORMAT).expect("absent is no error");
        log.append([b""; 0]).expect("no work");
        assert!(!path.exists());
        log.append([b"a".as_slice(), b"b"]).expect("writable");
        log.rewrite([b"b".as_slice()]).expect("writable");
        log.append([b"c".as_slice()]).expect("writable");
        assert_eq!(read(&path), [b"b", b"c"]);
        assert_eq!(log.bytes(), std::fs::metadata(&path).expect("there").len());
    }
}
