//! `maestro policy` as users see it: output, exit codes, configuration, and pages made from it.

use std::path::Path;

use maestro_tests::Workspace;
use maestro_tests::guide::{follow, page, steps};
use serde_json::Value;

const POINTS: [&str; 4] = ["run_start", "step_start", "effect", "approval"];

/// Compares with a page, or writes it where `MAESTRO_BLESS` is set.
fn golden(path: &Path, got: &str) {
    if std::env::var_os("MAESTRO_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        std::fs::write(path, got).expect("a file can be written");
    }
    let want = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(got, want, "`{}` differs; `cargo xtask bless` writes it", path.display());
}

#[test]
fn the_guide_does_what_it_says() {
    let ws = Workspace::new();
    let runs = follow(&ws, &steps("write-a-policy.md"));
    assert_eq!(runs.len(), 13, "commands");
}

#[test]
fn schemas_are_published() {
    let ws = Workspace::new();
    for point in POINTS {
        let run = ws.run(&["policy", "schema", point]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        golden(&page("reference/policy").join(format!("{point}.schema.json")), &run.stdout);
    }
    let listed = ws.run(&["policy", "schema"]).stdout;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, POINTS);
}

const NO_PUSH: &str = "package maestro.run_start.no_push\n\n\
    deny contains {\"code\": \"no_push\", \"msg\": \"pushes start nothing\"} if input.trigger.kind == \"push\"\n";

const TESTS: &str = "package maestro.run_start.no_push_test\n\n\
    import data.maestro.run_start.no_push\n\n\
    denies(trigger) if count(no_push.deny) > 0 with input as {\"trigger\": trigger}\n\n\
    test_push if denies({\"kind\": \"push\", \"branch\": \"main\"})\n\n\
    test_manual if { print(\"said in the test\"); denies({\"kind\": \"manual\"}) }\n\n\
    todo_test_later if false\n";

fn workspace() -> Workspace {
    let ws = Workspace::new();
    ws.write("maestro.toml", "[policy]\npaths = [\"rules\"]\n");
    ws.write("rules/no_push.rego", NO_PUSH);
    ws
}

