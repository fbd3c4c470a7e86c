//! A graph that is stored and opened is the same graph, and can be changed above what is stored.

use maestro_core::action::ExecutionHints;
use maestro_core::depset::{Order, SetId};
use maestro_core::graph::columns::SharedBytes;
use maestro_core::graph::{ActionSet, GraphDelta, GraphError, Target};
use maestro_core::{
    ActionClass, ActionGraph, ActionId, ActionSpec, ArtifactId, ArtifactKind, How, Item, Label,
    Output, RelPath, TargetId, Toolchain,
};

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a normal path")
}

fn label(text: &str) -> Label {
    Label::parse(text, "", "").expect("valid")
}

/// A graph with ways to talk about it by name.
#[derive(Default)]
struct World {
    graph: ActionGraph,
}

impl World {
    fn target(&mut self, name: &str) -> TargetId {
        self.graph.add_target(Target {
            label: label(name),
            rule: "rule".into(),
            aspect: None,
            location: "maestro.star:1:1".into(),
            deps: vec![],
            files: vec![],
            groups: Vec::new(),
            executable: None,
            test: None,
            tags: vec![],
        })
    }

    fn set(&mut self, items: &[&str], sets: &[SetId]) -> SetId {
        let items = items.iter().map(|name| match self.graph.artifact_at(&path(name)) {
            Some(id) => Item::Artifact(id),
            None => Item::Artifact(self.graph.source(path(name))),
        });
        let items = items.collect();
        self.graph.sets.add(Order::Postorder, items, sets.to_vec())
    }

    fn act(&mut self, owner: TargetId, inputs: SetId, output: &str) -> ActionId {
        let made = self.graph.declare_output(path(output), ArtifactKind::File, owner);
        let artifact = made.expect("not declared yet");
        let spec = ActionSpec {
            owner,
            mnemonic: "M".into(),
            progress: String::new(),
            class: ActionClass::Pure,
            how: How::Native { kind: "k".into(), semantics: 1, request: [1, 2].into() },
            inputs,
            toolchains: vec![],
            outputs: vec![Output { artifact, optional: false }],
            env: vec![],
            platform: vec![],
            timeout_ms: None,
            hints: ExecutionHints::default(),
        };
        self.graph.add_action(spec).expect("well formed")
    }

    fn id(&self, name: &str) -> ArtifactId {
        self.graph.artifact_at(&path(name)).expect("known")
    }

    /// The first outputs of some actions.
    fn names(&self, actions: &ActionSet) -> Vec<String> {
        let name = |action| {
            let spec = self.graph.action(action);
            let first = spec.outputs.first().expect("has one");
            self.graph.artifact(first.artifact).path.to_string()
        };
        actions.iter().map(name).collect()
    }

    fn affected(&self, sources: &[&str]) -> Vec<String> {
        let ids: Vec<ArtifactId> = sources.iter().map(|name| self.id(name)).collect();
        self.names(&self.graph.affected(&ids, &[]))
    }

    fn needed(&self, requested: &str) -> Vec<String> {
        self.names(&self.graph.needed(&[self.id(requested)]))
    }

    /// The same graph, stored and opened again; changes are carried over as a delta.
    fn reopened(&self, bytes: &[u8]) -> Self {
        let delta = postcard::to_stdvec(&self.graph.delta()).expect("plain data");
        let delta: GraphDelta = postcard::from_bytes(&delta).expect("just written");
        let bytes = SharedBytes::new(bytes.to_vec());
        Self { graph: ActionGraph::open(bytes, delta).expect("whole") }
    }

    fn stored(&self) -> (Vec<u8>, Self) {
        let bytes = self.graph.store();
        let shared = SharedBytes::new(bytes.clone());
        (bytes, Self { graph: ActionGraph::open(shared, GraphDelta::default()).expect("whole") })
    }
}

/// h, a ── o/a ─┐
/// h, b ── o/b ─┴─ o/all (one shared set of both)      c ── o/c
fn example() -> World {
    let mut world = World::default();
    let (p, q) = (world.target("//p:p"), world.target("//q:q"));
    let header = world.set(&["h"], &[]);
    let a = world.set(&["a"], &[header]);
    let b = world.set(&["b"], &[header]);
    let c = world.set(&["c"], &[]);
    world.act(p, a, "o/a");
    world.act(p, b, "o/b");
    let both = world.set(&["o/a", "o/b"], &[]);
    world.act(q, both, "o/all");
    world.act(q, c, "o/c");
    world
}

