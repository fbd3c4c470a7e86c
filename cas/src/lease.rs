//! Leases: how a running build tells garbage collection what it may rely on.
//!
//! A lease is a locked file whose name says when it began; it ends with its value or its process,
//! whichever is first. From then on every blob and result that the build finds present has an
//! access time no older than the lease, because finding it renews an older one; and
//! collection spares everything that is not older than the oldest living lease. See
//! [`crate::gc`] for the argument.

use std::sync::atomic::Ordering;

use crate::clock;
use crate::error::StoreError;
use crate::layout::{LEASES, Layout};
use crate::liveness::{Liveness, Owner};
use crate::scan;
use crate::store::Store;

/// Protects what a build uses from being collected, for as long as it lives.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    alive: Liveness,
}

impl Store {
    /// Takes a lease. Whoever writes results or relies on hits holds one.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let inner = &self.inner;
        let process = std::process::id();
        // The name says when the lease began, so it must not be later than any use under it.
        let start = clock::now_ns();
        let name = |n: u64| format!("{LEASES}/{start}-{process}-{n}");
        let alive = Liveness::create(&inner.layout, name)?;
        inner.touch_floor_ns.fetch_max(start, Ordering::SeqCst);
        Ok(Lease { store: self.clone(), alive })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file without an owner is ignored and removed by the next collection.
        if let Err(error) = self.store.inner.layout.unlink(self.alive.name()) {
            tracing::debug!(%error, "lease file stays");
        }
    }
}

/// When the oldest living lease began, in nanoseconds. Removes those of dead processes.
pub(crate) fn oldest_ns(layout: &Layout) -> Result<Option<i64>, StoreError> {
    let mut oldest: Option<i64> = None;
    for name in scan::names(layout, LEASES)? {
        let path = format!("{LEASES}/{name}");
        match Liveness::owner(layout, &path)? {
            Owner::Dead(_lock) => layout.unlink(&path)?,
            Owner::Alive => {
                // A name that is not ours protects everything: that errs on the safe side.
                let start = name.split('-').next().and_then(|text| text.parse().ok());
                let start = start.unwrap_or(i64::MIN);
                oldest = Some(oldest.map_or(start, |other| other.min(start)));
            }
        }
    }
    Ok(oldest)
}

/// How many leases live.
pub(crate) fn living(layout: &Layout) -> Result<u64, StoreError> {
    let mut count = 0;
    for name in scan::names(layout, LEASES)? {
        if let Owner::Alive = Liveness::owner(layout, &format!("{LEASES}/{name}"))? {
            count += 1;
        }
    }
    Ok(count)
}
