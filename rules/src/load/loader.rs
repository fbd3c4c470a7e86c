//! Loads files in parallel: each is read when it is first named, and evaluated when the files that
//! it loads are. Files that wait for each other are found when nothing else is left to do.
//!
//! States of a file: *queued* to be read, *waiting* for others, queued to be *evaluated*, then
//! *done* or *failed*. [`State::settle`] is the only place that moves a file to its last state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use maestro_core::Label;
use maestro_core::host::Host;

use super::file::{self, Evaluated, Load, Parsed, Unread, display};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::limits::EvaluationLimits;

/// Stack of a thread that evaluates, in bytes: parser, compiler and freezer recurse.
pub(crate) const STACK_BYTES: usize = 512 * 1024 * 1024;

/// Every file that was asked for so far.
pub(crate) struct Loader<'h> {
    host: &'h dyn Host,
    threads: usize,
    limits: EvaluationLimits,
    files: BTreeMap<Label, FileState>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

enum FileState {
    /// Not read yet, or being evaluated.
    Queued,
    /// Read; `missing` of the files that it loads are not done.
    Waiting {
        parsed: Parsed,
        missing: usize,
    },
    Done(Arc<Evaluated>),
    /// The error is there if those who load the file should report it at their `load`.
    Failed(Option<RuleError>),
}

enum Task {
    /// A file, and the repository whose file names it.
    Read(Label, Arc<str>),
    Evaluate(Parsed, BTreeMap<Label, Arc<Evaluated>>),
}

enum Outcome {
    Read(Label, Result<Option<Parsed>, Unread>),
    Evaluated(Label, Result<Evaluated, Vec<Diagnostic>>),
}

struct State<'a> {
    host: &'a dyn Host,
    files: &'a mut BTreeMap<Label, FileState>,
    /// Who waits for a file, with the `load` that names it.
    dependents: BTreeMap<Label, BTreeSet<Label>>,
    tasks: VecDeque<Task>,
    running: usize,
    diagnostics: Vec<Diagnostic>,
}

impl<'h> Loader<'h> {
    pub(crate) fn new(host: &'h dyn Host, threads: usize, limits: EvaluationLimits) -> Self {
        let threads = threads.clamp(1, 64);
        Self { host, threads, limits, files: BTreeMap::new(), diagnostics: Vec::new() }
    }

    /// An evaluated file.
    pub(crate) fn get(&self, file: &Label) -> Option<&Arc<Evaluated>> {
        match self.files.get(file) {
            Some(FileState::Done(done)) => Some(done),
            _ => None,
        }
    }

    /// Every file that was evaluated, in the order of their labels.
    pub(crate) fn evaluated(&self) -> impl Iterator<Item = (&Label, &Evaluated)> {
        self.files.iter().filter_map(|(label, state)| match state {
            FileState::Done(done) => Some((label, &**done)),
            _ => None,
        })
    }

    /// Whether a file was asked for before.
    pub(crate) fn knows(&self, file: &Label) -> bool {
        self.files.contains_key(file)
    }

    /// Loads files and all that they load.
    pub(crate) fn load(&mut self, roots: &[Label]) {
        let mut state = State {
            host: self.host,
            files: &mut self.files,
            dependents: BTreeMap::new(),
            tasks: VecDeque::new(),
            running: 0,
            diagnostics: Vec::new(),
        };
        for root in roots {
            state.request(root, "");
        }
        if state.tasks.is_empty() {
            return;
        }
        let (host, limits) = (self.host, self.limits);
        let threads = self.threads.min(state.tasks.len().max(2));
        let shared = Mutex::new(state);
        let wake = Condvar::new();
        std::thread::scope(|scope| {
            for number in 0..threads {
                let builder = std::thread::Builder::new()
                    .name(format!("load-{number}"))
                    .stack_size(STACK_BYTES);
                let started = builder.spawn_scoped(scope, || work(host, limits, &shared, &wake));
                if started.is_err() && number == 0 {
                    // Without a thread of our own the caller's stack has to do.
                    work(host, limits, &shared, &wake);
                }
            }
        });
        let mut state = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.report_cycles();
        let mut diagnostics = state.diagnostics;
        diagnostics.sort_by(|a, b| (&a.location, &a.message).cmp(&(&b.location, &b.message)));
        self.diagnostics.extend(diagnostics);
    }
}

