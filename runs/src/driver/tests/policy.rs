//! Drivers ask before they act, and do what the answer says.

use maestro_core::policy::{DecisionPoint, Scan};

use super::*;

fn denying(deny: impl Fn(&Input) -> bool + Send + Sync + 'static, reason: Reason) -> Arc<Rules> {
    let deny = move |input: &Input| if deny(input) { vec![reason.clone()] } else { Vec::new() };
    Arc::new(Rules { deny: Some(Box::new(deny)), ..Rules::default() })
}

impl Bench {
    fn asking(rules: &Arc<Rules>, world: World) -> Self {
        let mut bench = Self::new(world);
        bench.tools.policy = rules.clone();
        bench
    }

    async fn events(&self) -> Vec<Event> {
        let run = RunId::new("r1").expect("a run id");
        let entries = self.tools.journal.read(&run, 0, 1_000).await.expect("reads");
        entries.into_iter().map(|entry| entry.event).collect()
    }
}

impl Rules {
    fn points(&self) -> Vec<&'static str> {
        let asked = self.asked.lock().expect("unpoisoned");
        asked.iter().map(|input| input.point().name()).collect()
    }
}

/// What a step says that it uses.
fn reach_of(input: &Input) -> String {
    let Input::StepStart(input) = input else { return String::new() };
    let hosts = input.egress.iter().map(|far| format!("{}:{}", far.host, far.port));
    hosts.chain(input.secrets.iter().cloned()).collect::<Vec<_>>().join(" ")
}

fn send(after: &[u32]) -> StepPlan {
    step("send", after, StepKind::Effect(FarSide::Idempotent))
}

fn failure(state: &RunState, id: &str) -> String {
    let step = state.plan().find(id).expect("a step");
    state.tasks[&TaskId::first(step)].failure.as_ref().expect("a failure").message.clone()
}

#[tokio::test]
async fn each_step_is_asked_about_and_the_answers_are_journalled() {
    let rules = Arc::new(Rules::default());
    let bench = Bench::asking(&rules, World::default());
    let end = bench.drive(bench.begin(vec![work("make", &[]), send(&[0])]).await).await;
    assert_eq!(end.status(), RunStatus::Succeeded);
    assert_eq!(rules.points(), ["step_start", "step_start", "effect"]);
    let reach: Vec<String> = rules.asked.lock().expect("unpoisoned").iter().map(reach_of).collect();
    assert_eq!(reach, ["", "send.example:443 token", ""]);
    let events = bench.events().await;
    let ruled = events.iter().filter(|event| matches!(event, Event::PolicyDecided(_))).count();
    assert_eq!(ruled, 2, "the decision about an effect stands in its intent");
    let policy = DigestFunction::Sha256.digest(b"rules").to_string();
    let intended = events.iter().find_map(|event| match event {
        Event::EffectIntended { decision, .. } => decision.clone(),
        _ => None,
    });
    let decision = intended.expect("a decision");
    assert_eq!((&decision["verdict"], &decision["policy"]), (&json!("allow"), &json!(policy)));
}

#[tokio::test]
async fn what_is_denied_is_not_done() {
    let check = async |point: DecisionPoint, step: &'static str, worked: &[&str]| {
        let at = move |input: &Input| match input {
            Input::StepStart(input) => point == DecisionPoint::StepStart && input.step.path == step,
            Input::Effect(_) => point == DecisionPoint::Effect,
            _ => false,
        };
        let rules = denying(at, Reason::new("no", "never"));
        let bench = Bench::asking(&rules, World::default());
        let end = bench.drive(bench.begin(vec![work("make", &[]), send(&[0])]).await).await;
        assert_eq!(end.status(), RunStatus::Failed);
        assert_eq!(failure(&end, step), "policy denies it: never (no)");
        assert_eq!(*bench.world.worked.lock().expect("unpoisoned"), worked);
        assert_eq!(bench.applied(), [""; 0]);
        let denied = |event: &Event| match event {
            Event::PolicyDecided(ruling) => !ruling.decision.is_allowed(),
            _ => false,
        };
        assert_eq!(bench.events().await.iter().filter(|event| denied(event)).count(), 1);
    };
    check(DecisionPoint::StepStart, "make", &[]).await;
    check(DecisionPoint::StepStart, "send", &["make"]).await;
    check(DecisionPoint::Effect, "send", &["make"]).await;
}

#[tokio::test]
async fn a_policy_that_breaks_down_stops_the_driver() {
    let rules = denying(|_| panic!("as it was told"), Reason::new("no", "never"));
    let bench = Bench::asking(&rules, World::default());
    let state = bench.begin(vec![send(&[])]).await;
    let error = bench.driver(state).await.drive().await.expect_err("no answer");
    assert!(matches!(error, DriveError::Unanswered { .. }), "{error}");
    assert_eq!(bench.applied(), [""; 0]);
}

/// A scan that failed and is tolerated blocks the effect, unless policy has seen it and agrees.
#[tokio::test]
async fn policy_sees_what_failed_and_may_let_it_pass() {
    for deny in [false, true] {
        let failed = |input: &Input| match input {
            Input::Effect(input) => matches!(input.scan, Scan::Failed { .. }),
            _ => false,
        };
        let rules = match deny {
            true => denying(failed, Reason::new("scan", "the scan failed")),
            false => Arc::new(Rules::default()),
        };
        let failing = Mutex::new([("scan".to_owned(), 9)].into());
        let mut bench = Bench::asking(&rules, World { failing, ..World::default() });
        let world = bench.world.clone();
        bench.tools.registry = bench.tools.registry.clone().worker("security.scan", world);
        let mut scan = work("scan", &[]);
        (scan.evidence, scan.continue_on_error, scan.uses) = (true, true, "security.scan".into());
        let end = bench.drive(bench.begin(vec![scan, send(&[0])]).await).await;
        assert_eq!((bench.applied().is_empty(), end.has_failed()), (deny, deny));
    }
}

#[tokio::test]
async fn what_may_have_been_sent_is_asked_about_again() {
    for (far_side, heard, status) in [
        (FarSide::Idempotent, true, RunStatus::Parked),
        (FarSide::Conditional, true, RunStatus::Parked),
        (FarSide::Queryable { window_ms: 60_000 }, true, RunStatus::Succeeded),
        (FarSide::Queryable { window_ms: 60_000 }, false, RunStatus::Failed),
    ] {
        // The first answer is yes; the policies of the next day say no.
        let asked = Mutex::new(0);
        let second = move |input: &Input| {
            let mut asked = asked.lock().expect("unpoisoned");
            *asked += u32::from(matches!(input, Input::Effect(_)));
            *asked > 1
        };
        let rules = denying(second, Reason::new("no", "not any more"));
        let lossy = Mutex::new(["send".to_owned()].into());
        let bench = Bench::asking(&rules, World { lossy, forgets: !heard, ..World::default() });
        let mut send = step("send", &[], StepKind::Effect(far_side));
        send.retry.backoff_ms = 1;
        let end = bench.drive(bench.begin(vec![send]).await).await;
        assert_eq!(end.status(), status, "{far_side:?} {heard}");
        assert_eq!(bench.applied(), ["send"], "once: {far_side:?} {heard}");
    }
}
