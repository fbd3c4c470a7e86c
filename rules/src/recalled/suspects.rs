//! Which targets may not be as they were, before any of them is configured.

use std::collections::HashSet;

use maestro_core::host::FileType;
use maestro_core::{Label, Origin, RelPath, TargetId};

use crate::glob::stat;
use crate::memo::decls;
use crate::memo::imprint::Imprint;
use crate::memo::session::Session;
use crate::memo::summary::Summary;
use crate::memo::targets::{Entry, PackageKey, package_of};
use crate::package::Package;
use crate::resolve::Universe;
use crate::scope::{PACKAGE_FILE, RuleScope};

/// Targets that have to be looked at.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) labels: HashSet<Label>,
    /// Targets whose users have to be looked at.
    used: HashSet<TargetId>,
    /// Packages of whose sources the users have to be looked at.
    sources: HashSet<PackageKey>,
}

impl Suspects {
    /// Finds them; `None` where something stands in the way.
    pub(super) fn find(
        universe: &Universe<'_>,
        session: &Session<'_>,
        scope: &RuleScope,
        dirty: &HashSet<PackageKey>,
    ) -> Option<Self> {
        let mut out = Self::default();
        for key in dirty {
            let Some(entry) = session.past.entries.get(key) else { continue };
            match universe.packages.get(&key.0, &key.1) {
                Some(package) => out.compare(universe, scope, key, entry, package)?,
                None if entry.summary.definitions != Imprint::of(&[]) => return None,
                None => out.all_of(key, entry),
            }
        }
        out.look_at_sources(universe, session, scope)?;
        out.add_users(session);
        // What is declared no more is looked for by those who name it, if there are any.
        out.labels.retain(|label| {
            let package = || universe.packages.get(&label.repo, &label.package);
            !dirty.contains(&package_of(label))
                || package().is_some_and(|own| own.targets.contains_key(&label.name))
        });
        Some(out)
    }

    /// Compares the declarations of a package with those that are remembered.
    fn compare(
        &mut self,
        universe: &Universe<'_>,
        scope: &RuleScope,
        key: &PackageKey,
        entry: &Entry<'_>,
        package: &Package,
    ) -> Option<()> {
        let now = Summary::of(package);
        if now.definitions != entry.summary.definitions {
            return None; // there is no telling who has read them
        }
        if now.surface != entry.summary.surface {
            self.all_of(key, entry);
        }
        for row in entry.rows.get() {
            let Some(decl) = package.targets.get(row.name) else {
                self.used.insert(row.id);
                continue;
            };
            if decls::usage(decl) != row.usage {
                self.used.insert(row.id);
            }
            let code = universe.packages.code_of(&decl.rule);
            if decls::declared(decl, row.root, code) == row.decl {
                scope.update_place(row.id, decl);
            } else {
                self.labels.insert(decl.label.clone());
            }
        }
        Some(())
    }

    /// Everything of a package, and everything that uses something of it.
    fn all_of(&mut self, key: &PackageKey, entry: &Entry<'_>) {
        let (repo, package) = key;
        self.sources.insert(key.clone());
        for row in entry.rows.get() {
            let (repo, package, name) = (repo.clone(), package.clone(), row.name.into());
            self.labels.insert(Label { repo, package, name });
            self.used.insert(row.id);
        }
    }

    /// Looks at sources that are no files any more, and at folders that are packages now.
    fn look_at_sources(
        &mut self,
        universe: &Universe<'_>,
        session: &Session<'_>,
        scope: &RuleScope,
    ) -> Option<()> {
        let recall = universe.packages.recall()?;
        for path in recall.changed.paths()? {
            let Ok(rel) = RelPath::new(path) else { continue };
            let now = stat(universe.packages.host(), path).ok()?;
            let graph = scope.graph.borrow();
            let source = graph.artifact_at(&rel).map(|id| &graph.artifact(id).origin);
            let lost = matches!(source, Some(Origin::Source)) && now != Some(FileType::File);
            let border = rel.name() == PACKAGE_FILE;
            if !lost && !border {
                continue;
            }
            // All packages around it, since each may have reached into the folder.
            let mut folder = rel.parent();
            loop {
                let name = folder.as_ref().map_or("", RelPath::as_str);
                if let Some(key) = scope.folders.get(name)
                    && let Some(entry) = session.past.entries.get(key)
                {
                    self.all_of(key, entry);
                }
                let Some(inner) = folder else { break };
                folder = inner.parent();
            }
        }
        Some(())
    }

    /// Adds the users of what is marked.
    fn add_users(&mut self, session: &Session<'_>) {
        // What is built for something else only is configured by way of those who depend on it.
        let mut elsewhere: Vec<TargetId> = Vec::new();
        for row in session.past.rows_elsewhere() {
            let label = session.past.label(row.id);
            if self.used.contains(&row.id) || label.is_some_and(|l| self.labels.contains(&l)) {
                elsewhere.push(row.id);
            }
        }
        if !elsewhere.is_empty() {
            self.used.extend(session.past.users_elsewhere(elsewhere));
        }
        if self.used.is_empty() && self.sources.is_empty() {
            return;
        }
        for (key, entry) in &session.past.entries {
            for row in entry.rows.get() {
                let uses = row.deps.iter().any(|dep| self.used.contains(dep))
                    || row.sources.iter().any(|source| self.sources.contains(source));
                if uses {
                    let (repo, package) = key.clone();
                    self.labels.insert(Label { repo, package, name: row.name.into() });
                }
            }
        }
    }
}
