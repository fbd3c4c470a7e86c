//! The first process of an action's pid namespace: builds the walls, starts the program, reaps.
//!
//! It is a fork of the spawn server, so no program has to be executed to set a sandbox up. Order
//! matters, and each step takes away what the one before still needed:
//!
//! 1. mounts, with the server's privilege: execution root, trees, `/tmp`, `/proc`;
//! 2. the new root, the old one detached;
//! 3. a privileged server's dedicated user;
//! 4. another user namespace. The mount namespace stays with the server's, so that not even all
//!    capabilities of the new one would suffice to mount, unmount or make anything writable here;
//!    and a mount namespace made in it would be a copy with every mount locked;
//! 5. resource limits, capabilities and bounding set, no new privileges, the system call filter;
//! 6. the program, as a child of its own session.
//!
//! This process then waits. It ends, and with it everything in the pid namespace, when the program
//! has ended, or when the server has: it polls a descriptor of the server's process, so it does
//! not matter how the server died.
//! It is not dumpable: the action can neither trace it nor look into its descriptors.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::MountFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::base::{INNER_ID, attach, enter_root};
use super::protocol::{AtStep, Request, StepFailure};
use super::{layer, sys, walls};

/// What the first process says to its server; at most two of them, in this order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Notice {
    /// A step failed; nothing ran.
    SetUp(StepFailure),
    /// The program could not be executed.
    NotStarted(i32),
    /// The program ended with this status word.
    Ended(i32),
}

/// The descriptors that an action's first process is born with.
pub(super) struct Wires<'a> {
    /// Where [`Notice`]s go.
    pub(super) notices: BorrowedFd<'a>,
    /// A process descriptor of the server: readable when it is gone.
    pub(super) lifeline: BorrowedFd<'a>,
    /// Where the action's standard output goes.
    pub(super) stdout: BorrowedFd<'a>,
    /// Where the action's standard error goes.
    pub(super) stderr: BorrowedFd<'a>,
    /// The writable layer, a detached mount, if it is in memory.
    pub(super) layer: Option<BorrowedFd<'a>>,
}

/// The life of a sandboxed action's first process; the value is its exit code.
pub(super) fn run(root: &Path, user: Option<u32>, request: &Request, wires: &Wires<'_>) -> i32 {
    let started = set_up(root, user, request, wires).and_then(|()| start(request, wires));
    finish(started, wires)
}

/// The life of an unconfined action's first process, in the folder that it shall run in.
pub(super) fn run_unconfined(folder: &Path, request: &Request, wires: &Wires<'_>) -> i32 {
    let folder = folder.join(&request.directory);
    let entered = rustix::process::chdir(&folder).at("enter the folder of the action");
    let started = entered
        .and_then(|()| rustix::process::set_child_subreaper(Some(Pid::INIT)).at("adopt orphans"))
        .and_then(|()| plug_streams(wires))
        .and_then(|()| start(request, wires));
    let code = finish(started, wires);
    // There is no pid namespace whose end would do this.
    let _ = kill_descendants();
    code
}

