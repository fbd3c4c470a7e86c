//! Other repositories from start to end: folders, archives, overrides, and what a build notices.

use std::path::Path;
use std::process::Command;

use maestro_tests::file_server::FileServer;
use maestro_tests::{Workspace, executed};

const RULES: &str = "load(\"@maestro//rules:basics.star\", \"filegroup\", \"genrule\")\n";

/// The files of a small repository, whose target `words` is public and made by an action.
fn write_dep(root: &Path, word: &str) {
    let text = format!(
        "{RULES}genrule(\n    name = \"words\",\n    srcs = [\"in.txt\"] + glob([\"more/*.txt\"]),\n    \
         outs = [\"words.txt\"],\n    cmd = \"cat $(SRCS) > $@\",\n    \
         visibility = [\"//visibility:public\"],\n)\n"
    );
    for (path, text) in [
        ("maestro.star", text.as_str()),
        ("in.txt", word),
        ("more/a.txt", "a\n"),
        ("defs.star", "visibility([\"public\"])\nGREETING = \"hello\"\n"),
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("not the root")).expect("writable");
        std::fs::write(path, text).expect("writable");
    }
}

/// A workspace that copies the words of `@dep` behind its greeting.
fn workspace(project: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", project);
    ws.write(
        "maestro.star",
        format!(
            "{RULES}load(\"@dep//:defs.star\", \"GREETING\")\ngenrule(\n    name = \"x\",\n    \
             srcs = [\"@dep//:words\"],\n    outs = [\"x.txt\"],\n    \
             cmd = \"(echo %s; cat $<) > $@\" % GREETING,\n)\n"
        ),
    );
    ws
}

const OUTPUT: &str = "maestro-out/shared/x.txt";

/// Builds `//:x` and returns the labels that were executed.
fn build(ws: &Workspace, args: &[&str]) -> Vec<String> {
    let events = ws.outside().join("events.jsonl");
    let flag = format!("--events={}", events.display());
    let mut all = vec!["build", "//:x", &flag];
    all.extend(args);
    ws.ok(&all);
    executed(&events)
}

/// Packs a folder and returns the SHA-256 of the archive.
fn pack(folder: &Path, archive: &Path) -> String {
    let parent = folder.parent().expect("not the root");
    let name = folder.file_name().expect("it has a name");
    let status = Command::new("tar")
        .args(["--sort=name", "--mtime=@1", "-czf"])
        .arg(archive)
        .arg("-C")
        .args([parent.as_os_str(), name])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "`tar` failed");
    let output = Command::new("sha256sum").arg(archive).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().expect("a digest").to_owned()
}

#[test]
fn a_folder_is_observed_file_by_file() {
    let ws = workspace("[repos.dep]\npath = \"../dep\"\n");
    let dep = ws.outside().join("dep");
    write_dep(&dep, "one\n");
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    assert_eq!(ws.read(OUTPUT), "hello\none\na\n");
    assert_eq!(build(&ws, &[]), [""; 0]);
    // Each edit is noticed by the next build, and runs what it concerns.
    std::fs::write(dep.join("in.txt"), "two\n").expect("writable");
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    assert_eq!(ws.read(OUTPUT), "hello\ntwo\na\n");
    std::fs::write(dep.join("more/b.txt"), "b\n").expect("writable");
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    std::fs::write(dep.join("defs.star"), "visibility([\"public\"])\nGREETING = \"hi\"\n")
        .expect("writable");
    assert_eq!(build(&ws, &[]), ["//:x"]);
    assert_eq!(ws.read(OUTPUT), "hi\ntwo\na\nb\n");
    std::fs::remove_dir_all(&dep).expect("there");
    let error = ws.fails(2, &["build", "//:x"]);
    assert!(error.contains("cannot open the folder") && error.contains("`@dep`"), "{error}");
    assert!(error.contains("maestro.star:2:6"), "{error}");
}

