//! Pipelines by the built binary: lint, fixes, graphs, starters, imports, and bad input.

use std::time::{Duration, Instant};

use maestro_tests::{Run, Workspace};
use serde_json::Value;

const SAMPLE: &str = include_str!("../../docs/examples/intelgraph-build.pipeline.yaml");

/// Three slips that a machine can mend, and two that it cannot.
const WRONG: &str = "name: wrong
steps:
  - id: pages
    uses: web.scrap
    with: { urls: https://docs.example.com/, mode: headles }
  - id: tell
    uses: notify.webhook
    with: { url: \"https://hooks.example.com/\", body: ${{ steps.page.outputs.text }} }
    until: true
";

fn workspace(files: &[(&str, &str)]) -> Workspace {
    let ws = Workspace::new();
    for (path, text) in files {
        ws.write(path, text);
    }
    ws
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}{}", run.stdout, run.stderr))
}

fn messages(value: &Value) -> Vec<String> {
    let findings = value["findings"].as_array().expect("a list");
    let text = |one: &Value| {
        format!(
            "{}:{} {} {}",
            one["line"],
            one["column"],
            one["code"].as_str().expect("a code"),
            one["message"].as_str().expect("a text")
        )
    };
    findings.iter().map(text).collect()
}

#[test]
fn the_sample_lints_clean_and_says_what_it_leaves_to_the_project() {
    let ws = workspace(&[("ci/intelgraph-build.pipeline.yaml", SAMPLE)]);
    // Other notes say which steps this Maestro cannot run yet.
    let lint = |args: &[&str]| {
        let told = ws.run(&[&["template", "lint"], args].concat()).stderr;
        assert!(told.starts_with("1 pipeline: nothing to mend"), "{told}");
        let run = ws.run(&[&["template", "lint", "--output", "json"], args].concat());
        (run.code, messages(&json(&run)).iter().filter(|line| line.contains("MAE0616")).count())
    };
    assert_eq!(lint(&[]), (0, 2));
    ws.write(
        "maestro.toml",
        "[defaults.llm]\nmodel = \"m\"\ngenerate = { prompt = \"p\" }\n[defaults.cd]\nvia = \"gate\"\n\
         gate = \"https://gate.example.com/\"\n",
    );
    assert_eq!(lint(&["ci"]), (0, 0));
    // A default of another type than the field is refused like a value of the file.
    ws.write("maestro.toml", "[defaults.cd]\nvia = \"pigeon\"\n[defaults.llm]\nmodel = 3\n");
    let found = messages(&json(&ws.run(&["template", "lint", "--output", "json"])));
    assert!(
        found.contains(
            &"31:9 MAE0604 `via` of `cd.rollout` is one of `gitops`, `gate`, not `pigeon`"
                .to_owned()
        ),
        "{found:?}"
    );
    ws.write("maestro.toml", "[defaults.llm]\nmodle = \"m\"\n");
    let told = ws.fails(2, &["template", "lint"]);
    assert!(told.contains("has a default `llm.modle` that no step takes"), "{told}");
}

#[test]
fn all_errors_of_a_file_are_told_in_every_form() {
    let ws = workspace(&[("wrong.pipeline.yaml", WRONG)]);
    let run = ws.run(&["template", "lint"]);
    assert_eq!(run.code, 1);
    let first = "error[MAE0606]: there is no kind of step `web.scrap`
 --> wrong.pipeline.yaml:4:11
  |
4 |     uses: web.scrap
  |           ^^^^^^^^^
hint: did you mean `web.scrape`?
";
    assert!(run.stdout.starts_with(first), "{}", run.stdout);
    assert!(run.stderr.contains("hint: `--fix` mends"), "{}", run.stderr);
    let value = json(&ws.run(&["template", "lint", "--output", "json"]));
    assert_eq!(
        messages(&value),
        [
            "4:11 MAE0606 there is no kind of step `web.scrap`",
            "8:64 MAE0607 there is no step `page`",
            "9:5 MAE0611 `until` needs `max`"
        ]
    );
    assert_eq!(
        value["findings"][0]["fix"],
        serde_json::json!({"start": 43, "end": 52, "text": "web.scrape"})
    );
    for args in [["--sarif", "wrong.pipeline.yaml"], ["--output", "sarif"]] {
        let run = ws.run(&["template", "lint", args[0], args[1]]);
        assert_eq!(run.code, 1);
        sarif(&json(&run));
    }
    let told = ws.fails(2, &["lint", "--output", "sarif"]);
    assert!(told.contains("`--output sarif` is a form of `template lint` only"), "{told}");
}

/// What the specification of SARIF 2.1.0 asks of a log, as far as there is something of it here.
fn sarif(log: &Value) {
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    assert!(run["tool"]["driver"]["name"].is_string());
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(rules.iter().any(|rule| rule["id"] == result["ruleId"]), "{result}");
        assert!(["error", "warning", "note"].contains(&result["level"].as_str().expect("a level")));
        assert!(!result["message"]["text"].as_str().expect("a text").is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "wrong.pipeline.yaml");
        for key in ["startLine", "startColumn", "endLine", "endColumn"] {
            assert!(place["region"][key].as_u64().expect("a number") >= 1);
        }
    }
    let change = &results[0]["fixes"][0]["artifactChanges"][0];
    let replaced = &change["replacements"][0];
    let region = &replaced["deletedRegion"];
    let start = region["byteOffset"].as_u64().expect("a number") as usize;
    let length = region["byteLength"].as_u64().expect("a number") as usize;
    assert_eq!(&WRONG[start..start + length], "web.scrap");
    assert_eq!(replaced["insertedContent"]["text"], "web.scrape");
}

