//! Packages: which folders are some, and what their files declare.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use maestro_core::Label;
use maestro_core::host::{FileType, Host};
use starlark::values::{FrozenValue, OwnedFrozenValue, StarlarkValue};

use super::file::{Evaluated, missing};
use super::loader::Loader;
use super::parallel::for_each;
use crate::aspect::{AspectSpec, FrozenAspect};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError, nearest};
use crate::glob::{list, stat};
use crate::library;
use crate::limits::EvaluationLimits;
use crate::memo::codec::{Damaged, Reader};
use crate::memo::imprint::Imprint;
use crate::memo::request::Folder;
use crate::memo::{PackageMemories, Recall, decls};
use crate::native_rules::{self, is_native};
use crate::package::Package;
use crate::repos::{self, host_path, is_library};
use crate::rule::{FrozenRule, RuleSpec};
use crate::scope::PACKAGE_FILE;
use crate::values::definition::Definition;
use crate::values::transition::{FrozenTransition, TransitionSpec};

/// Every package that was asked for so far.
pub(crate) struct Packages<'h> {
    host: &'h dyn Host,
    threads: usize,
    limits: EvaluationLimits,
    loader: Loader<'h>,
    recall: Option<Recall<'h>>,
    /// Memory that was not opened yet.
    memory: Option<&'h dyn PackageMemories>,
    /// Packages that were not evaluated, by their files.
    recalled: HashMap<Label, Arc<Package>>,
    /// Folders that patterns walked through.
    walked: RefCell<BTreeMap<String, Folder>>,
}

/// How many packages are evaluated in the time that it takes to open memory.
const WORTH_MEMORY: usize = 32;

/// A package as it is remembered, and the text of its file.
struct Stored<'h> {
    file: Label,
    bytes: &'h [u8],
    text: String,
}

impl<'h> Packages<'h> {
    pub(crate) fn new(host: &'h dyn Host, threads: usize, limits: EvaluationLimits) -> Self {
        let loader = Loader::new(host, threads, limits);
        let (recalled, walked) = (HashMap::new(), RefCell::default());
        Self { host, threads, limits, loader, recall: None, memory: None, recalled, walked }
    }

    /// The same with a memory of an earlier evaluation.
    pub(crate) fn with_recall(mut self, recall: Option<Recall<'h>>) -> Self {
        self.recall = recall;
        self
    }

    /// The same with a memory that is opened when so much is asked for that it is worth it.
    pub(crate) fn with_memory(mut self, memory: Option<&'h dyn PackageMemories>) -> Self {
        self.memory = memory;
        self
    }

