//! Toolchains: the files of installed Debian packages as one tree in the store.
//!
//! A declaration names packages; the tree has the files of those packages and of all that they
//! depend on, as they lie on this machine, at their own paths. It is copied into the store once
//! and known by its digest. What was seen on the way (package lists, files with their signatures,
//! alternatives) is kept in a list file beside the cache, so that later builds only ask for stat
//! signatures, and after a change read only what changed.
//!
//! Not done here: maintainer scripts are never run, nothing is installed, `/etc` and `/var` are
//! never part of a tree, and setuid bits are lost on the way, as every mode but the execute bit.
//! [`dpkg`] reads the package database, [`layout`] decides what stands where.

mod dpkg;
mod layout;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_cas::{StatSignature, Store, StoreError};
use maestro_core::merkle::merkle;
use maestro_core::{Digest, DigestFunction, FailureKind, Node, RelPath, Toolchain};
use rkyv::rancor;

pub use dpkg::DpkgPaths;

use self::dpkg::{Database, Package};
use self::layout::{Entry, Layout, ROOT_LINKS, is_excluded};
use super::facts::{
    ArchivedFactTable, Content, Fact, FactTable, PlainDigest, hash_file, now_ns, to_archive,
};
use super::sealed_file::{self, Format, Sealed};
use crate::runner::ToolchainMount;

const FOLDER: &str = "toolchains";
const FORMAT: Format = Format { magic: *b"MAETOOL\0", version: 1 };
/// Bumped when the same packages make another tree than before.
const LAYOUT_VERSION: u32 = 1;
/// Threads that copy files into the store.
const COPY_THREADS: usize = 2;
/// Most files of one toolchain.
const FILES_MAX: usize = 1_000_000;

/// Why a toolchain has no tree.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// The machine has no package database.
    #[error("no `{}`: toolchains are made of packages of Debian or Ubuntu", .path.display())]
    NoDpkg {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// Packages are not installed.
    #[error("toolchain `{toolchain}` needs packages that are not installed: {}", list(.packages))]
    NotInstalled {
        /// The toolchain's name.
        toolchain: String,
        /// All that are missing, sorted.
        packages: Vec<String>,
    },
    /// A file name cannot stand in a tree.
    #[error("package `{package}` has a file whose name cannot stand in a tree: `{path}`")]
    Name {
        /// The path with odd bytes escaped.
        path: String,
        /// The package.
        package: String,
    },
    /// There are too many files.
    #[error("toolchain `{toolchain}` has {count} files, the limit is {limit}")]
    TooManyFiles {
        /// The toolchain's name.
        toolchain: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A file of the machine could not be read.
    #[error("cannot read `{}`", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A file could not be copied into the store, or the store did not give the tree.
    #[error("cannot copy toolchain `{toolchain}` into the store")]
    Store {
        /// The toolchain's name.
        toolchain: String,
        /// The store's reason.
        #[source]
        source: StoreError,
    },
}

fn list(packages: &[String]) -> String {
    packages.join(", ")
}

impl ToolchainError {
    /// Whose fault it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoDpkg { .. } | Self::NotInstalled { .. } | Self::Io { .. } => {
                FailureKind::Environment
            }
            Self::Name { .. } | Self::TooManyFiles { .. } => FailureKind::Input,
            Self::Store { source, .. } => source.kind(),
        }
    }

    /// What can be done about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NotInstalled { packages, .. } => vec![
                format!("run `apt-get install --no-install-recommends {}`", packages.join(" ")),
                "run `maestro doctor` to see everything that is missing".to_owned(),
            ],
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec!["leave the file out with `exclude_paths` of the toolchain".to_owned()]
            }
            _ => Vec::new(),
        }
    }
}

/// A toolchain whose tree is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedToolchain {
    /// What was declared.
    pub declaration: Toolchain,
    /// The digest of the tree's root directory.
    pub root: Digest,
    /// Names and versions of all packages in it, sorted by name.
    pub packages: Vec<(String, String)>,
    list: PathBuf,
}

