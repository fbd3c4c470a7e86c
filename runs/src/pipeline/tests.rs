//! Templates as plans, and their expressions over a fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use maestro_core::run::event::{Item, Success};
use maestro_core::run::*;
use maestro_rules::pipeline::{Defaults, load};
use serde_json::{Value, json};

use super::*;
use crate::script::{Expansion, Script};

fn compiled(text: &str) -> (PipelineScript, Plan) {
    let none = |path: &str| Err(format!("there is no `{path}`"));
    let checked = load("t.pipeline.yaml", text, &none, &Defaults::new());
    let errors: Vec<String> =
        checked.findings.iter().map(|finding| finding.diagnostic.to_string()).collect();
    let pipeline = checked.pipeline.unwrap_or_else(|| panic!("{}", errors.join("\n")));
    let params = [("env".to_owned(), json!("prod"))].into();
    let context = RunContext::default();
    let compiled = compile(&pipeline, &params, &context).expect("compiles");
    let plan = compiled.plan.clone();
    (PipelineScript::new(Arc::new(pipeline), compiled, context), plan)
}

fn begun(plan: Plan) -> RunState {
    let created = RunCreated {
        run: RunId::new("r1").expect("a run id"),
        plan,
        source: Value::Null,
        template_digest: String::new(),
        params: [("env".to_owned(), json!("prod"))].into(),
        context: Value::Null,
        initiator: Principal { name: "ann".into(), issuer: "local".into(), roles: Vec::new() },
        policy: None,
        replay_of: None,
    };
    let event = Event::RunCreated(Box::new(created));
    RunState::begin(&Entry { sequence: 1, epoch: 0, at_ms: 1, event }).expect("begins")
}

fn act(state: &mut RunState, command: Command) {
    for event in decide(state, command, 1).expect("allowed") {
        let entry = Entry { sequence: state.sequence + 1, epoch: state.epoch, at_ms: 1, event };
        state.apply(&entry).expect("applies");
    }
}

const RELEASE: &str = r#"
name: release
params:
  env: { type: string, default: staging }
steps:
  - id: build
    uses: //:app
  - id: tests
    uses: //:tests
    matrix: { os: [linux, mac], py: ["3.11", "3.12"] }
  - id: deploy
    uses: run.command
    approval: { count: 2, roles: [release-manager] }
    with: { command: [deploy, "${{ params.env }}"], query: [asked] }
    on_failure:
      - id: undo
        uses: run.command
        with: { command: [undo], repeatable: true }
    on_cancel:
      - id: withdraw
        uses: run.command
        with: { command: [withdraw], repeatable: true }
"#;

#[test]
fn a_template_becomes_a_plan() {
    let (_, plan) = compiled(RELEASE);
    let ids: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["build", "tests", "deploy.approval", "deploy", "undo", "withdraw"]);
    let after = |id: &str| -> Vec<&str> {
        let step = plan.find(id).and_then(|index| plan.step(index)).expect("a step");
        step.after.iter().map(|index| ids[index.index()]).collect()
    };
    assert_eq!(after("tests"), ["build"]);
    assert_eq!(after("deploy.approval"), ["tests"]);
    assert_eq!(after("deploy"), ["tests", "deploy.approval"]);
    assert_eq!(after("undo"), [] as [&str; 0]);
    let kind = |id: &str| &plan.steps[plan.find(id).expect("a step").index()].kind;
    assert!(matches!(kind("deploy.approval"), StepKind::Gate(gate) if gate.approvals == 2));
    assert!(matches!(kind("deploy"), StepKind::Effect(FarSide::Queryable { .. })));
    assert_eq!(*kind("undo"), StepKind::Effect(FarSide::Repeatable));
    let undo = &plan.steps[4];
    assert_eq!(undo.trigger, Trigger::OnFailure(Some(StepIndex(3))));
    assert_eq!(plan.steps[5].trigger, Trigger::OnCancelOf(StepIndex(3)));
}

