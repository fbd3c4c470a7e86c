//! Why actions ran or got another key: from the build log, up to the edit at the root.
//!
//! The comparison of an action's last two states is [`maestro_core::key::explain`], the same walk
//! that makes the key. An input that changed is followed to the action that made it, and on from
//! there, until something is reached that no action made: a source file, a toolchain, a rule.
//! Everything here is data; [`Explanation::render`] is one way to show it.

pub mod lines;
mod producers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use maestro_core::event::Outcome;
use maestro_core::key::{InputPart, REQUEST_FILE};
use maestro_core::{Change, Digest, Label, key};
use serde::Serialize;

use self::lines::Lines;
use self::producers::{Producers, execution_path, is_native};
use super::build_log::{ActionRecord, BuildLog};

/// Most causes that one explanation lists.
const CAUSES_MAX: usize = 64;
/// Most outputs that the way of one cause lists.
const WAY_MAX: usize = 8;
/// Most causes that a rendered line shows.
const RENDERED_CAUSES_MAX: usize = 3;

/// Why one action ran, or got its result anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path of its first output.
    pub identity: String,
    /// The target that declared it.
    pub label: Label,
    /// What kind of action it is.
    pub mnemonic: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What made it necessary.
    pub why: Why,
}

/// What made it necessary to look at an action again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Why {
    /// The log knows no earlier state of it.
    New,
    /// Its key is the same as before, and the verdict or the outputs are not.
    SameKey {
        /// Whether it had failed before.
        failed_before: bool,
    },
    /// Its key changed.
    Changed {
        /// The roots of the change, each once.
        causes: Vec<Cause>,
        /// How many more there are.
        more: usize,
    },
}

/// One edit and how it reached an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// What changed at the root.
    pub root: Root,
    /// The outputs that carried the change, from the edit's side to the action; empty if direct.
    /// A long way is shortened: its beginning and its last output are kept.
    pub through: Vec<String>,
}

/// What no action made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Root {
    /// A source file.
    Source {
        /// Its path below the workspace.
        path: String,
        /// What happened to it.
        edit: Edit,
        /// Its content before and now, if it is a file that changed.
        #[serde(skip)]
        content: Option<(Digest, Digest)>,
        /// The lines that differ, once [`lines::with_lines`] has looked.
        lines: Option<Lines>,
    },
    /// An output that was not an input before, or is none now.
    Dependency {
        /// Its path.
        path: String,
        /// What happened.
        edit: Edit,
    },
    /// A toolchain.
    Toolchain {
        /// Its name.
        name: String,
        /// What happened to it.
        edit: Edit,
    },
    /// An action's command line.
    CommandLine {
        /// The first argument that differs, as it was.
        old: Option<String>,
        /// The same, as it is.
        new: Option<String>,
    },
    /// The parameters of a native step.
    Parameters,
    /// An environment variable that the rule sets.
    Environment {
        /// Its name.
        name: String,
    },
    /// A platform property.
    Platform {
        /// Its name.
        name: String,
    },
    /// The list of declared outputs.
    Outputs,
    /// The time limit.
    Timeout,
    /// Class, sandbox or cacheability.
    Definition,
    /// An action made other bytes with the same key.
    Unstable {
        /// The path of its first output.
        identity: String,
    },
    /// A generated input changed, and the log does not know how.
    Unknown {
        /// Its path.
        path: String,
    },
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
}

