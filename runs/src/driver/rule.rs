//! How a driver asks policy, and what a denial comes to.
//!
//! | asked | where it is denied |
//! |---|---|
//! | before a step starts | the step fails, with the reasons |
//! | before an effect is sent | it fails, or waits until so many people have approved as policy wants |
//! | before what may have been sent is sent again | it is asked for and not sent; what cannot be asked for waits for a person |

use maestro_core::policy::{Decision, Input};
use maestro_core::run::{Amount, Command, Ruling, StepIndex, TaskId};
use maestro_executor::step::Reach;
use serde_json::Value;

use super::{DriveError, Driver};
use crate::journal::JournalError;
use crate::policy::{Questions, Sending, denial};

impl Driver {
    fn questions(&self) -> Questions<'_> {
        Questions {
            state: &self.state,
            script: &*self.script,
            project: &self.project,
            now_ms: self.clock.now_ms(),
        }
    }

    /// Asks, away from the threads that drive: an answer may take as long as policies are given.
    async fn decision(&self, question: Input) -> Result<Decision, DriveError> {
        let (policy, point) = (self.policy.clone(), question.point());
        let decided = tokio::task::spawn_blocking(move || policy.decide(&question)).await;
        decided.map_err(|error| DriveError::Unanswered { point, why: error.to_string() })
    }

    /// Whether a step may start; one that may not has failed.
    pub(super) async fn may_start(
        &mut self,
        task: TaskId,
        inputs: &Value,
        reach: Reach,
    ) -> Result<Option<Ruling>, DriveError> {
        let question = self.questions().step_start(task, inputs, reach);
        let decision = self.decision(question).await?;
        match decision.is_allowed() {
            true => Ok(Some(about(task, decision))),
            false => self.deny(task, decision).await.map(|()| None),
        }
    }

    /// Whether an effect may be sent: what policy said, and the broken guards that it has seen. One
    /// that may not has failed, or waits for people.
    pub(super) async fn may_send(
        &mut self,
        task: TaskId,
        inputs: &Value,
        (request, start): (&str, &Ruling),
    ) -> Result<Option<(Decision, Vec<StepIndex>)>, DriveError> {
        let approved_ms = self.clock.now_ms();
        let sending = Sending { task, inputs, request, approved_ms };
        let decision = self.decision(self.questions().effect(sending)).await?;
        if decision.is_allowed() {
            return Ok(Some((decision, self.state.broken_guards(task.step))));
        }
        let then = match decision.wanted_approvals() {
            Some(approvals) => {
                let failure = denial(&decision);
                Command::WantApprovals { task, approvals, failure }
            }
            None => Command::Fail { task, failure: denial(&decision), spent: Amount::ZERO },
        };
        let rulings = vec![start.clone(), about(task, decision)];
        self.act_on_this(Command::Ruled { rulings, then: Some(Box::new(then)) }).await?;
        Ok(None)
    }

    /// Why what may have been sent must not be sent again, if policy says so today.
    pub(super) async fn may_not_send_again(
        &mut self,
        task: TaskId,
        (request, intended_ms): (&str, u64),
    ) -> Result<Option<maestro_core::run::Failure>, DriveError> {
        // Inputs that can no longer be told name no environment, which is taken for production.
        let inputs = self.inputs(task).unwrap_or_default();
        let sending = Sending { task, inputs: &inputs, request, approved_ms: intended_ms };
        let decision = self.decision(self.questions().effect(sending)).await?;
        let failure = (!decision.is_allowed()).then(|| denial(&decision));
        self.act(ruled(task, decision, None)).await?;
        Ok(failure)
    }

    async fn deny(&mut self, task: TaskId, decision: Decision) -> Result<(), DriveError> {
        let fail = Command::Fail { task, failure: denial(&decision), spent: Amount::ZERO };
        self.act_on_this(ruled(task, decision, Some(fail))).await
    }

    /// Decides and appends, unless others have appended since policy was asked: then it saw another
    /// run, and the agenda has it asked again.
    pub(super) async fn act_on_this(&mut self, command: Command) -> Result<(), DriveError> {
        match self.try_append(command).await {
            Err(DriveError::Journal(JournalError::Behind { .. })) => self.reload().await,
            other => other,
        }
    }
}

fn about(task: TaskId, decision: Decision) -> Ruling {
    Ruling { task: Some(task), by: None, decision }
}

fn ruled(task: TaskId, decision: Decision, then: Option<Command>) -> Command {
    Command::Ruled { rulings: vec![about(task, decision)], then: then.map(Box::new) }
}
