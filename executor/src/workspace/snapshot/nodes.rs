//! What stood at each artifact, and the key of each action, when they were last known.

use std::collections::HashMap;

use maestro_core::graph::columns::{ColumnWriter, Columns};
use maestro_core::{ActionId, ArtifactId, Digest, DigestFunction, Node};
use serde::{Deserialize, Serialize};

/// Sections of the columns: the graph, what stands at its artifacts, the keys of its actions.
pub(super) const GRAPH: usize = 0;
const NODES: usize = GRAPH + 1;
const KEYS: usize = NODES + 2;
/// How many sections there are.
pub(super) const SECTIONS: usize = KEYS + 1;
/// Bytes of a key in its column; zeros where there is none.
const KEY_BYTES: usize = 32;

/// The results of an earlier build, by the ids of its graph.
#[derive(Clone, Debug, Default)]
pub struct Results {
    stored: Option<Columns>,
    added: AddedResults,
}

/// Results that are not stored yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct AddedResults {
    #[serde(with = "encoded")]
    nodes: HashMap<ArtifactId, Node>,
    keys: HashMap<u32, [u8; KEY_BYTES]>,
}

/// Nodes as they are written in a column.
mod encoded {
    use serde::de::Error;

    use super::{ArtifactId, Deserialize, HashMap, Node, decode, encode};

    pub(super) fn serialize<S: serde::Serializer>(
        nodes: &HashMap<ArtifactId, Node>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(nodes.iter().map(|(id, node)| (id, encode(node))))
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<HashMap<ArtifactId, Node>, D::Error> {
        let stored = HashMap::<ArtifactId, Vec<u8>>::deserialize(deserializer)?;
        let node = |(id, bytes): (ArtifactId, Vec<u8>)| Some((id, decode(&bytes)?));
        let nodes: Option<_> = stored.into_iter().map(node).collect();
        nodes.ok_or_else(|| D::Error::custom("the bytes are no node"))
    }
}

impl AddedResults {
    pub(super) fn len(&self) -> usize {
        self.nodes.len() + self.keys.len()
    }
}

impl Results {
    /// What stands at artifacts of which nothing was known before.
    pub fn of(nodes: HashMap<ArtifactId, Node>) -> Self {
        Self { stored: None, added: AddedResults { nodes, keys: HashMap::new() } }
    }

    pub(super) fn over(stored: Columns, added: AddedResults) -> Self {
        Self { stored: Some(stored), added }
    }

    /// What stood at an artifact.
    pub fn node(&self, artifact: ArtifactId) -> Option<Node> {
        match self.added.nodes.get(&artifact) {
            Some(node) => Some(node.clone()),
            None => decode(self.stored.as_ref()?.records(NODES).get(artifact.index())?),
        }
    }

    /// The hash of an action's key.
    pub fn key(&self, action: ActionId) -> Option<[u8; KEY_BYTES]> {
        if let Some(key) = self.added.keys.get(&number(action.index())) {
            return Some(*key);
        }
        let keys = self.stored.as_ref()?.bytes(KEYS);
        let key = *keys.get(action.index().checked_mul(KEY_BYTES)?..)?.first_chunk()?;
        (key != [0; KEY_BYTES]).then_some(key)
    }

    /// Takes what stands at an artifact now.
    pub fn set_node(&mut self, artifact: ArtifactId, node: &Node) {
        self.added.nodes.insert(artifact, node.clone());
    }

    /// Takes the key that an action has now; one that is known costs nothing.
    pub fn set_key(&mut self, action: ActionId, key: [u8; KEY_BYTES]) {
        if self.key(action) != Some(key) {
            self.added.keys.insert(number(action.index()), key);
        }
    }

    pub(super) fn added(&self) -> &AddedResults {
        &self.added
    }

    /// All results of a graph of so many artifacts and actions as columns.
    pub(super) fn write(&self, artifacts: usize, actions: usize, out: &mut ColumnWriter) {
        let stored = self.stored.as_ref().map(|columns| columns.records(NODES));
        out.records(0..artifacts, |index, out| {
            match self.added.nodes.get(&ArtifactId::from_index(index)) {
                Some(node) => out.extend(encode(node)),
                None => {
                    let known = stored.and_then(|records| records.get(index));
                    out.extend_from_slice(known.unwrap_or_default());
                }
            }
        });
        let mut keys = Vec::with_capacity(actions * KEY_BYTES);
        for action in (0..actions).map(ActionId::from_index) {
            keys.extend_from_slice(&self.key(action).unwrap_or([0; KEY_BYTES]));
        }
        out.bytes(&keys);
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("ids are dense")
}

const FILE: u8 = 1;
const PROGRAM: u8 = 2;
const TREE: u8 = 3;
const LINK: u8 = 4;

fn encode(node: &Node) -> Vec<u8> {
    let (kind, digest) = match node {
        Node::File { digest, executable: false } => (FILE, digest),
        Node::File { digest, executable: true } => (PROGRAM, digest),
        Node::Tree { root } => (TREE, root),
        Node::Symlink { target } => {
            return std::iter::once(LINK).chain(target.bytes()).collect();
        }
    };
    let Digest { function, hash, size } = digest;
    let mut out = vec![kind, u8::from(*function == DigestFunction::Sha256)];
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(hash);
    out
}

fn decode(bytes: &[u8]) -> Option<Node> {
    let (kind, rest) = bytes.split_first()?;
    if *kind == LINK {
        return Some(Node::Symlink { target: String::from_utf8(rest.to_vec()).ok()? });
    }
    let (sha256, rest) = rest.split_first()?;
    let function = if *sha256 == 1 { DigestFunction::Sha256 } else { DigestFunction::Blake3 };
    let (size, hash) = rest.split_first_chunk()?;
    let size = u64::from_le_bytes(*size);
    let digest = Digest { function, hash: *hash.first_chunk()?, size };
    match *kind {
        FILE => Some(Node::File { digest, executable: false }),
        PROGRAM => Some(Node::File { digest, executable: true }),
        TREE => Some(Node::Tree { root: digest }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_core::graph::columns::SharedBytes;

    #[test]
    fn results_come_back_from_memory_and_from_columns() {
        let digest = DigestFunction::Sha256.digest(b"x");
        let all = [
            Node::File { digest, executable: false },
            Node::File { digest: DigestFunction::Blake3.digest(b"y"), executable: true },
            Node::Tree { root: digest },
            Node::Symlink { target: "../a".into() },
        ];
        let mut results = Results::default();
        for (index, node) in all.iter().enumerate() {
            results.set_node(ArtifactId::from_index(index + 1), node);
        }
        results.set_key(ActionId::from_index(1), [7; 32]);
        let mut out = ColumnWriter::over(b"graph".to_vec());
        results.write(6, 3, &mut out);
        let columns = Columns::open(SharedBytes::new(out.finish())).expect("whole");
        assert_eq!(columns.section_count(), SECTIONS);
        assert_eq!(columns.bytes(GRAPH), b"graph");
        for results in [&results, &Results::over(columns, AddedResults::default())] {
            for (index, node) in all.iter().enumerate() {
                assert_eq!(results.node(ArtifactId::from_index(index + 1)).as_ref(), Some(node));
            }
            assert_eq!(results.node(ArtifactId::from_index(0)), None);
            assert_eq!(results.node(ArtifactId::from_index(5)), None);
            assert_eq!(results.key(ActionId::from_index(1)), Some([7; 32]));
            assert_eq!(results.key(ActionId::from_index(2)), None);
            assert_eq!(results.key(ActionId::from_index(9)), None);
        }
    }
}
