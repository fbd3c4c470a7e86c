//! A graph at rest: columns that are read where they lie, so that opening one of a million
//! actions costs nothing, and looking at one action costs one decoding.
//!
//! Ids are positions in the columns, so they are the same in the graph that was written, in the
//! graph that is opened, and in all that refers to either.
//! Edges are kept both ways, over sets as they are shared and not as they flatten: the edges of a
//! header that ten thousand actions read through one set are one, not ten thousand.

use postcard::to_extend;
use serde::{Deserialize, Serialize};

use super::columns::{ColumnWriter, Columns, ListWriter, Numbers, Records, SharedBytes};
use super::{ActionGraph, Declared, Target};
use crate::action::{ActionSpec, Artifact, ArtifactKind, Item, Origin};
use crate::depset::{Order, SetId, SetNode};
use crate::graph::{ActionId, ArtifactId, TargetId};
use crate::path::RelPath;

/// Stands for "no id" in a column.
pub(super) const NONE: u32 = u32::MAX;
/// Set in a number of a mixed column: the rest is a set, not an artifact or action.
const SET: u32 = 1 << 31;
/// Set in a number of a set's column: the rest is a text, not an artifact.
const TEXT: u32 = 1 << 31;

// Sections, in the order in which they are written.
const PATHS: usize = 0;
const ARTIFACTS: usize = PATHS + 2;
const OWNERS: usize = ARTIFACTS + 2;
const PRODUCERS: usize = OWNERS + 1;
const BY_PATH: usize = PRODUCERS + 1;
const ARTIFACT_USERS: usize = BY_PATH + 1;
const SETS: usize = ARTIFACT_USERS + 2;
const SET_USERS: usize = SETS + 2;
const TEXTS: usize = SET_USERS + 2;
const ACTIONS: usize = TEXTS + 2;
const ACTION_READS: usize = ACTIONS + 2;
const ACTION_MAKES: usize = ACTION_READS + 2;
const RETIRED: usize = ACTION_MAKES + 2;
const TARGETS: usize = RETIRED + 1;
const LABELS: usize = TARGETS + 2;
const BY_LABEL: usize = LABELS + 2;
const TARGET_ACTIONS: usize = BY_LABEL + 1;
const TARGET_OUTPUTS: usize = TARGET_ACTIONS + 2;
const TOOLCHAINS: usize = TARGET_OUTPUTS + 2;
const SECTIONS: usize = TOOLCHAINS + 1;

/// One end of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    Set(SetId),
    /// An artifact where reads are meant, an action where users are.
    Leaf(u32),
}

impl Edge {
    fn of(number: u32) -> Self {
        match number & SET {
            0 => Self::Leaf(number),
            _ => Self::Set(SetId::from_index((number & !SET) as usize)),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Set(set) => number(set.index()) | SET,
            Self::Leaf(leaf) => leaf,
        }
    }
}

/// An artifact without its path, which has a column of its own.
#[derive(Serialize, Deserialize)]
struct StoredArtifact {
    kind: ArtifactKind,
    origin: Origin,
}

/// An opened graph. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    columns: Columns,
}

impl Stored {
    /// Opens what [`write`] made, or `None` where the bytes are something else.
    pub(super) fn open(bytes: SharedBytes) -> Option<Self> {
        let columns = Columns::open(bytes)?;
        (columns.section_count() == SECTIONS).then_some(Self { columns })
    }

    pub(super) fn artifact_count(&self) -> usize {
        self.paths().len()
    }

    pub(super) fn action_count(&self) -> usize {
        self.columns.records(ACTIONS).len()
    }

    pub(super) fn target_count(&self) -> usize {
        self.columns.records(TARGETS).len()
    }

    pub(crate) fn set_count(&self) -> usize {
        self.columns.numbers(SETS).len().saturating_sub(1)
    }

