//! Finds toolchains: for each type that a rule names, the first one in the order of registration
//! that fits the target platform and the platform on which the actions run.

use std::sync::Arc;

use maestro_core::{Label, TargetPattern};

use super::choice::Reader;
use super::definitions::{Definitions, Stop};
use super::{Configuration, Setting, SettingValue, host_platform};
use crate::attr::AttrValue;
use crate::error::{Code, RuleError};
use crate::library;
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::resolve::{Universe, location_of};
use crate::rule::COMPATIBLE;
use crate::values::exec_group::GroupNeeds;
use crate::values::toolchains::ToolchainNeed;

/// Where a platform says what actions must have to run on it, in a `toolchain`.
pub(crate) const EXEC_COMPATIBLE: &str = "exec_compatible_with";

/// A registered toolchain.
#[derive(Debug)]
pub(crate) struct Registered {
    /// The `toolchain` target.
    pub(crate) label: Label,
    /// `file:line:column` of its declaration.
    pub(crate) location: String,
    ty: Label,
    /// The target that has the `ToolchainInfo`.
    implementation: Label,
    target: Vec<Label>,
    exec: Vec<Label>,
    settings: Vec<Label>,
}

/// Everything that is registered, as texts until it is needed.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Patterns in their order: what users register, then what Maestro brings.
    toolchains: Vec<String>,
    platforms: Vec<String>,
    known: Option<Known>,
}

/// Toolchains, and the platforms on which actions may run, both in the order of registration.
type Known = (Arc<[Registered]>, Arc<[Label]>);

/// The toolchains that ship with the rules.
const BUILTIN: [&str; 2] = ["@maestro//toolchains:all", "@maestro//toolchains/rust:all"];

impl Registry {
    pub(crate) fn new(toolchains: &[String], platforms: &[String]) -> Self {
        let builtin = BUILTIN.iter().map(|text| (*text).to_owned());
        let toolchains = toolchains.iter().cloned().chain(builtin).collect();
        Self { toolchains, platforms: platforms.to_vec(), known: None }
    }

    /// Whether actions can run nowhere but on this machine.
    pub(crate) fn is_this_machine_only(&self) -> bool {
        self.platforms.is_empty()
    }
}

/// Why a toolchain is taken, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the first one that fits.
    Taken,
    /// It would fit, but another is registered before it.
    Later,
    /// The target platform does not fit.
    Target {
        /// What it needs.
        needs: String,
        /// What the platform has instead.
        has: String,
    },
    /// The execution platform does not fit.
    Exec {
        /// What it needs.
        needs: String,
        /// What the platform has instead.
        has: String,
    },
    /// A condition does not hold.
    Setting {
        /// The condition.
        condition: String,
    },
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken => f.write_str("fits, and is taken"),
            Self::Later => f.write_str("fits, but another is registered before it"),
            Self::Target { needs, has } => {
                write!(f, "builds for `{needs}`, and the target platform has `{has}`")
            }
            Self::Exec { needs, has } => {
                write!(f, "runs on `{needs}`, and the execution platform has `{has}`")
            }
            Self::Setting { condition } => write!(f, "is for `{condition}`, which does not hold"),
        }
    }
}

/// What was found for one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolchainChoice {
    /// The type.
    pub ty: Label,
    /// Whether the target cannot be built without one.
    pub mandatory: bool,
    /// The target that has the `ToolchainInfo`, if one was found.
    pub implementation: Option<Label>,
    /// Every toolchain of the type with its place and the reason, in the order of registration.
    pub candidates: Vec<(Label, String, Verdict)>,
}

/// What was found for an execution group of a target on one execution platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Where the group's actions run.
    pub execution_platform: Label,
    /// What remote execution is told of them, sorted by name.
    pub properties: Vec<(String, String)>,
    /// One for each type that the group names.
    pub choices: Vec<ToolchainChoice>,
}

impl Resolution {
    fn is_complete(&self) -> bool {
        self.choices.iter().all(|choice| choice.implementation.is_some() || !choice.mandatory)
    }
}

impl Reader<'_, '_> {
    /// The platform on which actions run where no toolchain decides: the first that is registered.
    pub(crate) fn execution_platform(&mut self) -> Result<Label, Stop> {
        if self.definitions.registry.is_this_machine_only() {
            return Ok(host_platform());
        }
        let (_, platforms) = self.registered()?;
        Ok(platforms.first().cloned().unwrap_or_else(host_platform))
    }