impl ResolvedToolchain {
    /// The file with the signatures of everything that the tree was made of.
    pub fn list_path(&self) -> &Path {
        &self.list
    }
}

/// Resolves toolchains of one machine and keeps the results for the length of the process.
#[derive(Debug)]
pub struct Toolchains {
    store: Store,
    paths: DpkgPaths,
    resolved: Mutex<HashMap<Toolchain, Arc<ResolvedToolchain>>>,
}

impl Toolchains {
    /// A resolver that reads the package database at `paths` and copies into `store`.
    pub fn new(store: Store, paths: DpkgPaths) -> Self {
        Self { store, paths, resolved: Mutex::default() }
    }

    /// The tree of a declaration: from memory, from its list file if nothing changed, else made.
    pub fn resolve(
        &self,
        declaration: &Toolchain,
    ) -> Result<Arc<ResolvedToolchain>, ToolchainError> {
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resolved.get(declaration) {
            return Ok(known.clone());
        }
        let made = Arc::new(self.known_or_made(declaration)?);
        resolved.insert(declaration.clone(), made.clone());
        Ok(made)
    }

    /// Lays the tree out on disk.
    pub fn materialize(
        &self,
        toolchain: &ResolvedToolchain,
    ) -> Result<ToolchainMount, ToolchainError> {
        let path = match self.store.tree_dir(&toolchain.root) {
            Err(StoreError::Missing { .. } | StoreError::Corrupt { .. }) => {
                self.restore(&toolchain.declaration)?;
                self.store.tree_dir(&toolchain.root)
            }
            other => other,
        };
        let path = path.map_err(|source| self.store_error(&toolchain.declaration, source))?;
        Ok(ToolchainMount { root: toolchain.root, path })
    }

    /// Copies again what the store has lost of a tree.
    pub fn restore(
        &self,
        declaration: &Toolchain,
    ) -> Result<Arc<ResolvedToolchain>, ToolchainError> {
        let made = Arc::new(self.make(declaration)?);
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        resolved.insert(declaration.clone(), made.clone());
        Ok(made)
    }

    /// The packages that a declaration needs and the machine does not have; sorted.
    pub fn missing(&self, declaration: &Toolchain) -> Result<Vec<String>, ToolchainError> {
        let database = Database::read(&self.paths)?;
        let closure = database.closure(&declaration.packages, &declaration.exclude);
        Ok(closure.err().unwrap_or_default())
    }

    fn list_path(&self, declaration: &Toolchain) -> PathBuf {
        let function = self.store.function().name();
        let facts = (declaration, &self.paths.root, &self.paths.admin, function, LAYOUT_VERSION);
        let text = serde_json::to_vec(&facts).unwrap_or_else(|_| {
            // Only a path that is not UTF-8 has no JSON form.
            format!("{facts:?}").into_bytes()
        });
        let name: String = blake3::hash(&text).to_hex().chars().take(32).collect();
        self.store.root().join(FOLDER).join(name)
    }

    fn known_or_made(&self, declaration: &Toolchain) -> Result<ResolvedToolchain, ToolchainError> {
        let path = self.list_path(declaration);
        if let Ok(Some(list)) = ToolchainList::open(&path)
            && let Ok(None) = list.first_change()
            && self.store.contains(&list.root())
        {
            return Ok(ResolvedToolchain {
                declaration: declaration.clone(),
                root: list.root(),
                packages: list.packages(),
                list: path,
            });
        }
        self.make(declaration)
    }