    pub(super) fn artifact(&self, id: usize) -> Declared {
        let path = RelPath::new(self.paths().text(id)).expect(WRITTEN);
        let StoredArtifact { kind, origin } = decode(get(self.columns.records(ARTIFACTS), id));
        let owner = self.owner(id);
        Declared { artifact: Artifact { path, kind, origin }, owner }
    }

    pub(super) fn owner(&self, artifact: usize) -> Option<TargetId> {
        id_at(self.columns.numbers(OWNERS), artifact).map(TargetId::from_index)
    }

    pub(super) fn producer(&self, artifact: usize) -> Option<ActionId> {
        id_at(self.columns.numbers(PRODUCERS), artifact).map(ActionId::from_index)
    }

    pub(super) fn action(&self, id: usize) -> ActionSpec {
        decode(self.action_bytes(id))
    }

    /// What is kept of an action.
    pub(super) fn action_bytes(&self, id: usize) -> &[u8] {
        get(self.columns.records(ACTIONS), id)
    }

    pub(super) fn target(&self, id: usize) -> Target {
        decode(get(self.columns.records(TARGETS), id))
    }

    /// The label of a target as text.
    pub(super) fn label(&self, target: usize) -> &str {
        self.columns.records(LABELS).text(target)
    }

    pub(super) fn retired(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.numbers(RETIRED).iter().map(|id| id as usize)
    }

    pub(super) fn toolchains(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.numbers(TOOLCHAINS).iter().map(|id| id as usize)
    }

    pub(super) fn target_actions(&self, target: usize) -> impl Iterator<Item = ActionId> + '_ {
        self.columns.lists(TARGET_ACTIONS).get(target).iter().map(|id| id as usize).map(from_action)
    }

    pub(super) fn target_outputs(&self, target: usize) -> impl Iterator<Item = ArtifactId> + '_ {
        let ids = self.columns.lists(TARGET_OUTPUTS).get(target).iter();
        ids.map(|id| ArtifactId::from_index(id as usize))
    }

    /// What an action reads.
    pub(super) fn reads(&self, action: usize) -> impl Iterator<Item = Edge> + '_ {
        self.columns.lists(ACTION_READS).get(action).iter().map(Edge::of)
    }

    /// What an action makes.
    pub(super) fn makes(&self, action: usize) -> impl Iterator<Item = ArtifactId> + '_ {
        let ids = self.columns.lists(ACTION_MAKES).get(action).iter();
        ids.map(|id| ArtifactId::from_index(id as usize))
    }

    /// The sets and actions that name an artifact.
    pub(super) fn artifact_users(&self, artifact: usize) -> impl Iterator<Item = Edge> + '_ {
        self.columns.lists(ARTIFACT_USERS).get(artifact).iter().map(Edge::of)
    }

    /// The sets and actions that name a set.
    pub(super) fn set_users(&self, set: usize) -> impl Iterator<Item = Edge> + '_ {
        self.columns.lists(SET_USERS).get(set).iter().map(Edge::of)
    }

    /// The artifacts and sets in a set.
    pub(super) fn members(&self, set: usize) -> impl Iterator<Item = Edge> + '_ {
        let numbers = self.columns.lists(SETS).get(set);
        let direct = numbers.get(0).map_or(0, |head| head as usize >> 2);
        numbers.iter().skip(1).enumerate().filter_map(move |(index, number)| match index < direct {
            true if number & TEXT != 0 => None,
            true => Some(Edge::Leaf(number)),
            false => Some(Edge::Set(SetId::from_index(number as usize))),
        })
    }

    pub(crate) fn set(&self, id: SetId) -> SetNode {
        let numbers = self.columns.lists(SETS).get(id.index());
        let head = numbers.get(0).expect(WRITTEN);
        let order = match head & 3 {
            0 => Order::Postorder,
            1 => Order::Preorder,
            _ => Order::Topological,
        };
        let texts = self.columns.records(TEXTS);
        let item = |number: u32| match number & TEXT {
            0 => Item::Artifact(ArtifactId::from_index(number as usize)),
            _ => Item::Text(texts.text((number & !TEXT) as usize).into()),
        };
        let direct = head as usize >> 2;
        let set = |number: u32| SetId::from_index(number as usize);
        SetNode {
            order,
            direct: numbers.iter().skip(1).take(direct).map(item).collect(),
            transitive: numbers.iter().skip(1 + direct).map(set).collect(),
        }
    }

    /// The artifact at a path.
    pub(super) fn artifact_at(&self, path: &str) -> Option<ArtifactId> {
        let at = self.first_path(path);
        let id = self.columns.numbers(BY_PATH).get(at)? as usize;
        (self.paths().text(id) == path).then(|| ArtifactId::from_index(id))
    }

    /// The artifacts below a path, in the order of their paths.
    pub(super) fn artifacts_below(&self, path: &str) -> impl Iterator<Item = ArtifactId> + '_ {
        let prefix = format!("{path}/");
        let start = self.first_path(&prefix);
        let by_path = self.columns.numbers(BY_PATH);
        (start..by_path.len())
            .filter_map(move |at| by_path.get(at))
            .take_while(move |id| self.paths().text(*id as usize).starts_with(&prefix))
            .map(|id| ArtifactId::from_index(id as usize))
    }

    /// The targets with a label, given as text.
    pub(super) fn targets_at(&self, label: &str) -> impl Iterator<Item = TargetId> + '_ {
        let by_label = self.columns.numbers(BY_LABEL);
        let text = |at: usize| self.label(by_label.get(at).unwrap_or(NONE) as usize);
        let start = partition(by_label.len(), |at| text(at) < label);
        let end = partition(by_label.len(), |at| text(at) <= label);
        (start..end).filter_map(move |at| by_label.get(at)).map(|id| id as usize).map(from_target)
    }

    fn first_path(&self, path: &str) -> usize {
        let by_path = self.columns.numbers(BY_PATH);
        let text = |at: usize| self.paths().text(by_path.get(at).unwrap_or(NONE) as usize);
        partition(by_path.len(), |at| text(at) < path)
    }

    fn paths(&self) -> Records<'_> {
        self.columns.records(PATHS)
    }
}

