//! What the user asks to build for: params, a platform, aspects, and what the workspace says about
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use maestro_core::Label;

use super::definitions::{Definitions, HostMachine, Stop};
use super::toolchains::Registry;
use super::{ConfigId, Configuration, Configurations, SettingValue, host_platform};
use crate::aspect::AspectSpec;
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::resolve::Universe;

/// What targets are to be built for. The default is the machine itself, with no param set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationRequest {
    /// Params and their values as texts, in order; the last one of a param counts. A name without
    /// `//` is one of `short_names`, or a param of the root package.
    pub params: Vec<(String, String)>,
    /// The label of the target platform; the machine itself where there is none.
    pub platform: Option<String>,
    /// Names of params, and the labels that they stand for.
    pub short_names: BTreeMap<String, String>,
    /// Registered toolchains: labels, and `//pkg:all`, in order. Those that ship with the rules
    /// come after them.
    pub toolchains: Vec<String>,
    /// Registered platforms on which actions may run, in order. The machine comes after them.
    pub execution_platforms: Vec<String>,
    /// Aspects that are put on what is asked for, in order, as `//package:file.star%name`.
    pub aspects: Vec<String>,
    /// The machine.
    pub host: HostMachine,
    /// The package where relative labels start.
    pub package: String,
}

/// The aspects of a request. Loads the files that define them.
pub(crate) fn aspects(
    universe: &mut Universe<'_>,
    request: &ConfigurationRequest,
) -> Result<Vec<Arc<AspectSpec>>, Vec<Diagnostic>> {
    let mut out = Vec::with_capacity(request.aspects.len());
    for text in &request.aspects {
        let fail = |error: RuleError| vec![Diagnostic::of(error, None)];
        let Some((file, name)) = text.split_once('%') else {
            let message = format!("`{text}` names no aspect");
            let hint = "write `//package:file.star%name`";
            return Err(fail(RuleError::new(Code::Aspect, message).hint(hint)));
        };
        let file = parse(file, &request.package).map_err(fail)?;
        let aspect = universe.packages.aspect_named(&file, name).map_err(fail)?;
        let errors = universe.packages.take_diagnostics();
        let Some(aspect) = aspect else { return Err(errors) };
        universe.diagnostics.extend(errors);
        if !out.iter().any(|other| Arc::ptr_eq(other, &aspect)) {
            out.push(aspect);
        }
    }
    Ok(out)
}

/// The configuration of a request, with all that is known about configurations so far.
pub(crate) struct Configured {
    pub(crate) target: ConfigId,
    pub(crate) configurations: Configurations,
    pub(crate) definitions: Definitions,
}

/// Reads a request. Loads the packages that it names.
pub(crate) fn configure(
    universe: &mut Universe<'_>,
    request: &ConfigurationRequest,
) -> Result<Configured, Vec<Diagnostic>> {
    let mut short_names = BTreeMap::new();
    for (name, text) in &request.short_names {
        let label = parse(text, "").map_err(|error| fail(name, error))?;
        short_names.insert(name.clone(), label);
    }
    let registry = Registry::new(&request.toolchains, &request.execution_platforms);
    let mut definitions = Definitions::new(request.host.clone(), short_names, registry);
    let configuration = settled(universe, |universe| target(universe, &mut definitions, request))?;
    let mut configurations = Configurations::new(host_platform());
    let target = configurations.intern(configuration);
    Ok(Configured { target, configurations, definitions })
}

/// Asks until no package is missing.
pub(crate) fn settled<T>(
    universe: &mut Universe<'_>,
    mut ask: impl FnMut(&Universe<'_>) -> Result<T, Stop>,
) -> Result<T, Vec<Diagnostic>> {
    loop {
        let missing: BTreeSet<_> = match ask(universe) {
            Ok(value) => return Ok(value),
            Err(Stop::Missing(packages)) => packages,
            Err(Stop::Error(error)) => return Err(vec![Diagnostic::of(error, None)]),
            Err(Stop::Reported) => return Err(std::mem::take(&mut universe.diagnostics)),
        };
        universe.load(missing).map_err(|error| vec![Diagnostic::of(error, None)])?;
    }
}

fn fail(name: &str, mut error: RuleError) -> Vec<Diagnostic> {
    error.message = format!("`{name}` in `[params]` of `maestro.toml`: {}", error.message);
    vec![Diagnostic::of(error, None)]
}

fn parse(text: &str, package: &str) -> Result<Label, RuleError> {
    Label::parse(text, "", package).map_err(|e| RuleError::new(Code::Label, e.to_string()))
}

fn target(
    universe: &Universe<'_>,
    definitions: &mut Definitions,
    request: &ConfigurationRequest,
) -> Result<Configuration, Stop> {
    let platform = match &request.platform {
        None => host_platform(),
        Some(text) => {
            let label = parse(text, &request.package)?;
            definitions.platform(universe, &label)?;
            Definitions::declaration(universe, &label, "a platform")?.label.clone()
        }
    };
    let mut params: BTreeMap<Label, SettingValue> = BTreeMap::new();
    for (name, text) in &request.params {
        let is_label = name.contains("//") || name.starts_with(':');
        let label = match is_label {
            true => parse(name, &request.package)?,
            false => definitions.short_name(name, universe)?,
        };
        let param = definitions.param(universe, &label)?;
        if !param.flag {
            let message = format!("param `{}` is set by transitions only", param.label);
            return Err(RuleError::new(Code::Param, message)
                .hint("its rule says `flag = False`")
                .into());
        }
        let value = param.parse(text)?;
        match value == param.default {
            true => params.remove(&param.label),
            false => params.insert(param.label.clone(), value),
        };
    }
    Ok(Configuration { params, platform })
}
