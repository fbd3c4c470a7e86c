//! Other repositories in the place where a build sees them: `external/NAME/…`.
//!
//! A repository is either a folder of this machine, whose files are observed like those of the
//! workspace, or a tree of the store, which its digest pins: nothing of it is ever looked at again,
//! laid out on disk, or observed. Where repositories come from is the business of whoever
//! implements [`Repositories`]; it is asked once for each name, when the name is first used.

mod tree;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use maestro_cas::Store;
use maestro_core::host::HostError;
use maestro_core::{Digest, FailureKind, Node};
use rustix::fs::{Mode, OFlags};

use super::facts::Fact;
pub use tree::TreeMount;

/// The folder below which repositories stand.
const EXTERNAL: &str = "external/";
/// The file in which a repository declares those that it uses.
const PROJECT_FILE: &str = "maestro.toml";

/// What a repository is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder of this machine, as an absolute path.
    Folder(PathBuf),
    /// A tree of the store; whoever returns it has seen all its blobs.
    Tree(Digest),
}

/// Knows the repositories of a workspace and makes them ready.
pub trait Repositories: Send + Sync {
    /// Whether there is a repository of this name.
    fn declares(&self, name: &str) -> bool;

    /// Makes a declared repository ready.
    fn open(&self, name: &str) -> Result<Content, HostError>;

    /// What can be done about a name that is not declared; `project` is the project file of the
    /// repository that uses it, if that is not the workspace.
    fn undeclared(&self, name: &str, project: Option<&str>) -> Vec<String>;

    /// What was seen of the workspace to make repositories ready.
    fn facts(&self) -> Vec<(String, Fact)>;
}

/// A workspace without other repositories.
#[derive(Clone, Copy, Debug)]
pub struct NoRepositories;

impl Repositories for NoRepositories {
    fn declares(&self, _name: &str) -> bool {
        false
    }

    fn open(&self, name: &str) -> Result<Content, HostError> {
        let (name, from) = (name.to_owned(), String::new());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }

    fn undeclared(&self, _name: &str, _project: Option<&str>) -> Vec<String> {
        Vec::new()
    }

    fn facts(&self) -> Vec<(String, Fact)> {
        Vec::new()
    }
}

/// A repository that lies ready. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Mount {
    /// Files on disk.
    Folder(Arc<FolderMount>),
    /// Files of the store.
    Tree(Arc<TreeMount>),
}

/// A folder of this machine.
#[derive(Debug)]
pub(super) struct FolderMount {
    fd: OwnedFd,
    /// Absolute, in UTF-8.
    path: String,
}

impl FolderMount {
    fn open(name: &str, path: &Path) -> Result<Self, HostError> {
        let fail = |message: String| HostError::Repository {
            message,
            kind: FailureKind::Input,
            hints: vec![format!("check the `path` of repository `@{name}`, or its override")],
        };
        let shown = path.display();
        let text = path.to_str().filter(|text| text.starts_with('/') && *text != "/");
        let text = text.ok_or_else(|| {
            fail(format!("the folder `{shown}` of repository `@{name}` cannot be used"))
        })?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            fail(format!("cannot open the folder `{shown}` of repository `@{name}`: {error}"))
        })?;
        Ok(Self { fd, path: text.to_owned() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The absolute path of a path in the repository.
    pub(super) fn absolute(&self, inner: &str) -> String {
        if inner.is_empty() { self.path.clone() } else { format!("{}/{inner}", self.path) }
    }
}

/// What is known of a repository; a failure is not tried again in the same build.
type Slot = Arc<Mutex<Option<Result<Mount, Unavailable>>>>;

/// Why a repository cannot be had.
#[derive(Clone, Debug)]
struct Unavailable {
    message: String,
    kind: FailureKind,
    hints: Vec<String>,
}

impl From<HostError> for Unavailable {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        match error {
            HostError::Repository { kind, hints, .. } => Self { message, kind, hints },
            HostError::NoRepository { hints, .. } => {
                Self { message, kind: FailureKind::Input, hints }
            }
            HostError::Io { .. } | HostError::TooLarge { .. } => {
                Self { message, kind: FailureKind::Environment, hints: Vec::new() }
            }
        }
    }
}

impl From<Unavailable> for HostError {
    fn from(Unavailable { message, kind, hints }: Unavailable) -> Self {
        Self::Repository { message, kind, hints }
    }
}

/// The repositories of one build. All methods may be called from many threads.
pub struct Mounts {
    repositories: Box<dyn Repositories>,
    /// Where trees lie; a workspace without repositories needs none.
    store: Option<Store>,
    slots: Mutex<HashMap<String, Slot>>,
}

impl fmt::Debug for Mounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounts").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self { repositories: Box::new(NoRepositories), store: None, slots: Mutex::default() }
    }
}

impl Mounts {
    /// The repositories that `repositories` knows, with trees in `store`.
    pub fn new(repositories: Box<dyn Repositories>, store: Store) -> Self {
        Self { repositories, store: Some(store), slots: Mutex::default() }
    }

