//! What native functions may touch while a file is loaded, and while a target is analyzed.
//!
//! The interpreter carries exactly one of the two in `Evaluator::extra`; a function that needs the
//! other says so in its error.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use maestro_core::host::Host;
use maestro_core::label::package_dir;
use maestro_core::{ActionGraph, ActionId, ArtifactId, Label, Origin, TargetId};
use starlark::any::{AnyLifetime, ProvidesStaticType};
use starlark::codemap::FileSpan;
use starlark::eval::Evaluator;

use crate::config::toolchains::Resolution;
use crate::ctx::out_dir;
use crate::diagnostic::{Diagnostic, Location};
use crate::error::{Code, RuleError};
use crate::generator::KnownCalls;
use crate::memo::codec::Damaged;
use crate::memo::targets::{PackageKey, TargetMemory};
use crate::package::{Package, TargetDecl};
use crate::resolve::location_of;
use crate::symbolic_macro::MacroCall;
use crate::values::exec_group::unknown_group;
use crate::values::file::{FileOrigin, FileValue};
use crate::visibility::Visibility;

/// The name of the file that makes a folder a package.
pub(crate) const PACKAGE_FILE: &str = "maestro.star";

/// One file under evaluation.
#[derive(ProvidesStaticType)]
pub(crate) struct FileScope<'e> {
    /// The file.
    pub(crate) file: Label,
    /// The package that the file declares; `None` for files that are only loaded.
    pub(crate) package: Option<RefCell<Package>>,
    /// Who may load the file; its own package and those below where it does not say.
    pub(crate) visibility: RefCell<Option<Visibility>>,
    /// The workspace.
    pub(crate) host: &'e dyn Host,
    /// The calls of macros under evaluation, outermost first.
    pub(crate) macros: RefCell<Vec<MacroCall>>,
    /// The calls of macros that declared targets so far.
    pub(crate) calls: KnownCalls,
    /// How many entries of folders its globs looked at.
    pub(crate) globbed: Cell<usize>,
}

impl<'e> FileScope<'e> {
    /// The scope of the file under evaluation.
    pub(crate) fn of<'a>(eval: &Evaluator<'_, 'a, 'e>) -> Result<&'a Self, RuleError> {
        downcast::<Self>(eval).ok_or_else(|| {
            let message = "this function works only while a file is loaded";
            RuleError::new(Code::Evaluation, message)
                .hint("call it at the top of a file or in a macro, not in a rule's implementation")
        })
    }

    /// The package under evaluation; an error in files that are only loaded.
    pub(crate) fn package(&self, function: &str) -> Result<&RefCell<Package>, RuleError> {
        self.package.as_ref().ok_or_else(|| {
            let message =
                format!("`{function}` works only while a `{PACKAGE_FILE}` file is evaluated");
            RuleError::new(Code::Evaluation, message)
                .hint(format!("call it from a macro that a `{PACKAGE_FILE}` file calls"))
        })
    }

    /// The same for what speaks of the whole package, which is not for a `macro`.
    pub(crate) fn package_file(&self, function: &str) -> Result<&RefCell<Package>, RuleError> {
        match self.macros.borrow().last() {
            Some(call) => Err(call.refuse(function)),
            None => self.package(function),
        }
    }

    /// The visibility of targets that do not say: that of the package, and none in a `macro`.
    pub(crate) fn default_visibility(&self, function: &str) -> Result<Visibility, RuleError> {
        match self.macros.borrow().is_empty() {
            true => Ok(self.package(function)?.borrow().default_visibility.clone()),
            false => Ok(Visibility::Private),
        }
    }
}

/// How a program that a rule made is run by other actions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runnable {
    /// Its runfiles tree.
    pub(crate) runfiles: Option<ArtifactId>,
    /// Toolchains that it needs.
    pub(crate) toolchains: Vec<ArtifactId>,
    /// Variables that it needs.
    pub(crate) env: Vec<(String, String)>,
}

/// The target under analysis.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub(crate) label: Label,
    pub(crate) target: TargetId,
    /// The folder of outputs of its configuration, such as `maestro-out/shared`.
    pub(crate) out_root: String,
    /// Where its actions run; `None` where all run on this machine, for no execution group.
    pub(crate) execution: Option<Arc<GroupPlatforms>>,
}

/// Where the actions of each execution group run, the default one first.
#[derive(Debug)]
pub(crate) struct GroupPlatforms(pub(crate) Vec<(Option<Arc<str>>, Arc<Resolution>)>);

impl Current {
    /// Where the actions of an execution group run; `None` is this machine.
    pub(crate) fn platform(&self, group: Option<&str>) -> Result<Option<&Resolution>, RuleError> {
        let groups = self.execution.as_ref().map(|groups| &*groups.0).unwrap_or_default();
        let mut same = groups.iter().filter(|(name, _)| name.as_deref() == group);
        match (same.next(), group) {
            (Some((_, found)), _) => Ok(Some(&**found)),
            (None, None) => Ok(None),
            (None, Some(name)) => {
                let known = groups.iter().filter_map(|(name, _)| name.as_deref());
                Err(unknown_group(name, &known.collect::<Vec<_>>()))
            }
        }
    }

    /// Whether the rule declares an execution group.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.platform(Some(group)).is_ok()
    }

    /// The folder of the target's outputs.
    pub(crate) fn out_dir(&self) -> String {
        out_dir(&self.out_root, &self.label)
    }
}

