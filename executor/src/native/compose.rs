//! Composes a tree out of files, trees, links and folders, from digests alone.
//!
//! A grafted tree stays one digest until something else is put into it; only then is its directory
//! read, one level at a time. So a tree of a hundred thousand files costs nothing to graft.
//! The order in which things are put does not matter: the same thing twice counts once, two
//! different things at one place are an error.

use std::collections::BTreeMap;

use maestro_cas::Store;
use maestro_core::Digest;
use maestro_core::limits;
use maestro_core::merkle::Node;
use maestro_core::path::{RelPath, resolve_link};
use maestro_core::wire::{Directory, DirectoryNode, FileNode, SymlinkNode};

use super::NativeError;
use super::inputs::{Found, Inputs};
use super::request::Entry;

/// The path that means the root itself.
const ROOT: &str = ".";

/// What stands at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A regular file.
    File {
        /// Its content.
        digest: Digest,
        /// Its execute bit.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Its text.
        target: String,
    },
    /// A folder that is in the store already.
    Tree {
        /// Its root directory.
        root: Digest,
    },
    /// A folder that is being composed.
    Folder(Folder),
}

type Folder = BTreeMap<String, Place>;

/// What a walk meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// A folder, before what is in it.
    Folder,
    /// A regular file.
    File {
        /// Its content.
        digest: Digest,
        /// Its execute bit.
        executable: bool,
    },
    /// A symbolic link and its text.
    Link(&'a str),
}

/// Which links may stand in a composition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkRule {
    /// Only relative ones that stay inside: the rule of tree artifacts.
    Inside,
    /// Any text; archives and images may hold absolute links.
    Any,
}

/// A tree in the making.
pub(super) struct Composition<'a> {
    store: &'a Store,
    links: LinkRule,
    root: Place,
}

impl<'a> Composition<'a> {
    pub(super) fn new(store: &'a Store, links: LinkRule) -> Self {
        Self { store, links, root: Place::Folder(Folder::new()) }
    }

    /// A composition of one whole tree.
    pub(super) fn of_tree(store: &'a Store, root: Digest) -> Self {
        Self { store, links: LinkRule::Any, root: Place::Tree { root } }
    }

    /// Puts the entries of a request.
    pub(super) fn put_entries(
        &mut self,
        inputs: &Inputs<'_>,
        entries: &[Entry],
    ) -> Result<(), NativeError> {
        for (index, entry) in entries.iter().enumerate() {
            self.put_entry(inputs, entry, &format!("entries[{index}]"))?;
        }
        Ok(())
    }

    fn put_entry(
        &mut self,
        inputs: &Inputs<'_>,
        entry: &Entry,
        field: &str,
    ) -> Result<(), NativeError> {
        let Entry { path, from, link, content, folder, executable } = entry;
        let at =
            match path.as_str() {
                ROOT => None,
                text => Some(RelPath::new(text).map_err(|error| {
                    NativeError::field(format!("{field}.path"), error.to_string())
                })?),
            };
        let place = match (from, link, content, folder) {
            (Some(from), None, None, None) => {
                self.input(inputs, from, *executable, at.as_ref(), field)?
            }
            (None, Some(target), None, None) => {
                check_link_text(target, field)?;
                Place::Link { target: target.clone() }
            }
            (None, None, Some(content), None) => Place::File {
                digest: self.store.put_bytes(content.as_bytes())?,
                executable: executable.unwrap_or(false),
            },
            (None, None, None, Some(true)) => Place::Folder(Folder::new()),
            _ => {
                let why = "exactly one of `from`, `link`, `content` and `folder: true` is needed";
                return Err(NativeError::field(field, why));
            }
        };
        let is_file = matches!(place, Place::File { .. });
        if executable.is_some() && !is_file {
            let why = "only files have an execute bit to be set";
            return Err(NativeError::field(format!("{field}.executable"), why));
        }
        if at.is_none() && matches!(place, Place::File { .. } | Place::Link { .. }) {
            let why = "the root is a folder, so only a folder can be put at `.`";
            return Err(NativeError::field(format!("{field}.path"), why));
        }
        self.put(at.as_ref(), place)
    }

    fn input(
        &self,
        inputs: &Inputs<'_>,
        from: &str,
        executable: Option<bool>,
        at: Option<&RelPath>,
        field: &str,
    ) -> Result<Place, NativeError> {
        match inputs.find(&format!("{field}.from"), from)? {
            Found::File { digest, executable: bit } => {
                Ok(Place::File { digest, executable: executable.unwrap_or(bit) })
            }
            Found::Tree { root, closed } => {
                if !closed && self.links == LinkRule::Inside {
                    self.check_subtree(root, at)?;
                }
                Ok(Place::Tree { root })
            }
        }
    }

