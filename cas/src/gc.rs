//! Garbage collection under running builds, without an owner and without stopping anyone.
//!
//! # What goes
//!
//! Everything has a time of last use. A result's is its file's access time. A blob's is the later
//! of its own and those of the results that name it. Collection picks one time, the
//! *threshold*, such that what was used after it fits the bounds, and removes what was not: first
//! results, then trees, then blobs. A result that stays was used after the threshold, so each
//! blob that it names counts as used after the threshold, too, and stays: **no blob goes that a
//! result names which stays**, whatever the sizes.
//!
//! # What a running build can rely on
//!
//! | | who | does what |
//! |---|---|---|
//! | 1 | a build | takes a lease at time S, before it uses anything |
//! | 2 | a build | renews the access time of what it finds, where that is before S |
//! | 3 | a build | renews blobs before the result that names them; writes blobs before results |
//! | 4 | collection | takes a threshold before its own start and the oldest living lease |
//! | 5 | collection | moves a file to `trash/`, and looks at its access time *there* |
//!
//! By 1 and 4 the threshold is before S, whether collection saw the lease or began before it. By 2
//! all that the build relies on has a time from S on, once it relies on it. By 3 a result is never
//! younger than a blob that it names. By 5 a renewal that came first is seen, and the file is put
//! back; one that comes later finds nothing, and is a miss.
//!
//! Step 5 is what makes this safe without a lock: a rename leaves the access time alone, and
//! a renewal by name either comes before it or finds nothing. In between, for some microseconds,
//! a file that is going to be put back can look missing; the engine then makes it again
//! (rewinding), which is also the last line against files that are removed by hand.
//!
//! # A worked example
//!
//! ```text
//! lease of build B: 10:00:00     collection starts 10:00:05, wants 1 GiB, threshold 09:59:59.98
//! result R last used 09:00 names blob X last used 09:00
//!
//! a) B asks for R at 10:00:06.0  X is renewed, then R; collection moves R to trash at 10:00:06.1,
//!                                sees 10:00:06.0 there, and puts it back; X likewise
//! b) collection comes first      R is in trash, its time is 09:00: removed. B finds no R: a miss.
//!                                B runs the action, stores X anew: its time is 10:00:07, it stays
//! c) B renews X at 10:00:06.0,   collection removes R (09:00); B's renewal of R finds nothing,
//!    collection takes R          but B has read R and goes on; X was renewed and stays
//! ```
//!
//! # Killed in the middle
//!
//! `trash/` holds at most one blob or result at a time. The next maintenance puts a blob back
//! and removes a result, which is right in both cases: results go first, so a result in
//! trash means that no blob has gone yet, and a blob that is put back is garbage at worst.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;

use maestro_core::{ActionKey, Digest};
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::error::StoreError;
use crate::index::{Change, Index, sizeless};
use crate::layout::{self, Form, Layout, QUARANTINE, SUSPECT, TRASH};
use crate::store::Store;
use crate::{clock, lease, remove, scan, scratch};

/// Damaged files are kept this long for a look at them, in nanoseconds.
const QUARANTINE_NS: i64 = 7 * 24 * 60 * 60 * 1_000_000_000;

/// What a collection should leave. The default leaves everything but what is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Bytes of blobs and results that may stay; no bound where absent.
    pub bytes_max: Option<u64>,
    /// What was last used longer ago than this goes, in milliseconds; no bound where absent.
    pub age_ms_max: Option<u64>,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Results that went.
    pub results_removed: u64,
    /// Blobs that went.
    pub blobs_removed: u64,
    /// Laid-out trees that went.
    pub trees_removed: u64,
    /// Bytes of the results and blobs that went.
    pub bytes_removed: u64,
    /// Results that stay.
    pub results_kept: u64,
    /// Blobs that stay.
    pub blobs_kept: u64,
    /// Bytes of the results and blobs that stay.
    pub bytes_kept: u64,
    /// Results and blobs that the bounds would remove, but a running build may use.
    pub spared: u64,
}

