//! Two cold builds under other circumstances make the same bytes.

use std::path::Path;
use std::process::Command;

use maestro_tests::{Run, Workspace, npm_downloads};
use serde_json::Value;

fn copy(ws: &Workspace, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/intelgraph");
    std::fs::create_dir_all(to).expect("a folder can be made");
    let status = Command::new("sh")
        .args(["-c", "cp -r \"$1\"/. \"$2\" && rm -rf \"$2/maestro-out\"", "copy"])
        .args([from.as_path(), to])
        .current_dir(&ws.root)
        .status();
    assert!(status.is_ok_and(|status| status.success()));
}

/// Builds the release below `root` with this prefix before the command, and a cold cache.
fn build(ws: &Workspace, root: &Path, cache: &str, prefix: &[&str], env: &[(&str, &str)]) -> Value {
    let (program, args) = prefix.split_first().map_or((None, prefix), |(p, a)| (Some(*p), a));
    let bin = ws.reachable_bin();
    let mut command = match program {
        Some(program) => {
            let mut command = Command::new(program);
            command.args(args).arg(&bin);
            command
        }
        None => Command::new(&bin),
    };
    let output = command
        .args(["build", "//intelgraph:release", "--output=json"])
        .current_dir(root)
        .env("MAESTRO_CACHE", ws.outside().join(cache))
        .envs(env.iter().copied())
        .output()
        .expect("the command starts");
    let run = Run::of(output);
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.json()["targets"].clone()
}

/// Lets the user that stands in for "somebody else" own everything, where we are root.
fn give_away(ws: &Workspace) {
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").args(["-R", "12345:12345"]).arg(ws.outside()).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}

#[test]
fn circumstances_do_not_reach_the_bytes() {
    let ws = Workspace::new();
    let plain = ws.outside().join("a");
    let deep = ws.outside().join("b/much/deeper/folder with space");
    copy(&ws, &plain);
    copy(&ws, &deep);
    let touch = "find . -type f -exec touch -d '2001-02-03 04:05:06' {} +; chmod -R go-rwx .";
    let status = Command::new("sh").args(["-c", touch]).current_dir(&deep).status();
    assert!(status.is_ok_and(|status| status.success()));
    let first = build(&ws, &plain, "cache-a", &[], &[("TZ", "UTC"), ("LANG", "C.UTF-8")]);
    let home = ws.outside().join("home").display().to_string();
    npm_downloads(&ws.outside().join("home/.npm"));
    let other = [
        ("HOME", home.as_str()),
        ("TZ", "Asia/Kathmandu"),
        ("LANG", "de_DE.UTF-8"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("HOSTNAME", "elsewhere"),
        ("USER", "somebody"),
        ("PYTHONHASHSEED", "7"),
    ];
    // Another user where we may become one; where not, one who is root in a namespace.
    let run = "taskset -c 0 \"$0\" \"$@\"";
    let (namespaces, user): (&[&str], _) = match rustix::process::geteuid().is_root() {
        true => (&["--uts"], "setpriv --reuid=12345 --regid=12345 --clear-groups"),
        false => (&["--user", "--map-root-user", "--uts"], ""),
    };
    let script = format!("umask 077; hostname elsewhere; exec {user} {run}");
    let prefix = [&["unshare"], namespaces, &["sh", "-c", &script]].concat();
    give_away(&ws);
    let second = build(&ws, &deep, "cache-b", &prefix, &other);
    assert_eq!(first, second);
}
