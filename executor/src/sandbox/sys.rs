//! The system calls that no safe wrapper offers: the only module of the sandbox with `unsafe`.
//!
//! Everything here is a thin, checked wrapper; no policy. Callers are the spawn server and what it
//! forks, which have one thread each. That is the invariant on which [`fork`] and [`unshare`] rest,
//! and [`assert_single_threaded`] checks it when a server starts.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_long, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Exit code of a forked child whose code panicked; its parent reports that as a bug.
pub(super) const CHILD_PANICKED: i32 = 70;

/// Namespaces of a child, as in `clone(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CloneFlags(i32);

impl CloneFlags {
    /// A plain fork.
    pub(super) const NONE: Self = Self(0);
    /// What every sandboxed action gets of its own.
    pub(super) const ACTION: Self =
        Self(libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC);
    /// A user namespace that only serves as the mapping of an id-mapped mount.
    pub(super) const USER: Self = Self(libc::CLONE_NEWUSER);
}

/// How a child ended, with what it and the children that it waited for used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reaped {
    /// Which child.
    pub(super) pid: Pid,
    /// The status word of `wait(2)`.
    pub(super) status: i32,
    /// User and system time in milliseconds.
    pub(super) cpu_ms: u64,
    /// Largest resident set in bytes.
    pub(super) memory_bytes: u64,
}

/// One instruction of a seccomp filter, as the kernel lays it out.
pub(super) type FilterInstruction = libc::sock_filter;

/// Fails unless this process has exactly one thread.
pub(super) fn assert_single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!("the spawn server has {threads} threads instead of one")))
}

/// Forks a child that runs `body` and exits with its value; returns the child's process id.
///
/// The caller has one thread, so that the child may allocate and lock as it likes. A panic in
/// `body` ends the child alone.
pub(super) fn fork(flags: CloneFlags, body: impl FnOnce() -> i32) -> io::Result<Pid> {
    let flags = c_long::from(flags.0 | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given this is fork(2) with namespace flags: the
    // child has a copy of the address space and goes on from here. The process has one thread
    // (see the module's invariant), hence no lock is held by a thread that the child lacks.
    // Unused arguments are zero, so that their order, which differs by architecture, is moot.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(CHILD_PANICKED);
            // SAFETY: ends this process at once, without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("clone returned no process id")),
    }
}

/// Moves this process into new namespaces.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the hazard of `unshare` is CLONE_FILES seen by other threads; it is not among the
    // flags that callers pass, and there are no other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Replaces this process by a program. Returns only if that fails.
pub(super) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |list: &[CString]| -> Vec<*const c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all three are valid: `program` is a C string, and both arrays hold pointers to
    // C strings that outlive the call and end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Waits for one child, or for any; `None` if `block` is false and none has ended.
pub(super) fn wait(pid: Option<Pid>, block: bool) -> io::Result<Option<Reaped>> {
    let wanted = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
    let options = if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to writable memory of the right type.
        let reaped = unsafe { libc::wait4(wanted, &mut status, options, usage.as_mut_ptr()) };
        if reaped < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        let Some(pid) = Pid::from_raw(reaped) else { return Ok(None) };
        // SAFETY: all-zero bytes are a valid `rusage`, and the kernel has filled it in.
        let usage = unsafe { usage.assume_init() };
        let ms = |time: libc::timeval| {
            u64::try_from(time.tv_sec * 1000 + time.tv_usec / 1000).unwrap_or(0)
        };
        return Ok(Some(Reaped {
            pid,
            status,
            cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
            memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        }));
    }
}

/// The exit code in a status word, if the process exited.
pub(crate) fn exit_code(status: i32) -> Option<i32> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// The signal in a status word, if one ended the process.
pub(crate) fn exit_signal(status: i32) -> Option<i32> {
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// Blocks `SIGCHLD` and returns a descriptor that is readable when a child has ended.
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: `set` is initialized by sigemptyset before it is read; the descriptor that signalfd
    // returns is new and owned by no one else.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Gives every signal its default action and blocks none, as a program expects at its start.
pub(super) fn reset_signals() {
    // SAFETY: SIG_DFL is a valid disposition for every signal; for those that cannot be changed
    // the call fails and changes nothing. `set` is initialized by sigemptyset.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

/// Marks every descriptor from `first` on to be closed by the next [`exec`].
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flag = c_long::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: plain integers; the call changes flags of descriptors only.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flag) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Restricts the mount `fd`, which is a detached tree, and maps its owners if asked to.
///
/// `idmap` is a user namespace: what belongs to its user 0 on disk appears to belong to the user
/// that this one is mapped to.
pub(super) fn restrict_mount(
    fd: BorrowedFd<'_>,
    read_only: bool,
    idmap: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    if read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let mut userns_fd = 0;
    if let Some(idmap) = idmap {
        set |= libc::MOUNT_ATTR_IDMAP;
        userns_fd = u64::try_from(idmap.as_raw_fd()).unwrap_or(0);
    }
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd };
    // SAFETY: the path is a C string, and the structure is passed with its true size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | if idmap.is_none() { libc::AT_RECURSIVE } else { 0 },
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Brings the loopback interface of this network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero `ifreq` is valid; the name is shorter than its array and stays
    // terminated; SIOCSIFFLAGS reads the flags member that is written here.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as c_ulong, &raw const request)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Leaves the session keyring of whoever started this process for a new, empty one.
pub(super) fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let done = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<c_char>())
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Installs a system call filter for this process and all that it will start.
pub(super) fn install_filter(program: &[FilterInstruction]) -> io::Result<()> {
    let header = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `header` points to `len` instructions that live until the call returns; the kernel
    // copies and verifies them and does not write through the pointer.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as c_ulong,
            0 as c_ulong,
            &raw const header,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `fd` the standard input, output or error of this process.
pub(super) fn make_standard(fd: impl AsFd, number: u32) -> io::Result<()> {
    let fd = fd.as_fd();
    match number {
        0 => rustix::stdio::dup2_stdin(fd),
        1 => rustix::stdio::dup2_stdout(fd),
        _ => rustix::stdio::dup2_stderr(fd),
    }
    .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_told_apart() {
        assert_eq!((exit_code(0x0300), exit_signal(0x0300)), (Some(3), None));
        assert_eq!((exit_code(9), exit_signal(9)), (None, Some(9)));
        assert_eq!((exit_code(11 | 0x80), exit_signal(11 | 0x80)), (None, Some(11)));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = exec(c"/nonexistent/program", &[], &[]).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
