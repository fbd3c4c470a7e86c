//! The client's side of a spawn server: starts it, asks it, outlives it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

use super::protocol::{self, Abilities, Boot, BootReply, End, KILL, Reply, Request};
use super::{SERVER_ARGUMENT, SandboxError};
use crate::runner::Cancel;

/// How often a waiting client looks whether it is cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(20);
/// How much longer than an action's limit a server may take before it is given up.
const GRACE: Duration = Duration::from_secs(30);
/// How long a server may take to set itself up.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How long a server that was told to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How to start a spawn server.
#[derive(Clone, Debug)]
pub struct SpawnOptions {
    /// The program that calls [`super::spawn_server_main`] when its first argument is
    /// [`SERVER_ARGUMENT`]; usually the running program itself, `/proc/self/exe`.
    pub program: PathBuf,
    /// The folder below which toolchains and input trees lie: the cache.
    pub cache: PathBuf,
    /// The folder below which the folders of actions are made; on the cache's file system.
    pub scratch: PathBuf,
    /// Folders of the host that actions may see which ask for it, read-only.
    pub host: Vec<PathBuf>,
    /// The job slot: servers of different slots use different dedicated users.
    pub slot: u32,
    /// Whether actions are sandboxed; otherwise they run on the host as they are.
    pub hermetic: bool,
}

/// A running spawn server. Dropping it ends it, and everything that it runs.
#[derive(Debug)]
pub(crate) struct SpawnServer {
    child: Child,
    socket: UnixStream,
    abilities: Abilities,
}

impl SpawnServer {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(options: &SpawnOptions) -> Result<Self, SandboxError> {
        let spawn = |source| SandboxError::Spawn { program: options.program.clone(), source };
        let (socket, theirs) = UnixStream::pair().map_err(spawn)?;
        let child = Command::new(&options.program)
            .arg(SERVER_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(spawn)?;
        let abilities = Abilities { user: None, idmapped: false, memory_layer: false };
        let mut server = Self { child, socket, abilities };
        let boot = Boot {
            hermetic: options.hermetic,
            cache: path_bytes(&options.cache)?,
            scratch: path_bytes(&options.scratch)?,
            host: options.host.iter().map(|path| path_bytes(path)).collect::<Result<_, _>>()?,
            slot: options.slot,
        };
        let died = |source| SandboxError::Died { doing: "setting itself up", source };
        server.socket.set_read_timeout(Some(BOOT_LIMIT)).map_err(died)?;
        protocol::send(&mut server.socket, &boot).map_err(died)?;
        match protocol::receive(&mut server.socket).map_err(died)? {
            BootReply::Ready(abilities) => server.abilities = abilities,
            BootReply::Failed(failure) => return Err(SandboxError::from_step(failure)),
        }
        server.socket.set_read_timeout(None).map_err(died)?;
        Ok(server)
    }

    /// What the server can do.
    pub(crate) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Runs one action to its end. After an error the server is of no more use.
    /// The descriptor is the writable layer, if that was in memory.
    pub(crate) fn run(
        &mut self,
        request: &Request,
        cancel: &Cancel,
    ) -> Result<(Reply, Option<OwnedFd>), SandboxError> {
        let died = |source| SandboxError::Died { doing: "running an action", source };
        protocol::send(&mut self.socket, request).map_err(died)?;
        let limit = Duration::from_millis(request.timeout_ms).saturating_add(GRACE);
        self.await_reply(limit, cancel).map_err(died)?;
        let (reply, layer): (Reply, _) = protocol::receive_with(&mut self.socket).map_err(died)?;
        match reply.end {
            End::SetUp(failure) => Err(SandboxError::from_step(failure)),
            _ => Ok((reply, layer)),
        }
    }

    /// Tells a server to end, and does not wait for it; it is of no more use.
    pub(crate) fn dismiss(&self) {
        // The end of the stream is the order to kill what runs and to go; no new process is
        // started after it.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Returns when there is an answer to read, or the end of the stream.
    fn await_reply(&mut self, limit: Duration, cancel: &Cancel) -> io::Result<()> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            let pause = if told { Duration::from_secs(1) } else { CANCEL_CHECK };
            let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
            match poll(&mut ready, Some(&pause)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if cancel.is_cancelled() && !told {
                self.socket.write_all(&[KILL])?;
                told = true;
            }
            if began.elapsed() > limit {
                let message = "processes of the action do not die";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
    }
}

impl Drop for SpawnServer {
    fn drop(&mut self) {
        self.dismiss();
        // Only a server that does not obey is killed, and its action with it.
        if !has_ended(&self.child, STOP_LIMIT) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Waits for a child to end, without reaping it.
fn has_ended(child: &Child, limit: Duration) -> bool {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return false };
    let Ok(descriptor) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    let mut ready = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
    let Ok(limit) = Timespec::try_from(limit) else { return false };
    matches!(rustix::io::retry_on_intr(|| poll(&mut ready, Some(&limit))), Ok(1))
}

fn path_bytes(path: &Path) -> Result<Vec<u8>, SandboxError> {
    let path = path.canonicalize().map_err(|source| {
        let path = path.to_owned();
        SandboxError::Folder { path, source }
    })?;
    Ok(path.as_os_str().as_bytes().to_vec())
}
