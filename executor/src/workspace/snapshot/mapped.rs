//! Large files of a snapshot: written once under a name of their own, then mapped.
//!
//! Such a file is never written in place: it is made under a temporary name, renamed, and later
//! removed. It stays readable through its mapping as long as that exists. The one thing that could
//! change mapped bytes is a stranger who writes into the cache folder, which is Maestro's own, as
//! are the programs that Maestro runs from it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use maestro_core::graph::columns::SharedBytes;
use memmap2::Mmap;

use crate::workspace::sealed_file::temporary_beside;

/// Magic (8), version (4), zero (4), payload length (8), BLAKE3 of the payload (32), zero (8).
const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"MAEMAPD\0";

/// A mapped file without its header.
struct Payload(Mmap);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.get(HEADER_BYTES..).unwrap_or_default()
    }
}

/// Maps a file, or `None` where there is none that is whole and of this version.
pub(super) fn open(path: &Path, version: u32) -> io::Result<Option<SharedBytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() < HEADER_BYTES as u64 {
        return Ok(None);
    }
    // SAFETY: the file is never written in place nor cut off, see the module's description; its
    // length and checksum are compared before anything is read out of it.
    let map = unsafe { Mmap::map(&file)? };
    let payload = Payload(map);
    let whole = payload.0.get(..HEADER_BYTES) == Some(header(version, payload.as_ref()).as_slice());
    Ok(whole.then(|| SharedBytes::new(payload)))
}

/// Writes a file in one step.
pub(super) fn write(path: &Path, version: u32, payload: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(&header(version, payload))?;
        file.write_all(payload)
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        // The first error is the one that counts; a file that stays behind is swept later.
        let _ = std::fs::remove_file(&temporary);
    })
}

fn header(version: u32, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let hash = blake3::hash(payload);
    let fields: [&[u8]; 5] = [
        &MAGIC,
        &version.to_le_bytes(),
        &[0; 4],
        &(payload.len() as u64).to_le_bytes(),
        hash.as_bytes(),
    ];
    for (slot, byte) in out.iter_mut().zip(fields.into_iter().flatten()) {
        *slot = *byte;
    }
    out
}