    fn make(&self, declaration: &Toolchain) -> Result<ResolvedToolchain, ToolchainError> {
        let database = Database::read(&self.paths)?;
        let packages =
            database.closure(&declaration.packages, &declaration.exclude).map_err(|packages| {
                ToolchainError::NotInstalled { toolchain: declaration.name.clone(), packages }
            })?;
        let mut survey = Survey::new(&self.paths, declaration);
        survey.database_files(&database, &packages)?;
        let layout = survey.layout(&database, &packages)?;
        let entries = layout.finish();
        if entries.len() > FILES_MAX {
            return Err(ToolchainError::TooManyFiles {
                toolchain: declaration.name.clone(),
                count: entries.len(),
                limit: FILES_MAX,
            });
        }
        let list = self.list_path(declaration);
        let known = ToolchainList::open(&list).ok().flatten();
        let known = known.map(|list| list.contents()).unwrap_or_default();
        let nodes = self.copy(declaration, &entries, &known, &mut survey.facts)?;
        let root = self.put_tree(declaration, nodes)?;
        let packages: Vec<(String, String)> =
            packages.iter().map(|p| (p.name.clone(), p.version.clone())).collect();
        let stored = Stored {
            root: root.into(),
            packages: packages.clone(),
            facts: FactTable::new(survey.facts),
        };
        write_list(&list, &stored)?;
        Ok(ResolvedToolchain { declaration: declaration.clone(), root, packages, list })
    }

    /// Reads what is not known by its signature into the store.
    fn copy(
        &self,
        declaration: &Toolchain,
        entries: &[(String, Entry)],
        known: &HashMap<String, Content>,
        facts: &mut Vec<(String, Fact)>,
    ) -> Result<Vec<(RelPath, Node)>, ToolchainError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((path, entry)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let copied = self.copy_entry(declaration, path, entry, known);
                let failed = copied.is_err();
                done.push(copied);
                if failed {
                    next.store(entries.len(), Ordering::Relaxed);
                }
            }
            done
        };
        let copied = std::thread::scope(|scope| {
            let others: Vec<_> = (1..COPY_THREADS).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                all.extend(other.join().expect("copying does not panic"));
            }
            all
        });
        let mut nodes = Vec::with_capacity(entries.len());
        for entry in copied {
            let Copied { path, node, fact } = entry?;
            facts.extend(fact);
            nodes.push((path, node));
        }
        Ok(nodes)
    }

    fn copy_entry(
        &self,
        declaration: &Toolchain,
        path: &str,
        entry: &Entry,
        known: &HashMap<String, Content>,
    ) -> Result<Copied, ToolchainError> {
        let rel = RelPath::new(path).map_err(|error| ToolchainError::Name {
            path: error.to_string(),
            package: declaration.name.clone(),
        })?;
        if let Entry::Link(target) = entry {
            let node = Node::Symlink { target: target.clone() };
            return Ok(Copied { path: rel, node, fact: None });
        }
        let host = self.paths.root.join(path);
        let name = host.to_string_lossy().into_owned();
        let fail = |source| ToolchainError::Io { path: host.clone(), source };
        let stat = rustix::fs::stat(&host).map_err(|error| fail(error.into()))?;
        let signature = StatSignature::of_stat(&stat);
        if let Some(content) = known.get(&name)
            && !content.racy
            && content.signature == (&signature).into()
        {
            let digest: Digest = content.digest.into();
            if digest.function == self.store.function() && self.store.contains(&digest) {
                let node = Node::File { digest, executable: signature.mode & 0o100 != 0 };
                let fact = Fact::Content(content.clone());
                return Ok(Copied { path: rel, node, fact: Some((name, fact)) });
            }
        }
        let hashed_at_ns = now_ns();
        let ingested = self.store.ingest_source(&host).map_err(|error| match error {
            StoreError::Permission { source, .. } => fail(source),
            source => self.store_error(declaration, source),
        })?;
        let fact = Content::new(&ingested.signature, hashed_at_ns, ingested.digest);
        let node = Node::File { digest: ingested.digest, executable: ingested.executable };
        Ok(Copied { path: rel, node, fact: Some((name, Fact::Content(fact))) })
    }

    fn put_tree(
        &self,
        declaration: &Toolchain,
        nodes: Vec<(RelPath, Node)>,
    ) -> Result<Digest, ToolchainError> {
        let tree = merkle(self.store.function(), nodes)
            .expect("the layout has each path once and nothing below a file");
        for (digest, bytes) in &tree.directories {
            self.store
                .put_known(digest, bytes)
                .map_err(|source| self.store_error(declaration, source))?;
        }
        Ok(tree.root)
    }

    fn store_error(&self, declaration: &Toolchain, source: StoreError) -> ToolchainError {
        ToolchainError::Store { toolchain: declaration.name.clone(), source }
    }
}

