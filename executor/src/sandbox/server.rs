//! The spawn server: a small process with one thread that starts one action after the other.
//!
//! It exists because forking is expensive in a large process and cheap in a small one, and because
//! what is the same for all actions of a slot is then set up once. It is the same program as its
//! client, started with [`super::SERVER_ARGUMENT`]; its socket is its standard input.
//! It has no state that matters: a client may kill it at any time, and start another.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use maestro_core::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::base::Base;
use super::init::{self, Notice, Wires};
use super::protocol::{
    self, Abilities, AtStep, Boot, BootReply, End, KILL, Layer, Log, Reply, Request, StepFailure,
};
use super::pump::Pump;
use super::{layer, sys};

/// How much sooner than the server the kernel should kill an action when memory runs out.
const OOM_SCORE: &str = "500";

/// What kind of server this is.
enum Ground {
    /// Actions are sandboxed.
    Hermetic(Box<Base>),
    /// Actions run on the host, below this folder.
    Host(PathBuf),
}

/// Why a server stops.
enum Stop {
    /// The client is gone.
    Client,
    /// Something that should not happen.
    Fault(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Fault(error)
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Fault(error.into())
    }
}

/// Serves the socket that is this process's standard input; the value is the exit code.
pub(super) fn main() -> i32 {
    match serve() {
        Ok(()) | Err(Stop::Client) => 0,
        // The client sees the end of the stream; the code is for whoever traces this process.
        Err(Stop::Fault(error)) => error.raw_os_error().unwrap_or(sys::CHILD_PANICKED),
    }
}

fn serve() -> Result<(), Stop> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    sys::make_standard(std::fs::File::open("/dev/null")?, 0)?;
    // Keys typed at a terminal are for the client, which then says what to do.
    let _ = rustix::process::setsid();
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let lifeline = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let boot: Boot = receive(&mut socket)?;
    let mut ground = match stand_on(&boot) {
        Ok((ground, abilities)) => {
            protocol::send(&mut socket, &BootReply::Ready(abilities))?;
            ground
        }
        Err(failure) => {
            protocol::send(&mut socket, &BootReply::Failed(failure))?;
            return Ok(());
        }
    };
    loop {
        let request: Request = receive(&mut socket)?;
        let (reply, layer) = match run(&mut ground, &request, &socket, &lifeline) {
            Ok((reply, layer)) => (reply, layer),
            Err(Unable::Step(failure)) => (Reply::without_run(End::SetUp(failure)), None),
            Err(Unable::Stop(stop)) => return Err(stop),
        };
        protocol::send_with(&mut socket, &reply, layer.as_ref().map(AsFd::as_fd))?;
    }
}

/// A request, or the end of the client.
fn receive<T: serde::de::DeserializeOwned>(socket: &mut UnixStream) -> Result<T, Stop> {
    protocol::receive(socket).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Stop::Client,
        _ => Stop::Fault(error),
    })
}

fn stand_on(boot: &Boot) -> Result<(Ground, Abilities), StepFailure> {
    if boot.hermetic {
        let base = Base::set_up(boot)?;
        let abilities = base.abilities();
        return Ok((Ground::Hermetic(Box::new(base)), abilities));
    }
    rustix::process::set_child_subreaper(Some(Pid::INIT)).at("adopt orphans")?;
    let scratch = PathBuf::from(std::ffi::OsStr::from_bytes(&boot.scratch));
    let abilities = Abilities { user: None, idmapped: false, memory_layer: false };
    Ok((Ground::Host(scratch), abilities))
}

/// Why an action was not run.
enum Unable {
    /// A step failed; the next action may fare better.
    Step(StepFailure),
    /// The server ends.
    Stop(Stop),
}

impl From<StepFailure> for Unable {
    fn from(failure: StepFailure) -> Self {
        Self::Step(failure)
    }
}

