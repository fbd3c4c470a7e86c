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

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use maestro_core::failure::chain;
use maestro_core::run::event::Success;
use maestro_core::run::{Amount, Failure, FailureClass};
use maestro_executor::records::answers::stored_form;
use maestro_executor::records::{
    Answers, FoundIn, Given, LiveAnswer, ModelPin, Question, RecordKey,
};
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

/// Who asks what at the moment, by record keys.
type Turns = Mutex<HashMap<RecordKey, Arc<tokio::sync::Mutex<()>>>>;

/// Adds the steps to those that a run knows.
pub fn register(registry: Registry, steps: LlmSteps) -> Registry {
    let (all, turns) = (Arc::new(steps), Arc::new(Turns::default()));
    let step = |kind| Arc::new(LlmStep { kind, all: all.clone(), turns: turns.clone() });
    registry
        .worker("llm.plan", step(Kind::Plan))
        .worker("llm.generate", step(Kind::Generate))
        .worker("llm.review", step(Kind::Review))
}

struct LlmStep {
    kind: Kind,
    all: Arc<LlmSteps>,
    turns: Arc<Turns>,
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

    async fn run(
        &self,
        inputs: &Value,
        reserved: Amount,
        stop: &Stop,
    ) -> Result<Success, WorkFailure> {
        let inputs = Inputs::read(self.kind, inputs)?;
        let mut spent = Amount::ZERO;
        let failed = |failure, spent| WorkFailure { failure, spent: Some(spent) };
        let mut last = user("no model is named");
        for model in inputs.models() {
            let candidate = self.candidate(&inputs, model).await.map_err(|f| failed(f, spent))?;
            let room = reserved.tokens.saturating_sub(spent.tokens);
            let asked = tokio::select! {
                asked = self.ask(&inputs, &candidate, room) => asked,
                () = stop.cancelled() => {
                    let failure = Failure::new(FailureClass::Cancelled, "cancelled in mid-call");
                    return Err(WorkFailure { failure, spent: None });
                }
            };
            match asked {
                Ok((given, cost)) => {
                    spent.add(cost);
                    return self.made(&inputs, &given, spent).await.map_err(|f| failed(f, spent));
                }
                Err(missed) => {
                    spent.add(missed.spent);
                    last = missed.failure;
                    if !missed.is_down {
                        break;
                    }
                }
            }
        }
        Err(failed(last, spent))
    }
}

/// A model that gave no answer.
struct Missed {
    failure: Failure,
    spent: Amount,
    /// Another model may answer.
    is_down: bool,
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self { failure, spent: Amount::ZERO, is_down: false }
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

    /// The answer to a question, and what it cost; at most `room` tokens are asked for. Tasks that
    /// ask the same take turns, so that the first one pays and the others find its answer.
    async fn ask(
        &self,
        inputs: &Inputs,
        candidate: &Candidate,
        room: u64,
    ) -> Result<(Given, Amount), Missed> {
        let turn = self.turn(candidate)?;
        let _held = turn.lock().await;
        if let Some(given) = self.find(inputs, candidate)? {
            return Ok((given, Amount::ZERO));
        }
        if candidate.tokens() > room {
            // A record went away, or a file grew, after the budget was asked.
            let message = "what it takes to ask has changed since it was reserved";
            return Err(infrastructure(message).into());
        }
        let client = self.client()?;
        let answer = client.answer(&candidate.question, &candidate.pin).await;
        let answer = answer.map_err(|CallError { error, asked_at }| Missed {
            spent: asked_at.map_or(Amount::ZERO, |price| candidate.most(price)),
            is_down: error.may_retry(),
            failure: failure(error),
        })?;
        let spent = amount(&answer);
        let given = self.keep(inputs, candidate, &answer).await;
        let paid = |failure| Missed { failure, spent, is_down: false };
        Ok((given.map_err(paid)?, spent))
    }

    /// The turn of all who ask the same.
    fn turn(&self, candidate: &Candidate) -> Result<Arc<tokio::sync::Mutex<()>>, Failure> {
        let identity = candidate.pin.identity().unwrap_or_default();
        let key = candidate.question.key(&identity).map_err(|error| user(chain(&error)))?;
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(turns.entry(key).or_default().clone())
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
        Amount { usd_micros: price.cost(prompt, answer), tokens: self.tokens() }
    }

    /// The most tokens that asking can take.
    fn tokens(&self) -> u64 {
        let (prompt, answer) = self.tokens_max;
        prompt.saturating_add(answer)
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
