//! `maestro serve` as a process of a test, on a free port of loopback.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{maestro_bin, poll};

/// A server with a folder of its own.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// Starts one with further flags, and waits until it listens.
    pub fn start(data: &Path, flags: &[&str]) -> Self {
        Self::spawn(Command::new(maestro_bin()), data, "127.0.0.1:0", flags)
    }

    /// Starts one where another was before.
    pub fn start_at(data: &Path, address: &str) -> Self {
        Self::spawn(Command::new(maestro_bin()), data, address, &[])
    }

    /// Starts one whose folder is a file system of its own, of so many MiB, that only it sees:
    /// others find it at [`Server::disk`].
    pub fn start_on_disk(data: &Path, mebibytes: u32) -> Self {
        let mount =
            format!("mount -t tmpfs -o size={mebibytes}m,mode=755 none \"$0\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-c", &mount]).arg(data).arg(maestro_bin());
        Self::spawn(command, data, "127.0.0.1:0", &[])
    }

    fn spawn(mut command: Command, data: &Path, listen: &str, flags: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("listening on ").unwrap_or_default().to_owned();
        assert!(!address.is_empty(), "the server says `{line}`");
        Self { child, address }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its folder, as it sees it itself.
    pub fn disk(&self, data: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(data.strip_prefix("/").unwrap_or(data))
    }

    /// The id of its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a chance to do anything more.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("our child");
    }

    /// Ends the server in order.
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our child");
        let over = poll(Duration::from_secs(40), || self.child.try_wait().expect("ours").is_some());
        assert!(over, "it does not end");
        let status = self.child.wait().expect("it ended");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