#[test]
fn what_people_replace_takes_the_place_of_single_fields() {
    let (script, plan) = compiled(RELEASE);
    let mut state = begun(plan);
    let deploy = TaskId::first(state.plan().find("deploy").expect("a step"));
    state.inputs.insert("deploy".to_owned(), json!({"command": ["other"]}));
    let inputs = script.inputs(&state, deploy).expect("values");
    assert_eq!((&inputs["command"], &inputs["query"]), (&json!(["other"]), &json!(["asked"])));
}

#[test]
fn a_part_has_what_its_steps_wait_for_and_nothing_that_acts() {
    let compile = || {
        let checked = load("t", RELEASE, &|_| Err("there are none".into()), &Defaults::new());
        let params = [("env".to_owned(), json!("prod"))].into();
        compile(&checked.pipeline.expect("right"), &params, &RunContext::default()).expect("a plan")
    };
    let part = compile().part(&["tests".to_owned()]).expect("only work");
    let ids: Vec<&str> = part.plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["build", "tests"]);
    assert_eq!(part.plan.steps[1].after, [StepIndex(0)]);
    assert_eq!(part.plan.check(), Ok(()));
    let check = |names: &[&str], expect: &str| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(compile().part(&names).expect_err(expect).to_string(), expect);
    };
    check(&["nope"], "pipeline `release` has no step `nope`");
    check(&["undo"], "pipeline `release` has no step `undo`");
    let acts = "step `deploy` is made by a run only: it changes the world (`run.command`)";
    check(&["tests", "deploy"], acts);
    let asks = "step `deploy.approval` is made by a run only: it asks people";
    check(&["deploy.approval"], asks);
}

#[test]
fn a_matrix_is_listed_when_its_turn_comes() {
    let (script, plan) = compiled(RELEASE);
    let mut state = begun(plan);
    let build = TaskId::first(StepIndex(0));
    assert_eq!(script.inputs(&state, build), Ok(json!({"label": "//:app"})));
    act(&mut state, Command::Begin { task: build, reserve: None });
    act(&mut state, Command::Succeed { task: build, success: Success::default(), done: true });
    let Ok(Expansion::Items(items)) = script.expand(&state, StepIndex(1)) else {
        panic!("it is listed");
    };
    let labels: Vec<&str> = items.iter().map(|item| item.label.as_str()).collect();
    assert_eq!(labels, ["linux,3.11", "linux,3.12", "mac,3.11", "mac,3.12"]);
}

#[test]
fn outputs_are_typed_and_rounds_are_judged_by_them() {
    let text = r#"
name: wait
steps:
  - id: poll
    uses: run.command
    with: { command: [poll], repeatable: true }
    outputs:
      state: { type: string, path: $.json.state }
    until: ${{ steps.poll.outputs.state == 'ready' }}
    max: 5
"#;
    let (script, plan) = compiled(text);
    let state = begun(plan);
    let task = TaskId::first(StepIndex(0));
    let gave = |value: Value| {
        let outputs: BTreeMap<String, Value> = [("json".to_owned(), value)].into();
        script.finish(&state, task, Success { outputs, ..Success::default() })
    };
    assert!(matches!(gave(json!({"state": "busy"})), Ok((_, false))));
    let (success, done) = gave(json!({"state": "ready"})).expect("it is typed");
    assert!(done);
    assert_eq!(success.outputs["state"], json!("ready"));
    for wrong in [json!({"state": 5}), json!({})] {
        let failure = gave(wrong).expect_err("it is no text");
        assert!(failure.message.starts_with("t.pipeline.yaml:"), "{}", failure.message);
    }
    assert_eq!(Item::only().label, "");
}

/// The command of a step of a state, as its expressions come to it.
fn command(script: &PipelineScript, state: &RunState, step: u32) -> Value {
    let inputs = script.inputs(state, TaskId::first(StepIndex(step)));
    inputs.map_or_else(|failure| failure.message.into(), |inputs| inputs["command"].clone())
}

