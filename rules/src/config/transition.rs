//! Runs transitions: from the configuration of a target to those of what it depends on.

use std::collections::HashMap;
use std::sync::Arc;

use maestro_core::Label;
use starlark::environment::Module;
use starlark::eval::Evaluator;
use starlark::values::Value;
use starlark::values::dict::{AllocDict, DictRef};
use starlark::values::structs::AllocStruct;

use super::choice::Reader;
use super::definitions::{Definitions, Param, Stop};
use super::{Configuration, Setting, SettingValue};
use crate::build_setting::ParamType;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::load::file::display;
use crate::package::TargetDecl;
use crate::scope::Prints;
use crate::values::label::LabelValue;
use crate::values::transition::{Key, TransitionSpec};
use crate::values::{sequence, short};

/// The configurations that a transition leads to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The names of the configurations, if the transition splits.
    pub(crate) keys: Vec<Arc<str>>,
    pub(crate) configurations: Vec<Configuration>,
}

/// Most configurations that one transition may lead to.
const SPLIT_MAX: usize = 1000;

/// What is set in one configuration: the key, and the value.
type Settings = Vec<(Key, SettingValue)>;

/// One configuration, with its name if the transition splits.
type Changed = (Option<Arc<str>>, Settings);

impl Reader<'_, '_> {
    /// Applies a transition for a target whose `select`s are decided.
    pub(crate) fn transition(
        &mut self,
        spec: &TransitionSpec,
        decl: &TargetDecl,
    ) -> Result<Outcome, Stop> {
        // Everything that takes a package is asked first; the function runs once.
        let mut inputs = Vec::with_capacity(spec.inputs.len());
        for (text, setting) in &spec.inputs {
            inputs.push((text.clone(), self.read(setting)?));
        }
        let mut params = HashMap::new();
        for (_, setting) in &spec.outputs {
            if let Setting::Param(label) = setting {
                let param = self.definitions.param(self.universe, label)?;
                params.insert(setting.clone(), param);
            }
        }
        let branches = self.call(spec, decl, &inputs, &params)?;
        let mut outcome = Outcome { keys: Vec::new(), configurations: Vec::new() };
        for (key, settings) in branches {
            outcome.keys.extend(key);
            outcome.configurations.push(self.changed(settings, &params)?);
        }
        Ok(outcome)
    }

    fn changed(
        &mut self,
        settings: Settings,
        params: &HashMap<Setting, Arc<Param>>,
    ) -> Result<Configuration, Stop> {
        let mut configuration = self.configuration.clone();
        for ((_, setting), value) in settings {
            match (params.get(&setting), value) {
                (Some(param), value) if value == param.default => {
                    configuration.params.remove(&param.label);
                }
                (Some(param), value) => {
                    configuration.params.insert(param.label.clone(), value);
                }
                (None, SettingValue::Label(label)) => {
                    self.definitions.platform(self.universe, &label)?;
                    let decl = Definitions::declaration(self.universe, &label, "a platform")?;
                    configuration.platform = decl.label.clone();
                }
                (None, _) => {}
            }
        }
        Ok(configuration)
    }

    fn call(
        &self,
        spec: &TransitionSpec,
        decl: &TargetDecl,
        inputs: &[(Arc<str>, SettingValue)],
        params: &HashMap<Setting, Arc<Param>>,
    ) -> Result<Vec<Changed>, RuleError> {
        let implementation = self.universe.packages.transition(spec).ok_or_else(|| {
            let message = format!("transition `{}` is not a variable of its file", spec.name());
            RuleError::new(Code::Transition, message)
                .hint("assign it at the top level of the file that defines it")
        })?;
        let prints = Prints::new(&display(&spec.file));
        Module::with_temp_heap(|module| {
            let mut eval = Evaluator::new(&module);
            eval.set_print_handler(&prints);
            self.universe.packages.limits().apply(&mut eval)?;
            let heap = eval.heap();
            let settings = inputs.iter().map(|(text, value)| (&**text, value.alloc(heap)));
            let settings = heap.alloc(AllocDict(settings.collect::<Vec<_>>()));
            let attrs = decl.rule.attrs.iter().zip(&decl.attrs);
            let attrs = attrs.map(|((name, _), value)| (name.as_str(), value.alloc(heap)));
            let attrs = heap.alloc(AllocStruct(attrs.collect::<Vec<_>>()));
            let function = heap.access_owned_frozen_value(&implementation);
            let returned = eval.eval_function(function, &[settings, attrs], &[])?;
            Ok(branches(spec, returned, params)?)
        })
        .map_err(|error: starlark::Error| in_transition(spec, &error))
    }
}