#[test]
fn fix_mends_what_it_can_and_leaves_the_rest() {
    let ws = workspace(&[("wrong.pipeline.yaml", WRONG)]);
    let run = ws.run(&["template", "lint", "--fix"]);
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (1, "mended wrong.pipeline.yaml\n1 pipeline: 2 errors, 0 warnings\n")
    );
    let expect = WRONG
        .replace("web.scrap\n", "web.scrape\n")
        .replace("urls: https://docs.example.com/,", "urls: [https://docs.example.com/],")
        .replace("headles ", "headless ");
    assert_eq!(ws.read("wrong.pipeline.yaml"), expect);
    let ours = expect.replace("steps.page.", "steps.pages.");
    ws.write("wrong.pipeline.yaml", ours.replace("until: true", "until: true\n    max: 3"));
    assert_eq!(ws.run(&["template", "lint", "--fix"]).code, 0);
}

#[test]
fn show_tells_what_follows_what() {
    let ws = workspace(&[("a/intelgraph-build.pipeline.yaml", SAMPLE)]);
    let rows = ws.run(&["template", "show", "intelgraph-build", "--graph"]).stdout;
    assert!(rows.ends_with("scan         <- build*\nsign         <- build*, scan\npublish      <- build*, sign\ndeploy       <- publish*\n"), "{rows}");
    let graph = |form: &str| {
        let run = ws.run(&["template", "show", "intelgraph-build", "--graph", "--format", form]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{form}");
        run.stdout
    };
    let dot = graph("dot");
    assert!(
        dot.contains(
            "  \"scan\" -> \"sign\" [style=dashed];\n  \"build\" -> \"publish\" [style=solid];\n"
        ),
        "{dot}"
    );
    let svg = graph("svg");
    assert_eq!((svg.matches("<text").count(), svg.matches("marker-end").count()), (16, 10));
    assert!(svg.starts_with("<svg xmlns") && svg.ends_with("</svg>\n"));
    let value: Value = serde_json::from_str(&graph("json")).expect("JSON");
    assert_eq!(
        value["bindings"][3],
        serde_json::json!({"step": "deploy", "field": "subject", "maker": "publish", "output": "image"})
    );
    let overview = ws.run(&["template", "show", "a/intelgraph-build.pipeline.yaml"]).stdout;
    assert!(overview.contains("sign  supplychain.sign (effect)\n  after build: takes from it\n  after scan: is an effect below it\n"), "{overview}");
}

#[test]
fn starters_become_files_that_lint_clean() {
    let ws = workspace(&[]);
    let value = json(&ws.run(&["template", "list", "--output", "json"]));
    let starters = value["starters"].as_array().expect("a list");
    assert!(starters.len() >= 4);
    for starter in starters {
        let name = starter["name"].as_str().expect("a name");
        let run = ws.run(&["template", "new", &format!("my-{name}"), "--starter", name]);
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    assert_eq!(ws.run(&["template", "lint"]).code, 0);
    let again = ws.fails(2, &["template", "new", "my-nightly-scan", "--starter", "nightly-scan"]);
    assert!(again.contains("`my-nightly-scan.pipeline.yaml` is there already"), "{again}");
    let set = ["template", "new", "b", "--starter", "build-and-test", "--set", "target=//app:x"];
    assert_eq!(ws.run(&set).code, 0);
    assert!(ws.read("b.pipeline.yaml").contains("uses: \"//app:x\""));
    let told =
        ws.fails(2, &["template", "new", "c", "--starter", "build-and-test", "--set", "x=1"]);
    assert!(told.contains("it asks for `target`, `tests`"), "{told}");
    let told = ws.fails(2, &["template", "new", "7 c", "--starter", "build-and-test"]);
    assert!(told.contains("`7 c` is no name of a pipeline"), "{told}");
    let told = ws.fails(2, &["template", "new", "d"]);
    assert!(told.contains("`--starter` takes one of `build-and-test`"), "{told}");
    let listed = ws.run(&["template", "list"]).stdout;
    assert!(listed.starts_with("b  (b.pipeline.yaml)\n"), "{listed}");
}

#[test]
fn starters_run_as_far_as_their_steps_can() {
    let ws = workspace(&[
        (
            "maestro.star",
            "load(\"@maestro//rules:basics.star\", \"genrule\", \"sh_test\")\n\
             sh_test(name = \"t\", srcs = [\"t.sh\"])\n\
             genrule(name = \"release\", outs = [\"app\"], cmd = \"echo app > $@\")\n",
        ),
        ("t.sh", "exit 0\n"),
    ]);
    let state = ws.outside().join("state").display().to_string();
    let ws = ws.with_env("MAESTRO_STATE", &state);
    let check = |starter: &str, code: i32, expect: &str| {
        let run = ws.run(&["template", "new", starter, "--starter", starter]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let file = format!("{starter}.pipeline.yaml");
        let linted = ws.run(&["template", "lint", "--output", "json", &file]);
        assert_eq!(linted.code, 0, "{}", linted.stdout);
        // What lint notes is what the run says when it comes there.
        let notes = messages(&json(&linted));
        let unbuilt = notes.iter().find(|line| line.contains(" MAE0618 "));
        let unbuilt = unbuilt.and_then(|line| Some(line.split_once("`: ")?.1));
        let run = ws.run(&["run", "--template", starter, "--no-wait"]);
        let told = format!("{}{}", run.stdout, run.stderr);
        let (code, expect) = unbuilt.map_or((code, expect), |why| (1, why));
        assert!(run.code == code && told.contains(expect), "{starter}: {}\n{told}", run.code);
    };
    check("build-and-test", 0, "succeeded");
    // Two people have to agree.
    check("gitops-canary", 10, "maestro approve");
    check("container-release", 0, "succeeded");
    check("nightly-scan", 0, "succeeded");
}

/// A gate and an effect for each case, as the guide proposes.
const CASES: &str = "name: cases
params: { e: { type: string, enum: [staging, prod], default: staging } }
steps:
  - { id: ask, uses: gate.approval, if: params.e == 'prod' }
  - id: ship
    uses: run.command
    if: params.e == 'prod'
    needs: [ask]
    with: { command: [sh, -c, \"echo prod > shipped.txt\"] }
  - id: try
    uses: run.command
    if: params.e == 'staging'
    needs: []
    with: { command: [sh, -c, \"echo staging > shipped.txt\"] }
";

#[test]
fn a_gate_that_is_skipped_denies_what_lint_says_it_denies() {
    let ws = workspace(&[("cases.pipeline.yaml", CASES)]);
    let state = ws.outside().join("state").display().to_string();
    let ws = ws.with_env("MAESTRO_STATE", &state);
    assert_eq!(ws.run(&["template", "lint"]).code, 0);
    let run = ws.run(&["run", "--template", "cases", "--no-wait"]);
    assert_eq!((run.code, ws.read("shipped.txt").as_str()), (0, "staging\n"), "{}", run.stderr);
    assert_eq!(ws.run(&["run", "--template", "cases", "--param", "e=prod", "--no-wait"]).code, 10);
    // Without the `if` of the gate the effect comes to a gate that did not ask.
    ws.write("cases.pipeline.yaml", CASES.replacen("    if: params.e == 'prod'\n", "", 1));
    let found = ws.run(&["template", "lint", "--output", "json"]);
    let expect = "5:9 MAE0619 `ship` is denied by policy where `ask` before it is skipped";
    assert_eq!((found.code, messages(&json(&found))), (1, vec![expect.to_owned()]));
    let told = ws.fails(12, &["run", "--template", "cases", "--no-wait"]);
    assert!(told.contains("ship: failed: policy denies it: the gate `ask` above it"), "{told}");
}

#[test]
fn a_step_is_built_by_its_label_and_changes_nothing() {
    let pipeline = "name: rel
params:
  who: { type: string, default: world }
steps:
  - id: t
    uses: //:t
  - id: again
    uses: //:t
    if: ${{ params.who == 'world' && steps.t.outputs.digest != '' }}
  - id: say
    uses: run.command
    with: { command: [touch, said], repeatable: true }
  - id: after
    uses: //:t
    needs: [say]
";
    let targets = "load(\"@maestro//rules:basics.star\", \"genrule\")
genrule(name = \"t\", outs = [\"t.txt\"], cmd = \"echo > $@\")
";
    let ws = workspace(&[("rel.pipeline.yaml", pipeline), ("maestro.star", targets)]);
    let state = ws.outside().join("state");
    let ws = ws.with_env("MAESTRO_STATE", state.to_str().expect("UTF-8"));
    let built = ws.ok(&["build", "//:rel.again", "//:rel.t"]);
    assert_eq!(built["success"], true);
    for (place, label) in ["//:rel.again", "//:rel.t"].iter().enumerate() {
        let step = &built["steps"][place];
        assert_eq!((&step["label"], &step["verdict"]), (&(*label).into(), &"succeeded".into()));
        assert_eq!(step["outputs"]["files"], serde_json::json!(["maestro-out/shared/t.txt"]));
    }
    let mars = ws.ok(&["build", "//:rel.again", "--param", "who=mars"]);
    assert_eq!(mars["steps"][0]["verdict"], "skipped", "{mars}");
    assert_eq!(ws.ok(&["build", "//:rel.t"])["steps"][0]["cached"], true);
    let refused = |arguments: &[&str], expect: &str| {
        let told = ws.fails(2, &[&["build"], arguments].concat());
        assert!(told.contains(expect), "{told}");
    };
    refused(&["//:rel.after"], "it waits for `say`, which changes the world (`run.command`)");
    refused(&["//:rel.say"], "step `say` is made by a run only: it changes the world");
    refused(&["//:rel.t", "//:t"], "`//:t` is no step of `rel`, as `t` is");
    refused(&["//:rel.t", "--jobs", "2"], "`--jobs` says nothing about a step of a pipeline");
    refused(&["//:rel.t", "--param", "wo=x"], "pipeline `rel` has no param `wo`");
    refused(&["//:rel.nope"], "there is no target or file `//:rel.nope`");
    assert!(!ws.outside().join("ws/said").exists());
    assert!(!state.exists(), "no run was kept");
}

#[test]
fn lint_notes_what_this_maestro_does_not_do() {
    let ws = workspace(&[]);
    let check = |step: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n- {{ id: a, uses: run.command, {step} }}\n");
        ws.write("p.pipeline.yaml", text);
        let run = ws.run(&["template", "lint", "--output", "json"]);
        assert_eq!((run.code, messages(&json(&run)).join("; ").as_str()), (0, expect), "{step}");
    };
    let command = "with: { command: [x] }";
    check(command, "");
    let note =
        |what: &str| format!("3:9 MAE0618 step `a`: this Maestro does not see to `{what}` yet");
    check(&format!("{command}, resources: {{ cpu: 2 }}"), &note("resources"));
    check(&format!("{command}, concurrency: one"), &note("concurrency"));
    check(
        &format!(
            "{command}, on_failure: [{{ id: s, uses: supplychain.verify, with: {{ subject: x }} }}]"
        ),
        "3:74 MAE0618 step `s`: this Maestro cannot run steps of `supplychain.verify` yet",
    );
}

#[test]
fn the_older_dialect_is_imported() {
    let theirs = "steps:\n  - id: unit\n    run: npm test\n  - id: ship\n    run: make ship\n    when: step_succeeded(\"unit\") && branch == \"main\"\nbudgets: { hard_cap_usd: 5 }\nfreeze_windows: [fri]\n";
    let ws = workspace(&[(".maestro/pipeline.yaml", theirs)]);
    let run =
        ws.run(&["template", "import", ".maestro/pipeline.yaml", "--out", "ci.pipeline.yaml"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains(
            "warning[MAE0617]: `freeze_windows` is not translated\n --> .maestro/pipeline.yaml:8:1"
        ),
        "{}",
        run.stderr
    );
    let graph = ws.run(&["template", "show", "ci", "--graph"]);
    assert_eq!(graph.stdout, "unit\nship  <- unit*\n", "{}", graph.stderr);
    ws.write("other.yaml", "steps: [{ id: a, run: b, when: moon() }]");
    let run = ws.run(&["template", "import", "other.yaml"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("error[MAE0617]: the condition `moon()` is not translated"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.ends_with("    # when: moon()\n    if: false\n"), "{}", run.stdout);
}

#[test]
fn bad_input_is_refused_in_time() {
    let ws = workspace(&[
        ("a/x.pipeline.yaml", "name: x\nsteps: [{ id: a, include: ../../etc/passwd }]"),
        ("b/x.pipeline.yaml", "name: y\nsteps: [{ id: a, include: nothing.yaml }]"),
    ]);
    let found = messages(&json(&ws.run(&["template", "lint", "--output", "json"])));
    assert!(
        found[0].starts_with("2:27 MAE0614 `../../etc/passwd` cannot be included: "),
        "{found:?}"
    );
    assert_eq!(found[1], "2:27 MAE0614 `nothing.yaml` cannot be included: there is no such file");
    let told = ws.fails(2, &["template", "show", "x"]);
    assert!(told.contains("`x` means several pipelines"), "{told}");
    let told = ws.fails(2, &["template", "show", "z"]);
    assert!(told.contains("there is no pipeline `z`"), "{told}");

    ws.write("c.pipeline.yaml", [0x6e, 0xff, 0x0a]);
    let told = ws.fails(2, &["template", "lint", "c.pipeline.yaml"]);
    assert!(told.contains("`c.pipeline.yaml` is not UTF-8: byte 1"), "{told}");

    std::os::unix::fs::symlink("/dev/null", ws.root.join("d.pipeline.yaml")).expect("it is linked");
    let told = ws.fails(2, &["template", "lint", "d.pipeline.yaml"]);
    assert!(told.contains("it is no regular file"), "{told}");
    std::fs::remove_file(ws.root.join("d.pipeline.yaml")).expect("it is there");

    let start = Instant::now();
    ws.write(
        "c.pipeline.yaml",
        format!("name: c\nsteps:\n{}", "- {id: a, uses: copy}\n".repeat(500_000)),
    );
    let run = ws.run(&["template", "lint", "c.pipeline.yaml"]);
    assert!(
        run.stdout.starts_with("error[MAE0601]: the file has 11000015 bytes"),
        "{}",
        run.stdout
    );
    let deep = format!("name: c\nsteps: {}", "[".repeat(100_000));
    ws.write("c.pipeline.yaml", deep);
    assert_eq!(ws.run(&["template", "lint", "c.pipeline.yaml"]).code, 1);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let told = ws.fails(2, &["template", "lint", "none"]);
    assert!(told.contains("cannot read `none`"), "{told}");
}
