//! A template as it was read: every value typed, every name with its place.
//!
//! Nothing is looked up here: which steps exist is found out by [`super::read`], what follows what
//! by [`super::order`]. What may differ from run to run is an [`Expr`].

use std::ops::Range;

use maestro_core::Label;

use super::definitions::{OutputDefinition, StepDefinition, TARGET_OUTPUTS};
use super::expression::{Expr, Value, named};
use super::source::{Span, Spanned};

/// A pipeline in one file.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its name.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: String,
    /// What begins a run of it.
    pub triggers: Vec<Trigger>,
    /// What a run can be given, in order.
    pub params: Vec<Param>,
    /// Environment of every step; a step's own wins.
    pub env: Vec<(Spanned<String>, Expr)>,
    /// What a run may spend.
    pub budget: Budget,
    /// What must not run beside it.
    pub concurrency: Option<Concurrency>,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Steps, in the order of the file.
    pub steps: Vec<Step>,
    /// What it includes, in the order of the file, each before what it includes itself.
    pub(crate) includes: Vec<Included>,
    /// What includes give to params, whether anything uses it or not.
    pub(crate) given: Vec<Expr>,
    /// The variables and outputs of what it includes, to be checked as its own are.
    pub(crate) besides: Besides,
    /// Steps that run where a run failed, after everything else has ended.
    pub on_failure: Vec<Step>,
    /// Steps that run where a run was cancelled.
    pub on_cancel: Vec<Step>,
    /// What a template that includes this one can take from it.
    pub outputs: Vec<(Spanned<String>, Expr)>,
}

/// What begins a run.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The kind of event.
    pub event: Event,
    /// Where it stands.
    pub span: Span,
    /// Globs of branches; empty for all.
    pub branches: Vec<String>,
    /// Globs of tags; empty for all.
    pub tags: Vec<String>,
    /// Globs of files, one of which must have changed; empty for all.
    pub paths: Vec<String>,
    /// For `schedule`: when, in the form of cron.
    pub cron: Option<String>,
}

named! {
    /// A kind of event.
    Event {
        /// Commits came to a branch.
        Push = "push",
        /// A change was proposed, or changed.
        Pr = "pr",
        /// A tag was made.
        Tag = "tag",
        /// A release was made.
        Release = "release",
        /// A time has come.
        Schedule = "schedule",
        /// Somebody asked.
        Manual = "manual",
    }
}

/// An included template, of which nothing is left but its steps.
#[derive(Clone, Debug)]
pub(crate) struct Included {
    /// The name of the step that includes it, and where that stands.
    pub(crate) id: Spanned<String>,
    /// The places of its steps.
    pub(crate) steps: Range<usize>,
    /// What the step that includes it waits for, where the file says so.
    pub(crate) needs: Option<Vec<Spanned<String>>>,
}

/// What included files say besides steps. It was put into steps, and is kept since no loop and no
/// outcome of those steps is seen by the file that says it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Besides {
    pub(crate) env: Vec<Expr>,
    pub(crate) outputs: Vec<Expr>,
}

impl Event {
    /// What other systems call by this name.
    pub(crate) fn foreign(name: &str) -> Option<Self> {
        match name {
            "pull_request" | "merge_request" => Some(Self::Pr),
            "workflow_dispatch" => Some(Self::Manual),
            _ => None,
        }
    }
}

/// What a run can be given.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: Spanned<String>,
    /// What its value can be.
    pub kind: ParamKind,
    /// Its value where none is given; without one it must be given.
    pub default: Option<Value>,
    /// What it is for.
    pub description: String,
}

