//! One `.star` file: where it is, its text, and its evaluation.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use maestro_core::host::{FileType, Host};
use maestro_core::limits::BUILD_FILE_BYTES_MAX;
use maestro_core::{Label, RelPath};
use starlark::codemap::FileSpan;
use starlark::environment::{FrozenModule, Module};
use starlark::eval::{Evaluator, FileLoader};
use starlark::syntax::{AstModule, Dialect};
use starlark::values::FrozenHeapName;

use crate::bounded::{Evaluating, bound_products};
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError, did_you_mean};
use crate::generator::KnownCalls;
use crate::glob::{host_error, list, stat};
use crate::globals::{globals, load_label};
use crate::library;
use crate::limits::{EvaluationLimits, check_module};
use crate::memo::files::FileTrace;
use crate::memo::imprint::Imprint;
use crate::memo::trace::{Observation, Tracer};
use crate::nesting;
use crate::package::Package;
use crate::repos::{self, file_path, host_path, is_library};
use crate::scope::{FileScope, PACKAGE_FILE, Prints};
use crate::visibility::Visibility;

/// How a file is called in messages: its path, or its label for the built-in library.
pub(crate) fn display(file: &Label) -> String {
    match (file.repo.is_empty(), file.package.is_empty()) {
        (false, _) => file.to_string(),
        (true, true) => file.name.to_string(),
        (true, false) => format!("{}/{}", file.package, file.name),
    }
}

/// A parsed file, ready to be evaluated.
pub(crate) struct Parsed {
    pub(crate) file: Label,
    ast: AstModule,
    pub(crate) loads: Vec<Load>,
    /// The text.
    imprint: Imprint,
    /// What was seen of the workspace so far.
    seen: Vec<Observation>,
}

/// One `load` of a file.
pub(crate) struct Load {
    /// The text as it stands in the file.
    text: String,
    pub(crate) target: Label,
    pub(crate) span: FileSpan,
}

/// An evaluated file.
pub(crate) struct Evaluated {
    pub(crate) module: FrozenModule,
    /// What the file declares, if it is a package file.
    pub(crate) package: Option<Arc<Package>>,
    /// Who may load it.
    pub(crate) visibility: Visibility,
    pub(crate) remarks: Vec<Diagnostic>,
    /// What it depended on.
    pub(crate) trace: FileTrace,
}

/// The text of a file; `None` if there is none.
pub(crate) fn read(host: &dyn Host, file: &Label) -> Result<Option<String>, RuleError> {
    let path = path_of(file);
    if is_library(&file.repo) {
        return Ok(library::read(&path).map(str::to_owned));
    }
    let path =
        RelPath::new(&file_path(file)).map_err(|e| RuleError::new(Code::File, e.to_string()))?;
    if host.stat(&path).map_err(|e| host_error(&e))? == Some(FileType::Directory) {
        return Err(RuleError::new(Code::File, format!("`{path}` is a folder")));
    }
    let Some(bytes) = host.read(&path).map_err(|e| host_error(&e))? else { return Ok(None) };
    if bytes.len() as u64 > BUILD_FILE_BYTES_MAX {
        let size = bytes.len();
        let message = format!("`{path}` has {size} bytes, the limit is {BUILD_FILE_BYTES_MAX}");
        return Err(RuleError::new(Code::Limit, message)
            .hint("split it, or make its targets with a list comprehension"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
            let message = format!("`{path}` is not UTF-8: line {line} has an invalid byte");
            Err(RuleError::new(Code::File, message))
        }
    }
}

/// The path of a file below the root of its repository.
pub(crate) fn path_of(file: &Label) -> String {
    match file.package.is_empty() {
        true => file.name.to_string(),
        false => format!("{}/{}", file.package, file.name),
    }
}

/// The error for a file that does not exist.
pub(crate) fn missing(host: &dyn Host, file: &Label) -> RuleError {
    let path = path_of(file);
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let names: Vec<String> = match is_library(&file.repo) {
        true => library::list(folder).map(str::to_owned).collect(),
        false => list(host, &host_path(&file.repo, folder))
            .unwrap_or_default()
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| name.ends_with(".star"))
            .collect(),
    };
    RuleError::new(Code::File, format!("there is no file `{}`", display(file)))
        .hint_opt(did_you_mean(name, names.iter().map(String::as_str)))
}

/// Why a file could not be read.
pub(crate) enum Unread {
    /// The error belongs to those who load the file.
    AtLoad(RuleError),
    /// The error is in the file.
    Broken(Box<Diagnostic>),
}

/// Reads and parses a file that repository `from` names; `None` if there is none.
pub(crate) fn open(host: &dyn Host, file: &Label, from: &str) -> Result<Option<Parsed>, Unread> {
    let tracer = Tracer::new(host);
    repos::open(&tracer, &file.repo, from).map_err(Unread::AtLoad)?;
    let broken = |error| Unread::Broken(Box::new(error));
    let text = read(&tracer, file).map_err(|error| {
        let start = Location::start_of(&display(file));
        broken(Diagnostic::of(error, Some(start)))
    })?;
    let Some(text) = text else { return Ok(None) };
    let mut parsed = parse(file, text).map_err(broken)?;
    check_borders(&tracer, &parsed).map_err(broken)?;
    parsed.seen = tracer.finish();
    Ok(Some(parsed))
}

