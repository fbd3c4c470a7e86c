//! A workspace that is edited and built again and again, with memory and without.

use std::collections::BTreeSet;

use maestro_core::graph::GraphDelta;
use maestro_core::graph::columns::SharedBytes;
use maestro_core::{ActionGraph, ArtifactId, Target};
use maestro_rules::{ChangedPaths, LoadOptions, Loaded, Reloaded, Remember, Remembered, reload};

use crate::workspace::{Memory, describe, keys, patterns, render, requested};

/// A workspace that is built again and again.
pub(crate) struct Session {
    files: Vec<(String, String)>,
    patterns: Vec<&'static str>,
    pub(crate) base: Vec<u8>,
    pub(crate) delta: Option<Vec<u8>>,
    graph: Vec<u8>,
    graph_delta: GraphDelta,
    /// What has changed since the memory was made.
    changed: BTreeSet<String>,
}

impl Session {
    pub(crate) fn new(files: &[(&str, &str)], patterns: &[&'static str]) -> Self {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        let mut out = Self {
            files,
            patterns: patterns.to_vec(),
            base: Vec::new(),
            delta: None,
            graph: Vec::new(),
            graph_delta: GraphDelta::default(),
            changed: BTreeSet::new(),
        };
        let first = out.cold().unwrap_or_else(|errors| panic!("{errors}"));
        out.keep(&first);
        out
    }

    /// Keeps what is remembered of a build.
    fn keep(&mut self, built: &Reloaded) {
        let graph = &built.loaded.graph;
        self.changed.clear();
        match &built.remembered {
            Remembered::Base(bytes) => {
                self.base.clone_from(bytes);
                self.delta = None;
                self.graph = graph.store();
                self.graph_delta = GraphDelta::default();
            }
            Remembered::Delta(bytes) => {
                self.delta = Some(bytes.clone());
                self.graph_delta = graph.delta();
            }
            Remembered::Nothing => panic!("something was to be remembered"),
        }
    }

    fn host(&self) -> Memory {
        let files: Vec<(&str, &str)> = self.files.iter().map(|(p, t)| (&**p, &**t)).collect();
        Memory::new(&files)
    }

    fn load(
        &self,
        memory: Option<maestro_rules::Memory<'_>>,
        remember: Remember,
    ) -> Result<Reloaded, String> {
        let host = self.host();
        let options = LoadOptions::new(&host, patterns(&self.patterns), 2);
        reload(options, memory, remember).map_err(|errors| render(&errors))
    }

    pub(crate) fn cold(&self) -> Result<Reloaded, String> {
        self.load(None, Remember::Base)
    }

    pub(crate) fn warm(
        &self,
        base: &[u8],
        delta: Option<&[u8]>,
        changed: &ChangedPaths,
    ) -> Result<Reloaded, String> {
        let graph =
            ActionGraph::open(SharedBytes::new(self.graph.clone()), self.graph_delta.clone());
        assert!(graph.is_some());
        let memory = maestro_rules::Memory { base, delta, graph, changed };
        self.load(Some(memory), Remember::Delta)
    }

    pub(crate) fn set(&mut self, path: &str, text: Option<&str>) {
        self.files.retain(|(own, _)| own != path);
        self.files.extend(text.map(|text| (path.to_owned(), text.to_owned())));
    }

    /// Edits files, builds with memory, and compares with a build without.
    pub(crate) fn edit(&mut self, edits: &[(&str, Option<&str>)]) -> Result<Reloaded, String> {
        let before = self.host();
        for (path, text) in edits {
            self.set(path, *text);
        }
        self.changed.extend(changes(&before, &self.host(), edits));
        let changed = ChangedPaths::These(self.changed.clone());
        let warm = self.warm(&self.base, self.delta.as_deref(), &changed);
        let cold = self.cold();
        match (&warm, &cold) {
            (Ok(warm), Ok(cold)) => {
                assert_same(warm, cold);
                self.keep(warm);
            }
            (Err(warm), Err(cold)) => assert_eq!(warm, cold),
            (warm, cold) => panic!("with memory {:?}, without {:?}", warm.is_ok(), cold.is_ok()),
        }
        warm
    }
}

/// The paths of edits, and the folders whose listings they change.
fn changes(before: &Memory, after: &Memory, edits: &[(&str, Option<&str>)]) -> BTreeSet<String> {
    use maestro_core::RelPath;
    use maestro_core::host::Host;
    let mut out = BTreeSet::new();
    for (path, _) in edits {
        out.insert((*path).to_owned());
        let mut folder = RelPath::new(path).expect("a path").parent();
        loop {
            let list = |host: &Memory| host.list(folder.as_ref()).expect("readable");
            if list(before) != list(after) {
                out.insert(folder.as_ref().map(ToString::to_string).unwrap_or_default());
            }
            let Some(inner) = folder else { break };
            folder = inner.parent();
        }
    }
    out
}

pub(crate) fn assert_same(warm: &Reloaded, cold: &Reloaded) {
    let (warm, cold) = (&warm.loaded, &cold.loaded);
    assert_eq!(requested(warm), requested(cold));
    assert_eq!(render(&warm.remarks), render(&cold.remarks));
    assert_eq!(keys(&warm.graph), keys(&cold.graph));
    let actions = |graph: &ActionGraph| -> BTreeSet<String> {
        graph.live_actions().map(|id| describe(graph, id)).collect()
    };
    assert_eq!(actions(&warm.graph), actions(&cold.graph));
    assert_eq!(targets(warm), targets(cold));
    assert_eq!(warm.packages, cold.packages);
}

/// Everything that is known of the targets that are needed.
fn targets(loaded: &Loaded) -> BTreeSet<String> {
    let graph = &loaded.graph;
    let path = |id: &ArtifactId| graph.artifact(*id).path.to_string();
    let mut seen = BTreeSet::new();
    let mut stack = loaded.requested.clone();
    let mut out = BTreeSet::new();
    while let Some(id) = stack.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Target { label, rule, aspect, location, deps, files, groups, executable, test, tags } =
            graph.target(id);
        let groups: Vec<_> = groups
            .iter()
            .map(|(name, files)| (name, files.iter().map(path).collect::<Vec<_>>()))
            .collect();
        let files: Vec<String> = files.iter().map(path).collect();
        let names: Vec<String> =
            deps.iter().map(|dep| graph.target(*dep).label.to_string()).collect();
        let program = executable.as_ref().map(|e| (path(&e.file), e.runfiles.as_ref().map(path)));
        let test = test
            .as_ref()
            .and_then(|test| test.actions.first())
            .map(|id| graph.action(*id).mnemonic);
        out.insert(format!(
            "{label} {rule} {aspect:?} {location} {names:?} {files:?} {program:?} {test:?} {tags:?} {groups:?}"
        ));
        stack.extend(deps);
    }
    out
}
