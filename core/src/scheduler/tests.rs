//! Each rule of the scheduler by itself, with the decisions that it gives.

use super::*;
use crate::digest::DigestFunction;
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const GIB: u64 = 1 << 30;

fn action(name: &str) -> Action {
    Action { instance: "".into(), digest: DigestFunction::Blake3.digest(name.as_bytes()) }
}

fn cores(cpu_milli: u64) -> Requirements {
    Requirements { demand: Demand { cpu_milli, ..Demand::default() }, ..Requirements::default() }
}

fn with_cores(cpu_milli: u64) -> Offer {
    let properties = BTreeMap::from([("os".to_owned(), BTreeSet::from(["linux".to_owned()]))]);
    Offer { properties, cpu_milli, memory_bytes: 64 * GIB, gpus: Vec::new() }
}

/// An operation of one core of tenant `t` that may be merged.
fn submission(operation: u64, name: &str) -> Submission {
    Submission {
        operation: OperationId(operation),
        tenant: "t".into(),
        invocation: "i".into(),
        action: action(name),
        requirements: cores(1_000),
        priority: 0,
        timeout_ms: 60_000,
        merge: true,
    }
}

/// A scheduler with its clock, which checks the state after each command.
struct World {
    scheduler: Scheduler,
    now_ms: u64,
}

impl World {
    fn new() -> Self {
        Self { scheduler: Scheduler::new(1), now_ms: 1_000 }
    }

    /// What a command leads to, one word for each decision.
    fn act(&mut self, command: Command) -> String {
        let decisions = self.scheduler.apply(command, self.now_ms);
        self.scheduler.check().expect("the state hangs together");
        decisions.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn submit(&mut self, operation: u64, name: &str) -> String {
        self.act(Command::Submit(submission(operation, name)))
    }

    fn join(&mut self, worker: u64, offer: Offer) -> String {
        let (worker, models, holds) = (WorkerId(worker), BTreeSet::new(), BTreeSet::new());
        self.act(Command::Join { worker, offer, models, holds })
    }

    fn beat(&mut self, worker: u64, holds: &[u64]) -> String {
        let holds = holds.iter().map(|id| LeaseId(*id)).collect();
        self.act(Command::Heartbeat { worker: WorkerId(worker), holds, models: BTreeSet::new() })
    }

    fn finish(&mut self, worker: u64, lease: u64, outcome: Outcome) -> String {
        let (worker, lease) = (WorkerId(worker), LeaseId(lease));
        self.act(Command::Finished { worker, lease, outcome })
    }

    fn after(&mut self, ms: u64) -> String {
        self.now_ms += ms;
        self.act(Command::Tick)
    }
}

fn word(decision: &Decision) -> String {
    let mut text = String::new();
    let written = match decision {
        Decision::Assigned(a) => {
            write!(text, "assign:{}@{}", a.lease, a.worker).expect("a string takes text");
            let gpus = a.gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            if gpus.is_empty() { Ok(()) } else { write!(text, "[{gpus}]") }
        }
        Decision::Revoked { lease, worker } => write!(text, "revoke:{lease}@{worker}"),
        Decision::Dismissed { worker } => write!(text, "dismiss:{worker}"),
        Decision::Drained { worker } => write!(text, "drained:{worker}"),
        Decision::Staged { operation, stage } => {
            let stage = if *stage == Stage::Queued { "queued" } else { "executing" };
            write!(text, "{stage}:{operation}")
        }
        Decision::Ended { operation, ending } => match ending {
            Ending::Result(lease) => write!(text, "result:{operation}={lease}"),
            Ending::Cancelled => write!(text, "cancelled:{operation}"),
            Ending::Rejected(why) => write!(text, "rejected:{operation}({why})"),
            Ending::Overran => write!(text, "overran:{operation}"),
            Ending::Faulted { attempts } => write!(text, "faulted:{operation}*{attempts}"),
        },
    };
    written.expect("a string takes text");
    text
}

#[test]
fn an_action_waits_runs_and_ends() {
    let mut w = World::new();
    assert_eq!(w.submit(1, "a"), "queued:1");
    assert_eq!(w.join(7, with_cores(1_000)), "assign:1@7 executing:1");
    assert_eq!(w.submit(2, "b"), "queued:2");
    assert_eq!(w.finish(7, 1, Outcome::Result), "result:1=1 assign:2@7 executing:2");
    assert_eq!(w.finish(7, 1, Outcome::Result), "", "a lease ends once");
    assert_eq!(w.finish(8, 2, Outcome::Result), "", "only who holds a lease ends it");
    assert_eq!(w.finish(7, 2, Outcome::Result), "result:2=2");
    assert_eq!(w.scheduler.load(), Load { workers: 1, ..Load::default() });
}

#[test]
fn equal_actions_run_once_until_the_last_leaves() {
    let mut w = World::new();
    w.join(7, with_cores(4_000));
    assert_eq!(w.submit(1, "a"), "queued:1 assign:1@7 executing:1");
    assert_eq!(w.submit(2, "a"), "executing:2");
    let alone = Submission { merge: false, ..submission(3, "a") };
    assert_eq!(w.act(Command::Submit(alone)), "queued:3 assign:2@7 executing:3");
    assert_eq!(w.act(Command::Cancel(OperationId(1))), "cancelled:1");
    assert_eq!(w.submit(4, "a"), "executing:4");
    assert_eq!(w.finish(7, 1, Outcome::Result), "result:2=1 result:4=1");
    assert_eq!(w.act(Command::Cancel(OperationId(3))), "cancelled:3 revoke:2@7");
    assert_eq!(w.submit(5, "a"), "queued:5 assign:3@7 executing:5", "an end is an end");
}

#[test]
fn a_silent_worker_loses_its_leases_and_what_it_says_later_is_void() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    assert_eq!(w.after(0), "");
    assert_eq!(w.after(limits::LEASE_MS - 1), "");
    assert_eq!(w.after(1), "queued:1");
    assert_eq!(w.join(8, with_cores(1_000)), "assign:2@8 executing:1");
    assert_eq!(w.finish(7, 1, Outcome::Result), "");
    assert_eq!(w.beat(7, &[1]), "dismiss:7");
    assert_eq!(w.join(7, with_cores(1_000)), "");
    assert_eq!(w.beat(7, &[2]), "revoke:2@7", "it is the lease of another");
    assert_eq!(w.finish(8, 2, Outcome::Result), "result:1=2");
}

