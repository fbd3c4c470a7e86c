//! Rules of the library that need a toolchain or a client of their own, on the binary.

use std::path::Path;
use std::process::Command;

use maestro_tests::{Workspace, executed};
use sha2::{Digest as _, Sha256};

fn workspace() -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", "");
    ws
}

fn build(ws: &Workspace, arguments: &[&str]) -> Vec<String> {
    let events = ws.outside().join("events.jsonl");
    let flag = format!("--events={}", events.display());
    let arguments: Vec<&str> = arguments.iter().copied().chain([flag.as_str()]).collect();
    ws.ok(&arguments);
    executed(&events)
}

// --- messages

const MESSAGES: &str = r#"
load("@maestro//rules:cc.star", "cc_test")
load("@maestro//rules:proto.star", "cc_proto_library", "proto_library", "py_proto_library")
load("@maestro//rules:py.star", "py_test")

proto_library(name = "point_proto", srcs = ["point.proto"])
proto_library(name = "line_proto", srcs = ["line.proto"], deps = [":point_proto"])
cc_proto_library(name = "point_cc", deps = [":point_proto"])
cc_proto_library(name = "line_cc", cc_deps = [":point_cc"], deps = [":line_proto"])
py_proto_library(name = "point_py", deps = [":point_proto"])
py_proto_library(name = "line_py", py_deps = [":point_py"], deps = [":line_proto"])
cc_test(name = "cc_test", size = "small", srcs = ["test.cc"], deps = [":line_cc"])
py_test(name = "py_test", size = "small", srcs = ["test.py"], main = "test.py", deps = [":line_py"])
"#;

const POINT: &str = "syntax = \"proto3\";\npackage shapes;\nmessage Point { int32 x = 1; }\n";
const LINE: &str = "syntax = \"proto3\";\npackage shapes;\nimport \"shapes/point.proto\";\n\
                    import \"google/protobuf/timestamp.proto\";\n\
                    message Line { Point start = 1; google.protobuf.Timestamp at = 2; }\n";
const TEST_CC: &str = "#include \"shapes/line.pb.h\"\n\nint main() {\n  shapes::Line line;\n  \
                       line.mutable_start()->set_x(3);\n  shapes::Line copy;\n  \
                       copy.ParseFromString(line.SerializeAsString());\n  \
                       return copy.start().x() == 3 ? 0 : 1;\n}\n";
const TEST_PY: &str = "from shapes import line_pb2\n\nline = line_pb2.Line()\nline.start.x = 3\n\
                       copy = line_pb2.Line.FromString(line.SerializeToString())\n\
                       assert copy.start.x == 3\n";

#[test]
fn messages_travel_in_cpp_and_in_python() {
    let ws = workspace();
    ws.write("shapes/maestro.star", MESSAGES);
    ws.write("shapes/point.proto", POINT);
    ws.write("shapes/line.proto", LINE);
    ws.write("shapes/test.cc", TEST_CC);
    ws.write("shapes/test.py", TEST_PY);
    ws.ok(&["test", "//shapes/..."]);

    // A comment changes nothing that is generated, so nothing is compiled again.
    ws.write("shapes/line.proto", format!("// A comment.\n{LINE}"));
    let ran = build(&ws, &["test", "//shapes/..."]);
    let once = ["//shapes:line_cc", "//shapes:line_proto", "//shapes:line_py"];
    assert_eq!(ran, once, "only what reads the source");

    ws.write("shapes/line.proto", LINE.replace("Point start", "Pont start"));
    let error = ws.fails(1, &["build", "//shapes:line_proto"]);
    assert!(error.contains("\"Pont\" is not defined"), "{error}");
}

// --- Git and patches

fn git(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "tar.umask=0022"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository with one commit, and the pin of that commit.
fn repository(folder: &Path) -> (String, String) {
    std::fs::create_dir_all(folder.join("lib")).expect("a folder can be made");
    std::fs::write(folder.join("lib/a.txt"), "one\ntwo\nthree\n").expect("it can be written");
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "one"]);
    let commit = String::from_utf8(git(folder, &["rev-parse", "HEAD"])).expect("hex");
    let commit = commit.trim().to_owned();
    let archive = git(folder, &["archive", "--format=tar", &commit]);
    let sha256 = Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect();
    (commit, sha256)
}

