//! The database of a depot: what must be known after a restart, changed in transactions.
//!
//! Rows, by the first byte of their key:
//!
//! | key | value |
//! |---|---|
//! | `b` blob | [`BlobRow`] |
//! | `c` blob | [`ChunksRow`]: its chunks, whether it is kept as them or was once asked for them |
//! | `r` key | [`ResultRow`] |
//! | `n` blob, item | nothing: the item cannot be there without the blob |
//! | `u` item | when it was last used, in milliseconds |
//! | `s` name | the number of the space |
//! | `e` | [`SealRow`] |
//! | `v` | the version of these rows |

use std::path::PathBuf;

use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use serde::{Deserialize, Serialize};

use super::rows::{BlobRow, ChunksRow, Item, Key, ResultRow, SealRow, Space};
use crate::error::StoreError;

/// Changes with the shape of the rows.
const VERSION: &str = "1";
/// Memory of RocksDB's write buffer, in bytes.
const WRITE_BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// Files that RocksDB keeps open.
const OPEN_FILES_MAX: i32 = 256;

/// Changes that are made together or not at all.
#[derive(Default)]
pub(super) struct Batch(WriteBatch);

/// The open database.
pub(super) struct Database {
    db: DB,
    path: PathBuf,
}

impl Database {
    pub(super) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_paranoid_checks(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_keep_log_file_num(1);
        options.set_max_open_files(OPEN_FILES_MAX);
        let db = DB::open(&options, &path)
            .map_err(|error| StoreError::Index { path: path.clone(), source: Box::new(error) })?;
        let database = Self { db, path };
        match database.get(b"v")? {
            None => database.db.put(b"v", VERSION).map_err(|error| database.fail(error))?,
            Some(version) if version == VERSION.as_bytes() => {}
            Some(version) => {
                return Err(StoreError::Format {
                    path: database.path,
                    found: String::from_utf8_lossy(&version).into_owned(),
                    expected: VERSION,
                });
            }
        }
        Ok(database)
    }

