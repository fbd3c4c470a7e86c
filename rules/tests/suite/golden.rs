//! The golden product loads, and its recorded actions depend on source files only.

use std::path::{Path, PathBuf};

use maestro_core::host::{DirEntry, FileType, Host, HostError};
use maestro_core::{ActionClass, ActionGraph, ActionId, Origin, RelPath, TargetPattern};
use maestro_rules::{LoadOptions, Loaded, load};

use crate::workspace::render;

/// A folder of this machine.
struct Disk(PathBuf);

impl Disk {
    fn error(path: &str) -> impl Fn(std::io::Error) -> HostError + '_ {
        move |source| HostError::Io { path: path.to_owned(), source }
    }
}

impl Host for Disk {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        match std::fs::metadata(self.0.join(path.as_str())) {
            Ok(found) if found.is_dir() => Ok(Some(FileType::Directory)),
            Ok(_) => Ok(Some(FileType::File)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
            Err(e) => Err(Self::error(path.as_str())(e)),
        }
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        match std::fs::read(self.0.join(path.as_str())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Self::error(path.as_str())(e)),
        }
    }

    fn list(&self, dir: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        let inner = dir.map(RelPath::as_str).unwrap_or_default();
        let mut out = Vec::new();
        for entry in std::fs::read_dir(self.0.join(inner)).map_err(Self::error(inner))? {
            let entry = entry.map_err(Self::error(inner))?;
            let folder = entry.file_type().map_err(Self::error(inner))?.is_dir();
            let file_type = if folder { FileType::Directory } else { FileType::File };
            let name = entry.file_name().to_string_lossy().into_owned();
            out.push(DirEntry { name, valid: true, file_type });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        let (name, from) = (name.to_owned(), from.to_owned());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }
}

fn product() -> Loaded {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/intelgraph");
    let patterns = vec![(false, TargetPattern::parse("//...", "").expect("a pattern"))];
    load(LoadOptions::new(&Disk(root), patterns, 2))
        .unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

#[test]
fn the_product_plans() {
    let loaded = product();
    let graph = &loaded.graph;
    let files: Vec<_> =
        loaded.requested.iter().flat_map(|id| graph.target(*id).files.clone()).collect();
    let plan = graph.plan(&files).unwrap_or_else(|error| panic!("{error}"));
    assert!(plan.order.len() > 20, "{} actions", plan.order.len());
    let tests = loaded.requested.iter().filter(|id| graph.target(**id).test.is_some()).count();
    assert!(tests >= 4, "{tests} tests");
}

/// The first input of an action, however far, that is not a source.
fn foreign(graph: &ActionGraph, action: ActionId) -> Option<String> {
    for input in graph.inputs_of(action) {
        match (&graph.artifact(input).origin, graph.producer(input)) {
            (Origin::Source, _) => {}
            (_, Some(maker)) if graph.action(maker).toolchains.is_empty() => {
                if let Some(found) = foreign(graph, maker) {
                    return Some(found);
                }
            }
            _ => return Some(graph.artifact(input).path.to_string()),
        }
    }
    None
}

#[test]
fn records_hang_on_sources_only() {
    let loaded = product();
    let graph = &loaded.graph;
    let recorded: Vec<ActionId> = (0..graph.action_count())
        .map(ActionId::from_index)
        .filter(|id| graph.action(*id).class == ActionClass::Recorded)
        .collect();
    assert!(!recorded.is_empty());
    for action in recorded {
        assert_eq!(foreign(graph, action), None);
    }
}