const PATCH: &str = "--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n";

#[test]
fn sources_out_of_git_are_pinned_and_patched() {
    let ws = workspace();
    let remote = ws.outside().join("remote");
    let (commit, sha256) = repository(&remote);
    let declare = |pin: &str| {
        ws.write(
            "src/maestro.star",
            format!(
                "load(\"@maestro//rules:git.star\", \"git_source\")\n\
                 git_source(name = \"lib\", remote = \"file://{}\", commit = \"{commit}\", {pin} \
                 strip_prefix = \"lib\", patches = [\"a.patch\"], patch_strip = 1)\n",
                remote.display()
            ),
        );
    };
    ws.write("src/a.patch", PATCH);
    declare(&format!("sha256 = \"{sha256}\","));
    assert_eq!(build(&ws, &["build", "//src:lib"]), ["//src:lib"; 3]);
    assert_eq!(ws.read("maestro-out/shared/src/lib/a.txt"), "one\nTWO\nthree\n");

    // The repository is gone, the commit is not.
    std::fs::rename(&remote, ws.outside().join("elsewhere")).expect("it can be moved");
    std::fs::remove_dir_all(ws.root.join("maestro-out")).expect("ours");
    assert_eq!(build(&ws, &["build", "//src:lib"]), [""; 0]);

    ws.write("src/a.patch", PATCH.replace("-two", "-deux"));
    let error = ws.fails(1, &["build", "//src:lib"]);
    assert!(error.contains("hunk FAILED"), "{error}");
    declare("");
    let error = ws.fails(2, &["build", "//src:lib"]);
    assert!(error.contains("git -c tar.umask=0022 archive --format=tar"), "{error}");
    declare(&format!("sha256 = \"{}\",", "0".repeat(64)));
    let error = ws.fails(3, &["build", "//src:lib"]);
    assert!(error.contains("git cannot get `git+file://"), "{error}");
}

// --- Rust

const CARGO: &str = r#"
load("@maestro//rules:rust.star", "cargo_binary", "cargo_test", "cargo_workspace")

cargo_workspace(name = "ws", members = ["Cargo.toml"])
cargo_binary(name = "answer", package = "answer", srcs = ["src/main.rs"], workspace = ":ws")
"#;

const MAIN_RS: &str = "fn main() {\n    \
                       println!(\"{}\", itoa::Buffer::new().format(42));\n}\n";

/// A crate that Maestro itself is built with, so that cargo has downloaded it.
fn downloaded(name: &str) -> String {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("the lock of this repository");
    let block = lock.split("[[package]]").find(|block| block.contains(&format!("\"{name}\"\nver")));
    format!("[[package]]{}", block.expect("it is there").trim_end())
}

#[test]
fn a_crate_with_dependencies_builds_from_what_cargo_has_downloaded() {
    let ws = workspace();
    ws.write("answer/maestro.star", CARGO);
    ws.write("answer/src/main.rs", MAIN_RS);
    let manifest = "[package]\nname = \"answer\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
                    [dependencies]\nitoa = \"1\"\n";
    ws.write("answer/Cargo.toml", manifest);
    let own =
        "[[package]]\nname = \"answer\"\nversion = \"0.1.0\"\ndependencies = [\n \"itoa\",\n]";
    let itoa = downloaded("itoa");
    ws.write("answer/Cargo.lock", format!("version = 4\n\n{own}\n\n{itoa}\n"));
    let run = ws.run(&["run", "//answer"]);
    assert_eq!((run.code, run.stdout.trim()), (0, "42"), "{}", run.stderr);

    // An edit compiles the member alone.
    ws.write("answer/src/main.rs", MAIN_RS.replace("42", "43"));
    let mut ran = build(&ws, &["build", "//answer"]);
    ran.dedup();
    assert_eq!(ran, ["//answer:answer"]);

    let unpinned: String = itoa
        .lines()
        .filter(|line| !line.starts_with("checksum"))
        .map(|l| format!("{l}\n"))
        .collect();
    ws.write("answer/Cargo.lock", format!("version = 4\n\n{own}\n\n{unpinned}\n"));
    let error = ws.fails(2, &["build", "//answer"]);
    assert!(error.contains("has no checksum; run `cargo vendor`"), "{error}");
}
