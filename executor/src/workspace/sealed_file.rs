//! Small files that are read whole, with a version and a checksum, written by temp + rename.
//!
//! A reader sees the old content, the new content, or nothing; never a mixture. Damage of any kind
//! and another version read as "nothing": whatever is kept this way can be made again.
//!
//! The content is read into aligned memory and checked there. It is not memory-mapped: the
//! checksum touches every byte anyway, so that a map would save one copy of a few megabytes and
//! cost the guarantee that no other process can change checked bytes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rkyv::util::AlignedVec;

/// Bytes before the payload: magic (8), version (4), zero (4), payload length (8), BLAKE3 of the
/// payload (32), zero (8). A multiple of the strictest alignment, so that the payload is aligned.
const HEADER_BYTES: usize = 64;
/// Largest payload that is read, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 1 << 30;

/// What tells one kind of file from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// The first eight bytes.
    pub(super) magic: [u8; 8],
    /// Bumped when the payload's shape changes.
    pub(super) version: u32,
}

/// The checked bytes of a file.
#[derive(Debug)]
pub(super) struct Sealed {
    bytes: AlignedVec,
}

impl Sealed {
    /// The payload, aligned for rkyv.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// Reads a file, or `None` where there is none that is whole and of this format.
pub(super) fn read(path: &Path, format: Format) -> io::Result<Option<Sealed>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length > PAYLOAD_BYTES_MAX || length < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = AlignedVec::new();
    bytes.resize(length as usize, 0);
    match file.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let sealed = Sealed { bytes };
    let whole = header(format, sealed.payload()).as_slice()
        == sealed.bytes.get(..HEADER_BYTES).unwrap_or_default();
    Ok(whole.then_some(sealed))
}

/// Replaces a file in one step.
pub(super) fn write(path: &Path, format: Format, payload: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&header(format, payload))?;
        file.write_all(payload)
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // The first error is the one that counts; a file that stays behind is swept later.
        let _ = fs::remove_file(&temporary);
    })
}

/// A name in the same folder that no other thread or living process uses.
pub(super) fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".tmp-{}-{number}", std::process::id()))
}

fn header(format: Format, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let hash = blake3::hash(payload);
    let fields: [&[u8]; 5] = [
        &format.magic,
        &format.version.to_le_bytes(),
        &[0; 4],
        &(payload.len() as u64).to_le_bytes(),
        hash.as_bytes(),
    ];
    for (slot, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
        *slot = *byte;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { magic: *b"MAETEST\0", version: 3 };

    #[test]
    fn round_trips_and_refuses_every_kind_of_damage() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let path = folder.path().join("f");
        assert!(read(&path, FORMAT).expect("absent is no error").is_none());
        write(&path, FORMAT, b"payload").expect("writable");
        let sealed = read(&path, FORMAT).expect("readable").expect("whole");
        assert_eq!(sealed.payload(), b"payload");
        assert_eq!(sealed.payload().as_ptr().addr() % 16, 0);

        let newer = Format { version: 4, ..FORMAT };
        assert!(read(&path, newer).expect("readable").is_none());
        let good = fs::read(&path).expect("readable");
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            fs::write(&path, &bad).expect("writable");
            assert!(read(&path, FORMAT).expect("readable").is_none(), "byte {index}");
            fs::write(&path, &good[..index]).expect("writable");
            assert!(read(&path, FORMAT).expect("readable").is_none(), "cut at {index}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
