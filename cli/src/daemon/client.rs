//! The client's side: asks the daemon of a workspace, and starts and ends it.
//!
//! No answer is an answer, too: whoever asks finds out by itself. Only what the user can mend is
//! said.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::message::{Answer, Question, Status, Timed, Told, View, What};
use super::place::Place;
use crate::config::Config;

/// Longest time that a client waits for the daemon. A look at 100,000 files takes as long.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest time that a daemon has to end after it was told to, before it is killed.
const END: Duration = Duration::from_secs(2);

/// The daemon of a workspace, as a client sees it.
#[derive(Debug)]
pub struct Daemon<'a> {
    config: &'a Config,
    place: Place,
    build: &'a str,
}

/// Why there is no answer.
enum Silence {
    /// No daemon runs.
    Absent,
    /// One runs that is of another build, or speaks another language.
    Stranger,
    /// It does not answer in time.
    Late,
    /// It says that it does not know.
    Unknown(String),
    /// The same, for a reason that lasts.
    Unable(String),
}

impl<'a> Daemon<'a> {
    /// The daemon of a workspace whose state is kept in `state_dir`.
    pub fn new(config: &'a Config, state_dir: &Path, build: &'a str) -> Self {
        Self { config, place: Place::of(state_dir), build }
    }

    /// What changed since the snapshot of a request was written, where the daemon knows. Where
    /// none runs, one is started for the next time.
    pub fn ask(&self, options: &[String]) -> Option<Told> {
        let started = Instant::now();
        let silence = match self.talk(What::Changes(options.to_vec())) {
            Ok(told) => {
                if let Some(note) = &told.note {
                    eprintln!("note: {note}");
                }
                tracing::debug!(took = ?started.elapsed(), "the daemon answered");
                return Some(told);
            }
            Err(silence) => silence,
        };
        let start = match silence {
            Silence::Absent => self.start(options),
            Silence::Stranger => self.end().and_then(|_| self.start(options)),
            Silence::Late => {
                eprintln!("note: the daemon does not answer; `maestro daemon stop` ends it");
                Ok(())
            }
            Silence::Unable(why) => {
                eprintln!("note: the daemon cannot tell what changed: {why}");
                Ok(())
            }
            Silence::Unknown(why) => {
                tracing::debug!(why, "the daemon does not know");
                Ok(())
            }
        };
        if let Err(error) = start {
            eprintln!("note: goes on without a daemon: {error:#}");
        }
        None
    }

    /// Tells the daemon that a build has ended, so that it is ready for the next one.
    pub fn prepare(&self, options: &[String]) {
        let question = self.question(What::Watch(options.to_vec()));
        let sent = question.and_then(|question| {
            Timed::new(self.place.connect(PATIENCE)?, PATIENCE).send(&question)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "the daemon was not told");
        }
    }

    /// How it is; `None` if none runs.
    pub fn status(&self) -> Result<Option<Status>> {
        let Some(stream) = self.reach()? else { return Ok(None) };
        let mut stream = Timed::new(stream, END);
        let asked = stream.send(&self.question(What::Status)?).and_then(|()| stream.receive());
        match asked.context("the daemon does not answer")? {
            Answer::Status(status) => Ok(Some(status)),
            _ => anyhow::bail!("the daemon answers something else"),
        }
    }

    /// Ends it, whatever it is able to do itself; `false` if none runs.
    pub fn end(&self) -> Result<bool> {
        let Some(pid) = self.process()? else { return Ok(false) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(true),
            Err(error) => return Err(error).context("cannot reach the daemon's process"),
        };
        // Had it ended before, its number could be that of another process by now.
        if self.process()? != Some(pid) {
            return Ok(true);
        }
        for signal in [Signal::TERM, Signal::KILL] {
            match pidfd_send_signal(&process, signal) {
                Ok(()) => {}
                Err(Errno::SRCH) => return Ok(true),
                Err(error) => return Err(error).context("cannot end the daemon"),
            }
            let wait =
                Timespec { tv_sec: END.as_secs() as i64, tv_nsec: END.subsec_nanos().into() };
            if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&wait))? > 0 {
                return Ok(true);
            }
        }
        anyhow::bail!("process {} does not end", pid.as_raw_nonzero())
    }

    /// The process that listens, if any does.
    fn process(&self) -> Result<Option<Pid>> {
        let Some(stream) = self.reach()? else { return Ok(None) };
        let peer = socket_peercred(&stream).context("cannot tell the daemon's process")?;
        Ok(Some(peer.pid))
    }

    fn reach(&self) -> Result<Option<UnixStream>> {
        match self.place.connect(END) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error).context("cannot reach the daemon"),
            },
        }
    }

    fn talk(&self, what: What) -> Result<Told, Silence> {
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Silence::Absent,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Silence::Late,
            io::ErrorKind::InvalidData => Silence::Stranger,
            _ => Silence::Unknown(error.to_string()),
        };
        let question = self.question(what).map_err(late)?;
        let mut stream = Timed::new(self.place.connect(PATIENCE).map_err(late)?, PATIENCE);
        match stream.send(&question).and_then(|()| stream.receive()) {
            Ok(Answer::Told(told)) => Ok(told),
            Ok(Answer::Unknown(why)) => Err(Silence::Unknown(why)),
            Ok(Answer::Unable(why)) => Err(Silence::Unable(why)),
            Ok(Answer::OtherBuild | Answer::Status(_)) => Err(Silence::Stranger),
            Err(error) => Err(late(error)),
        }
    }

    fn question(&self, what: What) -> io::Result<Question> {
        Ok(Question { build: self.build.to_owned(), view: View::of_this_process()?, what })
    }

    /// Starts a daemon in the background, and waits until it can be asked.
    fn start(&self, options: &[String]) -> Result<()> {
        let program = std::env::current_exe().context("cannot find Maestro itself")?;
        let mut command = Command::new(program);
        command.args(["daemon", "--detach", "--workspace"]).arg(&self.config.workspace);
        command.arg("--cache").arg(&self.config.cache);
        // What is said at length would fill the daemon's log.
        command.env_remove("MAESTRO_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.stderr(Stdio::piped()).output().context("cannot start a daemon")?;
        // Another client may have started one at the same time.
        if !output.status.success() && self.reach()?.is_none() {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().next().unwrap_or_default();
            anyhow::bail!("{}", line.strip_prefix("error: ").unwrap_or(line));
        }
        self.prepare(options);
        Ok(())
    }
}
