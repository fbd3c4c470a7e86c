//! The derived index: sizes, access times, what results name, and by which results a blob is
//! named. The only module that knows RocksDB.
//!
//! It is opened under the maintenance lock alone, so that RocksDB's own lock is never contended.
//! Everything in it can be made again from the files: an index that does not open, or fails later,
//! is moved to quarantine and begun anew.
//!
//! Rows, by the first byte of their key:
//!
//! | key | value |
//! |---|---|
//! | `b` blob | [`BlobRow`] |
//! | `r` key | [`ResultRow`] |
//! | `n` blob, key | nothing: the result of that key names the blob |
//! | `v` | the version of these rows |

use maestro_core::{Digest, DigestFunction};
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::StoreError;
use crate::layout::{INDEX, Layout, QUARANTINE};

/// Changes with the shape of the rows; an index of another version is begun anew.
const VERSION: &[u8] = b"1";
const VERSION_KEY: &[u8] = b"v";
/// Memory of RocksDB's write buffer, in bytes.
const WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Changes of one batch.
const BATCH_ROWS_MAX: usize = 10_000;

/// What the index knows of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobRow {
    /// The size of the content in bytes.
    pub(crate) size: u64,
    /// Whether there is a file without execute permission.
    pub(crate) plain: bool,
    /// Whether there is a file with execute permission.
    pub(crate) executable: bool,
    /// The last use that is known.
    pub(crate) accessed_ns: i64,
}

impl BlobRow {
    /// The bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.size * (u64::from(self.plain) + u64::from(self.executable))
    }
}

/// What the index knows of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResultRow {
    /// The size of the file in bytes.
    pub(crate) bytes: u64,
    /// With `modified_ns`: tells whether the file is the one that was read.
    pub(crate) inode: u64,
    /// See `inode`.
    pub(crate) modified_ns: i64,
    /// The last use that is known.
    pub(crate) accessed_ns: i64,
    /// Every blob that the result names, trees with all that is in them.
    pub(crate) names: Vec<Digest>,
}

/// One change; see [`Index::apply`].
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Blob(Digest, BlobRow),
    BlobGone(Digest),
    Result(Digest, ResultRow),
    ResultGone(Digest),
}

/// An open index.
pub(crate) struct Index<'a> {
    db: DB,
    layout: &'a Layout,
}

