//! The evaluator with modules and data in it: parsing, single evaluations, their bounds.
//!
//! Every evaluation starts from a copy of the prepared evaluator, on a stack of its own, within a
//! time limit. Functions whose answer is not determined by their arguments are not there.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use maestro_core::limits::POLICY_STACK_BYTES;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{LimitError, Value};

use crate::error::{Code, Finding};
use crate::numbers;
use crate::sources::Sources;
use crate::syntax::{Module, Ref, evaluator_finding, evaluator_message};

/// How many steps the evaluator takes between two looks at the clock. One step may be to join two
/// lists of any length, so each is followed by a look.
const STEPS_BETWEEN_LOOKS: NonZeroU32 = NonZeroU32::MIN;

/// A prepared evaluator.
#[derive(Clone)]
pub(crate) struct Engine(regorus::Engine);

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluationError {
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// The evaluator gave up, with what it said.
    #[error("{0}")]
    Failed(String),
}

/// The time that is left to something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// So many milliseconds from now.
    pub fn in_ms(ms: u64) -> Self {
        Self(Instant::now() + Duration::from_millis(ms))
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

impl Engine {
    /// Parses modules; what does not parse is reported and left out.
    pub fn parse(sources: &Sources, findings: &mut Vec<Finding>) -> Self {
        let mut engine = regorus::Engine::new();
        engine.set_strict_builtin_errors(true);
        engine.set_gather_prints(true);
        numbers::bound(&mut engine);
        for module in &sources.modules {
            if let Some(finding) = numbers::large_literal(module) {
                findings.push(finding);
                continue;
            }
            let parsed = engine.add_policy(module.name.to_string(), module.text.to_string());
            if let Err(error) = parsed {
                findings.push(syntax_finding(&error.to_string()));
            }
        }
        let data = serde_json::Value::Object(sources.data.clone()).to_string();
        if let Err(error) = engine.add_data_json(&data) {
            findings.push(Finding::new(Code::Data, evaluator_message(&error.to_string())));
        }
        Self(engine)
    }

    /// The trees of the modules.
    pub fn modules(&mut self) -> Vec<Ref<Module>> {
        self.0.get_modules().clone()
    }

    /// Makes it ready, so that copies need not be; unsafe variables and the like show here.
    pub fn prepare(&mut self) -> Result<(), Finding> {
        match self.0.eval_query("true".to_owned(), false) {
            Ok(_) => Ok(()),
            Err(error) => Err(evaluator_finding(Code::Evaluation, &error.to_string())),
        }
    }

    /// Sets `input`, from JSON.
    pub fn set_input(&mut self, json: &str) -> Result<(), EvaluationError> {
        let failed = |error: String| EvaluationError::Failed(evaluator_message(&error));
        self.0.set_input_json(json).map_err(|error| failed(error.to_string()))
    }

    /// The value of a rule such as `data.maestro.effect.deny`.
    pub fn rule(&mut self, path: &str, deadline: Deadline) -> Result<Value, EvaluationError> {
        self.limit(deadline)?;
        self.0
            .eval_rule(path.to_owned())
            .map_err(|error| self::error(&error.to_string(), error.downcast_ref()))
    }

    /// What is at `path` after one rule alone was evaluated, of several that share it.
    pub fn single_rule(
        &mut self,
        module: &Ref<Module>,
        rule: &Ref<crate::syntax::Rule>,
        path: &[String],
        deadline: Deadline,
    ) -> Result<Value, EvaluationError> {
        self.limit(deadline)?;
        let evaluated = self.0.eval_rule_in_module(module, rule, false);
        let data =
            evaluated.map_err(|error| self::error(&error.to_string(), error.downcast_ref()))?;
        let inner = path.iter().try_fold(data, |value, name| {
            value.as_object().ok()?.get(&Value::from(name.as_str())).cloned()
        });
        Ok(inner.unwrap_or(Value::Undefined))
    }

    /// What `print` said since the last time.
    pub fn prints(&mut self) -> Vec<String> {
        self.0.take_prints().unwrap_or_default()
    }

    /// Counts lines from now on.
    pub fn count_lines(&mut self) {
        self.0.set_enable_coverage(true);
    }

    /// The lines of each file that were evaluated, and those that were not.
    pub fn lines(&self) -> Vec<regorus::coverage::File> {
        self.0.get_coverage_report().map(|report| report.files).unwrap_or_default()
    }

    fn limit(&mut self, deadline: Deadline) -> Result<(), EvaluationError> {
        let left = deadline.left();
        if left.is_zero() {
            return Err(EvaluationError::Timeout);
        }
        let config = ExecutionTimerConfig { limit: left, check_interval: STEPS_BETWEEN_LOOKS };
        self.0.set_execution_timer_config(config);
        Ok(())
    }
}

fn error(text: &str, limit: Option<&LimitError>) -> EvaluationError {
    match limit {
        Some(LimitError::TimeLimitExceeded { .. }) => EvaluationError::Timeout,
        _ if text.contains("execution exceeded time limit") => EvaluationError::Timeout,
        _ => {
            let finding = evaluator_finding(Code::Evaluation, text);
            let place = finding.place.map(|place| format!("{place}: ")).unwrap_or_default();
            EvaluationError::Failed(format!("{place}{}", finding.message))
        }
    }
}

/// What is wrong with a text, with advice where it looks like Rego v0.
fn syntax_finding(error: &str) -> Finding {
    let finding = evaluator_finding(Code::Syntax, error);
    let is_old = ["`if`", "`contains`"].iter().any(|keyword| finding.message.contains(keyword));
    let advice =
        "this looks like Rego v0; in v1 it is `deny contains msg if { … }`, and `allow if { … }`";
    finding.hints(is_old.then(|| advice.to_owned()))
}

thread_local! {
    /// Whether this thread is one of those below.
    static EVALUATES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread loads or evaluates a policy. It asks for no memory, so that an allocator may
/// call it: a step of a policy cannot be stopped while it takes all the memory that there is.
pub fn is_evaluating() -> bool {
    EVALUATES.try_with(Cell::get).unwrap_or(false)
}

/// Runs `work` on a thread with room for deep recursion; `None` if it panics.
pub(crate) fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new();
        let builder = builder.name("policy".to_owned()).stack_size(POLICY_STACK_BYTES);
        let marked = || {
            EVALUATES.set(true);
            work()
        };
        builder.spawn_scoped(scope, marked).ok()?.join().ok()
    })
}
