//! Cancelling, by a person and by the clock.

use super::*;

#[test]
fn a_run_is_cancelled_in_every_state() {
    let mut whole = Run::new(release());
    drive(&mut whole, &mut Far::default());
    for cut in 2..whole.journal.len() {
        let mut run = Run { journal: whole.journal[..cut].to_vec(), ..Run::new(release()) };
        run.state = RunState::begin(&run.journal[0]).expect("begins");
        for entry in &run.journal.clone()[1..] {
            run.state.apply(entry).expect("applies");
        }
        run.must(Command::Cancel { by: person("bob", &[]), reason: "stop".into() });
        let again = run.must(Command::Cancel { by: person("bob", &[]), reason: "stop".into() });
        assert_eq!(again, [], "it is cancelled once");
        for task in run.state.sets.running.clone() {
            let failure = Failure::new(FailureClass::Cancelled, "stopped");
            run.must(Command::Fail { task, failure, spent: Amount::ZERO });
        }
        for task in run.state.sets.intended.clone() {
            run.must(Command::Succeed { task, success: Success::default(), done: true });
        }
        drive(&mut run, &mut Far::default());
        assert_eq!(run.state.status(), RunStatus::Cancelled, "cut at {cut}: {}", run.steps());
    }
}

#[test]
fn cancelling_a_half_failed_step_ends_each_step_once() {
    let mut many = work("many", &[]);
    many.repeat = Repeat::ForEach { max: 5 };
    many.retry = Retry::never();
    let mut run = Run::new(plan(vec![many, work("beside", &[]), work("runs", &[])]));
    step(&mut run, &mut Far::default(), Work::Expand(StepIndex(0)));
    run.must(Command::Begin { task: run.task("runs"), reserve: None });
    run.fail("many", FailureClass::User);
    run.must(Command::Cancel { by: person("bob", &[]), reason: String::new() });
    assert_eq!(run.steps(), "many: failed, beside: not reached, runs: open");
    assert_eq!(run.act(Command::End), Err(Refusal::NotEnded), "one still runs");
    let failure = Failure::new(FailureClass::Cancelled, "stopped");
    run.must(Command::Fail { task: run.task("runs"), failure, spent: Amount::ZERO });
    assert_eq!(run.work(), [Work::End]);
}

#[test]
fn a_run_whose_time_is_up_is_cancelled_and_has_it_anew_when_it_goes_on() {
    let steps = vec![gate("ok", &[], 1)];
    let mut run = Run::new(Plan { timeout_ms: Some(500), ..plan(steps) });
    drive(&mut run, &mut Far::default());
    assert_eq!(run.state.agenda(1, 1, |_| false, |_| false).wake_at_ms, Some(501));
    run.now_ms = 501;
    drive(&mut run, &mut Far::default());
    assert_eq!(run.state.status(), RunStatus::Cancelled);
    let (by, reason) = (person("ann", &[]), String::new());
    run.must(Command::Reopen { from: None, inputs: BTreeMap::new(), by, reason });
    assert_eq!(run.work(), [Work::Ask(run.task("ok"))]);
}

#[test]
fn what_undoes_a_step_is_called_if_the_step_had_begun() {
    let steps = || {
        let mut steps = vec![work("a", &[]), work("b", &[0]), work("c", &[1])];
        for (id, of) in [("undo-a", 0), ("undo-b", 1), ("undo-c", 2)] {
            let trigger = Trigger::OnCancelOf(StepIndex(of));
            steps.push(StepPlan { trigger, ..work(id, &[]) });
        }
        steps
    };
    let mut run = Run::new(plan(steps()));
    let a = run.task("a");
    run.must(Command::Begin { task: a, reserve: None });
    run.must(Command::Succeed { task: a, success: Success::default(), done: true });
    run.must(Command::Begin { task: run.task("b"), reserve: None });
    run.must(Command::Cancel { by: person("bob", &[]), reason: String::new() });
    let failure = Failure::new(FailureClass::Cancelled, "stopped");
    run.must(Command::Fail { task: run.task("b"), failure, spent: Amount::ZERO });
    drive(&mut run, &mut Far::default());
    assert_eq!(
        run.steps(),
        "a: succeeded, b: cancelled, c: cancelled, undo-a: succeeded, undo-b: succeeded, \
         undo-c: skipped"
    );
    // Nobody cancelled this one.
    let mut run = Run::new(plan(steps()));
    drive(&mut run, &mut Far::default());
    assert!(run.steps().ends_with("undo-a: skipped, undo-b: skipped, undo-c: skipped"));
}
