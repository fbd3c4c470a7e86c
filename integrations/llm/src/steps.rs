//! The steps of pipelines that ask a model: `llm.plan`, `llm.generate`, `llm.review`.
//!
//! A step finds its answer as a build does, in the lock or the cache, and asks only where there is
//! none. Before it asks it says what that can cost at most, and what is not answered is not
//! repeated here: a run decides about retries, and each of them reserves anew.
//!
//! Where nobody knows what a call cost, as when a connection broke, it counts as the most that it
//! can have cost.

mod output;
mod request;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use maestro_core::failure::chain;
use maestro_core::run::event::Success;
use maestro_core::run::{Amount, Failure, FailureClass};
use maestro_executor::records::answers::stored_form;
use maestro_executor::records::{Answers, FoundIn, Given, LiveAnswer, ModelPin, Question};
use maestro_executor::step::{Reach, Registry, Stop, WorkFailure, Worker};
use serde_json::Value;

use crate::client::{CallError, LlmClient};
use crate::error::LlmError;
use crate::price::Price;
use request::Inputs;

/// Reads files of the workspace for prompts.
pub trait ContextFiles: Send + Sync {
    /// The texts of the files that globs name, with their paths, in the order of the paths.
    fn read(&self, globs: &[String]) -> Result<Vec<(String, String)>, Failure>;
}

/// What the steps need of where they run.
pub struct LlmSteps {
    /// Who is asked; `None` where no endpoint is configured.
    pub client: Option<LlmClient>,
    /// What was asked before.
    pub answers: Answers,
    /// The files that may stand in prompts.
    pub files: Box<dyn ContextFiles>,
    /// The workspace; what steps write lies in `maestro-out/runs` below it.
    pub workspace: PathBuf,
}

/// What a step does with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plan,
    Generate,
    Review,
}

/// Adds the steps to those that a run knows.
pub fn register(registry: Registry, steps: LlmSteps) -> Registry {
    let steps = Arc::new(steps);
    let step = |kind| Arc::new(LlmStep { kind, all: steps.clone() });
    registry
        .worker("llm.plan", step(Kind::Plan))
        .worker("llm.generate", step(Kind::Generate))
        .worker("llm.review", step(Kind::Review))
}

struct LlmStep {
    kind: Kind,
    all: Arc<LlmSteps>,
}

/// One model that may answer, and what it would be asked.
struct Candidate {
    question: Question,
    pin: ModelPin,
    /// Most tokens of prompt and answer.
    tokens_max: (u64, u64),
}

#[async_trait]
impl Worker for LlmStep {
    fn costs(&self) -> bool {
        true
    }

    fn reach(&self, _inputs: &Value) -> Result<Reach, Failure> {
        let hosts = self.all.client.iter().filter_map(LlmClient::far_side);
        Ok(Reach { hosts: hosts.collect(), ..Reach::default() })
    }

    async fn bound(&self, inputs: &Value) -> Result<Option<Amount>, Failure> {
        let inputs = Inputs::read(self.kind, inputs)?;
        let mut total: Option<Amount> = None;
        for model in inputs.models() {
            let candidate = self.candidate(&inputs, model).await?;
            if total.is_none() && self.find(&inputs, &candidate)?.is_some() {
                return Ok(None);
            }
            let price = self.client()?.price_of(model, &candidate.pin).await.map_err(failure)?;
            total.get_or_insert(Amount::ZERO).add(candidate.most(price));
        }
        Ok(total)
    }

    async fn run(&self, inputs: &Value, stop: &Stop) -> Result<Success, WorkFailure> {
        let inputs = Inputs::read(self.kind, inputs)?;
        let mut spent = Amount::ZERO;
        let failed = |failure, spent| WorkFailure { failure, spent: Some(spent) };
        let mut last = user("no model is named");
        for model in inputs.models() {
            let candidate = self.candidate(&inputs, model).await?;
            if let Some(given) = self.find(&inputs, &candidate)? {
                return self.made(&inputs, &given, spent).await.map_err(|f| failed(f, spent));
            }
            let client = self.client()?;
            let answered = tokio::select! {
                answered = client.answer(&candidate.question, &candidate.pin) => answered,
                () = stop.cancelled() => {
                    let failure = Failure::new(FailureClass::Cancelled, "cancelled in mid-call");
                    return Err(WorkFailure { failure, spent: None });
                }
            };
            match answered {
                Ok(answer) => {
                    spent.add(amount(&answer));
                    let given = self.keep(&inputs, &candidate, &answer).await;
                    let given = given.map_err(|failure| failed(failure, spent))?;
                    return self.made(&inputs, &given, spent).await.map_err(|f| failed(f, spent));
                }
                Err(CallError { error, asked_at }) => {
                    spent.add(asked_at.map_or(Amount::ZERO, |price| candidate.most(price)));
                    let is_down = error.may_retry();
                    last = failure(error);
                    if !is_down {
                        break;
                    }
                }
            }
        }
        Err(failed(last, spent))
    }
}

