//! Which kinds of steps this binary can do, and who does them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use maestro_core::run::Plan;
use maestro_deliver::DeliverOptions;
use maestro_executor::step::{Registry, not_built};
use maestro_rules::pipeline::definitions::GATE;
use maestro_rules::pipeline::template::{Step, Uses};
use maestro_runs::pipeline::{BUILD, unkept};

use super::{build, command, identity, models, secrets};
use crate::config::non_empty;
use crate::exit::Failure;

/// The kinds of steps that [`registry`] knows how to do.
const KINDS: &[&str] = &[
    BUILD,
    "cd.rollout",
    "llm.generate",
    "llm.plan",
    "llm.review",
    "notify.webhook",
    "run.command",
    "test",
];

/// Why a step cannot be run by this binary, where that is so.
pub fn cannot_run(step: &Step) -> Option<String> {
    let kind = match &step.uses {
        Uses::Target(_) => BUILD,
        Uses::Step(kind) => kind.name,
    };
    let unkept = || unkept(step).map(|key| format!("this Maestro does not see to `{key}` yet"));
    let known = kind == GATE || KINDS.contains(&kind);
    (!known).then(|| not_built(kind).message).or_else(unkept)
}

/// What this binary can do in a run.
pub fn registry(plan: &Plan, workspace: &Path, cache: &Path) -> Result<Registry> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let build =
        build::BuildTarget { program, workspace: workspace.to_owned(), cache: cache.to_owned() };
    let named = |name: &&str| Some(((*name).to_owned(), non_empty(name)?));
    let environment: BTreeMap<String, String> = ["PATH", "HOME"].iter().filter_map(named).collect();
    let command = command::RunCommand { workspace: workspace.to_owned(), environment };
    let variables = ["PATH", "HOME", "SSH_AUTH_SOCK"].iter().filter_map(named);
    let deliver = DeliverOptions {
        git: PathBuf::from("git"),
        environment: variables.map(|(name, value)| (name.into(), value.into())).collect(),
        folder: workspace.to_owned(),
        scratch: cache.join("scratch"),
        author: "Maestro".to_owned(),
        email: format!("maestro@{}", identity::host()),
    };
    let registry = models::register(Registry::default(), plan, workspace, cache)?
        .worker(BUILD, Arc::new(build.clone()))
        .worker("test", Arc::new(build))
        .effect("run.command", Arc::new(command));
    maestro_deliver::register(registry, deliver, Arc::new(secrets::LocalSecrets))
        .map_err(|error| Failure::environment(crate::exit::chain(&error)).into())
}

#[cfg(test)]
mod tests {
    use maestro_core::ActionClass;
    use maestro_core::run::{Cap, StepKind, StepPlan};

    use super::*;

    #[test]
    fn lint_knows_what_runs_can_do() {
        let folder = std::env::temp_dir().join(format!("maestro-kinds-{}", std::process::id()));
        let asks = StepPlan::new("ask", "llm.plan", StepKind::Work(ActionClass::Recorded));
        let plan = Plan {
            template: "t".to_owned(),
            steps: vec![asks],
            cap: Cap::default(),
            keep_going: false,
            timeout_ms: None,
        };
        let registry = registry(&plan, &folder, &folder).expect("it can be made");
        let kinds = registry.kinds();
        std::fs::remove_dir_all(&folder).expect("it was made");
        assert_eq!(kinds, KINDS);
    }
}
