//! What build files declare about configurations: params, conditions, constraints, platforms.
//!
//! All of it is read from declarations, and no rule runs for it. A declaration in a package that
//! is not loaded yet stops the reading; the caller loads the package and asks again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use maestro_core::Label;

use super::toolchains::Registry;
use super::{Configuration, Setting, SettingValue, host_platform};
use crate::attr::AttrValue;
use crate::build_setting::ParamType;
use crate::error::{Code, RuleError, did_you_mean};
use crate::library;
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::resolve::{Node as Named, Universe, location_of};
use crate::rule::PARAM_DEFAULT;

/// Repository and folder of a package.
pub(crate) type PackageKey = (Arc<str>, Arc<str>);

/// Why something cannot be told now.
#[derive(Debug)]
pub(crate) enum Stop {
    /// These packages have to be loaded first.
    Missing(BTreeSet<PackageKey>),
    /// It is wrong.
    Error(RuleError),
    /// It is wrong, and that is reported already.
    Reported,
}

impl From<RuleError> for Stop {
    fn from(error: RuleError) -> Self {
        Self::Error(error)
    }
}

impl Stop {
    /// The package of a label has to be loaded first.
    pub(crate) fn missing(label: &Label) -> Self {
        Self::Missing(BTreeSet::from([(label.repo.clone(), label.package.clone())]))
    }
}

/// The machine that Maestro runs on, in the words of `@maestro//platforms/{os,cpu}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMachine {
    /// Its operating system, such as `linux`.
    pub os: String,
    /// Its processor, such as `x86_64`.
    pub cpu: String,
}

/// A param.
#[derive(Debug)]
pub(crate) struct Param {
    pub(crate) label: Label,
    pub(crate) ty: ParamType,
    pub(crate) default: SettingValue,
    /// Whether users may set it.
    pub(crate) flag: bool,
    /// The values that are allowed; any where empty.
    values: Vec<Arc<str>>,
}

impl Param {
    /// Reads a value as text.
    pub(crate) fn parse(&self, text: &str) -> Result<SettingValue, RuleError> {
        let Some(value) = self.ty.parse(text) else {
            let message = format!("param `{}` cannot be `{}`", self.label, text.escape_debug());
            return Err(
                RuleError::new(Code::Param, message).hint(format!("it is {}", self.ty.noun()))
            );
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Checks that a value of the right type is one of those that are allowed.
    pub(crate) fn check(&self, value: &SettingValue) -> Result<(), RuleError> {
        let texts = match value {
            SettingValue::String(text) => std::slice::from_ref(text),
            SettingValue::Strings(list) => list,
            _ => return Ok(()),
        };
        let odd = texts.iter().find(|text| !self.values.contains(text));
        let Some(odd) = odd.filter(|_| !self.values.is_empty()) else { return Ok(()) };
        let message = format!("param `{}` cannot be `{}`", self.label, odd.escape_debug());
        Err(RuleError::new(Code::Param, message)
            .hint_opt(did_you_mean(odd, self.values.iter().map(|value| &**value)))
            .hint(format!("allowed: {}", self.values.join(", "))))
    }
}

/// A condition of a `select`.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) label: Label,
    /// `file:line:column` of its declaration.
    pub(crate) location: String,
    /// What has to hold, all of it; sorted, each once.
    pub(crate) needs: Vec<(Setting, SettingValue)>,
}

impl Condition {
    /// Whether it asks for all that the other asks for, and for more.
    pub(crate) fn is_narrower(&self, other: &Self) -> bool {
        self.needs.len() > other.needs.len()
            && other.needs.iter().all(|need| self.needs.contains(need))
    }
}

/// Whether a value is what a condition asks for; a list has to hold it.
pub(crate) fn satisfies(value: &SettingValue, need: &SettingValue) -> bool {
    match (value, need) {
        (SettingValue::Strings(list), SettingValue::Strings(wanted)) => {
            list == wanted || (!wanted.is_empty() && wanted.iter().all(|text| list.contains(text)))
        }
        _ => value == need,
    }
}

/// The attribute of a platform that says what remote execution is told.
pub(crate) const EXEC_PROPERTIES: &str = "exec_properties";

/// What holds on a platform, by constraint setting.
#[derive(Debug, Default)]
pub(crate) struct Platform {
    values: BTreeMap<Label, Label>,
    /// What remote execution is told of actions that run on it.
    pub(crate) properties: BTreeMap<Arc<str>, Arc<str>>,
}

/// What was read so far.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    host: HostMachine,
    pub(crate) registry: Registry,
    /// Params by the names that stand without `//`.
    pub(crate) short_names: BTreeMap<String, Label>,
    params: HashMap<Label, Arc<Param>>,
    conditions: HashMap<Label, Arc<Condition>>,
    /// Constraint settings with their default values.
    constraints: HashMap<Label, Option<Label>>,
    platforms: HashMap<Label, Arc<Platform>>,
}