    /// Checks the links of a part of a tree, which may lead to the rest of it, or of a toolchain.
    fn check_subtree(&self, root: Digest, at: Option<&RelPath>) -> Result<(), NativeError> {
        for entry in self.store.tree_files(&root)? {
            let Node::Symlink { target } = &entry.node else { continue };
            let path = match at {
                Some(at) => format!("{at}/{}", entry.path),
                None => entry.path.clone(),
            };
            check_link(&path, target)?;
        }
        Ok(())
    }

    /// Puts `place` at `path`, or at the root. Folders that meet are merged.
    pub(super) fn put(&mut self, path: Option<&RelPath>, place: Place) -> Result<(), NativeError> {
        if let (Some(path), Place::Link { target }, LinkRule::Inside) = (path, &place, self.links) {
            check_link(path.as_str(), target)?;
        }
        let mut at = &mut self.root;
        let mut walked = String::new();
        let segments: Vec<&str> = path.map(|p| p.segments().collect()).unwrap_or_default();
        if segments.len() > limits::TREE_DEPTH_MAX {
            return Err(too_deep());
        }
        let (last, parents) = match segments.split_last() {
            Some((last, parents)) => (last, parents),
            None => return merge(self.store, at, place, &mut walked, 0),
        };
        for name in parents {
            walked.push_str(name);
            let folder = open(self.store, at)?;
            at = folder.entry((*name).to_owned()).or_insert_with(|| Place::Folder(Folder::new()));
            if matches!(at, Place::File { .. } | Place::Link { .. }) {
                return Err(NativeError::Clash { path: walked });
            }
            walked.push('/');
        }
        walked.push_str(last);
        let folder = open(self.store, at)?;
        match folder.entry((*last).to_owned()) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(place);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(occupied) => {
                let depth = segments.len();
                merge(self.store, occupied.into_mut(), place, &mut walked, depth)
            }
        }
    }

    /// What stands at `path`, if anything does.
    pub(super) fn get(&mut self, path: &RelPath) -> Result<Option<&Place>, NativeError> {
        let mut at = &mut self.root;
        for name in path.segments() {
            if matches!(at, Place::File { .. } | Place::Link { .. }) {
                return Ok(None);
            }
            match open(self.store, at)?.get_mut(name) {
                Some(place) => at = place,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Writes the directories that are new; gives the root.
    pub(super) fn finish(self) -> Result<Digest, NativeError> {
        save(self.store, &self.root)
    }

    /// Visits everything depth first, names in byte order, each folder before what is in it.
    /// The root is not visited.
    pub(super) fn walk(
        &self,
        visit: &mut dyn FnMut(&str, Item<'_>) -> Result<(), NativeError>,
    ) -> Result<(), NativeError> {
        walk(self.store, &self.root, &mut String::new(), 0, visit)
    }
}

fn too_deep() -> NativeError {
    let limit = limits::TREE_DEPTH_MAX as u64;
    NativeError::TooLarge { what: "the depth of the tree".to_owned(), limit }
}

fn check_link_text(target: &str, field: &str) -> Result<(), NativeError> {
    if target.is_empty() || target.chars().any(char::is_control) {
        let why = "the text of a link is not empty and has no control character";
        return Err(NativeError::field(format!("{field}.link"), why));
    }
    Ok(())
}

/// Checks that a link stays inside. A `..` after a name is refused as well: the name may itself be
/// a link, and then `..` leads elsewhere than the text says.
fn check_link(path: &str, target: &str) -> Result<(), NativeError> {
    let inside = RelPath::new(path).ok().and_then(|path| resolve_link(&path, target));
    let mut after_up = target.split('/').skip_while(|segment| matches!(*segment, ".." | "."));
    match inside {
        Some(_) if after_up.all(|segment| segment != "..") => Ok(()),
        _ => Err(NativeError::Link { path: path.to_owned(), target: target.to_owned() }),
    }
}

/// The content of a folder, read from the store where need be.
fn expand(store: &Store, place: Place) -> Result<Folder, NativeError> {
    let root = match place {
        Place::Folder(folder) => return Ok(folder),
        Place::Tree { root } => root,
        Place::File { .. } | Place::Link { .. } => {
            let message = "a file was expanded as a folder".to_owned();
            return Err(NativeError::Internal { message });
        }
    };
    let directory = store.directory(&root)?;
    let mut folder = Folder::new();
    for FileNode { name, digest, is_executable } in &directory.files {
        let place = Place::File { digest: *digest, executable: *is_executable };
        folder.insert(name.clone(), place);
    }
    for DirectoryNode { name, digest } in &directory.directories {
        folder.insert(name.clone(), Place::Tree { root: *digest });
    }
    for SymlinkNode { name, target } in &directory.symlinks {
        folder.insert(name.clone(), Place::Link { target: target.clone() });
    }
    Ok(folder)
}

/// Makes `at` a folder that can be changed.
fn open<'p>(store: &Store, at: &'p mut Place) -> Result<&'p mut Folder, NativeError> {
    if let Place::Tree { .. } = at {
        let folder = expand(store, at.clone())?;
        *at = Place::Folder(folder);
    }
    match at {
        Place::Folder(folder) => Ok(folder),
        Place::File { .. } | Place::Link { .. } | Place::Tree { .. } => {
            Err(NativeError::Internal { message: "a file was opened as a folder".to_owned() })
        }
    }
}

fn merge(
    store: &Store,
    at: &mut Place,
    new: Place,
    path: &mut String,
    depth: usize,
) -> Result<(), NativeError> {
    if *at == new {
        return Ok(());
    }
    if depth > limits::TREE_DEPTH_MAX {
        return Err(too_deep());
    }
    let is_folder = |place: &Place| matches!(place, Place::Tree { .. } | Place::Folder(_));
    if !is_folder(at) || !is_folder(&new) {
        return Err(NativeError::Clash { path: path.clone() });
    }
    if matches!(at, Place::Folder(folder) if folder.is_empty()) {
        *at = new;
        return Ok(());
    }
    let additions = expand(store, new)?;
    let folder = open(store, at)?;
    for (name, place) in additions {
        match folder.get_mut(&name) {
            None => {
                folder.insert(name, place);
            }
            Some(there) => {
                let length = path.len();
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&name);
                merge(store, there, place, path, depth + 1)?;
                path.truncate(length);
            }
        }
    }
    Ok(())
}

