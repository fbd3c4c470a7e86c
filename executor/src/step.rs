//! Steps of a run that are not actions of a build: work that calls out, and effects.
//!
//! These are the interfaces between who drives a run, above, and who talks to a far side, in
//! `integrations`. Implementations keep no journal, decide about no retry, and remember nothing
//! between calls: all that is the driver's, so that a process can die at any line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use maestro_core::run::event::Success;
use maestro_core::run::{Amount, Failure, FailureClass};
use serde_json::Value;

pub use tokio_util::sync::CancellationToken as Stop;

/// The far sides and secrets that a step says it uses, before it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Hosts in lower case, with their TCP ports.
    pub hosts: BTreeSet<(String, u16)>,
    /// Names of secrets.
    pub secrets: BTreeSet<String>,
}

/// Pure or recorded work.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Whether it may cost something, so that its [`bound`](Worker::bound) is asked for.
    fn costs(&self) -> bool {
        false
    }

    /// The most that it can cost; `None` where it costs nothing. May look at what is remembered
    /// and ask for prices, but does nothing that costs.
    async fn bound(&self, _inputs: &Value) -> Result<Option<Amount>, Failure> {
        Ok(None)
    }

    /// What it would use for these inputs. What cannot tell, such as a command, says nothing.
    fn reach(&self, _inputs: &Value) -> Result<Reach, Failure> {
        Ok(Reach::default())
    }

    /// Does it, for no more than was reserved. May be called again with the same inputs, at any
    /// time.
    async fn run(
        &self,
        inputs: &Value,
        reserved: Amount,
        cancel: &Stop,
    ) -> Result<Success, WorkFailure>;
}

/// Work that failed, and what it cost all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkFailure {
    /// Why.
    pub failure: Failure,
    /// What it cost; `None` if nobody saw, which counts as all that was reserved.
    pub spent: Option<Amount>,
}

impl From<Failure> for WorkFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, spent: Some(Amount::ZERO) }
    }
}

/// A change of the world.
#[async_trait]
pub trait Effect: Send + Sync {
    /// The exact request: a document that [`send`](Effect::send) understands, in this version of
    /// Maestro and in later ones, without anything else.
    fn render(&self, inputs: &Value) -> Result<String, Failure>;

    /// What it would use for these inputs. What cannot tell, such as a command, says nothing.
    fn reach(&self, _inputs: &Value) -> Result<Reach, Failure> {
        Ok(Reach::default())
    }

    /// Sends it, with `key` where the far side takes one.
    async fn send(&self, request: &str, key: &str, cancel: &Stop) -> Reply;

    /// Asks the far side whether a request arrived. For [`FarSide::Queryable`] and
    /// [`FarSide::Conditional`]; others need not implement it.
    ///
    /// [`FarSide::Queryable`]: maestro_core::run::FarSide::Queryable
    /// [`FarSide::Conditional`]: maestro_core::run::FarSide::Conditional
    async fn find(&self, _request: &str, _key: &str, _cancel: &Stop) -> Found {
        Found::Unclear("it cannot be asked".into())
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// It was done.
    Done(Success),
    /// It certainly was not done.
    Refused(Failure),
    /// It may or may not have been done.
    Unclear(Failure),
}

/// What the far side says about an earlier request.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It was done.
    Done(Success),
    /// It was not done.
    NotDone,
    /// It does not say.
    Unclear(String),
}

/// Who does what, by the name in `uses`.
#[derive(Clone, Default)]
pub struct Registry {
    workers: BTreeMap<String, Arc<dyn Worker>>,
    effects: BTreeMap<String, Arc<dyn Effect>>,
}

impl Registry {
    /// Adds work.
    pub fn worker(mut self, uses: &str, worker: Arc<dyn Worker>) -> Self {
        self.workers.insert(uses.to_owned(), worker);
        self
    }

    /// Adds an effect.
    pub fn effect(mut self, uses: &str, effect: Arc<dyn Effect>) -> Self {
        self.effects.insert(uses.to_owned(), effect);
        self
    }

    /// The kinds that somebody does, sorted.
    pub fn kinds(&self) -> Vec<&str> {
        let kinds = self.workers.keys().chain(self.effects.keys()).map(String::as_str);
        let mut kinds: Vec<&str> = kinds.collect();
        kinds.sort_unstable();
        kinds
    }

    /// Who does this work.
    pub fn find_worker(&self, uses: &str) -> Result<&Arc<dyn Worker>, Failure> {
        self.workers.get(uses).ok_or_else(|| not_built(uses))
    }

    /// Who has this effect.
    pub fn find_effect(&self, uses: &str) -> Result<&Arc<dyn Effect>, Failure> {
        self.effects.get(uses).ok_or_else(|| not_built(uses))
    }
}

/// What is said of a kind of step that nobody does.
pub fn not_built(uses: &str) -> Failure {
    let message = format!("this Maestro cannot run steps of `{uses}` yet");
    let hint = format!("take the step out, or skip it with `if:`, until `{uses}` is there");
    Failure { hints: vec![hint], ..Failure::new(FailureClass::User, message) }
}
