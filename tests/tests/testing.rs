//! `maestro test`: shards, retries, filters, reports. What ran is asserted, not only what came out.

use std::path::Path;

use maestro_tests::Workspace;
use serde_json::Value;

/// A workspace with one shell test; `attributes` follow its name and sources.
fn workspace(script: &str, attributes: &str) -> Workspace {
    let ws = Workspace::new();
    ws.write("p/t.sh", format!("#!/bin/bash\nset -eu\n{script}\n"));
    ws.write(
        "p/maestro.star",
        format!(
            "load(\"@maestro//rules:basics.star\", \"sh_test\")
sh_test(name = \"t\", srcs = [\"t.sh\"], size = \"small\", {attributes})
"
        ),
    );
    ws
}

/// Runs `test //p:t` and returns exit code, standard error, and the events of tests.
fn test(ws: &Workspace, flags: &[&str]) -> (i32, String, Vec<Value>) {
    let events = ws.outside().join("events.jsonl");
    let events_flag = format!("--events={}", events.display());
    let mut args = vec!["test", "//p:t", &events_flag];
    args.extend(flags);
    let run = ws.run(&args);
    (run.code, run.stderr, test_events(&events))
}

fn test_events(events: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(events).expect("events were written");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.filter(|e| e["event"] == "test-result" || e["event"] == "test-finished").collect()
}

/// How many runs of the test were executed.
fn ran(ws: &Workspace) -> usize {
    let text = std::fs::read_to_string(ws.outside().join("events.jsonl")).expect("events");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let done = |e: &Value| e["event"] == "action-finished" && e["outcome"] == "executed";
    events.filter(|e| done(e) && e["mnemonic"] == "Test").count()
}

#[test]
fn each_shard_is_an_action_of_its_own() {
    let script = "touch \"$TEST_SHARD_STATUS_FILE\"\necho \"shard $TEST_SHARD_INDEX of $TEST_TOTAL_SHARDS\"\n[ \"$TEST_SHARD_INDEX\" != 1 ] || [ -n \"${MORE:-}\" ]";
    let ws = workspace(script, "shard_count = 3");
    let (code, error, events) = test(&ws, &[]);
    assert_eq!(code, 1, "{error}");
    let status = |events: &[Value]| -> Vec<String> {
        let text = |e: &Value| format!("{} {} {}", e["event"], e["shard"], e["status"]);
        events.iter().map(|e| text(e).replace('"', "")).collect()
    };
    assert_eq!(
        status(&events),
        [
            "test-result 1 passed",
            "test-result 2 failed",
            "test-result 3 passed",
            "test-finished null failed"
        ]
    );
    assert_eq!(events[3]["shards"], 3);
    assert_eq!(ws.read("maestro-out/testlogs/p/t/shard_3_of_3/test.log"), "shard 2 of 3\n");
    // Only the shard that failed runs again; a variable makes variants of all three.
    let (code, _, events) = test(&ws, &[]);
    assert_eq!((code, ran(&ws)), (1, 0), "failures run, and are not counted as executed");
    assert_eq!(events[0]["cached"], true);
    let (code, error, events) = test(&ws, &["--test-env=MORE=1"]);
    assert_eq!((code, ran(&ws)), (0, 3), "{error}");
    assert_eq!(events[3]["status"], "passed");
}

#[test]
fn a_runner_that_ignores_shards_is_an_error() {
    let ws = workspace("echo fine", "shard_count = 2");
    let (code, error, _) = test(&ws, &[]);
    assert_eq!(code, 1);
    assert!(error.contains("its runner knows nothing of shards"), "{error}");
    let ws = workspace("echo fine", "shard_count = 51");
    let error = ws.fails(2, &["test", "//p:t"]);
    assert!(error.contains("`shard_count` must be from 0 to 50, not 51"), "{error}");
}

#[test]
fn a_declared_flaky_test_is_tried_again_and_says_so() {
    // Only without a sandbox can one attempt leave something behind for the next.
    let ws = Workspace::new();
    let mark = ws.outside().join("tried").display().to_string();
    let text = |needed: usize| {
        format!("#!/bin/bash\necho x >> {mark}\n[ \"$(wc -l < {mark})\" -ge {needed} ] || exit 1\n")
    };
    ws.write(
        "p/maestro.star",
        "load(\"@maestro//rules:basics.star\", \"sh_test\")
sh_test(name = \"t\", srcs = [\"t.sh\"], flaky = True)
",
    );
    let check = |needed: usize, code: i32, status: &str, attempts: usize| {
        ws.write("p/t.sh", text(needed));
        let _ = std::fs::remove_file(&mark);
        let (found, error, events) = test(&ws, &["--sandbox=none"]);
        assert_eq!((found, &events[1]["status"]), (code, &Value::from(status)), "{error}");
        let tried = std::fs::read_to_string(&mark).expect("tried").lines().count();
        assert_eq!(tried, attempts, "{error}");
    };
    check(4, 1, "failed", 3);
    check(1, 0, "passed", 1);
    check(3, 0, "flaky", 3);
    let (code, error, events) = test(&ws, &["--sandbox=none"]);
    assert_eq!((code, ran(&ws), &events[1]["status"]), (0, 0, &Value::from("flaky")), "{error}");
    assert!(error.contains("FLAKY"), "{error}");
    // An edit that the test cannot see leaves the verdict as it was.
    ws.write("p/maestro.star", format!("# a comment\n{}", ws.read("p/maestro.star")));
    let (code, error, events) = test(&ws, &["--sandbox=none"]);
    assert_eq!((code, ran(&ws), &events[1]["status"]), (0, 0, &Value::from("flaky")), "{error}");
    // A late pass counts only for a test that says that it is flaky.
    ws.write("p/maestro.star", ws.read("p/maestro.star").replace("flaky = True", ""));
    std::fs::remove_file(&mark).expect("tried before");
    let (code, error, events) = test(&ws, &["--sandbox=none"]);
    assert_eq!((code, &events[1]["status"]), (1, &Value::from("failed")), "{error}");
}

#[test]
fn a_test_that_is_not_flaky_is_tried_once() {
    let ws = workspace("echo tried; exit 1", "");
    let (code, error, _) = test(&ws, &[]);
    assert_eq!((code, error.matches("\ntried").count()), (1, 1), "{error}");
}

#[test]
fn filters_and_arguments_reach_the_test_and_are_cached_by_themselves() {
    let script = "echo \"filter ${TESTBRIDGE_TEST_ONLY:-none} args $* run ${TEST_RUN_NUMBER:-0} env ${A:-}\"";
    let ws = workspace(script, "args = [\"own\"]");
    let check = |flags: &[&str], runs: usize, expect: &str| {
        let (code, error, events) = test(&ws, flags);
        assert_eq!((code, ran(&ws)), (0, runs), "{flags:?}: {error}");
        let log = events[0]["log_path"].as_str().expect("a log");
        assert_eq!(ws.read(log), expect, "{flags:?}");
    };
    check(&[], 1, "filter none args own run 0 env \n");
    let all = ["--test-filter=a*", "--test-arg=--more", "--test-arg=x y", "--test-env=A=b"];
    check(&all, 1, "filter a* args own --more x y run 0 env b\n");
    check(&all, 0, "filter a* args own --more x y run 0 env b\n");
    check(&["--test-filter=b"], 1, "filter b args own run 0 env \n");
    check(&[], 0, "filter none args own run 0 env \n");
    let (code, error, events) = test(&ws, &["--runs-per-test=3"]);
    assert_eq!((code, ran(&ws)), (0, 3), "{error}");
    assert_eq!((&events[3]["runs"], events.len()), (&Value::from(3), 4));
    let log = events[2]["log_path"].as_str().expect("a log");
    assert!(log.ends_with("/run_3_of_3/test.log"), "{log}");
    let third = ws.read(log);
    assert_eq!(third, "filter none args own run 3 env \n");
    let error = ws.fails(2, &["test", "//p:t", "--test-env=A"]);
    assert!(error.contains("`--test-env=A` sets no variable"), "{error}");
}

#[test]
fn a_variant_sees_edits_of_what_it_varies() {
    let ws = workspace("echo \"args $*\"; [ \"$1\" = good ]", "args = [\"good\"]");
    let check = |code: i32, runs: usize| {
        let (found, error, events) = test(&ws, &["--test-arg=more"]);
        assert_eq!((found, ran(&ws)), (code, runs), "{error}");
        let log = events[0]["log_path"].as_str().expect("a log");
        ws.read(log)
    };
    assert_eq!(check(0, 1), "args good more\n");
    let build_file = ws.read("p/maestro.star");
    ws.write("p/maestro.star", build_file.replace("\"good\"", "\"bad\""));
    assert_eq!(check(1, 0), "args bad more\n");
    assert_eq!(check(1, 0), "args bad more\n");
    ws.write("p/maestro.star", &build_file);
    assert_eq!(check(0, 0), "args good more\n");
    ws.write("p/t.sh", "#!/bin/bash\necho edited\n");
    assert_eq!(check(0, 1), "edited\n");
}

#[test]
fn logs_that_were_removed_are_written_again() {
    let ws = workspace("echo words; touch \"$TEST_SHARD_STATUS_FILE\"", "shard_count = 2");
    test(&ws, &[]);
    let logs = ws.root.join("maestro-out/testlogs/p/t");
    let first = "maestro-out/testlogs/p/t/shard_1_of_2/test";
    let report = ws.read(&format!("{first}.xml"));
    let check = || {
        let (code, error, events) = test(&ws, &["--junit=all.xml"]);
        assert_eq!((code, ran(&ws), &events[2]["cached"]), (0, 0, &Value::from(true)), "{error}");
        assert_eq!(ws.read(&format!("{first}.log")), "words\n");
        assert_eq!(ws.read(&format!("{first}.xml")), report);
    };
    std::fs::remove_dir_all(&logs).expect("logs");
    check();
    ws.write(&format!("{first}.log"), "somebody else's words\n");
    check();
    check();
}

#[test]
fn coverage_is_gathered_from_every_shard() {
    let script = "touch \"$TEST_SHARD_STATUS_FILE\"
[ -z \"${COVERAGE:-}\" ] && exit
touch \"$COVERAGE_DIR/raw\"
printf 'SF:p/t.sh\\nDA:%s,1\\nend_of_record\\n' \"$TEST_SHARD_INDEX\" > \"$COVERAGE_OUTPUT_FILE\"
[ \"$TEST_SHARD_INDEX\" = \"${BAD:-none}\" ] && exit 1
exit 0";
    let ws = workspace(script, "shard_count = 2");
    let trace = |line: &str| format!("SF:p/t.sh\nDA:{line},1\nend_of_record\n");
    let check = |flags: &[&str], code: i32, runs: usize| {
        let (found, error, _) = test(&ws, flags);
        assert_eq!((found, ran(&ws)), (code, runs), "{error}");
    };
    check(&[], 0, 2);
    assert!(!ws.root.join("maestro-out/testlogs/p/t/shard_1_of_2/coverage.dat").exists());
    for runs in [2, 0] {
        let _ = std::fs::remove_file(ws.root.join("all.lcov"));
        check(&["--coverage=all.lcov"], 0, runs);
        assert_eq!(ws.read("all.lcov"), trace("0") + &trace("1"));
    }
    // A test that fails covers, too.
    check(&["--coverage=all.lcov", "--test-env=BAD=0"], 1, 1);
    assert_eq!(ws.read("all.lcov"), trace("0") + &trace("1"));
    let none = workspace("exit 0", "");
    let (code, error, _) = test(&none, &["--coverage=all.lcov"]);
    assert_eq!((code, none.read("all.lcov").as_str()), (0, ""));
    assert!(error.contains("no test wrote to COVERAGE_OUTPUT_FILE"), "{error}");
}

#[test]
fn tags_and_sizes_choose_tests() {
    let ws = Workspace::new();
    ws.write("t.sh", "#!/bin/bash\n");
    let rule =
        |name: &str, rest: &str| format!("sh_test(name = \"{name}\", srcs = [\"t.sh\"], {rest})\n");
    ws.write(
        "maestro.star",
        format!(
            "load(\"@maestro//rules:basics.star\", \"sh_test\")\n{}{}{}",
            rule("a", "size = \"small\", tags = [\"fast\"]"),
            rule("b", "size = \"large\", tags = [\"fast\", \"net\"]"),
            rule("c", "tags = [\"exclusive\"]"),
        ),
    );
    let check = |flags: &[&str], expect: &[&str]| {
        let mut args = vec!["test", "//..."];
        args.extend(flags);
        let summary = ws.ok(&args);
        let targets = summary["targets"].as_array().expect("targets");
        let labels: Vec<&str> =
            targets.iter().map(|t| t["label"].as_str().expect("a label")).collect();
        assert_eq!(labels, expect, "{flags:?}");
    };
    check(&[], &["//:a", "//:b", "//:c"]);
    check(&["--test-tag-filters=fast"], &["//:a", "//:b"]);
    check(&["--test-tag-filters=fast,-net"], &["//:a"]);
    check(&["--test-tag-filters=-fast"], &["//:c"]);
    check(&["--test-size-filters=small,medium"], &["//:a", "//:c"]);
    let error = ws.fails(2, &["test", "//...", "--test-tag-filters=none"]);
    assert!(error.contains("the filters leave out every test"), "{error}");
    let error = ws.fails(2, &["test", "//...", "--test-size-filters=-smal"]);
    assert!(error.contains("there is no size `-smal`"), "{error}");
}

#[test]
fn logs_are_shown_as_asked() {
    let check = |script: &str, flags: &[&str], code: i32, shown: bool| {
        let ws = workspace(script, "");
        let (found, error, _) = test(&ws, flags);
        assert_eq!(
            (found, error.contains("words of the test")),
            (code, shown),
            "{flags:?}: {error}"
        );
    };
    let (fine, bad) = ("echo words of the test", "echo words of the test; exit 3");
    check(fine, &[], 0, false);
    check(fine, &["--test-output=all"], 0, true);
    let ws = workspace(fine, "");
    for _ in 0..3 {
        let (_, error, _) = test(&ws, &["--test-output=all"]);
        assert_eq!(error.matches("words of the test").count(), 1, "also from the cache: {error}");
    }
    check(bad, &[], 1, true);
    check(bad, &["--test-output=summary"], 1, false);
}

#[test]
fn reports_of_tests_are_kept_and_merged() {
    let ws = Workspace::new();
    let own = "cat > \"$XML_OUTPUT_FILE\" <<'END'\n<?xml version=\"1.0\"?>\n<testsuites><testsuite name=\"mine\"><testcase name=\"one\"/></testsuite></testsuites>\nEND\n";
    ws.write("own.sh", format!("#!/bin/bash\n{own}exit 1\n"));
    ws.write("plain.sh", "#!/bin/bash\necho '<odd> & words'\n");
    ws.write("broken.sh", "#!/bin/bash\necho '<testsuite' > \"$XML_OUTPUT_FILE\"\n");
    ws.write(
        "maestro.star",
        "load(\"@maestro//rules:basics.star\", \"sh_test\")
[sh_test(name = n, srcs = [n + \".sh\"]) for n in [\"own\", \"plain\", \"broken\"]]
",
    );
    ws.fails(1, &["test", "//...", "--junit=all.xml"]);
    let merged = ws.read("all.xml");
    let own_suite = "<testsuite name=\"mine\"><testcase name=\"one\"/></testsuite>";
    assert!(merged.contains(own_suite), "a failed test's own report is kept:\n{merged}");
    assert!(merged.contains("<testsuite name=\"//:plain\" tests=\"1\" failures=\"0\""), "{merged}");
    assert!(merged.contains("&lt;odd&gt; &amp; words"), "{merged}");
    assert!(merged.contains("<testsuite name=\"//:broken\""), "{merged}");
    assert_eq!(merged.matches("<testsuites>").count(), 1, "{merged}");
    assert!(ws.read("maestro-out/testlogs/own/test.xml").contains(own_suite));
    // A build that has nothing to do reports the same.
    ws.ok(&["test", "//:plain", "--junit=a.xml"]);
    ws.ok(&["test", "//:plain", "--junit=b.xml"]);
    assert_eq!(ws.read("a.xml"), ws.read("b.xml"));
}
