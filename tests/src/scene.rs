//! A workspace with one pipeline and the state of its runs, in a folder of its own.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::maestro_bin;

/// A workspace with one template, and the state of its runs.
pub struct Scene {
    folder: TempDir,
}

impl Scene {
    /// A workspace whose pipeline `release` is this one.
    pub fn new(template: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("maestro.toml", "");
        write("release.pipeline.yaml", template);
        Self { folder }
    }

    /// A path in the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that is to be run in it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(maestro_bin());
        self.set_up(&mut command, arguments);
        command
    }

    fn set_up(&self, command: &mut Command, arguments: &[&str]) {
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("MAESTRO_STATE", self.path("state"))
            .env("MAESTRO_CACHE", self.path("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// Runs a command that must end with `code`, and gives what it printed.
    pub fn must(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
        format!("{out}{err}")
    }

    /// The run that was begun last.
    pub fn json(&self) -> Value {
        let output = self.run(&["status", "--output", "json"]);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// How it stands.
    pub fn status(&self) -> String {
        self.json()["status"].as_str().expect("a status").to_owned()
    }

    /// The lines of a file; none where there is no file.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Does something as another user of this machine, where this one may become it.
    pub fn as_user(&self, uid: u32, arguments: &[&str]) -> Output {
        for path in [self.folder.path().to_owned(), self.path("state")] {
            open_for_all(&path);
        }
        // The binary under test may lie where only its own user can go.
        let copy = self.path("maestro-bin");
        if !copy.exists() {
            std::fs::copy(maestro_bin(), &copy).expect("the binary can be copied");
        }
        let mut command = Command::new(copy);
        self.set_up(&mut command, arguments);
        command.uid(uid).gid(uid).output().expect("it runs")
    }
}

fn open_for_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode(0o777)).expect("ours");
    for entry in std::fs::read_dir(path).expect("a folder").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_for_all(&entry.path());
        } else {
            let program = entry.file_name() == "maestro-bin";
            let mode = mode(if program { 0o755 } else { 0o666 });
            std::fs::set_permissions(entry.path(), mode).expect("ours");
        }
    }
}

/// What a process printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