/// Kills all children of this process, and their children, which it inherits, until none is left.
///
/// Ends with the error of the last wait: that there is nothing to wait for.
pub(super) fn kill_descendants() -> std::io::Error {
    loop {
        let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let children = list.split_whitespace().filter_map(|word| word.parse().ok());
        for child in children.filter_map(Pid::from_raw) {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
        if let Err(error) = sys::wait(None, true) {
            return error;
        }
    }
}

fn finish(started: Result<Option<Pid>, StepFailure>, wires: &Wires<'_>) -> i32 {
    match started.and_then(|main| main.map(|main| attend(main, wires)).transpose()) {
        Ok(None) => notify(wires, &Notice::Ended(0)),
        Ok(Some(Some(status))) => notify(wires, &Notice::Ended(status)),
        Ok(Some(None)) => {}
        Err(failure) => notify(wires, &Notice::SetUp(failure)),
    }
    0
}

fn set_up(
    root: &Path,
    user: Option<u32>,
    request: &Request,
    wires: &Wires<'_>,
) -> Result<(), StepFailure> {
    mount_all(root, user, request, wires)?;
    rustix::process::chdir(root).at("enter the new root")?;
    enter_root().at("leave the server's root")?;
    if let Some(user) = user {
        walls::become_user(user).at("become the dedicated user")?;
    }
    let outer = user.unwrap_or(INNER_ID);
    sys::unshare(UnshareFlags::NEWUSER).at("make the user namespace of an action")?;
    walls::map_user(INNER_ID, (outer, outer)).at("map the user of an action's namespace")?;
    plug_streams(wires)?;
    walls::limit_resources().at("set resource limits")?;
    walls::drop_privileges().at("drop privileges")?;
    walls::filter_calls().at("install the system call filter")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::chdir(Path::new("/build").join(&request.directory))
        .at("enter the working directory")
}

/// Replaces the server's standard streams, so that no descriptor of it stays here.
fn plug_streams(wires: &Wires<'_>) -> Result<(), StepFailure> {
    let null = File::open("/dev/null").at("open `/dev/null`")?;
    sys::make_standard(&null, 0).at("set standard input")?;
    sys::make_standard(wires.stdout, 1).at("set standard output")?;
    sys::make_standard(wires.stderr, 2).at("set standard error")
}

fn mount_all(
    root: &Path,
    user: Option<u32>,
    request: &Request,
    wires: &Wires<'_>,
) -> Result<(), StepFailure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let layer = match wires.layer {
        Some(layer) => {
            attach(layer, Path::new("/layer")).at("attach the writable layer")?;
            PathBuf::from("/layer")
        }
        None => Path::new("/scratch").join(&request.folder),
    };
    layer::make_folders(&layer.join("up"), user, &request.folders)
        .at("make the folders of outputs")?;
    let build = root.join("build");
    let (folder, layer) = (&request.folder, layer.display());
    // `volatile` spares the flush of the whole disk that unmounting an overlay is otherwise.
    let volatile = if wires.layer.is_some() { "" } else { ",volatile" };
    let options = format!(
        "lowerdir=/lower/{folder}/in,upperdir={layer}/up,workdir={layer}/work,userxattr{volatile}"
    );
    mount("overlay", &build, flags, options, "mount the execution root")?;
    for (source, target) in &request.trees {
        // The copy of a mount has the flags of its source: read-only, owners mapped.
        rustix::mount::mount_bind(Path::new("/cache").join(source), build.join(target))
            .at("mount an input tree")?;
    }
    let tmp = root.join("tmp");
    if wires.layer.is_some() {
        rustix::mount::mount_bind("/layer/tmp", &tmp).at("mount `/tmp`")?;
    } else {
        mount("tmpfs", &tmp, flags, layer::options(user), "mount `/tmp`")?;
    }
    // Only the folders of processes: no `/proc/sys`, `sysrq-trigger`, `kcore`, `keys` and the
    // like to mask, and none of the host's counters to depend on.
    let flags = flags | MountFlags::NOEXEC;
    mount("proc", &root.join("proc"), flags, "subset=pid".to_owned(), "mount `/proc`")
}

fn mount(
    kind: &str,
    target: &PathBuf,
    flags: MountFlags,
    options: String,
    step: &str,
) -> Result<(), StepFailure> {
    let options = CString::new(options).map_err(std::io::Error::from).at(step)?;
    rustix::mount::mount("maestro", target, kind, flags, options.as_c_str()).at(step)
}

/// Starts the program. `None` if there is none to start.
fn start(request: &Request, wires: &Wires<'_>) -> Result<Option<Pid>, StepFailure> {
    if request.probe {
        return Ok(None);
    }
    let pid = sys::fork(sys::CloneFlags::NONE, || {
        let error = match become_program(request) {
            Ok(never) => match never {},
            Err(failure) => failure.errno,
        };
        notify(wires, &Notice::NotStarted(error));
        127
    })
    .at("start the program")?;
    Ok(Some(pid))
}

