//! A snapshot tells what was changed, comes back as it was left, and is never believed when it is
//! damaged.

use std::fs;

use super::*;
use crate::workspace::host::{HostOptions, WorkspaceHost};
use maestro_core::graph::{ActionSet, Target};
use maestro_core::host::Host;
use maestro_core::{
    ActionClass, ActionSpec, ArtifactKind, DigestFunction, ExecutionHints, How, Label, Node,
    Output, RelPath,
};

struct Fixture {
    folder: tempfile::TempDir,
    options: Vec<String>,
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a normal path")
}

fn node(text: &str) -> Node {
    Node::File { digest: DigestFunction::Blake3.digest(text.as_bytes()), executable: false }
}

/// `src` is read to make `maestro-out/o`.
fn graph() -> ActionGraph {
    let mut graph = ActionGraph::default();
    let owner = graph.add_target(Target {
        label: Label::parse("//:o", "", "").expect("valid"),
        rule: "rule".into(),
        aspect: None,
        location: "maestro.star:1:1".into(),
        deps: vec![],
        files: vec![],
        groups: vec![],
        executable: None,
        test: None,
        tags: vec![],
    });
    let source = maestro_core::Item::Artifact(graph.source(path("src")));
    let inputs = graph.sets.add(Default::default(), vec![source], vec![]);
    let made = graph.declare_output(path("maestro-out/o"), ArtifactKind::File, owner);
    let spec = ActionSpec {
        owner,
        mnemonic: "M".into(),
        progress: String::new(),
        class: ActionClass::Pure,
        how: How::Command { argv: vec![] },
        inputs,
        toolchains: vec![],
        outputs: vec![Output { artifact: made.expect("new"), optional: false }],
        env: vec![],
        platform: vec![],
        timeout_ms: None,
        hints: ExecutionHints::default(),
    };
    graph.add_action(spec).expect("well formed");
    graph
}

fn record(name: &str) -> RequestRecord {
    RequestRecord {
        name: vec![name.to_owned()],
        complete: true,
        artifacts: vec![ArtifactId::from_index(1)],
        targets: vec![TargetId::from_index(0)],
        payload: "{}".into(),
    }
}

/// What is seen of a file that was read long after its last change.
fn content(root: &Path, file: &str) -> Content {
    let bytes = fs::read(root.join(file)).expect("readable");
    let stat = rustix::fs::stat(root.join(file)).expect("there");
    Content::new(&StatSignature::of_stat(&stat), i64::MAX, DigestFunction::Blake3.digest(&bytes))
}

impl Fixture {
    /// A workspace with a build file, a source and an output, and the snapshot of a build of it.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        let fixture = Self { folder, options: vec!["//:o".into()] };
        for file in ["ws/maestro.star", "ws/src", "ws/maestro-out/o", "state/x"] {
            let file = fixture.folder.path().join(file);
            fs::create_dir_all(file.parent().expect("has one")).expect("writable");
            fs::write(file, "text").expect("writable");
        }
        let host = WorkspaceHost::new(&fixture.root(), HostOptions::default()).expect("there");
        host.read(&path("maestro.star")).expect("readable");
        host.list(None).expect("readable");
        let mut facts = host.take_observations();
        for file in ["src", "maestro-out/o"] {
            facts.push((file.into(), Fact::Content(content(&fixture.root(), file))));
        }
        let mut results = Results::default();
        results.set_node(ArtifactId::from_index(0), &node("text"));
        results.set_node(ArtifactId::from_index(1), &node("text"));
        fixture.save(None, &graph(), &results, facts, &Changes::default());
        fixture
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("ws")
    }

    fn name(&self) -> (PathBuf, &[String]) {
        (self.folder.path().join("state"), &self.options)
    }

    fn save(
        &self,
        former: Option<&Snapshot>,
        graph: &ActionGraph,
        results: &Results,
        facts: Vec<(String, Fact)>,
        changes: &Changes,
    ) {
        let (state_dir, options) = self.name();
        let name = SnapshotName { state_dir: &state_dir, options, maestro_build: "1" };
        let base = StoredBase::write(&name, former, b"memory").expect("writable");
        let left = Left {
            graph,
            results,
            facts,
            changes,
            pending: vec![ActionId::from_index(0)],
            recorded: Vec::new(),
            request: record("build"),
            others_hold: true,
            evaluation: EvaluationBytes { base: Some(base), delta: Some(b"d".to_vec()) },
            env: vec![("SET".into(), Some("1".into())), ("UNSET".into(), None)],
            params: vec![("mode".into(), Some("fast".into()))],
            toolchains: Vec::new(),
            log_bytes: 7,
        };
        save(&name, former, left).expect("writable");
    }

    fn open_as(&self, maestro_build: &str) -> Option<Snapshot> {
        let (state_dir, options) = self.name();
        let name = SnapshotName { state_dir: &state_dir, options, maestro_build };
        Snapshot::open(&name).expect("readable")
    }

    fn open(&self) -> Snapshot {
        self.open_as("1").expect("whole")
    }

    fn check(&self, snapshot: &Snapshot) -> Changes {
        let env = |name: &str| (name == "SET").then(|| "1".to_owned());
        snapshot.check(&self.root(), &env, &|_| Some("fast".to_owned())).expect("readable")
    }

    fn files(&self) -> Vec<PathBuf> {
        let (state_dir, options) = self.name();
        let folder = SnapshotName { state_dir: &state_dir, options, maestro_build: "1" }.folder();
        let entries = fs::read_dir(folder).expect("there");
        let mut files: Vec<PathBuf> = entries.map(|e| e.expect("readable").path()).collect();
        files.sort();
        files
    }
}