const WRITTEN: &str = "checked bytes hold what this version of the code wrote";

/// What [`record`] wrote.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    postcard::from_bytes(bytes).expect(WRITTEN)
}

/// Reads a value that bytes begin with.
pub(super) fn decode_first<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    let (value, _) = postcard::take_from_bytes(bytes).expect(WRITTEN);
    value
}

fn get(records: Records<'_>, index: usize) -> &[u8] {
    records.get(index).unwrap_or_default()
}

fn id_at(numbers: Numbers<'_>, index: usize) -> Option<usize> {
    numbers.get(index).filter(|id| *id != NONE).map(|id| id as usize)
}

fn from_action(index: usize) -> ActionId {
    ActionId::from_index(index)
}

fn from_target(index: usize) -> TargetId {
    TargetId::from_index(index)
}

/// How many of the first `count` positions fulfil `before`, which all others do not.
fn partition(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        match before(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^31 nodes fit in memory")
}

/// Appends a value.
pub(super) fn record<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    let all = to_extend(value, std::mem::take(out)).expect("plain data serializes");
    *out = all;
}

/// Writes a whole graph.
pub(super) fn write(graph: &ActionGraph) -> Vec<u8> {
    let mut out = ColumnWriter::with_capacity(room_for(graph));
    let edges = ActionEdges::of(graph);
    write_artifacts(graph, &edges, &mut out);
    write_sets(graph, &edges, &mut out);
    write_actions(graph, &edges, &mut out);
    write_targets(graph, &edges, &mut out);
    let toolchain = |id: &usize| {
        matches!(graph.artifact(ArtifactId::from_index(*id)).origin, Origin::Toolchain(_))
    };
    out.numbers((0..graph.artifact_count()).filter(toolchain).map(number));
    out.finish()
}

