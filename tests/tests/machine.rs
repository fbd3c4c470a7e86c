//! What a machine may lack: disk space, permissions, namespaces, memory for a huge file.
//! Maestro says what is missing, exits with 3, stores nothing wrong, and goes on once it is mended.

use std::path::Path;
use std::process::Command;

use maestro_tests::{Run, Workspace, keys, maestro_bin, shell};
use serde_json::json;

/// Runs `script` with `sh`, with `$BIN` and `$CACHE` set, behind `prefix`.
fn script(ws: &Workspace, prefix: &[&str], script: &str) -> Run {
    let (program, args) = prefix.split_first().expect("a program");
    let output = Command::new(program)
        .args(args)
        .args(["sh", "-c", script])
        .current_dir(&ws.root)
        .env_remove("CI")
        .env("BIN", maestro_bin())
        .env("CACHE", &ws.cache)
        .env("MAESTRO_CACHE", &ws.cache)
        .output()
        .expect("the program starts");
    Run::of(output)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_full_disk_ends_the_build_and_stores_nothing_wrong() {
    let ws = Workspace::new();
    std::fs::create_dir(&ws.cache).expect("a folder can be made");
    ws.write_graph(&json!({
        "actions": [
            shell("//t:big", "head -c 200000000 /dev/zero > out/big", &[], &["out/big"]),
            shell("//t:size", "wc -c < out/big > out/size", &["out/big"], &["out/size"]),
        ],
        "requested": ["out/size"],
    }));
    // Only the processes of this script see the small disk.
    let steps = "set -u
        mount -t tmpfs -o size=150m,mode=755 maestro-test \"$CACHE\" || exit 99
        \"$BIN\" exec graph.json 2>full; echo \"full $?\"
        mount -o remount,size=800m \"$CACHE\" || exit 98
        \"$BIN\" cache verify >&2; echo \"verify $?\"
        \"$BIN\" exec graph.json >&2; echo \"again $?\"
        \"$BIN\" cache verify >&2; echo \"verify $?\"";
    let prefix: &[&str] = match is_root() {
        true => &["unshare", "--mount"],
        false => &["unshare", "--user", "--map-root-user", "--mount"],
    };
    let run = script(&ws, prefix, steps);
    let full = ws.read("full");
    assert_eq!(run.stdout, "full 3\nverify 0\nagain 0\nverify 0\n", "{full}\n{}", run.stderr);
    for part in ["no space is left", "hint:", "maestro cache gc"] {
        assert!(full.contains(part), "no `{part}` in:\n{full}");
    }
    assert_eq!(ws.read("out/size"), "200000000\n");
}

#[test]
fn a_cache_without_permission_is_named() {
    let ws = Workspace::new();
    let bin = ws.reachable_bin();
    ws.write_graph(&json!({"actions": [shell("//t:a", "echo > out/a", &[], &["out/a"])]}));
    std::fs::create_dir(&ws.cache).expect("a folder can be made");
    let mut command = ws.command_as_user();
    set_mode(&ws.cache, 0o500);
    let output = command.arg(bin).args(["exec", "graph.json"]).output();
    let run = Run::of(output.expect("the program starts"));
    set_mode(&ws.cache, 0o700);
    assert_eq!(run.code, 3, "{}", run.stderr);
    let cache = ws.cache.display().to_string();
    for part in [cache.as_str(), "ermission", "hint:"] {
        assert!(run.stderr.contains(part), "no `{part}` in:\n{}", run.stderr);
    }
}

#[test]
fn a_workspace_that_cannot_be_written_is_named() {
    let ws = Workspace::new();
    let bin = ws.reachable_bin();
    ws.write_graph(&json!({"actions": [shell("//t:a", "echo > out/a", &[], &["out/a"])]}));
    let mut command = ws.command_as_user();
    set_mode(&ws.root, 0o500);
    let output = command.arg(bin).args(["exec", "graph.json"]).output();
    let run = Run::of(output.expect("the program starts"));
    set_mode(&ws.root, 0o700);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains(&ws.root.display().to_string()), "{}", run.stderr);
}

#[test]
fn without_namespaces_maestro_says_so_and_a_flag_goes_on() {
    let ws = Workspace::new();
    let bin = ws.reachable_bin();
    ws.write("a.txt", "hello\n");
    ws.write_graph(&json!({
        "actions": [shell("//t:a", "cat a.txt > out/a", &["a.txt"], &["out/a"])],
    }));
    let run = |args: &[&str]| {
        let forbid = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\"";
        let mut command = ws.command_as_user();
        command.args(["unshare", "--user", "--map-root-user", "sh", "-c", forbid]);
        Run::of(command.arg(&bin).args(args).output().expect("the program starts"))
    };
    let refused = run(&["exec", "graph.json"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    for part in ["does not permit sandboxes", "user.max_user_namespaces", "`--sandbox=none`"] {
        assert!(refused.stderr.contains(part), "no `{part}` in:\n{}", refused.stderr);
    }
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, 3, "{}", doctor.stdout);
    assert!(doctor.stdout.contains("BAD  sandbox"), "{}", doctor.stdout);
    let open = run(&["exec", "graph.json", "--sandbox=none", "--events=open.jsonl"]);
    assert_eq!(open.code, 0, "{}", open.stderr);
    assert_eq!(ws.read("out/a"), "hello\n");
}

#[test]
fn unconfined_results_have_keys_of_their_own() {
    let ws = Workspace::new();
    ws.write("a.txt", "hello\n");
    ws.write_graph(&json!({
        "actions": [shell("//t:a", "cat a.txt > out/a", &["a.txt"], &["out/a"])],
    }));
    let events = |name: &str, args: &[&str]| {
        let events = ws.outside().join(name);
        let flag = format!("--events={}", events.display());
        let summary = ws.ok(&[&["exec", "graph.json", flag.as_str()], args].concat());
        (keys(&events), summary["actions"]["executed"].clone())
    };
    let (closed, ran) = events("closed", &[]);
    assert_eq!(ran, 1);
    let (open, ran) = events("open", &["--sandbox=none"]);
    assert_eq!(ran, 1, "a confined result is not taken for an unconfined one");
    assert!(closed.len() == 1 && open.len() == 1 && closed != open, "{closed:?} {open:?}");
    assert_eq!(events("closed", &[]), (closed, json!(0)));
}

#[test]
fn a_source_of_five_gigabytes_needs_little_memory() {
    let ws = Workspace::new();
    let big = std::fs::File::create(ws.root.join("big")).expect("a file can be made");
    big.set_len(5 << 30).expect("sparse");
    ws.write_graph(&json!({
        "actions": [shell("//t:size", "wc -c < big > out/size", &["big"], &["out/size"])],
    }));
    // 768 MiB of data, all threads included.
    let run = script(&ws, &["env"], "ulimit -d 786432; exec \"$BIN\" exec graph.json");
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(ws.read("out/size"), "5368709120\n");
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}