fn check(edit: impl FnOnce(&Path), expect: Changes) {
    let fixture = Fixture::new();
    assert_eq!(fixture.check(&fixture.open()), Changes::default());
    edit(&fixture.root());
    assert_eq!(fixture.check(&fixture.open()), expect);
}

#[test]
fn changes_are_told_by_what_they_concern() {
    let list = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let evaluation = |paths: &[&str]| Changes { evaluation: list(paths), ..Changes::default() };
    let sources = |paths: &[&str]| Changes { sources: list(paths), ..Changes::default() };
    let outputs = |paths: &[&str]| Changes { outputs: list(paths), ..Changes::default() };
    check(|_| {}, Changes::default());
    check(|r| fs::write(r.join("maestro.star"), "x").expect("ok"), evaluation(&["maestro.star"]));
    check(|r| fs::write(r.join("new"), "x").expect("ok"), evaluation(&[""]));
    check(|r| fs::write(r.join("src"), "x").expect("ok"), sources(&["src"]));
    check(|r| fs::remove_file(r.join("src")).expect("ok"), evaluation(&["", "src"]));
    let output = "maestro-out/o";
    check(|r| fs::write(r.join(output), "TEXT").expect("ok"), outputs(&[output]));
    check(|r| fs::remove_dir_all(r.join("maestro-out")).expect("ok"), outputs(&[output]));
}

#[test]
fn values_of_now_are_compared() {
    let fixture = Fixture::new();
    let snapshot = fixture.open();
    let check = |set: Option<&str>, unset: Option<&str>, mode: &str, expect: &[&str]| {
        let env = |name: &str| match name {
            "SET" => set.map(str::to_owned),
            _ => unset.map(str::to_owned),
        };
        let changes = snapshot.check(&fixture.root(), &env, &|_| Some(mode.to_owned()));
        assert_eq!(changes.expect("readable").values, expect);
    };
    check(Some("1"), None, "fast", &[]);
    check(Some("2"), None, "fast", &["SET"]);
    check(None, Some(""), "slow", &["SET", "UNSET", "mode"]);
}

#[test]
fn what_was_left_comes_back_and_grows_by_what_changes() {
    let fixture = Fixture::new();
    let first = fixture.open();
    let before = fixture.files();
    let (graph, mut results) = first.open_graph().expect("readable").expect("whole");
    let (source, output) = (ArtifactId::from_index(0), ArtifactId::from_index(1));
    assert_eq!(graph.artifact(output).path, path("maestro-out/o"));
    assert_eq!(results.node(source), Some(node("text")));
    fs::write(fixture.root().join("src"), "other").expect("writable");
    let changes = fixture.check(&first);
    results.set_node(source, &node("other"));
    let facts = vec![("src".to_owned(), Fact::Content(content(&fixture.root(), "src")))];
    fixture.save(Some(&first), &graph, &results, facts, &changes);
    assert!(!first.is_latest());
    let second = fixture.open();
    assert!(second.is_latest());
    assert_eq!(fixture.check(&second), Changes::default());
    let (graph, results) = second.open_graph().expect("readable").expect("whole");
    assert_eq!(results.node(source), Some(node("other")));
    assert_eq!(results.node(output), Some(node("text")));
    let affected: ActionSet = graph.affected(&[source], &[]);
    assert_eq!(affected.len(), 1);
    assert_eq!((second.pending().len(), second.log_bytes()), (1, 7));
    let (base, delta) = second.open_evaluation().expect("readable").expect("whole");
    assert_eq!((base.get(), delta), (&b"memory"[..], &b"d"[..]));
    let is_graph = |file: &&PathBuf| file.to_string_lossy().contains("graph-");
    let graphs = |files: &[PathBuf]| files.iter().filter(is_graph).cloned().collect::<Vec<_>>();
    assert_eq!(graphs(&before), graphs(&fixture.files()), "the graph is not written again");
}

