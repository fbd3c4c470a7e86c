//! Who a run asks: the policies of its workspace, as they are today, with what they know of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use maestro_core::policy::{self, Policy};
use maestro_core::run::{Command, Failure, Principal, Refusal, Ruling, RunState, TaskId, decide};
use maestro_policy::Policies;
use maestro_runs::driver::Clock as _;
use maestro_runs::pipeline::PipelineScript;
use maestro_runs::policy::{AtGate, Project, Questions, denial};

use super::{SystemClock, start};
use crate::config;
use crate::policies::{Chosen, failed};

/// All that it takes to ask about one run.
pub struct Asker {
    /// Who answers.
    pub policies: Arc<Policies>,
    /// What they know of the project.
    pub project: Arc<Project>,
    /// The template of the run.
    pub script: Arc<PipelineScript>,
    /// The workspace of the run.
    pub workspace: PathBuf,
}

impl Asker {
    /// Reads policies, project and template of a run. Without all of the policies there is no
    /// answer, and without an answer nothing is done.
    pub fn of(state: &RunState) -> Result<Self> {
        let (script, workspace) = start::script(state)?;
        let file = config::read_project(&workspace)?;
        let chosen = Chosen::read(&workspace, &file.policy.paths, file.policy.default)?;
        let policies = Policies::load(&chosen.all).map_err(failed)?;
        let project =
            Project { name: start::project_name(state)?, environments: file.environments };
        let (policies, project) = (Arc::new(policies), Arc::new(project));
        Ok(Self { policies, project, script: Arc::new(script), workspace })
    }

    /// The questions about a run as it is now.
    pub fn questions<'a>(&'a self, state: &'a RunState) -> Questions<'a> {
        let now_ms = SystemClock.now_ms();
        Questions { state, script: &*self.script, project: &self.project, now_ms }
    }

    /// What is to be journalled of a wish at a gate: it with the answer, or the answer alone and
    /// why it is a denial.
    pub fn at_gate(
        &self,
        now: &RunState,
        wish: Command,
    ) -> Result<(Command, Option<Failure>), Refusal> {
        // What the gate refuses by itself is no matter of policy.
        decide(now, wish.clone(), SystemClock.now_ms())?;
        let Some((task, by, at)) = spoken(now, &wish) else { return Ok((wish, None)) };
        let decision = self.policies.decide(&self.questions(now).approval(&at));
        let denied = (!decision.is_allowed()).then(|| denial(&decision));
        let rulings = vec![Ruling { task: Some(task), by: Some(by.clone()), decision }];
        let then = denied.is_none().then(|| Box::new(wish.clone()));
        Ok((Command::Ruled { rulings, then }, denied))
    }
}

/// What a wish says at a gate.
fn spoken<'a>(now: &'a RunState, wish: &'a Command) -> Option<(TaskId, &'a Principal, AtGate<'a>)> {
    use policy::ApprovalRequest::{Approve, Reject, Revoke};
    let (task, by, reason, request) = match wish {
        Command::Approve { task, by, reason, .. } => (*task, by, reason, Approve),
        Command::Reject { task, by, reason } => (*task, by, reason, Reject),
        Command::Revoke { task, by, reason } => (*task, by, reason, Revoke),
        _ => return None,
    };
    let asked = now.gates.get(&task).map_or("", |gate| gate.request.subject.as_str());
    let subject = match wish {
        Command::Approve { subject, .. } => subject,
        _ => asked,
    };
    Some((task, by, AtGate { task, by, request, subject, reason }))
}
