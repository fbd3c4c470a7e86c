//! Which toolchains targets get, and why, for people who wonder.

use maestro_core::Label;

use crate::config::request::configure;
use crate::config::toolchains::Resolution;
use crate::configured::ConfiguredGraph;
use crate::diagnostic::Diagnostic;
use crate::limits::EvaluationLimits;
use crate::load::packages::Packages;
use crate::resolve::Universe;
use crate::{LoadOptions, on_large_stack, split};

/// Says which toolchains requested targets get, and why, without running any rule. Targets whose
/// rules name no type of toolchain are left out; where no toolchain fits, that is an error.
pub fn resolve_toolchains(
    options: &LoadOptions<'_>,
) -> Result<Vec<(Label, Resolution)>, Vec<Diagnostic>> {
    on_large_stack(|| {
        let limits = EvaluationLimits::default();
        let mut universe = Universe::new(Packages::new(options.host, options.threads, limits));
        let labels = universe.expand(&options.patterns);
        let configured = configure(&mut universe, &options.configuration)?;
        let configured =
            ConfiguredGraph::discover(&mut universe, configured, &labels, &[], &|_, _| None);
        let (_, errors) = split(std::mem::take(&mut universe.diagnostics));
        if !errors.is_empty() {
            return Err(errors);
        }
        let of = |label: Label| {
            let resolution = configured.resolution(configured.requested(&label)?)?;
            Some((label, resolution.clone()))
        };
        Ok(labels.into_iter().filter_map(of).collect())
    })
}
