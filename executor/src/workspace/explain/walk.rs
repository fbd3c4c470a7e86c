//! Follows changes upwards, from an action to what no action made.

use std::collections::{BTreeMap, HashMap};

use maestro_core::event::Outcome;
use maestro_core::key::{InputPart, REQUEST_FILE};
use maestro_core::{Change, KeyParts, key};

use super::producers::{Producers, execution_path, is_native};
use super::{Cause, Edit, Root, Why, lines};
use crate::workspace::build_log::{ActionRecord, BuildLog};

/// Most causes that one explanation lists.
const CAUSES_MAX: usize = 64;
/// Most outputs that the way of one cause lists.
const WAY_MAX: usize = 8;

/// An earlier state of an action.
pub(super) struct Former {
    /// What its key was made of.
    pub parts: KeyParts,
    /// Whether it failed.
    pub failed: bool,
}

/// Where earlier states come from.
pub(super) trait FormerStates {
    /// The state that an action is compared with.
    fn former(&mut self, record: &ActionRecord) -> Option<Former>;
}

/// The last state in the same workspace.
pub(super) struct LastState<'a>(pub &'a BuildLog);

impl FormerStates for LastState<'_> {
    fn former(&mut self, record: &ActionRecord) -> Option<Former> {
        let ActionRecord { parts, outcome, .. } = self.0.previous(&record.identity)?;
        Some(Former { parts, failed: outcome == Outcome::Failed })
    }
}

/// The walk; what was found for an action is kept.
pub(super) struct Walk<'a, F> {
    pub(super) formers: F,
    records: &'a [ActionRecord],
    by_identity: HashMap<&'a str, usize>,
    producers: Producers,
    known: HashMap<usize, Why>,
}

/// An input as it was and as it is.
type Versions = (Option<InputPart>, Option<InputPart>);

/// A step from an action to what it depends on.
enum Step {
    Root(Root),
    Producer(usize, String),
}

/// What was found between an action and its earlier state.
struct Found {
    steps: Vec<Step>,
    failed_before: bool,
}

impl Found {
    /// The actions that made what changed.
    fn producers(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Producer(producer, _) => Some(*producer),
            Step::Root(_) => None,
        })
    }
}

impl<'a, F: FormerStates> Walk<'a, F> {
    /// A walk over one state of a workspace.
    pub(super) fn new(records: &'a [ActionRecord], formers: F) -> Self {
        let numbered = records.iter().enumerate();
        let by_identity = numbered.map(|(i, record)| (record.identity.as_str(), i)).collect();
        let producers = Producers::of(records);
        Self { formers, records, by_identity, producers, known: HashMap::new() }
    }

    /// What made it necessary to look at an action of the state again.
    pub(super) fn why(&mut self, record: &ActionRecord) -> Why {
        match self.by_identity.get(record.identity.as_str()) {
            Some(index) => self.why_of(*index),
            None => Why::New,
        }
    }

    /// Explains an action after all that its changed inputs come from. Iterative, since chains of
    /// actions can be long; an action that is met again on its own way up is taken as unknown.
    fn why_of(&mut self, start: usize) -> Why {
        let mut stack = vec![start];
        // Actions that wait for what they depend on.
        let mut waiting: HashMap<usize, Option<Found>> = HashMap::new();
        while let Some(index) = stack.last().copied() {
            if self.known.contains_key(&index) {
                stack.pop();
                continue;
            }
            let found = match waiting.remove(&index) {
                Some(found) => found,
                None => {
                    let found = self.compare(index);
                    let unknown = |producer: &usize| {
                        *producer != index
                            && !self.known.contains_key(producer)
                            && !waiting.contains_key(producer)
                    };
                    let missing: Vec<usize> =
                        found.iter().flat_map(Found::producers).filter(unknown).collect();
                    if !missing.is_empty() {
                        stack.extend(missing);
                        waiting.insert(index, found);
                        continue;
                    }
                    found
                }
            };
            let why = found.map_or(Why::New, |found| self.conclude(found));
            self.known.insert(index, why);
            stack.pop();
        }
        self.known.get(&start).cloned().unwrap_or(Why::New)
    }