#[test]
fn an_archive_is_fetched_once_and_only_where_it_is_named() {
    let served = tempfile::tempdir().expect("a temporary folder");
    let dep = served.path().join("dep-1");
    write_dep(&dep, "one\n");
    let sha256 = pack(&dep, &served.path().join("dep-1.tgz"));
    let server = FileServer::start(served.path());
    let project = |sha256: &str| {
        format!(
            "[repos.dep]\nurl = \"{}/dep-1.tgz\"\nsha256 = \"{sha256}\"\nstrip-prefix = \"dep-1\"\n",
            server.url
        )
    };
    let ws = workspace(&project(&sha256));
    ws.write("other/maestro.star", format!("{RULES}filegroup(name = \"y\")\n"));
    ws.ok(&["build", "//other:y"]);
    assert_eq!(server.asked(), [""; 0]);
    let error = ws.fails(2, &["build", "//:x", "--offline"]);
    assert!(error.contains("cannot make repository `@dep` ready"), "{error}");
    assert!(error.contains("dep-1.tgz"), "{error}");
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    assert_eq!(ws.read(OUTPUT), "hello\none\na\n");
    assert_eq!(server.asked(), ["dep-1.tgz"]);
    // From here on the network is not needed, also where other things change.
    ws.write("extra.txt", "");
    ws.write("maestro.star", ws.read("maestro.star").replace("(echo", "(echo;echo"));
    assert_eq!(build(&ws, &["--offline"]), ["//:x"]);
    ws.ok(&["query", "deps(//:x)"]);
    assert_eq!(server.asked(), [""; 0]);
    // Another digest is another repository.
    ws.write("maestro.toml", project(&sha256.replace(|c: char| c.is_ascii_digit(), "0")));
    let error = ws.fails(2, &["build", "//:x"]);
    assert!(error.contains("cannot make repository `@dep` ready"), "{error}");
    assert!(error.contains(&sha256) && error.contains("pinned"), "{error}");
}

#[test]
fn an_archive_of_the_workspace_is_a_source() {
    let ws =
        workspace("[repos.dep]\narchive = \"//third_party:dep.tgz\"\nstrip-prefix = \"dep\"\n");
    let dep = ws.outside().join("dep");
    ws.write("third_party/README", "");
    let archive = ws.root.join("third_party/dep.tgz");
    write_dep(&dep, "one\n");
    pack(&dep, &archive);
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    assert_eq!(build(&ws, &[]), [""; 0]);
    write_dep(&dep, "two\n");
    pack(&dep, &archive);
    assert_eq!(build(&ws, &[]), ["//:x", "@dep//:words"]);
    assert_eq!(ws.read(OUTPUT), "hello\ntwo\na\n");
}

#[test]
fn overrides_take_the_place_of_a_repository() {
    let ws = workspace("[repos.dep]\npath = \"../dep\"\n");
    write_dep(&ws.outside().join("dep"), "one\n");
    write_dep(&ws.outside().join("mine"), "mine\n");
    build(&ws, &[]);
    build(&ws, &["--override-repo", "dep=../mine"]);
    assert_eq!(ws.read(OUTPUT), "hello\nmine\na\n");
    build(&ws, &[]);
    assert_eq!(ws.read(OUTPUT), "hello\none\na\n");
    let config = ws.outside().join("config");
    std::fs::create_dir_all(config.join("maestro")).expect("writable");
    let mine = ws.outside().join("mine").display().to_string();
    let text = format!("[override]\ndep = \"{mine}\"\n");
    std::fs::write(config.join("maestro/config.toml"), text).expect("writable");
    let ws = ws.with_env("XDG_CONFIG_HOME", config.to_str().expect("text"));
    build(&ws, &[]);
    assert_eq!(ws.read(OUTPUT), "hello\nmine\na\n");
    let error = ws.fails(2, &["build", "//:x", "--override-repo", "dep"]);
    assert!(error.contains("--override-repo NAME=PATH"), "{error}");
}

#[test]
fn what_is_wrong_with_a_declaration_is_said() {
    let check = |project: &str, parts: &[&str]| {
        let error = workspace(project).fails(2, &["build", "//:x"]);
        for part in parts {
            assert!(error.contains(part), "no `{part}` in:\n{error}");
        }
    };
    check(
        "",
        &["error[MAE0133]: there is no repository `@dep`", "[repos.dep]", "maestro.star:2:6"],
    );
    check("[repos.dpe]\npath = \"x\"\n", &["did you mean `@dpe`?"]);
    let url = "[repos.dep]\nurl = \"http://127.0.0.1:9/x.tgz\"\n";
    check(url, &["repository `@dep` of `maestro.toml` is not pinned", "maestro repo pin dep"]);
    check("[repos.dep]\nulr = \"x\"\n", &["maestro.toml", "ulr"]);
    check("[repos.dep]\n", &["says none or several of"]);
}