#[test]
fn a_lease_that_its_worker_does_not_name_is_lost() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    for _ in 0..4 {
        assert_eq!(w.after(limits::HEARTBEAT_MS), "");
        assert_eq!(w.beat(7, &[]), "");
    }
    w.now_ms += limits::HEARTBEAT_MS;
    w.beat(7, &[]);
    assert_eq!(w.after(0), "revoke:1@7 queued:1 assign:2@7 executing:1");
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_names() {
    let mut w = World::new();
    w.join(7, with_cores(2_000));
    w.submit(1, "a");
    w.submit(2, "b");
    let holds = BTreeSet::from([LeaseId(1), LeaseId(99)]);
    let (worker, models) = (WorkerId(7), BTreeSet::new());
    let back = Command::Join { worker, offer: with_cores(2_000), models, holds };
    assert_eq!(w.act(back), "revoke:99@7 queued:2 assign:3@7 executing:2");
}

#[test]
fn faults_are_tried_elsewhere_and_not_for_ever() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    w.join(8, with_cores(1_000));
    assert_eq!(w.finish(7, 1, Outcome::Fault), "queued:1 assign:2@8 executing:1");
    assert_eq!(w.finish(8, 2, Outcome::Fault), "queued:1", "both rest");
    assert_eq!(w.after(limits::WORKER_REST_MS), "assign:3@7 executing:1");
    w.beat(8, &[]);
    w.finish(7, 3, Outcome::Fault);
    w.submit(2, "b");
    assert_eq!(w.finish(8, 4, Outcome::Fault), "queued:1", "it has the better age");
    w.after(2 * limits::WORKER_REST_MS);
    let last = w.finish(7, 5, Outcome::Fault);
    assert!(last.contains("faulted:1*5"), "{last}");
}

