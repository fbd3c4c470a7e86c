//! `maestro serve` as a remote cache, with Bazel as the client: what a real client builds, finds
//! again, and what is left when the server is killed.

use std::process::Command;

use maestro_tests::cache_server::Server;
use maestro_tests::maestro_bin;

/// A C++ program out of two files, and what it prints.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { folder: tempfile::tempdir().expect("a folder") };
        project.write("WORKSPACE", "");
        project.write(
            "BUILD",
            "[genrule(name = n + \"_o\", srcs = [n + \".cc\", \"lib.h\"], outs = [n + \".o\"],\n\
             cmd = \"g++ -c $(location %s.cc) -o $@\" % n) for n in [\"lib\", \"main\"]]\n\
             genrule(name = \"app\", srcs = [\"lib.o\", \"main.o\"], outs = [\"app.bin\"],\n\
             cmd = \"g++ $(SRCS) -o $@\", executable = True)\n\
             genrule(name = \"text\", srcs = [\"app.bin\"], outs = [\"text.txt\"],\n\
             cmd = \"$(location app.bin) > $@; head -c 3000000 /dev/zero >> $@\")\n",
        );
        project.write("lib.h", "int f();\n");
        project.write("lib.cc", "#include \"lib.h\"\nint f() { return 42; }\n");
        let main = "#include \"lib.h\"\n#include <cstdio>\n\
                    int main() { std::printf(\"%d\\n\", f()); }\n";
        project.write("main.cc", main);
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join("ws").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, text).expect("a file can be written");
    }

    fn bazel(&self, args: &[&str]) -> (bool, String) {
        let output = Command::new("/usr/bin/bazel")
            .arg(format!("--output_user_root={}", self.folder.path().join("root").display()))
            .args(["--max_idle_secs=60", "--nohome_rc"])
            .args(args)
            .current_dir(self.folder.path().join("ws"))
            .output()
            .expect("bazel runs; `cargo xtask test` installs it");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Builds everything with nothing in the output folder; says what Bazel says.
    fn build(&self, server: &Server, flags: &[&str]) -> String {
        assert!(self.bazel(&["clean"]).0);
        let cache = format!("--remote_cache=grpc://{}", server.address());
        let args = [&["build", "//...", "--noshow_progress", cache.as_str()], flags].concat();
        let (success, said) = self.bazel(&args);
        assert!(success, "{said}");
        said
    }

    fn text(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("ws/bazel-bin/text.txt")).expect("it was built")
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.bazel(&["shutdown"]);
    }
}

#[track_caller]
fn all_cached(said: &str) {
    assert!(said.contains("4 remote cache hit"), "{said}");
}

#[test]
fn bazel_finds_again_what_it_built() {
    let (project, data) = (Project::new(), tempfile::tempdir().expect("a folder"));
    let server = Server::start(data.path(), &[]);
    let cold = project.build(&server, &[]);
    assert!(!cold.contains("remote cache hit"), "{cold}");
    let built = project.text();
    assert!(built.starts_with(b"42\n") && built.len() == 3_000_003);
    all_cached(&project.build(&server, &[]));
    assert_eq!(project.text(), built);
    all_cached(&project.build(&server, &["--remote_download_minimal"]));
    let other = project.build(&server, &["--remote_instance_name=another/one"]);
    assert!(!other.contains("remote cache hit"), "instances see nothing of each other: {other}");
    server.stop();
    let server = Server::start(data.path(), &[]);
    all_cached(&project.build(&server, &[]));
    assert_eq!(project.text(), built);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let (project, data) = (Project::new(), tempfile::tempdir().expect("a folder"));
    let server = Server::start(data.path(), &[]);
    project.build(&server, &[]);
    let built = project.text();
    server.kill();
    let server = Server::start(data.path(), &[]);
    all_cached(&project.build(&server, &[]));
    assert_eq!(project.text(), built);
}

#[test]
fn a_token_decides_who_reads_and_who_writes() {
    let (project, data) = (Project::new(), tempfile::tempdir().expect("a folder"));
    let file = project.folder.path().join("tokens");
    std::fs::write(&file, "0123456789abcdef * read-write\nfedcba9876543210 * read-only\n")
        .expect("a file can be written");
    let flag = format!("--tokens={}", file.display());
    let mode = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&file, mode).expect("our file");
    };
    mode(0o640);
    let output = Command::new(maestro_bin())
        .args(["serve", "--listen=127.0.0.1:0", &flag, "--data"])
        .arg(data.path())
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("has mode 0640") && said.contains("chmod 600"), "{said}");
    mode(0o600);
    let server = Server::start(data.path(), &[&flag]);
    let header = |token: &str| format!("--remote_header=authorization=Bearer {token}");
    let nobody = format!("--remote_cache=grpc://{}", server.address());
    let (success, said) = project.bazel(&["build", "//:lib_o", &nobody]);
    assert!(!success && said.contains("this server needs a token"), "{said}");
    let reads = header("fedcba9876543210");
    let (success, said) = project.bazel(&["build", "//:lib_o", &nobody, &reads]);
    assert!(!success && said.contains("not authorized to write"), "{said}");
    let reader = [reads.as_str(), "--noremote_upload_local_results"];
    let first = project.build(&server, &reader);
    assert!(!first.contains("remote cache hit"), "{first}");
    let writer = project.build(&server, &[&header("0123456789abcdef")]);
    assert!(!writer.contains("remote cache hit"), "nothing was stored before: {writer}");
    all_cached(&project.build(&server, &reader));
}

#[test]
fn a_folder_has_one_server() {
    let data = tempfile::tempdir().expect("a folder");
    let server = Server::start(data.path(), &[]);
    let output = Command::new(maestro_bin())
        .args(["serve", "--listen=127.0.0.1:0", "--data"])
        .arg(data.path())
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let pid = format!("is held by `maestro serve` of process {}", server.process_id());
    assert!(said.contains(&pid) && said.contains("hint:"), "{said}");
    server.stop();
    Server::start(data.path(), &[]).stop();
}

#[test]
fn certificates_that_are_none_are_refused_before_anybody_is_told_to_come() {
    let data = tempfile::tempdir().expect("a folder");
    let pem = data.path().join("cert.pem");
    std::fs::write(&pem, "no certificate\n").expect("a file can be written");
    let output = Command::new(maestro_bin())
        .args(["serve", "--listen=127.0.0.1:0", "--data"])
        .arg(data.path().join("data"))
        .arg("--tls-cert")
        .arg(&pem)
        .arg("--tls-key")
        .arg(&pem)
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the certificates cannot be used") && said.contains("hint:"), "{said}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
}