impl Store {
    /// Collects garbage; see the module for what is safe. Waits a bounded time for other
    /// maintenance. Removes what dead processes left, too.
    pub fn gc(&self, options: GcOptions) -> Result<GcReport, StoreError> {
        let _lock = self.maintenance()?;
        let layout = &self.inner.layout;
        clear_stale(layout)?;
        restore_trash(layout)?;
        self.settle_suspects()?;
        let now = clock::now_ns();
        let oldest = lease::oldest_ns(layout)?.unwrap_or(now).min(now);
        let limit_ns = oldest.saturating_sub(clock::STAMP_LAG_NS);
        self.with_catalog(|index, catalog| {
            Collection::new(&catalog, &options, now, limit_ns).run(layout, index)
        })
    }

    /// Hashes every suspect and moves it to its place or to quarantine.
    pub(crate) fn settle_suspects(&self) -> Result<u64, StoreError> {
        let layout = &self.inner.layout;
        if layout.stat(SUSPECT)?.is_none() {
            return Ok(0);
        }
        let mut damaged = 0;
        for found in scan::blobs(layout, &format!("{SUSPECT}/"))?.files {
            let Some(stat) = layout.stat(&found.path)? else { continue };
            let digest = Digest { size: stat.st_size as u64, ..found.digest };
            if self.inner.release_suspect(&digest, found.form)?.is_none() {
                damaged += 1;
            }
        }
        // Only empty folders are left, unless someone put other things there.
        if let Some(root) = layout.open_dir(".")? {
            remove::remove_tree(root.as_fd(), OsStr::new(SUSPECT))
                .map_err(|errno| layout.error(SUSPECT, errno))?;
        }
        Ok(damaged)
    }
}

/// One run: what is there, when it was used, and the threshold.
struct Collection<'a> {
    catalog: &'a Catalog,
    last_use_ns: HashMap<Digest, i64>,
    threshold_ns: i64,
    report: GcReport,
}

impl<'a> Collection<'a> {
    fn new(catalog: &'a Catalog, options: &GcOptions, now: i64, limit_ns: i64) -> Self {
        let mut last_use_ns: HashMap<Digest, i64> =
            catalog.blobs.iter().map(|(digest, row)| (*digest, row.accessed_ns)).collect();
        for result in catalog.results.values() {
            for name in &result.names {
                if let Some(last) = last_use_ns.get_mut(&sizeless(name)) {
                    *last = result.accessed_ns.max(*last);
                }
            }
        }
        let blobs = catalog.blobs.iter().map(|(digest, row)| {
            (last_use_ns.get(digest).copied().unwrap_or(i64::MIN), row.bytes())
        });
        let results = catalog.results.values().map(|row| (row.accessed_ns, row.bytes));
        let mut uses: Vec<(i64, u64)> = blobs.chain(results).collect();
        uses.sort_unstable();
        let wanted = threshold(&uses, options, now);
        let threshold_ns = wanted.min(limit_ns.saturating_sub(1));
        let spared = uses.iter().filter(|(at, _)| (threshold_ns + 1..=wanted).contains(at)).count();
        let report = GcReport { spared: spared as u64, ..GcReport::default() };
        Self { catalog, last_use_ns, threshold_ns, report }
    }

    fn run(mut self, layout: &Layout, index: &Index<'_>) -> Result<GcReport, StoreError> {
        let mut changes = Vec::new();
        for (key, row) in &self.catalog.results {
            let path = layout::result_path(&ActionKey(*key));
            let is_old = row.accessed_ns <= self.threshold_ns;
            if is_old && remove_unused(layout, &path, self.threshold_ns)? {
                self.report.results_removed += 1;
                self.report.bytes_removed += row.bytes;
                changes.push(Change::ResultGone(*key));
            } else {
                self.report.results_kept += 1;
                self.report.bytes_kept += row.bytes;
            }
        }
        for path in scan::trees(layout)? {
            let accessed = layout.stat(&path)?.map(|stat| clock::accessed_ns(&stat));
            if accessed.is_some_and(|at| at <= self.threshold_ns)
                && remove_unused(layout, &path, self.threshold_ns)?
            {
                self.report.trees_removed += 1;
            }
        }
        self.remove_blobs(layout, &mut changes)?;
        index.apply(&changes)?;
        Ok(self.report)
    }

