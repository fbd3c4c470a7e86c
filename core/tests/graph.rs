//! The graph refuses what cannot be carried out, and names the place.

use maestro_core::action::ExecutionHints;
use maestro_core::depset::Order;
use maestro_core::graph::{GraphError, Target};
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, ArtifactId, ArtifactKind, How, Item, Label, Output,
    RelPath, TargetId,
};

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a normal path")
}

fn target(graph: &mut ActionGraph, label: &str) -> TargetId {
    graph.add_target(Target {
        label: Label::parse(label, "", "").expect("valid"),
        rule: "rule".into(),
        aspect: None,
        location: format!("{}/maestro.star:1:1", label.trim_start_matches('/')),
        deps: vec![],
        files: vec![],
        groups: Vec::new(),
        executable: None,
        test: None,
        tags: vec![],
    })
}

fn action(
    graph: &mut ActionGraph,
    owner: TargetId,
    inputs: &[ArtifactId],
    output: ArtifactId,
) -> Result<maestro_core::ActionId, GraphError> {
    let items = inputs.iter().map(|id| Item::Artifact(*id)).collect();
    let inputs = graph.sets.add(Order::Postorder, items, vec![]);
    graph.add_action(ActionSpec {
        owner,
        mnemonic: "M".into(),
        progress: String::new(),
        class: ActionClass::Pure,
        how: How::Command { argv: vec![] },
        inputs,
        toolchains: vec![],
        outputs: vec![Output { artifact: output, optional: false }],
        env: vec![],
        platform: vec![],
        timeout_ms: None,
        hints: ExecutionHints::default(),
    })
}

fn output(graph: &mut ActionGraph, owner: TargetId, text: &str) -> ArtifactId {
    graph.declare_output(path(text), ArtifactKind::File, owner).expect("not declared yet")
}

#[test]
fn a_plan_holds_just_what_is_needed_in_order() {
    let mut graph = ActionGraph::default();
    let owner = target(&mut graph, "//p:t");
    let source = graph.source(path("p/s"));
    let [a, b, c] = ["o/a", "o/b", "o/c"].map(|text| output(&mut graph, owner, text));
    let make_c = action(&mut graph, owner, &[source], c).expect("fine");
    let make_b = action(&mut graph, owner, &[a, source], b).expect("fine");
    let make_a = action(&mut graph, owner, &[source], a).expect("fine");
    let plan = graph.plan(&[b]).expect("no cycle");
    assert_eq!(plan.order, [make_a, make_b]);
    assert_eq!(plan.consumers(make_a).collect::<Vec<_>>(), [make_b]);
    assert_eq!(plan.producers(make_b).collect::<Vec<_>>(), [make_a]);
    assert!(!plan.order.contains(&make_c));
}

#[test]
fn cycles_are_shown_whole() {
    let mut graph = ActionGraph::default();
    let [x, y, z] = ["//p:x", "//p:y", "//p:z"].map(|label| target(&mut graph, label));
    let a = output(&mut graph, x, "o/a");
    let b = output(&mut graph, y, "o/b");
    let c = output(&mut graph, z, "o/c");
    for (owner, input, made) in [(x, b, a), (y, c, b), (z, a, c)] {
        action(&mut graph, owner, &[input], made).expect("fine");
    }
    let error = graph.plan(&[a]).expect_err("a cycle");
    let GraphError::Cycle { steps } = &error else { panic!("{error}") };
    assert_eq!(steps.len(), 4, "the first step stands again at the end");
    for label in ["//p:x", "//p:y", "//p:z"] {
        assert!(error.to_string().contains(label), "{error}");
    }
}

#[test]
fn outputs_do_not_collide() {
    let mut graph = ActionGraph::default();
    let [x, y] = ["//p:x", "//p:y"].map(|label| target(&mut graph, label));
    let a = output(&mut graph, x, "o/a");
    let again = graph.declare_output(path("o/a"), ArtifactKind::File, y).expect_err("twice");
    assert_eq!(again.to_string(), "`o/a` is an output of both `//p:x` and `//p:y`");
    action(&mut graph, x, &[], a).expect("fine");
    assert!(action(&mut graph, y, &[], a).is_err(), "one output, two actions");

    let inner = output(&mut graph, y, "o/a/b/c");
    action(&mut graph, y, &[], inner).expect("fine");
    let error = graph.plan(&[a]).expect_err("one lies inside the other");
    assert!(matches!(error, GraphError::PrefixConflict { .. }), "{error}");
}

#[test]
fn declared_outputs_must_be_made() {
    let mut graph = ActionGraph::default();
    let owner = target(&mut graph, "//p:x");
    let a = output(&mut graph, owner, "o/a");
    let error = graph.plan(&[a]).expect_err("nobody makes it");
    assert_eq!(error.to_string(), "no action makes the declared output `o/a` of `//p:x`");
}
