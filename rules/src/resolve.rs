//! From labels to declarations: which targets a request needs, without running any rule.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maestro_core::host::FileType;
use maestro_core::{Label, TargetPattern};

use crate::configured::in_attribute;
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError, nearest};
use crate::glob::{list, stat};
use crate::library;
use crate::load::file::{border_inside, crosses, path_of};
use crate::load::packages::Packages;
use crate::package::TargetDecl;
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
    pub(crate) nodes: HashMap<Label, Node>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    loaded: HashSet<(Arc<str>, Arc<str>)>,
}

/// A label to be resolved, and the target and attribute that name it.
type Wanted = (Label, Option<(Arc<TargetDecl>, String)>);

impl<'h> Universe<'h> {
    pub(crate) fn new(packages: Packages<'h>) -> Self {
        Self { packages, nodes: HashMap::new(), diagnostics: Vec::new(), loaded: HashSet::new() }
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
        let (repo, folders) = match pattern {
            TargetPattern::Single(label) => return Ok(vec![label.clone()]),
            TargetPattern::Package { repo, package } => {
                if !self.packages.exists(repo, package)? {
                    return Err(self.packages.no_package(repo, package));
                }
                (repo, vec![package.clone()])
            }
            TargetPattern::Recursive { repo, package } => {
                if !repo.is_empty() {
                    let message = format!("`{pattern}` cannot be listed");
                    return Err(RuleError::new(Code::Label, message)
                        .hint("name one package of the repository"));
                }
                let below = self.packages.below(package)?;
                if below.is_empty() {
                    let message = format!("there is no package at or below `{pattern}`");
                    return Err(RuleError::new(Code::NoPackage, message));
                }
                (repo, below)
            }
        };
        let wanted: BTreeSet<(Arc<str>, Arc<str>)> =
            folders.iter().map(|folder| (repo.as_str().into(), folder.as_str().into())).collect();
        self.load(wanted)?;
        let mut out = Vec::new();
        for folder in &folders {
            let Some(package) = self.packages.get(repo, folder) else { continue };
            let visible = package
                .targets
                .values()
                .filter(|target| !target.strings("tags").iter().any(|tag| tag == "manual"));
            out.extend(visible.map(|target| target.label.clone()));
        }
        Ok(out)
    }

    /// Whether the package of a label was asked for, with whatever result.
    pub(crate) fn is_loaded(&self, label: &Label) -> bool {
        // Looking a pair up takes owned halves; they are shared texts.
        self.loaded.contains(&(label.repo.clone(), label.package.clone()))
    }

    /// Loads packages that were not asked for before.
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

    /// Resolves labels and all that they depend on.
    pub(crate) fn close(&mut self, requested: &[Label]) {
        let mut pending: Vec<Wanted> =
            requested.iter().rev().map(|label| (label.clone(), None)).collect();
        let mut later: Vec<Wanted> = Vec::new();
        loop {
            while let Some((label, from)) = pending.pop() {
                let key = (label.repo.clone(), label.package.clone());
                if self.loaded.contains(&key) {
                    self.visit(label, from, &mut pending);
                } else {
                    later.push((label, from));
                }
            }
            if later.is_empty() {
                return;
            }
            let wanted = later.iter().map(|(l, _)| (l.repo.clone(), l.package.clone())).collect();
            if let Err(error) = self.load(wanted) {
                self.diagnostics.push(Diagnostic::of(error, None));
                return;
            }
            pending.extend(later.drain(..).rev());
        }
    }

