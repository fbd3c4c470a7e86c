//! What a build tells the world while it runs: one type, rendered as console, JSON lines or trace.
//!
//! Times are milliseconds since the invocation started, except where a field says `unix`.

use serde::{Deserialize, Serialize};

use crate::action::ActionClass;
use crate::digest::Digest;
use crate::label::Label;

/// One fact about an invocation. The JSON form has a field `event` that names the variant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first event.
    InvocationStarted {
        /// A UUID v7.
        invocation_id: String,
        /// `build`, `test`, …
        command: String,
        /// The patterns asked for.
        patterns: Vec<String>,
        /// Maestro's version.
        version: String,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// Build files are loaded and analyzed.
    Analyzed {
        /// How many packages were read.
        packages: u32,
        /// How many targets were analyzed.
        targets: u32,
        /// When.
        at_ms: u64,
    },
    /// What of the build files was looked at again, where most was remembered; each list sorted.
    Reevaluated {
        /// `.star` files that were evaluated.
        files: Vec<String>,
        /// Packages whose file was among them.
        packages: Vec<String>,
        /// Targets whose rule's implementation ran.
        targets: Vec<String>,
    },
    /// The actions that the request needs are known.
    Planned {
        /// How many there are.
        actions: u32,
        /// When.
        at_ms: u64,
    },
    /// A tree turned out to have files that are mapped: further actions, beside those planned.
    Mapped {
        /// The number of the action that maps.
        action: u32,
        /// How many there are.
        parts: u32,
        /// When.
        at_ms: u64,
    },
    /// A toolchain is looked for, and copied where it is new or changed.
    ToolchainStarted {
        /// Its name.
        name: String,
    },
    /// A toolchain lies ready, or cannot be had.
    ToolchainFinished {
        /// Its name.
        name: String,
    },
    /// An action that could not be reused begins to run.
    ActionStarted {
        /// Its number in the graph.
        action: u32,
        /// Who owns it.
        label: Label,
        /// What kind of action it is.
        mnemonic: String,
        /// One line for people.
        progress: String,
        /// When.
        at_ms: u64,
    },
    /// An action has its result, or will never have one.
    ActionFinished {
        /// Its number in the graph.
        action: u32,
        /// Who owns it.
        label: Label,
        /// What kind of action it is.
        mnemonic: String,
        /// Its class.
        class: ActionClass,
        /// How it ended.
        outcome: Outcome,
        /// Its cache key, where one could be made.
        key: Option<Digest>,
        /// When it began.
        start_ms: u64,
        /// When it ended.
        at_ms: u64,
        /// The job slot it ran in.
        slot: Option<u32>,
        /// What it has cost now, in micro-dollars.
        cost_usd_micros: u64,
        /// What reuse has saved, in micro-dollars.
        saved_usd_micros: u64,
        /// The actions that it waited for; empty where its result was found.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        needs: Vec<u32>,
    },
    /// Text that an action wrote to standard output or error and that people should see.
    ActionLog {
        /// Its number in the graph.
        action: u32,
        /// Who owns it.
        label: Label,
        /// The text; bytes that are not UTF-8 are replaced.
        text: String,
        /// Whether earlier text was left out.
        truncated: bool,
    },
    /// An action failed.
    ActionFailed {
        /// Its number in the graph.
        action: u32,
        /// Who owns it.
        label: Label,
        /// The aspect on that target which declares it, if one does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aspect: Option<String>,
        /// What kind of action it is.
        mnemonic: String,
        /// Where its target was declared: `file:line:column`.
        location: String,
        /// What went wrong, one sentence.
        message: String,
        /// What can be done, one line each.
        hints: Vec<String>,
        /// The last lines of what it wrote.
        log: String,
        /// A shell command line that runs the same command again, if it is one.
        command: Option<String>,
        /// Where the whole log is, if there is one.
        log_path: Option<String>,
    },
    /// One run of one shard of a test has its verdict: the build event protocol's `TestResult`.
    TestResult {
        /// The test.
        label: Label,
        /// Which run it was, from 1.
        run: u32,
        /// Which shard, from 1.
        shard: u32,
        /// The verdict.
        status: TestStatus,
        /// Whether it came from the cache.
        cached: bool,
        /// How long it ran, in milliseconds.
        duration_ms: u64,
        /// Where its log is.
        log_path: Option<String>,
        /// Where its result in the form of JUnit is.
        xml_path: Option<String>,
    },
    /// A test has its verdict over all runs and shards: the protocol's `TestSummary`.
    TestFinished {
        /// The test.
        label: Label,
        /// The verdict: the worst of its runs.
        status: TestStatus,
        /// Whether all of it came from the cache.
        cached: bool,
        /// How long it ran, in milliseconds; shards and runs are added up.
        duration_ms: u64,
        /// How often it was run.
        #[serde(default)]
        runs: u32,
        /// In how many shards.
        #[serde(default)]
        shards: u32,
        /// Where its log is, or that of the first run that did not pass.
        log_path: Option<String>,
    },
    /// Something the user should know that is no action's fault.
    Message {
        /// How bad it is.
        severity: Severity,
        /// The text.
        text: String,
    },
    /// The last event.
    InvocationFinished {
        /// Whether all that was asked for is made.
        success: bool,
        /// The process's exit code.
        exit_code: u8,
        /// Counts by outcome.
        actions: ActionCounts,
        /// Milliseconds along the longest chain of executed actions.
        critical_path_ms: u64,
        /// Milliseconds from start to end.
        wall_ms: u64,
    },
}

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran now.
    Executed,
    /// Its result was in the cache.
    Cached,
    /// Its result was in the cache that others share.
    Remote,
    /// Its result was in `maestro.lock`.
    Locked,
    /// It ran or was looked up, and failed.
    Failed,
    /// Something it needs failed, or the build stopped first.
    Skipped,
}

