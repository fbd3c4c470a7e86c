//! Which files of two trees differ: the trees are walked where their digests differ, and no
//! further than to the first few.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use maestro_core::wire::Directory;
use maestro_core::{Digest, limits};

use super::{Explanation, Root};

/// Most files that are named.
const FILES_MAX: usize = 3;

/// Looks up which files of changed toolchains differ, as far as `read` knows the directories.
pub fn with_files(
    explanations: &mut [Explanation],
    mut read: impl FnMut(&Digest) -> Option<Arc<Directory>>,
) {
    let mut known: HashMap<(Digest, Digest), Vec<String>> = HashMap::new();
    for root in explanations.iter_mut().flat_map(Explanation::roots_mut) {
        if let Root::Toolchain { content: Some((old, new)), files, .. } = root {
            let found =
                known.entry((*old, *new)).or_insert_with(|| differing(*old, *new, &mut read));
            files.clone_from(found);
        }
    }
}

/// The first paths at which two trees differ, in their order.
fn differing(
    old: Digest,
    new: Digest,
    read: &mut impl FnMut(&Digest) -> Option<Arc<Directory>>,
) -> Vec<String> {
    let mut out = Vec::new();
    let mut waiting = vec![(String::new(), 0, old, new)];
    while let Some((path, depth, old, new)) = waiting.pop() {
        let (Some(old), Some(new)) = (read(&old), read(&new)) else { continue };
        if depth > limits::TREE_DEPTH_MAX {
            continue;
        }
        let mut entries: BTreeMap<&str, [Option<Entry<'_>>; 2]> = BTreeMap::new();
        for (side, directory) in [&old, &new].into_iter().enumerate() {
            for (name, entry) in entries_of(directory) {
                if let Some(place) = entries.entry(name).or_default().get_mut(side) {
                    *place = Some(entry);
                }
            }
        }
        let mut below = Vec::new();
        for (name, pair) in entries.into_iter().filter(|(_, [old, new])| old != new) {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            match pair {
                [Some(Entry::Folder(old)), Some(Entry::Folder(new))] => {
                    below.push((path, depth + 1, old, new));
                }
                _ => out.push(path),
            }
            if out.len() == FILES_MAX {
                return out;
            }
        }
        waiting.extend(below.into_iter().rev());
    }
    out
}

#[derive(Clone, Copy, PartialEq)]
enum Entry<'d> {
    File(Digest, bool),
    Link(&'d str),
    Folder(Digest),
}

fn entries_of(directory: &Directory) -> impl Iterator<Item = (&str, Entry<'_>)> {
    let files = directory.files.iter();
    let files = files.map(|file| (&*file.name, Entry::File(file.digest, file.is_executable)));
    let links = directory.symlinks.iter();
    let links = links.map(|link| (&*link.name, Entry::Link(&link.target)));
    let folders = directory.directories.iter();
    let folders = folders.map(|folder| (&*folder.name, Entry::Folder(folder.digest)));
    files.chain(links).chain(folders)
}
