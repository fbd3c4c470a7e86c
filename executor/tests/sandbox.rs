//! What actions see in the sandbox, and what becomes of what they make.

#[path = "sandbox/support.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use maestro_core::{DigestFunction, Node};
use maestro_executor::runner::{Cancel, RunError};
use maestro_executor::sandbox::probe;
use support::{again_as_normal_user, eventually, mark, processes_with, server_program, world};

#[test]
fn as_a_normal_user() {
    again_as_normal_user();
}

#[test]
fn probing_says_what_this_machine_can_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let found = probe(&server_program(), folder.path()).expect("permitted here");
    assert_eq!(found.dedicated_user.is_some(), rustix::process::geteuid().is_root());
    assert!(found.to_string().starts_with("namespaces, as "), "{found}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}

#[test]
fn where_namespaces_are_not_permitted_it_says_so() {
    // A user namespace in which no further one may be made: what a hardened machine answers.
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("/usr/bin/unshare")
        .args(["--user", "--map-root-user", "/bin/sh", "-c"])
        .arg("echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"")
        .arg(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", "a_probe_that_must_fail", "--nocapture"])
        .env("TMPDIR", folder.path())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("this machine does not permit sandboxes: cannot "), "{said}");
    assert!(said.contains("hint: everywhere: `sysctl user.max_user_namespaces`"), "{said}");
}

/// Not a test of its own: what [`where_namespaces_are_not_permitted_it_says_so`] starts.
#[test]
#[ignore = "started by another test"]
fn a_probe_that_must_fail() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = probe(&server_program(), folder.path()).expect_err("not permitted");
    println!("{error}");
    for hint in error.hints() {
        println!("hint: {hint}");
    }
}

#[test]
fn a_command_reads_inputs_and_makes_outputs() {
    let files = world()
        .script("cat p/a p/b/c > out/o && mkdir -p out/t/empty && cp p/a out/t/x")
        .input("p/a", "one ")
        .input("p/b/c", "two")
        .file("out/o")
        .tree("out/t")
        .files();
    assert_eq!(files.get("out/o").map(String::as_str), Some("one two"));
}

#[test]
fn the_environment_is_exactly_what_is_declared() {
    let stdout = world().script("/usr/bin/env | sort").env("X", "1").stdout();
    let mut names: Vec<&str> =
        stdout.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // The shell itself adds these.
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "_" | "SHLVL"));
    assert_eq!(names, ["HOME", "LANG", "PATH", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ", "X"]);
}

#[test]
fn identity_place_and_limits_are_constant() {
    let check = |script: &str, expect: &str| {
        assert_eq!(world().script(script).stdout().trim(), expect, "{script}");
    };
    check("uname -n", "maestro");
    check("id -u; id -g; id -un", "1000\n1000\nmaestro");
    check("umask", "0022");
    check("pwd", "/build");
    check("ulimit -c; ulimit -n", "0\n4096");
    check("date -d @0 +%Z", "UTC");
    check("wc -c < /dev/stdin", "0");
    check("readlink /proc/self/fd/0", "/dev/null");
    check("ls /", "bin\nbuild\ndev\netc\nlib\nlib64\nproc\nsbin\ntmp\nusr");
    check("ls -A /tmp /build", "/build:\n\n/tmp:");
    check("ls /dev", "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero");
    check(
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c",
        "4\n4",
    );
    check("touch /tmp/x /dev/shm/y && ls /tmp", "x\ny");
    check("echo a > /dev/stderr; echo b > /dev/stdout", "b");
    check("cat /proc/self/cgroup | tail -n 1", "0::/");
}

#[test]
fn processors_are_those_of_the_host() {
    let set = rustix::thread::sched_getaffinity(None).expect("a set");
    assert_eq!(world().script("nproc").stdout().trim(), set.count().to_string());
}

#[test]
fn inputs_look_the_same_whoever_builds() {
    let stdout = world()
        .script("stat -c '%n %u %g %a %Y' p p/a p/b /build /usr/bin/env /etc/passwd /tmp")
        .input("p/a", "x")
        .program("p/b", "#!/bin/sh\n")
        .stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.first(), Some(&"p 1000 1000 755 315532800"));
    assert_eq!(lines.get(1), Some(&"p/a 1000 1000 444 315532800"));
    assert_eq!(lines.get(2), Some(&"p/b 1000 1000 555 315532800"));
    for (line, expect) in lines.iter().skip(3).zip([
        "/build 1000 1000 755",
        "/usr/bin/env 1000 1000",
        "/etc/passwd 1000 1000 444",
        "/tmp 1000 1000 1777",
    ]) {
        assert!(line.starts_with(expect), "{line}");
    }
}

#[test]
fn programs_start_by_path_and_by_search() {
    let stdout = world()
        .script("")
        .argv(&["sh", "-c", "./p/tool && tool"])
        .program("p/tool", "#!/usr/bin/bash\necho ran $0\n")
        .env("PATH", "/usr/bin:/build/p")
        .stdout();
    assert_eq!(stdout, "ran ./p/tool\nran /build/p/tool\n");
}

