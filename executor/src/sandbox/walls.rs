//! The walls of a sandbox that a process builds around itself: mapping, privileges, limits.

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};

use super::{seccomp, sys};

/// Most processes and threads of one action.
const PROCESSES_MAX: u64 = 4096;
/// Most open files of one process of an action.
const OPEN_FILES_MAX: u64 = 4096;
/// The main thread's stack, in bytes.
const STACK_BYTES: u64 = 8 << 20;

/// Maps `inner` to the user and group that made the user namespace of this process.
pub(super) fn map_user(inner: u32, outer: (u32, u32)) -> io::Result<()> {
    // A process that changed its user is not dumpable, and its files in /proc are then root's.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{inner} {} 1", outer.1))?;
    fs::write("/proc/self/uid_map", format!("{inner} {} 1", outer.0))
}

/// Becomes `user` and keeps, for the making of the last user namespace, what root could do.
pub(super) fn become_user(user: u32) -> io::Result<()> {
    let held = rustix::thread::capabilities(None)?;
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let permitted = held.permitted;
    let inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: permitted, permitted, inheritable },
    )?;
    Ok(())
}

/// Gives up every capability for good, and closes this process to debuggers.
pub(super) fn drop_privileges() -> io::Result<()> {
    for capability in 0..64 {
        let set = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(set) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Installs the system call filter; needs that new privileges are ruled out.
pub(super) fn filter_calls() -> io::Result<()> {
    sys::install_filter(&seccomp::filter())
}

/// Sets resource limits to constants, as far as the host's own limits permit.
pub(super) fn limit_resources() -> io::Result<()> {
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        (Resource::Nproc, PROCESSES_MAX, PROCESSES_MAX),
        (Resource::Nofile, OPEN_FILES_MAX, OPEN_FILES_MAX),
        (Resource::Stack, STACK_BYTES, u64::MAX),
        (Resource::Nice, 0, 0),
        (Resource::Rtprio, 0, 0),
    ] {
        let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = |wanted: u64| Some(wanted.min(ceiling)).filter(|value| *value != u64::MAX);
        let limits = Rlimit { current: limit(soft), maximum: limit(hard) };
        rustix::process::setrlimit(resource, limits)?;
    }
    Ok(())
}
