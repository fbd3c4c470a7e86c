//! From labels to declarations: which targets a request needs, without running any rule.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use maestro_core::host::FileType;
use maestro_core::{Label, TargetPattern};

use crate::config::definitions::PackageKey;
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError, nearest};
use crate::glob::{list, stat};
use crate::library;
use crate::load::file::{border_inside, crosses, path_of};
use crate::load::packages::Packages;
use crate::package::{Package, TargetDecl};
use crate::repos::{file_path, is_library};
use crate::visibility::{Visibility, entry_for};

/// What a label names.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// A target of a rule.
    Rule(Arc<TargetDecl>),
    /// A file that a target declares as its output.
    Output(Arc<TargetDecl>),
    /// A source file.
    Source,
}

/// The toolchain that starts tests.
pub(crate) const TEST_TOOLCHAIN: (&str, &str, &str) = (library::REPO, "toolchains", "base");

/// Every label that a request needs.
pub(crate) struct Universe<'h> {
    pub(crate) packages: Packages<'h>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    loaded: HashSet<(Arc<str>, Arc<str>)>,
}

impl<'h> Universe<'h> {
    pub(crate) fn new(packages: Packages<'h>) -> Self {
        Self { packages, diagnostics: Vec::new(), loaded: HashSet::new() }
    }