fn in_transition(spec: &TransitionSpec, error: &starlark::Error) -> RuleError {
    let diagnostic = Diagnostic::from_starlark(error, None);
    let place = diagnostic.location.map(|place| format!(" ({place})")).unwrap_or_default();
    let message = format!("transition `{}`{place}: {}", spec.name(), diagnostic.message);
    diagnostic.hints.into_iter().fold(RuleError::new(Code::Transition, message), RuleError::hint)
}

fn wrong(what: String) -> RuleError {
    RuleError::new(Code::Transition, format!("the implementation returned {what}"))
}

/// Tells one configuration from several.
fn branches<'v>(
    spec: &TransitionSpec,
    returned: Value<'v>,
    params: &HashMap<Setting, Arc<Param>>,
) -> Result<Vec<Changed>, RuleError> {
    let mut out = Vec::new();
    let mut dicts: Vec<(Option<Arc<str>>, Value<'v>)> = Vec::new();
    if let Some(list) = sequence(returned) {
        let numbered = list.iter().enumerate();
        dicts.extend(numbered.map(|(at, value)| (Some(at.to_string().into()), *value)));
    } else if let Some(dict) = DictRef::from_value(returned) {
        let is_split = dict.iter().any(|(_, value)| DictRef::from_value(value).is_some());
        if is_split {
            for (key, value) in dict.iter() {
                let name = key.unpack_str().ok_or_else(|| {
                    wrong(format!("{} as the name of a configuration", short(key)))
                })?;
                dicts.push((Some(name.into()), value));
            }
        } else {
            dicts.push((None, returned));
        }
    }
    if dicts.is_empty() || dicts.len() > SPLIT_MAX {
        let what = format!("{}, not one dict or up to {SPLIT_MAX} of them", short(returned));
        return Err(wrong(what));
    }
    for (name, dict) in dicts {
        out.push((name, settings(spec, dict, params)?));
    }
    Ok(out)
}

fn settings<'v>(
    spec: &TransitionSpec,
    value: Value<'v>,
    params: &HashMap<Setting, Arc<Param>>,
) -> Result<Settings, RuleError> {
    let dict = DictRef::from_value(value)
        .ok_or_else(|| wrong(format!("{}, not a dict from outputs to values", short(value))))?;
    let mut out: Settings = Vec::new();
    for (key, value) in dict.iter() {
        let own = |(text, setting): &&Key| match (LabelValue::from_value(key), key.unpack_str()) {
            (Some(label), _) => *setting == Setting::Param(label.label.clone()),
            (None, given) => given == Some(&**text),
        };
        let Some(output) = spec.outputs.iter().find(own) else {
            return Err(wrong(format!("a value for {}, which is no output", short(key)))
                .hint("list it in `outputs` of the transition"));
        };
        let value = match params.get(&output.1) {
            Some(param) => param_value(param, value)?,
            None => platform_value(value)?,
        };
        out.push((output.clone(), value));
    }
    match spec.outputs.iter().find(|output| out.iter().all(|(own, _)| own != *output)) {
        None => Ok(out),
        Some((text, _)) => Err(wrong(format!("no value for its output `{text}`"))),
    }
}

fn param_value(param: &Param, value: Value<'_>) -> Result<SettingValue, RuleError> {
    let text = |value: &Value<'_>| value.unpack_str().map(Arc::<str>::from);
    let taken = match param.ty {
        ParamType::Bool => value.unpack_bool().map(SettingValue::Bool),
        ParamType::Int => value.unpack_i32().map(SettingValue::Int),
        ParamType::String => text(&value).map(SettingValue::String),
        ParamType::StringList => {
            let list = sequence(value).and_then(|list| list.iter().map(text).collect());
            list.map(SettingValue::Strings)
        }
    };
    let Some(taken) = taken else {
        let what = format!("{} for `{}`, which is {}", short(value), param.label, param.ty.noun());
        return Err(wrong(what));
    };
    param.check(&taken)?;
    Ok(taken)
}

/// A platform: a label, its text, or a list of one.
fn platform_value(value: Value<'_>) -> Result<SettingValue, RuleError> {
    let value = match sequence(value) {
        Some([only]) => *only,
        _ => value,
    };
    if let Some(label) = LabelValue::from_value(value) {
        return Ok(SettingValue::Label(label.label.clone()));
    }
    let text = value.unpack_str().ok_or_else(|| wrong(format!("{} as platform", short(value))))?;
    Ok(SettingValue::Label(
        Label::parse(text, "", "").map_err(|e| RuleError::new(Code::Label, e.to_string()))?,
    ))
}
