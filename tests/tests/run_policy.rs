//! Runs ask policy, on the built binary: at their start, at each step, before each effect, and when
//! people speak at a gate.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maestro_tests::poll;
use maestro_tests::scene::{Scene, text};

/// Longest time that anything is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Deploys to an environment, by appending to a file.
const DEPLOY: &str = r#"
name: release
params:
  env: { type: string, default: staging }
steps:
  - id: deploy
    uses: run.command
    with: { command: [sh, -c, "echo ${{ params.env }} >> deployed"] }
"#;

/// The same behind a gate that one person opens.
const GATED: &str = r#"
name: release
params:
  env: { type: string, default: staging }
steps:
  - id: ok
    uses: gate.approval
    with: { expires: EXPIRES }
  - id: deploy
    uses: run.command
    with: { command: [sh, -c, "echo ${{ params.env }} >> deployed"] }
"#;

fn gated() -> String {
    GATED.replace("EXPIRES", "1h")
}

/// A policy of one rule, which denies under a condition.
fn rule(point: &str, code: &str, condition: &str) -> String {
    format!(
        "package maestro.{point}.own\n\n\
         deny contains {{\"code\": \"{code}\", \"msg\": \"told by {code}\"}} if {{\n{condition}\n}}\n"
    )
}

/// A scene whose project asks these policies.
fn scene(template: &str, project: &str, policies: &[(&str, &str)]) -> Scene {
    let scene = Scene::new(template);
    std::fs::create_dir(scene.path("policy")).expect("made");
    let config = format!("[policy]\npaths = [\"policy\"]\n{project}");
    std::fs::write(scene.path("maestro.toml"), config).expect("written");
    for (name, policy) in policies {
        std::fs::write(scene.path("policy").join(name), policy).expect("written");
    }
    scene
}

fn begin(scene: &Scene, code: i32, more: &[&str]) -> String {
    scene.must(code, &[&["run", "--template", "release", "--no-wait"], more].concat())
}

fn run_name(scene: &Scene) -> String {
    scene.json()["run"].as_str().expect("a name").to_owned()
}

fn ended(output: Output, code: i32) -> String {
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{:?}: {told}", output.status.signal());
    told
}

/// Only root can become somebody else, and nobody approves a run of their own.
fn needs_root() {
    assert!(
        rustix::process::getuid().is_root(),
        "this test approves as other users: run it as root"
    );
}

#[test]
fn an_effect_that_a_policy_denies_is_not_sent() {
    let deny = rule("effect", "frozen", "input.environment.name == \"staging\"");
    let scene = scene(DEPLOY, "", &[("freeze.rego", &deny)]);
    let told = begin(&scene, 12, &[]);
    assert!(told.contains("deploy: failed: policy denies it: told by frozen (frozen)"), "{told}");
    assert!(scene.lines("deployed").is_empty());
    begin(&scene, 0, &["--param", "env=dev"]);
    assert_eq!(scene.lines("deployed"), ["dev"]);
    assert!(scene.json()["policy"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));
}

#[test]
fn a_step_that_a_policy_denies_does_not_start() {
    let template = format!(
        "{DEPLOY}  - id: after\n    uses: run.command\n    with: {{ command: [touch, after] }}\n"
    );
    let deny = rule("step_start", "not_after", "input.step.path == \"after\"");
    let scene = scene(&template, "", &[("steps.rego", &deny)]);
    let told = begin(&scene, 12, &[]);
    assert!(told.contains("after: failed: policy denies it: told by not_after"), "{told}");
    assert_eq!(scene.lines("deployed"), ["staging"]);
    assert!(!scene.path("after").exists());
}

#[test]
fn a_step_that_would_talk_to_a_host_that_is_not_listed_does_not_start() {
    let hook = "name: release\nsteps:\n  - id: tell\n    uses: notify.webhook\n    \
                with: { url: \"https://Hooks.Example/x\", secret: key }\n";
    let shipped = Scene::new(hook).must(0, &["policy", "show", "egress_allowlist"]);
    let data = "{\"egress\": {\"hosts\": [\"*.example.com\"], \"ports\": [443]}}";
    let secrets = rule("step_start", "secret", "\"key\" in input.secrets");
    let policies = [("a.rego", shipped.as_str()), ("b.rego", &secrets), ("data.json", data)];
    let told = begin(&scene(hook, "", &policies), 12, &[]);
    assert!(told.contains("`tell` may not talk to hooks.example"), "{told}");
    assert!(told.contains("(host_not_listed); told by secret (secret)"), "{told}");
}