/// The verdict of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestStatus {
    /// Exit code 0.
    Passed,
    /// Exit code 0 after an attempt that failed, of a test that is declared to be flaky.
    Flaky,
    /// Another exit code, or outputs missing.
    Failed,
    /// It ran too long.
    Timeout,
    /// Something that it needs was not built.
    NotBuilt,
}

/// How bad a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at this.
    Warning,
    /// The invocation fails because of it.
    Error,
}

/// Actions by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionCounts {
    /// All actions that the request needs.
    pub total: u32,
    /// Ran now.
    pub executed: u32,
    /// From the cache, or known unchanged without asking it.
    pub cached: u32,
    /// From the cache that others share.
    #[serde(default)]
    pub remote: u32,
    /// From `maestro.lock`.
    pub locked: u32,
    /// Failed.
    pub failed: u32,
    /// Not tried.
    pub skipped: u32,
}

impl ActionCounts {
    /// How many actions ended so.
    pub fn get(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Executed => self.executed,
            Outcome::Cached => self.cached,
            Outcome::Remote => self.remote,
            Outcome::Locked => self.locked,
            Outcome::Failed => self.failed,
            Outcome::Skipped => self.skipped,
        }
    }

    /// What the same build counts where nothing is left to do.
    pub fn all_known(self) -> Self {
        let Self { total, locked, .. } = self;
        Self { total, cached: total - locked, locked, ..Self::default() }
    }

    /// Counts actions that are not among these.
    pub fn add_all(&mut self, other: Self) {
        let Self { total, executed, cached, remote, locked, failed, skipped } = other;
        self.total += total;
        self.executed += executed;
        self.cached += cached;
        self.remote += remote;
        self.locked += locked;
        self.failed += failed;
        self.skipped += skipped;
    }

    /// Counts one more action.
    pub fn add(&mut self, outcome: Outcome) {
        let slot = match outcome {
            Outcome::Executed => &mut self.executed,
            Outcome::Cached => &mut self.cached,
            Outcome::Remote => &mut self.remote,
            Outcome::Locked => &mut self.locked,
            Outcome::Failed => &mut self.failed,
            Outcome::Skipped => &mut self.skipped,
        };
        *slot += 1;
    }
}

/// Takes events. Never blocks; what a full queue drops is counted.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Takes events and forgets them.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn emit(&self, _event: Event) {}
}