    /// What changed since the earlier state of an action, or `None` if there is none.
    fn compare(&mut self, index: usize) -> Option<Found> {
        let new = self.records.get(index)?;
        let Former { parts, failed: failed_before } = self.formers.former(new)?;
        let changes = key::explain(&parts, &new.parts);
        let steps = changes.into_iter().map(|change| self.step(new, change)).collect();
        Some(Found { steps, failed_before })
    }

    fn step(&self, record: &ActionRecord, change: Change) -> Step {
        let root = match change {
            Change::Argument { index: _, old, new } if !is_native(record) => {
                Root::CommandLine { old, new }
            }
            Change::Argument { index: _, old, new } => Root::Semantics { old, new },
            Change::Environment { name, old, new } => Root::Environment { name, old, new },
            Change::Platform { name, old, new } => Root::Platform { name, old, new },
            Change::Toolchain { name, old, new } => {
                let edit = Edit::of(&old, &new);
                Root::Toolchain { name, edit, content: old.zip(new), files: Vec::new() }
            }
            Change::Outputs { .. } => Root::Outputs,
            Change::Timeout { .. } => Root::Timeout,
            Change::Definition { old, new } => Root::Definition { old, new },
            Change::Input { path, old, new } => return self.input_step(record, &path, (old, new)),
        };
        Step::Root(root)
    }

    fn input_step(&self, record: &ActionRecord, path: &str, (old, new): Versions) -> Step {
        let edit = Edit::of(&old, &new);
        if is_native(record) && path == REQUEST_FILE {
            return Step::Root(Root::Parameters);
        }
        let made_by = self.producers.of_input(record, path);
        let path = execution_path(record, path).to_owned();
        Step::Root(match (made_by, edit) {
            (Some(producer), Edit::Changed) => return Step::Producer(producer, path),
            (Some(_), edit) => Root::Dependency { path, edit },
            (None, _) if path.ends_with(".params") && is_output(&path) => {
                Root::CommandLine { old: None, new: None }
            }
            (None, Edit::Changed) if is_output(&path) => Root::Unknown { path },
            (None, edit) if is_output(&path) => Root::Dependency { path, edit },
            (None, edit) => {
                Root::Source { path, edit, content: lines::contents(old, new), lines: None }
            }
        })
    }

    /// Puts together what is known of the producers.
    fn conclude(&self, found: Found) -> Why {
        let Found { steps, failed_before } = found;
        if steps.is_empty() {
            return Why::SameKey { failed_before };
        }
        // The shortest way counts for each root.
        let mut ways: HashMap<Root, Vec<String>> = HashMap::new();
        let mut order: BTreeMap<usize, Root> = BTreeMap::new();
        let mut more = 0;
        let mut add = |root: Root, through: Vec<String>| match ways.get_mut(&root) {
            Some(way) => {
                if through.len() < way.len() {
                    *way = through;
                }
            }
            None => {
                order.insert(order.len(), root.clone());
                ways.insert(root, through);
            }
        };
        for step in steps {
            let (producer, path) = match step {
                Step::Root(root) => {
                    add(root, Vec::new());
                    continue;
                }
                Step::Producer(producer, path) => (producer, path),
            };
            let identity =
                || self.records.get(producer).map_or_else(String::new, |r| r.identity.clone());
            match self.known.get(&producer) {
                Some(Why::Changed { causes, more: hidden }) => {
                    more += hidden;
                    for Cause { root, through } in causes {
                        let mut through = through.clone();
                        through.truncate(WAY_MAX - 1);
                        through.push(path.clone());
                        add(root.clone(), through);
                    }
                }
                Some(Why::SameKey { .. }) => {
                    add(Root::Unstable { identity: identity() }, vec![path]);
                }
                _ => add(Root::Unknown { path }, Vec::new()),
            }
        }
        let mut causes: Vec<Cause> = order
            .into_values()
            .filter_map(|root| ways.remove(&root).map(|through| Cause { root, through }))
            .collect();
        more += causes.len().saturating_sub(CAUSES_MAX);
        causes.truncate(CAUSES_MAX);
        Why::Changed { causes, more }
    }
}

fn is_output(path: &str) -> bool {
    path.starts_with("maestro-out/") || path.starts_with(".maestro/")
}
