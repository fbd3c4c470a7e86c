//! Dependencies of C and C++ targets that no source of the target uses.
//!
//! A dependency is used if a file of the target includes a header of it, or one that the target
//! sees only by way of it. What an `#include` leads to is told by names, so generously that a
//! dependency counts as used where there is doubt: where an included name is a macro, where a
//! source is generated, where a rule is not known here, and where linking a library alone has an
//! effect. So what is found can go, but not all that can go is found.
//!
//! Packages are evaluated; nothing is analyzed or built.

use std::collections::{BTreeSet, HashMap, HashSet};

use maestro_core::host::Host;
use maestro_core::{Label, RelPath};

use super::Found;
use super::removal::{Place, place_of};
use super::suppress::Silenced;
use crate::attr::AttrValue;
use crate::diagnostic::Diagnostic;
use crate::format::parse;
use crate::limits::EvaluationLimits;
use crate::load::file::{display, path_of, read};
use crate::load::packages::{Packages, package_file};
use crate::native_rules::NativeKind;
use crate::on_large_stack;
use crate::package::TargetDecl;
use crate::repos::file_path;
use crate::resolve::{Node, Universe};
use crate::{memo::targets::package_of, split};

/// The rules whose sources and headers are known; copies of them in a workspace count.
const RULES: [&str; 3] = ["cc_library", "cc_binary", "cc_test"];
/// The one that has headers.
const LIBRARY: &str = "cc_library";

/// A dependency that no source uses.
#[derive(Clone, Debug)]
pub struct UnusedDep {
    /// What is said about it, at the place where it stands.
    pub finding: Diagnostic,
    /// The package file.
    pub file: String,
    /// Where it stands in the text, if it can be taken out.
    pub(super) place: Option<Place>,
}

impl UnusedDep {
    /// Whether it stands in a list that can do without it.
    pub fn is_mendable(&self) -> bool {
        self.place.is_some()
    }
}

/// Finds them in the packages in some folders of the workspace.
///
/// Fails where a package cannot be evaluated.
pub fn unused_deps(
    host: &dyn Host,
    folders: &[String],
    threads: usize,
) -> Result<Vec<UnusedDep>, Vec<Diagnostic>> {
    on_large_stack(|| find(host, folders, threads))
}

fn find(
    host: &dyn Host,
    folders: &[String],
    threads: usize,
) -> Result<Vec<UnusedDep>, Vec<Diagnostic>> {
    let packages = Packages::new(host, threads, EvaluationLimits::default());
    let mut graph = Graph { universe: Universe::new(packages), libraries: HashMap::new() };
    let keys: BTreeSet<_> =
        folders.iter().map(|folder| ("".into(), folder.as_str().into())).collect();
    let loaded = graph.universe.load(keys.clone());
    loaded.map_err(|error| vec![Diagnostic::of(error, None)])?;
    let (_, errors) = split(std::mem::take(&mut graph.universe.diagnostics));
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut users: Vec<TargetDecl> = Vec::new();
    for (repo, folder) in &keys {
        let package = graph.universe.packages.get(repo, folder);
        let targets = package.into_iter().flat_map(|package| package.targets.values());
        users.extend(targets.filter(|decl| is_known(decl)).map(|decl| TargetDecl::clone(decl)));
    }
    graph.explore(users.iter().flat_map(|decl| labels(decl, "deps")).cloned().collect());
    let mut found = Vec::new();
    for user in &users {
        for dep in graph.unused(user) {
            found.extend(report(host, user, &dep));
        }
    }
    found.sort_by(|a, b| a.finding.location.cmp(&b.finding.location));
    Ok(found)
}

fn is_known(decl: &TargetDecl) -> bool {
    RULES.contains(&decl.rule.name())
}

fn labels<'d>(decl: &'d TargetDecl, name: &str) -> Vec<&'d Label> {
    decl.attr(name).map(AttrValue::labels).unwrap_or_default()
}

/// What is known of a dependency.
#[derive(Default)]
struct Library {
    /// What another name stands for.
    stands_for: Option<Label>,
    /// Paths of its headers, below the root.
    headers: Vec<String>,
    deps: Vec<Label>,
    /// Whether it may be needed although nobody includes a header of it.
    has_effect: bool,
}

/// The libraries that targets depend on, directly or not.
struct Graph<'h> {
    universe: Universe<'h>,
    libraries: HashMap<Label, Library>,
}

