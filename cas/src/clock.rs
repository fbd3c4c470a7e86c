//! The wall clock in nanoseconds, in the form that file time stamps have.

use rustix::fs::Stat;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// How far a file's time stamp may lie behind the clock: the kernel stamps files once a tick,
/// and the slowest tick in use is 10 ms.
pub(crate) const STAMP_LAG_NS: i64 = 20_000_000;

/// Now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Realtime);
    join(tv_sec, tv_nsec)
}

/// The last access.
pub(crate) fn accessed_ns(stat: &Stat) -> i64 {
    join(stat.st_atime, stat.st_atime_nsec as i64)
}

/// The last change of the content.
pub(crate) fn modified_ns(stat: &Stat) -> i64 {
    join(stat.st_mtime, stat.st_mtime_nsec as i64)
}

/// The last change of the inode, which nobody can set.
pub(crate) fn changed_ns(stat: &Stat) -> i64 {
    join(stat.st_ctime, stat.st_ctime_nsec as i64)
}

fn join(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
