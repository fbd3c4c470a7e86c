//! `--output-groups`: which named sets of files a build makes of each target.
//!
//! As in Bazel, a plain name replaces what is made where nothing is said, `+NAME` adds to it and
//! `-NAME` takes away. The group `default` is the target's files; `_validation` is made always,
//! so that a rule can hang checks on a target that nothing else waits for.

use maestro_core::graph::{Target, TargetId};
use maestro_core::{ActionGraph, ArtifactId};

use crate::exit::Failure;

/// The group of a target's files.
const DEFAULT: &str = "default";
/// The group of checks.
const VALIDATION: &str = "_validation";

/// A selection of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputGroups {
    names: Vec<String>,
}

impl OutputGroups {
    /// The selection that a flag asks for.
    pub fn parse(flags: &[String]) -> Self {
        let replaces = flags.iter().any(|flag| !flag.starts_with(['+', '-']));
        let mut names: Vec<String> = match replaces {
            true => vec![VALIDATION.to_owned()],
            false => vec![DEFAULT.to_owned(), VALIDATION.to_owned()],
        };
        for flag in flags {
            match flag.strip_prefix('-') {
                Some(name) => names.retain(|own| own != name),
                None => {
                    let name = flag.strip_prefix('+').unwrap_or(flag);
                    if !names.iter().any(|own| own == name) {
                        names.push(name.to_owned());
                    }
                }
            }
        }
        Self { names }
    }

    /// What is made of a target, each file once.
    pub fn artifacts(&self, target: &Target) -> Vec<ArtifactId> {
        let mut out: Vec<ArtifactId> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for name in &self.names {
            let files = match name.as_str() {
                DEFAULT => target.files.as_slice(),
                name => group(target, name).unwrap_or_default(),
            };
            out.extend(files.iter().filter(|id| seen.insert(**id)));
        }
        out
    }

    /// Refuses a group that none of the targets has: that is a slip of the pen.
    pub fn check(&self, graph: &ActionGraph, targets: &[TargetId]) -> Result<(), Failure> {
        for name in self.names.iter().filter(|name| ![DEFAULT, VALIDATION].contains(&name.as_str()))
        {
            if targets.iter().any(|id| group(graph.target(*id), name).is_some()) {
                continue;
            }
            let mut known: Vec<&str> = targets
                .iter()
                .flat_map(|id| &graph.target(*id).groups)
                .map(|(name, _)| name.as_str())
                .collect();
            known.sort_unstable();
            known.dedup();
            let hint = match known.as_slice() {
                [] => "they have no group but `default`".to_owned(),
                known => format!("they have `default`, `{}`", known.join("`, `")),
            };
            let message = format!("no requested target has an output group `{name}`");
            return Err(Failure::input(message).hint(hint));
        }
        Ok(())
    }
}

fn group<'t>(target: &'t Target, name: &str) -> Option<&'t [ArtifactId]> {
    target.groups.iter().find(|(own, _)| own == name).map(|(_, files)| files.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_replace_and_signs_amend() {
        let check = |flags: &[&str], expect: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
            assert_eq!(OutputGroups::parse(&flags).names, expect, "{flags:?}");
        };
        check(&[], &["default", "_validation"]);
        check(&["docs"], &["_validation", "docs"]);
        check(&["+docs"], &["default", "_validation", "docs"]);
        check(&["docs", "default"], &["_validation", "docs", "default"]);
        check(&["-_validation", "+docs", "+docs"], &["default", "docs"]);
        check(&["-default", "+docs"], &["_validation", "docs"]);
    }
}