#[test]
fn programs_that_cannot_start_are_explained() {
    let check = |argv: &[&str], text: &str, expect: &str| {
        let failure = world().script("").argv(argv).program("p/tool", text).failure();
        assert!(failure.contains(expect), "{failure}");
    };
    check(&["nowhere"], "", "cannot start `nowhere`: No such file");
    check(&["nowhere"], "", "hint: only inputs and toolchains exist");
    check(&["p/tool"], "#!/opt/missing\n", "hint: the file is there, but not what interprets it");
    check(&["/etc/passwd"], "", "hint: the file is not executable");
}

#[test]
fn failures_carry_code_signal_and_logs() {
    let failure = world().script("echo out; echo err >&2; exit 3").failure();
    assert_eq!(failure, "the command exited with code 3\nout\n\nerr\n");
    let failure = world().script("kill -SEGV $$").failure();
    assert!(failure.starts_with("the command was killed by SIGSEGV (signal 11)"), "{failure}");
}

#[test]
fn inputs_that_were_forgotten_are_named() {
    let world = world();
    let failure = world
        .script("echo \"a.c:1:10: fatal error: b.h: No such file or directory\" >&2; exit 1")
        .input("p/a.c", "")
        .file("p/b.h")
        .failure();
    assert!(failure.contains("hint: `p/b.h` is not a declared input"), "{failure}");
    let failure = world.script("cat p/a.c && cat p/none").input("p/a.c", "x").failure();
    assert!(!failure.contains("hint:"), "{failure}");
}

#[test]
fn outputs_that_were_not_made_are_named_with_what_was() {
    let failure = world().script("mkdir -p x; echo > x/a.txt").file("out/a.txt").failure();
    let expect = "declared outputs were not made: `out/a.txt`\n\
                  hint: the command made `x/a.txt`; did you mean `out/a.txt`?";
    assert_eq!(failure, expect);
}

#[test]
fn large_trees_are_bound_and_small_ones_laid_out() {
    let world = world();
    let tree_of = |count: usize| {
        let script =
            format!("mkdir -p t/d t/empty; for i in $(seq {count}); do echo $i > t/d/$i; done");
        let outcome = world.script(&script).tree("t").run().expect("a tree");
        let tree = outcome.result.output_directories.first().expect("one tree");
        Node::Tree { root: tree.root_directory_digest }
    };
    for count in [3, 200] {
        let stdout = world
            .script("ls in/t/d | wc -l; cat in/t/d/2; ls in/t; stat -c '%u %a' in/t/d/1 in/t")
            .node("in/t", tree_of(count))
            .stdout();
        assert_eq!(stdout, format!("{count}\n2\nd\nempty\n1000 444\n1000 755\n"));
    }
    let failure = world.script("echo x > in/t/new").node("in/t", tree_of(200)).failure();
    assert!(failure.contains("Read-only file system"), "{failure}");
}

#[test]
fn blobs_that_are_gone_are_named() {
    let digest = DigestFunction::Blake3.digest(b"never stored anywhere");
    let error = world()
        .script("true")
        .node("p/gone", Node::File { digest, executable: false })
        .run()
        .expect_err("gone");
    assert!(matches!(&error, RunError::MissingBlobs(gone) if gone == &[digest]), "{error}");
}

#[test]
fn a_time_limit_ends_everything() {
    let mark = mark();
    let began = Instant::now();
    let error = world()
        .script(&format!("echo so far; (sh -c 'sleep 1000 # {mark}' &); sleep 1000 # {mark}"))
        .timeout_ms(300)
        .run()
        .expect_err("too slow");
    let RunError::Timeout { limit_ms: 300, stdout: Some(stdout), .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(world().text(&stdout), "so far\n");
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(processes_with(&mark), [0u32; 0]);
}

#[test]
fn cancelling_ends_everything() {
    let (mark, cancel) = (mark(), Cancel::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("the action runs", || !processes_with(&mark).is_empty());
            cancel.cancel();
        });
        let script = format!("(sleep 1000; : {mark}) & sleep 1000; : {mark}");
        let error = world().script(&script).cancel(&cancel).run().expect_err("cancelled");
        assert!(matches!(error, RunError::Cancelled), "{error}");
    });
    assert_eq!(processes_with(&mark), [0u32; 0]);
}

#[test]
fn long_logs_keep_head_and_tail() {
    let limit = maestro_core::limits::ACTION_LOG_BYTES_MAX;
    let script = format!("echo first; head -c {} /dev/zero; echo last", limit + 1000);
    let stdout = world().script(&script).stdout();
    assert!(stdout.len() as u64 <= limit + 100, "{}", stdout.len());
    assert!(stdout.starts_with("first\n") && stdout.ends_with("last\n"));
    assert!(stdout.contains("bytes omitted …]"));
}

#[test]
fn without_a_sandbox_inputs_are_copies_and_nothing_stays() {
    let world = world();
    let mark = mark();
    let files = world
        .script(&format!(
            "chmod u+w p/a; echo more >> p/a; cp p/a out/o; (sh -c 'sleep 1000; : {mark}' &)"
        ))
        .input("p/a", "text ")
        .file("out/o")
        .unconfined()
        .files();
    assert_eq!(files.get("out/o").map(String::as_str), Some("text more\n"));
    assert_eq!(processes_with(&mark), [0u32; 0]);
    let blob = DigestFunction::Blake3.digest(b"text ");
    assert_eq!(world.text(&blob), "text ");
}