    /// The packages that were asked for.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.loaded.iter()
    }

    /// How many packages were read.
    pub(crate) fn package_count(&self) -> usize {
        self.loaded.len()
    }

    /// The labels that patterns name, in their order, each once; negative ones take away.
    pub(crate) fn expand(&mut self, patterns: &[(bool, TargetPattern)]) -> Vec<Label> {
        let mut out: Vec<Label> = Vec::new();
        for (negative, pattern) in patterns {
            if *negative {
                out.retain(|label| !pattern.matches(label));
                continue;
            }
            match self.expand_one(pattern) {
                Ok(labels) => {
                    let known: HashSet<Label> = out.iter().cloned().collect();
                    out.extend(labels.into_iter().filter(|label| !known.contains(label)));
                }
                Err(error) => self.diagnostics.push(Diagnostic::of(error, None)),
            }
        }
        out
    }

    fn expand_one(&mut self, pattern: &TargetPattern) -> Result<Vec<Label>, RuleError> {
        if let TargetPattern::Single(label) = pattern {
            return Ok(vec![label.clone()]);
        }
        let mut out = Vec::new();
        for (repo, folder) in self.folders(pattern)? {
            let Some(package) = self.packages.get(&repo, &folder) else { continue };
            let visible = package
                .targets
                .values()
                .filter(|target| !target.strings("tags").iter().any(|tag| tag == "manual"));
            out.extend(visible.map(|target| target.label.clone()));
        }
        Ok(out)
    }

    /// Loads the packages that a pattern names, and says which those are.
    pub(crate) fn folders(
        &mut self,
        pattern: &TargetPattern,
    ) -> Result<BTreeSet<PackageKey>, RuleError> {
        let (repo, folders) = match pattern {
            TargetPattern::Single(label) => (&*label.repo, vec![label.package.to_string()]),
            TargetPattern::Package { repo, package } => {
                if !self.packages.exists(repo, package)? {
                    return Err(self.packages.no_package(repo, package));
                }
                (repo.as_str(), vec![package.clone()])
            }
            TargetPattern::Recursive { repo, package } => {
                if is_library(repo) {
                    let message = format!("`{pattern}` cannot be listed");
                    return Err(RuleError::new(Code::Label, message)
                        .hint("name one package of the repository"));
                }
                let below = self.packages.below(repo, package)?;
                if below.is_empty() {
                    let message = format!("there is no package at or below `{pattern}`");
                    return Err(RuleError::new(Code::NoPackage, message));
                }
                (repo.as_str(), below)
            }
        };
        let wanted: BTreeSet<PackageKey> =
            folders.iter().map(|folder| (repo.into(), folder.as_str().into())).collect();
        self.load(wanted.clone())?;
        Ok(wanted)
    }

    /// Whether the package of a label was asked for, with whatever result.
    pub(crate) fn is_loaded(&self, label: &Label) -> bool {
        // Looking a pair up takes owned halves; they are shared texts.
        self.was_asked_for(&(label.repo.clone(), label.package.clone()))
    }

    /// Whether a package was asked for, with whatever result.
    pub(crate) fn was_asked_for(&self, key: &PackageKey) -> bool {
        self.loaded.contains(key)
    }

    /// Loads packages that were not asked for before; those that do not exist are left out.
    pub(crate) fn load(&mut self, wanted: BTreeSet<(Arc<str>, Arc<str>)>) -> Result<(), RuleError> {
        let new: Vec<_> = wanted.into_iter().filter(|key| !self.loaded.contains(key)).collect();
        if new.is_empty() {
            return Ok(());
        }
        self.packages.load(&new)?;
        self.loaded.extend(new);
        let found = self.packages.take_diagnostics();
        self.diagnostics.extend(found);
        Ok(())
    }

    /// The warning where a target of another package is no longer to be used.
    pub(crate) fn deprecation(&self, node: &Node, user: &TargetDecl) -> Option<Diagnostic> {
        let Node::Rule(decl) = node else { return None };
        let same = decl.label.repo == user.label.repo && decl.label.package == user.label.package;
        let reason = decl.strings("deprecation").concat();
        if same || reason.is_empty() {
            return None;
        }
        let message = format!("`{}` uses `{}`, which is deprecated", user.label, decl.label);
        let error = RuleError::new(Code::Deprecated, message).hint(reason);
        Some(user.error(error).warning())
    }

    /// What a label names; `None` where its package could not be evaluated.
    pub(crate) fn resolve(&self, label: &Label) -> Result<Option<Node>, RuleError> {
        match self.package_of(label)? {
            Some(package) => self.resolve_in(package, label).map(Some),
            None => Ok(None),
        }
    }

    /// The package of a label; `None` where it could not be evaluated.
    pub(crate) fn package_of(&self, label: &Label) -> Result<Option<&Package>, RuleError> {
        let Label { repo, package, .. } = label;
        match self.packages.get(repo, package) {
            Some(found) => Ok(Some(found)),
            None if self.packages.failed(repo, package) => Ok(None),
            None => Err(self.packages.no_package(repo, package)),
        }
    }

    /// What a label of this package names.
    pub(crate) fn resolve_in(&self, package: &Package, label: &Label) -> Result<Node, RuleError> {
        if let Some(target) = package.targets.get(&label.name) {
            return Ok(Node::Rule(target.clone()));
        }
        if let Some(owner) = package.outputs.get(&label.name).and_then(|o| package.targets.get(o)) {
            return Ok(Node::Output(owner.clone()));
        }
        if is_library(&label.repo) && library::read(&path_of(label)).is_some() {
            return Ok(Node::Source);
        }
        if !is_library(&label.repo) {
            let host = self.packages.host();
            if let Some(inner) = border_inside(host, label)? {
                return Err(crosses(label, &inner));
            }
            match stat(host, &file_path(label))? {
                Some(FileType::File) => return Ok(Node::Source),
                Some(FileType::Directory) => {
                    let message = format!("`{label}` is a folder, not a file or target");
                    return Err(RuleError::new(Code::NoTarget, message)
                        .hint(format!("list its files with `glob([\"{}/**\"])`", label.name)));
                }
                Some(FileType::Symlink | FileType::Other) => {
                    let message = format!("`{label}` is no regular file");
                    return Err(RuleError::new(Code::NoTarget, message));
                }
                None => {}
            }
        }
        Err(self.no_target(label))
    }

    fn no_target(&self, label: &Label) -> RuleError {
        let error = RuleError::new(Code::NoTarget, format!("there is no target or file `{label}`"));
        let mut names: Vec<String> = Vec::new();
        if let Some(package) = self.packages.get(&label.repo, &label.package) {
            names.extend(package.targets.keys().map(ToString::to_string));
            names.extend(package.outputs.keys().map(ToString::to_string));
        }
        if !is_library(&label.repo) {
            let (folder, _) = label.name.rsplit_once('/').unwrap_or(("", &label.name));
            let join = |a: &str, b: &str| match (a.is_empty(), b.is_empty()) {
                (true, _) => b.to_owned(),
                (_, true) => a.to_owned(),
                _ => format!("{a}/{b}"),
            };
            let entries = list(self.packages.host(), &join(&label.package_dir(), folder));
            let files = entries.unwrap_or_default().into_iter().filter(|e| e.valid);
            names.extend(files.map(|entry| join(folder, &entry.name)));
        }
        match nearest(&label.name, names.iter().map(String::as_str)) {
            Some(near) if near.is_ascii() => error.hint(format!("did you mean `:{near}`?")),
            // Two forms of one letter look the same; their code points do not.
            Some(near) => {
                error.hint(format!("did you mean `:{near}`, that is `{}`?", code_points(near)))
            }
            None => error,
        }
    }

    /// Checks that `user` may depend on what `label` names.
    pub(crate) fn check_use(
        &self,
        label: &Label,
        node: &Node,
        user: &TargetDecl,
    ) -> Result<(), RuleError> {
        if label.repo == user.label.repo && label.package == user.label.package {
            return self.check_testonly(node, user);
        }
        let visibility = self.visibility(label, node)?;
        // What a rule depends on by itself must be visible to the rule, not to its users.
        let rule = &user.rule.file;
        let allowed = visibility.allows(label, &user.label.repo, &user.label.package)
            || visibility.allows(label, &rule.repo, &rule.package);
        if !allowed {
            let entry = entry_for(&user.label.repo, &user.label.package);
            let message = format!("`{label}` is not visible to `{}`", user.label);
            return Err(RuleError::new(Code::Visibility, message)
                .hint(format!("add `visibility = [\"{entry}\"]` to `{label}`")));
        }
        self.check_testonly(node, user)
    }

    /// Checks that what a `.star` file defines may use by itself what `label` names.
    pub(crate) fn check_visible(
        &self,
        label: &Label,
        node: &Node,
        file: &Label,
    ) -> Result<(), RuleError> {
        let is_near = label.repo == file.repo && label.package == file.package;
        if is_near || self.visibility(label, node)?.allows(label, &file.repo, &file.package) {
            return Ok(());
        }
        let entry = entry_for(&file.repo, &file.package);
        let message = format!("`{label}` is not visible to `{file}`");
        Err(RuleError::new(Code::Visibility, message)
            .hint(format!("add `visibility = [\"{entry}\"]` to `{label}`")))
    }

    /// Who may use what `label` names; an error where nobody outside of its package may.
    fn visibility<'n>(
        &'n self,
        label: &Label,
        node: &'n Node,
    ) -> Result<&'n Visibility, RuleError> {
        match node {
            Node::Rule(decl) | Node::Output(decl) => Ok(&decl.visibility),
            Node::Source => {
                let package = self.packages.get(&label.repo, &label.package);
                match package.and_then(|package| package.exports.get(&label.name)) {
                    Some(visibility) => Ok(visibility),
                    None if !is_library(&label.repo) => Err(not_exported(label)),
                    None => Ok(&Visibility::Public),
                }
            }
        }
    }

    fn check_testonly(&self, node: &Node, user: &TargetDecl) -> Result<(), RuleError> {
        let (Node::Rule(decl) | Node::Output(decl)) = node else { return Ok(()) };
        let only = |decl: &TargetDecl| {
            decl.rule.test || decl.attr("testonly") == Some(&crate::attr::AttrValue::Bool(true))
        };
        if !only(decl) || only(user) {
            return Ok(());
        }
        let message = format!("`{}` is for tests only", decl.label);
        Err(RuleError::new(Code::Visibility, message)
            .hint(format!("say `testonly = True` in `{}` as well", user.label)))
    }
}

/// A name with the code points of all that is not ASCII.
fn code_points(name: &str) -> String {
    let escaped =
        |c: char| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() };
    name.chars().map(escaped).collect()
}

fn not_exported(label: &Label) -> RuleError {
    let at = if label.is_main() { String::new() } else { format!("@{}", label.repo) };
    let message = format!("the file `{label}` exists, but its package does not export it");
    RuleError::new(Code::Visibility, message).hint(format!(
        "add `exports_files([\"{}\"])` to package `{at}//{}`",
        label.name, label.package
    ))
}

/// The label of the toolchain that starts tests.
pub(crate) fn test_toolchain() -> Option<Label> {
    let (repo, package, name) = TEST_TOOLCHAIN;
    Label::new(repo, package, name).ok()
}

/// `file:line:column` of a declaration.
pub(crate) fn location_of(decl: &TargetDecl) -> String {
    Location::of(&decl.span).to_string()
}
