//! Files that say whether a process lives: a lock that the kernel frees when its owner dies.
//!
//! The owner holds `flock` exclusively; whoever asks tries it shared, so that any number may ask
//! at once without taking each other for the owner. A process that was killed frees its lock at
//! once, and process ids that are used again do not matter.

use std::os::fd::OwnedFd;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::StoreError;
use crate::layout::Layout;

/// A file that is locked for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Liveness {
    name: String,
    lock: OwnedFd,
}

impl Liveness {
    /// Makes and locks a file, named by `name` of a number that differs from try to try.
    ///
    /// Someone who cleans up may look at the file between its making and its locking, and take
    /// it for a dead one: then another name is tried.
    pub(crate) fn create(
        layout: &Layout,
        name: impl Fn(u64) -> String,
    ) -> Result<Self, StoreError> {
        let mut number = 0;
        loop {
            let name = name(number);
            number += 1;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let fail = |errno| layout.error(&name, errno);
            let lock = match rustix::fs::openat(layout.fd(), &name, flags, mode) {
                Err(Errno::EXIST) => continue,
                Err(Errno::NOENT) => {
                    layout.make_parents(&name).map_err(fail)?;
                    rustix::fs::openat(layout.fd(), &name, flags, mode)
                }
                other => other,
            };
            let lock = lock.map_err(fail)?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    layout.unlink(&name)?;
                    continue;
                }
                Err(errno) => return Err(fail(errno)),
            }
            if rustix::fs::fstat(&lock).map_err(fail)?.st_nlink > 0 {
                return Ok(Self { name, lock });
            }
        }
    }

    /// Takes over the file of a dead owner, or `None` where its owner lives, somebody cleans it up,
    /// or it holds nothing yet: see [`Liveness::mark`].
    pub(crate) fn adopt(layout: &Layout, name: &str) -> Result<Option<Self>, StoreError> {
        let fail = |errno| layout.error(name, errno);
        let Some(file) = layout.open_file(name)? else { return Ok(None) };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        let stat = rustix::fs::fstat(&file).map_err(fail)?;
        let usable = stat.st_nlink > 0 && stat.st_size > 0;
        Ok(usable.then(|| Self { name: name.to_owned(), lock: file }))
    }

    /// Notes in the file that its owner has got so far that another may take it over.
    pub(crate) fn mark(&self, layout: &Layout) -> Result<(), StoreError> {
        rustix::io::write(&self.lock, b"x").map_err(|errno| layout.error(&self.name, errno))?;
        Ok(())
    }

    /// The path of the file, below the cache folder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks whether the owner of a file lives.
    pub(crate) fn owner(layout: &Layout, name: &str) -> Result<Owner, StoreError> {
        let Some(file) = layout.open_file(name)? else { return Ok(Owner::Dead(None)) };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Owner::Dead(Some(file))),
            Err(Errno::WOULDBLOCK) => Ok(Owner::Alive),
            Err(errno) => Err(layout.error(name, errno)),
        }
    }
}

/// The answer of [`Liveness::owner`].
#[derive(Debug)]
pub(crate) enum Owner {
    /// It lives, or is another who cleans up.
    Alive,
    /// It is dead. Whoever cleans up keeps this value until it is done: its shared lock makes a
    /// newborn owner, who has not locked its file yet, take another name.
    Dead(Option<OwnedFd>),
}

/// A lock that several processes take in turn; freed when dropped.
#[derive(Debug)]
pub(crate) struct Mutex {
    _lock: OwnedFd,
}

impl Mutex {
    /// Takes the lock, waiting up to `wait_ms`.
    pub(crate) fn lock(layout: &Layout, name: &str, wait_ms: u64) -> Result<Self, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let lock = rustix::fs::openat(layout.fd(), name, flags, mode)
            .map_err(|errno| layout.error(name, errno))?;
        let start = std::time::Instant::now();
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _lock: lock }),
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(layout.error(name, errno)),
            }
            let waited_ms = start.elapsed().as_millis() as u64;
            if waited_ms >= wait_ms {
                return Err(StoreError::Busy { path: layout.absolute(name), waited_ms });
            }
            // `flock` knows no time limit, so that this asks again now and then.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_until_its_owner_drops_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::open(dir.path()).expect("opens");
        let owner = Liveness::create(&layout, |n| format!("leases/{n}")).expect("created");
        let other = Liveness::create(&layout, |n| format!("leases/{n}")).expect("created");
        assert_eq!((owner.name(), other.name()), ("leases/0", "leases/1"));
        assert!(matches!(Liveness::owner(&layout, "leases/0"), Ok(Owner::Alive)));
        drop(owner);
        assert!(matches!(Liveness::owner(&layout, "leases/0"), Ok(Owner::Dead(_))));
    }

    #[test]
    fn waiting_for_a_mutex_is_bounded() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::open(dir.path()).expect("opens");
        let first = Mutex::lock(&layout, "x.lock", 0).expect("free");
        let second = Mutex::lock(&layout, "x.lock", 20);
        assert!(matches!(second, Err(StoreError::Busy { .. })));
        drop(first);
        Mutex::lock(&layout, "x.lock", 0).expect("free again");
    }
}
