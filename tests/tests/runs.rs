//! Pipelines on the built binary: a run is begun, approved, gone on with, and killed everywhere.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use maestro_tests::poll;
use maestro_tests::scene::{Scene, text};

/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Lists, asks, and appends to a file; `deploy` can be asked whether it was done.
const RELEASE: &str = r#"
name: release
params:
  env: { type: string, enum: [staging, prod], default: staging }
steps:
  - id: list
    uses: run.command
    with: { command: [sh, -c, 'echo "[1, 2]"'], repeatable: true }
  - id: each
    uses: run.command
    foreach: ${{ steps.list.outputs.json }}
    max: 5
    with: { command: [sh, -c, "echo ${{ item }}"], repeatable: true }
  - id: ok
    uses: gate.approval
    with: { roles: [release-manager], message: "deploy to ${{ params.env }}?" }
  - id: deploy
    uses: run.command
    with:
      command: [sh, -c, "echo ${{ params.env }} $MAESTRO_IDEMPOTENCY_KEY >> deployed"]
      query: [sh, -c, "grep -qs $MAESTRO_IDEMPOTENCY_KEY deployed || exit 1"]
"#;

#[test]
fn a_run_waits_for_another_person_and_goes_on() {
    // Another user has to approve, and only root can become one.
    if !rustix::process::getuid().is_root() {
        panic!("this test approves as another user: run it as root");
    }
    let scene = Scene::new(RELEASE);
    std::fs::create_dir(scene.path("state")).expect("made");
    let roles = "release-manager = [\"root\", \"daemon\"]\n";
    std::fs::write(scene.path("state/roles.toml"), roles).expect("written");
    let out =
        scene.must(10, &["run", "--template", "release", "--param", "env=staging", "--no-wait"]);
    assert!(out.contains("deploy to staging?"), "{out}");
    assert_eq!(scene.status(), "waiting");
    let run = scene.json()["run"].as_str().expect("a name").to_owned();
    let own = scene.must(2, &["approve", &run]);
    assert!(own.contains("whoever starts a run does not approve it"), "{own}");
    let stranger = scene.as_user(2, &["approve", &run]);
    assert!(text(&stranger.stderr).contains("has none of the roles"), "{stranger:?}");
    let stale = scene.as_user(1, &["approve", &run, "--subject", "abc"]);
    assert!(text(&stale.stderr).contains("`abc` was approved"), "{stale:?}");
    let good = scene.as_user(1, &["approve", &run, "--gate", "ok", "--reason", "fine"]);
    assert!(good.status.success(), "{good:?}");
    scene.must(0, &["run", "--resume", &run]);
    assert_eq!(scene.lines("deployed").len(), 1);
    let log = scene.must(0, &["logs", &run, "--step", "ok"]);
    assert!(log.contains("ok: approved by daemon@local: fine"), "{log}");
    scene.must(2, &["cancel", &run]);
}

#[test]
fn a_rejected_run_says_so_and_can_be_retried() {
    let scene = Scene::new(&RELEASE.replace("roles: [release-manager], ", ""));
    scene.must(10, &["run", "--template", "release", "--no-wait"]);
    let run = scene.json()["run"].as_str().expect("a name").to_owned();
    let rejected = scene.must(0, &["reject", &run, "--reason", "not today"]);
    assert!(rejected.contains("maestro run --resume"), "{rejected}");
    let out = scene.must(12, &["run", "--resume", &run]);
    assert!(
        out.contains("root@local rejected it: not today") || out.contains("not today"),
        "{out}"
    );
    let letters = scene.must(0, &["runs", "dlq", "list"]);
    assert!(letters.contains(" ok failed: "), "{letters}");
    scene.must(10, &["retry", &run, "--no-wait"]);
    assert_eq!(scene.lines("deployed").len(), 0);
    scene.must(0, &["cancel", &run, "--reason", "enough"]);
    scene.must(13, &["run", "--resume", &run]);
    let again = scene.must(10, &["replay", &run, "--no-wait"]);
    assert!(again.contains("waiting for approval"), "{again}");
    assert_eq!(scene.must(0, &["runs", "list"]).lines().count(), 2);
}

