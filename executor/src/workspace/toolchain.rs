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
mod survey;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_cas::{StatSignature, Store, StoreError};
use maestro_core::merkle::merkle;
use maestro_core::{Digest, FailureKind, Node, RelPath, Toolchain};
use rkyv::rancor;

pub use dpkg::DpkgPaths;

use self::dpkg::Database;
use self::layout::Entry;
use self::survey::Survey;
use super::facts::{ArchivedFactTable, Content, Fact, FactTable, PlainDigest, now_ns, to_archive};
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

/// When the files of a toolchain are copied into the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copying {
    /// While they are hashed: an action is about to read them.
    #[default]
    WhileHashed,
    /// Once an action reads them. Where results come from elsewhere, that is often never.
    WhenRead,
}

/// Resolves toolchains of one machine and keeps the results for the length of the process.
#[derive(Debug)]
pub struct Toolchains {
    store: Store,
    paths: DpkgPaths,
    copying: Copying,
    resolved: Mutex<HashMap<Toolchain, Arc<ResolvedToolchain>>>,
}

impl Toolchains {
    /// A resolver that reads the package database at `paths` and copies into `store`.
    pub fn new(store: Store, paths: DpkgPaths) -> Self {
        Self { store, paths, copying: Copying::default(), resolved: Mutex::default() }
    }

    /// The same with another time of copying.
    pub fn with_copying(self, copying: Copying) -> Self {
        Self { copying, ..self }
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
        let made = Arc::new(self.make(declaration, Copying::WhileHashed)?);
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
        self.make(declaration, self.copying)
    }

    fn make(
        &self,
        declaration: &Toolchain,
        copying: Copying,
    ) -> Result<ResolvedToolchain, ToolchainError> {
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
        let nodes = self.read(declaration, &entries, (&known, copying), &mut survey.facts)?;
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

    /// Hashes what is not known by its signature; copies it into the store where it is time for
    /// that.
    fn read(
        &self,
        declaration: &Toolchain,
        entries: &[(String, Entry)],
        how: (&HashMap<String, Content>, Copying),
        facts: &mut Vec<(String, Fact)>,
    ) -> Result<Vec<(RelPath, Node)>, ToolchainError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((path, entry)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let copied = self.read_entry(declaration, path, entry, how);
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

    fn read_entry(
        &self,
        declaration: &Toolchain,
        path: &str,
        entry: &Entry,
        (known, copying): (&HashMap<String, Content>, Copying),
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
            let is_there = copying == Copying::WhenRead || self.store.contains(&digest);
            if digest.function == self.store.function() && is_there {
                let node = Node::File { digest, executable: signature.mode & 0o100 != 0 };
                let fact = Fact::Content(content.clone());
                return Ok(Copied { path: rel, node, fact: Some((name, fact)) });
            }
        }
        let hashed_at_ns = now_ns();
        let ingested = match copying {
            Copying::WhileHashed => self.store.ingest_source(&host),
            Copying::WhenRead => self.store.hash_source(&host),
        };
        let ingested = ingested.map_err(|error| match error {
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
