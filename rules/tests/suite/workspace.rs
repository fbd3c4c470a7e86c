//! A workspace in memory, and text forms of what loading it gives.

use std::collections::{BTreeMap, BTreeSet};

use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::key::{Resolved, SandboxProfile, prepare};
use maestro_core::{
    ActionGraph, ActionId, ArtifactId, ArtifactKind, Digest, DigestFunction, How, Node, Origin,
    RelPath, TargetPattern,
};
use maestro_rules::{Diagnostic, LoadOptions, Loaded, load};

/// Files by path.
#[derive(Default)]
pub(crate) struct Memory {
    files: BTreeMap<String, Vec<u8>>,
    /// Names that are no names of a build, as (folder, escaped name).
    odd: Vec<(String, String)>,
}

impl Memory {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
        Self { files, odd: Vec::new() }
    }

    pub(crate) fn bytes(mut self, path: &str, bytes: &[u8]) -> Self {
        self.files.insert(path.to_owned(), bytes.to_vec());
        self
    }

    pub(crate) fn odd(mut self, folder: &str, name: &str) -> Self {
        self.odd.push((folder.to_owned(), name.to_owned()));
        self
    }

    fn is_folder(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.files.keys().any(|file| file.starts_with(&prefix))
    }
}

impl Host for Memory {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        if self.files.contains_key(path.as_str()) {
            return Ok(Some(FileType::File));
        }
        Ok(self.is_folder(path.as_str()).then_some(FileType::Directory))
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.files.get(path.as_str()).cloned())
    }

    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        let prefix = dir.map(|dir| format!("{dir}/")).unwrap_or_default();
        let below = self.files.keys().filter_map(|file| file.strip_prefix(&prefix));
        let names: BTreeSet<(String, bool)> = below
            .map(|rest| match rest.split_once('/') {
                Some((folder, _)) => (folder.to_owned(), true),
                None => (rest.to_owned(), false),
            })
            .collect();
        let mut out: Vec<DirEntry> = names
            .into_iter()
            .map(|(name, folder)| DirEntry {
                name,
                valid: true,
                file_type: if folder { FileType::Directory } else { FileType::File },
            })
            .collect();
        let here = dir.map(RelPath::as_str).unwrap_or_default();
        out.extend(self.odd.iter().filter(|(folder, _)| folder == here).map(|(_, name)| {
            DirEntry { name: name.clone(), valid: false, file_type: FileType::File }
        }));
        Ok(out)
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        match self.is_folder(&format!("external/{name}")) {
            true => Ok(name.to_owned()),
            false => {
                let (name, from) = (name.to_owned(), from.to_owned());
                Err(HostError::NoRepository { name, from, hints: Vec::new() })
            }
        }
    }
}

/// Patterns from texts; a leading `-` makes one negative.
pub(crate) fn patterns(texts: &[&str]) -> Vec<(bool, TargetPattern)> {
    let pattern = |text: &&str| match text.strip_prefix('-') {
        Some(rest) => (true, TargetPattern::parse(rest, "").expect("a pattern")),
        None => (false, TargetPattern::parse(text, "").expect("a pattern")),
    };
    texts.iter().map(pattern).collect()
}

/// Loads patterns.
pub(crate) fn load_memory(host: &Memory, texts: &[&str]) -> Result<Loaded, Vec<Diagnostic>> {
    load(LoadOptions::new(host, patterns(texts), 2))
}

/// Loads patterns that must be fine.
pub(crate) fn loaded(files: &[(&str, &str)], patterns: &[&str]) -> Loaded {
    load_memory(&Memory::new(files), patterns).unwrap_or_else(|errors| {
        panic!("unexpected errors:\n{}", render(&errors));
    })
}

/// The errors of patterns that must fail, rendered.
pub(crate) fn errors_of(host: &Memory, patterns: &[&str]) -> String {
    match load_memory(host, patterns) {
        Ok(_) => panic!("it loads"),
        Err(errors) => render(&errors),
    }
}

pub(crate) fn render(errors: &[Diagnostic]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

/// Labels of the requested targets.
pub(crate) fn requested(loaded: &Loaded) -> Vec<String> {
    loaded.requested.iter().map(|id| loaded.graph.target(*id).label.to_string()).collect()
}

/// Gives every artifact a content made of its path; trees hold `x` and `y/z`.
struct Pretend<'a>(&'a ActionGraph);

impl Resolved for Pretend<'_> {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        let artifact = self.0.artifact(artifact);
        let text = match &artifact.origin {
            Origin::Toolchain(toolchain) => format!("{toolchain:?}"),
            _ => artifact.path.to_string(),
        };
        let digest = DigestFunction::Blake3.digest(text.as_bytes());
        Some(match artifact.kind {
            ArtifactKind::File => Node::File { digest, executable: false },
            ArtifactKind::Tree => Node::Tree { root: digest },
        })
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        Some(vec!["x".to_owned(), "y/z".to_owned()])
    }
}

/// One action as text: mnemonic, command or request, inputs, outputs, environment.
pub(crate) fn describe(graph: &ActionGraph, id: ActionId) -> String {
    let spec = graph.action(id);
    let prepared = prepare(
        graph,
        DigestFunction::Blake3,
        SandboxProfile::Hermetic,
        &spec,
        &graph.inputs_of(id),
        &Pretend(graph),
    )
    .expect("a key");
    let mut lines = vec![match &spec.how {
        How::Command { .. } | How::Map(_) => {
            format!("{}: {}", spec.mnemonic, prepared.parts.arguments.join(" "))
        }
        How::Native { kind, request, .. } => format!("{}: {kind} {request}", spec.mnemonic),
        How::Params { .. } => {
            let is_request = |bytes: &&(Digest, Vec<u8>)| bytes.1.starts_with(b"{\"content\":");
            let request = prepared.blobs.iter().find(is_request).expect("a request");
            format!("{}: write {}", spec.mnemonic, String::from_utf8_lossy(&request.1))
        }
    }];
    let paths: Vec<&str> = prepared
        .parts
        .inputs
        .iter()
        .map(|(path, _)| path.as_str())
        .filter(|path| *path != ".maestro/toolchains" && *path != "request.json")
        .collect();
    lines.push(format!("  in:  {}", paths.join(" ")));
    lines.push(format!("  out: {}", prepared.parts.outputs.join(" ")));
    for (name, _) in &prepared.parts.toolchains {
        lines.push(format!("  toolchain: {name}"));
    }
    for (name, value) in &spec.env {
        lines.push(format!("  env: {name}={value}"));
    }
    lines.join("\n")
}

/// Every action of a graph as text, in the order in which they were declared.
pub(crate) fn actions(graph: &ActionGraph) -> String {
    let ids = (0..graph.action_count()).map(ActionId::from_index);
    ids.map(|id| describe(graph, id)).collect::<Vec<_>>().join("\n")
}

/// The key of every action, by its first output.
pub(crate) fn keys(graph: &ActionGraph) -> BTreeMap<String, String> {
    graph
        .live_actions()
        .map(|id| {
            let spec = graph.action(id);
            let inputs = graph.inputs_of(id);
            let function = DigestFunction::Blake3;
            let profile = SandboxProfile::Hermetic;
            let prepared =
                prepare(graph, function, profile, &spec, &inputs, &Pretend(graph)).expect("a key");
            let output = spec.outputs.first().expect("an output").artifact;
            (graph.artifact(output).path.to_string(), format!("{:?}", prepared.key))
        })
        .collect()
}