#[test]
fn what_vanished_and_is_not_needed_any_more_is_forgotten() {
    let fixture = Fixture::new();
    let first = fixture.open();
    fs::remove_file(fixture.root().join("src")).expect("there");
    let changes = fixture.check(&first);
    let (graph, results) = first.open_graph().expect("readable").expect("whole");
    let host = WorkspaceHost::new(&fixture.root(), HostOptions::default()).expect("there");
    host.list(None).expect("readable");
    fixture.save(Some(&first), &graph, &results, host.take_observations(), &changes);
    assert_eq!(fixture.check(&fixture.open()), Changes::default());
}

#[test]
fn another_build_of_maestro_believes_only_what_was_seen() {
    let fixture = Fixture::new();
    assert!(fixture.open().is_current());
    let other = fixture.open_as("2").expect("whole");
    assert!(!other.is_current());
    assert_eq!(
        other.content("src").map(|content| maestro_core::Digest::from(content.digest).size),
        Some(4)
    );
    assert_eq!(other.content("nothing"), None);
    assert_eq!(other.contents_below("maestro-out").len(), 1);
}

#[test]
fn a_damaged_snapshot_is_none() {
    let fixture = Fixture::new();
    for file in fixture.files() {
        let good = fs::read(&file).expect("there");
        let usable = || {
            let snapshot = fixture.open_as("1")?;
            let graph = snapshot.open_graph().expect("readable")?;
            let memory = snapshot.open_evaluation().expect("readable")?;
            Some((graph, memory.0))
        };
        for index in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[index] ^= 0x10;
            fs::write(&file, &bad).expect("writable");
            assert!(usable().is_none(), "{} byte {index}", file.display());
            fs::write(&file, &good[..index]).expect("writable");
            assert!(usable().is_none(), "{} cut at {index}", file.display());
        }
        fs::remove_file(&file).expect("there");
        assert!(usable().is_none());
        fs::write(&file, &good).expect("writable");
        assert!(usable().is_some());
    }
}

#[test]
fn racy_files_are_read_until_they_are_old() {
    let fixture = Fixture::new();
    let young = fixture.open();
    assert!(young.table().has_racy(), "the build file was just written");
    young.settle().expect("writable");
    assert!(fixture.open().table().has_racy(), "nothing is old enough");
    Snapshot { opened_at_ns: i64::MAX, ..fixture.open() }.settle().expect("writable");
    let settled = fixture.open();
    assert!(!settled.table().has_racy());
    assert_eq!(fixture.check(&settled), Changes::default());
}

#[test]
fn values_have_no_witness() {
    let fixture = Fixture::new();
    let (state_dir, options) = fixture.name();
    let name = SnapshotName { state_dir: &state_dir, options, maestro_build: "1" };
    let witness = witness::Witness::open(&name, &fixture.root()).expect("readable");
    assert!(witness.is_none(), "another process does not know the values of now");
}

#[test]
fn the_oldest_snapshots_go_first() {
    let mut fixture = Fixture::new();
    let all = fixture.folder.path().join("state").join(FOLDER);
    for number in 0..40 {
        if number == 20 {
            let heavy = all.join("heavy");
            fs::create_dir(&heavy).expect("made");
            let file = fs::File::create(heavy.join("graph")).expect("made");
            file.set_len(1 << 40).expect("a sparse file");
        }
        fixture.options = vec![format!("//{number}")];
        fixture.save(None, &graph(), &Results::default(), Vec::new(), &Changes::default());
    }
    assert_eq!(fs::read_dir(&all).expect("there").count(), 1 + 40);
    assert!(!all.join("heavy").exists(), "too heavy, and the oldest");
    assert!(fixture.open_as("1").is_some(), "the newest is there");
}