#[test]
fn a_run_that_may_not_start_leaves_no_trace() {
    let deny = rule("run_start", "dirty", "input.source.state == \"dirty\"");
    let scene = scene(DEPLOY, "", &[("start.rego", &deny)]);
    let told = begin(&scene, 12, &[]);
    assert!(told.contains("error: policy denies it: told by dirty (dirty)"), "{told}");
    assert!(scene.must(2, &["status"]).contains("there are no runs yet"));
}

#[test]
fn policies_that_do_not_load_stop_a_run_before_anything_is_done() {
    let check = |name: &str, policy: &str, expect: &str| {
        let scene = scene(DEPLOY, "", &[(name, policy)]);
        let told = begin(&scene, 2, &[]);
        assert!(told.contains(expect), "{told}");
        assert!(scene.must(2, &["status"]).contains("there are no runs yet"));
        assert!(scene.lines("deployed").is_empty());
    };
    check("a.rego", &rule("effect", "x", "input.scna.state == \"done\""), "error[MAE0703]");
    check("a.rego", "package maestro.effect\ndeny contains", "error[MAE0701]");
    check("notes.txt", "deny everything\n", "error[MAE0700]: `policy` holds no policies");
    // One that loads and fails is a denial.
    let broken = "package maestro.run_start\n\
        deny contains \"x\" if to_number(input.run.id) == 1\n";
    let scene = scene(DEPLOY, "", &[("a.rego", broken)]);
    let told = begin(&scene, 12, &[]);
    assert!(told.contains("(policy_error)"), "{told}");
}

#[test]
fn a_run_that_goes_on_is_asked_by_the_policies_of_the_day() {
    needs_root();
    let before = rule("effect", "before", "input.environment.name == \"nowhere\"");
    let scene = scene(&gated(), "", &[("effect.rego", &before)]);
    begin(&scene, 10, &[]);
    let run = run_name(&scene);
    ended(scene.as_user(1, &["approve", &run]), 0);
    let after = rule("effect", "after", "input.environment.name == \"staging\"");
    std::fs::write(scene.path("policy/effect.rego"), after).expect("written");
    let told = scene.must(12, &["run", "--resume", &run]);
    assert!(told.contains("told by after (after)"), "{told}");
    assert!(scene.lines("deployed").is_empty());
    std::fs::remove_file(scene.path("policy/effect.rego")).expect("removed");
    let told = scene.must(2, &["retry", &run]);
    assert!(told.contains("error[MAE0700]"), "{told}");
}

#[test]
fn an_approval_that_a_policy_denies_does_not_count() {
    needs_root();
    let deny = rule("approval", "no_reason", "input.reason == \"\"\ninput.request == \"approve\"");
    let scene = scene(&gated(), "", &[("approval.rego", &deny)]);
    begin(&scene, 10, &[]);
    let run = run_name(&scene);
    let told = ended(scene.as_user(1, &["approve", &run]), 12);
    assert!(told.contains("policy denies it: told by no_reason (no_reason)"), "{told}");
    let log = scene.must(0, &["logs", &run]);
    assert!(log.contains("ok: daemon@local was refused: policy denies it: told by"), "{log}");
    scene.must(10, &["run", "--resume", &run, "--no-wait"]);
    ended(scene.as_user(1, &["approve", &run, "--reason", "fine"]), 0);
    scene.must(0, &["run", "--resume", &run]);
    assert_eq!(scene.lines("deployed"), ["staging"]);
}

#[test]
fn local_people_do_not_approve_for_production() {
    needs_root();
    let template = gated();
    let prod = ["--param", "env=prod"];
    let strict = Scene::new(&template);
    begin(&strict, 10, &prod);
    let told = ended(strict.as_user(1, &["approve", &run_name(&strict)]), 12);
    assert!(told.contains("`prod` is production"), "{told}");
    // What is production is for the project to say.
    let lenient = Scene::new(&template);
    let config = "[environments]\nprod = \"staging\"\n";
    std::fs::write(lenient.path("maestro.toml"), config).expect("written");
    begin(&lenient, 10, &prod);
    ended(lenient.as_user(1, &["approve", &run_name(&lenient)]), 0);
    scene_goes_on(&lenient, 0);
    assert_eq!(lenient.lines("deployed"), ["prod"]);
}

fn scene_goes_on(scene: &Scene, code: i32) -> String {
    scene.must(code, &["run", "--resume", &run_name(scene), "--no-wait"])
}