fn become_program(request: &Request) -> Result<Infallible, StepFailure> {
    rustix::process::setsid().at("start a session")?;
    sys::reset_signals();
    sys::close_on_exec_from(3).at("close descriptors")?;
    let texts = |list: &[Vec<u8>]| -> Result<Vec<CString>, StepFailure> {
        let texts = list.iter().map(|text| CString::new(text.as_slice())).collect();
        let texts: Result<Vec<CString>, _> = texts;
        texts.map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL)).at("read the command")
    };
    let (argv, env) = (texts(&request.argv)?, texts(&request.env)?);
    let mut failure = StepFailure { step: "execute".to_owned(), errno: libc::ENOENT };
    for program in candidates(request) {
        let Ok(program) = CString::new(program) else { continue };
        match sys::exec(&program, &argv, &env).at("execute") {
            Ok(never) => match never {},
            // As execvp(3): go on looking, but remember that there was something.
            Err(refused) if refused.errno == libc::ENOENT => {}
            Err(refused) if refused.errno == libc::EACCES => failure = refused,
            Err(refused) => return Err(refused),
        }
    }
    Err(failure)
}

/// Where the program may be: at its path, or in the folders of the *action's* `PATH`.
fn candidates(request: &Request) -> Vec<Vec<u8>> {
    let Some(program) = request.argv.first() else { return Vec::new() };
    if program.contains(&b'/') {
        return vec![program.clone()];
    }
    let path = request.env.iter().find_map(|entry| entry.strip_prefix(b"PATH="));
    let folders = path.unwrap_or_default().split(|byte| *byte == b':');
    let folders = folders.filter(|folder| !folder.is_empty());
    folders.map(|folder| [folder, b"/", program.as_slice()].concat()).collect()
}

/// Waits for the program and reaps what it leaves; `None` if the server went first.
fn attend(main: Pid, wires: &Wires<'_>) -> Result<Option<i32>, StepFailure> {
    let children = sys::child_signals().at("watch child processes")?;
    loop {
        while let Some(reaped) = sys::wait(None, false).at("wait for the program")? {
            if reaped.pid == main {
                return Ok(Some(reaped.status));
            }
        }
        let mut ready = [
            PollFd::new(&children, PollFlags::IN),
            PollFd::from_borrowed_fd(wires.lifeline, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut ready, None)).at("wait for the program")?;
        let [_, lifeline] = &ready;
        if !lifeline.revents().is_empty() {
            return Ok(None);
        }
        // Several signals may count as one; the loop above reaps all there is.
        while rustix::io::read(children.as_fd(), &mut [0u8; 1024]).is_ok() {}
    }
}

fn notify(wires: &Wires<'_>, notice: &Notice) {
    // A server that is gone cannot be told, and there is no one else.
    if let Ok(bytes) = postcard::to_stdvec(notice) {
        let _ = rustix::io::write(wires.notices, &bytes);
    }
}

/// What the first process said, from all the bytes that it wrote.
pub(super) fn read_notice(bytes: &[u8]) -> Option<Notice> {
    postcard::take_from_bytes(bytes).ok().map(|(notice, _)| notice)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Layer;
    use super::*;

    #[test]
    fn the_first_notice_counts() {
        let mut bytes = postcard::to_stdvec(&Notice::NotStarted(2)).expect("serializable");
        bytes.extend(postcard::to_stdvec(&Notice::Ended(127 << 8)).expect("serializable"));
        assert_eq!(read_notice(&bytes), Some(Notice::NotStarted(2)));
        assert_eq!(read_notice(&[]), None);
        assert_eq!(read_notice(&[99, 1, 2]), None);
    }

    #[test]
    fn programs_are_searched_in_the_path_of_the_action() {
        let check = |program: &str, env: &[&str], expect: &[&str]| {
            let request = Request {
                argv: vec![program.into()],
                env: env.iter().map(|entry| (*entry).into()).collect(),
                directory: String::new(),
                toolchains: Vec::new(),
                sees_host: false,
                folder: String::new(),
                layer: Layer::Memory,
                folders: Vec::new(),
                trees: Vec::new(),
                fresh_network: false,
                timeout_ms: 1,
                probe: false,
            };
            let expect: Vec<Vec<u8>> = expect.iter().map(|path| (*path).into()).collect();
            assert_eq!(candidates(&request), expect);
        };
        check("sh", &["A=B", "PATH=/usr/bin:/bin"], &["/usr/bin/sh", "/bin/sh"]);
        check("./x", &["PATH=/usr/bin"], &["./x"]);
        check("sh", &["PATH=:/bin"], &["/bin/sh"]);
        check("sh", &[], &[]);
    }
}