#[test]
fn mistakes_are_explained() {
    let scene = Scene::new(RELEASE);
    let missing = scene.must(2, &["run", "--template", "relaese"]);
    assert!(missing.contains("there is no pipeline `relaese`"), "{missing}");
    let param = scene.must(2, &["run", "--template", "release", "--param", "env=mars"]);
    assert!(param.contains("param `env` is one of `staging`, `prod`, not `mars`"), "{param}");
    let none = scene.must(2, &["status"]);
    assert!(none.contains("there are no runs yet"), "{none}");
    let neither = scene.must(2, &["run"]);
    assert!(neither.contains("<LABEL>"), "{neither}");
    let money = scene.must(2, &["run", "--template", "release", "--budget", "lots"]);
    assert!(money.contains("`lots` is no amount of money"), "{money}");
    let broken = Scene::new("name: x\nsteps:\n  - id: a\n    uses: run.comand\n");
    let broken = broken.must(2, &["run", "--template", "release"]);
    assert!(broken.contains("release.pipeline.yaml:4:11"), "{broken}");
    let unbuilt = Scene::new(
        "name: x\nsteps:\n  - id: scrape\n    uses: web.scrape\n    with: { urls: [\"https://a.example\"] }\n",
    );
    let unbuilt = unbuilt.must(1, &["run", "--template", "release"]);
    assert!(unbuilt.contains("cannot run steps of `web.scrape` yet"), "{unbuilt}");
}

#[test]
fn urls_with_credentials_are_refused_before_they_are_written_down() {
    let hook = "name: x\nsteps:\n  - id: tell\n    uses: notify.webhook\n    with: { url: URL }\n";
    let scene = Scene::new(&hook.replace("URL", "\"https://t0ken@h.example/\""));
    let told = scene.must(2, &["run", "--template", "release"]);
    assert!(told.contains("release.pipeline.yaml:5:13: `url` is a URL with credentials"), "{told}");
    assert!(told.contains("name a secret") && !told.contains("t0ken"), "{told}");
    let param = "params:\n  to: { type: string }\nsteps:";
    let hook = hook.replace("steps:", param).replace("URL", "\"${{ params.to }}\"");
    let scene = Scene::new(&hook);
    let to = "to=https://me:t0ken@h.example/";
    let told = scene.must(2, &["run", "--template", "release", "--param", to]);
    assert!(
        told.contains("param `to` is a URL with credentials") && !told.contains("t0"),
        "{told}"
    );
    assert!(scene.must(2, &["status"]).contains("there are no runs yet"));
}

/// What one process came to, with the points that it reached.
enum End {
    Ended(Vec<String>),
    Killed,
}

/// Runs a command and kills it at point number `kill_at`, counted from 1.
fn judged(scene: &Scene, arguments: &[&str], kill_at: Option<usize>) -> End {
    let socket = scene.path("judge");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let mut child =
        scene.command(arguments).env("MAESTRO_CHECKPOINTS", &socket).spawn().expect("it runs");
    let (stream, _) = listener.accept().expect("it asks");
    let end = judge(stream, kill_at, &mut child);
    assert!(poll(LIMIT, || child.try_wait().expect("ours").is_some()), "it does not end");
    let status = child.wait().expect("ours");
    assert_eq!(status.signal().is_some(), matches!(end, End::Killed), "{status}");
    end
}

fn judge(stream: UnixStream, kill_at: Option<usize>, child: &mut Child) -> End {
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    let mut answers = stream.try_clone().expect("a second end");
    let mut points = Vec::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        points.push(line);
        if kill_at == Some(points.len()) {
            child.kill().expect("ours");
            return End::Killed;
        }
        if answers.write_all(b".").is_err() {
            break;
        }
    }
    End::Ended(points)
}

/// Kills the binary at each point of a run, has another process go on, and gives each end: how
/// the run stands, and what was done.
fn killed_everywhere(template: &str) -> Vec<(String, Vec<String>)> {
    let whole = Scene::new(template);
    let begin = ["run", "--template", "release"];
    let End::Ended(points) = judged(&whole, &begin, None) else { panic!("nobody killed it") };
    assert_eq!(whole.status(), "succeeded");
    let mut ends = Vec::new();
    for number in 1..=points.len() {
        let scene = Scene::new(template);
        assert!(matches!(judged(&scene, &begin, Some(number)), End::Killed), "point {number}");
        let list = scene.must(0, &["runs", "list"]);
        match list.split_whitespace().next() {
            Some(run) => {
                scene.run(&["run", "--resume", run]);
            }
            // Killed before its first event was in: there is no run, and nothing was done.
            None => {
                assert_eq!(scene.lines("done").len(), 0);
                scene.run(&begin);
            }
        }
        ends.push((scene.status(), scene.lines("done")));
    }
    println!("{} points enumerated, {} kills", points.len(), ends.len());
    ends
}

