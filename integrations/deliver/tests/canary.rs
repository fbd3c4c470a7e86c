//! Canaries at a deployment gate and a proxy, killed at every request that they make.

#[path = "support/far.rs"]
mod far;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::Arc;

use far::{Far, Kill, World};
use maestro_core::run::{Failure, FailureClass};
use maestro_deliver::Rollout;
use maestro_executor::leftovers::KEY_VARIABLE;
use maestro_executor::step::{Effect as _, Found, Reply, Stop};
use serde_json::{Value, json};

const KEY: &str = "00ff";
/// More requests than any rollout here makes.
const REQUESTS_MAX: usize = 200;

fn rollout(scratch: &Path) -> Rollout {
    Rollout::new(shop::options(scratch, Path::new("git")), Arc::new(shop::OneSecret))
        .expect("a client")
}

/// Sends, with a caller that dies where the far side says so, and settles what is left.
async fn run(far: &Far, changes: Value) -> Reply {
    run_as(KEY, far, changes).await
}

async fn run_as(key: &str, far: &Far, changes: Value) -> Reply {
    let scratch = tempfile::tempdir().expect("a folder");
    let rollout = rollout(scratch.path());
    let request = rollout.render(&far.inputs(changes)).expect("a request");
    let stop = Stop::new();
    tokio::select! {
        reply = rollout.send(&request, key, &stop) => reply,
        () = far.killed.cancelled() => shop::settle(&rollout, &request, key).await,
    }
}

fn kills() -> impl Iterator<Item = Kill> {
    (1..REQUESTS_MAX).flat_map(|number| [Kill::Before(number), Kill::After(number)])
}

#[tokio::test]
async fn a_canary_that_is_killed_anywhere_sets_each_weight_once() {
    let mut points = 0;
    for kill in kills() {
        let far = Far::start(World { pending: 1, ..World::default() }, 101, kill);
        let reply = run(&far, json!({})).await;
        let Reply::Done(success) = reply else { panic!("{kill:?}: {reply:?}") };
        let expected = json!({
            "previous": "d1", "result": "deployed", "revision": "d2", "weight": 100,
        });
        assert_eq!(json!(success.outputs), expected, "{kill:?}");
        let world = far.world();
        assert_eq!(world.weights, [5, 25, 50, 100], "{kill:?}");
        let mut watched = world.asked_at.clone();
        watched.dedup();
        assert_eq!(watched, [5, 25, 50, 100], "{kill:?}: a step was not watched");
        let deployment = world.deployment.as_ref().expect("a deployment");
        assert_eq!(deployment["outcome"], "deployed", "{kill:?}");
        if !far.killed.is_cancelled() {
            break;
        }
        points += 1;
    }
    // Two for each: gate 2+2+1, proxy 1 and for each step 1+3, probe 4.
    assert!(points > 40, "only {points} kills");
}

#[tokio::test]
async fn a_probe_that_goes_bad_at_25_takes_it_back_wherever_it_is_killed() {
    let mut points = 0;
    for kill in kills() {
        let far = Far::start(World::default(), 25, kill);
        let reply = run(&far, json!({})).await;
        let Reply::Refused(failure) = reply else { panic!("{kill:?}: {reply:?}") };
        let said = "at 25 %, 1 of 1 answers were bad, the last: status 503";
        assert!(failure.message.ends_with(said), "{kill:?}: {}", failure.message);
        assert!(failure.message.starts_with("rolled back"), "{kill:?}: {}", failure.message);
        assert_eq!(failure.class, FailureClass::User);
        let world = far.world();
        assert_eq!(world.weights, [5, 25, 0], "{kill:?}");
        let deployment = world.deployment.as_ref().expect("a deployment");
        assert_eq!(deployment["outcome"], "rolled-back", "{kill:?}");
        assert_eq!(deployment["reason"], said, "{kill:?}");
        if !far.killed.is_cancelled() {
            break;
        }
        points += 1;
    }
    assert!(points > 20, "only {points} kills");
}

#[tokio::test]
async fn a_rollback_that_was_killed_is_ended_though_the_run_is_cancelled() {
    let (mut stood, mut ended) = (0, 0);
    for kill in kills() {
        let far = Far::start(World::default(), 25, kill);
        let scratch = tempfile::tempdir().expect("a folder");
        let rollout = rollout(scratch.path());
        let request = rollout.render(&far.inputs(json!({}))).expect("a request");
        let going = Stop::new();
        tokio::select! {
            _ = rollout.send(&request, KEY, &going) => break,
            () = far.killed.cancelled() => {}
        }
        let before = far.world().weights.clone();
        let deployment = far.world().deployment.clone();
        let is_noted = deployment.is_some_and(|own| own["outcome"] == "rolled-back");
        let cancelled = Stop::new();
        cancelled.cancel();
        let found = rollout.find(&request, KEY, &cancelled).await;
        if is_noted {
            assert_eq!(far.world().weights, [5, 25, 0], "{kill:?}");
            assert_eq!(found, Found::NotDone, "{kill:?}");
            ended += 1;
        } else {
            assert_eq!(far.world().weights, before, "{kill:?}: nothing goes on");
            stood += 1;
        }
    }
    assert!(stood > 10 && ended > 3, "{stood} and {ended}");
}

