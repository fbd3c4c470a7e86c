//! `maestro daemon`: runs a daemon, in the foreground or not, says how it is, ends it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use maestro_executor::sandbox::close_on_exec_from;
use maestro_executor::workspace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::{DaemonArgs, DaemonCommand, Global, OutputFormat};
use crate::config::Config;
use crate::daemon::client::Daemon;
use crate::daemon::message::Status;
use crate::daemon::place::Place;
use crate::daemon::server::{self, End, Options};
use crate::exit::Failure;
use crate::null_build::maestro_build;

/// How long a daemon may take until clients can connect, in seconds.
const START_S: i64 = 5;
/// What a daemon in the background says when clients can connect.
const READY: &str = "ready\n";

/// Runs the command.
pub fn daemon(global: &Global, args: &DaemonArgs) -> Result<ExitCode> {
    let config = Config::load(global)?;
    let state_dir = workspace::state_dir(&config.cache, &config.workspace)?;
    let daemon = Daemon::new(&config, &state_dir, maestro_build());
    match &args.command {
        Some(DaemonCommand::Status) => return status(global, &daemon),
        Some(DaemonCommand::Stop) => {
            let text = if daemon.end()? { "the daemon has ended" } else { NONE };
            eprintln!("{text}");
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    if args.detach {
        return detach(args, &config, &Place::of(&state_dir));
    }
    let options = Options {
        workspace: config.workspace.clone(),
        state_dir,
        build: maestro_build().to_owned(),
        idle_timeout: Duration::from_secs(args.idle_timeout),
    };
    let background = args.background;
    let ended = server::serve(options, || if background { leave() } else { greet(&config) })?;
    match ended {
        End::Idle => eprintln!("nobody asked for {} s", args.idle_timeout),
        End::Gone => eprintln!("the workspace or its state is gone"),
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said where no daemon runs.
const NONE: &str = "no daemon runs for this workspace";

fn greet(config: &Config) -> Result<()> {
    eprintln!("watching `{}`; Ctrl-C ends", config.workspace.display());
    Ok(())
}

/// Says that it is ready, then lets go of all that ties the process to whoever started it.
fn leave() -> Result<()> {
    rustix::process::setsid().context("cannot leave the session")?;
    let mut stdout = std::io::stdout();
    stdout.write_all(READY.as_bytes()).and_then(|()| stdout.flush()).context("nobody listens")?;
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("cannot close standard output")?;
    Ok(())
}

/// Starts a daemon that goes on when this process has ended.
fn detach(args: &DaemonArgs, config: &Config, place: &Place) -> Result<ExitCode> {
    // What the user's shell or build tool left open, such as a lock, must not stay open for hours.
    close_on_exec_from(3).context("cannot close inherited files")?;
    place.make().context("cannot make the daemon's folder")?;
    let log = place.open_log().context("cannot open the daemon's log")?;
    let program = std::env::current_exe().context("cannot find Maestro itself")?;
    let mut command = Command::new(program);
    command.args(["daemon", "--background", "--idle-timeout", &args.idle_timeout.to_string()]);
    command.arg("--workspace").arg(&config.workspace).arg("--cache").arg(&config.cache);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("cannot start the daemon")?;
    if is_ready(&mut child)? {
        return Ok(ExitCode::SUCCESS);
    }
    // It ended, or it hangs.
    child.kill().context("cannot end the daemon")?;
    child.wait().context("cannot wait for the daemon")?;
    let said = place.read_log().context("cannot read the daemon's log")?;
    let line = said.lines().next().unwrap_or("it ended without a word");
    let line = line.strip_prefix("error: ").unwrap_or(line);
    Err(Failure::environment(format!("the daemon did not start: {line}")).into())
}

fn is_ready(child: &mut Child) -> Result<bool> {
    let Some(stdout) = child.stdout.take() else { return Ok(false) };
    let wait = Timespec { tv_sec: START_S, tv_nsec: 0 };
    let mut said = [PollFd::new(&stdout, PollFlags::IN)];
    if poll(&mut said, Some(&wait)).context("cannot wait for the daemon")? == 0 {
        return Ok(false);
    }
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).context("cannot listen to the daemon")?;
    Ok(line == READY)
}

fn status(global: &Global, daemon: &Daemon<'_>) -> Result<ExitCode> {
    let status = daemon.status()?;
    if global.output == OutputFormat::Json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        match &status {
            Some(status) => print!("{}", text(status)),
            None => println!("{NONE}"),
        }
    }
    Ok(if status.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &Status) -> String {
    let Status {
        pid,
        uptime_s,
        idle_timeout_s,
        questions,
        requests,
        folders_watched,
        folders_untold,
        resident_bytes,
    } = status;
    format!(
        "process           {pid}\n\
         running           {uptime_s} s, ends after {idle_timeout_s} s without a question\n\
         questions         {questions}\n\
         requests          {requests}\n\
         folders watched   {folders_watched}\n\
         folders looked at {folders_untold}\n\
         memory            {} MiB\n",
        resident_bytes / (1024 * 1024),
    )
}