fn save(store: &Store, place: &Place) -> Result<Digest, NativeError> {
    let folder = match place {
        Place::Tree { root } => return Ok(*root),
        Place::Folder(folder) => folder,
        Place::File { .. } | Place::Link { .. } => {
            return Err(NativeError::Internal {
                message: "a file was saved as a folder".to_owned(),
            });
        }
    };
    if folder.len() > limits::DIRECTORY_ENTRIES_MAX {
        let what = "the number of entries of one folder".to_owned();
        return Err(NativeError::TooLarge { what, limit: limits::DIRECTORY_ENTRIES_MAX as u64 });
    }
    let mut directory = Directory::default();
    for (name, place) in folder {
        let name = name.clone();
        match place {
            Place::File { digest, executable } => {
                directory.files.push(FileNode { name, digest: *digest, is_executable: *executable })
            }
            Place::Link { target } => {
                directory.symlinks.push(SymlinkNode { name, target: target.clone() });
            }
            Place::Tree { .. } | Place::Folder(_) => {
                let digest = save(store, place)?;
                directory.directories.push(DirectoryNode { name, digest });
            }
        }
    }
    let bytes = directory.encode();
    let digest = store.function().digest(&bytes);
    store.put_known(&digest, &bytes)?;
    Ok(digest)
}

fn walk(
    store: &Store,
    place: &Place,
    path: &mut String,
    depth: usize,
    visit: &mut dyn FnMut(&str, Item<'_>) -> Result<(), NativeError>,
) -> Result<(), NativeError> {
    if depth > limits::TREE_DEPTH_MAX {
        return Err(too_deep());
    }
    let expanded;
    let folder = match place {
        Place::Folder(folder) => folder,
        other => {
            expanded = expand(store, other.clone())?;
            &expanded
        }
    };
    let length = path.len();
    for (name, place) in folder {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(name);
        match place {
            Place::File { digest, executable } => {
                visit(path, Item::File { digest: *digest, executable: *executable })?;
            }
            Place::Link { target } => visit(path, Item::Link(target))?,
            Place::Tree { .. } | Place::Folder(_) => {
                visit(path, Item::Folder)?;
                walk(store, place, path, depth + 1, visit)?;
            }
        }
        path.truncate(length);
    }
    Ok(())
}
