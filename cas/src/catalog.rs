//! What maintenance knows of the whole store: the index, brought up to date with the files.
//!
//! The files are the truth, so the catalog begins with a listing of them. The index saves reading:
//! the status of a blob and the content of a result are taken from it where it has them.
//! Segments of access logs are folded in on the way.

use std::collections::HashMap;

use maestro_core::{ActionKey, Digest};

use crate::access_log::{self, Record};
use crate::error::StoreError;
use crate::index::{BlobRow, Change, Index, ResultRow, sizeless};
use crate::layout::{Form, MAINTENANCE_LOCK};
use crate::liveness::Mutex;
use crate::store::Store;
use crate::tree::Visit;
use crate::{clock, result, scan};

/// Every blob and result, by digests without a size.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) blobs: HashMap<Digest, BlobRow>,
    pub(crate) results: HashMap<Digest, ResultRow>,
    /// Paths that do not belong where they lie.
    pub(crate) strange: Vec<String>,
    /// Rows of the index that were not as the files are.
    pub(crate) differences: u64,
}

impl Store {
    /// Takes the maintenance lock, waiting a bounded time.
    pub(crate) fn maintenance(&self) -> Result<Mutex, StoreError> {
        let inner = &self.inner;
        inner.log.flush(&inner.layout);
        Mutex::lock(&inner.layout, MAINTENANCE_LOCK, inner.limits.maintenance_wait_ms)
    }

    /// Runs maintenance over the catalog; once more with a new index where the old one fails.
    /// The caller holds the maintenance lock.
    pub(crate) fn with_catalog<T>(
        &self,
        mut work: impl FnMut(&Index<'_>, Catalog) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let observer = self.observer()?;
        let mut attempt = || {
            let index = Index::open(&self.inner.layout)?;
            let catalog = Catalog::load(&observer, &index)?;
            work(&index, catalog)
        };
        match attempt() {
            Err(StoreError::Index { source, .. }) => {
                tracing::warn!(%source, "index failed and is made again");
                Index::set_aside(&self.inner.layout)?;
                attempt()
            }
            other => other,
        }
    }
}

impl Catalog {
    fn load(store: &Store, index: &Index<'_>) -> Result<Self, StoreError> {
        let layout = &store.inner.layout;
        let segments = access_log::segments(layout)?;
        let mut used: HashMap<Digest, i64> = HashMap::new();
        for segment in &segments {
            for record in access_log::read_segment(layout, segment) {
                let (digest, at_ns) = match record {
                    Record::Blob { digest, at_ns } => (digest, at_ns),
                    Record::Result { key, at_ns } => (key, at_ns),
                };
                let last = used.entry(sizeless(&digest)).or_insert(at_ns);
                *last = at_ns.max(*last);
            }
        }
        let mut catalog = Self::default();
        let mut changes = Vec::new();
        catalog.load_blobs(store, index, &used, &mut changes)?;
        catalog.load_results(store, index, &mut changes)?;
        index.apply(&changes)?;
        for segment in &segments {
            layout.unlink(segment)?;
        }
        Ok(catalog)
    }

    fn load_blobs(
        &mut self,
        store: &Store,
        index: &Index<'_>,
        used: &HashMap<Digest, i64>,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let layout = &store.inner.layout;
        let mut known: HashMap<Digest, BlobRow> = index.blobs()?.into_iter().collect();
        let listing = scan::blobs(layout, "")?;
        self.strange.extend(listing.strange);
        let mut forms: HashMap<Digest, Vec<(Form, String)>> = HashMap::new();
        for found in listing.files {
            forms.entry(found.digest).or_default().push((found.form, found.path));
        }
        for (digest, files) in forms {
            let has = |form| files.iter().any(|(other, _)| *other == form);
            let (plain, executable) = (has(Form::Plain), has(Form::Executable));
            let before = known.remove(&digest);
            let mut row = match before {
                Some(row) if (row.plain, row.executable) == (plain, executable) => row,
                _ => {
                    let mut row = BlobRow { size: 0, plain, executable, accessed_ns: i64::MIN };
                    for (_, path) in &files {
                        let Some(stat) = layout.stat(path)? else { continue };
                        row.size = stat.st_size as u64;
                        row.accessed_ns = row.accessed_ns.max(clock::accessed_ns(&stat));
                    }
                    row
                }
            };
            let last = used.get(&digest).copied().unwrap_or(i64::MIN);
            row.accessed_ns = row.accessed_ns.max(last);
            if before != Some(row) {
                self.differences += 1;
                changes.push(Change::Blob(digest, row));
            }
            self.blobs.insert(digest, row);
        }
        self.differences += known.len() as u64;
        changes.extend(known.into_keys().map(Change::BlobGone));
        Ok(())
    }

    fn load_results(
        &mut self,
        store: &Store,
        index: &Index<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let mut known: HashMap<Digest, ResultRow> = index.results()?.into_iter().collect();
        let listing = scan::results(&store.inner.layout)?;
        self.strange.extend(listing.strange);
        for found in listing.files {
            let Some(stat) = store.inner.layout.stat(&found.path)? else { continue };
            let (inode, modified_ns) = (stat.st_ino, clock::modified_ns(&stat));
            let before = known.remove(&found.digest);
            let names = match &before {
                Some(row) if (row.inode, row.modified_ns) == (inode, modified_ns) => {
                    row.names.clone()
                }
                _ => names_of(store, &found)?,
            };
            let (bytes, accessed_ns) = (stat.st_size as u64, clock::accessed_ns(&stat));
            let row = ResultRow { bytes, inode, modified_ns, accessed_ns, names };
            if before.as_ref() != Some(&row) {
                self.differences += 1;
                changes.push(Change::Result(found.digest, row.clone()));
            }
            self.results.insert(found.digest, row);
        }
        self.differences += known.len() as u64;
        changes.extend(known.into_keys().map(Change::ResultGone));
        Ok(())
    }
}

/// Every blob that a result names, as far as its trees can be read. Changes nothing.
fn names_of(store: &Store, found: &scan::Found) -> Result<Vec<Digest>, StoreError> {
    let bytes = store.inner.read_result_file(&found.path)?.unwrap_or_default();
    let Some(result) = result::decode(&ActionKey(found.digest), &bytes) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<Digest> = result.blobs().collect();
    for tree in &result.output_directories {
        let walked = store.walk(&tree.root_directory_digest, &mut |_, node| {
            match node {
                Visit::Directory { digest, .. } | Visit::File { digest, .. } => names.push(digest),
                Visit::Symlink { .. } => {}
            }
            Ok(())
        });
        match walked {
            Ok(())
            | Err(
                StoreError::Missing { .. } | StoreError::Corrupt { .. } | StoreError::Decode { .. },
            ) => {}
            Err(error) => return Err(error),
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
