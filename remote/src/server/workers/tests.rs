//! Workers that lie, forge and replay: what they say must count for nothing.

use maestro_cas::DepotOptions;
use maestro_core::DigestFunction;
use maestro_core::scheduler::{Requirements, Submission};

use super::super::dispatch::{Operation, Progress};
use super::*;
use crate::convert::wire_digest;
use crate::protos::worker::{Finished, Heartbeat, to_worker::Message as To};

struct Scene {
    _folder: tempfile::TempDir,
    pool: Pool,
    space: Space,
    action: Action,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let depot = Depot::open(DepotOptions {
            root: folder.path().join("depot"),
            bytes_max: 1 << 30,
            owner: "a test".to_owned(),
        });
        let depot = Arc::new(depot.expect("a depot"));
        let space = depot.make_space("").expect("a space");
        let message = reapi::Action::default().encode_to_vec();
        // An empty message is the empty blob, which is always there.
        let digest = DigestFunction::Sha256.digest(&message);
        let pool = Pool { context: Context::new(depot), dispatch: Dispatch::new() };
        let action = Action { instance: "".into(), digest };
        Self { _folder: folder, pool, space, action }
    }

    fn submit(&self) -> Operation {
        let submitted = self.pool.dispatch.submit(|operation| Submission {
            operation,
            tenant: "".into(),
            invocation: "".into(),
            action: self.action.clone(),
            requirements: Requirements::default(),
            priority: 0,
            timeout_ms: 60_000,
            merge: true,
        });
        submitted.expect("it is queued")
    }

    fn join(&self, process: &str) -> Connection {
        let join = Join { process: process.to_owned(), cpu_milli: 1_000, ..Join::default() };
        self.pool.join(join).expect("a worker")
    }

    /// Has a worker report, with what its command left on standard output.
    async fn report(&self, connection: &Connection, lease: u64, stdout: &[u8]) {
        let stdout = DigestFunction::Sha256.digest(stdout);
        let result =
            reapi::ActionResult { stdout_digest: Some(wire_digest(&stdout)), ..Default::default() };
        let response = reapi::ExecuteResponse { result: Some(result), ..Default::default() };
        self.say(connection, lease, Outcome::Response(response.encode_to_vec())).await;
    }

    async fn say(&self, connection: &Connection, lease: u64, outcome: Outcome) {
        let finished = Finished { lease, outcome: Some(outcome) };
        let taken = self.pool.take(connection, Some(From::Finished(finished))).await;
        taken.expect("it is no reason to end the stream");
    }

    fn is_cached(&self) -> bool {
        let depot = &self.pool.context.depot;
        depot.result(self.space, &self.action.digest).expect("it can be read").is_some()
    }
}

/// The lease that a worker was given, past whatever else it was told.
fn assigned(connection: &mut Connection) -> Option<u64> {
    while let Ok(ToWorker { message }) = connection.messages.try_recv() {
        if let Some(To::Assign(assign)) = message {
            return Some(assign.lease);
        }
    }
    None
}

fn has_ended(operation: &Operation) -> bool {
    !matches!(*operation.progress.borrow(), Progress::Stage(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_names_what_is_not_there_is_at_fault() {
    let scene = Scene::new();
    let mut liar = scene.join("liar");
    let operation = scene.submit();
    let lease = assigned(&mut liar).expect("it has room");
    scene.report(&liar, lease, b"never uploaded").await;
    assert!(!has_ended(&operation) && !scene.is_cached());
    let mut honest = scene.join("honest");
    let lease = assigned(&mut honest).expect("the liar rests");
    scene
        .pool
        .context
        .depot
        .put(scene.space, &[(DigestFunction::Sha256.digest(b"said"), b"said".as_slice())])
        .expect("stored");
    scene.report(&honest, lease, b"said").await;
    assert!(has_ended(&operation) && scene.is_cached());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_of_others_and_of_old_count_for_nothing() {
    let scene = Scene::new();
    let (mut holder, mut forger) = (scene.join("holder"), scene.join("forger"));
    let operation = scene.submit();
    let (held, none) = (assigned(&mut holder), assigned(&mut forger));
    let (holder, mut forger, lease) = match (held, none) {
        (Some(lease), None) => (holder, forger, lease),
        (None, Some(lease)) => (forger, holder, lease),
        both => panic!("one worker has it: {both:?}"),
    };
    for guess in [lease, lease + 1, 0, u64::MAX] {
        scene.report(&forger, guess, b"").await;
        assert!(!has_ended(&operation), "{guess}");
    }
    scene.say(&holder, lease, Outcome::Fault("no disk".to_owned())).await;
    let second = assigned(&mut forger).expect("the other worker tries");
    // The first attempt is over, whatever its worker says now.
    scene.report(&holder, lease, b"").await;
    assert!(!has_ended(&operation));
    scene.report(&forger, second, b"").await;
    assert!(has_ended(&operation) && scene.is_cached());
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_harm_nobody() {
    let scene = Scene::new();
    let mut worker = scene.join("worker");
    let operation = scene.submit();
    let lease = assigned(&mut worker).expect("it has room");
    scene.say(&worker, lease, Outcome::Response(vec![0xff; 100])).await;
    assert!(!has_ended(&operation));
    let refused = |message| scene.pool.take(&worker, message);
    assert!(refused(None).await.is_ok(), "a message of a later version");
    assert!(refused(Some(From::Join(Join::default()))).await.is_err());
    let leases = (0..=limits::WORKER_LEASES_MAX as u64).collect();
    let beat = Heartbeat { leases, models: Vec::new() };
    assert!(refused(Some(From::Heartbeat(beat))).await.is_err());
    for process in [String::new(), "x".repeat(limits::NAME_BYTES_MAX + 1)] {
        assert!(scene.pool.join(Join { process, ..Join::default() }).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_keeps_its_lease() {
    let scene = Scene::new();
    let mut first = scene.join("worker");
    let operation = scene.submit();
    let lease = assigned(&mut first).expect("it has room");
    scene.pool.dispatch.disconnected(&first, false);
    let join = Join {
        process: "worker".to_owned(),
        cpu_milli: 1_000,
        leases: vec![lease],
        ..Join::default()
    };
    let mut second = scene.pool.join(join).expect("a worker");
    assert_eq!(assigned(&mut second), None, "it has it");
    assert!(first.messages.recv().await.is_none(), "the old stream ends");
    scene.report(&second, lease, b"").await;
    assert!(has_ended(&operation));
}
