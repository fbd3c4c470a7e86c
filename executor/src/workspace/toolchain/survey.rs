//! What of the host makes a toolchain: the packages' paths, walked, with a note of all that was
//! looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use maestro_cas::StatSignature;
use maestro_core::{DigestFunction, Toolchain};

use super::ToolchainError;
use super::dpkg::{Database, DpkgPaths, Package};
use super::layout::{Entry, Layout, ROOT_LINKS, is_excluded};
use crate::workspace::facts::{Content, Fact, hash_file, now_ns};

/// Walks the packages' paths on the host and notes everything that was looked at.
pub(super) struct Survey<'a> {
    paths: &'a DpkgPaths,
    declaration: &'a Toolchain,
    pub(super) facts: Vec<(String, Fact)>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(paths: &'a DpkgPaths, declaration: &'a Toolchain) -> Self {
        Self { paths, declaration, facts: Vec::new() }
    }

    /// Notes the files of the package database that the tree depends on.
    pub(super) fn database_files(
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

    pub(super) fn layout(
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
