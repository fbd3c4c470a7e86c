//! Runs from beginning to end, and cut at every entry of their journals.

use std::collections::BTreeMap;

use super::event::Item;
use super::fixture::*;
use super::*;

mod cancel;
mod gates;

/// A far side that remembers which keys it has seen, as one that deduplicates does.
#[derive(Clone, Default)]
pub(super) struct Far {
    seen: BTreeMap<String, String>,
    pub applied: u32,
}

impl Far {
    fn send(&mut self, key: &str, request: &str) {
        if self.seen.insert(key.to_owned(), request.to_owned()).is_none() {
            self.applied += 1;
        }
    }
}

/// Does all that is on the agenda, until nothing is. Conditions hold, `foreach` has two items.
pub(super) fn drive(run: &mut Run, far: &mut Far) {
    for _ in 0..10_000 {
        let agenda = run.state.agenda(run.now_ms, 1, |_| false, |_| false);
        match agenda.work.first() {
            Some(work) => step(run, far, *work),
            None => match agenda.wake_at_ms {
                Some(at) if run.state.status() != RunStatus::Waiting || has_backoff(run) => {
                    run.now_ms = at;
                }
                _ => return,
            },
        }
    }
    panic!("the run does not end: {}", run.steps());
}

fn has_backoff(run: &Run) -> bool {
    run.state.tasks.values().any(|task| matches!(task.status, TaskStatus::Backoff { .. }))
}

fn step(run: &mut Run, far: &mut Far, work: Work) {
    match work {
        Work::Expand(step) => {
            let item = |label: &str| Item { label: label.into(), value: label.into() };
            let items = match run.state.plan().steps[step.index()].repeat {
                Repeat::ForEach { .. } => vec![item("a"), item("b")],
                _ => vec![Item::only()],
            };
            run.must(Command::Expand { step, items });
        }
        Work::Execute(task) => {
            run.must(Command::Begin { task, reserve: None });
            let done = task.round == 1;
            run.must(Command::Succeed { task, success: Success::default(), done });
        }
        Work::Send(task) => {
            let request = format!("request of {}", run.state.name(task));
            let command = Command::Intend { task, request, past: Vec::new(), decision: None };
            run.must(command);
            settle(run, far, task);
        }
        Work::Settle(task) => settle(run, far, task),
        Work::Ask(task) => {
            let request = ApprovalRequest {
                subject: "s".into(),
                guarded: Vec::new(),
                summary: Vec::new(),
                asked_at_ms: run.now_ms,
                expires_at_ms: run.now_ms + 1_000,
            };
            run.must(Command::Ask { task, request });
        }
        Work::Expire(task) => {
            run.must(Command::Expire { task });
        }
        Work::TimeUp => {
            run.must(Command::Cancel { by: person("clock", &[]), reason: "time".into() });
        }
        Work::End => {
            run.must(Command::End);
        }
    }
}

fn settle(run: &mut Run, far: &mut Far, task: TaskId) {
    let TaskStatus::Intended(intent) = run.state.tasks[&task].status.clone() else {
        return;
    };
    if !intent.fresh && run.state.far_side(task) == Some(FarSide::Unknown) {
        run.must(Command::Park { task, why: "nobody knows".into() });
        return;
    }
    far.send(&intent.key, &intent.request);
    run.must(Command::Succeed { task, success: Success::default(), done: true });
}

pub(super) fn approve(run: &mut Run, gate: &str, who: &str) -> Result<Vec<Event>, Refusal> {
    let by = person(who, &["release-manager"]);
    let task = run.task(gate);
    run.act(Command::Approve { task, subject: "s".into(), by, reason: "fine".into() })
}

fn release() -> Plan {
    let mut test = work("test", &[0]);
    test.repeat = Repeat::ForEach { max: 10 };
    let mut poll = work("poll", &[1]);
    poll.repeat = Repeat::Until { max: 3, every_ms: 50 };
    plan(vec![
        work("build", &[]),
        test,
        poll,
        effect("deploy", &[2], FarSide::Idempotent),
        effect("notify", &[3], FarSide::Repeatable),
    ])
}

#[test]
fn a_run_goes_through_its_steps_in_order() {
    let mut run = Run::new(release());
    assert_eq!(run.work(), [Work::Execute(run.task("build"))]);
    let mut far = Far::default();
    drive(&mut run, &mut far);
    assert_eq!(run.state.status(), RunStatus::Succeeded);
    assert_eq!(far.applied, 2);
    let words: Vec<String> = run.state.tasks.keys().map(|task| run.state.name(*task)).collect();
    assert_eq!(words, ["build", "test[a]", "test[b]", "poll", "poll#2", "deploy", "notify"]);
}