    fn visit(
        &mut self,
        label: Label,
        from: Option<(Arc<TargetDecl>, String)>,
        pending: &mut Vec<Wanted>,
    ) {
        let known = self.nodes.get(&label).cloned();
        let node = match known {
            Some(node) => Ok(Some(node)),
            None => self.resolve(&label),
        };
        let checked = node.and_then(|node| {
            if let (Some(node), Some((user, _))) = (&node, &from) {
                self.check_use(&label, node, user)?;
            }
            Ok(node)
        });
        match checked {
            Ok(Some(node)) => {
                if let Some((user, _)) = &from {
                    let warning = self.deprecation(&node, user);
                    self.diagnostics.extend(warning);
                }
                if self.nodes.contains_key(&label) {
                    return;
                }
                self.nodes.insert(label, node.clone());
                let decl = match node {
                    Node::Rule(decl) => decl,
                    Node::Output(owner) => {
                        pending.push((owner.label.clone(), None));
                        return;
                    }
                    Node::Source => return,
                };
                let mut wanted: Vec<Wanted> = decl
                    .dependencies()
                    .map(|(attr, label)| (label.clone(), Some((decl.clone(), attr.to_owned()))))
                    .collect();
                if decl.rule.test
                    && let Some(label) = test_toolchain()
                {
                    wanted.push((label, None));
                }
                pending.extend(wanted.into_iter().rev());
            }
            // The package has an error of its own, which is reported already.
            Ok(None) => {}
            Err(error) => self.report(error, from),
        }
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
        Some(Diagnostic::at(error, &user.span).warning())
    }

    fn report(&mut self, error: RuleError, from: Option<(Arc<TargetDecl>, String)>) {
        let diagnostic = match from {
            None => Diagnostic::of(error, None),
            Some((user, attribute)) => in_attribute(error, &user, &attribute),
        };
        self.diagnostics.push(diagnostic);
    }

    /// What a label names; `None` where its package could not be evaluated.
    pub(crate) fn resolve(&self, label: &Label) -> Result<Option<Node>, RuleError> {
        let Some(package) = self.packages.get(&label.repo, &label.package) else {
            if self.packages.failed(&label.repo, &label.package) {
                return Ok(None);
            }
            return Err(self.packages.no_package(&label.repo, &label.package));
        };
        if let Some(target) = package.targets.get(&label.name) {
            return Ok(Some(Node::Rule(target.clone())));
        }
        if let Some(owner) = package.outputs.get(&label.name).and_then(|o| package.targets.get(o)) {
            return Ok(Some(Node::Output(owner.clone())));
        }
        let path = path_of(label);
        if &*label.repo == library::REPO && library::read(&path).is_some() {
            return Ok(Some(Node::Source));
        }
        if label.is_main() {
            let host = self.packages.host();
            if let Some(inner) = border_inside(host, label)? {
                return Err(crosses(label, &inner));
            }
            match stat(host, &path)? {
                Some(FileType::File) => return Ok(Some(Node::Source)),
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
        if label.is_main() {
            let (folder, _) = label.name.rsplit_once('/').unwrap_or(("", &label.name));
            let join = |a: &str, b: &str| match (a.is_empty(), b.is_empty()) {
                (true, _) => b.to_owned(),
                (_, true) => a.to_owned(),
                _ => format!("{a}/{b}"),
            };
            let entries = list(self.packages.host(), &join(&label.package, folder));
            let files = entries.unwrap_or_default().into_iter().filter(|e| e.valid);
            names.extend(files.map(|entry| join(folder, &entry.name)));
        }
        match nearest(&label.name, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `:{near}`?")),
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
        let export;
        let visibility = match node {
            Node::Rule(decl) | Node::Output(decl) => &decl.visibility,
            Node::Source => {
                let package = self.packages.get(&label.repo, &label.package);
                export = package.and_then(|package| package.exports.get(&label.name));
                match export {
                    Some(visibility) => visibility,
                    None if label.repo.is_empty() => return Err(not_exported(label)),
                    None => &Visibility::Public,
                }
            }
        };
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

fn not_exported(label: &Label) -> RuleError {
    let message = format!("the file `{label}` exists, but its package does not export it");
    RuleError::new(Code::Visibility, message)
        .hint(format!("add `exports_files([\"{}\"])` to package `//{}`", label.name, label.package))
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