/// What the value of a param can be.
#[derive(Clone, Debug, PartialEq)]
pub enum ParamKind {
    /// A text; one of `choices` where there are some, and one that `pattern` matches as a whole.
    String {
        /// The texts that are allowed.
        choices: Vec<String>,
        /// A regular expression.
        pattern: Option<super::expression::Pattern>,
    },
    /// A whole number between two others.
    Int {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// True or false.
    Bool,
    /// A list.
    List {
        /// What each item can be.
        item: Box<ParamKind>,
        /// The fewest items.
        min: u64,
        /// The most items.
        max: u64,
    },
    /// The name of a secret; its value is never seen.
    Secret,
}

/// What may be spent. What is not said has no limit here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Money, in millionths of a dollar, past which nothing is asked.
    pub usd_micros: Option<u64>,
    /// Tokens, past which nothing is asked.
    pub tokens: Option<u64>,
    /// Money past which is warned.
    pub soft_usd_micros: Option<u64>,
    /// Tokens past which is warned.
    pub soft_tokens: Option<u64>,
}

/// What must not run beside each other.
#[derive(Clone, Debug)]
pub struct Concurrency {
    /// The name that they share.
    pub group: Expr,
    /// How many may run at once.
    pub limit: u32,
    /// Whether a new one cancels those that run, rather than to wait for them.
    pub cancel_running: bool,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Uses {
    /// A kind of step.
    Step(&'static StepDefinition),
    /// It builds a target of the workspace.
    Target(Label),
}

impl Uses {
    /// Whether it acts on the world.
    pub fn is_effect(&self) -> bool {
        matches!(self, Self::Step(definition) if definition.is_effect())
    }

    /// What it makes.
    pub fn outputs(&self) -> &'static [OutputDefinition] {
        match self {
            Self::Step(definition) => definition.outputs,
            Self::Target(_) => TARGET_OUTPUTS,
        }
    }

    /// How it is written.
    pub fn name(&self) -> String {
        match self {
            Self::Step(definition) => definition.name.to_owned(),
            Self::Target(label) => label.to_string(),
        }
    }
}

/// A step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name; one of an included template stands behind the name of the step that includes it
    /// and a `.`.
    pub id: Spanned<String>,
    /// What it does.
    pub uses: Uses,
    /// What it is given; fields that are left out are not here.
    pub with: Vec<(Spanned<String>, Expr)>,
    /// The steps that it waits for, where the file says so.
    pub needs: Option<Vec<Spanned<String>>>,
    /// When it runs at all; else it is skipped.
    pub condition: Option<Expr>,
    /// How often it runs.
    pub repeat: Repeat,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What happens after a failure.
    pub retry: Option<Retry>,
    /// What it may spend, with all its attempts.
    pub budget: Budget,
    /// Whether the run goes on after its failure.
    pub continue_on_error: bool,
    /// What must not run beside it.
    pub concurrency: Option<Concurrency>,
    /// Outputs besides those of its kind, taken from its result.
    pub outputs: Vec<Output>,
    /// Its environment.
    pub env: Vec<(Spanned<String>, Expr)>,
    /// Secrets that it sees, by the names under which it sees them.
    pub secrets: Vec<(Spanned<String>, Expr)>,
    /// Hosts that it may talk to, each with a port or without.
    pub egress: Vec<Expr>,
    /// What it takes of a machine.
    pub resources: Resources,
    /// Who must agree before it begins.
    pub approval: Option<Approval>,
    /// Steps that run where it failed for good, in order.
    pub on_failure: Vec<Step>,
    /// Steps that run where the run was cancelled after this step had begun, in order.
    pub on_cancel: Vec<Step>,
    /// All of it.
    pub span: Span,
}

impl Template {
    /// Its steps, with those that are called after a failure or a cancellation.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        let steps = self.steps.iter();
        let with_called = steps
            .flat_map(|step| std::iter::once(step).chain(&step.on_failure).chain(&step.on_cancel));
        with_called.chain(&self.on_failure).chain(&self.on_cancel)
    }
}

impl Step {
    /// What it is given for a field.
    pub fn argument(&self, name: &str) -> Option<&Expr> {
        self.with.iter().find(|(field, _)| field.value == name).map(|(_, value)| value)
    }

    /// Whether it waits for everything above it where the file does not say what it needs.
    pub(crate) fn acts(&self) -> bool {
        self.uses.is_effect() || self.approval.is_some()
    }