#[test]
fn tests_fail_with_what_they_printed() {
    let ws = workspace();
    let none = ws.run(&["policy", "test"]);
    assert_eq!((none.code, none.stderr.contains("there are no tests")), (2, true));
    ws.write("rules/no_push_test.rego", TESTS);
    let run = ws.run(&["policy", "test"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let told: Vec<&str> = run
        .stdout
        .lines()
        .map(|line| line.split(" (").next().unwrap_or_default())
        .filter(|line| !line.starts_with("---"))
        .collect();
    assert_eq!(
        told,
        [
            "rules/no_push_test.rego:",
            "data.maestro.run_start.no_push_test.test_manual: FAIL",
            "  rules/no_push_test.rego:9: said in the test",
            "PASS: 1/3",
            "FAIL: 1/3",
            "SKIPPED: 1/3",
        ]
    );
    let json = ws.run(&["policy", "test", "--output", "json", "--filter", "push", "--coverage"]);
    let report: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let outcomes: Vec<&Value> =
        report["tests"].as_array().expect("a list").iter().map(|test| &test["outcome"]).collect();
    assert_eq!(outcomes, ["pass", "fail", "skipped"]);
    assert_eq!(report["coverage"][0]["file"], "rules/no_push.rego");
    assert_eq!(report["coverage"][0]["percent"], 100.0);
    let one = ws.run(&["policy", "test", "--filter", "test_push"]);
    assert_eq!((one.code, one.stdout.as_str()), (0, "PASS: 1/1\n"));
}

const QUESTION: &str = r#"{
  "now": "2026-11-23T12:00:00Z",
  "run": {"id": "r1", "template": "t", "template_digest": "DIGEST", "project": "p", "params": {}},
  "initiator": {"id": "lin", "identity": {"kind": "local", "user": "lin"}, "roles": []},
  "trigger": TRIGGER,
  "source": {"state": "dirty"},
  "environment": {"tier": "none"},
  "budget": {"state": "unlimited"}
}"#;

fn question(trigger: &str) -> String {
    let digest = format!("sha256:{}/0", "0".repeat(64));
    QUESTION.replace("DIGEST", &digest).replace("TRIGGER", trigger)
}

#[test]
fn an_explanation_names_rules_and_digests() {
    let ws = workspace();
    ws.write("push.json", question("{\"kind\": \"push\", \"branch\": \"main\"}"));
    ws.write("manual.json", question("{\"kind\": \"manual\"}"));
    let ask = |file: &str| {
        let run = ws.run(&[
            "policy",
            "explain",
            "--point",
            "run_start",
            "--input",
            file,
            "--output",
            "json",
        ]);
        let answer: Value = serde_json::from_str(&run.stdout).expect(&run.stderr);
        (run.code, answer)
    };
    let (code, denied) = ask("push.json");
    assert_eq!((code, &denied["decision"]["verdict"]), (1, &"deny".into()));
    assert_eq!(denied["decision"]["reasons"][0]["code"], "no_push");
    let fired: Vec<String> = denied["rules"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|rule| rule["result"] == "denied")
        .map(|rule| format!("{}:{}", rule["file"].as_str().expect("a text"), rule["line"]))
        .collect();
    assert_eq!(fired, ["rules/no_push.rego:3"]);
    let (code, allowed) = ask("manual.json");
    assert_eq!((code, &allowed["decision"]["verdict"]), (0, &"allow".into()));
    assert_eq!(denied["decision"]["policy"], allowed["decision"]["policy"]);
    assert_ne!(denied["decision"]["input"], allowed["decision"]["input"]);
}

#[test]
fn questions_that_are_none_are_explained() {
    let ws = workspace();
    let check = |point: &str, text: &str, expect: &str| {
        ws.write("q.json", text);
        let run = ws.run(&["policy", "explain", "--point", point, "--input", "q.json"]);
        assert_eq!((run.code, run.stderr.contains(expect)), (2, true), "{}", run.stderr);
    };
    check("efect", "{}", "there is no decision point `efect`");
    check("effect", "{}", "missing field `now`");
    check("run_start", "{\"now\": ", "EOF");
    check("run_start", &question("{\"kind\": \"magic\"}"), "unknown variant `magic`");
    check("run_start", &"[".repeat(100_000), "recursion limit");
    let run = ws.run(&["policy", "explain", "--point", "effect", "--input", "none.json"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn a_step_that_asks_for_all_memory_ends_the_program() {
    let ws = workspace();
    let mut text = NO_PUSH.replace("input.trigger.kind == \"push\"", "count(huge) > 0");
    text.push_str("\nhuge := replace(a20, \"a\", a20)\n\na0 := \"a\"\n");
    for n in 0..20 {
        text.push_str(&format!("\na{} := concat(\"\", [a{n}, a{n}])\n", n + 1));
    }
    ws.write("rules/no_push.rego", text);
    ws.write("manual.json", question("{\"kind\": \"manual\"}"));
    let run = ws.run(&["policy", "explain", "--point", "run_start", "--input", "manual.json"]);
    let expect = "error[MAE0710]: one step of `policy` asks for ";
    assert_eq!((run.code, run.stderr.starts_with(expect)), (2, true), "{}", run.stderr);
}

#[test]
fn lint_tells_errors_and_remarks_apart() {
    let ws = workspace();
    let lint = || {
        let run = ws.run(&["policy", "lint", "--output", "json"]);
        let report: Value = serde_json::from_str(&run.stdout).expect(&run.stderr);
        let codes: Vec<String> = report["findings"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|finding| format!("{} {}", finding["code"], finding["line"]).replace('"', ""))
            .collect();
        (run.code, codes)
    };
    assert_eq!(lint(), (0, Vec::new()));
    ws.write("rules/no_push.rego", format!("{NO_PUSH}\nlimit := 3\n"));
    assert_eq!(lint(), (1, vec!["MAE0750 5".to_owned()]));
    ws.write("rules/no_push.rego", NO_PUSH.replace("trigger", "triger"));
    assert_eq!(lint(), (2, vec!["MAE0703 3".to_owned()]));
    let run = ws.run(&["policy", "test"]);
    assert_eq!(run.code, 2);
    assert!(
        run.stderr.starts_with(
            "error[MAE0703]: rules/no_push.rego:3:75: `input` has no field `triger` at the \
             decision point `run_start`\n"
        ),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("\nhint: did you mean `trigger`?\n"), "{}", run.stderr);
}

#[test]
fn the_built_in_policies_can_be_taken_over() {
    let ws = workspace();
    ws.write("maestro.toml", "[policy]\npaths = [\"rules\"]\ndefault = false\n");
    ws.write("manual.json", question("{\"kind\": \"manual\"}"));
    let explain =
        || ws.run(&["policy", "explain", "--point", "run_start", "--input", "manual.json"]);
    let alone = explain();
    assert_eq!(alone.code, 0, "{}", alone.stderr);
    assert!(!alone.stdout.contains("@maestro"), "{}", alone.stdout);
    // Nothing answers for this point, so the answer is no.
    ws.write(
        "rules/no_push.rego",
        NO_PUSH
            .replace("run_start", "approval")
            .replace("trigger.kind == \"push\"", "request == \"approve\""),
    );
    let run = explain();
    assert_eq!((run.code, run.stdout.contains("policy_undefined")), (1, true), "{}", run.stdout);
    // What is printed can be taken as it is.
    for point in POINTS {
        ws.write(&format!("rules/{point}.rego"), ws.run(&["policy", "show", point]).stdout);
        let tests = ws.run(&["policy", "show", point, "--tests"]).stdout;
        ws.write(&format!("rules/{point}_test.rego"), tests);
    }
    assert_eq!(ws.run(&["policy", "test"]).code, 0);
    assert_eq!(explain().code, 0);
    ws.write("maestro.toml", "[policy]\npath = []\n");
    let run = ws.run(&["policy", "test"]);
    assert_eq!(
        (run.code, run.stderr.contains("unknown field `path`")),
        (2, true),
        "{}",
        run.stderr
    );
}

#[test]
fn policies_need_no_workspace() {
    let ws = Workspace::new();
    let folder = ws.outside().join("elsewhere");
    std::fs::create_dir(&folder).expect("a folder can be made");
    std::fs::write(folder.join("no_push.rego"), NO_PUSH).expect("it can be written");
    let tests =
        TESTS.replace("denies({\"kind\": \"manual\"})", "not denies({\"kind\": \"manual\"})");
    std::fs::write(folder.join("no_push_test.rego"), tests).expect("it can be written");
    let output = std::process::Command::new(maestro_tests::maestro_bin())
        .args(["policy", "test", "."])
        .current_dir(&folder)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
}