/// Of local people, since a test has no others.
fn production(template: &str, approvals: u32) -> Scene {
    let shipped = Scene::new(template).must(0, &["policy", "show", "production_approval"]);
    let never = "input.run.id == \"\"";
    let points = ["run_start", "step_start", "approval"].map(|point| rule(point, "never", never));
    let [start, step, approval] = &points;
    let data = format!(
        "{{\"production\": {{\"approvals\": {approvals}, \"roles\": [\"release-manager\"]}}}}"
    );
    let policies = [
        ("production.rego", shipped.as_str()),
        ("start.rego", start),
        ("step.rego", step),
        ("approval.rego", approval),
        ("data.json", &data),
    ];
    let scene = scene(template, "default = false\n", &policies);
    std::fs::create_dir(scene.path("state")).expect("made");
    let roles = "release-manager = [\"daemon\", \"bin\"]\n";
    std::fs::write(scene.path("state/roles.toml"), roles).expect("written");
    scene
}

#[test]
fn production_waits_for_as_many_people_as_policy_asks_for() {
    needs_root();
    let prod = ["--param", "env=prod"];
    let ungated = production(DEPLOY, 2);
    let told = begin(&ungated, 12, &prod);
    assert!(told.contains("0 of 2 approvals are there (approval_missing)"), "{told}");
    assert!(told.contains("put a `gate.approval` above it"), "{told}");
    assert!(ungated.lines("deployed").is_empty());

    // The gate asks for one person, policy for two.
    let scene = production(&gated(), 2);
    begin(&scene, 10, &prod);
    let run = run_name(&scene);
    ended(scene.as_user(1, &["approve", &run]), 0);
    let told = scene_goes_on(&scene, 10);
    assert!(told.contains("ok: 2 approvals are needed"), "{told}");
    assert!(scene.lines("deployed").is_empty());
    let told = ended(scene.as_user(1, &["approve", &run]), 2);
    assert!(told.contains("has approved already"), "{told}");
    ended(scene.as_user(2, &["approve", &run]), 0);
    scene_goes_on(&scene, 0);
    assert_eq!(scene.lines("deployed"), ["prod"]);
}

#[test]
fn what_was_not_scanned_does_not_leave() {
    let shipped = Scene::new(DEPLOY).must(0, &["policy", "show", "vulnerability_threshold"]);
    let data = "{\"vulnerabilities\": {\"max\": {\"critical\": 0, \"high\": 0, \"medium\": 9, \"low\": 9}}}";
    let policies = [("scan.rego", shipped.as_str()), ("data.json", data)];
    let scene = scene(DEPLOY, "", &policies);
    let told = begin(&scene, 12, &[]);
    assert!(told.contains("the scan of the artifacts is not_run (not_scanned)"), "{told}");
    assert!(scene.lines("deployed").is_empty());
}

#[test]
fn an_approval_that_was_taken_back_or_is_too_old_does_not_hold() {
    needs_root();
    let scene = Scene::new(&gated());
    begin(&scene, 10, &[]);
    let run = run_name(&scene);
    ended(scene.as_user(1, &["approve", &run]), 0);
    ended(scene.as_user(1, &["revoke", &run, "--gate", "ok"]), 0);
    scene_goes_on(&scene, 10);
    assert!(scene.lines("deployed").is_empty());

    let scene = Scene::new(&GATED.replace("EXPIRES", "3s"));
    begin(&scene, 10, &[]);
    ended(scene.as_user(1, &["approve", &run_name(&scene)]), 0);
    let gate = scene.json()["steps"][0]["tasks"][0]["approval"].clone();
    let expires_ms = gate["request"]["expires_at_ms"].as_u64().expect("a time");
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    assert!(poll(LIMIT, || now_ms() > u128::from(expires_ms)), "it does not expire");
    let told = scene_goes_on(&scene, 10);
    assert!(told.contains("ok: approval void: the approval expired"), "{told}");
    assert!(scene.lines("deployed").is_empty());
}

