//! `maestro worker` as a process of a test.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{maestro_bin, poll};

/// A worker with a folder of its own.
pub struct Worker {
    child: Child,
    /// Kept, so that it can always say something.
    _stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one with two cores and further flags, and waits until it is connected.
    pub fn start(address: &str, data: &Path, name: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(maestro_bin())
            .args(["worker", "--cpu=2", "--name", name, "--data"])
            .arg(data)
            .arg(format!("--server=grpc://{address}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("connected to grpc://{address}\n"));
        Self { child, _stdout: stdout }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child");
    }

    /// Waits until it has ended by itself, and says with what.
    pub fn wait(mut self) -> Option<i32> {
        let over = poll(Duration::from_secs(40), || self.child.try_wait().expect("ours").is_some());
        assert!(over, "it does not end");
        self.child.wait().expect("it ended").code()
    }

    /// Ends it without a chance to do anything more.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("our child");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