/// Two effects; `QUERY` tells whether they were done.
const TWO_EFFECTS: &str = r#"
name: release
steps:
  - id: list
    uses: run.command
    with: { command: [sh, -c, 'echo "[1, 2]"'], repeatable: true }
  - id: deploy
    uses: run.command
    with:
      command: [sh, -c, "echo deploy $MAESTRO_IDEMPOTENCY_KEY >> done"]QUERY
  - id: notify
    uses: run.command
    with:
      command: [sh, -c, "echo notify $MAESTRO_IDEMPOTENCY_KEY >> done"]QUERY
"#;

#[test]
fn a_binary_killed_everywhere_does_nothing_twice() {
    let query = "\n      query: [sh, -c, \"grep -qs $MAESTRO_IDEMPOTENCY_KEY done || exit 1\"]";
    for (status, done) in killed_everywhere(&TWO_EFFECTS.replace("QUERY", query)) {
        assert_eq!(status, "succeeded", "{done:?}");
        assert_eq!(done.len(), 2, "{done:?}");
    }
}

#[test]
fn where_the_far_side_tells_nothing_a_killed_binary_leaves_it_to_a_person() {
    let ends = killed_everywhere(&TWO_EFFECTS.replace("QUERY", ""));
    let parked = ends.iter().filter(|(status, _)| status == "parked").count();
    for (status, mut done) in ends {
        let all = done.len();
        done.dedup();
        assert_eq!(done.len(), all, "something was done twice: {done:?}");
        match status.as_str() {
            "succeeded" => assert_eq!(all, 2),
            "parked" => assert!(all <= 2),
            other => panic!("the run is {other}"),
        }
    }
    assert!(parked >= 4, "{parked} runs were parked");
}

#[test]
fn a_hundred_runs_killed_at_a_random_moment_reach_the_end() {
    let query = "\n      query: [sh, -c, \"grep -qs $MAESTRO_IDEMPOTENCY_KEY done || exit 1\"]";
    let template = TWO_EFFECTS.replace("QUERY", query);
    let scene = Scene::new(&template);
    let begun = Instant::now();
    scene.must(0, &["run", "--template", "release"]);
    let whole = u64::try_from(begun.elapsed().as_micros()).expect("short");
    // A generator of this kind is enough for moments, and the same ones come again.
    let mut random: u64 = 0x5eed;
    for round in 0..100 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_micros((random >> 33) % whole);
        let scene = Scene::new(&template);
        let mut first = scene.command(&["run", "--template", "release"]).spawn().expect("it runs");
        std::thread::sleep(after);
        // It may have ended by itself.
        let _ = first.kill();
        first.wait().expect("ours");
        if scene.must(0, &["runs", "list"]).is_empty() {
            // It had not begun, so there is nothing to go on with.
            continue;
        }
        let run = scene.json()["run"].as_str().expect("a name").to_owned();
        scene.must(0, &["run", "--resume", &run]);
        let done = scene.lines("done");
        let mut once = done.clone();
        once.sort();
        once.dedup();
        let told = format!("round {round}, killed after {after:?}: {done:?}");
        assert_eq!(
            (done.len(), once.len(), scene.status().as_str()),
            (2, 2, "succeeded"),
            "{told}"
        );
    }
}

#[test]
fn two_processes_do_not_drive_one_run() {
    let scene = Scene::new(
        "name: release\nsteps:\n  - id: slow\n    uses: run.command\n    with: { command: [sh, -c, 'echo x > began; sleep 30'], repeatable: true }\n",
    );
    let mut first = scene.command(&["run", "--template", "release"]).spawn().expect("it runs");
    assert!(poll(LIMIT, || scene.path("began").exists()), "it does not begin");
    let run = scene.json()["run"].as_str().expect("a name").to_owned();
    let second = scene.must(2, &["run", "--resume", &run]);
    assert!(second.contains(&format!("is driven by process {}", first.id())), "{second}");
    scene.must(0, &["cancel", &run]);
    assert!(poll(LIMIT, || first.try_wait().expect("ours").is_some()), "it does not end");
    assert_eq!(first.wait().expect("ours").code(), Some(13));
}

