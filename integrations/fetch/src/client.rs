//! Runs the client of a registry or of a version control system, which does the download itself.
//!
//! The client comes with the user's own configuration of servers, proxies, certificates and
//! credentials. Nothing is believed that it brings: its files are compared with their pin like
//! every other download. It has no terminal, ends with the invocation, and has a time limit.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maestro_cas::Store;
use maestro_core::limits;
use maestro_executor::runner::Cancel;

use crate::FetchError;

/// How soon the end of the client, or of the invocation, is noticed.
const POLL: Duration = Duration::from_millis(20);
/// The bytes of a client's messages that are kept.
const MESSAGES_BYTES_MAX: u64 = 64 * 1024;
/// The lines of a client's messages that are shown.
const MESSAGE_LINES_MAX: usize = 6;
/// Tells apart the folders of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder in the store's scratch folder, removed at the end.
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new(store: &Store) -> Result<Self, FetchError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.scratch_dir().join(format!("client-{number}"));
        std::fs::create_dir(&path)
            .map_err(|source| FetchError::ClientFile { path: path.clone(), source })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The store clears what is left of a process that dies.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What a client was asked to do.
pub(crate) struct Call<'a> {
    /// The client, as its users call it.
    pub(crate) client: &'static str,
    /// What it is to bring.
    pub(crate) what: &'a str,
}

impl Call<'_> {
    /// Runs the client until it ends well; its standard output goes where `command` says.
    pub(crate) fn run(&self, command: &mut Command, cancel: &Cancel) -> Result<(), FetchError> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|source| FetchError::ClientProgram {
            client: self.client,
            program,
            source,
        })?;
        let messages = child.stderr.take().map(keep);
        let ended = self.wait(&mut child, cancel);
        if ended.is_err() {
            // It may have ended by itself in the meantime.
            let _ = child.kill();
            let _ = child.wait();
        }
        if ended? {
            return Ok(());
        }
        let messages = messages.and_then(|thread| thread.join().ok()).unwrap_or_default();
        Err(FetchError::ClientFailed {
            client: self.client,
            what: self.what.to_owned(),
            messages: last_lines(&messages),
        })
    }

    /// Whether it ended well.
    fn wait(&self, child: &mut Child, cancel: &Cancel) -> Result<bool, FetchError> {
        let start = Instant::now();
        let limit = Duration::from_millis(limits::CLIENT_CALL_TIMEOUT_MS);
        loop {
            let status = child.try_wait().map_err(|source| FetchError::Client { source })?;
            if let Some(status) = status {
                return Ok(status.success());
            }
            if cancel.is_cancelled() {
                return Err(FetchError::Cancelled);
            }
            if start.elapsed() > limit {
                let source = io::Error::new(io::ErrorKind::TimedOut, "it did not end in time");
                return Err(FetchError::Client { source });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Reads all messages, so that the client never waits, and keeps the first of them.
fn keep(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        // A pipe that breaks has said all that it will.
        let _ = (&mut pipe).take(MESSAGES_BYTES_MAX).read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(MESSAGE_LINES_MAX);
    lines.iter().skip(first).map(|line| format!("\n  {}", line.trim_end())).collect()
}