struct Copied {
    path: RelPath,
    node: Node,
    fact: Option<(String, Fact)>,
}

/// Walks the packages' paths on the host and notes everything that was looked at.
struct Survey<'a> {
    paths: &'a DpkgPaths,
    declaration: &'a Toolchain,
    facts: Vec<(String, Fact)>,
}

impl<'a> Survey<'a> {
    fn new(paths: &'a DpkgPaths, declaration: &'a Toolchain) -> Self {
        Self { paths, declaration, facts: Vec::new() }
    }

    /// Notes the files of the package database that the tree depends on.
    fn database_files(
        &mut self,
        database: &Database,
        packages: &[&Package],
    ) -> Result<(), ToolchainError> {
        let fixed = ["status", "diversions"].map(|name| self.paths.admin.join(name));
        let lists = packages.iter().map(|package| database.list_file(package));
        for path in fixed.into_iter().chain(lists) {
            let fact = content_fact(&path)?;
            self.facts.push((path.to_string_lossy().into_owned(), fact));
        }
        Ok(())
    }

    fn layout(
        &mut self,
        database: &Database,
        packages: &[&Package],
    ) -> Result<Layout, ToolchainError> {
        let mut root_links = Vec::new();
        for name in ROOT_LINKS {
            if let Some(target) = self.link(name)? {
                root_links.push((name.to_owned(), target));
            }
        }
        let mut layout = Layout::new(&root_links);
        let mut links = BTreeMap::new();
        let mut files = Vec::new();
        for package in packages {
            for path in database.files(package)? {
                if is_excluded(&path, &self.declaration.exclude_paths) {
                    continue;
                }
                match self.entry(&path)? {
                    Some(Entry::Link(text)) => {
                        links.insert(path, text);
                    }
                    Some(Entry::File) => files.push(path),
                    None => {}
                }
            }
        }
        // Links come first, and shorter paths before longer ones, so that what lies below a
        // linked folder finds its place.
        for (path, text) in links {
            layout.add(&path, Entry::Link(text));
        }
        for path in files {
            layout.add(&path, Entry::File);
        }
        self.alternatives(database, &mut layout)?;
        Ok(layout)
    }

    /// What the host has at an absolute path of its own root, if it can stand in a tree.
    fn entry(&mut self, path: &str) -> Result<Option<Entry>, ToolchainError> {
        let host = self.paths.root.join(path.trim_start_matches('/'));
        let metadata = match fs::symlink_metadata(&host) {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => {
                self.facts.push((host.to_string_lossy().into_owned(), Fact::Absent));
                return Ok(None);
            }
            Err(source) => return Err(ToolchainError::Io { path: host, source }),
        };
        if metadata.is_symlink() {
            return Ok(self.link(path)?.map(Entry::Link));
        }
        Ok(metadata.is_file().then_some(Entry::File))
    }