impl<E: Into<Stop>> From<E> for Unable {
    fn from(error: E) -> Self {
        Self::Stop(error.into())
    }
}

fn run(
    ground: &mut Ground,
    request: &Request,
    socket: &UnixStream,
    lifeline: &OwnedFd,
) -> Result<(Reply, Option<OwnedFd>), Unable> {
    let (notices_in, notices_out) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    let (stdout_in, stdout_out) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    let (stderr_in, stderr_out) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe")?;
    let layer = match (&*ground, request.layer) {
        (Ground::Hermetic(base), Layer::Memory) => {
            Some(layer::in_memory(base.user()).at("make the writable layer")?)
        }
        _ => None,
    };
    let began = Instant::now();
    let wires = Wires {
        notices: notices_out.as_fd(),
        lifeline: lifeline.as_fd(),
        stdout: stdout_out.as_fd(),
        stderr: stderr_out.as_fd(),
        layer: layer.as_ref().map(AsFd::as_fd),
    };
    let first = match ground {
        Ground::Hermetic(base) => {
            base.prepare_network(request.fresh_network)?;
            let root = base.root(&request.toolchains, request.sees_host)?;
            let user = base.user();
            own_streams(user, &[&stdout_out, &stderr_out]).at("hand the streams over")?;
            sys::fork(sys::CloneFlags::ACTION, || init::run(&root, user, request, &wires))
        }
        Ground::Host(scratch) => {
            let folder = scratch.join(&request.folder).join("in");
            sys::fork(sys::CloneFlags::NONE, || init::run_unconfined(&folder, request, &wires))
        }
    };
    let first = first.at("make the namespaces of an action")?;
    drop((notices_out, stdout_out, stderr_out));
    let mut watch = Watch::new(first, socket, [notices_in, stdout_in, stderr_in])?;
    watch.layer = layer.as_ref().map(|layer| (layer.as_fd(), layer::spill_bytes()));
    watch.until_the_end(began, Duration::from_millis(request.timeout_ms))?;
    let reply = watch.conclude(matches!(ground, Ground::Host(_)), began)?;
    let written = layer.filter(|_| matches!(reply.end, End::Status(_)));
    let written = written.map(|layer| layer::open_written(&layer)).transpose()?;
    Ok((reply, written))
}

/// Lets the action open `/dev/stdout` and its kind, which only the owner of a pipe may.
fn own_streams(user: Option<u32>, pipes: &[&OwnedFd]) -> io::Result<()> {
    for pipe in pipes {
        if user.is_some() {
            std::os::unix::fs::fchown(pipe, user, user)?;
        }
    }
    Ok(())
}

/// A running action, seen from outside.
struct Watch<'a> {
    first: Pid,
    socket: &'a UnixStream,
    notices: Pump,
    stdout: Pump,
    stderr: Pump,
    cut_short: Option<End>,
    client_gone: bool,
    /// The layer in memory, and how much may be written to it.
    layer: Option<(BorrowedFd<'a>, u64)>,
}

/// How often a layer in memory is measured.
const MEASURE_PAUSE: Duration = Duration::from_millis(100);

/// Most bytes that the first process of an action says: two short notices.
const NOTICE_BYTES_MAX: usize = 64 * 1024;