    /// Makes a repository ready that a file of repository `from` names, and says what tells it
    /// from others: the digest of its tree, or its folder.
    pub fn open(&self, name: &str, from: &str) -> Result<String, HostError> {
        Ok(match self.mount(name, from)? {
            Mount::Folder(folder) => folder.path.clone(),
            Mount::Tree(tree) => tree.root().to_string(),
        })
    }

    /// The path in a build of a path of this machine that lies in an open repository.
    pub fn build_path(&self, absolute: &str) -> Option<String> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slots: Vec<(String, Slot)> =
            slots.iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        slots.into_iter().find_map(|(name, slot)| {
            let mount = slot.lock().unwrap_or_else(PoisonError::into_inner).clone()?.ok()?;
            let Mount::Folder(folder) = mount else { return None };
            match absolute.strip_prefix(folder.path.as_str())? {
                "" => Some(format!("{EXTERNAL}{name}")),
                rest => Some(format!("{EXTERNAL}{name}/{}", rest.strip_prefix('/')?)),
            }
        })
    }

    /// What was seen of the workspace to make repositories ready.
    pub(super) fn facts(&self) -> Vec<(String, Fact)> {
        self.repositories.facts()
    }

    /// Makes a tree whose blobs are gone again.
    pub(super) fn restore(&self, name: &str) -> Result<(), HostError> {
        let slot = self.slot(name);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.mount(name, "").map(drop)
    }

    /// The repository that a path of the build lies in and the path inside it; `None` for paths of
    /// the workspace.
    pub(super) fn locate<'p>(&self, path: &'p str) -> Result<Option<Located<'p>>, HostError> {
        let Some((name, inner)) = split(path).filter(|(name, _)| self.repositories.declares(name))
        else {
            return Ok(None);
        };
        Ok(Some(Located { mount: self.mount(name, "")?, name, inner }))
    }

    /// As [`Mounts::locate`], for repositories that are open already.
    pub(super) fn opened<'p>(&self, path: &'p str) -> Option<Located<'p>> {
        let (name, inner) = split(path)?;
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(name).cloned();
        drop(slots);
        let mount = slot?.lock().unwrap_or_else(PoisonError::into_inner).clone()?.ok()?;
        Some(Located { mount, name, inner })
    }

    fn slot(&self, name: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(name.to_owned()).or_default().clone()
    }

    fn mount(&self, name: &str, from: &str) -> Result<Mount, HostError> {
        if !self.repositories.declares(name) {
            let project = self.project_file(from);
            let hints = self.repositories.undeclared(name, project.as_deref());
            let (name, from) = (name.to_owned(), from.to_owned());
            return Err(HostError::NoRepository { name, from, hints });
        }
        let slot = self.slot(name);
        // Held while it is made ready, so that this happens once.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*slot {
            return known.clone().map_err(HostError::from);
        }
        let opened = self.repositories.open(name);
        let made = opened.and_then(|content| self.make(name, &content));
        slot.insert(made.map_err(Unavailable::from)).clone().map_err(HostError::from)
    }

    /// The project file of a repository that is open, if it has one.
    fn project_file(&self, repo: &str) -> Option<String> {
        let path = format!("{EXTERNAL}{repo}/{PROJECT_FILE}");
        let located = self.opened(&path)?;
        let bytes = match &located.mount {
            Mount::Folder(folder) => std::fs::read(folder.absolute(located.inner)).ok()?,
            Mount::Tree(tree) => match tree.find(located.inner).ok()?? {
                Node::File { digest, .. } => tree.read(&digest).ok()?,
                _ => return None,
            },
        };
        String::from_utf8(bytes).ok()
    }

    fn make(&self, name: &str, content: &Content) -> Result<Mount, HostError> {
        match (content, &self.store) {
            (Content::Folder(path), _) => {
                FolderMount::open(name, path).map(|folder| Mount::Folder(Arc::new(folder)))
            }
            (Content::Tree(root), Some(store)) => {
                Ok(Mount::Tree(Arc::new(TreeMount::new(store.clone(), *root))))
            }
            (Content::Tree(_), None) => Err(HostError::Repository {
                message: format!("there is no store for the files of repository `@{name}`"),
                kind: FailureKind::Internal,
                hints: Vec::new(),
            }),
        }
    }
}

/// A path in a repository.
pub(super) struct Located<'p> {
    pub(super) mount: Mount,
    pub(super) name: &'p str,
    /// Empty for the root of the repository.
    pub(super) inner: &'p str,
}

impl Located<'_> {
    /// The absolute path on this machine; `None` for trees of the store.
    pub(super) fn absolute(&self) -> Option<String> {
        match &self.mount {
            Mount::Folder(folder) => Some(folder.absolute(self.inner)),
            Mount::Tree(_) => None,
        }
    }
}

/// The name of a repository and a path inside it, out of `external/NAME/…`.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(EXTERNAL)?;
    Some(rest.split_once('/').unwrap_or((rest, "")))
}
