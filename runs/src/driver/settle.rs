//! What becomes of a request that may have been sent by a process that is no more, or whose
//! answer was lost.
//!
//! | far side | then |
//! |---|---|
//! | idempotent, repeatable | the same bytes are sent again, with the same key |
//! | conditional | it goes on with what stands there; if it has nothing, the same bytes again |
//! | queryable | it is asked, as long as its answer can be trusted; if it knows nothing, the same bytes again |
//! | unknown | a person has to find out |
//!
//! Nothing is sent again that policy would not let pass today.

use maestro_core::run::{Failure, FailureClass, FarSide, TaskId, TaskStatus};
use maestro_executor::step::{Found, Reply};

use super::perform::Done;
use super::{DriveError, Driver};

impl Driver {
    pub(super) async fn settle(&mut self, task: TaskId) -> Result<(), DriveError> {
        let uses = self.state.plan().step(task.step).map(|plan| plan.uses.clone());
        let effect = match self.registry.find_effect(&uses.unwrap_or_default()) {
            Ok(effect) => effect.clone(),
            Err(failure) => return self.finish(Done::Park(task, failure.message)).await,
        };
        let Some(TaskStatus::Intended(intent)) =
            self.state.tasks.get(&task).map(|state| state.status.clone())
        else {
            return Ok(());
        };
        let sent = (intent.request.as_str(), intent.at_ms);
        let denied = self.may_not_send_again(task, sent).await?;
        match self.state.far_side(task) {
            // Whoever keeps a condition goes on with what stands when it is asked, so that only one
            // that answers and does nothing may be asked about what is denied.
            Some(FarSide::Idempotent | FarSide::Repeatable | FarSide::Conditional)
                if denied.is_some() =>
            {
                let failure = denied.map(|failure| failure.message).unwrap_or_default();
                let why = format!("it may have been sent, and is not sent again: {failure}");
                return self.finish(Done::Park(task, why)).await;
            }
            Some(FarSide::Idempotent | FarSide::Repeatable) => {
                self.dispatch(task, effect, |effect, intent, cancel| async move {
                    effect.send(&intent.request, &intent.key, &cancel).await
                });
            }
            Some(FarSide::Queryable { window_ms }) if self.is_older_than(task, window_ms) => {
                let why = format!("its far side remembers requests for {window_ms} ms only");
                return self.finish(Done::Park(task, why)).await;
            }
            Some(FarSide::Conditional | FarSide::Queryable { .. }) => {
                self.dispatch(task, effect, |effect, intent, cancel| async move {
                    let found = effect.find(&intent.request, &intent.key, &cancel).await;
                    match (found, denied) {
                        (Found::Done(success), _) => Reply::Done(success),
                        (Found::NotDone, Some(denied)) => Reply::Refused(denied),
                        (Found::NotDone, None) => {
                            effect.send(&intent.request, &intent.key, &cancel).await
                        }
                        (Found::Unclear(why), _) => {
                            Reply::Unclear(Failure::new(FailureClass::Infrastructure, why))
                        }
                    }
                });
            }
            Some(FarSide::Unknown) | None => {
                let why = "its far side does not tell whether it was done".to_owned();
                return self.finish(Done::Park(task, why)).await;
            }
        }
        Ok(())
    }

    fn is_older_than(&self, task: TaskId, window_ms: u64) -> bool {
        let now_ms = self.clock.now_ms();
        match self.state.tasks.get(&task).map(|state| &state.status) {
            Some(TaskStatus::Intended(intent)) => intent.at_ms.saturating_add(window_ms) < now_ms,
            _ => true,
        }
    }
}