impl Graph<'_> {
    /// Looks at labels and all that they lead to.
    fn explore(&mut self, mut pending: Vec<Label>) {
        while !pending.is_empty() {
            let missing = pending.iter().map(package_of).collect();
            // What cannot be loaded is not known, and counts as used.
            let _ = self.universe.load(missing);
            for label in std::mem::take(&mut pending) {
                if self.libraries.contains_key(&label) {
                    continue;
                }
                let library = self.look_at(&label);
                pending.extend(library.deps.iter().chain(&library.stands_for).cloned());
                self.libraries.insert(label, library);
            }
        }
    }

    fn look_at(&self, label: &Label) -> Library {
        let unknown = Library { has_effect: true, ..Library::default() };
        let Ok(Some(Node::Rule(decl))) = self.universe.resolve(label) else { return unknown };
        if decl.rule.native == Some(NativeKind::Alias) {
            return match decl.attr("actual") {
                Some(AttrValue::Label(to)) => {
                    Library { stands_for: Some(Label::clone(to)), ..Library::default() }
                }
                _ => unknown,
            };
        }
        if decl.rule.name() != LIBRARY {
            return unknown;
        }
        let headers = labels(&decl, "hdrs").into_iter().chain(labels(&decl, "textual_hdrs"));
        let headers: Vec<String> = headers.map(path_of).collect();
        let says = |name: &str| match decl.attr(name) {
            Some(AttrValue::Strings(list)) => !list.is_empty(),
            Some(AttrValue::Labels(list)) => !list.is_empty(),
            Some(AttrValue::Bool(truth)) => *truth,
            Some(AttrValue::Configurable(_)) => true,
            _ => false,
        };
        let has_effect = headers.is_empty()
            || ["alwayslink", "data", "defines", "linkopts"].into_iter().any(says);
        let deps = labels(&decl, "deps").into_iter().cloned().collect();
        Library { stands_for: None, headers, deps, has_effect }
    }

    /// What a label stands for, behind other names.
    fn actual<'l>(&'l self, mut label: &'l Label) -> &'l Label {
        let mut seen = HashSet::new();
        while let Some(to) = self.libraries.get(label).and_then(|own| own.stands_for.as_ref()) {
            if !seen.insert(label) {
                break;
            }
            label = to;
        }
        label
    }

    /// A library and all that it leads to.
    fn closure<'l>(&'l self, label: &'l Label) -> HashSet<&'l Label> {
        let mut seen = HashSet::new();
        let mut pending = vec![label];
        while let Some(label) = pending.pop() {
            let label = self.actual(label);
            if seen.insert(label) {
                pending.extend(self.libraries.get(label).into_iter().flat_map(|own| &own.deps));
            }
        }
        seen
    }

    /// The dependencies of a target that it does not use.
    fn unused(&self, user: &TargetDecl) -> Vec<Label> {
        let direct = labels(user, "deps");
        let Some(names) = self.included(user).filter(|_| !direct.is_empty()) else {
            return Vec::new();
        };
        let closures: Vec<HashSet<&Label>> = direct.iter().map(|dep| self.closure(dep)).collect();
        let is_included = |path: &str| names.iter().any(|name| is_named(path, name));
        let mut used = vec![false; direct.len()];
        let all: HashSet<&Label> = closures.iter().flatten().copied().collect();
        for owner in all {
            let library = self.libraries.get(owner);
            if !library.is_some_and(|own| own.headers.iter().any(|path| is_included(path))) {
                continue;
            }
            let own = direct.iter().position(|dep| self.actual(dep) == owner);
            for (at, (flag, closure)) in used.iter_mut().zip(&closures).enumerate() {
                // A header is seen by way of its own library, if that is there.
                *flag |= own.map_or_else(|| closure.contains(owner), |own| own == at);
            }
        }
        let kept: HashSet<&Label> = used
            .iter()
            .zip(&closures)
            .filter(|(used, _)| **used)
            .flat_map(|(_, own)| own)
            .copied()
            .collect();
        let has_effect = |label: &&&Label| {
            !kept.contains(**label) && self.libraries.get(**label).is_none_or(|own| own.has_effect)
        };
        let candidates = direct.iter().zip(&used).zip(&closures).filter(|((_, used), _)| !**used);
        let unused = candidates.filter(|(_, closure)| closure.iter().find(has_effect).is_none());
        unused.map(|((dep, _), _)| (*dep).clone()).collect()
    }

    /// The names that a target's files include; `None` where that cannot be told.
    fn included(&self, user: &TargetDecl) -> Option<BTreeSet<String>> {
        let forced = ["copts", "conlyopts", "cxxopts"].into_iter().any(|name| {
            let flags = user.attr(name).map(AttrValue::strings).unwrap_or_default();
            flags.iter().any(|flag| flag.starts_with("-include"))
        });
        if forced {
            return None;
        }
        let mut names = BTreeSet::new();
        for attribute in ["srcs", "hdrs", "textual_hdrs"] {
            for label in labels(user, attribute) {
                let Ok(Some(Node::Source)) = self.universe.resolve(label) else { return None };
                let path = RelPath::new(&file_path(label)).ok()?;
                let bytes = self.universe.packages.host().read(&path).ok()??;
                for line in String::from_utf8_lossy(&bytes).lines() {
                    match include(line) {
                        Include::Nothing => {}
                        Include::Name(name) => drop(names.insert(name.to_owned())),
                        Include::Unknown => return None,
                    }
                }
            }
        }
        Some(names)
    }
}