impl LlmStep {
    fn client(&self) -> Result<&LlmClient, Failure> {
        self.all.client.as_ref().ok_or_else(|| {
            let mut failure = user("there is no recorded answer, and no endpoint to ask");
            failure.hints = vec![
                "name an OpenAI-compatible API with MAESTRO_LLM_ENDPOINT or `llm-endpoint` in \
                 maestro.toml"
                    .to_owned(),
            ];
            failure
        })
    }

    async fn candidate(&self, inputs: &Inputs, model: &str) -> Result<Candidate, Failure> {
        let files = self.all.files.read(&inputs.context_files)?;
        let (question, tokens_max) = inputs.question(self.kind, model, files, |path| {
            output::read_schema(&self.all.workspace, path)
        })?;
        let pin = match self.all.answers.pin(model) {
            Some(pin) => pin.clone(),
            None => {
                let told = self.client()?.observe(model).await.map_err(failure)?;
                told.ok_or_else(|| unknown_model(model))?
            }
        };
        Ok(Candidate { question, pin, tokens_max })
    }

    fn find(&self, inputs: &Inputs, asked: &Candidate) -> Result<Option<Given>, Failure> {
        let found = self.all.answers.find(&inputs.label, &asked.question, &asked.pin);
        found.map_err(|error| {
            let mut failure = user(chain(&error));
            failure.hints = error.hints();
            failure
        })
    }

    /// Remembers an answer, if it is one; what is none is paid for, and not remembered.
    async fn keep(
        &self,
        inputs: &Inputs,
        asked: &Candidate,
        answer: &LiveAnswer,
    ) -> Result<Given, Failure> {
        let Candidate { question, pin, .. } = asked;
        let bytes = stored_form(question, &answer.text)
            .map_err(|error| user(format!("the model's answer cannot be used: {error}")))?;
        if self.kind == Kind::Generate {
            output::check(&self.all.workspace, &inputs.output, &bytes).await?;
        }
        let kept = self.all.answers.keep(&inputs.label, question, pin, (bytes, answer));
        kept.map_err(|error| infrastructure(chain(&error)))
    }

    async fn made(
        &self,
        inputs: &Inputs,
        given: &Given,
        spent: Amount,
    ) -> Result<Success, Failure> {
        let record = &given.record;
        let outputs = output::outputs(self.kind, inputs, given)?;
        let cached = given.found_in.is_some();
        let mut success = Success { outputs, spent, cached, ..Success::default() };
        if given.found_in != Some(FoundIn::Lock) {
            let digest = self.all.answers.store(given);
            let digest = digest.map_err(|error| infrastructure(chain(&error)))?;
            success.artifacts.insert(RECORD.to_owned(), digest.to_string());
        }
        if self.kind == Kind::Generate {
            if cached {
                output::check(&self.all.workspace, &inputs.output, &given.bytes).await?;
            }
            let file = output::write(&self.all.workspace, inputs, &given.bytes)?;
            success.outputs.insert("file".to_owned(), file.into());
            success.artifacts.insert("file".to_owned(), record.content.to_string());
        }
        Ok(success)
    }
}

/// The name under which a step's artifacts hold its record, unless the lock has it.
pub const RECORD: &str = "record";

impl Candidate {
    /// The most that asking can cost.
    fn most(&self, price: Price) -> Amount {
        let (prompt, answer) = self.tokens_max;
        Amount { usd_micros: price.cost(prompt, answer), tokens: prompt.saturating_add(answer) }
    }
}

fn amount(answer: &LiveAnswer) -> Amount {
    let tokens = answer.prompt_tokens.saturating_add(answer.completion_tokens);
    Amount { usd_micros: answer.cost_usd_micros, tokens }
}

fn unknown_model(model: &str) -> Failure {
    let mut failure = user(format!("the endpoint does not tell which model `{model}` is"));
    failure.hints = vec![format!(
        "add `[models.\"{model}\"]` with `name = \"<the provider's dated name>\"` to maestro.lock"
    )];
    failure
}

/// A failed call as runs see it.
fn failure(error: LlmError) -> Failure {
    let class = match &error {
        LlmError::Status { out_of_quota: true, .. } => FailureClass::User,
        LlmError::Status { status: 429, .. } => FailureClass::RateLimit,
        LlmError::Timeout { .. } => FailureClass::Timeout,
        LlmError::Cancelled => FailureClass::Cancelled,
        LlmError::Runtime(_) | LlmError::Protocol { .. } => FailureClass::Infrastructure,
        error if error.may_retry() => FailureClass::Infrastructure,
        _ => FailureClass::User,
    };
    let hints = match &error {
        LlmError::Price { model, .. } => vec![format!(
            "set `price_input_usd_micros_per_mtok` and `price_output_usd_micros_per_mtok` in \
             `[models.\"{model}\"]` of maestro.lock; 0 is a price"
        )],
        other => other.hints(),
    };
    let wait = error.retry_after().and_then(|wait| u64::try_from(wait.as_millis()).ok());
    Failure { hints, retry_after_ms: wait, ..Failure::new(class, chain(&error)) }
}

fn user(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::User, message)
}

fn infrastructure(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Infrastructure, message)
}