    fn remove_blobs(
        &mut self,
        layout: &Layout,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        for (digest, row) in &self.catalog.blobs {
            let last = self.last_use_ns.get(digest).copied().unwrap_or(i64::MIN);
            let mut left = *row;
            if last <= self.threshold_ns {
                for (form, is_there) in
                    [(Form::Plain, &mut left.plain), (Form::Executable, &mut left.executable)]
                {
                    let path = layout::blob_path(digest, form);
                    if *is_there && remove_unused(layout, &path, self.threshold_ns)? {
                        *is_there = false;
                    }
                }
            }
            self.report.bytes_removed += row.bytes() - left.bytes();
            self.report.bytes_kept += left.bytes();
            if left.plain || left.executable {
                self.report.blobs_kept += 1;
            } else {
                self.report.blobs_removed += 1;
                changes.push(Change::BlobGone(*digest));
            }
        }
        Ok(())
    }
}

/// The latest time such that what was used after it fits the bounds. `uses` is sorted.
fn threshold(uses: &[(i64, u64)], options: &GcOptions, now: i64) -> i64 {
    let mut threshold = match options.age_ms_max {
        Some(age_ms) => {
            let age_ns = i64::try_from(age_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            now.saturating_sub(age_ns)
        }
        None => i64::MIN,
    };
    if let Some(bytes_max) = options.bytes_max {
        let mut left: u64 = uses.iter().map(|(_, bytes)| *bytes).sum();
        for (at, bytes) in uses {
            if left <= bytes_max {
                break;
            }
            left -= bytes;
            threshold = threshold.max(*at);
        }
    }
    threshold
}

/// Removes a file or tree unless it was used after the threshold; says whether it is gone.
fn remove_unused(layout: &Layout, path: &str, threshold_ns: i64) -> Result<bool, StoreError> {
    let used = |at: &str| -> Result<Option<bool>, StoreError> {
        Ok(layout.stat(at)?.map(|stat| clock::accessed_ns(&stat) > threshold_ns))
    };
    match used(path)? {
        None => return Ok(true),
        Some(true) => return Ok(false),
        Some(false) => {}
    }
    let trash = format!("{TRASH}/{}", path.replace('/', "!"));
    match layout.rename(path, &trash) {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(true);
        }
        other => other?,
    }
    if used(&trash)? == Some(true) {
        put_back(layout, &trash, path)?;
        return Ok(false);
    }
    delete(layout, &trash)?;
    Ok(true)
}

/// Moves a file from trash to its place, unless another one stands there by now.
fn put_back(layout: &Layout, trash: &str, path: &str) -> Result<(), StoreError> {
    let fd = layout.fd();
    match rustix::fs::renameat_with(fd, trash, fd, path, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::EXIST | Errno::NOTEMPTY) => delete(layout, trash),
        Err(errno) => Err(layout.error(path, errno)),
    }
}

/// Removes a file or folder of the cache.
fn delete(layout: &Layout, path: &str) -> Result<(), StoreError> {
    let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
    let Some(dir) = layout.open_dir(folder)? else { return Ok(()) };
    remove::remove_tree(dir.as_fd(), OsStr::new(name)).map_err(|errno| layout.error(path, errno))
}

/// Puts back what a killed collection had in hand.
pub(crate) fn restore_trash(layout: &Layout) -> Result<(), StoreError> {
    for name in scan::names(layout, TRASH)? {
        let trash = format!("{TRASH}/{name}");
        if name.starts_with("cas") {
            put_back(layout, &trash, &name.replace('!', "/"))?;
        } else {
            delete(layout, &trash)?;
        }
    }
    Ok(())
}

/// Removes what dead processes left, and old damaged files.
fn clear_stale(layout: &Layout) -> Result<(), StoreError> {
    scratch::remove_dead(layout)?;
    let before_ns = clock::now_ns().saturating_sub(QUARANTINE_NS);
    for name in scan::names(layout, QUARANTINE)? {
        let since = name.split('-').next().and_then(|text| text.parse::<i64>().ok());
        if since.is_none_or(|since| since < before_ns) {
            delete(layout, &format!("{QUARANTINE}/{name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