#[test]
fn whoever_replaces_what_a_run_does_does_not_approve_it() {
    needs_root();
    let template = gated().replace("echo ${{", "test -e ready && echo ${{");
    let scene = Scene::new(&template);
    begin(&scene, 10, &[]);
    let run = run_name(&scene);
    ended(scene.as_user(1, &["approve", &run]), 0);
    scene_goes_on(&scene, 1);
    let with = |json: &str| format!("deploy={json}");
    let secret = with(r#"{"command": ["true"], "stdin": "https://me:s3cret@127.0.0.1/x"}"#);
    let told = ended(scene.as_user(1, &["retry", &run, "--no-wait", "--with", &secret]), 2);
    assert!(told.contains("hold a URL with credentials") && !told.contains("s3cret"), "{told}");

    let other = with(r#"{"command": ["sh", "-c", "echo other >> deployed"]}"#);
    ended(scene.as_user(1, &["retry", &run, "--no-wait", "--with", &other]), 10);
    assert!(scene.lines("deployed").is_empty(), "what was approved was something else");
    let told = ended(scene.as_user(1, &["approve", &run]), 2);
    assert!(told.contains("`daemon@local` replaced inputs of the run"), "{told}");
    ended(scene.as_user(2, &["approve", &run]), 0);
    scene_goes_on(&scene, 0);
    assert_eq!(scene.lines("deployed"), ["other"]);
}

#[test]
fn replaced_inputs_do_not_make_production_less_grave() {
    needs_root();
    let template = r#"
name: release
params:
  env: { type: string, default: staging }
steps:
  - id: ok
    uses: gate.approval
  - id: deploy
    uses: cd.rollout
    with:
      subject: app@sha256:0f
      env: ${{ params.env }}
      strategy: all-at-once
      via: gate
      gate: http://127.0.0.1:9/gate
"#;
    let scene = Scene::new(template);
    begin(&scene, 10, &["--param", "env=prod"]);
    let run = run_name(&scene);
    scene.must(0, &["cancel", &run]);
    scene_goes_on(&scene, 13);
    let refused = |with: &str, expect: &str| {
        let told = scene.must(2, &["retry", &run, "--no-wait", "--with", with]);
        assert!(told.contains(expect), "{told}");
    };
    refused(r#"deploy={"environment": "dev"}"#, "`cd.rollout` takes no `environment`");
    refused(r#"deploy={"env": 3}"#, "`env` of `cd.rollout` is a text, and this is 3");
    refused(r#"deploy={"strategy": "hope"}"#, "`strategy` of `cd.rollout` is one of");
    refused(r#"deploy=["env"]"#, "the inputs of `deploy` are no object");
    refused(r#"nope={"env": "dev"}"#, "step `nope`");
    scene.must(10, &["retry", &run, "--no-wait", "--with", r#"deploy={"env": "dev"}"#]);
    let told = ended(scene.as_user(1, &["approve", &run]), 12);
    assert!(told.contains("`prod` is production"), "{told}");
}

#[test]
fn a_gate_that_was_not_approved_in_time_does_not_ask_again_after_its_end() {
    let template = GATED.replace("EXPIRES", "1s").replace(
        "    with: { expires: 1s }",
        "    continue_on_error: true\n    with: { expires: 1s }",
    );
    let scene = Scene::new(&template);
    scene.must(12, &["run", "--template", "release"]);
    let log = scene.must(0, &["logs", &run_name(&scene)]);
    assert!(log.contains("ok: failed: nobody approved it in time"), "{log}");
    assert!(!log.contains("approval void"), "{log}");
    assert_eq!(log.matches("ok: waiting for approval").count(), 1, "{log}");
    assert!(scene.lines("deployed").is_empty());
}

/// A step's own approval goes with the step: where that is skipped nobody is asked, and what
/// follows is not held up by it.
#[test]
fn nobody_is_asked_about_what_is_skipped() {
    let template = r#"
name: release
params:
  env: { type: string, enum: [staging, prod], default: staging }
  list: { type: string, default: "[]" }
  code: { type: int, default: 0 }
steps:
  - id: list
    uses: run.command
    with: { command: [echo, "${{ params.list }}"], repeatable: true }
  - id: each
    uses: run.command
    approval: true
    foreach: ${{ steps.list.outputs.json }}
    max: 5
    with: { command: [touch, "each-${{ item }}"], repeatable: true }
  - id: tell
    uses: run.command
    approval: true
    if: ${{ params.env == 'prod' }}
    with: { command: [touch, told], repeatable: true }
  - id: last
    uses: run.command
    with: { command: [sh, -c, "touch last; exit ${{ params.code }}"], repeatable: true }
  - id: mourn
    uses: run.command
    approval: true
    if: ${{ failure() }}
    with: { command: [touch, mourned], repeatable: true }
"#;
    let scene = Scene::new(template);
    let begin = |code: i32, params: &[&str]| {
        let params = params.iter().flat_map(|param| ["--param", param]);
        let command = ["run", "--template", "release", "--no-wait"];
        scene.must(code, &command.into_iter().chain(params).collect::<Vec<_>>())
    };
    let waits = |gate: &str| {
        let run = scene.json();
        let step = run["steps"].as_array().expect("steps").iter().find(|step| step["id"] == gate);
        step.expect("it is there")["tasks"][0]["status"] == "waiting for approval"
    };
    begin(0, &[]);
    assert!(scene.path("last").is_file() && !scene.path("told").exists());
    begin(10, &["env=prod"]);
    assert!(waits("tell.approval") && !scene.path("told").exists());
    begin(10, &["list=[1, 2]"]);
    assert!(waits("each.approval") && !scene.path("each-1").exists());
    begin(10, &["code=1"]);
    assert!(waits("mourn.approval") && !scene.path("mourned").exists());
}