/// Most parents above a platform, and most aliases between a label and a target.
const CHAIN_MAX: usize = 100;

impl Definitions {
    pub(crate) fn new(
        host: HostMachine,
        short_names: BTreeMap<String, Label>,
        registry: Registry,
    ) -> Self {
        Self { host, short_names, registry, ..Self::default() }
    }

    /// The declaration that a label leads to, through aliases.
    pub(crate) fn declaration(
        universe: &Universe<'_>,
        label: &Label,
        what: &str,
    ) -> Result<Arc<TargetDecl>, Stop> {
        let mut label = label.clone();
        for _ in 0..CHAIN_MAX {
            if !universe.is_loaded(&label) {
                return Err(Stop::missing(&label));
            }
            let decl = match universe.resolve(&label)? {
                Some(Named::Rule(decl)) => decl,
                Some(Named::Output(_) | Named::Source) => {
                    let message = format!("`{label}` is a file, not {what}");
                    return Err(RuleError::new(Code::Dependency, message).into());
                }
                None => return Err(Stop::Reported),
            };
            if decl.rule.native != Some(NativeKind::Alias) {
                return Ok(decl);
            }
            label = match decl.attr("actual") {
                Some(AttrValue::Label(actual)) => Label::clone(actual),
                _ => {
                    let message = format!(
                        "`{label}` is an alias that depends on the configuration, not {what}"
                    );
                    return Err(RuleError::new(Code::Dependency, message).into());
                }
            };
        }
        let message = format!("more than {CHAIN_MAX} aliases lie behind `{label}`");
        Err(RuleError::new(Code::Limit, message).into())
    }

