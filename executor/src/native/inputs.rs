//! Finds what the paths of a request name: inputs of the action, and places inside tree inputs.
//!
//! Only the prepared input tree and the store are asked; the workspace is never touched.

use std::collections::HashMap;

use maestro_cas::Store;
use maestro_core::key::NATIVE_INPUTS;
use maestro_core::merkle::Node;
use maestro_core::path::{RelPath, resolve_link};
use maestro_core::{Digest, Prepared};

use super::NativeError;

/// Most links that are followed on the way to one path (as Linux does).
const LINKS_FOLLOWED_MAX: usize = 40;

/// Where toolchains stand among the inputs. They are trees of a host and may hold absolute links.
const TOOLCHAINS: &str = ".maestro/toolchain/";

/// A file or tree that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A regular file.
    File {
        /// Its content.
        digest: Digest,
        /// Its execute bit.
        executable: bool,
    },
    /// A folder.
    Tree {
        /// Its root directory.
        root: Digest,
        /// Whether its links are known to stay inside: it is a whole artifact, and those of an
        /// artifact were checked when it was made.
        closed: bool,
    },
}

/// The inputs of one action, by execution path.
pub(super) struct Inputs<'a> {
    store: &'a Store,
    nodes: HashMap<&'a str, &'a Node>,
}

impl<'a> Inputs<'a> {
    pub(super) fn new(store: &'a Store, prepared: &'a Prepared) -> Self {
        let inputs = prepared.tree.entries.iter().filter_map(|(path, node)| {
            let below = path.as_str().strip_prefix(NATIVE_INPUTS)?.strip_prefix('/')?;
            Some((below, node))
        });
        Self { store, nodes: inputs.collect() }
    }

    /// What stands at `path`, which `field` of the request names.
    pub(super) fn find(&self, field: &str, path: &str) -> Result<Found, NativeError> {
        let fail = |why: String| NativeError::field(field, why);
        let path = RelPath::new(path).map_err(|error| fail(error.to_string()))?;
        let mut inside: Vec<&str> = Vec::new();
        let mut top = path.as_str();
        loop {
            if let Some(node) = self.nodes.get(top) {
                inside.reverse();
                return self
                    .inside(node, &path, &inside)?
                    .ok_or_else(|| fail(format!("`{top}` has no `{}`", inside.join("/"))));
            }
            match top.rsplit_once('/') {
                Some((parent, name)) => {
                    inside.push(name);
                    top = parent;
                }
                None => return Err(fail(format!("`{path}` is not an input of the action"))),
            }
        }
    }

    /// A file that `field` names.
    pub(super) fn file(&self, field: &str, path: &str) -> Result<(Digest, bool), NativeError> {
        match self.find(field, path)? {
            Found::File { digest, executable } => Ok((digest, executable)),
            Found::Tree { .. } => {
                Err(NativeError::field(field, format!("`{path}` is a folder, not a file")))
            }
        }
    }

    /// Walks down from `top`; links on the way are followed as long as they stay below it.
    fn inside(
        &self,
        top: &Node,
        path: &RelPath,
        names: &[&str],
    ) -> Result<Option<Found>, NativeError> {
        let root = match top {
            Node::File { digest, executable } if names.is_empty() => {
                return Ok(Some(Found::File { digest: *digest, executable: *executable }));
            }
            Node::Tree { root } if names.is_empty() => {
                let closed = !path.as_str().starts_with(TOOLCHAINS);
                return Ok(Some(Found::Tree { root: *root, closed }));
            }
            Node::Tree { root } => *root,
            Node::File { .. } => return Ok(None),
            Node::Symlink { target } => {
                let why = format!("the input `{path}` is a link to `{target}`, not a file or tree");
                return Err(NativeError::Internal { message: why });
            }
        };
        let mut rest = names.join("/");
        for _ in 0..LINKS_FOLLOWED_MAX {
            match self.step(root, &rest)? {
                Step::Found(found) => return Ok(found),
                Step::Link(to) => rest = to,
            }
        }
        Ok(None)
    }

    /// Walks until the end of `rest` or the first link.
    fn step(&self, root: Digest, rest: &str) -> Result<Step, NativeError> {
        if rest.is_empty() {
            return Ok(Step::Found(Some(Found::Tree { root, closed: false })));
        }
        let mut at = root;
        let mut walked = String::new();
        let mut segments = rest.split('/').peekable();
        while let Some(name) = segments.next() {
            let last = segments.peek().is_none();
            let directory = self.store.directory(&at)?;
            if !walked.is_empty() {
                walked.push('/');
            }
            walked.push_str(name);
            if let Some(link) = directory.symlinks.iter().find(|node| node.name == name) {
                let here = RelPath::new(&walked).ok();
                let Some(to) = here.and_then(|here| resolve_link(&here, &link.target)) else {
                    return Ok(Step::Found(None));
                };
                let tail: Vec<&str> = Some(to.as_str())
                    .into_iter()
                    .filter(|t| !t.is_empty())
                    .chain(segments)
                    .collect();
                return Ok(Step::Link(tail.join("/")));
            }
            if let Some(file) = directory.files.iter().find(|node| node.name == name) {
                let found = Found::File { digest: file.digest, executable: file.is_executable };
                return Ok(Step::Found(last.then_some(found)));
            }
            match directory.directories.iter().find(|node| node.name == name) {
                Some(node) => at = node.digest,
                None => return Ok(Step::Found(None)),
            }
        }
        Ok(Step::Found(Some(Found::Tree { root: at, closed: false })))
    }
}

enum Step {
    Found(Option<Found>),
    Link(String),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{Fixture, Thing};

    #[test]
    fn links_inside_trees_are_followed() {
        let mut fixture = Fixture::new();
        fixture.tree(
            "t",
            &[
                ("a/f", Thing::File(b"found")),
                ("b", Thing::Link("a")),
                ("c/up", Thing::Link("../b/f")),
                ("root", Thing::Link(".")),
                ("loop", Thing::Link("loop")),
                ("out", Thing::Link("/etc/passwd")),
            ],
        );
        for path in ["t/a/f", "t/b/f", "t/c/up", "t/root/root/b/f"] {
            let made = fixture.run("copy", json!({"from": path})).expect(path);
            assert_eq!(fixture.bytes(made), b"found", "{path}");
        }
        for inside in ["loop", "out", "a/f/g", "a/g", "loop/f"] {
            let error = fixture.run("copy", json!({"from": format!("t/{inside}")}));
            let expect = format!("field `from`: `t` has no `{inside}`");
            assert_eq!(error.expect_err(inside).to_string(), expect);
        }
    }

    #[test]
    fn absolute_links_of_a_toolchain_stay_out_of_trees() {
        let mut fixture = Fixture::new();
        fixture.tree(".maestro/toolchain/0", &[("lib", Thing::Link("/usr/lib"))]);
        let entries = json!([{"path": "root", "from": ".maestro/toolchain/0"}]);
        let error = fixture.run("tree", json!({"entries": entries})).expect_err("a bad link");
        let expect = "the link `root/lib` -> `/usr/lib` does not surely stay in the tree";
        assert_eq!(error.to_string(), expect);
        assert!(fixture.run("tar", json!({"entries": entries})).is_ok());
    }
}
