//! Durability by epoch: no `fsync` per file, and still no blob that lies after a crash.
//!
//! # The problem
//!
//! A blob appears by `write` and `rename`. A process that dies between the two leaves nothing, and
//! one that dies after the rename loses nothing: the page cache holds the bytes. A *machine* that
//! dies is another matter. File systems may commit the rename before the bytes, so that
//! after the restart the right name stands over zeros or over half of the content. `fsync` before
//! each rename prevents that at 2 ms or more a file; ten thousand small outputs would wait for
//! half a minute.
//!
//! # The design
//!
//! The writes of a process belong to an *epoch*. Before its first write the process makes
//! `epochs/<start>.<boot>.<pid>.<n>`, locks it, and syncs that one file. The name holds all that
//! there is to know: when the epoch began, and the kernel's boot id. [`Store::seal_epoch`] calls
//! `syncfs`, which makes everything written until then durable, and removes the file. So an epoch
//! file that exists is an epoch that is not sealed.
//!
//! Both calls wait for the disk, and `syncfs` for whatever else has been written to it. So the end
//! of a build seals an epoch only when it is [`EPOCH_AGE_MS`] old ([`Store::leave_epoch`]). A
//! younger one stays, without an owner, and the next process that writes takes it over: whoever
//! builds after each edit waits for the disk once in that time, and a machine that stops has blobs
//! of half a minute to hash.
//!
//! | the file is there, and … | what it means | what is done |
//! |---|---|---|
//! | its owner lives | a build is under way | nothing |
//! | its owner is dead, same boot | it was left, or the process was killed | the next process that writes takes it over, or the next seal by anyone covers it |
//! | another boot | the machine stopped before the epoch was sealed | recovery |
//! | its owner is dead, boot id not known | either of the two | recovery, to be safe |
//!
//! # Recovery
//!
//! Whoever opens the store next takes the recovery lock and moves each blob that may belong to
//! such an epoch to `suspect/`: those whose *change time* is not before the epoch's start. The
//! change time is the kernel's; neither the constant modification time of blobs nor anything
//! that an action does can set it back. It is renewed by links, too, so that some older
//! blobs are suspected as well, which costs a hash and nothing else. Materialized trees that
//! young are removed. Then the epoch files go. A process killed in the middle leaves the epoch
//! files, and the next one goes on.
//!
//! A suspect is missing to everyone until someone asks for it; then it is hashed, and moved back
//! or to quarantine. The place of the file is what remembers it: there is no list that could be
//! lost, and no blob is hashed twice. Results need none of this, since they carry a checksum
//! that is checked on every read.
//!
//! # A worked example
//!
//! ```text
//! 10:00:00  build A starts its first write       epochs/10:00:00.boot1.A.0
//! 10:00:05  A writes blob X, then is killed      A's file stays, without an owner
//! 10:00:09  build B writes blob Y                epochs/10:00:09.boot1.B.0
//! 10:00:12  B ends: syncfs; removes both files   X and Y are durable
//! 10:01:00  build C writes blob Z                epochs/10:01:00.boot1.C.0
//! 10:01:03  power is lost                        Z's name was committed, its bytes were not
//! 10:05:00  build D opens the store: C's file is of another boot. Z has changed at 10:01:02,
//!           not before 10:01:00: Z moves to suspect/. X and Y stay where they are.
//! 10:05:01  D asks for Z: its hash is wrong, it goes to quarantine, and Z is a miss.
//! ```
//!
//! # Clocks that are set back
//!
//! A clock that is set back during an epoch would give its later blobs a change time before its
//! start. Every write therefore compares the clock with the start of its epoch, and opens a further
//! epoch that starts earlier when it has to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use maestro_core::limits;

use crate::clock;
use crate::error::StoreError;
use crate::layout::{self, EPOCHS, Layout, RECOVERY_LOCK, SUSPECT};
use crate::liveness::{Liveness, Mutex, Owner};
use crate::scan;
use crate::store::Store;

