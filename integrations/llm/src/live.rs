//! The client as `lock --update` calls it: from threads that may block, until the user cancels.

use maestro_core::run::Amount;
use maestro_executor::records::{
    Live, LiveAnswer, LiveError, ModelPin, ObservedModel, Question, request::LLM_KIND,
};
use maestro_executor::runner::Cancel;

use crate::chat::prompt_tokens_max;
use crate::client::{CallError, LlmClient};
use crate::error::LlmError;

impl Live for LlmClient {
    fn handles(&self, kind: &str) -> bool {
        kind == LLM_KIND
    }

    fn identify(&self, model: &str, cancel: &Cancel) -> Result<Option<ObservedModel>, LiveError> {
        let pin = self.block(cancel, self.observe(model))?;
        Ok(pin.map(|pin| ObservedModel { pin }))
    }

    fn bound(
        &self,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<Amount, LiveError> {
        let price = self.block(cancel, self.price_of(&question.request.model, pin))?;
        let messages = question.messages().into_iter().map(|(_, text)| text.len());
        let prompt = prompt_tokens_max(messages, question.request.schema.as_ref());
        let answer = question.request.sampling.max_tokens;
        // Each attempt but the last one may have been charged for an answer that was lost.
        let attempts = u64::from(self.attempts());
        Ok(Amount {
            usd_micros: price.cost(prompt, answer).saturating_mul(attempts),
            tokens: prompt.saturating_add(answer).saturating_mul(attempts),
        })
    }

    fn ask(
        &self,
        question: &Question,
        pin: &ModelPin,
        cancel: &Cancel,
    ) -> Result<LiveAnswer, LiveError> {
        self.block(cancel, self.answer(question, pin)).map_err(|failed: CallError| {
            // Who cancels does not wait to hear whether it was charged.
            let asked = failed.asked_at.is_some() || matches!(failed.error, LlmError::Cancelled);
            LiveError { asked, ..failed.error.into() }
        })
    }
}