    /// Finds toolchains on the first execution platform that has what it must have and where all
    /// that must be found is.
    pub(crate) fn resolve_toolchains(&mut self, needs: &GroupNeeds) -> Result<Resolution, Stop> {
        let (toolchains, platforms) = self.registered()?;
        let mut types = Vec::with_capacity(needs.toolchains.len());
        for need in &needs.toolchains {
            let decl = Definitions::declaration(self.universe, &need.ty, "a toolchain type")?;
            if decl.rule.native != Some(NativeKind::ToolchainType) {
                let message =
                    format!("`{}` is no toolchain type, but a `{}`", need.ty, decl.rule.name());
                return Err(RuleError::new(Code::Toolchain, message).into());
            }
            types.push((need, decl.label.clone()));
        }
        let mut best: Option<Resolution> = None;
        let mut unfit = Vec::new();
        for platform in platforms.iter() {
            if let Some((needs, has)) = self.lacks(platform, &needs.compatible)? {
                unfit.push(format!("\n  `{platform}` has `{has}`, not `{needs}`"));
                continue;
            }
            let mut choices = Vec::with_capacity(types.len());
            for (need, ty) in &types {
                choices.push(self.choose_toolchain(&toolchains, need, ty, platform)?);
            }
            let known = self.definitions.platform(self.universe, platform)?;
            let text =
                |(name, value): (&Arc<str>, &Arc<str>)| (name.to_string(), value.to_string());
            let properties = known.properties.iter().map(text).collect();
            let found = Resolution { execution_platform: platform.clone(), properties, choices };
            if found.is_complete() {
                return Ok(found);
            }
            best.get_or_insert(found);
        }
        Err(self.not_found(best, &unfit).into())
    }

    /// What a platform lacks of the constraint values that it must have to run something: the
    /// value, and what it has instead.
    fn lacks(
        &mut self,
        platform: &Label,
        needed: &[Label],
    ) -> Result<Option<(String, String)>, Stop> {
        let runs_on = Configuration { params: Default::default(), platform: platform.clone() };
        for label in needed {
            let (setting, value) = self.definitions.requirement(self.universe, label)?;
            let has = self.definitions.value(self.universe, &runs_on, &setting)?;
            if has != value {
                return Ok(Some((value.to_string(), has.to_string())));
            }
        }
        Ok(None)
    }

    fn choose_toolchain(
        &mut self,
        toolchains: &[Registered],
        need: &ToolchainNeed,
        ty: &Label,
        platform: &Label,
    ) -> Result<ToolchainChoice, Stop> {
        let mut implementation = None;
        let mut candidates = Vec::new();
        for toolchain in toolchains.iter().filter(|toolchain| toolchain.ty == *ty) {
            let verdict = match (self.refuse(toolchain, platform)?, &implementation) {
                (Some(reason), _) => reason,
                (None, Some(_)) => Verdict::Later,
                (None, None) => {
                    implementation = Some(toolchain.implementation.clone());
                    Verdict::Taken
                }
            };
            candidates.push((toolchain.label.clone(), toolchain.location.clone(), verdict));
        }
        let ToolchainNeed { ty, mandatory } = need.clone();
        Ok(ToolchainChoice { ty, mandatory, implementation, candidates })
    }

    /// Why a toolchain does not fit, if it does not.
    fn refuse(
        &mut self,
        toolchain: &Registered,
        platform: &Label,
    ) -> Result<Option<Verdict>, Stop> {
        for label in &toolchain.target {
            let (setting, value) = self.definitions.requirement(self.universe, label)?;
            let has = self.read(&setting)?;
            if has != value {
                let (needs, has) = (value.to_string(), has.to_string());
                return Ok(Some(Verdict::Target { needs, has }));
            }
        }
        if let Some((needs, has)) = self.lacks(platform, &toolchain.exec)? {
            return Ok(Some(Verdict::Exec { needs, has }));
        }
        for label in &toolchain.settings {
            let condition = self.definitions.condition(self.universe, label)?;
            if !self.holds(&condition)? {
                return Ok(Some(Verdict::Setting { condition: label.to_string() }));
            }
        }
        Ok(None)
    }

    fn not_found(&self, best: Option<Resolution>, unfit: &[String]) -> RuleError {
        use std::fmt::Write as _;
        let platform = &self.configuration.platform;
        let Some(best) = best else {
            let message = "no execution platform has all of `exec_compatible_with`";
            return RuleError::new(Code::Toolchain, format!("{message}{}", unfit.concat())).hint(
                "declare a `platform` that has it, and register it in `[workspace] \
                 execution-platforms` of `maestro.toml`",
            );
        };
        let missing: Vec<&ToolchainChoice> = best
            .choices
            .iter()
            .filter(|choice| choice.implementation.is_none() && choice.mandatory)
            .collect();
        let mut message = String::new();
        for (at, choice) in missing.iter().enumerate() {
            let line = if at > 0 { "\n" } else { "" };
            let _ = write!(message, "{line}no toolchain of type `{}` fits `{platform}`", choice.ty);
            for (label, location, verdict) in &choice.candidates {
                let _ = write!(message, "\n  `{label}` ({location}) {verdict}");
            }
            if choice.candidates.is_empty() {
                message.push_str("\n  none of this type is registered");
            }
        }
        RuleError::new(Code::Toolchain, message).hint(
            "declare a `toolchain` that fits, and register it in `[workspace] toolchains` of \
             `maestro.toml`",
        )
    }