#[test]
fn what_a_killed_run_left_behind_is_ended_before_it_is_done_again() {
    let scene = Scene::new(
        r#"
name: release
steps:
  - id: deploy
    uses: run.command
    with:
      command: [sh, -c, "echo x >> began; read line < gate; echo $MAESTRO_IDEMPOTENCY_KEY >> done"]
      query: [sh, -c, "grep -qs $MAESTRO_IDEMPOTENCY_KEY done || exit 1"]
"#,
    );
    let made = Command::new("mkfifo").arg(scene.path("gate")).status();
    assert!(made.is_ok_and(|status| status.success()));
    let begun = |count| poll(LIMIT, || scene.lines("began").len() == count);
    let mut first = scene.command(&["run", "--template", "release"]).spawn().expect("it runs");
    assert!(begun(1), "it does not begin");
    first.kill().expect("ours");
    first.wait().expect("ours");
    let run = scene.json()["run"].as_str().expect("a name").to_owned();
    let second = scene.command(&["run", "--resume", &run]).spawn().expect("it runs");
    assert!(begun(2), "it does not begin again");
    // Whoever still reads the pipe gets its end, and writes: there must be one.
    std::fs::write(scene.path("gate"), "go\n").expect("written");
    let end = second.wait_with_output().expect("it ends");
    assert_eq!(end.status.code(), Some(0), "{}", text(&end.stderr));
    assert_eq!(scene.lines("done").len(), 1);
}

#[test]
fn runs_of_a_group_wait_for_each_other_or_take_the_place() {
    let template = |cancel: bool| {
        format!(
            r#"
name: release
concurrency: {{ group: "deploy", cancel_running: {cancel} }}
steps:
  - id: slow
    uses: run.command
    with: {{ command: [sh, -c, "echo x >> began; read line < gate"], repeatable: true }}
"#
        )
    };
    for cancel in [false, true] {
        let scene = Scene::new(&template(cancel));
        let made = Command::new("mkfifo").arg(scene.path("gate")).status();
        assert!(made.is_ok_and(|status| status.success()));
        let begun = |count| poll(LIMIT, || scene.lines("began").len() == count);
        let start = || scene.command(&["run", "--template", "release"]).spawn().expect("it runs");
        let mut first = start();
        assert!(begun(1), "it does not begin");
        let second = start();
        if cancel {
            assert!(
                poll(LIMIT, || first.try_wait().expect("ours").is_some()),
                "it is not cancelled"
            );
            assert_eq!(first.wait().expect("ours").code(), Some(13));
        } else {
            let two = || scene.must(0, &["runs", "list"]).lines().count() == 2;
            assert!(poll(LIMIT, two), "the second does not begin");
            assert_eq!(scene.lines("began").len(), 1, "the second waits");
            std::fs::write(scene.path("gate"), "go\n").expect("written");
            assert_eq!(first.wait().expect("ours").code(), Some(0));
        }
        assert!(begun(2), "the second does not go on");
        std::fs::write(scene.path("gate"), "go\n").expect("written");
        let end = second.wait_with_output().expect("it ends");
        assert_eq!(end.status.code(), Some(0), "{}", text(&end.stderr));
    }
}

