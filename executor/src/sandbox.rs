//! The sandbox of command actions: what a program sees, and what it can never reach.
//!
//! # The promise
//!
//! The output of an action depends on its declared inputs and nothing else; and whatever the
//! action does, it changes nothing but its own outputs. A build file may come from a stranger, so
//! the second half is a promise about *hostile* programs, kept as root and as a normal user.
//!
//! # The shape
//!
//! ```text
//! maestro ──socket── spawn server (one a slot) ──fork── first process ──fork── the program
//!  threads            one thread, small; owns            pid 1 of its own       uid 1000, no
//!                     user, net, uts, cgroup             pid, mount and ipc     capabilities
//!                     namespaces, prepared roots         namespaces
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | `client` | starts a server, asks it, gives it up when it does not answer |
//! | `protocol` | the messages between both |
//! | `server` | the life of a server; time limits, logs, the certainty that all is dead |
//! | `base` | what a server sets up once: namespaces, mount tree, prepared roots |
//! | `layer` | where an action's writes go |
//! | `init` | what an action's first process does, in which order |
//! | `walls`, `seccomp` | mapping, privileges, limits; the system call filter |
//! | `removal` | removing what actions leave |
//! | `sys` | system calls without a safe wrapper: all the `unsafe` there is |
//!
//! # The rules, and the attack that each one stops
//!
//! Four naive designs were broken by experiment before this one: a write to the host's
//! `core_pattern`, a read-only bind that was remounted writable, a hard-linked blob that was
//! appended to, and a mode changed through a link. Hence:
//!
//! | rule | stops |
//! |---|---|
//! | the host's uid 0 is never mapped; root becomes a dedicated user | writes to `/proc/sys` |
//! | the mount namespace belongs to a user namespace further up | remounting, uncovering |
//! | inputs lie under an overlay, never writable themselves | changing a blob by its hard link |
//! | no capabilities, no new privileges, `nosuid`, `nodev` | setuid programs, devices, mounts |
//! | `/proc` shows processes only; no `/sys` | kernel settings, and the host's facts |
//! | own pid, ipc, net, uts, cgroup namespaces; only `lo` | seeing or killing host processes |
//! | the pid namespace is dead before outputs are looked at | swapping a folder for a link |
//! | outputs are opened beneath a descriptor, by no link | outputs that are links to the host |
//! | the first process watches its server, that its client | processes that stay behind |
//!
//! Each has a test in `executor/tests/sandbox_attacks.rs`, run as root and as a normal user.
//!
//! # Worked example
//!
//! `//p:o` runs `cc -c p/a.cc -o maestro-out/shared/p/a.o` with one toolchain. The client makes a
//! folder in scratch: `in/p/a.cc` is a hard link to the blob. The server makes a layer in memory
//! and clones a process into new namespaces; that makes `maestro-out/shared/p/` in the layer,
//! mounts the overlay of both at `/build` of the prepared root, enters that root, drops
//! everything, and starts `cc`. When `cc` exits, the first process exits; the kernel kills whatever
//! `cc` left; the server waits for that and answers, with a descriptor of the layer. The client
//! finds `maestro-out/shared/p/a.o` beneath it and stores it.

mod base;
mod client;
mod init;
mod layer;
pub(crate) mod protocol;
mod pump;
pub(crate) mod removal;
mod seccomp;
mod server;
mod sys;
mod walls;

pub(crate) use sys::{exit_code, exit_signal};

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::runner::Cancel;

pub use client::SpawnOptions;
pub(crate) use client::SpawnServer;
use protocol::{End, Layer, Request, StepFailure};
pub use sys::close_on_exec_from;

/// The hidden first argument that makes a program a spawn server.
pub const SERVER_ARGUMENT: &str = "__spawn-server";