#[test]
fn outputs_of_instances_are_lists_for_lint_and_for_a_run() {
    let text = r#"
name: each
steps:
  - id: ask
    uses: run.command
    with: { command: ["ask", "${{ item }}"], repeatable: true }
    foreach: [a, b, c]
    outputs: { n: { type: int, path: $.json.n } }
  - id: tell
    uses: run.command
    with:
      command:
        - ${{ steps.ask.outputs.stdout[1] }}
        - ${{ join(steps.ask.outputs.n, '+') }}
        - n=${{ length(steps.ask.outputs.n) }}
"#;
    let (script, plan) = compiled(text);
    let mut state = begun(plan);
    let Ok(Expansion::Items(items)) = script.expand(&state, StepIndex(0)) else {
        panic!("it is listed");
    };
    act(&mut state, Command::Expand { step: StepIndex(0), items });
    for (item, n) in [(0, 5), (2, 7), (1, 6)] {
        let task = TaskId { item, ..TaskId::first(StepIndex(0)) };
        let outputs =
            [("stdout".to_owned(), json!(format!("s{item}"))), ("json".into(), json!({"n": n}))];
        let success = Success { outputs: outputs.into(), ..Success::default() };
        let (success, done) = script.finish(&state, task, success).expect("it is typed");
        let request = "{}".to_owned();
        act(&mut state, Command::Intend { task, request, past: Vec::new(), decision: None });
        act(&mut state, Command::Succeed { task, success, done });
    }
    assert_eq!(command(&script, &state, 1), json!(["s1", "5+6+7", "n=3"]));
}

#[test]
fn what_there_is_no_commit_of_is_an_empty_text() {
    let text = "name: g\nconcurrency: \"g-${{ git.branch }}\"\nsteps:\n- { id: a, uses: run.command, with: { \
                command: [\"v${{ git.sha }}\"] }, if: \"git.tag == '' && !(git.branch =~ '^main$')\" }\n";
    let (script, plan) = compiled(text);
    let state = begun(plan);
    assert_eq!(command(&script, &state, 0), json!(["v"]));
    assert!(matches!(script.expand(&state, StepIndex(0)), Ok(Expansion::Items(_))));
    let group = script.concurrency(&state).expect("it has a value").expect("there is one");
    assert_eq!(group.name, "g-");
}

#[test]
fn conditions_that_hold_after_a_failure_only_are_looked_at_after_one() {
    let check = |condition: &str, expect: bool| {
        let text = format!(
            "name: c\nsteps:\n- {{ id: a, uses: //:a }}\n- {{ id: b, uses: //:b, if: \"{condition}\" }}\n"
        );
        let (_, plan) = compiled(&text);
        assert_eq!(plan.steps[1].even_after_failure, expect, "{condition}");
    };
    check("failure()", true);
    check("!success()", true);
    check("success() == false", true);
    check("!(success() && git.tag == 'x')", true);
    check("always() && git.branch == 'main'", true);
    check("success()", false);
    check("success() && git.branch == 'main'", false);
    check("git.branch == 'main'", false);
}

#[test]
fn an_approval_is_about_the_evidence_that_was_seen() {
    let text = r#"
name: gated
steps:
  - id: scan
    uses: //:scan
  - id: other
    uses: //:other
    needs: []
  - id: gate
    uses: gate.approval
    with: { evidence: [scan], message: "found ${{ steps.scan.outputs.digest }}" }
    needs: []
  - id: ship
    uses: run.command
    with: { command: [ship] }
    needs: [gate]
"#;
    let asked = |scan: &str, other: &str| {
        let (script, plan) = compiled(text);
        let mut state = begun(plan);
        for (step, digest) in [(0, scan), (1, other)] {
            let task = TaskId::first(StepIndex(step));
            let outputs = [("digest".to_owned(), json!(digest))].into();
            act(&mut state, Command::Begin { task, reserve: None });
            let success = Success { outputs, ..Success::default() };
            act(&mut state, Command::Succeed { task, success, done: true });
        }
        let requests = BTreeMap::from([(StepIndex(3), "ship it".to_owned())]);
        script.approval(&state, TaskId::first(StepIndex(2)), &requests, 1)
    };
    let first = asked("d1", "o1");
    assert_eq!(first.summary, ["found d1", "ship: ship it"]);
    assert_eq!(first, asked("d1", "o1"));
    assert_ne!(first.subject, asked("d2", "o1").subject);
    // What the gate neither names nor waits for is none of its business.
    assert_eq!(first.subject, asked("d1", "o2").subject);
}