#[test]
fn a_repository_that_needs_another_gets_that_of_the_root() {
    let ws = workspace("[repos.dep]\npath = \"../dep\"\n");
    let dep = ws.outside().join("dep");
    write_dep(&dep, "one\n");
    let text = std::fs::read_to_string(dep.join("maestro.star")).expect("there");
    let text = text.replace("\"in.txt\"", "\"@far//:far.txt\"");
    std::fs::write(dep.join("maestro.star"), text).expect("writable");
    std::fs::write(dep.join("maestro.toml"), "[repos.far]\npath = \"elsewhere\"\n").expect("ok");
    let error = ws.fails(2, &["build", "//:x"]);
    assert!(error.contains("there is no repository `@far`, which `@dep` uses"), "{error}");
    assert!(error.contains("[repos.far]\npath = \"elsewhere\""), "{error}");
    let far = ws.outside().join("far");
    std::fs::create_dir(&far).expect("writable");
    std::fs::write(far.join("maestro.star"), "exports_files([\"far.txt\"])\n").expect("writable");
    std::fs::write(far.join("far.txt"), "far\n").expect("writable");
    ws.write("maestro.toml", "[repos.dep]\npath = \"../dep\"\n[repos.far]\npath = \"../far\"\n");
    build(&ws, &[]);
    assert_eq!(ws.read(OUTPUT), "hello\nfar\na\n");
}

/// A served archive of `@dep` and a workspace that uses it and a file from the same server.
fn served_workspace() -> (tempfile::TempDir, FileServer, Workspace) {
    let served = tempfile::tempdir().expect("a temporary folder");
    let dep = served.path().join("dep-1");
    write_dep(&dep, "one\n");
    let sha256 = pack(&dep, &served.path().join("dep-1.tgz"));
    std::fs::write(served.path().join("hello.txt"), "hello").expect("writable");
    let server = FileServer::start(served.path());
    let url = &server.url;
    let ws = workspace(&format!(
        "[repos.dep]\nurl = \"{url}/dep-1.tgz\"\nsha256 = \"{sha256}\"\nstrip-prefix = \"dep-1\"\n"
    ));
    ws.write(
        "third/maestro.star",
        format!(
            "load(\"@maestro//rules:http.star\", \"http_file\")\nhttp_file(\n    name = \"hello\",\n    \
             urls = [\"{url}/hello.txt\"],\n    sha256 = \"{HELLO}\",\n)\n"
        ),
    );
    (served, server, ws)
}

