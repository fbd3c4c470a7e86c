//! The daemon's life: it claims the workspace's place, answers questions, and ends when nobody
//! asked for a while, when the workspace or the cache is gone, or when it is told to by SIGTERM.
//!
//! Each connection has a thread and a time limit, so that a client that says nothing keeps nobody
//! waiting. The kernel's queues are emptied by other threads: see [`super::vigil`].

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;

use super::message::{Answer, Question, Status, Timed, View, What};
use super::place::Place;
use super::vigil::{Subject, Vigil};
use crate::exit::Failure;

/// How often the daemon looks whether it is still of use.
const TICK: Duration = Duration::from_secs(5);
/// Longest time that one connection may take.
const CONNECTION: Duration = Duration::from_secs(5);
/// Longest time that a client is kept waiting for an answer; it would take a longer silence for
/// that of a daemon that hangs.
const ANSWER: Duration = Duration::from_millis(300);
/// Most connections at once; further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// Most requests whose snapshots are kept ready; the one asked for longest ago goes first.
const VIGILS_MAX: usize = 8;

/// How it shows that a client did not wait until it was accepted.
const GONE: [io::ErrorKind; 3] =
    [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionAborted, io::ErrorKind::Interrupted];

/// What a daemon is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The workspace's root, canonical.
    pub workspace: PathBuf,
    /// Where its state is kept.
    pub state_dir: PathBuf,
    /// Tells this build of Maestro from any other.
    pub build: String,
    /// It ends when nobody asked for so long.
    pub idle_timeout: Duration,
}

/// Why a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nobody asked for a while.
    Idle,
    /// The workspace or its state is gone.
    Gone,
}

/// Runs the daemon of a workspace. `ready` is called once clients can connect.
pub fn serve(options: Options, ready: impl FnOnce() -> Result<()>) -> Result<End> {
    let place = Place::of(&options.state_dir);
    let at_place = || format!("cannot use `{}`", options.state_dir.display());
    place.make().with_context(at_place)?;
    let claim = match place.claim().with_context(at_place)? {
        Ok(claim) => claim,
        Err(pid) => {
            let text = format!("a daemon already runs for this workspace (process {pid})");
            return Err(Failure::environment(text).hint("`maestro daemon stop` ends it").into());
        }
    };
    let listener = place.listen().with_context(at_place)?;
    listener.set_nonblocking(true).with_context(at_place)?;
    let view = View::of_this_process().context("cannot tell how the file system is seen")?;
    let server = Arc::new(Server {
        options,
        view,
        started: Instant::now(),
        asked: Mutex::new(Instant::now()),
        questions: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
        vigils: Mutex::default(),
    });
    ready()?;
    loop {
        if !claim.stands() || !server.options.workspace.is_dir() {
            return Ok(End::Gone);
        }
        let Some(left) = server.time_left() else { return Ok(End::Idle) };
        if wait(&listener, left.min(TICK))? {
            server.accept(&listener)?;
        }
    }
}

/// Waits for a connection; `false` if none comes.
fn wait(listener: &UnixListener, time: Duration) -> Result<bool> {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let mut ready = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    match poll(&mut ready, Some(&time)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("cannot wait for clients"),
    }
}

struct Server {
    options: Options,
    view: View,
    started: Instant,
    /// When somebody asked for the last time.
    asked: Mutex<Instant>,
    questions: AtomicU64,
    connections: AtomicUsize,
    /// By the options of the request; with the time of the last question about each.
    vigils: Mutex<HashMap<Vec<String>, (Instant, Vigil)>>,
}

impl Server {
    /// How long the daemon stays if nobody asks.
    fn time_left(&self) -> Option<Duration> {
        let idle = lock(&self.asked).elapsed();
        self.options.idle_timeout.checked_sub(idle).filter(|left| !left.is_zero())
    }

    fn accept(self: &Arc<Self>, listener: &UnixListener) -> Result<()> {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The client is gone again.
            Err(error) if GONE.contains(&error.kind()) => return Ok(()),
            Err(error) => return Err(error).context("cannot accept clients"),
        };
        let own = socket_peercred(&stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
        if !own || self.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            if own {
                self.connections.fetch_sub(1, Ordering::Relaxed);
            }
            return Ok(());
        }
        let server = Arc::clone(self);
        let serve = move || {
            // What goes wrong with a connection is the client's to notice; it does without.
            let _ = server.converse(stream);
            server.connections.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("client".to_owned()).spawn(serve).is_err() {
            self.connections.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn converse(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        let mut stream = Timed::new(stream, CONNECTION);
        let answer = match stream.receive::<Question>() {
            Ok(question) => self.answer(question),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Answer::OtherBuild,
            Err(error) => return Err(error),
        };
        stream.send(&answer)
    }

    fn answer(&self, question: Question) -> Answer {
        let Question { build, view, what } = question;
        if let What::Status = what {
            return Answer::Status(self.status());
        }
        if build != self.options.build {
            return Answer::OtherBuild;
        }
        if view != self.view {
            return Answer::Unknown("the daemon sees another file system".to_owned());
        }
        *lock(&self.asked) = Instant::now();
        self.questions.fetch_add(1, Ordering::Relaxed);
        match what {
            What::Watch(options) => {
                let started = self.with_vigil(options, |vigil, _| vigil.prepare());
                Answer::Unknown(started.err().map_or_else(String::new, |error| error.to_string()))
            }
            What::Changes(options) => {
                let asked = self.with_vigil(options, |vigil, is_new| {
                    if is_new {
                        vigil.prepare();
                    }
                    (!is_new).then(|| vigil.ask())
                });
                match asked {
                    Ok(Some(asked)) => asked(ANSWER)
                        .unwrap_or_else(|| Answer::Unknown("the daemon is busy".to_owned())),
                    Ok(None) => Answer::Unknown("the daemon did not look yet".to_owned()),
                    Err(error) => Answer::Unknown(error.to_string()),
                }
            }
            What::Status => Answer::Status(self.status()),
        }
    }

    /// Does something with the vigil of a request, and tells it whether that is a new one.
    fn with_vigil<R>(
        &self,
        options: Vec<String>,
        act: impl FnOnce(&Vigil, bool) -> R,
    ) -> Result<R> {
        let mut vigils = lock(&self.vigils);
        if let Some((asked, vigil)) = vigils.get_mut(&options) {
            *asked = Instant::now();
            return Ok(act(vigil, false));
        }
        while vigils.len() >= VIGILS_MAX {
            let oldest = vigils.iter().min_by_key(|(_, (asked, _))| *asked);
            let Some(oldest) = oldest.map(|(options, _)| options.clone()) else { break };
            vigils.remove(&oldest);
        }
        let vigil = Vigil::start(Subject {
            workspace: self.options.workspace.clone(),
            state_dir: self.options.state_dir.clone(),
            build: self.options.build.clone(),
            options: options.clone(),
        })?;
        let (_, vigil) = vigils.entry(options).or_insert((Instant::now(), vigil));
        Ok(act(vigil, true))
    }

    fn status(&self) -> Status {
        let vigils = lock(&self.vigils);
        let folders = || vigils.values().map(|(_, vigil)| vigil.folders());
        Status {
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            idle_timeout_s: self.options.idle_timeout.as_secs(),
            questions: self.questions.load(Ordering::Relaxed),
            requests: vigils.len(),
            folders_watched: folders().map(|folders| folders.watched).sum(),
            folders_untold: folders().map(|folders| folders.untold).sum(),
            resident_bytes: resident_bytes(),
        }
    }
}

/// A thread that panicked leaves plain values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory in use; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}