/// A build that has nothing to do takes no lock, and a step that is done asks for no build.
#[test]
fn a_target_that_is_up_to_date_waits_for_no_build() {
    let scene = Scene::new("name: x\nsteps:\n  - id: a\n    uses: //:quick\n");
    let rule = |name: &str, cmd: &str| {
        format!("genrule(name = \"{name}\", outs = [\"{name}.txt\"], cmd = \"{cmd} > $@\")\n")
    };
    let load = "load(\"@maestro//rules:basics.star\", \"genrule\")\n";
    let targets = [load, &rule("quick", "echo"), &rule("slow", "sleep 30")].concat();
    std::fs::write(scene.path("maestro.star"), targets).expect("written");
    let cached = || {
        let task = scene.json()["steps"][0]["tasks"][0].clone();
        assert_eq!(task["outputs"]["files"], serde_json::json!(["maestro-out/shared/quick.txt"]));
        task["cached"] == true
    };
    scene.must(0, &["run", "--template", "release"]);
    assert!(!cached());
    let mut slow = scene.command(&["build", "//:slow", "--events", "events.jsonl"]);
    let mut slow = slow.spawn().expect("it starts");
    let began = || scene.lines("events.jsonl").iter().any(|line| line.contains("action-started"));
    assert!(poll(LIMIT, began), "the slow build holds the workspace");
    scene.must(0, &["run", "--template", "release"]);
    assert!(cached());
    assert_eq!(slow.try_wait().expect("ours"), None, "it still builds");
    let slow_id = rustix::process::Pid::from_child(&slow);
    rustix::process::kill_process(slow_id, rustix::process::Signal::INT).expect("it lives");
    slow.wait().expect("ours");
    std::fs::remove_file(scene.path("maestro-out/shared/quick.txt")).expect("it was made");
    scene.must(0, &["run", "--template", "release"]);
    assert!(scene.path("maestro-out/shared/quick.txt").is_file(), "made again");
}

#[test]
fn what_would_be_passed_over_in_silence_is_refused() {
    let scene = Scene::new(
        "name: x\nsteps:\n  - id: a\n    uses: run.command\n    with: { command: [\"true\"] }\n    egress: [example.com]\n",
    );
    let egress = scene.must(2, &["run", "--template", "release"]);
    assert!(egress.contains("does not see to `egress` of a step yet"), "{egress}");
    assert!(egress.contains("release.pipeline.yaml:3:"), "{egress}");
    let jobs = scene.must(2, &["run", "--template", "release", "--jobs", "3"]);
    assert!(jobs.contains("`--jobs` has no meaning with `--template`"), "{jobs}");
}

#[test]
fn dead_letters_are_shown_replayed_and_dropped() {
    let scene = Scene::new(
        r#"
name: release
steps:
  - id: build
    uses: run.command
    with: { command: [sh, -c, "echo x >> tried; test -e ok"], repeatable: true }
"#,
    );
    scene.must(1, &["run", "--template", "release"]);
    let run = scene.json()["run"].as_str().expect("a name").to_owned();
    let list = || scene.must(0, &["runs", "dlq", "list"]);
    assert!(list().starts_with(&format!("{run} build failed: ")), "{}", list());
    for (flags, found) in [
        (["--class", "user"], true),
        (["--class", "infrastructure"], false),
        (["--template", "release"], true),
        (["--template", "other"], false),
        (["--step", "build"], true),
        (["--step", "other"], false),
    ] {
        let told = scene.must(0, &[&["runs", "dlq", "list"], &flags[..]].concat());
        assert_eq!(!told.is_empty(), found, "{flags:?}: {told}");
    }
    let told = scene.must(2, &["runs", "dlq", "list", "--class", "bad"]);
    assert!(told.contains("`bad` is no class of failures"), "{told}");
    let shown = scene.must(0, &["runs", "dlq", "show", &run]);
    assert!(shown.contains("class: user") && shown.contains("go on: maestro retry"), "{shown}");

    // By a filter it is replayed three times, then only by its name.
    let tries = || scene.lines("tried").len();
    for count in 2..=4 {
        scene.must(1, &["runs", "dlq", "replay", "--all"]);
        assert_eq!(tries(), count);
    }
    let told = scene.must(0, &["runs", "dlq", "replay", "--all"]);
    assert!(told.starts_with(&format!("left out {run}: it was replayed 3 times")), "{told}");
    assert_eq!(tries(), 4);

    scene.must(2, &["runs", "dlq", "drop", &run]);
    scene.must(0, &["runs", "dlq", "drop", &run, "--reason", "no matter"]);
    assert_eq!(list(), "");
    assert_eq!(scene.status(), "failed", "dropping changes nothing else");
    std::fs::write(scene.path("ok"), "").expect("written");
    scene.must(0, &["runs", "dlq", "replay", &run]);
    assert_eq!(scene.status(), "succeeded");
    let told = scene.must(2, &["runs", "dlq", "drop", &run, "--reason", "too late"]);
    assert!(told.contains("the run did not fail"), "{told}");
}