#[test]
fn a_run_cut_anywhere_reaches_the_same_end() {
    let mut whole = Run::new(release());
    let mut far = Far::default();
    drive(&mut whole, &mut far);
    for cut in 1..=whole.journal.len() {
        // The far side has seen what was intended, and once more what the cut took the end of.
        for sent in [false, true] {
            let mut run = Run { journal: whole.journal[..cut].to_vec(), ..Run::new(release()) };
            run.state = RunState::begin(&run.journal[0]).expect("begins");
            let mut far = Far::default();
            for entry in &run.journal.clone()[1..] {
                run.state.apply(entry).expect("applies");
                let last = entry.sequence == run.journal.len() as u64;
                if let Event::EffectIntended { key, request, .. } = &entry.event
                    && (sent || !last)
                {
                    far.send(key, request);
                }
            }
            if run.state.ended.is_none() {
                run.own();
            }
            drive(&mut run, &mut far);
            assert_eq!(run.state.status(), RunStatus::Succeeded, "cut at {cut}");
            assert_eq!(far.applied, 2, "cut at {cut}");
            assert_eq!(run.steps(), whole.steps(), "cut at {cut}");
        }
    }
}

#[test]
fn an_effect_whose_far_side_tells_nothing_is_parked_after_a_crash() {
    let steps = vec![effect("pay", &[], FarSide::Unknown), work("after", &[0])];
    let mut run = Run::new(plan(steps));
    let pay = run.task("pay");
    let request = "pay 5".to_owned();
    run.must(Command::Intend { task: pay, request, past: Vec::new(), decision: None });
    run.own();
    drive(&mut run, &mut Far::default());
    assert_eq!(run.state.status(), RunStatus::Parked);
    let by = person("bob", &[]);
    let resolve = |resolution| Command::Resolve {
        task: pay,
        resolution,
        by: by.clone(),
        reason: "looked".into(),
    };
    let mut applied = Run { journal: run.journal.clone(), state: run.state.clone(), now_ms: 9 };
    applied.must(resolve(Resolution::Applied(BTreeMap::new())));
    drive(&mut applied, &mut Far::default());
    assert_eq!(applied.state.status(), RunStatus::Succeeded);

    run.must(resolve(Resolution::Redo));
    assert_eq!(run.state.generation(pay), 1);
    let mut far = Far::default();
    drive(&mut run, &mut far);
    assert_eq!((run.state.status(), far.applied), (RunStatus::Succeeded, 1));
    let again = run.act(resolve(Resolution::GiveUp));
    assert_eq!(again, Err(Refusal::Ended));
}

/// How a plan's steps end when one of them fails.
fn after_failure(mut steps: Vec<StepPlan>, failing: &str, keep_going: bool) -> (String, RunStatus) {
    for step in &mut steps {
        step.retry = Retry::never();
    }
    let mut run = Run::new(Plan { keep_going, ..plan(steps) });
    for _ in 0..100 {
        let Some(next) = run.work().first().copied() else { break };
        match next {
            Work::Execute(task) if run.state.name(task) == failing => {
                run.fail(failing, FailureClass::User);
            }
            other => step(&mut run, &mut Far::default(), other),
        }
    }
    (run.steps(), run.state.status())
}

#[test]
fn what_comes_after_a_failure() {
    let diamond = || vec![work("a", &[]), work("b", &[]), work("c", &[0]), work("d", &[1])];
    let (steps, status) = after_failure(diamond(), "a", false);
    assert_eq!(steps, "a: failed, b: not reached, c: not reached, d: not reached");
    assert_eq!(status, RunStatus::Failed);

    let (steps, _) = after_failure(diamond(), "a", true);
    assert_eq!(steps, "a: failed, b: succeeded, c: not reached, d: succeeded");

    let mut lenient = diamond();
    lenient[0].continue_on_error = true;
    let (steps, status) = after_failure(lenient, "a", false);
    assert_eq!(steps, "a: failed, b: succeeded, c: succeeded, d: succeeded");
    assert_eq!(status, RunStatus::Succeeded);

    let mut always = diamond();
    (always[2].even_after_failure, always[2].conditional) = (true, true);
    let (steps, status) = after_failure(always, "a", false);
    assert_eq!(steps, "a: failed, b: not reached, c: succeeded, d: not reached");
    assert_eq!(status, RunStatus::Failed);
}

