//! `maestro lint`: what parses and may even work, and should still be written otherwise.
//!
//! Flow, names and duplicates come from the interpreter's own analysis; what concerns build files
//! (loads, documentation, targets, globs, deprecations) is found here, in [`checks`]. Every kind of
//! finding has a code, a name and advice in [`LINTS`]. Nothing is evaluated: a file and the files
//! that it loads are read as text, so a finding never depends on a machine. [`deps`] alone looks
//! at targets, and so evaluates packages.
//!
//! `# maestro-lint: disable=NAME,…` on a line, or on a line of its own above it, silences findings
//! of that line; `disable-file=` anywhere silences those of the file. Names and codes both do.

mod checks;
mod deps;
pub(crate) mod loaded;
mod removal;
mod suppress;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::OnceLock;

use maestro_core::event::Severity;
use maestro_core::host::Host;
use maestro_core::{Label, RelPath};
use starlark::analysis::AstModuleLint;
use starlark::codemap::FileSpan;
use starlark::syntax::AstModule;

use crate::diagnostic::{Diagnostic, sentence};
use crate::error::{Code, RuleError};
use crate::format::{FileKind, format, parse, without_loads};
use crate::globals::globals;
use crate::on_large_stack;
use crate::scope::PACKAGE_FILE;

pub use deps::{UnusedDep, unused_deps};
pub use removal::without_deps;

/// A kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Lint {
    /// The stable code.
    pub code: &'static str,
    /// The name, for comments that silence it.
    pub name: &'static str,
    /// What is wrong, one sentence.
    pub about: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

macro_rules! lints {
    ($($name:literal = $code:literal, $about:literal, $advice:literal;)*) => {
        /// Every kind of finding, by code.
        pub const LINTS: &[Lint] =
            &[$(Lint { code: $code, name: $name, about: $about, advice: $advice },)*];
    };
}

lints! {
    "unused-load" = "MAE0501", "A loaded name is not used.",
        "`maestro lint --fix` removes it";
    "unused-variable" = "MAE0502", "A variable is not used.",
        "remove it, or begin its name with `_`";
    "unused-argument" = "MAE0503", "A parameter of a function is not used.",
        "remove it, or begin its name with `_`";
    "load-not-on-top" = "MAE0504", "A `load` follows other statements.",
        "move it to the top of the file, below the docstring";
    "duplicate-load" = "MAE0505", "Two `load` statements name the same file.",
        "name everything in one `load`";
    "unsorted-loads" = "MAE0506", "The `load` statements are not in order.",
        "`maestro fmt` sorts them";
    "unreachable" = "MAE0507", "A statement can never run.",
        "remove it";
    "no-effect" = "MAE0508", "A statement does nothing.",
        "remove it, or use its value";
    "missing-return" = "MAE0509", "A function returns a value on some ways out, and none on others.",
        "end every way with `return`, or with `fail`";
    "redundant-exit" = "MAE0510", "A `return` or `continue` stands where the code would end anyway.",
        "remove it";
    "duplicate-key" = "MAE0511", "A dict names the same key twice.",
        "remove one; the last one counts";
    "duplicate-definition" = "MAE0512", "A name of the file is defined twice.",
        "give one of them another name";
    "undefined-name" = "MAE0513", "A name is used that nothing defines.",
        "load or define it";
    "possibly-unset" = "MAE0514", "A variable may be used before it is set.",
        "set it before the branch or loop";
    "used-ignored" = "MAE0515", "A variable whose name begins with `_` is used.",
        "give it a name without `_`";
    "inefficient" = "MAE0516", "A value is copied or built for nothing.",
        "write it as the message says";
    "missing-docs" = "MAE0517", "A public function, rule, provider or attribute has no documentation.",
        "say what it is for: a docstring, or `doc`";
    "positional-argument" = "MAE0518", "A target is declared with an argument that has no name.",
        "write `name = …`";
    "wide-glob" = "MAE0519", "A glob takes every file of the package.",
        "name the kind of files, such as `**/*.c`";
    "shadowed-builtin" = "MAE0520", "A name hides one of the language.",
        "give it another name";
    "growth-in-loop" = "MAE0521", "A list, string or depset is built anew on every round of a loop.",
        "use `+=` or a list, and build the rest once after the loop";
    "deprecated" = "MAE0522", "A rule, function or attribute is used whose documentation deprecates it.",
        "use what its documentation names";
    "unused-dep" = "MAE0523", "No source of a target uses one of its dependencies.",
        "`maestro lint --deps --fix` takes it out; `# keep` behind it lets it stay";
}

/// The kind with a code.
pub fn lint_of(code: &str) -> Option<&'static Lint> {
    LINTS.iter().find(|lint| lint.code == code)
}