impl Edit {
    fn of<T>(old: &Option<T>, new: &Option<T>) -> Self {
        match (old, new) {
            (None, Some(_)) => Self::Added,
            (Some(_), None) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// The actions that the targets consist of, with all that those need, as the log knows them.
pub fn actions_below(log: &BuildLog, labels: &[Label]) -> Vec<String> {
    let records: Vec<ActionRecord> = log.records().collect();
    let producers = Producers::of(&records);
    let mut waiting: Vec<usize> = (0..records.len())
        .filter(|index| records.get(*index).is_some_and(|r| labels.contains(&r.label)))
        .collect();
    let mut found: HashSet<usize> = waiting.iter().copied().collect();
    while let Some(record) = waiting.pop().and_then(|index| records.get(index)) {
        for (path, _) in &record.parts.inputs {
            if let Some(index) = producers.of_input(record, path)
                && found.insert(index)
            {
                waiting.push(index);
            }
        }
    }
    let mut found: Vec<usize> = found.into_iter().collect();
    found.sort_unstable();
    found.into_iter().filter_map(|i| records.get(i)).map(|r| r.identity.clone()).collect()
}

/// Explains those of the given actions that changed in the last build that changed any of them,
/// in the order in which they finished.
pub fn explain(log: &BuildLog, identities: &[String]) -> Vec<Explanation> {
    let wanted: HashSet<&str> = identities.iter().map(String::as_str).collect();
    let order: Vec<&str> =
        log.identities().into_iter().filter(|identity| wanted.contains(identity)).collect();
    let Some(last) = order.last().and_then(|identity| log.last_change(identity)) else {
        return Vec::new();
    };
    let mut walk = Walk::new(log);
    let changed = order.into_iter().filter(|identity| log.last_change(identity) == Some(last));
    changed.filter_map(|identity| walk.explanation(identity)).collect()
}

/// Follows changes upwards; what was found for an action is kept.
struct Walk<'a> {
    log: &'a BuildLog,
    records: Vec<ActionRecord>,
    by_identity: HashMap<String, usize>,
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

impl<'a> Walk<'a> {
    fn new(log: &'a BuildLog) -> Self {
        let records: Vec<ActionRecord> = log.records().collect();
        let producers = Producers::of(&records);
        let by_identity =
            records.iter().enumerate().map(|(i, record)| (record.identity.clone(), i)).collect();
        Self { log, records, by_identity, producers, known: HashMap::new() }
    }

    fn explanation(&mut self, identity: &str) -> Option<Explanation> {
        let index = *self.by_identity.get(identity)?;
        let why = self.why(index);
        let record = self.records.get(index)?;
        Some(Explanation {
            identity: record.identity.clone(),
            label: record.label.clone(),
            mnemonic: record.mnemonic.clone(),
            outcome: record.outcome,
            why,
        })
    }

    /// Explains an action after all that its changed inputs come from. Iterative, since chains of
    /// actions can be long; an action that is met again on its own way up is taken as unknown.
    fn why(&mut self, start: usize) -> Why {
        let mut stack = vec![start];
        let mut entered = HashSet::new();
        while let Some(index) = stack.last().copied() {
            if self.known.contains_key(&index) {
                stack.pop();
                continue;
            }
            let steps = self.steps(index);
            if entered.insert(index)
                && let Some(steps) = &steps
            {
                let missing = steps.iter().filter_map(|step| match step {
                    Step::Producer(producer, _) => Some(*producer),
                    Step::Root(_) => None,
                });
                let before = stack.len();
                stack.extend(missing.filter(|producer| {
                    !self.known.contains_key(producer) && !entered.contains(producer)
                }));
                if stack.len() > before {
                    continue;
                }
            }
            let why = self.conclude(index, steps);
            self.known.insert(index, why);
            stack.pop();
        }
        self.known.get(&start).cloned().unwrap_or(Why::New)
    }

    /// What changed between the last two states of an action, or `None` if there is only one.
    fn steps(&self, index: usize) -> Option<Vec<Step>> {
        let new = self.records.get(index)?;
        let old = self.log.previous(&new.identity)?;
        let changes = key::explain(&old.parts, &new.parts);
        Some(changes.into_iter().map(|change| self.step(new, change)).collect())
    }

    fn step(&self, record: &ActionRecord, change: Change) -> Step {
        let root = match change {
            Change::Argument { index: _, old, new } if !is_native(record) => {
                Root::CommandLine { old, new }
            }
            Change::Argument { .. } => Root::Definition,
            Change::Environment { name, .. } => Root::Environment { name },
            Change::Platform { name, .. } => Root::Platform { name },
            Change::Toolchain { name, old, new } => {
                Root::Toolchain { name, edit: Edit::of(&old, &new) }
            }
            Change::Outputs { .. } => Root::Outputs,
            Change::Timeout { .. } => Root::Timeout,
            Change::Definition { .. } => Root::Definition,
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
    fn conclude(&self, index: usize, steps: Option<Vec<Step>>) -> Why {
        let Some(steps) = steps else { return Why::New };
        if steps.is_empty() {
            let identity = self.records.get(index).map_or("", |record| &record.identity);
            let old = self.log.previous(identity);
            let failed_before = old.is_some_and(|old| old.outcome == Outcome::Failed);
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
                Some(Why::New) | None => add(Root::Unknown { path }, Vec::new()),
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

/// The path of an output as people know it: without the folder of all outputs.
fn for_people(path: &str) -> &str {
    let below = path.strip_prefix("maestro-out/").and_then(|rest| rest.split_once('/'));
    below.map_or(path, |(_, rest)| rest)
}

impl Explanation {
    /// One line of text: the action, what became of it, and why.
    pub fn render(&self) -> String {
        let Self { identity, label: _, mnemonic, outcome, why } = self;
        let verb = match (why, outcome) {
            (Why::New, Outcome::Executed) => "ran for the first time",
            (Why::New, Outcome::Cached) => "is new here, its result was cached",
            (Why::New, Outcome::Locked) => "is new here, its result is in maestro.lock",
            (_, Outcome::Executed) => "re-ran",
            (_, Outcome::Cached) => "has another key, its result was cached",
            (_, Outcome::Locked) => "has another key, its result is in maestro.lock",
            (_, Outcome::Failed) => "failed",
            (_, Outcome::Skipped) => "was skipped",
        };
        let line = format!("{}  {mnemonic} {verb}", for_people(identity));
        match why {
            Why::New => line,
            Why::SameKey { failed_before: true } => format!("{line}: it failed the last time"),
            Why::SameKey { failed_before: false } => {
                format!("{line}: nothing that it reads changed")
            }
            Why::Changed { causes, more } => {
                let shown = causes.iter().take(RENDERED_CAUSES_MAX).map(Cause::to_string);
                let shown: Vec<String> = shown.collect();
                let hidden = more + causes.len().saturating_sub(RENDERED_CAUSES_MAX);
                let rest = match hidden {
                    0 => String::new(),
                    count => format!(", and {count} more"),
                };
                format!("{line}: {}{rest}", shown.join(", "))
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)?;
        match self.through.as_slice() {
            [] => Ok(()),
            [only] => write!(f, " (through {})", for_people(only)),
            [first, .., last] => {
                write!(f, " (through {} … {})", for_people(first), for_people(last))
            }
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source { path, edit, content: _, lines: None } => write!(f, "{path} {edit}"),
            Self::Source { path, edit, content: _, lines: Some(lines) } => {
                write!(f, "{path}:{lines} {edit}")
            }
            Self::Dependency { path, edit: Edit::Removed } => {
                write!(f, "{} is no longer an input", for_people(path))
            }
            Self::Dependency { path, .. } => {
                write!(f, "{} is a new input", for_people(path))
            }
            Self::Toolchain { name, edit } => write!(f, "toolchain {name} {edit}"),
            Self::CommandLine { old: Some(old), new: Some(new) } => {
                write!(f, "the command line changed (`{}` to `{}`)", brief(old), brief(new))
            }
            Self::CommandLine { .. } => f.write_str("the command line changed"),
            Self::Parameters => f.write_str("its parameters changed"),
            Self::Environment { name } => write!(f, "environment variable {name} changed"),
            Self::Platform { name } => write!(f, "platform property {name} changed"),
            Self::Outputs => f.write_str("its declared outputs changed"),
            Self::Timeout => f.write_str("its time limit changed"),
            Self::Definition => f.write_str("its definition changed"),
            Self::Unstable { identity } => {
                write!(f, "{} was made again with other bytes", for_people(identity))
            }
            Self::Unknown { path } => write!(f, "{} changed", for_people(path)),
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "was added",
            Self::Removed => "was removed",
            Self::Changed => "changed",
        })
    }
}

/// The beginning of a text, on one line.
fn brief(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut out: String = text.chars().take(CHARS_MAX).flat_map(escape_control).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

fn escape_control(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use super::super::build_log::tests::action;
    use super::super::build_log::{BuildLog, Entry};
    use super::*;

    /// Builds of actions given as (identity, inputs as (path, content), content made).
    type Step<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

    fn check(builds: &[&[Step<'_>]], expect: &[&str]) {
        let folder = tempfile::tempdir().expect("a temp dir");
        let open = || BuildLog::open(folder.path()).expect("absent is no error");
        for (number, build) in builds.iter().enumerate() {
            let entries = build
                .iter()
                .map(|(id, inputs, made)| action(id, &number.to_string(), inputs, made))
                .map(Entry::Action);
            open().append(entries).expect("writable");
        }
        let log = open();
        let all = actions_below(&log, &[Label::new("", "p", "t").expect("valid")]);
        let lines: Vec<String> = explain(&log, &all).iter().map(Explanation::render).collect();
        assert_eq!(lines, expect);
    }

    const O: &str = "maestro-out/shared/k/graph.o";
    const LIB: &str = "maestro-out/shared/k/lib.a";
    const BIN: &str = "maestro-out/shared/bin";

    #[test]
    fn changes_are_followed_to_the_edit() {
        let first: &[Step<'_>] = &[
            (O, &[("k/graph.cc", "1"), ("k/graph.h", "1")], "o1"),
            ("maestro-out/shared/other.o", &[("other.cc", "1")], "oo"),
            (LIB, &[(O, "o1")], "a1"),
            (BIN, &[(LIB, "a1"), ("maestro-out/shared/other.o", "oo")], "b1"),
        ];
        let second: &[Step<'_>] = &[
            (O, &[("k/graph.cc", "2"), ("k/graph.h", "1")], "o2"),
            ("maestro-out/shared/other.o", &[("other.cc", "1")], "oo"),
            (LIB, &[(O, "o2")], "a2"),
            (BIN, &[(LIB, "a2"), ("maestro-out/shared/other.o", "oo")], "b2"),
        ];
        check(
            &[first, second],
            &[
                "k/graph.o  CppCompile re-ran: k/graph.cc changed",
                "k/lib.a  CppCompile re-ran: k/graph.cc changed (through k/graph.o)",
                "bin  CppCompile re-ran: k/graph.cc changed (through k/graph.o … k/lib.a)",
            ],
        );
        check(
            &[first],
            &[
                "k/graph.o  CppCompile ran for the first time",
                "other.o  CppCompile ran for the first time",
                "k/lib.a  CppCompile ran for the first time",
                "bin  CppCompile ran for the first time",
            ],
        );
    }

    #[test]
    fn early_cutoff_ends_the_list() {
        check(
            &[
                &[(O, &[("a.cc", "1")], "o"), (BIN, &[(O, "o")], "b")],
                &[(O, &[("a.cc", "2")], "o"), (BIN, &[(O, "o")], "b")],
            ],
            &["k/graph.o  CppCompile re-ran: a.cc changed"],
        );
    }

    #[test]
    fn inputs_that_come_and_go_are_told_apart() {
        check(
            &[
                &[(O, &[], "o"), (BIN, &[("gone.txt", "1")], "b")],
                &[(BIN, &[("new.txt", "1"), (O, "o")], "b2")],
            ],
            &["bin  CppCompile re-ran: gone.txt was removed, k/graph.o is a new input, \
               new.txt was added"],
        );
    }

    #[test]
    fn other_bytes_from_the_same_key_are_named() {
        check(
            &[
                &[(O, &[("a.cc", "1")], "o"), (BIN, &[(O, "o")], "b")],
                &[(O, &[("a.cc", "1")], "o!"), (BIN, &[(O, "o!")], "b!")],
            ],
            &[
                "k/graph.o  CppCompile re-ran: nothing that it reads changed",
                "bin  CppCompile re-ran: k/graph.o was made again with other bytes \
                 (through k/graph.o)",
            ],
        );
    }

    #[test]
    fn chains_of_any_length_are_followed() {
        let name = |n: usize| format!("maestro-out/shared/{n}");
        let folder = tempfile::tempdir().expect("a temp dir");
        let open = || BuildLog::open(folder.path()).expect("absent is no error");
        for round in ["0", "1"] {
            let record = |n: usize| {
                let above = if n == 0 { "src".to_owned() } else { name(n - 1) };
                Entry::Action(action(&name(n), round, &[(&above, round)], round))
            };
            open().append((0..2000).map(record)).expect("writable");
        }
        let log = open();
        let last = explain(&log, &[name(1999)]);
        let line = "1999  CppCompile re-ran: src changed (through 0 … 1998)";
        assert_eq!(last.iter().map(Explanation::render).collect::<Vec<_>>(), [line]);
    }
}
