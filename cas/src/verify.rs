//! Looks at the whole store: counts it, or checks every byte of it.
//!
//! Checking changes nothing unless it is asked to repair, but for what any use would do as well:
//! suspects of an unclean stop are settled, what a killed collection had in hand is put back, and
//! the derived index is brought up to date. It can run beside builds: what appears after the
//! listing is not taken for missing.

use std::collections::HashSet;
use std::fs::File;

use maestro_core::{ActionKey, Digest};
use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::index::{Index, sizeless};
use crate::layout::{self, Form, Layout, QUARANTINE, SUSPECT};
use crate::store::Store;
use crate::tree::Visit;
use crate::{blob, gc, lease, result, scan};

/// How much is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Blobs.
    pub blobs: u64,
    /// Bytes of blobs; those of a blob that stands with and without execute permission twice.
    pub blob_bytes: u64,
    /// Results.
    pub results: u64,
    /// Bytes of results.
    pub result_bytes: u64,
    /// Trees that are laid out.
    pub trees: u64,
    /// Builds that run.
    pub leases: u64,
    /// Damaged files that were set aside.
    pub quarantined: u64,
    /// Blobs of an unclean stop that no one has asked for since.
    pub suspects: u64,
}

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The path below the cache folder.
    pub path: String,
    /// The results that name it, by the hex of their keys; for a result, itself.
    pub results: Vec<String>,
}

/// A result that names a blob which is gone. To a build it is a miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dangling {
    /// The hex of the key.
    pub key: String,
    /// The first blob that is gone.
    pub blob: Digest,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Blob files that were hashed.
    pub blobs: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Results that were read.
    pub results: u64,
    /// Blobs and results whose content is wrong.
    pub damaged: Vec<Damaged>,
    /// Results that name blobs which are gone.
    pub dangling: Vec<Dangling>,
    /// Paths that do not belong in the store.
    pub strange: Vec<String>,
    /// Blobs that no result names: sources, messages, logs, and garbage. Not a fault.
    pub unnamed: u64,
    /// Rows of the index that were behind the files. Not a fault: they are up to date now.
    pub index_updates: u64,
    /// Whether what was found was set aside or removed.
    pub repaired: bool,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.dangling.is_empty() && self.strange.is_empty()
    }
}

impl Store {
    /// Counts what is in the store.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let _lock = self.maintenance()?;
        let layout = &self.inner.layout;
        self.with_catalog(|_, catalog| {
            let suspects = scan::blobs(layout, &format!("{SUSPECT}/"))?.files.len();
            Ok(Stats {
                blobs: catalog.blobs.len() as u64,
                blob_bytes: catalog.blobs.values().map(|row| row.bytes()).sum(),
                results: catalog.results.len() as u64,
                result_bytes: catalog.results.values().map(|row| row.bytes).sum(),
                trees: scan::trees(layout)?.len() as u64,
                leases: lease::living(layout)?,
                quarantined: scan::names(layout, QUARANTINE)?.len() as u64,
                suspects: suspects as u64,
            })
        })
    }

    /// Hashes every blob and follows every result. With `repair`, damaged files go to
    /// quarantine, results that are not usable and strange files are removed, and the index is
    /// made anew.
    pub fn verify(&self, repair: bool) -> Result<VerifyReport, StoreError> {
        let _lock = self.maintenance()?;
        let layout = &self.inner.layout;
        gc::restore_trash(layout)?;
        self.settle_suspects()?;
        let observer = self.observer()?;
        let mut check = Check {
            store: &observer,
            repair,
            sound: HashSet::new(),
            damaged: HashSet::new(),
            named: HashSet::new(),
        };
        let mut report = VerifyReport { repaired: repair, ..VerifyReport::default() };
        check.blobs(&mut report)?;
        check.results(&mut report)?;
        report.unnamed =
            check.sound.iter().filter(|digest| !check.named.contains(digest)).count() as u64;
        if repair {
            Index::set_aside(layout)?;
        }
        self.with_catalog(|index, catalog| {
            check.index(index, &catalog, &mut report)?;
            Ok(())
        })?;
        Ok(report)
    }
}

/// A check under way.
struct Check<'a> {
    store: &'a Store,
    repair: bool,
    /// Blobs with a sound file, without sizes.
    sound: HashSet<Digest>,
    /// Blobs with a damaged file, without sizes.
    damaged: HashSet<Digest>,
    /// Blobs that results name, without sizes.
    named: HashSet<Digest>,
}

