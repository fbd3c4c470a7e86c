//! `transition`: a function from one configuration to others, for what a target depends on.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;

use super::definition::{Definition, definition};
use super::label::LabelValue;
use super::{expect_sequence, wrong_type};
use crate::attr::LabelBase;
use crate::config::Setting;
use crate::error::{Code, RuleError};
use crate::scope::FileScope;

/// How transitions call the target platform, as Bazel's do.
const PLATFORMS: &str = "//command_line_option:platforms";

/// What a transition reads and sets: the text in the file, and what it stands for.
pub(crate) type Key = (Arc<str>, Setting);

/// A transition, apart from its implementation.
#[derive(Debug)]
pub(crate) struct TransitionSpec {
    /// The file that defines it.
    pub(crate) file: Label,
    /// The variable that it is assigned to; known once it is.
    pub(crate) variable: OnceLock<Arc<str>>,
    pub(crate) inputs: Vec<Key>,
    pub(crate) outputs: Vec<Key>,
}

impl TransitionSpec {
    /// The name for people.
    pub(crate) fn name(&self) -> &str {
        self.variable.get().map_or("transition", |name| name)
    }

    /// Whether what is read after it does not depend on what holds before it.
    pub(crate) fn hides(&self, setting: &Setting) -> bool {
        self.outputs.iter().any(|(_, output)| match (output, setting) {
            (Setting::Platform, Setting::Constraint(_)) => true,
            _ => output == setting,
        })
    }
}

impl Definition for TransitionSpec {
    fn file(&self) -> &Label {
        &self.file
    }

    fn variable(&self) -> &OnceLock<Arc<str>> {
        &self.variable
    }
}

definition! {
    /// The result of `transition(…)`.
    Transition, TransitionGen, FrozenTransition: TransitionSpec, "transition", "<transition {}>",
    {}
}

fn keys(value: Value<'_>, parameter: &str, base: LabelBase<'_>) -> Result<Vec<Key>, RuleError> {
    let mut keys: Vec<Key> = Vec::new();
    for item in expect_sequence(value, parameter)? {
        let key: Key = match (LabelValue::from_value(*item), item.unpack_str()) {
            (Some(label), _) => {
                (label.label.to_string().into(), Setting::Param(label.label.clone()))
            }
            (None, Some(PLATFORMS)) => (PLATFORMS.into(), Setting::Platform),
            (None, Some(text)) if text.starts_with("//command_line_option:") => {
                let message = format!("`{text}` is no option that a transition can see");
                return Err(RuleError::new(Code::Transition, message)
                    .hint(format!("the only one is `{PLATFORMS}`; all else is a param")));
            }
            (None, Some(text)) => (text.into(), Setting::Param(base.parse(text)?)),
            (None, None) => return Err(wrong_type(parameter, "a list of labels", *item)),
        };
        if keys.iter().any(|(_, other)| *other == key.1) {
            let message = format!("`{parameter}` lists `{}` twice", key.0);
            return Err(RuleError::new(Code::Transition, message));
        }
        keys.push(key);
    }
    Ok(keys)
}

#[starlark_module]
pub(crate) fn transition_globals(builder: &mut GlobalsBuilder) {
    /// A function from one configuration to others, for `cfg` of attributes and rules.
    ///
    /// Args:
    ///   implementation: a function from `(settings, attr)` to a dict with a value for each
    ///     output; for several configurations, to a dict or a list of such dicts.
    ///   inputs: labels of params that the function reads.
    ///   outputs: labels of params that it sets. `//command_line_option:platforms` is the target
    ///     platform, in both.
    fn transition<'v>(
        #[starlark(require = named)] implementation: Value<'v>,
        #[starlark(require = named)] inputs: Value<'v>,
        #[starlark(require = named)] outputs: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Transition<'v>> {
        let scope = FileScope::of(eval)?;
        if implementation.get_type() != "function" {
            return wrong_type("implementation", "a function", implementation).raise();
        }
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        let spec = TransitionSpec {
            file: scope.file.clone(),
            variable: OnceLock::new(),
            inputs: keys(inputs, "inputs", base)?,
            outputs: keys(outputs, "outputs", base)?,
        };
        if spec.outputs.is_empty() {
            let message = "a transition that sets nothing changes nothing";
            return RuleError::new(Code::Transition, message).hint("list `outputs`").raise();
        }
        Ok(TransitionGen { implementation, spec: Arc::new(spec) })
    }
}
