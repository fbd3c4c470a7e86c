//! A real bare repository as the far side of rollouts, and what others do to it.
#![allow(dead_code)] // each test uses a part of it

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use maestro_deliver::Rollout;
use maestro_executor::step::{Effect as _, Reply, Stop};
use serde_json::{Value, json};

use crate::shop;

/// The file that names the version.
pub const APP: &str = "# what runs\nimage: app@sha256:00 # set by rollouts\nreplicas: 2\n";

/// A bare repository with one file, and a folder beside it.
pub struct Hub {
    folder: tempfile::TempDir,
}

impl Hub {
    pub fn new() -> Self {
        let hub = Self { folder: tempfile::tempdir().expect("a folder") };
        hub.git(&["init", "--quiet", "--bare", "--initial-branch=main"]);
        hub.commit("app.yaml", "100644", APP);
        hub
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("hub.git")
    }

    pub fn git(&self, args: &[&str]) -> String {
        self.feed(args, "")
    }

    fn feed(&self, args: &[&str], input: &str) -> String {
        use std::io::Write as _;
        let mut child = Command::new("git")
            .args(args)
            .env("GIT_DIR", self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "ann")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "ann@localhost")))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("git");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("git reads");
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {args:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Puts a file on the branch, as somebody else would.
    pub fn commit(&self, path: &str, mode: &str, text: &str) {
        let blob = self.feed(&["hash-object", "-w", "--stdin"], text);
        let known = !self.git(&["branch", "--list", "main"]).is_empty();
        self.git(if known { &["read-tree", "main"] } else { &["read-tree", "--empty"] });
        let entry = format!("{mode},{blob},{path}");
        self.git(&["update-index", "--add", "--cacheinfo", &entry]);
        let tree = self.git(&["write-tree"]);
        let parent: &[&str] = if known { &["-p", "main"] } else { &[] };
        let commit = [&["commit-tree", &tree, "-m", "by hand"], parent].concat();
        let commit = self.git(&commit);
        self.git(&["update-ref", "refs/heads/main", &commit]);
    }

    pub fn show(&self, path: &str) -> String {
        format!("{}\n", self.git(&["show", &format!("main:{path}")]))
    }

    pub fn subjects(&self) -> Vec<String> {
        self.git(&["log", "--reverse", "--format=%s", "main"]).lines().map(str::to_owned).collect()
    }

    pub fn inputs(&self, changes: Value) -> Value {
        let mut inputs = json!({
            "subject": "app@sha256:0f", "env": "prod", "strategy": "all-at-once", "via": "gitops",
            "repository": format!("file://{}", self.path().display()), "branch": "main",
            "path": "app.yaml", "proxy": "http", "weights": [5, 25, 50, 100], "pause": "0s",
            "max_error_rate": 0.01, "rollback": "automatic",
        });
        for (name, value) in changes.as_object().expect("an object") {
            inputs[name] = value.clone();
        }
        inputs
    }

    pub fn rollout(&self, git: &Path) -> Rollout {
        let options = shop::options(self.folder.path(), git);
        Rollout::new(options, Arc::new(shop::OneSecret)).expect("a client")
    }

    pub async fn send(&self, key: &str, changes: Value) -> Reply {
        let rollout = self.rollout(Path::new("git"));
        let request = rollout.render(&self.inputs(changes)).expect("a request");
        rollout.send(&request, key, &Stop::new()).await
    }
}