#[test]
fn each_task_of_a_long_list_costs_what_one_of_a_short_list_does() {
    const ITEMS: u32 = 10_000;
    let text = r#"
name: many
steps:
  - id: list
    uses: //:list
    outputs: { all: { type: list, path: $.files } }
  - id: each
    uses: run.command
    with: { command: ["do", "${{ item }}"], repeatable: true }
    foreach: ${{ steps.list.outputs.all }}
    max: 20000
"#;
    let (script, plan) = compiled(text);
    let mut state = begun(plan);
    let list = TaskId::first(StepIndex(0));
    act(&mut state, Command::Begin { task: list, reserve: None });
    let files: Vec<String> = (0..ITEMS).map(|at| at.to_string()).collect();
    let outputs = [("files".to_owned(), json!(files))].into();
    let success = Success { outputs, ..Success::default() };
    let (success, done) = script.finish(&state, list, success).expect("it is typed");
    act(&mut state, Command::Succeed { task: list, success, done });
    let items = match script.expand(&state, StepIndex(1)) {
        Ok(Expansion::Items(items)) => items,
        other => panic!("it is listed: {other:?}"),
    };
    act(&mut state, Command::Expand { step: StepIndex(1), items });
    for item in 0..ITEMS {
        let task = TaskId { item, ..TaskId::first(StepIndex(1)) };
        let inputs = script.inputs(&state, task).expect("it has a value");
        assert_eq!(inputs["command"][1], json!(item.to_string()));
    }
}

#[test]
fn what_an_include_is_given_is_checked_before_the_run_where_it_is_known() {
    let includes = |_: &str| {
        Ok("name: i\nparams: { t: { type: string, pattern: \"[a-z]+\" } }\nsteps:\n- { id: b, uses: \
            run.command, with: { command: [\"${{ params.t }}\"] } }\n"
            .to_owned())
    };
    let text = "name: p\nparams: { env: x }\nsteps:\n- { id: a, include: i.yaml, with: { t: \"${{ \
                params.env }}\" } }\n";
    let checked = load("p.yaml", text, &includes, &Defaults::new());
    let pipeline = checked.pipeline.expect("no errors");
    let compiled = |env: &str| {
        let params = [("env".to_owned(), json!(env))].into();
        compile(&pipeline, &params, &RunContext::default())
            .map(|compiled| compiled.plan.steps.len())
    };
    assert_eq!(compiled("prod").map_err(|error| error.to_string()), Ok(1));
    let refused = compiled("${{ 1 }}").expect_err("it does not fit").to_string();
    assert_eq!(refused, "p.yaml:4:45: param `t` does not fit `[a-z]+`");
}

#[test]
fn a_message_without_a_body_says_how_the_run_stands() {
    let text = r#"
name: release
steps:
  - id: build
    uses: //:app
    on_failure:
      - id: tell
        uses: notify.webhook
        with: { url: "https://h.example/" }
  - id: own
    uses: notify.webhook
    with: { url: "https://h.example/", body: { text: hi } }
"#;
    let (script, plan) = compiled(text);
    let mut state = begun(plan);
    let task = |state: &RunState, id: &str| TaskId::first(state.plan().find(id).expect("a step"));
    let body = |state: &RunState, id: &str| {
        script.inputs(state, task(state, id)).expect("inputs")["body"].clone()
    };
    let told = |status: &str| json!({"run": "r1", "template": "release", "step": "tell", "status": status});
    assert_eq!(body(&state, "own"), json!({"text": "hi"}));
    assert_eq!(body(&state, "tell"), told("running"));
    let build = task(&state, "build");
    act(&mut state, Command::Begin { task: build, reserve: None });
    let failure = Failure::new(FailureClass::User, "it broke");
    act(&mut state, Command::Fail { task: build, failure, spent: Amount::ZERO });
    assert_eq!(body(&state, "tell"), told("failed"));
}
