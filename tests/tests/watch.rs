//! `build --watch` builds again after an edit, survives a build that fails, and ends on Ctrl-C.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use maestro_tests::{Workspace, poll};
use rustix::process::{Pid, Signal};

/// Longest time that anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A Maestro that watches, with the lines that it writes to standard error.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
}

impl Watcher {
    fn start(ws: &Workspace) -> Self {
        let mut child = ws.spawn(&["build", "//...", "--watch"]);
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            // Ends with the child, or when nobody listens any more.
            stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line)).ok();
        });
        Self { child, lines }
    }

    /// The lines up to the next one that begins with `start`.
    fn until(&self, start: &str) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line `{start}…`, only:\n{}", seen.join("\n")),
            }
            if seen.last().is_some_and(|line| line.starts_with(start)) {
                return seen;
            }
        }
    }

    fn interrupt(mut self) -> Option<i32> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).expect("ours");
        let over = poll(LIMIT, || self.child.try_wait().expect("ours").is_some());
        if !over {
            self.child.kill().expect("ours");
        }
        self.child.wait().expect("ours").code()
    }
}

#[test]
fn edits_are_built_until_ctrl_c() {
    let ws = Workspace::new();
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
         genrule(name = \"a\", srcs = glob([\"*.txt\"]), outs = [\"a.out\"], \
         cmd = \"cat $(SRCS) > $@\")\n",
    );
    ws.write("one.txt", "one\n");
    let output = || std::fs::read_to_string(ws.root.join("maestro-out/shared/a.out"));
    let watcher = Watcher::start(&ws);
    watcher.until("built: 1 target, 1 action: 1 executed");
    watcher.until("watching");
    ws.write("one.txt", "edited\n");
    watcher.until("built: 1 target, 1 action: 1 executed");
    assert_eq!(output().expect("there"), "edited\n");
    watcher.until("watching");
    ws.write("sub/ignored.md", "a new folder is watched too\n");
    ws.write("two.txt", "two\n");
    watcher.until("built: 1 target, 1 action: 1 executed");
    assert_eq!(output().expect("there"), "edited\ntwo\n");
    watcher.until("watching");
    let good = std::fs::read_to_string(ws.root.join("maestro.star")).expect("there");
    ws.write("maestro.star", "genrule(\n");
    watcher.until("error[MAE0100]");
    watcher.until("watching");
    ws.write("maestro.star", &good);
    watcher.until("watching");
    assert_eq!(watcher.interrupt(), Some(130));
}