    /// The memory of an earlier evaluation.
    pub(crate) fn recall(&self) -> Option<&Recall<'h>> {
        self.recall.as_ref()
    }

    /// Every file that was evaluated, in the order of their labels.
    pub(crate) fn evaluated(&self) -> impl Iterator<Item = (&Label, &Evaluated)> {
        self.loader.evaluated()
    }

    /// What files and those that they load, directly or not, printed, whenever that was.
    pub(crate) fn remarks_of(&self, roots: impl Iterator<Item = Label>) -> Vec<Diagnostic> {
        let mut seen = BTreeSet::new();
        let mut stack: Vec<Label> = roots.collect();
        let mut out = Vec::new();
        while let Some(file) = stack.pop() {
            if !seen.insert(file.clone()) {
                continue;
            }
            if let Some(evaluated) = self.loader.get(&file) {
                out.extend(evaluated.remarks.iter().cloned());
                stack.extend(evaluated.trace.loads.iter().cloned());
            } else if let Some(recall) = &self.recall {
                let (remarks, loads) = recall.files.said(&file);
                out.extend(remarks.iter().cloned());
                stack.extend(loads.iter().cloned());
            }
        }
        out
    }

    /// Whether a file was evaluated.
    pub(crate) fn is_evaluated(&self, file: &Label) -> bool {
        self.loader.get(file).is_some()
    }

    /// What files printed when they were evaluated, for those that were not this time.
    pub(crate) fn recalled_remarks(&self) -> Vec<Diagnostic> {
        let Some(recall) = &self.recall else { return Vec::new() };
        let roots = self.recalled.keys().cloned();
        recall.files.remarks(roots, |file| self.loader.knows(file))
    }

    /// The workspace.
    pub(crate) fn host(&self) -> &'h dyn Host {
        self.host
    }

    /// What each evaluation may take.
    pub(crate) fn limits(&self) -> EvaluationLimits {
        self.limits
    }

    /// Loads packages that exist; those that do not are left out.
    pub(crate) fn load(&mut self, packages: &[(Arc<str>, Arc<str>)]) -> Result<(), RuleError> {
        if packages.len() >= WORTH_MEMORY
            && let Some(memory) = self.memory.take()
        {
            self.recall = memory.packages().and_then(Recall::of_packages);
        }
        let (mut new, mut clean) = (Vec::new(), Vec::new());
        for (repo, package) in packages {
            let Some(file) = package_file(repo, package) else { continue };
            if self.knows(&file) {
                continue;
            }
            match self.remembered(&file) {
                Some(bytes) => clean.push(Stored { file, bytes, text: String::new() }),
                None => new.push(file),
            }
        }
        new.extend(self.keep_clean(&mut clean));
        let mut files = Vec::new();
        for file in new {
            match self.exists(&file.repo, &file.package) {
                Ok(true) => files.push(file),
                Ok(false) => {}
                // Whoever names a label of the repository reports why it cannot be had.
                Err(error) if error.code == Code::Repository && !file.repo.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        self.loader.load(&files);
        self.recall_all(clean);
        Ok(())
    }

    fn knows(&self, file: &Label) -> bool {
        self.loader.knows(file) || self.recalled.contains_key(file)
    }

    /// What is remembered of a package file that need not be evaluated, unless it sees something
    /// else than it did.
    fn remembered(&mut self, file: &Label) -> Option<&'h [u8]> {
        let recall = self.recall.as_mut()?;
        let bytes = recall.files.package(file)?;
        recall.files.may_be_clean(file, self.host, &recall.changed).then_some(bytes)
    }

    /// Keeps the packages whose files still see what they saw, with their texts; returns the files
    /// of the others.
    fn keep_clean(&mut self, stored: &mut Vec<Stored<'h>>) -> Vec<Label> {
        let Some(recall) = self.recall.as_mut() else { return Vec::new() };
        let (files, host, changed) = (&recall.files, self.host, &recall.changed);
        let texts = for_each(self.threads, std::mem::take(stored), |package| {
            let text = files.same_text(&package.file, host, changed);
            (package, text)
        });
        let mut changed = Vec::new();
        for (package, text) in texts {
            recall.files.note(&package.file, text.is_some());
            match text {
                Some(text) => stored.push(Stored { text, ..package }),
                None => changed.push(package.file),
            }
        }
        changed
    }

    /// Reads packages from memory; what cannot be read is evaluated.
    fn recall_all(&mut self, clean: Vec<Stored<'h>>) {
        let mut readable = Vec::new();
        let mut damaged = Vec::new();
        let mut definitions = BTreeSet::new();
        for package in clean {
            let mut reader = Reader::new(package.bytes);
            match decls::read_rules(&mut reader) {
                Ok(rules) => {
                    let files = rules.iter().map(|(file, _)| file);
                    definitions.extend(files.filter(|file| !is_native(file)).cloned());
                    readable.push((package, reader, rules));
                }
                Err(Damaged) => damaged.push(package.file),
            }
        }
        let definitions: Vec<Label> = definitions.into_iter().collect();
        self.loader.load(&definitions);
        let with_rules = readable.into_iter().map(|(package, reader, rules)| {
            let rules: Option<Vec<Arc<RuleSpec>>> =
                rules.iter().map(|(file, variable)| self.rule(file, variable)).collect();
            (package, reader, rules)
        });
        let with_rules: Vec<_> = with_rules.collect();
        let packages = for_each(self.threads, with_rules, |(package, mut reader, rules)| {
            let Stored { file, text, .. } = package;
            let read = |rules: Vec<_>| decls::read_package(&mut reader, &file, text, &rules).ok();
            let package = rules.and_then(read);
            (file, package)
        });
        for (file, package) in packages {
            match package {
                Some(package) => drop(self.recalled.insert(file, Arc::new(package))),
                None => damaged.push(file),
            }
        }
        self.loader.load(&damaged);
    }

    /// The text of the file that defines a rule, and of all that the file loads.
    pub(crate) fn code_of(&self, rule: &RuleSpec) -> Option<Imprint> {
        self.loader.get(&rule.file).map(|file| file.trace.transitive)
    }

    /// The rule that a file assigns to a variable.
    fn rule(&self, file: &Label, variable: &str) -> Option<Arc<RuleSpec>> {
        if is_native(file) {
            return native_rules::find(variable);
        }
        let file = self.loader.get(file)?;
        let (value, _) = file.module.get_any_visibility(variable).ok()?;
        Some(value.downcast::<FrozenRule>().ok()?.as_ref().spec.clone())
    }

    /// A package that is loaded and has no error.
    pub(crate) fn get(&self, repo: &str, package: &str) -> Option<&Arc<Package>> {
        let file = package_file(repo, package)?;
        let evaluated = || self.loader.get(&file).and_then(|own| own.package.as_ref());
        self.recalled.get(&file).or_else(evaluated)
    }

    /// Whether a package was found but could not be evaluated.
    pub(crate) fn failed(&self, repo: &str, package: &str) -> bool {
        let file = package_file(repo, package);
        file.is_some_and(|file| {
            self.loader.knows(&file)
                && self.loader.get(&file).is_none()
                && !self.recalled.contains_key(&file)
        })
    }

    /// The files that an evaluated file loads, directly or not, sorted.
    pub(crate) fn loads(&self, file: &Label) -> Vec<Label> {
        let mut found = BTreeSet::new();
        let mut pending = vec![file];
        while let Some(file) = pending.pop() {
            let trace = match self.loader.get(file) {
                Some(evaluated) => Some(&evaluated.trace),
                None => self.recall.as_ref().and_then(|recall| recall.files.trace(file)),
            };
            let loads = trace.into_iter().flat_map(|trace| &trace.loads);
            pending.extend(loads.filter(|load| found.insert((*load).clone())));
        }
        found.into_iter().collect()
    }

    /// Takes the errors and remarks that were collected.
    pub(crate) fn take_diagnostics(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.loader.diagnostics)
    }

    /// The implementation of a rule, kept alive by the file that defines it.
    pub(crate) fn implementation(&self, rule: &RuleSpec) -> Option<OwnedFrozenValue> {
        self.function_of(rule, |rule: &FrozenRule| rule.implementation)
    }

    /// The function behind a transition, kept alive by the file that defines it.
    pub(crate) fn transition(&self, spec: &TransitionSpec) -> Option<OwnedFrozenValue> {
        self.function_of(spec, |transition: &FrozenTransition| transition.implementation)
    }

    /// The aspect that a file assigns to a variable; `None` where the file has errors, which are
    /// among the diagnostics.
    pub(crate) fn aspect_named(
        &mut self,
        file: &Label,
        name: &str,
    ) -> Result<Option<Arc<AspectSpec>>, RuleError> {
        let is_new = !self.loader.knows(file);
        self.loader.load(std::slice::from_ref(file));
        let Some(evaluated) = self.loader.get(file) else {
            // What is not there is reported where it is named.
            return match is_new && self.loader.diagnostics.is_empty() {
                true => Err(missing(self.host, file)),
                false => Ok(None),
            };
        };
        let aspect = |name: &str| {
            let value = evaluated.module.get(name).ok()?;
            Some(value.downcast::<FrozenAspect>().ok()?.as_ref().spec.clone())
        };
        if let Some(aspect) = aspect(name) {
            return Ok(Some(aspect));
        }
        let names = evaluated.module.names().map(|name| name.as_str().to_owned());
        let names: Vec<String> = names.filter(|name| aspect(name).is_some()).collect();
        let message = format!("`{file}` defines no aspect `{name}`");
        let hint = match names.is_empty() {
            true => "it defines none".to_owned(),
            false => format!("it defines: {}", names.join(", ")),
        };
        Err(RuleError::new(Code::Aspect, message).hint(hint))
    }

    /// The function behind an aspect, kept alive by the file that defines it.
    pub(crate) fn aspect(&self, spec: &AspectSpec) -> Option<OwnedFrozenValue> {
        self.function_of(spec, |aspect: &FrozenAspect| aspect.implementation)
    }

    fn function_of<T: for<'v> StarlarkValue<'v>>(
        &self,
        spec: &impl Definition,
        implementation: impl FnOnce(&T) -> FrozenValue,
    ) -> Option<OwnedFrozenValue> {
        let file: &Arc<Evaluated> = self.loader.get(spec.file())?;
        let (value, _) = file.module.get_any_visibility(spec.variable().get()?).ok()?;
        let definition = value.downcast::<T>().ok()?;
        let implementation = implementation(definition.as_ref());
        Some(definition.to_owned_frozen_value().map(|_| implementation))
    }

    /// Whether a folder is a package.
    pub(crate) fn exists(&self, repo: &str, package: &str) -> Result<bool, RuleError> {
        let path = match package {
            "" => PACKAGE_FILE.to_owned(),
            _ => format!("{package}/{PACKAGE_FILE}"),
        };
        if is_library(repo) {
            return Ok(library::read(&path).is_some());
        }
        repos::open(self.host, repo, "")?;
        repos::check_folder(self.host, repo, package)?;
        Ok(stat(self.host, &host_path(repo, &path))? == Some(FileType::File))
    }

    /// The packages of a repository at or below a folder, sorted.
    pub(crate) fn below(&self, repo: &str, folder: &str) -> Result<Vec<String>, RuleError> {
        repos::open(self.host, repo, "")?;
        let mut found = Vec::new();
        let mut level = vec![folder.to_owned()];
        while !level.is_empty() {
            let mut inner = Vec::new();
            for (path, folder) in self.folders(repo, level)? {
                inner.extend(folder.inner.iter().map(|name| match path.is_empty() {
                    true => name.clone(),
                    false => format!("{path}/{name}"),
                }));
                if folder.is_package {
                    found.push(path);
                }
            }
            level = inner;
        }
        found.sort_unstable();
        Ok(found)
    }

    /// What stands in each of some folders; those are listed where that may have changed.
    fn folders(&self, repo: &str, paths: Vec<String>) -> Result<Vec<(String, Folder)>, RuleError> {
        // What was remembered may be of another tree in the same place.
        let known = |path: &String| if repo.is_empty() { self.known_folder(path) } else { None };
        let (host, sought) = (self.host, paths.into_iter().map(|path| (known(&path), path)));
        let found = for_each(self.threads, sought.collect(), |(known, path)| {
            let folder = known.map_or_else(|| list_folder(host, &host_path(repo, &path)), Ok);
            folder.map(|folder| (path, folder))
        });
        let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        if repo.is_empty() {
            self.walked.borrow_mut().extend(found.iter().cloned());
        }
        Ok(found)
    }

    /// What stands in a folder of the workspace, if nobody needs to look.
    fn known_folder(&self, path: &str) -> Option<Folder> {
        if let Some(known) = self.walked.borrow().get(path) {
            return Some(known.clone());
        }
        let recall = self.recall.as_ref()?;
        let folder = recall.request.as_ref()?.folders.get(path)?;
        (!recall.changed.may_show_in(path)).then(|| folder.clone())
    }

    /// The folders that were walked through.
    pub(crate) fn walked(&self) -> BTreeMap<String, Folder> {
        self.walked.borrow().clone()
    }

    /// Whether a package file need not be evaluated.
    pub(crate) fn is_clean(&mut self, file: &Label) -> bool {
        let Some(recall) = self.recall.as_mut() else { return false };
        recall.files.is_clean(file, self.host, &recall.changed)
    }

    /// The error for a package that does not exist.
    pub(crate) fn no_package(&self, repo: &str, package: &str) -> RuleError {
        let opened = repos::open(self.host, repo, "");
        let placed = opened.and_then(|()| repos::check_folder(self.host, repo, package));
        if let Err(error) = placed {
            return error;
        }
        let at = if repo.is_empty() { String::new() } else { format!("@{repo}") };
        let error =
            RuleError::new(Code::NoPackage, format!("there is no package `{at}//{package}`"));
        if is_library(repo) {
            return error;
        }
        let folder = host_path(repo, package);
        if matches!(stat(self.host, &folder), Ok(Some(FileType::Directory))) || package.is_empty() {
            let file = match package {
                "" => PACKAGE_FILE.to_owned(),
                _ => format!("{package}/{PACKAGE_FILE}"),
            };
            return error.hint(format!("the folder exists, but has no file `{file}`"));
        }
        let known = self.below(repo, "").unwrap_or_default();
        match nearest(package, known.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{at}//{near}`?")),
            None => error,
        }
    }
}

fn list_folder(host: &dyn Host, path: &str) -> Result<Folder, RuleError> {
    let mut folder = Folder::default();
    for entry in list(host, path)?.into_iter().filter(|entry| entry.valid) {
        match entry.file_type {
            FileType::Directory if !SKIPPED.contains(&entry.name.as_str()) => {
                folder.inner.push(entry.name);
            }
            _ => folder.is_package |= entry.name == PACKAGE_FILE,
        }
    }
    Ok(folder)
}

/// Folders that hold no packages.
const SKIPPED: [&str; 2] = ["maestro-out", ".git"];

/// The file that declares a package.
pub(crate) fn package_file(repo: &str, package: &str) -> Option<Label> {
    Label::new(repo, package, PACKAGE_FILE).ok()
}