    /// Makes changes. They survive the end of the process; see [`Database::sync`].
    pub(super) fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.write(batch.0).map_err(|error| self.fail(error))
    }

    /// Returns when all changes are on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(|error| self.fail(error))
    }

    pub(super) fn put_blob(
        &self,
        batch: &mut Batch,
        key: &Key,
        row: &BlobRow,
    ) -> Result<(), StoreError> {
        self.put_row(batch, b'b', key, row)
    }

    pub(super) fn put_chunks(
        &self,
        batch: &mut Batch,
        key: &Key,
        row: &ChunksRow,
    ) -> Result<(), StoreError> {
        self.put_row(batch, b'c', key, row)
    }

    pub(super) fn put_result(
        &self,
        batch: &mut Batch,
        key: &Key,
        row: &ResultRow,
    ) -> Result<(), StoreError> {
        if let Some(old) = self.result(key)? {
            for (name, _) in &old.names {
                batch.0.delete(name_key(name, &Item::Result(*key)));
            }
        }
        for (name, _) in &row.names {
            self.put_name(batch, name, &Item::Result(*key));
        }
        self.put_row(batch, b'r', key, row)
    }

    /// Notes that an item cannot be there without a blob.
    pub(super) fn put_name(&self, batch: &mut Batch, blob: &Key, item: &Item) {
        batch.0.put(name_key(blob, item), []);
    }

    pub(super) fn put_use(&self, batch: &mut Batch, item: &Item, ms: u64) {
        batch.0.put(use_key(item), ms.to_be_bytes());
    }

    pub(super) fn put_space(
        &self,
        batch: &mut Batch,
        name: &str,
        space: Space,
    ) -> Result<(), StoreError> {
        let mut key = vec![b's'];
        key.extend_from_slice(name.as_bytes());
        batch.0.put(key, self.encode(&space)?);
        Ok(())
    }

    pub(super) fn put_seal(&self, batch: &mut Batch, row: &SealRow) -> Result<(), StoreError> {
        batch.0.put(b"e", self.encode(row)?);
        Ok(())
    }

    /// Removes an item with what it names; not those by which it is named.
    pub(super) fn remove(&self, batch: &mut Batch, item: &Item) -> Result<(), StoreError> {
        let names = match item {
            Item::Result(key) => self.result(key)?.map(|row| row.names),
            Item::Blob(key) => {
                batch.0.delete(row_key(b'c', key));
                self.names_of_blob(key)?
            }
        };
        for (name, _) in names.into_iter().flatten() {
            batch.0.delete(name_key(&name, item));
        }
        batch.0.delete(row_key(item.kind(), item.key()));
        batch.0.delete(use_key(item));
        Ok(())
    }

    fn names_of_blob(&self, key: &Key) -> Result<Option<Vec<(Key, u64)>>, StoreError> {
        use super::rows::PlaceRow;
        Ok(match self.blob(key)?.map(|row| row.place) {
            Some(PlaceRow::Slice { of, .. }) => Some(vec![(of, 0)]),
            Some(PlaceRow::Chunked) => self.chunks(key)?.map(|row| row.chunks),
            _ => None,
        })
    }

    pub(super) fn blob(&self, key: &Key) -> Result<Option<BlobRow>, StoreError> {
        self.row(&row_key(b'b', key))
    }

    pub(super) fn chunks(&self, key: &Key) -> Result<Option<ChunksRow>, StoreError> {
        self.row(&row_key(b'c', key))
    }

    pub(super) fn result(&self, key: &Key) -> Result<Option<ResultRow>, StoreError> {
        self.row(&row_key(b'r', key))
    }

    pub(super) fn seal(&self) -> Result<Option<SealRow>, StoreError> {
        self.row(b"e")
    }

    /// What cannot be there without a blob.
    pub(super) fn dependents(&self, blob: &Key) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        self.scan(&row_key(b'n', blob), |rest, _| {
            items.push(Item::parse(rest).ok_or_else(|| self.damaged())?);
            Ok(())
        })?;
        Ok(items)
    }

    pub(super) fn each_blob(
        &self,
        mut each: impl FnMut(Key, BlobRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.scan(b"b", |rest, value| each(self.key(rest)?, self.decode(value)?))
    }

    pub(super) fn each_result(
        &self,
        mut each: impl FnMut(Key, ResultRow) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.scan(b"r", |rest, value| each(self.key(rest)?, self.decode(value)?))
    }

    pub(super) fn each_use(
        &self,
        mut each: impl FnMut(Item, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.scan(b"u", |rest, value| {
            let item = Item::parse(rest).ok_or_else(|| self.damaged())?;
            let ms = value.try_into().map_err(|_| self.damaged())?;
            each(item, u64::from_be_bytes(ms))
        })
    }

    pub(super) fn each_space(
        &self,
        mut each: impl FnMut(String, Space) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.scan(b"s", |rest, value| {
            let name = std::str::from_utf8(rest).map_err(|_| self.damaged())?;
            each(name.to_owned(), self.decode(value)?)
        })
    }

    fn put_row(
        &self,
        batch: &mut Batch,
        kind: u8,
        key: &Key,
        row: &impl Serialize,
    ) -> Result<(), StoreError> {
        batch.0.put(row_key(kind, key), self.encode(row)?);
        Ok(())
    }

    fn scan(
        &self,
        prefix: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for row in self.db.iterator(IteratorMode::From(prefix, Direction::Forward)) {
            let (key, value) = row.map_err(|error| self.fail(error))?;
            let Some(rest) = key.strip_prefix(prefix) else { break };
            each(rest, &value)?;
        }
        Ok(())
    }

    fn key(&self, bytes: &[u8]) -> Result<Key, StoreError> {
        match Key::parse(bytes) {
            Some((key, [])) => Ok(key),
            _ => Err(self.damaged()),
        }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get(key).map_err(|error| self.fail(error))
    }

    fn row<T: for<'d> Deserialize<'d>>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|bytes| self.decode(&bytes)).transpose()
    }

    fn encode<T: Serialize>(&self, row: &T) -> Result<Vec<u8>, StoreError> {
        postcard::to_allocvec(row).map_err(|error| self.fail(error))
    }

    fn decode<T: for<'d> Deserialize<'d>>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        postcard::from_bytes(bytes).map_err(|error| self.fail(error))
    }

    fn fail(&self, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        StoreError::Index { path: self.path.clone(), source: Box::new(source) }
    }

    fn damaged(&self) -> StoreError {
        StoreError::Index { path: self.path.clone(), source: "a key is damaged".into() }
    }
}

fn row_key(kind: u8, key: &Key) -> Vec<u8> {
    let mut bytes = vec![kind];
    key.push(&mut bytes);
    bytes
}

fn name_key(blob: &Key, item: &Item) -> Vec<u8> {
    let mut bytes = row_key(b'n', blob);
    bytes.push(item.kind());
    item.key().push(&mut bytes);
    bytes
}

fn use_key(item: &Item) -> Vec<u8> {
    let mut bytes = vec![b'u', item.kind()];
    item.key().push(&mut bytes);
    bytes
}