    /// The text of a link of the host, which becomes a fact; `None` where there is no link.
    fn link(&mut self, path: &str) -> Result<Option<String>, ToolchainError> {
        let host = self.paths.root.join(path.trim_start_matches('/'));
        match fs::read_link(&host) {
            Ok(target) => {
                let Some(target) = target.to_str().map(str::to_owned) else { return Ok(None) };
                let fact = Fact::Link { target: target.clone() };
                self.facts.push((host.to_string_lossy().into_owned(), fact));
                Ok(Some(target))
            }
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                Ok(None)
            }
            Err(source) => Err(ToolchainError::Io { path: host, source }),
        }
    }

    /// Adds the links of alternatives whose choice is in the tree. The host's choice wins where
    /// the tree has it, else the tree's choice with the highest priority.
    fn alternatives(
        &mut self,
        database: &Database,
        layout: &mut Layout,
    ) -> Result<(), ToolchainError> {
        for group in database.alternatives()? {
            let in_tree = |choice: &&Vec<String>| choice.first().is_some_and(|t| layout.has(t));
            let Some(best) = group.choices.iter().find(in_tree).cloned() else { continue };
            let Some((master, _)) = group.links.first() else { continue };
            let current = self.link(&format!("/etc/alternatives/{master}"))?;
            let current = current.filter(|target| layout.has(target));
            let same = |choice: &&Vec<String>| choice.first() == current.as_ref();
            let choice = group.choices.iter().find(same).cloned();
            let choice = match (choice, current) {
                (Some(choice), _) => choice,
                (None, Some(target)) => vec![target],
                (None, None) => best,
            };
            for ((name, path), target) in group.links.iter().zip(&choice) {
                if target.is_empty() || is_excluded(path, &self.declaration.exclude_paths) {
                    continue;
                }
                if layout.has(target) {
                    layout.alternative(name, target);
                    layout.add(path, Entry::Link(format!("/etc/alternatives/{name}")));
                }
            }
        }
        Ok(())
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn content_fact(path: &Path) -> Result<Fact, ToolchainError> {
    let fail = |source| ToolchainError::Io { path: path.to_owned(), source };
    let seen_at_ns = now_ns();
    let signature = match rustix::fs::stat(path) {
        Ok(stat) => StatSignature::of_stat(&stat),
        Err(rustix::io::Errno::NOENT) => return Ok(Fact::Absent),
        Err(error) => return Err(fail(error.into())),
    };
    let text = path.to_string_lossy();
    let digest = hash_file(rustix::fs::CWD, &text, DigestFunction::Blake3).map_err(fail)?;
    let digest = digest.ok_or_else(|| fail(io::ErrorKind::InvalidData.into()))?;
    Ok(Fact::Content(Content::new(&signature, seen_at_ns, digest)))
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Stored {
    root: PlainDigest,
    packages: Vec<(String, String)>,
    facts: FactTable,
}

fn write_list(path: &Path, stored: &Stored) -> Result<(), ToolchainError> {
    let fail = |source| ToolchainError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    sealed_file::write(path, FORMAT, &to_archive(stored)).map_err(fail)
}

/// A list file that was read: what a toolchain's tree was made of.
#[derive(Debug)]
pub struct ToolchainList {
    sealed: Sealed,
}

impl ToolchainList {
    /// Reads a list file, or `None` where there is none that is whole.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let usable = |sealed: &Sealed| {
            rkyv::access::<ArchivedStored, rancor::Error>(sealed.payload()).is_ok()
        };
        let sealed = sealed_file::read(path, FORMAT)?;
        Ok(sealed.filter(usable).map(|sealed| Self { sealed }))
    }

    /// The digest of the tree's root directory.
    pub fn root(&self) -> Digest {
        self.stored().root.plain().into()
    }

    /// Names and versions of the packages.
    pub fn packages(&self) -> Vec<(String, String)> {
        let text = |pair: &ArchivedPair| (pair.0.as_str().to_owned(), pair.1.as_str().to_owned());
        self.stored().packages.iter().map(text).collect()
    }

    /// How many facts the tree depends on.
    pub fn facts(&self) -> usize {
        self.stored().facts.len()
    }

    /// The facts, which are about paths below `/`.
    pub(super) fn table(&self) -> &ArchivedFactTable {
        &self.stored().facts
    }

    /// The first path at which something else is found than before, if any.
    pub fn first_change(&self) -> io::Result<Option<String>> {
        self.stored().facts.first_change(Path::new("/"))
    }

    /// The files that are known by their signature.
    fn contents(&self) -> HashMap<String, Content> {
        self.stored().facts.contents().collect()
    }

    fn stored(&self) -> &ArchivedStored {
        rkyv::access::<ArchivedStored, rancor::Error>(self.sealed.payload())
            .expect("`open` checked the same bytes")
    }
}

type ArchivedPair =
    rkyv::tuple::ArchivedTuple2<rkyv::string::ArchivedString, rkyv::string::ArchivedString>;

#[cfg(test)]
mod tests;