#[tokio::test]
async fn a_rollout_that_ended_is_not_done_again() {
    for (bad_from, weights) in [(101, vec![5, 25, 50, 100]), (25, vec![5, 25, 0])] {
        let far = Far::start(World::default(), bad_from, Kill::Never);
        let first = run(&far, json!({})).await;
        let second = run(&far, json!({})).await;
        assert_eq!(matches!(first, Reply::Done(_)), matches!(second, Reply::Done(_)));
        assert_eq!(far.world().weights, weights);
    }
}

#[tokio::test]
async fn without_a_proxy_the_gate_deploys_and_the_probe_still_decides() {
    let verdict = || World { verdict: "deployed".into(), weight: 100, ..World::default() };
    let plain = json!({"strategy": "all-at-once", "traffic": null});
    let far = Far::start(verdict(), 101, Kill::Never);
    assert!(matches!(run(&far, plain.clone()).await, Reply::Done(_)));
    assert_eq!(far.world().asked_at, [100]);
    let far = Far::start(verdict(), 50, Kill::Never);
    let reply = run(&far, plain).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    assert!(failure.message.contains("at 100 %"), "{}", failure.message);
    assert_eq!(far.world().deployment.as_ref().expect("one")["outcome"], "rolled-back");
}

#[tokio::test]
async fn a_gate_that_is_away_for_a_while_is_waited_for() {
    let far = Far::start(World { away: 2, ..World::default() }, 101, Kill::Never);
    let reply = run(&far, json!({})).await;
    assert!(matches!(reply, Reply::Done(_)), "{reply:?}");
    assert_eq!(far.world().weights, [5, 25, 50, 100]);
}

#[tokio::test]
async fn who_cancels_while_the_gate_decides_has_not_undone_the_asking() {
    let far = Far::start(World { pending: u32::MAX, ..World::default() }, 101, Kill::Never);
    let scratch = tempfile::tempdir().expect("a folder");
    let rollout = rollout(scratch.path());
    let request = rollout.render(&far.inputs(json!({}))).expect("a request");
    let stop = Stop::new();
    let cancel = async {
        while far.world().deployment.is_none() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (reply, ()) = tokio::join!(rollout.send(&request, KEY, &stop), cancel);
    let Reply::Unclear(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.class, FailureClass::Cancelled);
    let Reply::Refused(failure) = rollout.send(&request, "01", &stop).await else { panic!("sent") };
    assert_eq!(failure.class, FailureClass::Cancelled);
}

#[tokio::test]
async fn a_gate_that_denies_is_believed() {
    let far = Far::start(World { verdict: "denied".into(), ..World::default() }, 101, Kill::Never);
    let reply = run(&far, json!({})).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.class, FailureClass::Policy);
    assert_eq!(failure.message, "the gate denies it: it gives no reason");
    assert!(far.world().weights.is_empty());
}

#[tokio::test]
async fn a_person_decides_where_rollback_is_manual() {
    let far = Far::start(World::default(), 25, Kill::Never);
    let reply = run(&far, json!({"rollback": "manual"})).await;
    let Reply::Unclear(failure) = reply else { panic!("{reply:?}") };
    assert!(failure.message.ends_with("it stays at 25 %"), "{}", failure.message);
    assert_eq!(far.world().weights, [5, 25]);
}

#[tokio::test]
async fn traffic_that_is_on_its_way_already_is_left_alone() {
    let far = Far::start(World { weight: 25, ..World::default() }, 101, Kill::Never);
    let reply = run(&far, json!({})).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.message, "25 % of the traffic are there already");
    let world = far.world();
    assert!(world.weights.is_empty() && world.deployment.is_none());
}

#[tokio::test]
async fn traffic_that_somebody_else_moves_is_a_matter_for_people() {
    let far = Far::start(World::default(), 101, Kill::Never);
    let scratch = tempfile::tempdir().expect("a folder");
    let rollout = rollout(scratch.path());
    let (request, failure) = standing_at_5(&far, &rollout).await;
    assert_eq!(failure.class, FailureClass::Cancelled);
    assert_eq!(failure.message, "cancelled while 5 % were watched; it stays there");

    far.world().weight = 37;
    let found = rollout.find(&request, KEY, &Stop::new()).await;
    let message = "the traffic is at 37 %, which is no step".to_owned();
    assert_eq!(found, maestro_executor::step::Found::Unclear(message));
    assert_eq!(far.world().weights, [5]);
}