    fn registered(&mut self) -> Result<Known, Stop> {
        if let Some((toolchains, platforms)) = &self.definitions.registry.known {
            return Ok((toolchains.clone(), platforms.clone()));
        }
        let mut toolchains: Vec<Registered> = Vec::new();
        for text in &self.definitions.registry.toolchains {
            for decl in named(self.universe, text, NativeKind::Toolchain)? {
                if toolchains.iter().all(|known| known.label != decl.label) {
                    toolchains.push(toolchain_of(&decl));
                }
            }
        }
        let mut platforms: Vec<Label> = Vec::new();
        for text in &self.definitions.registry.platforms {
            for decl in named(self.universe, text, NativeKind::Platform)? {
                if !platforms.contains(&decl.label) {
                    platforms.push(decl.label.clone());
                }
            }
        }
        if !platforms.contains(&host_platform()) {
            platforms.push(host_platform());
        }
        let known: Known = (toolchains.into(), platforms.into());
        self.definitions.registry.known = Some(known.clone());
        Ok(known)
    }
}

/// The targets of a kind that a registered text names: a label, or all of a package.
fn named(
    universe: &Universe<'_>,
    text: &str,
    kind: NativeKind,
) -> Result<Vec<Arc<TargetDecl>>, Stop> {
    let in_file = |error: RuleError| {
        let message = format!("`{text}` is registered in `maestro.toml`: {}", error.message);
        error.hints.into_iter().fold(RuleError::new(error.code, message), RuleError::hint)
    };
    let pattern = TargetPattern::parse(text, "")
        .map_err(|e| in_file(RuleError::new(Code::Label, e.to_string())))?;
    match pattern {
        TargetPattern::Single(label) => {
            let decl = Definitions::declaration(universe, &label, "a toolchain");
            let decl = decl.map_err(|stop| match stop {
                Stop::Error(error) => Stop::Error(in_file(error)),
                other => other,
            })?;
            if decl.rule.native != Some(kind) {
                let message = format!("it is a `{}`", decl.rule.name());
                return Err(in_file(RuleError::new(Code::Toolchain, message)).into());
            }
            Ok(vec![decl])
        }
        TargetPattern::Package { repo, package } => {
            let probe = Label::new(&repo, &package, "all")
                .map_err(|e| in_file(RuleError::new(Code::Label, e.to_string())))?;
            if !universe.is_loaded(&probe) {
                return Err(Stop::missing(&probe));
            }
            match universe.packages.get(&repo, &package) {
                Some(found) => {
                    let targets = found.targets.values();
                    Ok(targets.filter(|decl| decl.rule.native == Some(kind)).cloned().collect())
                }
                None if universe.packages.failed(&repo, &package) => Err(Stop::Reported),
                None => Err(in_file(universe.packages.no_package(&repo, &package)).into()),
            }
        }
        TargetPattern::Recursive { .. } => {
            let message = "only a label or all targets of one package can be registered";
            Err(in_file(RuleError::new(Code::Label, message))
                .hint("write `//toolchains:all`")
                .into())
        }
    }
}

fn toolchain_of(decl: &TargetDecl) -> Registered {
    let labels = |name: &str| -> Vec<Label> {
        let labels = decl.attr(name).map(AttrValue::labels).unwrap_or_default();
        labels.into_iter().cloned().collect()
    };
    let one = |name: &str| labels(name).into_iter().next().unwrap_or_else(|| decl.label.clone());
    Registered {
        label: decl.label.clone(),
        location: location_of(decl),
        ty: one("toolchain_type"),
        implementation: one("toolchain"),
        target: labels(COMPATIBLE),
        exec: labels(EXEC_COMPATIBLE),
        settings: labels("target_settings"),
    }
}

impl Definitions {
    /// What a constraint value asks of a platform. `host_os` and `host_cpu` ask for what the
    /// machine has.
    pub(crate) fn requirement(
        &mut self,
        universe: &Universe<'_>,
        label: &Label,
    ) -> Result<(Setting, SettingValue), Stop> {
        let is_host = &*label.repo == library::REPO && &*label.package == "platforms";
        let package = match &*label.name {
            "host_os" if is_host => "platforms/os",
            "host_cpu" if is_host => "platforms/cpu",
            _ => {
                let (setting, value) = self.constraint_value(universe, label)?;
                return Ok((Setting::Constraint(setting), SettingValue::Label(value)));
            }
        };
        let name = package.rsplit('/').next().unwrap_or_default();
        let setting = Label::new(library::REPO, package, name)
            .map_err(|e| RuleError::new(Code::Internal, e.to_string()))?;
        let setting = Setting::Constraint(setting);
        let host = Configuration { params: Default::default(), platform: host_platform() };
        let value = self.value(universe, &host, &setting)?;
        Ok((setting, value))
    }
}
