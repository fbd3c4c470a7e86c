//! From an identity to the runs that are known, and from a run to what its key was made of.
//!
//! What is read may come from other machines: every step is checked and bounded, and whatever does
//! not fit together is as if it were not there.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use maestro_cas::{Store, StoreError};
use maestro_core::key::{InputPart, KeyParts, TOOLCHAINS_FILE};
use maestro_core::wire::{Action, ActionResult, Command, Directory, OutputFile, Tree};
use maestro_core::{ActionKey, Digest, limits};

use super::{Entry, INVOCATION_BYTES_MAX, Identity, SCHEME};

/// The runs under a key of [`Identity::record_key`], oldest first.
pub(super) fn entries(store: &Store, key: &ActionKey) -> Result<Vec<Entry>, StoreError> {
    let record = store.action_result(key)?;
    Ok(record.filter(|record| record.worker == SCHEME).map(parse).unwrap_or_default())
}

/// The same for whoever is about to store them again: blobs that they name may be gone.
pub(super) fn entries_as_stored(store: &Store, key: &ActionKey) -> Result<Vec<Entry>, StoreError> {
    let record = store.stored_action_result(key)?;
    Ok(record.filter(|record| record.worker == SCHEME).map(parse).unwrap_or_default())
}

fn parse(record: ActionResult) -> Vec<Entry> {
    type Files = [Option<Digest>; 3];
    let mut runs: BTreeMap<(u64, String), Files> = BTreeMap::new();
    for OutputFile { path, digest, is_executable: _ } in record.output_files {
        let mut parts = path.splitn(3, '/');
        let (Some(time), Some(id), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let is_id = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let (Ok(time), true) = (time.parse(), is_id && id.len() <= INVOCATION_BYTES_MAX) else {
            continue;
        };
        let [action, command, inputs] = runs.entry((time, id.to_owned())).or_default();
        match name {
            "action" => *action = Some(digest),
            "command" => *command = Some(digest),
            "inputs" => *inputs = Some(digest),
            _ => {}
        }
    }
    let whole = runs.into_iter().filter_map(|((unix_ms, invocation_id), files)| {
        let [Some(action), Some(command), Some(inputs)] = files else { return None };
        Some(Entry { unix_ms, invocation_id, key: ActionKey(action), command, inputs })
    });
    let mut out: Vec<Entry> = whole.collect();
    let surplus = out.len().saturating_sub(limits::BASELINES_MAX);
    out.drain(..surplus);
    out
}

/// The baselines of a cache. Packs that were read are kept.
pub struct Baselines<'a> {
    store: &'a Store,
    packs: HashMap<Digest, Option<Rc<Pack>>>,
}

/// The directories of a pack, by digest.
type Pack = HashMap<Digest, Directory>;

impl<'a> Baselines<'a> {
    /// Those of a store.
    pub fn new(store: &'a Store) -> Self {
        Self { store, packs: HashMap::new() }
    }

    /// The runs that are known of an action, oldest first.
    pub fn entries(&self, identity: &Identity) -> Result<Vec<Entry>, StoreError> {
        entries(self.store, &identity.record_key(self.store.function()))
    }

    /// What the key of a run was made of, as far as blobs of it are left. Toolchains get the names
    /// that they have in `like`, since keys know them by digest alone.
    pub fn parts(&mut self, entry: &Entry, like: &KeyParts) -> Option<KeyParts> {
        let message = |digest: &Digest| {
            let fits = digest.size <= limits::MESSAGE_BYTES_MAX;
            if fits { self.store.read(digest).ok() } else { None }
        };
        let Digest { function, .. } = entry.key.0;
        let action = Action::decode(function, &message(&entry.key.0)?).ok()?;
        let command = Command::decode(&message(&action.command_digest)?).ok()?;
        let pack = self.pack(&entry.inputs)?;
        let inputs = inputs(&pack, action.input_root_digest)?;
        let toolchains = self.toolchains(&inputs, like)?;
        Some(KeyParts::of_messages(command, action, inputs, toolchains))
    }

    fn pack(&mut self, digest: &Digest) -> Option<Rc<Pack>> {
        let store = self.store;
        let read = || {
            let bytes = match digest.size <= limits::MESSAGE_BYTES_MAX {
                true => store.read(digest).ok()?,
                false => return None,
            };
            let tree = Tree::decode(digest.function, &bytes).ok()?;
            let keyed = tree.children.into_iter();
            let keyed = keyed.map(|child| (digest.function.digest(&child.encode()), child));
            Some(Rc::new(keyed.collect()))
        };
        self.packs.entry(*digest).or_insert_with(read).clone()
    }

    fn toolchains(
        &self,
        inputs: &[(String, InputPart)],
        like: &KeyParts,
    ) -> Option<Vec<(String, Digest)>> {
        let list = |parts: &[(String, InputPart)]| {
            let found = parts.iter().find(|(path, _)| path == TOOLCHAINS_FILE)?;
            if let InputPart::File { digest, .. } = &found.1 { Some(*digest) } else { None }
        };
        let (old, new) = (list(inputs), list(&like.inputs));
        if old == new {
            return Some(like.toolchains.clone());
        }
        let Some(old) = old else { return Some(Vec::new()) };
        let text = String::from_utf8(self.store.read(&old).ok()?).ok()?;
        let digests: Vec<Digest> = text.lines().map(str::parse).collect::<Result<_, _>>().ok()?;
        let named = digests.iter().enumerate().map(|(index, digest)| {
            let same = like.toolchains.iter().find(|(_, other)| other == digest);
            let here = like.toolchains.get(index).filter(|(_, other)| !digests.contains(other));
            let name = same.or(here).map_or_else(|| digest.short(), |(name, _)| name.clone());
            (name, *digest)
        });
        Some(named.collect())
    }
}

/// The files below an input root. Directories that the pack lacks are trees, which are inputs as a
/// whole.
fn inputs(pack: &Pack, root: Digest) -> Option<Vec<(String, InputPart)>> {
    let mut out = Vec::new();
    let mut waiting = vec![(String::new(), 0, pack.get(&root)?)];
    while let Some((above, depth, directory)) = waiting.pop() {
        let path = |name: &str| match above.as_str() {
            "" => name.to_owned(),
            above => format!("{above}/{name}"),
        };
        for file in &directory.files {
            let part = InputPart::File { digest: file.digest, executable: file.is_executable };
            out.push((path(&file.name), part));
        }
        for link in &directory.symlinks {
            out.push((path(&link.name), InputPart::Symlink(link.target.clone())));
        }
        for below in &directory.directories {
            match pack.get(&below.digest) {
                Some(inner) => waiting.push((path(&below.name), depth + 1, inner)),
                None => out.push((path(&below.name), InputPart::Tree(below.digest))),
            }
        }
        if depth > limits::TREE_DEPTH_MAX || out.len() > limits::DIRECTORY_ENTRIES_MAX {
            return None;
        }
    }
    Some(out)
}