/// A rollout that stands at 5 % because its caller stopped there, and what it said to that.
async fn standing_at_5(far: &Far, rollout: &Rollout) -> (String, Failure) {
    // Watched for an hour, so that it stands at the first step.
    let request = rollout.render(&far.inputs(json!({"pause": "1h"}))).expect("a request");
    let stop = Stop::new();
    let cancel = async {
        while far.world().asked_at.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (reply, ()) = tokio::join!(rollout.send(&request, KEY, &stop), cancel);
    let Reply::Unclear(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(far.world().weights, [5]);
    (request, failure)
}

#[tokio::test]
async fn a_gate_that_takes_its_word_back_gets_the_traffic_back_first() {
    for verdict in ["denied", "failed", "rolled-back"] {
        let far = Far::start(World::default(), 101, Kill::Never);
        let scratch = tempfile::tempdir().expect("a folder");
        let rollout = rollout(scratch.path());
        let (request, _) = standing_at_5(&far, &rollout).await;
        far.world().verdict = verdict.into();
        let reply = rollout.send(&request, KEY, &Stop::new()).await;
        assert!(matches!(reply, Reply::Refused(_)), "{verdict}: {reply:?}");
        assert_eq!(far.world().weights, [5, 0], "{verdict}");
    }
}

#[tokio::test]
async fn traffic_that_a_person_moved_is_not_called_rolled_back() {
    for verdict in ["denied", "rolled-back"] {
        let far = Far::start(World::default(), 101, Kill::Never);
        let scratch = tempfile::tempdir().expect("a folder");
        let rollout = rollout(scratch.path());
        let (request, _) = standing_at_5(&far, &rollout).await;
        (far.world().verdict, far.world().weight) = (verdict.into(), 37);
        let reply = rollout.send(&request, KEY, &Stop::new()).await;
        let Reply::Unclear(failure) = reply else { panic!("{verdict}: {reply:?}") };
        assert!(failure.message.contains("the traffic is at 37 % by now"), "{}", failure.message);
        assert_eq!(far.world().weights, [5], "{verdict}");
    }
}

#[tokio::test]
async fn probes_that_hang_or_talk_nonsense_are_bad() {
    let told = |body: &'static str| {
        server::Server::start(move |_| server::Say::Answer(200, Vec::new(), body.to_owned()))
    };
    let check = async |probe: Value, expected: Option<&str>| {
        let far = Far::start(World::default(), 101, Kill::Never);
        let shown = probe.to_string();
        let mut changes = json!({"probe": null, "max_error_rate": 0.5});
        for (name, value) in probe.as_object().expect("an object") {
            changes[name] = value.clone();
        }
        // A key of its own: whoever rolls out ends the commands that have its key.
        match (run_as("0bad", &far, changes).await, expected) {
            (Reply::Done(_), None) => {}
            (Reply::Refused(failure), Some(part)) => {
                assert!(failure.message.contains(part), "{shown}: {}", failure.message);
                assert_eq!(far.world().weights, [5, 0], "{shown}");
            }
            (reply, _) => panic!("{shown}: {reply:?}"),
        }
    };
    check(json!({"probe": told("fine").url}), None).await;
    check(json!({"probe": told(r#"{"error_rate": 0.49}"#).url}), None).await;
    check(json!({"probe": told(r#"{"error_rate": 0.5}"#).url}), Some("error rate 0.5")).await;
    check(json!({"probe": told(r#"{"error_rate": -1}"#).url}), Some("is no error rate")).await;
    check(json!({"probe": told(r#"{"error_rate": "NaN"}"#).url}), Some("is no error rate")).await;
    check(json!({"probe": told(r#"{"error_rate": NaN}"#).url}), Some("it is no JSON")).await;
    // Beyond what a number holds, or no number at all: that is up to the JSON reader.
    check(json!({"probe": told(r#"{"error_rate": 1e999}"#).url}), Some("answers were bad")).await;
    let endless = server::Server::start(|_| server::Say::Endless);
    check(json!({"probe": endless.url}), Some("longer than")).await;
    check(json!({"probe_command": ["true"]}), None).await;
    check(json!({"probe_command": ["false"]}), Some("`false` ended with exit status: 1")).await;
    check(json!({"probe_command": ["no-such-program"]}), Some("does not start")).await;
    let at = ["sh", "-c", "test \"$MAESTRO_ENV-$MAESTRO_WEIGHT\" != prod-5"];
    check(json!({"probe_command": at}), Some("`sh` ended")).await;
    check(json!({"probe_command": ["sh", "-c", "sleep 600 & wait"]}), Some("longer than 5 s"))
        .await;
}

#[tokio::test]
async fn a_probe_that_outlived_its_maestro_is_ended() {
    let far = Far::start(World::default(), 101, Kill::Never);
    let mut left = std::process::Command::new("sleep")
        .arg("60")
        .env(KEY_VARIABLE, "0ff5")
        .spawn()
        .expect("it starts");
    assert!(matches!(run_as("0ff5", &far, json!({})).await, Reply::Done(_)));
    let status = left.wait().expect("ours");
    assert_eq!(status.signal(), Some(9), "{status}");
}