#[test]
fn a_worker_that_drains_ends_when_it_is_idle() {
    let mut w = World::new();
    w.join(7, with_cores(2_000));
    w.submit(1, "a");
    assert_eq!(w.act(Command::Drain(WorkerId(7))), "");
    assert_eq!(w.submit(2, "b"), "queued:2");
    assert_eq!(w.finish(7, 1, Outcome::Result), "drained:7 result:1=1");
    assert_eq!(w.act(Command::Leave(WorkerId(7))), "");
    assert_eq!(w.join(8, with_cores(1_000)), "assign:2@8 executing:2");
    assert_eq!(w.act(Command::Leave(WorkerId(8))), "queued:2");
}

#[test]
fn tenants_take_turns_then_priorities_then_builds() {
    let mut w = World::new();
    let of = |operation: u64, tenant: &str, build: &str, priority| {
        let (tenant, invocation) = (tenant.into(), build.into());
        let name = operation.to_string();
        Command::Submit(Submission { tenant, invocation, priority, ..submission(operation, &name) })
    };
    for operation in 1..=3 {
        w.act(of(operation, "big", "first", 0));
    }
    w.act(of(4, "big", "second", 0));
    w.act(of(5, "big", "third", -1));
    w.act(of(6, "small", "only", 9));
    let all = w.join(7, with_cores(6_000));
    let order: Vec<&str> =
        all.split(' ').filter_map(|word| word.strip_prefix("executing:")).collect();
    assert_eq!(order, ["5", "6", "1", "4", "2", "3"]);
}

#[test]
fn what_nobody_offers_is_said() {
    let mut w = World::new();
    let asking = |operation: u64, name: &str, value: &str, cpu| {
        let properties = BTreeSet::from([(name.to_owned(), value.to_owned())]);
        let requirements = Requirements { properties, ..cores(cpu) };
        Command::Submit(Submission {
            requirements,
            ..submission(operation, &operation.to_string())
        })
    };
    assert_eq!(w.act(asking(1, "os", "linux", 1)), "queued:1", "workers may come");
    assert_eq!(w.after(limits::UNSERVED_MS_MAX), "rejected:1(no worker is connected)");
    w.join(7, with_cores(2_000));
    assert_eq!(
        w.act(asking(2, "colour", "red", 1)),
        "rejected:2(no worker knows the platform property `colour`; they know `os`)"
    );
    w.act(asking(3, "os", "windows", 1));
    w.act(asking(4, "os", "linux", 3_000));
    w.now_ms += limits::UNSERVED_MS_MAX;
    w.beat(7, &[]);
    assert_eq!(
        w.after(0),
        "rejected:3(no worker offers `os=windows`; of that name they offer `linux`) \
         rejected:4(it needs 3000 thousandths of a core, and workers have up to 2000)"
    );
}

#[test]
fn devices_are_shared_by_their_memory() {
    let mut w = World::new();
    let gpu = |model: &str, gib| Gpu { model: model.into(), vram_bytes: gib * GIB };
    let gpus = vec![gpu("h100", 80), gpu("h100", 80), gpu("l4", 24)];
    w.join(7, Offer { gpus, ..with_cores(64_000) });
    let wants = |operation: u64, gpus, gib, model: Option<&str>| {
        let gpu_model = model.map(str::to_owned);
        let demand =
            Demand { cpu_milli: 1, gpus, vram_bytes: gib * GIB, gpu_model, memory_bytes: 1 };
        let requirements = Requirements { demand, ..Requirements::default() };
        let name = operation.to_string();
        Command::Submit(Submission { requirements, ..submission(operation, &name) })
    };
    assert_eq!(w.act(wants(1, 1, 20, None)), "queued:1 assign:1@7[2] executing:1");
    assert_eq!(w.act(wants(2, 1, 20, None)), "queued:2 assign:2@7[0] executing:2");
    assert_eq!(w.act(wants(3, 1, 60, None)), "queued:3 assign:3@7[0] executing:3");
    assert_eq!(w.act(wants(4, 1, 0, Some("h100"))), "queued:4 assign:4@7[1] executing:4");
    assert_eq!(w.act(wants(5, 1, 10, Some("h100"))), "queued:5");
    assert_eq!(w.finish(7, 4, Outcome::Result), "result:4=4 assign:5@7[1] executing:5");
    assert_eq!(w.act(wants(6, 2, 0, Some("h100"))), "queued:6");
    assert_eq!(w.act(wants(7, 1, 5, None)), "queued:7 assign:6@7[1] executing:7");
}