impl<'a> Watch<'a> {
    fn new(first: Pid, socket: &'a UnixStream, pipes: [OwnedFd; 3]) -> io::Result<Self> {
        for pipe in &pipes {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let [notices, stdout, stderr] = pipes;
        Ok(Self {
            first,
            socket,
            notices: Pump::new(notices, NOTICE_BYTES_MAX),
            stdout: Pump::new(stdout, limits::ACTION_LOG_BYTES_MAX as usize),
            stderr: Pump::new(stderr, limits::ACTION_LOG_BYTES_MAX as usize),
            cut_short: None,
            client_gone: false,
            layer: None,
        })
    }

    /// Returns when the first process has ended, killed if it must be.
    fn until_the_end(&mut self, began: Instant, limit: Duration) -> io::Result<()> {
        while self.notices.fd().is_some() {
            let mut remaining = None;
            if self.cut_short.is_none() && !self.client_gone {
                let left = limit.saturating_sub(began.elapsed());
                if left.is_zero() {
                    self.kill(End::TimedOut);
                    continue;
                }
                let pause = if self.layer.is_some() { left.min(MEASURE_PAUSE) } else { left };
                remaining = Timespec::try_from(pause).ok();
                if self.layer.is_some_and(|(layer, most)| layer::used_bytes(layer) > most) {
                    self.kill(End::Spilled);
                    continue;
                }
            }
            let said_something = self.wait_for_news(remaining)?;
            self.notices.drain()?;
            self.stdout.drain()?;
            self.stderr.drain()?;
            if said_something {
                self.listen();
            }
        }
        Ok(())
    }

    /// Polls everything; whether the client said something.
    fn wait_for_news(&self, remaining: Option<Timespec>) -> io::Result<bool> {
        // After a kill or the end of the client there is nothing more to hear from it.
        let listening = self.cut_short.is_none() && !self.client_gone;
        let mut ready: Vec<PollFd<'_>> = [&self.notices, &self.stdout, &self.stderr]
            .into_iter()
            .filter_map(Pump::fd)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        if listening {
            ready.push(PollFd::new(self.socket, PollFlags::IN));
        }
        match poll(&mut ready, remaining.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(listening && ready.last().is_some_and(|socket| !socket.revents().is_empty()))
    }

    fn listen(&mut self) {
        let mut word = [0];
        match self.socket.read(&mut word) {
            Ok(1) if word == [KILL] => self.kill(End::Killed),
            _ => {
                self.client_gone = true;
                self.kill(End::Killed);
            }
        }
    }

    fn kill(&mut self, why: End) {
        self.cut_short = Some(why);
        // It is our child and not waited for yet, so its number is still its own.
        let _ = rustix::process::kill_process(self.first, Signal::KILL);
    }

    /// Makes sure that nothing of the action is left, and says how it went.
    fn conclude(mut self, unconfined: bool, began: Instant) -> Result<Reply, Stop> {
        // The first process of a pid namespace can be waited for only when all others are dead.
        let reaped = sys::wait(Some(self.first), true)?;
        if unconfined {
            let none_left = init::kill_descendants();
            debug_assert_eq!(none_left.raw_os_error(), Some(libc::ECHILD));
            self.stdout.drain()?;
            self.stderr.drain()?;
        } else {
            self.stdout.drain_to_end()?;
            self.stderr.drain_to_end()?;
        }
        if self.client_gone {
            return Err(Stop::Client);
        }
        let said = init::read_notice(&self.notices.finish().head);
        let end = match (said, self.cut_short) {
            // What was written may lack what did not fit.
            (_, Some(End::Spilled)) => End::Spilled,
            // What ended by itself ended, even if the clock or the client was a moment faster.
            (Some(Notice::Ended(status)), _) => End::Status(status),
            (Some(Notice::NotStarted(errno)), _) => End::NotStarted(errno),
            (Some(Notice::SetUp(failure)), _) => End::SetUp(failure),
            (None, Some(why)) => why,
            (None, None) => End::Lost,
        };
        Ok(Reply {
            end,
            stdout: self.stdout.finish(),
            stderr: self.stderr.finish(),
            wall_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            cpu_ms: reaped.map_or(0, |reaped| reaped.cpu_ms),
            memory_bytes: reaped.map_or(0, |reaped| reaped.memory_bytes),
        })
    }
}

impl Reply {
    fn without_run(end: End) -> Self {
        let (stdout, stderr) = (Log::default(), Log::default());
        Self { end, stdout, stderr, wall_ms: 0, cpu_ms: 0, memory_bytes: 0 }
    }
}