#[test]
fn steps_that_a_failure_calls_run_when_the_flow_has_ended() {
    let mut steps = vec![work("a", &[]), work("b", &[0])];
    for (id, trigger, after) in [
        ("undo", Trigger::OnFailure(Some(StepIndex(0))), vec![]),
        ("undo-b", Trigger::OnFailure(Some(StepIndex(1))), vec![]),
        ("report", Trigger::OnFailure(None), vec![2]),
        ("stopped", Trigger::OnCancel, vec![]),
    ] {
        steps.push(StepPlan { trigger, ..work(id, &after) });
    }
    let (ends, status) = after_failure(steps.clone(), "a", false);
    let expected = "a: failed, b: not reached, undo: succeeded, undo-b: skipped, \
                    report: succeeded, stopped: skipped";
    assert_eq!((ends.as_str(), status), (expected, RunStatus::Failed));
    let (ends, status) = after_failure(steps, "nothing", false);
    let expected = "a: succeeded, b: succeeded, undo: skipped, undo-b: skipped, \
                    report: skipped, stopped: skipped";
    assert_eq!((ends.as_str(), status), (expected, RunStatus::Succeeded));
}

#[test]
fn a_failed_attempt_is_tried_again_and_a_crash_uses_none() {
    let mut run = Run::new(plan(vec![work("a", &[])]));
    let a = run.task("a");
    run.must(Command::Begin { task: a, reserve: None });
    run.own();
    assert_eq!(run.state.tasks[&a].attempt, 0);
    for attempt in 1..=3 {
        run.fail("a", FailureClass::Infrastructure);
        assert_eq!(run.state.tasks[&a].attempt, attempt);
    }
    assert_eq!(run.steps(), "a: failed");
}

#[test]
fn a_request_that_is_too_large_fails_its_step() {
    let steps = vec![effect("send", &[], FarSide::Idempotent)];
    let mut run = Run::new(plan(steps));
    let request = "x".repeat(crate::limits::RUN_REQUEST_BYTES_MAX + 1);
    let task = run.task("send");
    run.must(Command::Intend { task, request, past: Vec::new(), decision: None });
    assert_eq!(run.steps(), "send: failed");
}

#[test]
fn a_call_that_does_not_fit_its_budget_is_not_made() {
    let mut steps = vec![work("ask", &[])];
    steps[0].repeat = Repeat::ForEach { max: 10 };
    let cap = Cap { usd_micros: Some(10), ..Cap::default() };
    let mut run = Run::new(Plan { cap, keep_going: true, ..plan(steps) });
    step(&mut run, &mut Far::default(), Work::Expand(StepIndex(0)));
    let amount = |usd_micros| Amount { usd_micros, tokens: 0 };
    let first = run.task("ask");
    let second = TaskId { item: 1, ..first };
    run.must(Command::Begin { task: first, reserve: Some(amount(6)) });
    let denied = run.must(Command::Begin { task: second, reserve: Some(amount(5)) });
    let [Event::TaskFailed { failure, retry_at_ms: None, .. }] = &denied[..] else {
        panic!("{denied:?}");
    };
    assert_eq!(failure.class, FailureClass::Budget);
    let message = "the budget of the run leaves no room: 0.00 of 0.00001 USD spent, \
                   0.000006 reserved, 0.000005 asked";
    assert_eq!(failure.message, message);
    run.own();
    assert_eq!(run.state.ledger.run().settled, amount(6), "nobody saw its end");
}

#[test]
fn rounds_end() {
    let mut steps = vec![work("poll", &[])];
    steps[0].repeat = Repeat::Until { max: 2, every_ms: 10 };
    let mut run = Run::new(plan(steps));
    let first = run.task("poll");
    let round = |run: &mut Run, task| {
        run.must(Command::Begin { task, reserve: None });
        run.must(Command::Succeed { task, success: Success::default(), done: false })
    };
    round(&mut run, first);
    let early = run.act(Command::Begin { task: first.next_round(), reserve: None });
    assert!(matches!(early, Err(Refusal::State { .. })));
    run.now_ms += 10;
    let events = round(&mut run, first.next_round());
    assert!(matches!(events[..], [Event::TaskFailed { .. }]), "{events:?}");
}