/// The SHA-256 of `hello`.
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn vendored_downloads_are_built_from_and_checked() {
    let (_served, server, ws) = served_workspace();
    let check = |code: i32, parts: &[&str]| {
        let run = ws.run(&["vendor", "--check"]);
        assert_eq!(run.code, code, "{}{}", run.stdout, run.stderr);
        for part in parts {
            assert!(run.stdout.contains(part), "no `{part}` in:\n{}", run.stdout);
        }
    };
    let hello = format!("sha256-{HELLO}");
    check(1, &["manifest.toml is missing", &format!("missing {hello} (//third:hello)"), "(@dep)"]);
    assert_eq!(ws.run(&["vendor"]).code, 0);
    check(0, &["holds every download"]);
    server.asked();
    // A fresh machine without a network builds from the folder.
    let fresh = ws.outside().join("fresh-cache").display().to_string();
    ws.ok(&["build", "//...", "--offline", "--cache", &fresh]);
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(ws.read(OUTPUT), "hello\none\na\n");
    // What was touched is noticed, by a build that needs it too.
    ws.write(&format!("vendor/maestro/{hello}"), "other");
    ws.write(&format!("vendor/maestro/sha256-{}", "0".repeat(64)), "left over");
    check(1, &[&format!("damaged {hello}"), "unused sha256-000"]);
    let other = ws.outside().join("other-cache").display().to_string();
    let error = ws.fails(2, &["build", "//third:hello", "--cache", &other]);
    assert!(error.contains("is not the file that its name says"), "{error}");
    assert!(error.contains("`maestro vendor` writes it anew"), "{error}");
    assert_eq!(ws.run(&["vendor"]).code, 0);
    check(0, &[]);
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn fetch_brings_all_that_an_offline_build_needs() {
    let (_served, server, ws) = served_workspace();
    let error = ws.fails(2, &["build", "//third:hello", "--offline"]);
    assert!(error.contains("maestro fetch") && error.contains("hello.txt"), "{error}");
    let run = ws.run(&["fetch", "//..."]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("2 downloads, "), "{}", run.stdout);
    assert_eq!(server.asked(), ["dep-1.tgz", "hello.txt"]);
    assert!(!ws.root.join("maestro-out").exists());
    ws.ok(&["build", "//...", "--offline"]);
    assert_eq!(server.asked(), [""; 0]);
}

#[test]
fn a_mirror_is_asked_first_and_not_trusted() {
    let (served, server, ws) = served_workspace();
    let files = tempfile::tempdir().expect("a temporary folder");
    std::fs::copy(served.path().join("hello.txt"), files.path().join(format!("sha256-{HELLO}")))
        .expect("copied");
    let mirror = FileServer::start(files.path());
    let project = ws.read("maestro.toml");
    ws.write("maestro.toml", format!("{project}[fetch]\nmirror = \"{}/\"\n", mirror.url));
    ws.ok(&["build", "//third:hello"]);
    assert_eq!(mirror.asked(), [format!("sha256-{HELLO}")]);
    assert_eq!(server.asked(), [""; 0]);
    // What it lacks, or has wrong, comes from where it is.
    std::fs::write(files.path().join(format!("sha256-{HELLO}")), "wrong").expect("writable");
    let other = ws.outside().join("other-cache").display().to_string();
    ws.ok(&["build", "//...", "--cache", &other]);
    assert_eq!(mirror.asked().len(), 2);
    assert_eq!(server.asked(), ["dep-1.tgz", "hello.txt"]);
}

#[test]
fn pinning_writes_the_digest_and_keeps_the_rest() {
    let (_served, server, ws) = served_workspace();
    let project = ws.read("maestro.toml");
    let pinned = project.lines().find(|line| line.starts_with("sha256")).expect("it is pinned");
    let without = format!("# kept\n{}", project.replace(&format!("{pinned}\n"), ""));
    ws.write("maestro.toml", &without);
    let error = ws.fails(2, &["build", "//:x"]);
    assert!(error.contains("maestro repo pin dep"), "{error}");
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(ws.run(&["repo", "pin", "dep"]).code, 0);
    let text = ws.read("maestro.toml");
    assert!(text.starts_with("# kept\n") && text.contains(pinned), "{text}");
    ws.ok(&["build", "//:x"]);
    assert_eq!(server.asked(), ["dep-1.tgz", "dep-1.tgz"]);
    assert!(ws.run(&["repo", "list"]).stdout.starts_with("@dep  http://127.0.0.1:"));
    let error = ws.fails(2, &["repo", "pin", "dpe"]);
    assert!(error.contains("declares no repository `@dpe`"), "{error}");
}

#[test]
fn a_commit_is_archived_and_pinned_by_what_it_holds() {
    let ws = workspace("");
    let dep = ws.outside().join("dep");
    write_dep(&dep, "one\n");
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&dep).args(args).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
    git(&[&who[..], &["commit", "--quiet", "-m", "one"]].concat());
    let commit = git(&["rev-parse", "HEAD"]);
    let url = format!("file://{}", dep.display());
    ws.write("maestro.toml", format!("[repos.dep]\ngit = \"{url}\"\ncommit = \"{commit}\"\n"));
    let error = ws.fails(2, &["build", "//:x"]);
    assert!(error.contains("is not pinned"), "{error}");
    let run = ws.run(&["repo", "pin", "dep"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    build(&ws, &[]);
    assert_eq!(ws.read(OUTPUT), "hello\none\na\n");
}
