//! Imprints of what a graph holds: artifacts by what they are, sets by what is in them, and the
//! recorded parts of targets' values, each found by where it lies in memory.
//!
//! Ids are good for looking things up, but say nothing about content: an imprint never covers one.

use std::collections::HashMap;

use maestro_core::depset::{Order, SetId};
use maestro_core::{ActionGraph, ArtifactId, ArtifactKind, Item, Origin, TargetId};
use starlark::values::ValueIdentity;

use super::codec::Writer;
use super::imprint::Imprint;
use crate::scope::Runnable;

/// A recorded part of a target's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) owner: TargetId,
    pub(super) imprint: Imprint,
}

/// What is known of a set of the graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetTrait {
    pub(super) imprint: Imprint,
    /// Whether everything in it can be told from the graph alone.
    pub(super) plain: bool,
}

/// Everything that was looked at so far.
#[derive(Default)]
pub(crate) struct Catalog {
    pub(super) recorded: HashMap<ValueIdentity<'static>, Reference>,
    artifacts: HashMap<ArtifactId, Imprint>,
    sets: HashMap<SetId, SetTrait>,
}

/// The graph and how its programs are run.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) graph: &'a ActionGraph,
    pub(crate) runnables: &'a HashMap<ArtifactId, Runnable>,
}

impl Catalog {
    /// What an artifact is: its path, its kind, who makes it, and how it is run.
    pub(super) fn artifact(&mut self, id: ArtifactId, around: Surroundings<'_>) -> Imprint {
        if let Some(known) = self.artifacts.get(&id) {
            return *known;
        }
        let artifact = around.graph.artifact(id);
        let mut writer = Writer::default();
        writer.text(artifact.path.as_str());
        writer.flag(artifact.kind == ArtifactKind::Tree);
        match &artifact.origin {
            Origin::Source => writer.byte(0),
            Origin::Builtin(_) => writer.byte(1),
            Origin::Action(_) => writer.byte(2),
            Origin::Toolchain(toolchain) => {
                writer.byte(3);
                writer.text(&toolchain.name);
            }
        }
        if let Some(owner) = around.graph.owner(id) {
            writer.text(&around.graph.target(owner).label.to_string());
        }
        if let Some(runnable) = around.runnables.get(&id) {
            self.runnable(runnable, around, &mut writer);
        }
        let imprint = Imprint::of(&writer.bytes);
        self.artifacts.insert(id, imprint);
        imprint
    }

    /// How a program is run, without ids.
    fn runnable(&mut self, runnable: &Runnable, around: Surroundings<'_>, writer: &mut Writer) {
        let Runnable { runfiles, toolchains, env } = runnable;
        for id in runfiles.iter().chain(toolchains) {
            let imprint = self.artifact(*id, around);
            writer.imprint(imprint);
        }
        writer.flag(runfiles.is_some());
        writer.list(env.iter(), |writer, (name, value)| {
            writer.text(name);
            writer.text(value);
        });
    }

    /// What is in a set. Walks with a stack of its own, since sets nest deeply.
    pub(super) fn set(&mut self, root: SetId, around: Surroundings<'_>) -> SetTrait {
        let mut stack = vec![root];
        while let Some(id) = stack.last().copied() {
            if self.sets.contains_key(&id) {
                stack.pop();
                continue;
            }
            let node = around.graph.sets.node(id);
            let before = stack.len();
            stack.extend(node.transitive.iter().filter(|below| !self.sets.contains_key(below)));
            if stack.len() > before {
                continue;
            }
            let mut writer = Writer::default();
            writer.byte(order_code(Some(node.order)));
            let mut plain = true;
            writer.count(node.direct.len());
            for item in &node.direct {
                match item {
                    Item::Text(text) => {
                        writer.byte(0);
                        writer.text(text);
                    }
                    Item::Artifact(id) => {
                        let origin = &around.graph.artifact(*id).origin;
                        plain &= !matches!(origin, Origin::Toolchain(_));
                        writer.byte(1);
                        writer.imprint(self.artifact(*id, around));
                    }
                }
            }
            for below in &node.transitive {
                if let Some(below) = self.sets.get(below) {
                    plain &= below.plain;
                    writer.imprint(below.imprint);
                }
            }
            self.sets.insert(id, SetTrait { imprint: Imprint::of(&writer.bytes), plain });
        }
        let known = self.sets.get(&root).copied();
        known.expect("the walk ends only after the root is known")
    }

    /// Takes over what an earlier build knew of a set.
    pub(super) fn recall_set(&mut self, id: SetId, imprint: Imprint) {
        self.sets.entry(id).or_insert(SetTrait { imprint, plain: true });
    }

    /// Forgets what was known of an artifact that a target has declared anew.
    pub(crate) fn forget_artifact(&mut self, id: ArtifactId) {
        self.artifacts.remove(&id);
    }
}

/// An order as a byte; `None` is the order of sets that do not say.
pub(super) fn order_code(order: Option<Order>) -> u8 {
    match order {
        None => 0,
        Some(Order::Postorder) => 1,
        Some(Order::Preorder) => 2,
        Some(Order::Topological) => 3,
    }
}

/// The order that [`order_code`] gave a byte to.
pub(super) fn order_of(code: u8) -> Option<Option<Order>> {
    match code {
        0 => Some(None),
        1 => Some(Some(Order::Postorder)),
        2 => Some(Some(Order::Preorder)),
        3 => Some(Some(Order::Topological)),
        _ => None,
    }
}
