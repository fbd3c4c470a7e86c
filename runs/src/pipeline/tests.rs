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
"#;

#[test]
fn a_template_becomes_a_plan() {
    let (_, plan) = compiled(RELEASE);
    let ids: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["build", "tests", "deploy.approval", "deploy", "undo"]);
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