/// What the sandbox found that it can do on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The dedicated user that actions run as; `None` if they run as the user who builds.
    pub dedicated_user: Option<u32>,
    /// Whether inputs look the same inside, owner included, as root and as a normal user.
    pub uniform_owners: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dedicated_user {
            Some(user) => write!(f, "namespaces, as dedicated users from {user} on")?,
            None => f.write_str("namespaces, as a normal user")?,
        }
        if !self.uniform_owners {
            f.write_str("; inputs belong to nobody, for want of id-mapped mounts")?;
        }
        Ok(())
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel, or who configured it, does not permit what a sandbox is made of.
    #[error("this machine does not permit sandboxes: cannot {step}")]
    NotPermitted {
        /// What was refused.
        step: String,
        /// The refusal.
        source: io::Error,
    },
    /// A step failed although it is permitted.
    #[error("cannot set the sandbox up: cannot {step}")]
    SetUp {
        /// What failed.
        step: String,
        /// The failure.
        source: io::Error,
    },
    /// The spawn server could not be started.
    #[error("cannot start `{}` as a spawn server", .program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The spawn server ended, or answered no more.
    #[error("the spawn server died while {doing}")]
    Died {
        /// What it was doing.
        doing: &'static str,
        /// How that was noticed.
        source: io::Error,
    },
    /// A folder that the sandbox needs is not there.
    #[error("cannot use the folder `{}`", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

impl SandboxError {
    /// What can be done about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NotPermitted { .. } => NOT_PERMITTED_HINTS.iter().map(|h| (*h).into()).collect(),
            Self::Died { .. } => vec![
                "the kernel may have killed it for want of memory; run fewer jobs with `--jobs`"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }

    fn from_step(failure: StepFailure) -> Self {
        let StepFailure { step, errno } = failure;
        let source = io::Error::from_raw_os_error(errno);
        // What kernels answer where namespaces are forbidden, counted out, or not built in. A full
        // disk has the number of the second, but no step that makes a namespace writes to disk.
        let namespace = step.contains("namespace");
        let refused = matches!(errno, libc::EPERM | libc::EACCES | libc::ENOSYS)
            || (namespace && matches!(errno, libc::ENOSPC | libc::EUSERS | libc::EINVAL));
        if refused { Self::NotPermitted { step, source } } else { Self::SetUp { step, source } }
    }
}

const NOT_PERMITTED_HINTS: [&str; 5] = [
    "on Debian: `sysctl kernel.unprivileged_userns_clone=1`",
    "on Ubuntu: `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    "everywhere: `sysctl user.max_user_namespaces` must not be 0",
    "in a container: run it with `--privileged`, or with \
     `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`",
    "or choose `--sandbox=none`: actions are not confined then, and their results are not shared",
];

/// Turns this process into a spawn server and ends it when its client does.
///
/// To be called before anything else, while the process has one thread, when the first argument is
/// [`SERVER_ARGUMENT`]. The one place of this library that ends a process: its own.
pub fn spawn_server_main() -> ! {
    std::process::exit(server::main())
}

/// Sets a whole sandbox up once, without running a program, to learn whether this machine permits
/// it. `program` is that of [`SpawnOptions`]; `scratch` is a folder that exists and may be written.
pub fn probe(program: &Path, scratch: &Path) -> Result<Capabilities, SandboxError> {
    let folder = format!("probe-{}", std::process::id());
    let path = scratch.join(&folder);
    let made = ["in", "up", "work"].iter().try_for_each(|name| fs::create_dir_all(path.join(name)));
    let outcome = made
        .map_err(|source| SandboxError::Folder { path: path.clone(), source })
        .and_then(|()| probe_in(program, scratch, folder));
    if let Err(error) = removal::remove_tree(&path) {
        tracing::warn!(path = %path.display(), %error, "a folder could not be removed");
    }
    outcome
}

fn probe_in(program: &Path, scratch: &Path, folder: String) -> Result<Capabilities, SandboxError> {
    let mut server = SpawnServer::start(&SpawnOptions {
        program: program.to_owned(),
        cache: scratch.to_owned(),
        scratch: scratch.to_owned(),
        host: Vec::new(),
        slot: 0,
        hermetic: true,
    })?;
    let request = Request {
        argv: Vec::new(),
        env: Vec::new(),
        directory: String::new(),
        toolchains: Vec::new(),
        sees_host: false,
        folder,
        layer: Layer::Disk,
        folders: Vec::new(),
        trees: Vec::new(),
        fresh_network: true,
        timeout_ms: 60_000,
        probe: true,
    };
    let (reply, _) = server.run(&request, &Cancel::default())?;
    match reply.end {
        End::Status(0) => {
            let protocol::Abilities { user, idmapped, .. } = server.abilities();
            let uniform_owners = user.is_none() || idmapped;
            Ok(Capabilities { dedicated_user: user, uniform_owners })
        }
        _ => Err(SandboxError::Died {
            doing: "probing the sandbox",
            source: io::Error::other("its first process said nothing"),
        }),
    }
}