#[test]
fn a_warm_model_is_preferred_and_then_the_fullest_worker() {
    let mut w = World::new();
    w.join(7, with_cores(4_000));
    w.join(8, with_cores(8_000));
    w.join(9, with_cores(8_000));
    let models = BTreeSet::from(["llama".to_owned()]);
    w.act(Command::Heartbeat { worker: WorkerId(9), holds: BTreeSet::new(), models });
    assert_eq!(w.submit(1, "a"), "queued:1 assign:1@7 executing:1");
    let requirements = Requirements { model: Some("llama".to_owned()), ..cores(1_000) };
    let asks = Submission { requirements, ..submission(2, "b") };
    assert_eq!(w.act(Command::Submit(asks)), "queued:2 assign:2@9 executing:2");
}

#[test]
fn a_large_action_gets_a_worker_in_the_end() {
    let mut w = World::new();
    w.join(7, with_cores(2_000));
    w.submit(1, "a");
    w.submit(2, "b");
    let large =
        Submission { requirements: cores(2_000), tenant: "large".into(), ..submission(3, "large") };
    assert_eq!(w.act(Command::Submit(large)), "queued:3");
    w.submit(4, "d");
    assert!(w.finish(7, 1, Outcome::Result).contains("assign:3@7"), "it is passed at first");
    w.submit(5, "e");
    w.now_ms += limits::RESERVE_AFTER_MS - 1;
    w.beat(7, &[2, 3]);
    w.after(1);
    assert_eq!(w.finish(7, 2, Outcome::Result), "result:2=2", "the worker is reserved");
    let next = w.finish(7, 3, Outcome::Result);
    assert_eq!(next, "result:4=3 assign:4@7 executing:3");
    let last = w.finish(7, 4, Outcome::Result);
    assert_eq!(last, "result:3=4 assign:5@7 executing:5", "and then it is not");
}

#[test]
fn a_client_may_come_back_for_a_while() {
    let mut w = World::new();
    w.submit(1, "a");
    w.submit(2, "b");
    w.act(Command::Detach(OperationId(1)));
    w.act(Command::Detach(OperationId(2)));
    w.act(Command::Attach(OperationId(2)));
    w.join(7, with_cores(2_000));
    for _ in 0..limits::ABANDONED_MS / limits::HEARTBEAT_MS - 1 {
        w.now_ms += limits::HEARTBEAT_MS;
        assert_eq!(w.beat(7, &[1, 2]), "");
    }
    assert_eq!(w.after(limits::HEARTBEAT_MS), "cancelled:1 revoke:1@7");
}

#[test]
fn a_worker_that_does_not_stop_an_action_loses_it() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    w.now_ms += 60_000 + limits::LEASE_TRANSFER_MS_MAX;
    w.beat(7, &[1]);
    assert_eq!(w.after(0), "revoke:1@7 overran:1");
}

#[test]
fn a_tenant_may_not_fill_the_server() {
    let mut w = Scheduler::new(1);
    for operation in 0..=limits::TENANT_OPERATIONS_MAX as u64 {
        let full = w.apply(Command::Submit(submission(operation, &operation.to_string())), 0);
        let rejected = matches!(full.as_slice(), [Decision::Ended { .. }]);
        assert_eq!(rejected, operation == limits::TENANT_OPERATIONS_MAX as u64);
    }
    let other = Submission { tenant: "other".into(), ..submission(u64::MAX, "x") };
    let other = w.apply(Command::Submit(other), 0);
    assert!(matches!(other.as_slice(), [Decision::Staged { .. }]));
}

#[test]
fn a_server_that_slept_loses_nobody() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    assert_eq!(w.after(10 * limits::LEASE_MS), "");
    assert_eq!(w.beat(7, &[1]), "");
    assert_eq!(w.finish(7, 1, Outcome::Result), "result:1=1");
}

#[test]
fn a_lost_worker_that_drained_is_told_nothing() {
    let mut w = World::new();
    w.join(7, with_cores(1_000));
    w.submit(1, "a");
    w.act(Command::Drain(WorkerId(7)));
    w.now_ms += limits::UNSERVED_MS_MAX;
    assert_eq!(w.act(Command::Leave(WorkerId(7))), "queued:1");
    assert_eq!(w.after(0), "", "it waits for another worker from now on");
    assert_eq!(w.join(8, with_cores(1_000)), "assign:2@8 executing:1");
}