/// About how many bytes a graph takes. Pages that are not written cost nothing; to grow a large
/// buffer takes its size once more.
fn room_for(graph: &ActionGraph) -> usize {
    const EACH: usize = 128;
    let stored = graph.stored.as_ref().map_or(0, |stored| stored.columns.byte_count());
    let others = graph.artifact_count() + graph.target_count() + graph.sets.count();
    stored + graph.actions.byte_count() + EACH * others
}

/// What actions name, so that each of them is decoded once.
#[derive(Default)]
struct ActionEdges {
    inputs: Vec<SetId>,
    toolchains: ListWriter,
    makes: ListWriter,
    owners: Vec<TargetId>,
}

impl ActionEdges {
    fn of(graph: &ActionGraph) -> Self {
        let mut edges = Self::default();
        for id in (0..graph.action_count()).map(ActionId::from_index) {
            let spec = graph.action(id);
            edges.inputs.push(spec.inputs);
            edges.toolchains.push(spec.toolchains.iter().map(|id| number(id.index())));
            edges.makes.push(spec.outputs.iter().map(|output| number(output.artifact.index())));
            edges.owners.push(spec.owner);
        }
        edges
    }

    /// What is given of each action that counts, with its number.
    fn live<'a, T: 'a>(
        graph: &'a ActionGraph,
        all: impl Iterator<Item = T> + 'a,
    ) -> impl Iterator<Item = (u32, T)> + 'a {
        let numbered = all.enumerate();
        let live = numbered.filter(|(index, _)| !graph.is_retired(ActionId::from_index(*index)));
        live.map(|(index, item)| (number(index), item))
    }
}

fn write_artifacts(graph: &ActionGraph, edges: &ActionEdges, out: &mut ColumnWriter) {
    let ids = || (0..graph.artifact_count()).map(ArtifactId::from_index);
    out.records(ids(), |id, out| {
        out.extend_from_slice(graph.artifact(id).path.as_str().as_bytes())
    });
    out.records(ids(), |id, out| {
        let Artifact { path: _, kind, origin } = graph.artifact(id);
        record(&StoredArtifact { kind: *kind, origin: origin.clone() }, out);
    });
    out.numbers(ids().map(|id| graph.owner(id).map_or(NONE, |owner| number(owner.index()))));
    out.numbers(ids().map(|id| graph.producer(id).map_or(NONE, |made| number(made.index()))));
    let mut by_path: Vec<ArtifactId> =
        ids().filter(|id| !matches!(graph.artifact(*id).origin, Origin::Toolchain(_))).collect();
    by_path.sort_by(|a, b| graph.artifact(*a).path.cmp(&graph.artifact(*b).path));
    out.numbers(by_path.into_iter().map(|id| number(id.index())));
    let mut users: Vec<(u32, u32)> = Vec::new();
    for set in (0..graph.sets.count()).map(SetId::from_index) {
        for item in &graph.sets.node(set).direct {
            if let Item::Artifact(id) = item {
                users.push((number(id.index()), Edge::Set(set).number()));
            }
        }
    }
    for (action, toolchains) in ActionEdges::live(graph, edges.toolchains.iter()) {
        users.extend(toolchains.iter().map(|toolchain| (*toolchain, action)));
    }
    write_grouped(graph.artifact_count(), users, out);
}

/// Writes a column of lists from pairs of (index of the list, number).
fn write_grouped(count: usize, mut pairs: Vec<(u32, u32)>, out: &mut ColumnWriter) {
    pairs.sort_unstable();
    pairs.dedup();
    let mut rest = pairs.as_slice();
    out.lists((0..count).map(|index| {
        let length = rest.iter().take_while(|(own, _)| *own as usize == index).count();
        let (list, tail) = rest.split_at(length);
        rest = tail;
        list.iter().map(|(_, number)| *number).collect::<Vec<u32>>()
    }));
}