#[test]
fn a_run_goes_on_after_its_end() {
    let steps = vec![
        work("build", &[]),
        gate("ok", &[0], 1),
        effect("deploy", &[1], FarSide::Idempotent),
        effect("notify", &[2], FarSide::Idempotent),
    ];
    let mut run = Run::new(plan(steps));
    let mut far = Far::default();
    drive(&mut run, &mut far);
    approve(&mut run, "ok", "bob").expect("approved");
    let (deploy, notify) = (run.task("deploy"), run.task("notify"));
    for (task, fails) in [(deploy, false), (notify, true)] {
        run.must(Command::Intend { task, request: "x".into(), past: vec![], decision: None });
        if fails {
            let failure = Failure::new(FailureClass::User, "no such channel");
            run.must(Command::Fail { task, failure, spent: Amount::ZERO });
        } else {
            run.must(Command::Succeed { task, success: Success::default(), done: true });
        }
    }
    run.must(Command::End);
    assert_eq!(run.state.status(), RunStatus::Failed);
    let reopen = |from| Command::Reopen {
        from,
        inputs: BTreeMap::new(),
        by: person("ann", &[]),
        reason: "mended".into(),
    };
    run.must(reopen(None));
    assert_eq!(run.steps(), "build: succeeded, ok: open, deploy: succeeded, notify: open");
    assert_eq!(run.work(), [Work::Ask(run.task("ok"))], "the gate holds what is done once more");
    assert_eq!(run.state.generation(notify), 1);
    assert_eq!(run.state.generation(deploy), 0);
    drive(&mut run, &mut far);
    approve(&mut run, "ok", "bob").expect("approved once more");
    drive(&mut run, &mut far);
    assert_eq!(run.state.status(), RunStatus::Succeeded);
    run.must(reopen(Some(StepIndex(0))));
    assert_eq!(run.steps(), "build: open, ok: waiting, deploy: waiting, notify: waiting");
    assert_eq!(run.state.generation(deploy), 1);
}

#[test]
fn a_journal_that_does_not_follow_is_refused() {
    let run = Run::new(release());
    let again = Entry { sequence: 3, ..run.journal[1].clone() };
    let cases = [
        (Entry { sequence: 9, ..run.journal[1].clone() }, "2 came before it"),
        (again, "its epoch is 1, after 1"),
        (Entry { sequence: 3, epoch: 1, ..run.journal[0].clone() }, "a run is created once"),
        (
            Entry {
                sequence: 3,
                epoch: 1,
                at_ms: 1,
                event: Event::StepSkipped { step: StepIndex(400) },
            },
            "the turn of step number 400 has not come",
        ),
    ];
    for (entry, why) in cases {
        let mut state = run.state.clone();
        let error = state.apply(&entry).expect_err(why);
        assert!(error.why.contains(why), "{error}");
    }
}

#[test]
fn ten_thousand_steps_and_ten_thousand_items_are_folded_quickly() {
    let chain = (0..10_000u32).map(|n| {
        let after: Vec<u32> = n.checked_sub(1).into_iter().collect();
        work(&format!("s{n}"), &after)
    });
    let mut state = Run::new(plan(chain.collect())).state;
    let mut act = |command| {
        for event in decide(&state, command, 1).expect("allowed") {
            let (sequence, epoch) = (state.sequence + 1, state.epoch);
            state.apply(&Entry { sequence, epoch, at_ms: 1, event }).expect("applies");
        }
        state.agenda(1, 1, |_| false, |_| false).work
    };
    let mut work = act(Command::Begin { task: TaskId::default(), reserve: None });
    assert_eq!(work, []);
    let mut task = TaskId::default();
    for _ in 0..9_999 {
        work = act(Command::Succeed { task, success: Success::default(), done: true });
        let [Work::Execute(next)] = work[..] else { panic!("{work:?}") };
        task = next;
        act(Command::Begin { task, reserve: None });
    }
    let failure = Failure::new(FailureClass::User, "x");
    assert_eq!(act(Command::Fail { task, failure, spent: Amount::ZERO }), [Work::End]);
}

#[test]
fn no_journal_makes_the_fold_panic() {
    let mut whole = Run::new(release());
    drive(&mut whole, &mut Far::default());
    let mut foreign =
        Run::new(plan(vec![gate("ok", &[], 1), effect("pay", &[0], FarSide::Unknown)]));
    drive(&mut foreign, &mut Far::default());
    approve(&mut foreign, "ok", "bob").expect("approved");
    drive(&mut foreign, &mut Far::default());
    let by = person("bob", &[]);
    let reopened = |from| Event::RunReopened {
        from: Some(StepIndex(from)),
        inputs: BTreeMap::new(),
        by: by.clone(),
        reason: String::new(),
    };
    let all = whole.journal.iter().chain(&foreign.journal).map(|entry| entry.event.clone());
    let all: Vec<Event> = all.chain([reopened(0), reopened(3), reopened(77)]).collect();
    let mut state = RunState::begin(&whole.journal[0]).expect("begins");
    let (mut taken, mut refused) = (0, 0);
    for entry in &whole.journal[1..] {
        for event in &all {
            let owned = matches!(event, Event::Owned { .. });
            let (sequence, epoch) = (state.sequence + 1, state.epoch + u64::from(owned));
            let stray = Entry { sequence, epoch, at_ms: 5, event: event.clone() };
            match state.clone().apply(&stray) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
        }
        state.apply(entry).expect("applies");
    }
    assert!(taken > whole.journal.len() && refused > taken, "{taken} taken, {refused} refused");
}