/// Finds what should be written otherwise in the text of the file at `path` of a workspace.
///
/// The host is asked for the files that the text loads. Fails if the text does not parse.
pub fn lint(host: &dyn Host, path: &str, text: &str) -> Result<Vec<Diagnostic>, Diagnostic> {
    on_large_stack(|| lint_here(host, path, text))
}

fn lint_here(host: &dyn Host, path: &str, text: &str) -> Result<Vec<Diagnostic>, Diagnostic> {
    let kind = FileKind::of(path);
    let module = parse(path, text)?;
    let file = label_of(host, path);
    let mut found = Found { module: &module, findings: Vec::new() };
    for one in module.lint(Some(names())) {
        if let Some(name) = known(&one.short_name, kind, &one.original) {
            let severity = match name {
                "undefined-name" => Severity::Error,
                _ => Severity::Warning,
            };
            found.push(name, severity, sentence(&one.problem), &one.location);
        }
    }
    let loaded = loaded::Documents::read(host, &file, &module);
    checks::check(&mut found, kind, &loaded);
    let silenced = suppress::Silenced::read(text);
    let mut findings = found.findings;
    findings.retain(|finding| !silenced.covers(finding));
    findings.sort_by(|left, right| (&left.location, left.code).cmp(&(&right.location, right.code)));
    findings
        .dedup_by(|left, right| left.location == right.location && left.message == right.message);
    Ok(findings)
}

/// The text with everything mended that can be mended without thought: loads that nothing uses
/// are gone, and the rest is laid out anew.
pub fn fix(host: &dyn Host, path: &str, text: &str) -> Result<String, Diagnostic> {
    let findings = lint(host, path, text)?;
    let unused = findings.iter().filter(|finding| finding.code == "MAE0501");
    // The message ends with the name.
    let names: HashSet<&str> = unused.filter_map(|f| f.message.rsplit('`').nth(1)).collect();
    let kind = FileKind::of(path);
    match names.is_empty() {
        true => format(path, text, kind),
        false => format(path, &without_loads(text, kind, &names), kind),
    }
}

/// What was found so far in one file.
struct Found<'a> {
    module: &'a AstModule,
    findings: Vec<Diagnostic>,
}

impl Found<'_> {
    fn push(&mut self, name: &str, severity: Severity, message: String, span: &FileSpan) {
        let Some(lint) = LINTS.iter().find(|lint| lint.name == name) else { return };
        let error = RuleError::new(Code::Evaluation, message).hint(lint.advice);
        let mut finding = Diagnostic::at(error, span);
        finding.code = lint.code;
        finding.severity = severity;
        self.findings.push(finding);
    }
}

/// Our name for a finding of the interpreter's analysis; `None` for those that do not fit here.
fn known(short_name: &str, kind: FileKind, original: &str) -> Option<&'static str> {
    Some(match short_name {
        "unused-load" => "unused-load",
        "unused-assign" => "unused-variable",
        // An implementation takes what the rule gives it.
        "unused-argument" if matches!(original, "ctx" | "target") => return None,
        "unused-argument" => "unused-argument",
        "misplaced-load" => "load-not-on-top",
        "unreachable" => "unreachable",
        // A call declares a target, a text is documentation.
        "no-effect" | "ident-as-statement" => "no-effect",
        "missing-return" | "missing-return-expression" => "missing-return",
        "redundant-return" | "redundant-continue" => "redundant-exit",
        "duplicate-key" => "duplicate-key",
        "duplicate-top-level-assign" if kind == FileKind::Library => "duplicate-definition",
        "using-undefined" => "undefined-name",
        "using-unassigned" | "using-maybe-undefined" => "possibly-unset",
        "using-ignored" => "used-ignored",
        "dict-without-star-star"
        | "eager-and-inefficient-bool-check"
        | "inefficient-bool-check" => "inefficient",
        _ => return None,
    })
}

/// The names that the language defines.
fn names() -> &'static HashSet<String> {
    static NAMES: OnceLock<HashSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| globals().names().map(|name| name.as_str().to_owned()).collect())
}

/// The label of a file: its package is the nearest folder with a package file.
fn label_of(host: &dyn Host, path: &str) -> Label {
    let (mut package, _) = path.rsplit_once('/').unwrap_or(("", path));
    let is_package = |package: &str| {
        let file = match package {
            "" => PACKAGE_FILE.to_owned(),
            package => format!("{package}/{PACKAGE_FILE}"),
        };
        let path = RelPath::new(&file).ok()?;
        host.stat(&path).ok().flatten()
    };
    while !package.is_empty() && is_package(package).is_none() {
        package = package.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    let name = path.strip_prefix(package).unwrap_or(path).trim_start_matches('/');
    Label { repo: "".into(), package: package.into(), name: name.into() }
}
