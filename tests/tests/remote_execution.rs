//! `maestro serve` and `maestro worker` with Bazel as the client: what real builds make of workers
//! that come, go, die and freeze.

use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use maestro_tests::cache_server::Server;
use maestro_tests::poll;
use maestro_tests::worker::Worker;
use rustix::process::Signal;

/// A Bazel workspace with an output folder of its own.
struct Project {
    folder: tempfile::TempDir,
}

/// A C++ library, a program that uses it, what it prints, and a test of that.
const PROGRAM: &str = r#"
cc_library(name = "lib", srcs = ["lib.cc"], hdrs = ["lib.h"])
cc_binary(name = "app", srcs = ["main.cc"], deps = [":lib"])
genrule(name = "text", tools = [":app"], outs = ["text.txt"],
        cmd = "$(location :app) > $@; hostname >> $@")
sh_test(name = "test", srcs = ["test.sh"], data = ["text.txt"])
"#;

/// Actions that take a while, so that something can happen to them.
const SLOW: &str = r#"
[genrule(name = "s%d" % n, outs = ["s%d.txt" % n], cmd = "sleep 2; echo %d > $@" % n)
 for n in range(6)]
genrule(name = "all", srcs = ["s%d.txt" % n for n in range(6)], outs = ["all.txt"],
        cmd = "cat $(SRCS) > $@")
"#;

