//! Small plans, and a run whose journal a test can look at.

use super::*;
use crate::action::ActionClass;

/// A plan of these steps.
pub fn plan(steps: Vec<StepPlan>) -> Plan {
    Plan {
        template: "test".into(),
        steps,
        cap: Cap::default(),
        keep_going: false,
        timeout_ms: None,
    }
}

fn step(id: &str, after: &[u32], kind: StepKind) -> StepPlan {
    StepPlan {
        after: after.iter().copied().map(StepIndex).collect(),
        retry: Retry { backoff_ms: 0, ..Retry::default() },
        ..StepPlan::new(id, "test.step", kind)
    }
}

/// Pure work.
pub fn work(id: &str, after: &[u32]) -> StepPlan {
    step(id, after, StepKind::Work(ActionClass::Pure))
}

/// An effect.
pub fn effect(id: &str, after: &[u32], far_side: FarSide) -> StepPlan {
    step(id, after, StepKind::Effect(far_side))
}

/// A gate that `approvals` release managers must pass.
pub fn gate(id: &str, after: &[u32], approvals: u32) -> StepPlan {
    let roles = vec!["release-manager".to_owned()];
    step(id, after, StepKind::Gate(Gate { approvals, roles, expires_ms: 1_000 }))
}

/// A person.
pub fn person(name: &str, roles: &[&str]) -> Principal {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    Principal { name: name.into(), issuer: "local".into(), roles }
}

/// A run and its journal.
pub struct Run {
    pub state: RunState,
    pub journal: Vec<Entry>,
    pub now_ms: u64,
}

impl Run {
    /// A run of `plan` with a first owner, begun by `ann`.
    pub fn new(plan: Plan) -> Self {
        let created = RunCreated {
            run: RunId::new("r1").expect("a run id"),
            plan,
            source: serde_json::Value::Null,
            template_digest: "t".into(),
            params: Default::default(),
            context: serde_json::Value::Null,
            initiator: person("ann", &["release-manager"]),
            policy: None,
            replay_of: None,
        };
        let events = create(created).expect("a good plan");
        let event = events.into_iter().next().expect("one event");
        let first = Entry { sequence: 1, epoch: 0, at_ms: 1, event };
        let state = RunState::begin(&first).expect("a first entry");
        let mut run = Self { state, journal: vec![first], now_ms: 1 };
        run.own();
        run
    }

    /// A new owner takes the run, as after a crash.
    pub fn own(&mut self) {
        let owner = Owner { host: "h".into(), pid: 1, principal: person("ann", &[]) };
        self.must(Command::Own { owner, take_over: false });
    }

    /// Decides and appends.
    pub fn act(&mut self, command: Command) -> Result<Vec<Event>, Refusal> {
        let events = decide(&self.state, command, self.now_ms)?;
        for event in events.clone() {
            let epoch = self.state.epoch + u64::from(matches!(event, Event::Owned { .. }));
            let sequence = self.state.sequence + 1;
            let entry = Entry { sequence, epoch, at_ms: self.now_ms, event };
            self.state.apply(&entry).expect("what was decided applies");
            self.journal.push(entry);
        }
        self.check();
        Ok(events)
    }

    /// Decides and appends what is surely allowed.
    pub fn must(&mut self, command: Command) -> Vec<Event> {
        self.act(command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"))
    }

    /// What is to be done now.
    pub fn work(&self) -> Vec<Work> {
        self.state.agenda(self.now_ms, usize::MAX, |_| false, |_| false).work
    }

    /// The first task of a step.
    pub fn task(&self, id: &str) -> TaskId {
        TaskId::first(self.state.plan().find(id).expect("a step"))
    }

    /// The state of each step, as words.
    pub fn steps(&self) -> String {
        let words = self.state.plan().indexed().map(|(index, plan)| {
            let phase = self.state.steps[index.index()].phase;
            let word = match phase {
                Phase::Ended(verdict) => verdict.name().to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{}: {word}", plan.id)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Runs a work task to a good end.
    pub fn succeed(&mut self, id: &str) {
        let task = self.task(id);
        self.must(Command::Begin { task, reserve: None });
        self.must(Command::Succeed { task, success: Success::default(), done: true });
    }

    /// Runs a work task to a failure of this class.
    pub fn fail(&mut self, id: &str, class: FailureClass) {
        let task = self.task(id);
        self.must(Command::Begin { task, reserve: None });
        let failure = Failure::new(class, "it failed");
        self.must(Command::Fail { task, failure, spent: Amount::ZERO });
    }

    /// The fold of the journal, read back from its stored form, is the state.
    fn check(&self) {
        let read = |entry: &Entry| {
            let body = entry.event.encode().expect("encodes");
            let event = Event::decode(event::EVENT_VERSION, &body).expect("decodes");
            Entry { event, ..entry.clone() }
        };
        let mut folded = RunState::begin(&read(&self.journal[0])).expect("begins");
        for entry in &self.journal[1..] {
            folded.apply(&read(entry)).expect("applies");
        }
        assert_eq!(folded, self.state);
        let json = serde_json::to_string(&self.state).expect("a snapshot");
        let mut restored: RunState = serde_json::from_str(&json).expect("a snapshot");
        restored.index();
        assert_eq!(restored, self.state);
    }
}