    /// Every expression of it that is evaluated for it, with the name of its key.
    pub fn expressions(&self) -> impl Iterator<Item = (&'static str, &Expr)> {
        let repeat: Vec<&Expr> = match &self.repeat {
            Repeat::Once => Vec::new(),
            Repeat::Each { items, .. } => vec![items],
            Repeat::Until { condition, .. } => vec![condition],
            Repeat::Matrix { axes, exclude, include, .. } => {
                axes.iter().map(|(_, values)| values).chain(exclude).chain(include).collect()
            }
        };
        let with = self.with.iter().map(|(_, value)| ("with", value));
        let env = self.env.iter().map(|(_, value)| ("env", value));
        let secrets = self.secrets.iter().map(|(_, value)| ("secrets", value));
        with.chain(self.condition.iter().map(|value| ("if", value)))
            .chain(repeat.into_iter().map(|value| ("repeat", value)))
            .chain(env)
            .chain(secrets)
            .chain(self.egress.iter().map(|value| ("egress", value)))
            .chain(self.concurrency.iter().map(|one| ("concurrency", &one.group)))
    }
}

/// How often a step runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Repeat {
    /// Once.
    Once,
    /// For each item of a list, which may be known only at run time.
    Each {
        /// The list.
        items: Expr,
        /// The most items; a longer list is an error.
        max: u64,
        /// How many run at once.
        parallel: u32,
    },
    /// For each combination of values.
    Matrix {
        /// Names, each with a list of values.
        axes: Vec<(Spanned<String>, Expr)>,
        /// Combinations that are left out: mappings of some names.
        exclude: Vec<Expr>,
        /// Combinations that are added: mappings of all names.
        include: Vec<Expr>,
        /// How many run at once.
        parallel: u32,
    },
    /// Until something holds, which is looked at after each round.
    Until {
        /// What must hold; it can name the step itself.
        condition: Expr,
        /// The most rounds; a step that needs more has failed.
        max: u64,
        /// The time between rounds, in milliseconds.
        delay_ms: u64,
    },
}

named! {
    /// Why a step failed.
    FailureClass {
        /// What was asked for is wrong.
        User = "user",
        /// A machine or the network is at fault.
        Infrastructure = "infrastructure",
        /// The far side asked for patience.
        RateLimit = "rate-limit",
        /// It would cost too much.
        Budget = "budget",
        /// It is not allowed.
        Policy = "policy",
        /// It took too long.
        Timeout = "timeout",
        /// Somebody stopped it.
        Cancelled = "cancelled",
    }
}

/// What happens after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The most attempts after the first.
    pub max: u32,
    /// Failures after which it is tried again.
    pub on: Vec<FailureClass>,
    /// The wait before the second attempt, in milliseconds; it doubles each time.
    pub backoff_ms: u64,
    /// The longest wait, in milliseconds.
    pub backoff_ms_max: u64,
    /// Whether a wait is anything between nothing and what it would be.
    pub jitter: bool,
}

/// An output that a template declares.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: Spanned<String>,
    /// Its type.
    pub kind: super::expression::Type,
    /// The way to it in the result of the step, as JSON.
    pub path: Vec<PathSegment>,
}

/// A part of a JSON path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSegment {
    /// `.name`.
    Field(String),
    /// `[3]`.
    Index(usize),
}

/// What a step takes of a machine. What is not said is left to whoever runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Processors, in thousandths.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Disk, in bytes.
    pub disk_bytes: Option<u64>,
    /// Graphics processors.
    pub gpus: Option<u64>,
}

/// Who must agree before a step begins.
#[derive(Clone, Debug)]
pub struct Approval {
    /// How many different people.
    pub count: u32,
    /// The roles that may approve; empty for those of the project.
    pub roles: Vec<Spanned<String>>,
    /// When the gate gives up, in milliseconds.
    pub expires_ms: u64,
    /// Where it stands.
    pub span: Span,
}
