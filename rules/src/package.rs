//! A package: what one `maestro.star` file declares, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use maestro_core::Label;
use starlark::codemap::FileSpan;

use crate::attr::{AttrKind, AttrValue};
use crate::diagnostic::Location;
use crate::error::{Code, RuleError};
use crate::generator::MacroCalls;
use crate::rule::RuleSpec;
use crate::visibility::Visibility;

/// The declaration of one target.
#[derive(Clone, Debug)]
pub(crate) struct TargetDecl {
    pub(crate) label: Label,
    pub(crate) rule: Arc<RuleSpec>,
    /// One value for each attribute of the rule, in its order.
    pub(crate) attrs: Vec<AttrValue>,
    pub(crate) visibility: Visibility,
    /// The call in the package file, the outermost where macros are at work.
    pub(crate) span: FileSpan,
    /// The calls behind it, where macros are at work.
    pub(crate) calls: Option<Arc<MacroCalls>>,
}

impl TargetDecl {
    /// The value of an attribute.
    pub(crate) fn attr(&self, name: &str) -> Option<&AttrValue> {
        // Those that every rule has, which are asked for most, stand at the end.
        let at = self.rule.attrs.iter().rposition(|(own, _)| own == name)?;
        self.attrs.get(at)
    }

    /// The texts of an attribute that holds some.
    pub(crate) fn strings(&self, name: &str) -> Vec<String> {
        let texts = self.attr(name).map(AttrValue::strings).unwrap_or_default();
        texts.iter().map(ToString::to_string).collect()
    }

    /// The labels that the target depends on in any configuration, the conditions that decide
    /// among them included, with the attributes that name them.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = (&str, &Label)> {
        let inputs = |kind| !matches!(kind, AttrKind::Output | AttrKind::OutputList);
        self.rule
            .attrs
            .iter()
            .zip(&self.attrs)
            .filter(move |((_, spec), _)| inputs(spec.kind))
            .flat_map(|((name, _), value)| {
                let labels = value.labels().into_iter().chain(value.conditions());
                labels.map(move |label| (name.as_str(), label))
            })
            .chain(self.rule.execution.toolchains().map(|need| ("toolchains", &need.ty)))
    }
}

/// The targets and exported files of a folder.
#[derive(Debug)]
pub(crate) struct Package {
    /// The folder.
    pub(crate) name: Arc<str>,
    /// Targets by name.
    pub(crate) targets: BTreeMap<Arc<str>, Arc<TargetDecl>>,
    /// Files that targets declare as outputs, each with the name of its target.
    pub(crate) outputs: BTreeMap<Arc<str>, Arc<str>>,
    /// Sources that other packages may use.
    pub(crate) exports: BTreeMap<Arc<str>, Visibility>,
    /// What targets get that do not say.
    pub(crate) default_visibility: Visibility,
    /// Whether `package()` was called.
    pub(crate) configured: bool,
}

impl Package {
    /// An empty package.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            targets: BTreeMap::new(),
            outputs: BTreeMap::new(),
            exports: BTreeMap::new(),
            default_visibility: Visibility::Private,
            configured: false,
        }
    }

    /// Adds a target; its name and the names of its outputs must be new.
    pub(crate) fn add(&mut self, target: TargetDecl) -> Result<(), RuleError> {
        let name = target.label.name.clone();
        self.check_new(&name)?;
        for ((_, spec), value) in target.rule.attrs.iter().zip(&target.attrs) {
            if !matches!(spec.kind, AttrKind::Output | AttrKind::OutputList) {
                continue;
            }
            for output in value.labels() {
                if output.name != name {
                    self.check_new(&output.name)?;
                    self.outputs.insert(output.name.clone(), name.clone());
                }
            }
        }
        self.targets.insert(name, Arc::new(target));
        Ok(())
    }

    fn check_new(&self, name: &str) -> Result<(), RuleError> {
        let owner = match self.outputs.get(name) {
            Some(owner) => Some(owner),
            None => self.targets.get_key_value(name).map(|(name, _)| name),
        };
        let Some(first) = owner.and_then(|owner| self.targets.get(owner)) else { return Ok(()) };
        let what = if *first.label.name == *name { "a target" } else { "an output" };
        let by = first.calls.as_ref().map(|calls| format!(", by macro `{}`", calls.function));
        let by = by.unwrap_or_default();
        let message = format!("`{name}` is already {what} of package `//{}`", self.name);
        Err(RuleError::new(Code::DuplicateTarget, message)
            .hint(format!("the first one is declared at {}{by}", Location::of(&first.span))))
    }
}
