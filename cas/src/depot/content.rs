//! Reading a blob, wherever its bytes are.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use maestro_core::{Digest, DigestFunction};

use super::Depot;
use super::files::{blob_path, pack_path};
use super::index::Place;
use super::packs::Pack;
use super::rows::{Key, Space};
use crate::error::StoreError;

/// How often the place of a blob is looked up before it counts as gone. A blob may move to another
/// pack between the look and the use.
const LOOKS_MAX: usize = 8;

/// A blob that is open for reading.
pub struct Content {
    digest: Digest,
    source: Source,
}

enum Source {
    Empty,
    Pack { pack: Arc<Pack>, offset: u64, path: String },
    File { file: File, offset: u64, path: String },
    Chunks { space: Space, chunks: Vec<(Key, u64)> },
}

/// Opens a blob; it counts as used.
pub(super) fn open(depot: &Depot, space: Space, digest: &Digest) -> Result<Content, StoreError> {
    let key = Key::of(space, digest);
    if !depot.index.touch(&key, digest.size) {
        return Err(StoreError::Missing { digest: *digest });
    }
    let source = source(depot, &key, digest)?;
    Ok(Content { digest: *digest, source })
}

fn source(depot: &Depot, key: &Key, digest: &Digest) -> Result<Source, StoreError> {
    let missing = || StoreError::Missing { digest: *digest };
    for _ in 0..LOOKS_MAX {
        let entry = depot.index.get(key).ok_or_else(missing)?;
        match entry.place {
            Place::Packed(place) => {
                let Some(pack) = depot.packs.get(place.pack) else { continue };
                let (offset, path) = (u64::from(place.offset), pack_path(place.pack));
                return Ok(Source::Pack { pack, offset, path });
            }
            Place::File => {
                let path = blob_path(key);
                let Some(file) = depot.folder.open(&path)? else { continue };
                return Ok(Source::File { file, offset: 0, path });
            }
            Place::Slice(slice) => {
                let (of, start) = *slice;
                let Some(whole) = depot.index.get(&of) else { continue };
                return match source(depot, &of, &of.digest(whole.size))? {
                    Source::Pack { pack, offset, path } => {
                        Ok(Source::Pack { pack, offset: offset + start, path })
                    }
                    Source::File { file, offset, path } => {
                        Ok(Source::File { file, offset: offset + start, path })
                    }
                    Source::Chunks { .. } | Source::Empty => Err(missing()),
                };
            }
            Place::Chunked => {
                let Some(row) = depot.database.chunks(key)? else { continue };
                return Ok(Source::Chunks { space: key.space, chunks: row.chunks });
            }
        }
    }
    Err(missing())
}

impl Content {
    /// No bytes at all.
    pub(super) fn empty() -> Self {
        let digest = DigestFunction::Sha256.digest(b"");
        Self { digest, source: Source::Empty }
    }

    /// The length in bytes.
    pub fn size(&self) -> u64 {
        self.digest.size
    }

    /// Reads up to `length` bytes from `offset` on; fewer only at the end.
    pub fn read(&self, depot: &Depot, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let left = self.digest.size.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        let mut bytes = vec![0; length];
        let fail = |path: &str, error| depot.folder.error(path, error);
        match &self.source {
            Source::Empty => {}
            Source::Pack { pack, offset: start, path } => pack
                .file
                .read_exact_at(&mut bytes, start + offset)
                .map_err(|error| fail(path, error))?,
            Source::File { file, offset: start, path } => {
                file.read_exact_at(&mut bytes, start + offset)
                    .map_err(|error| fail(path, error))?;
            }
            Source::Chunks { space, chunks } => {
                bytes.clear();
                read_chunks(depot, *space, chunks, offset, length, &mut bytes)?;
            }
        }
        Ok(bytes)
    }
}

/// Appends `length` bytes from `offset` on of what the chunks are together.
fn read_chunks(
    depot: &Depot,
    space: Space,
    chunks: &[(Key, u64)],
    mut offset: u64,
    length: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), StoreError> {
    for (key, size) in chunks {
        if bytes.len() >= length {
            break;
        }
        if offset >= *size {
            offset -= size;
            continue;
        }
        let chunk = open(depot, space, &key.digest(*size))?;
        bytes.extend(chunk.read(depot, offset, length - bytes.len())?);
        offset = 0;
    }
    Ok(())
}