impl<'a> Index<'a> {
    /// Opens the index; begins it anew where it is damaged or missing. The caller holds the
    /// maintenance lock.
    pub(crate) fn open(layout: &'a Layout) -> Result<Self, StoreError> {
        match Self::try_open(layout) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::warn!(%error, "index is damaged and made again");
                Self::set_aside(layout)?;
                Self::try_open(layout)
            }
        }
    }

    fn try_open(layout: &'a Layout) -> Result<Self, StoreError> {
        layout.make_dir(INDEX, 0o700)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_paranoid_checks(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_keep_log_file_num(1);
        options.set_max_open_files(64);
        let path = layout.absolute(INDEX);
        let db = DB::open(&options, &path).map_err(|error| fail(layout, error))?;
        let index = Self { db, layout };
        match index.db.get(VERSION_KEY).map_err(|error| fail(layout, error))? {
            Some(version) if version == VERSION => Ok(index),
            None if index.is_empty()? => {
                index.db.put(VERSION_KEY, VERSION).map_err(|error| fail(layout, error))?;
                Ok(index)
            }
            _ => Err(damaged(layout, "the rows are of another version")),
        }
    }

    /// Moves the index out of the way.
    pub(crate) fn set_aside(layout: &Layout) -> Result<(), StoreError> {
        if layout.stat(INDEX)?.is_none() {
            return Ok(());
        }
        layout.rename(INDEX, &format!("{QUARANTINE}/{}-{INDEX}", clock::now_ns()))
    }

    /// Every blob row.
    pub(crate) fn blobs(&self) -> Result<Vec<(Digest, BlobRow)>, StoreError> {
        self.rows(b'b')
    }

    /// Every result row.
    pub(crate) fn results(&self) -> Result<Vec<(Digest, ResultRow)>, StoreError> {
        self.rows(b'r')
    }

    /// The keys of results that name a blob.
    pub(crate) fn referrers(&self, blob: &Digest) -> Result<Vec<Digest>, StoreError> {
        let prefix = key(b'n', blob);
        let mut keys = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)) {
            let (found, _) = row.map_err(|error| fail(self.layout, error))?;
            let Some(rest) = found.strip_prefix(prefix.as_slice()) else { break };
            keys.push(self.parse(rest)?);
        }
        Ok(keys)
    }

    /// Writes changes.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        for chunk in changes.chunks(BATCH_ROWS_MAX) {
            let mut batch = WriteBatch::default();
            for change in chunk {
                self.add(&mut batch, change)?;
            }
            self.db.write(batch).map_err(|error| fail(self.layout, error))?;
        }
        Ok(())
    }

    fn add(&self, batch: &mut WriteBatch, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::Blob(digest, row) => batch.put(key(b'b', digest), self.encode(row)?),
            Change::BlobGone(digest) => batch.delete(key(b'b', digest)),
            Change::Result(digest, row) => {
                self.drop_names(batch, digest)?;
                for name in &row.names {
                    batch.put(name_key(name, digest), []);
                }
                batch.put(key(b'r', digest), self.encode(row)?);
            }
            Change::ResultGone(digest) => {
                self.drop_names(batch, digest)?;
                batch.delete(key(b'r', digest));
            }
        }
        Ok(())
    }

    fn drop_names(&self, batch: &mut WriteBatch, result: &Digest) -> Result<(), StoreError> {
        let old = self.db.get(key(b'r', result)).map_err(|error| fail(self.layout, error))?;
        if let Some(old) = old {
            let old: ResultRow = self.decode(&old)?;
            for name in &old.names {
                batch.delete(name_key(name, result));
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        match self.db.iterator(IteratorMode::Start).next() {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(fail(self.layout, error)),
        }
    }

    fn rows<T: for<'d> Deserialize<'d>>(&self, kind: u8) -> Result<Vec<(Digest, T)>, StoreError> {
        let mut rows = Vec::new();
        for row in self.db.iterator(IteratorMode::From(&[kind], Direction::Forward)) {
            let (key, value) = row.map_err(|error| fail(self.layout, error))?;
            let Some(rest) = key.strip_prefix(&[kind]) else { break };
            rows.push((self.parse(rest)?, self.decode(&value)?));
        }
        Ok(rows)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let bad = || damaged(self.layout, "a key is not a digest");
        let (function, hash) = bytes.split_first().ok_or_else(bad)?;
        let function = match function {
            0 => DigestFunction::Blake3,
            1 => DigestFunction::Sha256,
            _ => return Err(bad()),
        };
        Ok(Digest { function, hash: hash.try_into().map_err(|_| bad())?, size: 0 })
    }

    fn encode<T: Serialize>(&self, row: &T) -> Result<Vec<u8>, StoreError> {
        postcard::to_allocvec(row).map_err(|error| fail(self.layout, error))
    }

    fn decode<T: for<'d> Deserialize<'d>>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        postcard::from_bytes(bytes).map_err(|error| fail(self.layout, error))
    }
}

/// The identity of a digest in the index, where the size is not part of it.
pub(crate) fn sizeless(digest: &Digest) -> Digest {
    Digest { size: 0, ..*digest }
}

fn key(kind: u8, digest: &Digest) -> Vec<u8> {
    let mut key = vec![kind];
    push(&mut key, digest);
    key
}

fn name_key(blob: &Digest, result: &Digest) -> Vec<u8> {
    let mut key = key(b'n', blob);
    push(&mut key, result);
    key
}

fn push(key: &mut Vec<u8>, digest: &Digest) {
    key.push(u8::from(digest.function == DigestFunction::Sha256));
    key.extend_from_slice(&digest.hash);
}

fn fail(layout: &Layout, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Index { path: layout.absolute(INDEX), source: Box::new(source) }
}

fn damaged(layout: &Layout, why: &'static str) -> StoreError {
    StoreError::Index { path: layout.absolute(INDEX), source: why.into() }
}

#[cfg(test)]
mod tests;