impl Check<'_> {
    fn layout(&self) -> &Layout {
        &self.store.inner.layout
    }

    fn blobs(&mut self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let listing = scan::blobs(self.layout(), "")?;
        self.strange(listing.strange, report)?;
        for found in listing.files {
            let Some(stat) = self.layout().stat(&found.path)? else { continue };
            report.blobs += 1;
            report.bytes += stat.st_size as u64;
            if self.is_sound(&found, &stat)? {
                self.sound.insert(found.digest);
                continue;
            }
            self.damaged.insert(found.digest);
            if self.repair {
                self.store.inner.quarantine(&found.path)?;
            }
            report.damaged.push(Damaged { path: found.path, results: Vec::new() });
        }
        Ok(())
    }

    fn is_sound(&self, found: &scan::Found, stat: &Stat) -> Result<bool, StoreError> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        // One that is gone since was set aside by a build, which has reported it.
        let Some(fd) = self.layout().open_file(&found.path)? else { return Ok(true) };
        let path = self.layout().absolute(&found.path);
        let digest = blob::hash_file(found.digest.function, &File::from(fd), &path)?;
        Ok(sizeless(&digest) == found.digest)
    }

    fn results(&mut self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let listing = scan::results(self.layout())?;
        self.strange(listing.strange, report)?;
        for found in listing.files {
            let inner = &self.store.inner;
            let Some(bytes) = inner.read_result_file(&found.path)? else { continue };
            report.results += 1;
            let key = found.digest.hex();
            let Some(result) = result::decode(&ActionKey(found.digest), &bytes) else {
                if self.repair {
                    inner.quarantine(&found.path)?;
                }
                report.damaged.push(Damaged { path: found.path, results: vec![key] });
                continue;
            };
            let trees = result.output_directories.iter().map(|tree| tree.root_directory_digest);
            let mut gone = None;
            for digest in result.blobs() {
                gone = gone.or(self.name(&digest)?);
            }
            for root in trees {
                gone = gone.or(self.name_tree(&root)?);
            }
            if let Some(blob) = gone {
                if self.repair {
                    self.layout().unlink(&found.path)?;
                }
                report.dangling.push(Dangling { key, blob });
            }
        }
        Ok(())
    }

    /// Notes that a result names a blob; gives the blob back where it is gone.
    fn name(&mut self, digest: &Digest) -> Result<Option<Digest>, StoreError> {
        self.named.insert(sizeless(digest));
        if digest.is_empty_blob() || self.sound.contains(&sizeless(digest)) {
            return Ok(None);
        }
        if self.damaged.contains(&sizeless(digest)) {
            return Ok(Some(*digest));
        }
        // It may have been written after the listing.
        for form in [Form::Plain, Form::Executable] {
            let stat = self.layout().stat(&layout::blob_path(digest, form))?;
            if stat.is_some_and(|stat| blob::is_untouched(&stat, digest, form)) {
                return Ok(None);
            }
        }
        Ok(Some(*digest))
    }

    /// Notes all that a tree names; gives the first blob that is gone.
    fn name_tree(&mut self, root: &Digest) -> Result<Option<Digest>, StoreError> {
        let mut gone = None;
        let store = self.store;
        let walked = store.walk(root, &mut |_, node| {
            let (Visit::Directory { digest, .. } | Visit::File { digest, .. }) = node else {
                return Ok(());
            };
            gone = gone.or(self.name(&digest)?);
            // Reading a directory that is gone or damaged would set it aside.
            match gone {
                Some(digest) => Err(StoreError::Missing { digest }),
                None => Ok(()),
            }
        });
        match walked {
            Ok(()) => Ok(gone),
            Err(StoreError::Missing { digest } | StoreError::Decode { digest, .. }) => {
                Ok(Some(digest))
            }
            Err(error) => Err(error),
        }
    }

    fn strange(&self, paths: Vec<String>, report: &mut VerifyReport) -> Result<(), StoreError> {
        for path in paths {
            if self.repair {
                self.store.inner.quarantine(&path)?;
            }
            report.strange.push(path);
        }
        Ok(())
    }

    /// Fills in who names the damaged blobs.
    fn index(
        &self,
        index: &Index<'_>,
        catalog: &Catalog,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        report.index_updates = catalog.differences;
        for damaged in &mut report.damaged {
            let hex = damaged.path.rsplit('/').next().unwrap_or_default();
            let hex = hex.trim_end_matches(".x");
            let function = if damaged.path.starts_with("cas-sha256/") {
                maestro_core::DigestFunction::Sha256
            } else {
                maestro_core::DigestFunction::Blake3
            };
            if damaged.path.starts_with("cas")
                && let Ok(digest) = Digest::from_hex(function, hex, 0)
            {
                damaged.results = index.referrers(&digest)?.iter().map(Digest::hex).collect();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
