//! Gathers what a key is made of: the entries of the input root, and blobs that may be new.

use super::{PrepareError, REQUEST_FILE, Resolved, Subject, TOOLCHAINS_FILE};
use crate::action::{ActionClass, Origin};
use crate::digest::{Digest, DigestFunction};
use crate::graph::{ActionGraph, ArtifactId};
use crate::merkle::Node;
use crate::path::RelPath;
use crate::record::canonical_json;

/// What is asked of whoever runs an action.
pub(super) struct Asked {
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) salt: serde_json::Value,
}

/// Gathers the input root and the blobs of one action.
pub(super) struct Builder<'a> {
    pub(super) graph: &'a ActionGraph,
    pub(super) function: DigestFunction,
    pub(super) resolved: &'a dyn Resolved,
    pub(super) entries: Vec<(RelPath, Node)>,
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
}

impl Builder<'_> {
    /// Adds what the action reads; native steps see it below a folder of their own.
    pub(super) fn inputs(
        &mut self,
        subject: &Subject<'_>,
        below: Option<&str>,
    ) -> Result<(), PrepareError> {
        let place = |path: &RelPath| match below {
            None => path.clone(),
            Some(folder) => RelPath::new(&format!("{folder}/{path}"))
                .expect("a constant folder before a normal path is normal"),
        };
        for id in subject.inputs {
            let artifact = self.graph.artifact(*id);
            if below.is_none() && matches!(artifact.origin, Origin::Toolchain(_)) {
                continue; // commands see it at absolute paths; the toolchains file has its digest
            }
            let node = self
                .resolved
                .node(*id)
                .ok_or_else(|| PrepareError::MissingInput { path: artifact.path.clone() })?;
            self.entries.push((place(&artifact.path), node));
        }
        let files = subject.files.inputs.iter();
        self.entries.extend(files.map(|(path, node)| (place(path), node.clone())));
        Ok(())
    }

    pub(super) fn native(
        &mut self,
        class: ActionClass,
        kind: &str,
        semantics: u32,
        request: &serde_json::Value,
    ) -> Result<Asked, PrepareError> {
        self.file(REQUEST_FILE, canonical_json(request)?);
        Ok(Asked {
            arguments: vec![format!("@maestro//{kind}"), semantics.to_string()],
            environment: Vec::new(),
            salt: serde_json::json!({"class": class.name()}),
        })
    }

    pub(super) fn toolchains(
        &self,
        ids: &[ArtifactId],
    ) -> Result<Vec<(String, Digest)>, PrepareError> {
        let digest = |id: &ArtifactId| {
            let artifact = self.graph.artifact(*id);
            let name = match &artifact.origin {
                Origin::Toolchain(toolchain) => toolchain.name.clone(),
                _ => artifact.path.to_string(),
            };
            match self.resolved.node(*id) {
                Some(Node::Tree { root }) => Ok((name, root)),
                _ => Err(PrepareError::MissingInput { path: artifact.path.clone() }),
            }
        };
        ids.iter().map(digest).collect()
    }

    pub(super) fn toolchains_file(&mut self, toolchains: &[(String, Digest)]) {
        if toolchains.is_empty() {
            return;
        }
        let lines: String = toolchains.iter().map(|(_, digest)| format!("{digest}\n")).collect();
        self.file(TOOLCHAINS_FILE, lines.into_bytes());
    }

    pub(super) fn file(&mut self, path: &str, bytes: Vec<u8>) {
        let path = RelPath::new(path).expect("callers pass constant or output paths");
        let digest = self.function.digest(&bytes);
        self.entries.push((path, Node::File { digest, executable: false }));
        self.blobs.push((digest, bytes));
    }
}