/// How long an opening store waits for another one's recovery, in milliseconds.
const RECOVERY_WAIT_MS: u64 = 600_000;
/// A blob this much older than an epoch is still suspected, against coarse time stamps.
const MARGIN_NS: i64 = limits::RACY_WINDOW_MS as i64 * 1_000_000;
/// How old an epoch is when the end of a build seals it.
const EPOCH_AGE_MS: i64 = 30_000;
const UNKNOWN_BOOT: &str = "unknown";

/// The epochs of one store value that are not sealed.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    open: RwLock<Vec<Epoch>>,
    written: AtomicBool,
}

#[derive(Debug)]
struct Epoch {
    alive: Liveness,
    start_ns: i64,
}

/// Held during a write, so that the epoch is not sealed in the middle of it.
pub(crate) struct Writing<'a> {
    _epochs: RwLockReadGuard<'a, Vec<Epoch>>,
}

impl Epochs {
    /// Announces a write; begins an epoch where there is none. Not while another announcement
    /// of the same thread lives: a seal that waits would stop the second one.
    pub(crate) fn enter(&self, layout: &Layout) -> Result<Writing<'_>, StoreError> {
        loop {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let now = clock::now_ns();
            if open.iter().any(|epoch| epoch.start_ns <= now) {
                return Ok(Writing { _epochs: open });
            }
            drop(open);
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            if !open.iter().any(|epoch| epoch.start_ns <= now) {
                open.push(match Epoch::adopt(layout, now)? {
                    Some(epoch) => epoch,
                    None => Epoch::begin(layout, now)?,
                });
                self.written.store(true, Ordering::SeqCst);
            }
        }
    }
}

impl Epoch {
    fn begin(layout: &Layout, start_ns: i64) -> Result<Self, StoreError> {
        let (boot, process) = (boot_id(), std::process::id());
        let name = |n: u64| format!("{EPOCHS}/{start_ns}.{boot}.{process}.{n}");
        let alive = Liveness::create(layout, name)?;
        // The announcement must be durable before anything that it announces.
        let path = alive.name();
        if let Some(folder) = layout.open_dir(EPOCHS)? {
            rustix::fs::fsync(&folder).map_err(|errno| layout.error(path, errno))?;
        }
        alive.mark(layout)?;
        Ok(Self { alive, start_ns })
    }

    /// Goes on with an epoch that was left, the oldest first; its announcement is durable.
    fn adopt(layout: &Layout, now_ns: i64) -> Result<Option<Self>, StoreError> {
        let boot = boot_id();
        if boot == UNKNOWN_BOOT {
            return Ok(None);
        }
        let mut left: Vec<(i64, String)> = Vec::new();
        for name in scan::names(layout, EPOCHS)? {
            if let Some((start_ns, of)) = parse(&name)
                && of == boot
                && start_ns <= now_ns
            {
                left.push((start_ns, format!("{EPOCHS}/{name}")));
            }
        }
        left.sort_unstable();
        for (start_ns, path) in left {
            if let Some(alive) = Liveness::adopt(layout, &path)? {
                return Ok(Some(Self { alive, start_ns }));
            }
        }
        Ok(None)
    }
}

impl Store {
    /// Ends a build: makes everything that was written until now durable if its epoch has become
    /// old, and leaves it to the next process that writes if not.
    pub fn leave_epoch(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        let due = clock::now_ns() - EPOCH_AGE_MS * 1_000_000;
        let is_due = {
            let open = inner.epochs.open.read().unwrap_or_else(PoisonError::into_inner);
            open.iter().any(|epoch| epoch.start_ns <= due)
        };
        if is_due {
            return self.seal_epoch();
        }
        inner.log.flush(&inner.layout);
        Ok(())
    }