#[test]
fn what_was_stored_comes_back() {
    let before = example();
    let (_, after) = before.stored();
    assert_eq!(after.graph.action_count(), before.graph.action_count());
    for id in (0..before.graph.action_count()).map(ActionId::from_index) {
        let (old, new) = (before.graph.action(id), after.graph.action(id));
        for graph in [&before.graph, &after.graph] {
            let head = graph.action_head(id);
            assert_eq!((head.owner, head.mnemonic), (old.owner, old.mnemonic.as_str()));
        }
        assert_eq!(format!("{old:?}"), format!("{new:?}"));
        assert_eq!(before.graph.inputs_of(id), after.graph.inputs_of(id));
    }
    for (id, target) in before.graph.targets() {
        assert_eq!(format!("{target:?}"), format!("{:?}", after.graph.target(id)));
    }
    assert_eq!(after.graph.targets_named(&label("//q:q")), [TargetId::from_index(1)]);
    assert_eq!(after.graph.targets_named(&label("//q:r")), []);
    assert_eq!(after.graph.change_count(), 0);
}

#[test]
fn changes_reach_what_reads_them_and_no_more() {
    let fresh = example();
    let (_, opened) = fresh.stored();
    for world in [&fresh, &opened] {
        assert_eq!(world.affected(&["h"]), ["o/a", "o/b", "o/all"]);
        assert_eq!(world.affected(&["b"]), ["o/b", "o/all"]);
        assert_eq!(world.affected(&["c", "a"]), ["o/a", "o/all", "o/c"]);
        assert_eq!(world.affected(&[]), [""; 0]);
        assert_eq!(world.needed("o/all"), ["o/a", "o/b", "o/all"]);
        assert_eq!(world.needed("o/c"), ["o/c"]);
    }
}

#[test]
fn a_dirty_plan_holds_what_is_dirty_and_needed() {
    let (_, world) = example().stored();
    let dirty = world.graph.affected(&[world.id("a"), world.id("c")], &[]);
    let plan = world.graph.plan_dirty(&[world.id("o/all")], &dirty).expect("well formed");
    assert_eq!(world.names(&plan.order.iter().copied().collect()), ["o/a", "o/all"]);
    let last = *plan.order.last().expect("two");
    assert_eq!(plan.inputs(last).len(), 2, "inputs are whole");
    assert_eq!(plan.producers(last).count(), 1);
}

#[test]
fn a_target_is_analyzed_again_under_the_same_ids() {
    let (bytes, mut world) = example().stored();
    let (p, before) = (TargetId::from_index(0), world.id("o/a"));
    world.graph.retire_target(p);
    let set = world.set(&["a", "new"], &[]);
    let action = world.act(p, set, "o/a");
    let mut target = world.graph.target(p).clone();
    target.tags = vec!["again".into()];
    world.graph.replace_target(p, target);
    assert_eq!(world.id("o/a"), before);
    for world in [&world, &world.reopened(&bytes)] {
        assert_eq!(world.graph.producer(before), Some(action));
        assert_eq!(world.affected(&["new"]), ["o/all", "o/a"]);
        assert_eq!(world.affected(&["h"]), [""; 0], "its former readers are retired");
        assert_eq!(world.graph.producer(world.id("o/b")), None, "not declared again");
        assert_eq!(world.graph.target(p).tags, ["again"]);
        assert_eq!(world.needed("o/all"), ["o/all", "o/a"]);
        assert!(world.graph.plan(&[world.id("o/all")]).is_ok());
    }
    // Stored as a whole once more, nothing but the place of the bytes has changed.
    let (_, world) = world.stored();
    assert_eq!(world.affected(&["new"]), ["o/all", "o/a"]);
    assert_eq!(world.graph.live_actions().count(), 3);
}

#[test]
fn conflicts_with_what_is_stored_are_found() {
    let (_, mut world) = example().stored();
    let q = TargetId::from_index(1);
    let again = world.graph.declare_output(path("o/a"), ArtifactKind::File, q);
    assert!(matches!(again, Err(GraphError::DuplicateOutput { .. })));
    let set = world.set(&["c"], &[]);
    world.act(q, set, "o/a/inner");
    let wrong = world.graph.plan(&[]).expect_err("a file is no folder").to_string();
    assert_eq!(wrong, "output `o/a/inner` of `//q:q` lies inside output `o/a` of `//p:p`");
    let (_, mut world) = example().stored();
    world.act(q, set, "o");
    let wrong = world.graph.plan(&[]).expect_err("a file is no folder").to_string();
    assert_eq!(wrong, "output `o/a` of `//p:p` lies inside output `o` of `//q:q`");
}

#[test]
fn toolchains_are_known_by_what_they_are() {
    let mut world = World::default();
    let cc = Toolchain {
        name: "cc".into(),
        packages: vec!["gcc".into()],
        exclude: vec![],
        exclude_paths: vec![],
    };
    let id = world.graph.toolchain(cc.clone());
    let (_, mut world) = world.stored();
    assert_eq!(world.graph.toolchain(cc), id);
    assert_eq!(world.graph.toolchains().count(), 1);
}