/// The language that files are written in.
pub(crate) fn dialect() -> Dialect {
    Dialect { enable_load_reexport: false, ..Dialect::Extended }
}

/// Parses a file.
fn parse(file: &Label, text: String) -> Result<Parsed, Diagnostic> {
    let name = display(file);
    let at_start = |error| Diagnostic::of(error, Some(Location::start_of(&name)));
    nesting::check(&text).map_err(at_start)?;
    let imprint = Imprint::of(text.as_bytes());
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let mut ast = AstModule::parse(&name, text, &dialect())
        .map_err(|e| Diagnostic::from_starlark(&e, None))?;
    bound_products(&mut ast);
    let mut loads = Vec::new();
    for load in ast.loads() {
        let text = load.module_id.to_owned();
        let target = load_label(&text, file).map_err(|error| Diagnostic::at(error, &load.span))?;
        loads.push(Load { text, target, span: load.span });
    }
    Ok(Parsed { file: file.clone(), ast, loads, imprint, seen: Vec::new() })
}

/// Checks that the files that `parsed` loads belong to the packages that their labels say.
fn check_borders(host: &dyn Host, parsed: &Parsed) -> Result<(), Diagnostic> {
    for load in &parsed.loads {
        let Label { repo, .. } = &load.target;
        if is_library(repo) || repos::open(host, repo, &parsed.file.repo).is_err() {
            continue; // one that cannot be had is reported where its file is read
        }
        let border =
            border_inside(host, &load.target).map_err(|error| Diagnostic::at(error, &load.span))?;
        if let Some(inner) = border {
            return Err(Diagnostic::at(crosses(&load.target, &inner), &load.span));
        }
    }
    Ok(())
}

/// The innermost package between a label's package and its file, if there is one.
pub(crate) fn border_inside(host: &dyn Host, label: &Label) -> Result<Option<String>, RuleError> {
    let mut folder = path_of(label);
    while let Some((parent, _)) = folder.rsplit_once('/') {
        if parent.len() <= label.package.len() {
            break;
        }
        let file = host_path(&label.repo, &format!("{parent}/{PACKAGE_FILE}"));
        if stat(host, &file)? == Some(FileType::File) {
            return Ok(Some(parent.to_owned()));
        }
        folder = parent.to_owned();
    }
    Ok(None)
}

/// The error for a label that reaches into another package.
pub(crate) fn crosses(label: &Label, inner: &str) -> RuleError {
    let path = path_of(label);
    let name = path.strip_prefix(inner).unwrap_or(&path).trim_start_matches('/');
    let at = if label.is_main() { String::new() } else { format!("@{}", label.repo) };
    let message = format!("`{label}` reaches into package `{at}//{inner}`");
    RuleError::new(Code::Label, message).hint(format!("did you mean `{at}//{inner}:{name}`?"))
}

struct Modules<'a>(HashMap<&'a str, &'a FrozenModule>);

impl FileLoader for Modules<'_> {
    fn load(&self, path: &str) -> starlark::Result<FrozenModule> {
        match self.0.get(path) {
            Some(module) => Ok((*module).clone()),
            None => RuleError::new(Code::Internal, format!("`{path}` is not loaded yet")).raise(),
        }
    }
}

/// Evaluates a file whose loads are evaluated.
pub(crate) fn evaluate<'m>(
    host: &dyn Host,
    limits: EvaluationLimits,
    parsed: Parsed,
    loaded: impl Fn(&Label) -> Option<&'m Evaluated>,
) -> Result<Evaluated, Box<Diagnostic>> {
    let Parsed { file, ast, loads, imprint, mut seen } = parsed;
    let tracer = Tracer::new(host);
    let host: &dyn Host = &tracer;
    let name = display(&file);
    let modules: HashMap<&str, &FrozenModule> = loads
        .iter()
        .filter_map(|load| Some((load.text.as_str(), &loaded(&load.target)?.module)))
        .collect();
    let modules = Modules(modules);
    let is_package = &*file.name == PACKAGE_FILE;
    let package = is_package.then(|| RefCell::new(Package::new(&file.package)));
    let default = Visibility::subtree(&file.repo, &file.package);
    let (visibility, globbed) = (RefCell::new(None), Cell::new(0));
    let (macros, calls) = (RefCell::default(), KnownCalls::default());
    let scope = FileScope { file, package, visibility, host, macros, calls, globbed };
    let prints = Prints::new(&name);
    let _evaluating = Evaluating::start(&name);
    let module = Module::with_temp_heap(|module| {
        {
            let mut eval = Evaluator::new(&module);
            eval.extra = Some(&scope);
            eval.set_loader(&modules);
            eval.set_print_handler(&prints);
            limits.apply(&mut eval)?;
            eval.eval_module(ast, globals())?;
            check_module(&module, &mut eval)?;
        }
        Ok(module.freeze_named(FrozenHeapName::User(Box::new(name.clone())))?)
    });
    let module =
        module.map_err(|error: starlark::Error| Diagnostic::from_starlark(&error, None))?;
    let package = scope.package.map(|package| Arc::new(package.into_inner()));
    let visibility = scope.visibility.into_inner().unwrap_or(default);
    seen.extend(tracer.finish());
    let imprints = loads
        .iter()
        .filter_map(|load| Some((&load.target, loaded(&load.target)?.trace.transitive)));
    let trace = FileTrace::new(imprint, imprints, seen);
    Ok(Evaluated { module, package, visibility, remarks: prints.take(), trace })
}