/// What a line of C includes.
#[derive(Debug, PartialEq, Eq)]
enum Include<'l> {
    Nothing,
    Name(&'l str),
    /// A macro decides.
    Unknown,
}

fn include(line: &str) -> Include<'_> {
    let Some(rest) = line.trim_start().strip_prefix('#').map(str::trim_start) else {
        return Include::Nothing;
    };
    let words = ["include_next", "include", "import"];
    let Some(rest) = words.iter().find_map(|word| rest.strip_prefix(word)) else {
        return Include::Nothing;
    };
    let quoted = |open: char, close: char| {
        let (_, after) = rest.split_once(open)?;
        after.split_once(close).map(|(name, _)| name)
    };
    let first = rest.find(['"', '<']);
    match first.and_then(|at| rest.as_bytes().get(at)) {
        Some(b'"') => quoted('"', '"').map_or(Include::Unknown, Include::Name),
        Some(_) => quoted('<', '>').map_or(Include::Unknown, Include::Name),
        None => Include::Unknown,
    }
}

/// Whether a name may stand for the header at a path: by its last parts, since folders of
/// `includes` and of the file itself are searched.
fn is_named(path: &str, name: &str) -> bool {
    let name = match name.rsplit_once("../") {
        Some((_, rest)) => rest,
        None => name.trim_start_matches("./"),
    };
    path == name || path.strip_suffix(name).is_some_and(|before| before.ends_with('/'))
}

/// What is said about an unused dependency, unless its line says that it stays.
fn report(host: &dyn Host, user: &TargetDecl, dep: &Label) -> Option<UnusedDep> {
    let file = package_file(&user.label.repo, &user.label.package)?;
    let text = read(host, &file).ok()??;
    let name = display(&file);
    let module = parse(&name, &text).ok()?;
    let place = match user.calls.is_none() {
        true => place_of(&module, user.span.span, &user.label, dep),
        false => None,
    };
    let span =
        place.as_ref().map_or_else(|| user.span.clone(), |own| module.file_span(own.element));
    let mut found = Found { module: &module, findings: Vec::new() };
    let message = format!("no file of `{}` includes a header of `{dep}`", user.label);
    found.push("unused-dep", maestro_core::event::Severity::Warning, message, &span);
    let mut finding = found.findings.pop()?;
    finding.trace = user.macro_trace();
    let stays = place.is_some() && {
        let line = span.resolve_span().begin.line;
        let comment = text.lines().nth(line).and_then(|line| line.split_once('#'));
        comment.is_some_and(|(_, comment)| comment.trim_start().starts_with("keep"))
    };
    let is_silenced = stays || Silenced::read(&text).covers(&finding);
    (!is_silenced).then_some(UnusedDep { finding, file: name, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_read_as_the_preprocessor_reads_them() {
        let check = |line: &str, expect: Include<'_>| assert_eq!(include(line), expect, "{line}");
        check("#include \"a/b.h\"", Include::Name("a/b.h"));
        check("  #  include <b.h> // why", Include::Name("b.h"));
        check("#include_next <b.h>", Include::Name("b.h"));
        check("#import \"b.h\"", Include::Name("b.h"));
        check("#include CONFIG", Include::Unknown);
        check("#include \"half", Include::Unknown);
        check("int include;", Include::Nothing);
        check("#define X \"a.h\"", Include::Nothing);
        check("", Include::Nothing);
    }

    #[test]
    fn a_name_stands_for_paths_that_end_in_it() {
        let check = |path: &str, name: &str, expect: bool| {
            assert_eq!(is_named(path, name), expect, "{path} {name}");
        };
        check("lib/a.h", "lib/a.h", true);
        check("lib/a.h", "a.h", true);
        check("lib/a.h", "./a.h", true);
        check("lib/a.h", "../lib/a.h", true);
        check("lib/ba.h", "a.h", false);
        check("lib/a.h", "other/a.h", false);
    }
}
