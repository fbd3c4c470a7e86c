//! Pipelines that run on a copy of a commit, taken out of a repository.

use std::process::Command;

use maestro_tests::scene::{Scene, text};

#[test]
fn what_cannot_be_fetched_leaves_nothing() {
    let scene = Scene::new("name: release\nsteps: []\n");
    let mut git = Command::new("git");
    let made = git.args(["init", "--quiet", "--bare"]).arg(scene.path("e.git")).status();
    assert!(made.is_ok_and(|status| status.success()));
    let empty = scene.path("e.git").to_string_lossy().into_owned();
    let copies = || std::fs::read_dir(scene.path("state/workspaces")).map_or(0, Iterator::count);
    let check = |url: &str, code: i32, more: &[&str], part: &str| {
        let told =
            scene.must(code, &[&["run", "--template", "release", "--source", url], more].concat());
        assert!(told.contains(part), "{url}: {told}");
        assert_eq!(copies(), 0, "{url}");
    };
    check(&empty, 2, &[], "does not say which branch is meant");
    check(&empty, 3, &["--ref", "main"], "couldn't find remote ref main");
    check(&empty, 2, &["--ref=-x"], "`-x` names no commit");
    check("ext::sh -c true", 3, &[], "transport 'ext' not allowed");
    check("https://token@127.0.0.1/x.git", 2, &[], "holds a user or password");
    check("ssh://ann:secret@127.0.0.1/x.git", 2, &[], "holds a user or password");
    check("", 2, &[], "`` is no repository");
}

#[test]
fn a_source_is_the_commit_that_its_name_means() {
    let scene = Scene::new("name: unused\nsteps: []\n");
    let work = scene.path("work");
    std::fs::create_dir(&work).expect("a folder");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&work).args(["-c", "user.name=ann", "-c", "user.email=ann@localhost"]);
        let output = git.args(arguments).output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let template = r#"
name: tell
steps:
  - id: tell
    uses: run.command
    with:
      repeatable: true
      command: [sh, -c, "echo '${{ git.sha }}|${{ git.branch }}|${{ git.tag }}|'; cat version; echo '${{ files_changed(\"version\") }}'"]
"#;
    git(&["init", "--quiet", "--initial-branch=main"]);
    for version in ["1", "2"] {
        std::fs::write(work.join("tell.pipeline.yaml"), template).expect("written");
        std::fs::write(work.join("version"), version).expect("written");
        git(&["add", "--all"]);
        git(&["commit", "--quiet", "--message", version]);
        git(&["tag", "--annotate", &format!("v{version}"), "--message", "a release"]);
    }
    let [old, new] = ["v1^{commit}", "main"].map(|name| git(&["rev-parse", name]));
    // A branch and a tag of one name, of different commits.
    git(&["branch", "both", "main"]);
    git(&["tag", "both", "v1"]);
    let url = format!("file://{}", work.display());
    let check = |more: &[&str], expect: &str| {
        let begin = [&["run", "--template", "tell", "--source", &url], more].concat();
        scene.must(0, &begin);
        let told = scene.json()["steps"][0]["tasks"][0]["outputs"]["stdout"].clone();
        let told = told.as_str().expect("a text").replace('\n', " ");
        assert_eq!(told.trim(), expect, "{more:?}");
    };
    check(&[], &format!("{new}|main|v2| 2true"));
    check(&["--ref", "main"], &format!("{new}|main|v2| 2true"));
    check(&["--ref", "both"], &format!("{new}|both|v2| 2true"));
    check(&["--ref", "v1"], &format!("{old}|HEAD|both| 1true"));
    check(&["--ref", &old], &format!("{old}|HEAD|both| 1true"));
}