/// The graph under construction and the target that adds to it.
#[derive(Default, ProvidesStaticType)]
pub(crate) struct RuleScope {
    /// The graph.
    pub(crate) graph: RefCell<ActionGraph>,
    /// Programs that rules made, by their file.
    pub(crate) runnables: RefCell<HashMap<ArtifactId, Runnable>>,
    /// The target whose implementation runs.
    pub(crate) current: RefCell<Option<Current>>,
    /// The platforms of actions that do not run on this machine, of those that were declared now.
    pub(crate) platforms: RefCell<HashMap<ActionId, Label>>,
    /// The folders of packages, to tell to which of them a source belongs that an earlier build
    /// has named.
    pub(crate) folders: HashMap<String, (Arc<str>, Arc<str>)>,
}

impl RuleScope {
    /// A scope over a graph.
    pub(crate) fn new(graph: ActionGraph) -> Self {
        Self { graph: RefCell::new(graph), ..Self::default() }
    }

    /// A scope over the graph of an earlier build.
    pub(crate) fn recall(graph: ActionGraph, past: &TargetMemory<'_>) -> Result<Self, Damaged> {
        let mut scope = Self::new(graph);
        scope.runnables = RefCell::new(past.runnables()?);
        let folder = |(repo, package): &PackageKey| {
            (package_dir(repo, package), (repo.clone(), package.clone()))
        };
        scope.folders = past.entries.keys().map(folder).collect();
        Ok(scope)
    }

    /// Notes that a declaration has moved in its file.
    pub(crate) fn update_place(&self, id: TargetId, decl: &TargetDecl) {
        let place = location_of(decl);
        let mut graph = self.graph.borrow_mut();
        if graph.target(id).location != place {
            graph.target_mut(id).location = place;
        }
    }

    /// An artifact of the graph as a value.
    pub(crate) fn file(&self, id: ArtifactId) -> FileValue {
        let graph = self.graph.borrow();
        let artifact = graph.artifact(id);
        let origin = match &artifact.origin {
            Origin::Source | Origin::Builtin(_) => FileOrigin::Source,
            Origin::Action(_) => FileOrigin::Output,
            Origin::Toolchain(_) => FileOrigin::Toolchain,
        };
        let owner = match graph.owner(id) {
            Some(owner) => graph.target(owner).label.clone(),
            None => self.source_label(artifact.path.as_str()),
        };
        FileValue::new(id, artifact.path.clone(), artifact.kind, origin, owner)
    }

    /// The label of a source: it belongs to the innermost package around it.
    fn source_label(&self, path: &str) -> Label {
        let mut end = path.len();
        while let Some(at) = path.get(..end).and_then(|head| head.rfind('/')) {
            if let Some((repo, package)) = path.get(..at).and_then(|dir| self.folders.get(dir)) {
                let name = path.get(at + 1..).unwrap_or_default().into();
                return Label { repo: repo.clone(), package: package.clone(), name };
            }
            end = at;
        }
        Label { repo: "".into(), package: "".into(), name: path.into() }
    }

    /// The scope of the target under analysis.
    pub(crate) fn of<'a>(eval: &Evaluator<'_, 'a, '_>) -> Result<&'a Self, RuleError> {
        Self::of_opt(eval).ok_or_else(|| {
            RuleError::new(Code::Evaluation, "this works only in a rule's implementation")
        })
    }

    /// The scope of the target under analysis, if there is one.
    pub(crate) fn of_opt<'a>(eval: &Evaluator<'_, 'a, '_>) -> Option<&'a Self> {
        downcast::<Self>(eval)
    }

    /// The target whose implementation runs.
    pub(crate) fn current(&self) -> Result<Current, RuleError> {
        self.current
            .borrow()
            .clone()
            .ok_or_else(|| RuleError::new(Code::Internal, "no target is under analysis"))
    }
}

fn downcast<'a, 'e, T: AnyLifetime<'e>>(eval: &Evaluator<'_, 'a, 'e>) -> Option<&'a T> {
    let extra: &'a dyn AnyLifetime<'e> = eval.extra?;
    extra.downcast_ref::<T>()
}

/// Where the call that is furthest out stands: for a macro, the line in the package file.
pub(crate) fn outermost_call(eval: &Evaluator<'_, '_, '_>) -> Option<FileSpan> {
    // The bottom frame is the module itself and has no caller.
    let depth = eval.call_stack_count().checked_sub(2)?;
    eval.call_stack_nth_location(depth)
}

/// Keeps what files print, as remarks.
#[derive(Default)]
pub(crate) struct Prints {
    file: String,
    remarks: RefCell<Vec<Diagnostic>>,
}

impl Prints {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), remarks: RefCell::default() }
    }

    pub(crate) fn take(&self) -> Vec<Diagnostic> {
        self.remarks.take()
    }
}

/// Most remarks that one evaluation may make.
const PRINTS_MAX: usize = 1000;

impl starlark::PrintHandler for Prints {
    fn println(&self, text: &str) -> starlark::Result<()> {
        let mut remarks = self.remarks.borrow_mut();
        if remarks.len() >= PRINTS_MAX {
            let message = format!("more than {PRINTS_MAX} calls of `print`");
            return RuleError::new(Code::Limit, message).raise();
        }
        let location = Location::start_of(&self.file);
        remarks.push(Diagnostic::info(text.to_owned(), Some(location)));
        Ok(())
    }
}