    /// Makes everything that was written until now durable; does nothing where nothing was
    /// written.
    pub fn seal_epoch(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.log.flush(&inner.layout);
        let sealed: Vec<Epoch> = {
            // Waits for writes in flight; later ones begin an epoch of their own.
            let mut open = inner.epochs.open.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *open)
        };
        if sealed.is_empty() {
            return Ok(());
        }
        let covered = dead_of_this_boot(&inner.layout)?;
        let root = inner.layout.root();
        rustix::fs::syncfs(inner.layout.fd()).map_err(|errno| StoreError::io(root, errno))?;
        for (name, _lock) in &covered {
            inner.layout.unlink(name)?;
        }
        for epoch in &sealed {
            inner.layout.unlink(epoch.alive.name())?;
        }
        Ok(())
    }

    /// Whether this store has written a blob or result since it was opened.
    pub fn was_written(&self) -> bool {
        self.inner.epochs.written.load(Ordering::SeqCst)
    }
}

/// Epochs of killed processes, which the next `syncfs` makes durable.
fn dead_of_this_boot(layout: &Layout) -> Result<Vec<(String, Owner)>, StoreError> {
    let boot = boot_id();
    let mut dead = Vec::new();
    for name in scan::names(layout, EPOCHS)? {
        let known = parse(&name).is_some_and(|(_, of)| of == boot && boot != UNKNOWN_BOOT);
        let path = format!("{EPOCHS}/{name}");
        if known && let owner @ Owner::Dead(_) = Liveness::owner(layout, &path)? {
            dead.push((path, owner));
        }
    }
    Ok(dead)
}

/// Looks for an unclean stop and moves what it may have damaged to `suspect/`.
/// Says whether there are suspects.
pub(crate) fn recover(layout: &Layout) -> Result<bool, StoreError> {
    recover_as(layout, &boot_id())
}

fn recover_as(layout: &Layout, boot: &str) -> Result<bool, StoreError> {
    if !unclean(layout, boot)?.is_empty() {
        let _lock = Mutex::lock(layout, RECOVERY_LOCK, RECOVERY_WAIT_MS)?;
        let files = unclean(layout, boot)?;
        if let Some(start) = files.iter().map(|(start, _)| *start).min() {
            tracing::warn!(
                epochs = files.len(),
                "the machine stopped in mid-build; checking blobs"
            );
            suspect_since(layout, start.saturating_sub(MARGIN_NS))?;
            for (_, path) in &files {
                layout.unlink(path)?;
            }
        }
    }
    Ok(layout.stat(SUSPECT)?.is_some())
}

/// The start and path of each epoch that the machine did not survive.
fn unclean(layout: &Layout, boot: &str) -> Result<Vec<(i64, String)>, StoreError> {
    let mut found = Vec::new();
    for name in scan::names(layout, EPOCHS)? {
        let path = format!("{EPOCHS}/{name}");
        // A name that is not ours says nothing about when it began: everything is suspected.
        let (start, of) = parse(&name).unwrap_or((i64::MIN, UNKNOWN_BOOT));
        let is_unclean = if of == UNKNOWN_BOOT || boot == UNKNOWN_BOOT {
            matches!(Liveness::owner(layout, &path)?, Owner::Dead(_))
        } else {
            of != boot
        };
        if is_unclean {
            found.push((start, path));
        }
    }
    Ok(found)
}

fn suspect_since(layout: &Layout, since_ns: i64) -> Result<(), StoreError> {
    layout.make_dir(SUSPECT, 0o755)?;
    for blob in scan::blobs(layout, "")?.files {
        let young = layout.stat(&blob.path)?.is_some_and(|s| clock::changed_ns(&s) >= since_ns);
        if young {
            // A rename renews the change time, but the suspect's place remembers it.
            match layout.rename(&blob.path, &layout::suspect_path(&blob.digest, blob.form)) {
                Err(StoreError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    for tree in scan::trees(layout)? {
        if layout.stat(&tree)?.is_some_and(|s| clock::changed_ns(&s) >= since_ns) {
            crate::tree::discard(layout, &tree)?;
        }
    }
    Ok(())
}

fn parse(name: &str) -> Option<(i64, &str)> {
    let (start, rest) = name.split_once('.')?;
    let (boot, _) = rest.split_once('.')?;
    Some((start.parse().ok()?, boot))
}

/// The kernel's name for this boot of the machine.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    if id.is_empty() { UNKNOWN_BOOT.to_owned() } else { id }
}

#[cfg(test)]
mod tests;