impl Project {
    fn new(build: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().expect("a folder") };
        project.write("ws/WORKSPACE", "");
        project.write("ws/BUILD", build);
        project.write("ws/lib.h", "int f();\n");
        project.write("ws/lib.cc", "#include \"lib.h\"\nint f() { return 42; }\n");
        let main = "#include \"lib.h\"\n#include <cstdio>\n\
                    int main() { std::printf(\"%d\\n\", f()); }\n";
        project.write("ws/main.cc", main);
        project.write("ws/test.sh", "#!/bin/sh\ngrep -q 42 text.txt && test ! -e /root\n");
        // What Bazel's tests want to have from the network.
        project.write("covtools/WORKSPACE", "");
        project.write(
            "covtools/BUILD",
            "sh_binary(name = \"coverage_report_generator\", srcs = [\"c.sh\"],\n\
             visibility = [\"//visibility:public\"])\n",
        );
        project.write("covtools/c.sh", "#!/bin/sh\n");
        project.write("rules_cc/WORKSPACE", "");
        project.write("rules_cc/cc/BUILD", "");
        let rules = ["binary", "library", "test", "import", "toolchain", "toolchain_suite"];
        let rule =
            |name: &str| format!("def cc_{name}(**kwargs):\n    native.cc_{name}(**kwargs)\n\n");
        project.write("rules_cc/cc/defs.bzl", &rules.map(rule).concat());
        project.write("rules_java/WORKSPACE", "");
        project.write("rules_java/java/BUILD", "");
        let rules =
            ["java_binary", "java_import", "java_library", "java_runtime", "java_toolchain"];
        let natives =
            |name: &str| format!("def {name}(**kwargs):\n    native.{name}(**kwargs)\n\n");
        project.write("rules_java/java/defs.bzl", &rules.map(natives).concat());
        for name in ["ws/test.sh", "covtools/c.sh"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(project.folder.path().join(name), mode).expect("our file");
        }
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, text).expect("a file can be written");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/bazel");
        command
            .arg(format!("--output_user_root={}", self.folder.path().join("root").display()))
            .args(["--max_idle_secs=60", "--nohome_rc"])
            .args(args)
            .current_dir(self.folder.path().join("ws"));
        command
    }

    /// The command line of a build on workers, and nowhere else.
    fn remote(&self, address: &str, args: &[&str]) -> Command {
        let mut command = self.command(args);
        let stub = |name: &str, folder: &str| {
            format!("--override_repository={name}={}", self.folder.path().join(folder).display())
        };
        command
            .arg(format!("--remote_executor=grpc://{address}"))
            .args(["--noremote_local_fallback", "--noshow_progress", "--jobs=8"])
            .args([stub("remote_coverage_tools", "covtools"), stub("rules_cc", "rules_cc")])
            .arg(stub("rules_java", "rules_java"));
        command
    }

    /// Runs it with nothing in the output folder; says what Bazel says.
    fn build(&self, address: &str, args: &[&str]) -> String {
        assert!(self.command(&["clean"]).status().expect("bazel runs").success());
        let output = self.remote(address, args).output().expect("bazel runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// The same in the background, begun once a worker has something to do.
    fn begin(&self, address: &str) -> JoinHandle<(bool, String)> {
        assert!(self.command(&["clean"]).status().expect("bazel runs").success());
        let mut command = self.remote(address, &["build", "//:all", "--remote_retries=20"]);
        std::thread::spawn(move || {
            let output = command.output().expect("bazel runs; `cargo xtask test` installs it");
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        })
    }

    fn made(&self, name: &str) -> String {
        let path = self.folder.path().join("ws/bazel-bin").join(name);
        std::fs::read_to_string(path).expect("it was built")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.command(&["shutdown"]).status();
    }
}

/// Waits until an action runs on the worker with this folder.
fn runs(data: &Path) {
    let scratch = data.join("sha256");
    let begun = poll(Duration::from_secs(60), || {
        let found = Command::new("find").arg(&scratch).args(["-path", "*/s[0-9]*-*/in"]).output();
        found.is_ok_and(|found| !found.stdout.is_empty())
    });
    assert!(begun, "nothing runs in `{}`", scratch.display());
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn bazel_builds_and_tests_on_workers() {
    let (project, data) = (Project::new(PROGRAM), tempfile::tempdir().expect("a folder"));
    let server = Server::start(&data.path().join("server"), &[]);
    let _workers =
        ["a", "b"].map(|name| Worker::start(server.address(), &data.path().join(name), name, &[]));
    let cold = project.build(server.address(), &["test", "//..."]);
    assert!(cold.contains("11 remote"), "{cold}");
    // The host of an action is called so, wherever it ran.
    assert_eq!(project.made("text.txt"), "42\nmaestro\n");
    let warm = project.build(server.address(), &["test", "//..."]);
    assert!(warm.contains("11 remote cache hit"), "{warm}");
    let minimal = ["build", "//...", "--remote_download_minimal"];
    let minimal = project.build(server.address(), &minimal);
    assert!(minimal.contains("remote cache hit") && !minimal.contains(" remote."), "{minimal}");
    let odd = ["build", "//:lib", "--remote_default_exec_properties=pool=gold"];
    let output = project.remote(server.address(), &odd).output().expect("bazel runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("no worker knows the platform property `pool`"), "{said}");
}

#[test]
fn a_build_outlives_workers_that_die_freeze_and_leave() {
    let (project, data) = (Project::new(SLOW), tempfile::tempdir().expect("a folder"));
    let server = Server::start(&data.path().join("server"), &[]);
    let start = |name: &str| Worker::start(server.address(), &data.path().join(name), name, &[]);
    let [dies, freezes, leaves] = ["dies", "freezes", "leaves"].map(start);
    let build = project.begin(server.address());
    for name in ["dies", "freezes", "leaves"] {
        runs(&data.path().join(name));
    }
    let _stays = start("stays");
    dies.kill();
    freezes.signal(Signal::STOP);
    leaves.signal(Signal::TERM);
    assert_eq!(leaves.wait(), Some(0), "it has done what it had begun");
    let (success, said) = build.join().expect("a thread");
    assert!(success, "{said}");
    assert_eq!(project.made("all.txt"), "0\n1\n2\n3\n4\n5\n");
    freezes.signal(Signal::CONT);
    let warm = project.build(server.address(), &["build", "//:all"]);
    assert!(warm.contains("7 remote cache hit"), "{warm}");
}

#[test]
fn a_build_outlives_the_server() {
    let (project, data) = (Project::new(SLOW), tempfile::tempdir().expect("a folder"));
    let server = Server::start(&data.path().join("server"), &[]);
    let address = server.address().to_owned();
    let worker = data.path().join("worker");
    let _worker = Worker::start(&address, &worker, "worker", &[]);
    let build = project.begin(&address);
    runs(&worker);
    server.kill();
    let _server = Server::start_at(&data.path().join("server"), &address);
    let (success, said) = build.join().expect("a thread");
    assert!(success, "{said}");
    assert_eq!(project.made("all.txt"), "0\n1\n2\n3\n4\n5\n");
}

#[test]
fn a_token_says_who_is_a_worker() {
    let data = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).expect("a file can be written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("our file");
        path
    };
    let tokens = "0123456789abcdef * read-write\nfedcba9876543210 * worker\n";
    let flag = format!("--tokens={}", write("tokens", tokens).display());
    let server = Server::start(&data.path().join("server"), &[&flag]);
    let token = |name: &str, text: &str| format!("--token-file={}", write(name, text).display());
    let own = token("own", "fedcba9876543210\n");
    let worker = Worker::start(server.address(), &data.path().join("own-data"), "own", &[&own]);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait(), Some(0));
    let output = Command::new(maestro_tests::maestro_bin())
        .args(["worker", &format!("--server=grpc://{}", server.address()), "--data"])
        .arg(data.path().join("other-data"))
        .arg(token("other", "0123456789abcdef\n"))
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the token is not that of a worker"), "{said}");
}