/// Takes tasks until none is left and none is running.
fn work(host: &dyn Host, limits: EvaluationLimits, shared: &Mutex<State<'_>>, wake: &Condvar) {
    let lock =
        || -> MutexGuard<'_, State<'_>> { shared.lock().unwrap_or_else(PoisonError::into_inner) };
    let mut state = lock();
    loop {
        let Some(task) = state.tasks.pop_front() else {
            if state.running == 0 {
                wake.notify_all();
                return;
            }
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.running += 1;
        drop(state);
        let outcome = catch_unwind(AssertUnwindSafe(|| perform(host, limits, task)));
        state = lock();
        state.running -= 1;
        match outcome {
            Ok(outcome) => state.apply(outcome),
            Err(panic) => {
                // The others must not wait for what will never be done.
                state.tasks.clear();
                wake.notify_all();
                drop(state);
                resume_unwind(panic);
            }
        }
        wake.notify_all();
    }
}

fn perform(host: &dyn Host, limits: EvaluationLimits, task: Task) -> Outcome {
    match task {
        Task::Read(label, from) => {
            let parsed = file::open(host, &label, &from);
            Outcome::Read(label, parsed)
        }
        Task::Evaluate(parsed, loaded) => {
            let label = parsed.file.clone();
            let refused: Vec<Diagnostic> =
                parsed.loads.iter().filter_map(|load| refuse(&label, load, &loaded)).collect();
            if !refused.is_empty() {
                return Outcome::Evaluated(label, Err(refused));
            }
            let file = |target: &Label| loaded.get(target).map(|file| &**file);
            let done = file::evaluate(host, limits, parsed, file).map_err(|error| vec![*error]);
            Outcome::Evaluated(label, done)
        }
    }
}

/// Why `from` may not load a file, if it may not.
fn refuse(
    from: &Label,
    load: &Load,
    loaded: &BTreeMap<Label, Arc<Evaluated>>,
) -> Option<Diagnostic> {
    let file = loaded.get(&load.target)?;
    if file.visibility.allows(&load.target, &from.repo, &from.package) {
        return None;
    }
    let package = match from.package.is_empty() {
        true => "the root package".to_owned(),
        false => format!("package `//{}`", from.package),
    };
    let target = display(&load.target);
    let message = format!("`{target}` may not be loaded by {package}");
    let error = RuleError::new(Code::LoadVisibility, message).hint(format!(
        "a file can be loaded by its own package and those below; call `visibility([\"//{}\"])` in \
         `{target}`",
        from.package
    ));
    Some(Diagnostic::at(error, &load.span))
}

impl State<'_> {
    /// Asks for a file; the first time, it is queued.
    fn request(&mut self, label: &Label, from: &str) {
        if !self.files.contains_key(label) {
            self.files.insert(label.clone(), FileState::Queued);
            self.tasks.push_back(Task::Read(label.clone(), from.into()));
        }
    }

    fn apply(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Read(label, Ok(Some(parsed))) => self.wait(label, parsed),
            Outcome::Read(label, Ok(None)) => {
                let error = file::missing(self.host, &label);
                self.settle(&label, FileState::Failed(Some(error)));
            }
            Outcome::Read(label, Err(Unread::AtLoad(error))) => {
                self.settle(&label, FileState::Failed(Some(error)));
            }
            Outcome::Read(label, Err(Unread::Broken(error))) => {
                self.diagnostics.push(*error);
                self.settle(&label, FileState::Failed(None));
            }
            Outcome::Evaluated(label, Ok(evaluated)) => {
                self.diagnostics.extend(evaluated.remarks.iter().cloned());
                self.settle(&label, FileState::Done(Arc::new(evaluated)));
            }
            Outcome::Evaluated(label, Err(errors)) => {
                self.diagnostics.extend(errors);
                self.settle(&label, FileState::Failed(None));
            }
        }
    }

    /// Lets a file wait for those that it loads.
    fn wait(&mut self, label: Label, parsed: Parsed) {
        let targets: BTreeSet<Label> = parsed.loads.iter().map(|l| l.target.clone()).collect();
        let mut missing = 0;
        for target in &targets {
            self.request(target, &label.repo);
            match self.files.get(target) {
                Some(FileState::Done(_)) => {}
                Some(FileState::Failed(_)) => {
                    self.fail_because(&label, parsed, target);
                    return;
                }
                _ => {
                    missing += 1;
                    self.dependents.entry(target.clone()).or_default().insert(label.clone());
                }
            }
        }
        if missing == 0 {
            self.evaluate(parsed);
        } else {
            self.files.insert(label, FileState::Waiting { parsed, missing });
        }
    }

    fn evaluate(&mut self, parsed: Parsed) {
        let done = |load: &Load| match self.files.get(&load.target) {
            Some(FileState::Done(done)) => Some((load.target.clone(), done.clone())),
            _ => None,
        };
        let loaded = parsed.loads.iter().filter_map(done).collect();
        self.tasks.push_back(Task::Evaluate(parsed, loaded));
    }

    /// Fails a file because one that it loads failed; a missing one is reported at the `load`.
    fn fail_because(&mut self, label: &Label, parsed: Parsed, target: &Label) {
        if let Some(FileState::Failed(Some(error))) = self.files.get(target)
            && let Some(load) = parsed.loads.iter().find(|load| load.target == *target)
        {
            self.diagnostics.push(Diagnostic::at(error.clone(), &load.span));
        }
        self.settle(label, FileState::Failed(None));
    }

    /// Moves a file to its last state and tells those who wait for it.
    fn settle(&mut self, label: &Label, last: FileState) {
        let good = matches!(last, FileState::Done(_));
        self.files.insert(label.clone(), last);
        for dependent in self.dependents.remove(label).unwrap_or_default() {
            let waiting = self.files.insert(dependent.clone(), FileState::Queued);
            match waiting {
                Some(FileState::Waiting { parsed, .. }) if !good => {
                    self.fail_because(&dependent, parsed, label);
                }
                Some(FileState::Waiting { parsed, missing: 1 }) => self.evaluate(parsed),
                Some(FileState::Waiting { parsed, missing }) => {
                    let waiting = FileState::Waiting { parsed, missing: missing - 1 };
                    self.files.insert(dependent, waiting);
                }
                Some(other) => {
                    self.files.insert(dependent, other);
                }
                None => {}
            }
        }
    }

    /// What still waits when nothing runs waits for itself.
    fn report_cycles(&mut self) {
        loop {
            let waiting = |state: &FileState| matches!(state, FileState::Waiting { .. });
            let first = self.files.iter().find(|(_, state)| waiting(state));
            let Some((start, _)) = first else { return };
            let mut walk: Vec<Label> = Vec::new();
            let mut spans = Vec::new();
            let mut next = Some(start.clone());
            while let Some(label) = next {
                if let Some(at) = walk.iter().position(|seen| *seen == label) {
                    walk.drain(..at);
                    spans.drain(..at);
                    break;
                }
                let Some(FileState::Waiting { parsed, .. }) = self.files.get(&label) else { break };
                let load = parsed
                    .loads
                    .iter()
                    .find(|load| self.files.get(&load.target).is_some_and(waiting));
                let Some(load) = load else { break };
                spans.push(load.span.clone());
                next = Some(load.target.clone());
                walk.push(label);
            }
            let steps = walk.iter().zip(&spans).map(|(label, span)| {
                let at = crate::diagnostic::Location::of(span);
                format!("\n  `{}` loads, at {at},", display(label))
            });
            let steps: String = steps.collect();
            let again = walk.first().map(display).unwrap_or_default();
            let message = format!("files load each other in a cycle:{steps}\n  `{again}` again");
            let error = RuleError::new(Code::LoadCycle, message)
                .hint("move what both need into a third file");
            if let Some(span) = spans.first() {
                self.diagnostics.push(Diagnostic::at(error, span));
            }
            let Some(victim) = walk.into_iter().next() else { return };
            self.settle(&victim, FileState::Failed(None));
        }
    }
}