fn write_sets(graph: &ActionGraph, edges: &ActionEdges, out: &mut ColumnWriter) {
    let sets = || (0..graph.sets.count()).map(SetId::from_index);
    let mut texts: Vec<&str> = Vec::new();
    out.lists(sets().map(|set| {
        let SetNode { order, direct, transitive } = graph.sets.node(set);
        let code = match order {
            Order::Postorder => 0,
            Order::Preorder => 1,
            Order::Topological => 2,
        };
        let mut list = vec![code | number(direct.len()) << 2];
        list.extend(direct.iter().map(|item| match item {
            Item::Artifact(id) => number(id.index()),
            Item::Text(text) => {
                texts.push(text);
                number(texts.len() - 1) | TEXT
            }
        }));
        list.extend(transitive.iter().map(|set| number(set.index())));
        list
    }));
    let mut users: Vec<(u32, u32)> = Vec::new();
    for set in sets() {
        for member in &graph.sets.node(set).transitive {
            users.push((number(member.index()), Edge::Set(set).number()));
        }
    }
    let inputs = ActionEdges::live(graph, edges.inputs.iter());
    users.extend(inputs.map(|(action, set)| (number(set.index()), action)));
    write_grouped(graph.sets.count(), users, out);
    out.records(texts, |text, out| out.extend_from_slice(text.as_bytes()));
}

fn write_actions(graph: &ActionGraph, edges: &ActionEdges, out: &mut ColumnWriter) {
    let actions = || (0..graph.action_count()).map(ActionId::from_index);
    out.records(actions(), |id, out| out.extend_from_slice(graph.action_bytes(id)));
    let mut reads = ListWriter::default();
    for (toolchains, inputs) in edges.toolchains.iter().zip(&edges.inputs) {
        reads.push(toolchains.iter().copied().chain([Edge::Set(*inputs).number()]));
    }
    out.list_column(&reads);
    out.list_column(&edges.makes);
    out.numbers(actions().filter(|id| graph.is_retired(*id)).map(|id| number(id.index())));
}

fn write_targets(graph: &ActionGraph, edges: &ActionEdges, out: &mut ColumnWriter) {
    let count = graph.target_count();
    let targets = || (0..count).map(TargetId::from_index);
    out.records(targets(), |id, out| record(graph.target(id), out));
    let labels: Vec<String> = targets().map(|id| graph.target(id).label.to_string()).collect();
    out.records(&labels, |label, out| out.extend_from_slice(label.as_bytes()));
    let mut by_label: Vec<usize> = (0..count).collect();
    by_label.sort_by_key(|index| (labels.get(*index), *index));
    out.numbers(by_label.into_iter().map(number));
    let owners = ActionEdges::live(graph, edges.owners.iter());
    let pairs = owners.map(|(action, owner)| (number(owner.index()), action));
    write_grouped(count, pairs.collect(), out);
    let outputs = (0..graph.artifact_count()).filter_map(|index| {
        let owner = graph.owner(ArtifactId::from_index(index))?;
        Some((number(owner.index()), number(index)))
    });
    write_grouped(count, outputs.collect(), out);
}

/// The members of a set that is not stored.
pub(super) fn members_of(node: &SetNode) -> impl Iterator<Item = Edge> + '_ {
    let leaves = node.direct.iter().filter_map(|item| match item {
        Item::Artifact(id) => Some(Edge::Leaf(number(id.index()))),
        Item::Text(_) => None,
    });
    leaves.chain(node.transitive.iter().map(|set| Edge::Set(*set)))
}

/// What an action that is not stored reads.
pub(super) fn reads_of(spec: &ActionSpec) -> impl Iterator<Item = Edge> + '_ {
    let tools = spec.toolchains.iter().map(|id| Edge::Leaf(number(id.index())));
    tools.chain([Edge::Set(spec.inputs)])
}
