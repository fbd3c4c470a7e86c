//! What the words of a query name: targets, files, whole packages.

use std::collections::BTreeSet;

use maestro_core::{Label, TargetPattern};

use super::graph::What;
use crate::error::{Code, RuleError};
use crate::load::packages::package_file;
use crate::package::Package;
use crate::resolve::{Node, Universe};

/// Loads and lists what a pattern names, in the order of packages and names.
///
/// With `manual`, wildcards name targets with that tag as well: `query` shows what is there, and
/// leaves it to `build` to choose.
pub(super) fn expand(
    universe: &mut Universe<'_>,
    package: &str,
    text: &str,
    manual: bool,
) -> Result<Vec<(Label, What)>, RuleError> {
    let (pattern, files) = parse(text, package)?;
    if let TargetPattern::Single(label) = pattern {
        let label = innermost(universe, package, text, label)?;
        universe.load([(label.repo.clone(), label.package.clone())].into())?;
        // Where it names nothing, the package has an error of its own, which is reported already.
        return Ok(resolve(universe, &label)?.map(|what| (label, what)).into_iter().collect());
    }
    let mut found = Vec::new();
    for (repo, folder) in universe.folders(&pattern)? {
        let Some(package) = universe.packages.get(&repo, &folder) else { continue };
        if files {
            found.extend(members(&repo, package));
            continue;
        }
        let targets = package.targets.values();
        let chosen = targets
            .filter(|decl| manual || !decl.strings("tags").iter().any(|tag| tag == "manual"));
        found.extend(chosen.map(|decl| (decl.label.clone(), What::Rule(decl.clone()))));
    }
    Ok(found)
}

/// What a label of a loaded package names; `None` where the package has an error.
pub(super) fn resolve(universe: &Universe<'_>, label: &Label) -> Result<Option<What>, RuleError> {
    match universe.package_of(label)? {
        Some(package) => resolve_in(universe, package, label).map(Some),
        None => Ok(None),
    }
}

/// What a label of this package names.
pub(super) fn resolve_in(
    universe: &Universe<'_>,
    package: &Package,
    label: &Label,
) -> Result<What, RuleError> {
    Ok(match universe.resolve_in(package, label)? {
        Node::Rule(decl) => What::Rule(decl),
        Node::Output(decl) => What::Output(decl),
        Node::Source => What::Source(package.exports.get(&label.name).cloned()),
    })
}

/// Everything in a package: targets, their outputs, the file that declares it, and the sources
/// that its targets name or that it exports.
pub(super) fn members(repo: &str, package: &Package) -> Vec<(Label, What)> {
    let mut out = Vec::new();
    let mut sources: BTreeSet<&Label> = BTreeSet::new();
    for decl in package.targets.values() {
        out.push((decl.label.clone(), What::Rule(decl.clone())));
        let own = |label: &Label| *label.repo == *repo && label.package == package.name;
        sources.extend(decl.dependencies().map(|(_, label)| label).filter(|label| own(label)));
    }
    for (output, owner) in &package.outputs {
        let owner = package.targets.get(owner);
        let label = Label::new(repo, &package.name, output).ok();
        out.extend(label.zip(owner).map(|(label, owner)| (label, What::Output(owner.clone()))));
    }
    let exported = package.exports.keys().map(|name| Label::new(repo, &package.name, name));
    let exported: Vec<Label> = exported.filter_map(Result::ok).collect();
    sources.extend(&exported);
    let file = package_file(repo, &package.name);
    sources.extend(&file);
    for label in sources {
        let name = &label.name;
        if !package.targets.contains_key(name) && !package.outputs.contains_key(name) {
            out.push((label.clone(), What::Source(package.exports.get(name).cloned())));
        }
    }
    out
}

/// A pattern as queries spell it, and whether it names files as well as targets.
fn parse(text: &str, package: &str) -> Result<(TargetPattern, bool), RuleError> {
    let (spelled, files) = match text.rsplit_once(':') {
        Some((head, suffix @ ("*" | "all-targets" | "all"))) => {
            let spelled = match head.ends_with("...") {
                true => head.to_owned(),
                false => format!("{head}:all"),
            };
            (spelled, suffix != "all")
        }
        _ => (text.to_owned(), false),
    };
    match TargetPattern::parse(&spelled, package) {
        Ok(pattern) => Ok((pattern, files)),
        Err(error) => Err(RuleError::new(Code::Query, error.to_string())),
    }
}

/// The label of a file that is named by its path: `lib/sub/x.c` is `//lib:sub/x.c` where `lib` is
/// the innermost package around it.
fn innermost(
    universe: &Universe<'_>,
    package: &str,
    text: &str,
    label: Label,
) -> Result<Label, RuleError> {
    if text.contains(':') || text.starts_with("//") || text.starts_with('@') {
        return Ok(label);
    }
    let path = match package {
        "" => text.to_owned(),
        package => format!("{package}/{text}"),
    };
    if universe.packages.exists("", &path)? {
        return Ok(label);
    }
    for (slash, _) in path.rmatch_indices('/') {
        let folder = path.get(..slash).unwrap_or_default();
        let name = path.get(slash + 1..).unwrap_or_default();
        if universe.packages.exists("", folder)? {
            return Label::new("", folder, name)
                .map_err(|error| RuleError::new(Code::Query, error.to_string()));
        }
    }
    Ok(label)
}