    /// The param that a label names.
    pub(crate) fn param(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<Arc<Param>, Stop> {
        if let Some(known) = self.params.get(label) {
            return Ok(known.clone());
        }
        let decl = Self::declaration(universe, label, "a param")?;
        let Some(setting) = &decl.rule.build_setting else {
            let message = format!("`{label}` is no param, but a `{}`", decl.rule.name());
            return Err(RuleError::new(Code::Param, message)
                .hint("params are declared with the rules of `@maestro//rules:params.star`")
                .into());
        };
        let default = decl.attr(PARAM_DEFAULT).and_then(|value| setting.ty.value_of(value));
        let values = match decl.attr("values") {
            Some(AttrValue::Strings(list)) => list.to_vec(),
            _ => Vec::new(),
        };
        let param = Param {
            label: decl.label.clone(),
            ty: setting.ty,
            default: default.unwrap_or(SettingValue::Unset),
            flag: setting.flag,
            values,
        };
        param.check(&param.default)?;
        let param = Arc::new(param);
        self.params.insert(label.clone(), param.clone());
        Ok(param)
    }

    /// The constraint setting of a constraint value.
    pub(crate) fn constraint_value(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<(Label, Label), Stop> {
        let decl = Self::declaration(universe, label, "a constraint value")?;
        let setting = match decl.attr("constraint_setting") {
            Some(AttrValue::Label(setting))
                if decl.rule.native == Some(NativeKind::ConstraintValue) =>
            {
                setting.clone()
            }
            _ => {
                let message =
                    format!("`{label}` is no constraint value, but a `{}`", decl.rule.name());
                return Err(RuleError::new(Code::Dependency, message).into());
            }
        };
        let setting = self.constraint_setting(universe, &setting)?;
        Ok((setting, decl.label.clone()))
    }

    /// The label of a constraint setting without aliases; its default is known after that.
    fn constraint_setting(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<Label, Stop> {
        if self.constraints.contains_key(label) {
            return Ok(label.clone());
        }
        let decl = Self::declaration(universe, label, "a constraint setting")?;
        if decl.rule.native != Some(NativeKind::ConstraintSetting) {
            let message =
                format!("`{label}` is no constraint setting, but a `{}`", decl.rule.name());
            return Err(RuleError::new(Code::Dependency, message).into());
        }
        let default = match decl.attr("default_constraint_value") {
            Some(AttrValue::Label(value)) => {
                Some(Self::declaration(universe, value, "a constraint value")?.label.clone())
            }
            _ => None,
        };
        self.constraints.insert(decl.label.clone(), default);
        Ok(decl.label.clone())
    }

    /// The platform that a label names, without aliases, and what holds on it.
    pub(crate) fn platform(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<Arc<Platform>, Stop> {
        if let Some(known) = self.platforms.get(label) {
            return Ok(known.clone());
        }
        let mut platform = Platform::default();
        let mut next = Some(label.clone());
        for _ in 0..CHAIN_MAX {
            let Some(current) = next.take() else {
                // As in Bazel, an empty value takes back what a parent says.
                platform.properties.retain(|_, value| !value.is_empty());
                let platform = Arc::new(platform);
                self.platforms.insert(label.clone(), platform.clone());
                return Ok(platform);
            };
            let decl = Self::declaration(universe, &current, "a platform")?;
            if decl.rule.native != Some(NativeKind::Platform) {
                let message = format!("`{current}` is no platform, but a `{}`", decl.rule.name());
                return Err(RuleError::new(Code::Dependency, message)
                    .hint("declare one with `platform(name = …, constraint_values = […])`")
                    .into());
            }
            let mut own: BTreeMap<Label, Label> = BTreeMap::new();
            for value in self.constraint_values(&decl) {
                let (setting, value) = self.constraint_value(universe, &value)?;
                if let Some(other) = own.insert(setting, value.clone())
                    && other != value
                {
                    let message = format!("platform `{current}` is both `{other}` and `{value}`");
                    return Err(RuleError::new(Code::Attribute, message).into());
                }
            }
            for (setting, value) in own {
                platform.values.entry(setting).or_insert(value);
            }
            if let Some(AttrValue::Dict(properties)) = decl.attr(EXEC_PROPERTIES) {
                for (name, value) in properties {
                    let entry = platform.properties.entry(name.clone());
                    entry.or_insert_with(|| value.clone());
                }
            }
            let parents = decl.attr("parents").map(AttrValue::labels).unwrap_or_default();
            if parents.len() > 1 {
                let message = format!("platform `{current}` has {} parents", parents.len());
                return Err(RuleError::new(Code::Attribute, message)
                    .hint("a platform has at most one")
                    .into());
            }
            next = parents.first().map(|label| (*label).clone());
        }
        let message = format!("platform `{label}` has more than {CHAIN_MAX} parents");
        Err(RuleError::new(Code::Limit, message).hint("is it its own parent?").into())
    }

    /// The constraint values that a platform declares; for the host, what the machine is.
    fn constraint_values(&self, decl: &TargetDecl) -> Vec<Label> {
        let declared = decl.attr("constraint_values").map(AttrValue::labels).unwrap_or_default();
        let mut values: Vec<Label> = declared.into_iter().cloned().collect();
        if decl.label == host_platform() {
            let HostMachine { os, cpu } = &self.host;
            for (package, name) in [("platforms/os", os), ("platforms/cpu", cpu)] {
                values.extend(Label::new(library::REPO, package, name).ok());
            }
        }
        values
    }

    /// The condition that a label names: a `config_setting`, or a constraint value.
    pub(crate) fn condition(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<Arc<Condition>, Stop> {
        if let Some(known) = self.conditions.get(label) {
            return Ok(known.clone());
        }
        let decl = Self::declaration(universe, label, "a condition")?;
        let mut needs = match decl.rule.native {
            Some(NativeKind::ConfigSetting) => {
                self.needs(universe, &decl).map_err(|stop| about(stop, &decl))?
            }
            Some(NativeKind::ConstraintValue) => {
                vec![self.requirement(universe, label)?]
            }
            _ => {
                let message = format!("`{label}` is no condition, but a `{}`", decl.rule.name());
                return Err(RuleError::new(Code::Dependency, message)
                    .hint("conditions are `config_setting` and `constraint_value` targets")
                    .into());
            }
        };
        needs.sort_unstable();
        needs.dedup();
        let location = location_of(&decl);
        let condition = Arc::new(Condition { label: label.clone(), location, needs });
        self.conditions.insert(label.clone(), condition.clone());
        Ok(condition)
    }

    fn needs(
        &mut self,
        universe: &Universe<'_>,
        decl: &TargetDecl,
    ) -> Result<Vec<(Setting, SettingValue)>, Stop> {
        let mut needs = Vec::new();
        let mut params: Vec<(Label, Arc<str>)> = Vec::new();
        if let Some(AttrValue::Dict(values)) = decl.attr("values") {
            for (name, value) in values {
                params.push((self.short_name(name, universe)?, value.clone()));
            }
        }
        for attribute in ["flag_values", "param_values"] {
            if let Some(AttrValue::LabelDict(values)) = decl.attr(attribute) {
                params.extend(values.iter().cloned());
            }
        }
        for (label, text) in params {
            let param = self.param(universe, &label)?;
            let value = param.parse(&text)?;
            needs.push((Setting::Param(param.label.clone()), value));
        }
        for label in decl.attr("constraint_values").map(AttrValue::labels).unwrap_or_default() {
            needs.push(self.requirement(universe, label)?);
        }
        if needs.is_empty() {
            let message = "it asks for nothing, so it would always hold";
            return Err(RuleError::new(Code::Attribute, message)
                .hint("give it `flag_values`, `values` or `constraint_values`")
                .into());
        }
        Ok(needs)
    }

    /// The param that a name without `//` stands for: one of `[params]`, or one of the root.
    pub(crate) fn short_name(&self, name: &str, universe: &Universe<'_>) -> Result<Label, Stop> {
        if let Some(label) = self.short_names.get(name) {
            return Ok(label.clone());
        }
        let Ok(label) = Label::new("", "", name) else {
            let message = format!("`{}` is no name of a param", name.escape_debug());
            return Err(RuleError::new(Code::Param, message).into());
        };
        if !universe.is_loaded(&label) {
            return Err(Stop::missing(&label));
        }
        let root = universe.packages.get("", "");
        let targets = || root.into_iter().flat_map(|package| package.targets.values());
        let params = || targets().filter(|target| target.rule.build_setting.is_some());
        if params().any(|target| target.label == label) {
            return Ok(label);
        }
        let known: BTreeSet<&str> = params()
            .map(|target| &*target.label.name)
            .chain(self.short_names.keys().map(String::as_str))
            .collect();
        let error = RuleError::new(Code::Param, format!("there is no param `{name}`"))
            .hint_opt(did_you_mean(name, known.iter().copied()));
        Err(match known.is_empty() {
            true => error.hint(
                "write the label, such as `//pkg:name`, or name it in `[params]` of `maestro.toml`",
            ),
            false => {
                let known: Vec<&str> = known.into_iter().collect();
                error.hint(format!("names without `//`: {}", known.join(", ")))
            }
        }
        .into())
    }

    /// What a configuration says about a setting.
    pub(crate) fn value(
        &mut self,
        universe: &Universe<'_>,
        configuration: &Configuration,
        setting: &Setting,
    ) -> Result<SettingValue, Stop> {
        match setting {
            Setting::Param(label) => match configuration.params.get(label) {
                Some(value) => Ok(value.clone()),
                None => Ok(self.param(universe, label)?.default.clone()),
            },
            Setting::Constraint(setting) => {
                let platform = self.platform(universe, &configuration.platform)?;
                if let Some(value) = platform.values.get(setting) {
                    return Ok(SettingValue::Label(value.clone()));
                }
                self.constraint_setting(universe, setting)?;
                let default = self.constraints.get(setting).cloned().flatten();
                Ok(default.map_or(SettingValue::Unset, SettingValue::Label))
            }
            Setting::Platform => Ok(SettingValue::Label(configuration.platform.clone())),
        }
    }
}

/// An error in what a condition says, with the condition.
fn about(stop: Stop, decl: &TargetDecl) -> Stop {
    match stop {
        Stop::Error(mut error) => {
            let location = location_of(decl);
            error.message = format!("condition `{}` ({location}): {}", decl.label, error.message);
            Stop::Error(error)
        }
        other => other,
    }
}
