//! The embedded journal: what an append promises, and what is left after damage.

mod backup;

use std::path::Path;
use std::sync::Arc;

use maestro_core::run::{
    Cap, Entry, Event, Owner, Plan, Principal, RunCreated, RunId, RunStatus, StepKind, StepPlan,
};
use maestro_executor::storage::StorageError;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::NoCheckpoints;
use crate::journal::load;

fn open(folder: &Path) -> SqliteJournal {
    SqliteJournal::open(&folder.join("runs.db"), Arc::new(NoCheckpoints)).expect("opens")
}

fn run() -> RunId {
    RunId::new("r1").expect("a run id")
}

fn ann() -> Principal {
    Principal { name: "ann".into(), issuer: "local".into(), roles: Vec::new() }
}

fn created() -> Event {
    let work = StepKind::Work(maestro_core::ActionClass::Pure);
    let step = StepPlan::new("build", "test", work);
    let plan = Plan {
        template: "t".into(),
        steps: vec![step],
        cap: Cap::default(),
        keep_going: false,
        timeout_ms: None,
    };
    Event::RunCreated(Box::new(RunCreated {
        run: run(),
        plan,
        source: serde_json::Value::Null,
        template_digest: String::new(),
        params: Default::default(),
        context: serde_json::Value::Null,
        initiator: ann(),
        policy: None,
        replay_of: None,
    }))
}

fn owned() -> Event {
    Event::Owned { owner: Owner { host: "h".into(), pid: 1, principal: ann() }, took_over: false }
}

fn cancel(reason: &str) -> Event {
    Event::CancelAsked { by: ann(), reason: reason.into() }
}

fn append(after: u64, epoch: u64, events: Vec<Event>) -> Append {
    Append {
        run: run(),
        after,
        epoch,
        at_ms: 5,
        events,
        status: RunStatus::Running,
        by_driver: false,
    }
}

async fn begun(folder: &Path) -> SqliteJournal {
    let journal = open(folder);
    assert_eq!(journal.append(append(0, 0, vec![created()])).await.expect("created"), 1);
    assert_eq!(journal.append(append(1, 1, vec![owned()])).await.expect("owned"), 2);
    journal
}

#[tokio::test]
async fn appends_fit_the_end_or_are_refused() {
    let folder = TempDir::new().expect("a folder");
    let journal = begun(folder.path()).await;
    let unknown =
        Append { run: RunId::new("r2").expect("a run id"), ..append(0, 0, vec![owned()]) };
    assert!(matches!(journal.append(unknown).await, Err(JournalError::Unknown(_))));
    let again = journal.append(append(0, 0, vec![created()])).await;
    assert!(matches!(again, Err(JournalError::Exists(_))));
    let behind = journal.append(append(1, 1, vec![cancel("a")])).await;
    assert!(matches!(behind, Err(JournalError::Behind { expected: 1, last: 2, .. })));
    assert_eq!(journal.append(append(2, 2, vec![owned()])).await.expect("a new owner"), 3);
    let fenced = journal.append(append(3, 1, vec![cancel("b")])).await;
    assert!(matches!(fenced, Err(JournalError::Fenced { epoch: 2, own: 1, .. })));
    let late = journal.append(append(3, 2, vec![owned()])).await;
    assert!(matches!(late, Err(JournalError::Fenced { epoch: 2, own: 2, .. })));
    assert_eq!(journal.last(&run()).await.expect("there"), (3, 2));
    let all = journal.read(&run(), 0, 10).await.expect("reads");
    assert_eq!(all.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(all[1], Entry { sequence: 2, epoch: 1, at_ms: 5, event: owned() });
    let list = journal.list(10).await.expect("lists");
    assert_eq!((list.len(), list[0].sequence, list[0].template.as_str()), (1, 3, "t"));
}

#[tokio::test]
async fn of_many_writers_one_wins_each_place() {
    let folder = TempDir::new().expect("a folder");
    let one = Arc::new(begun(folder.path()).await);
    let other = Arc::new(open(folder.path()));
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..40u32 {
        let journal = if number % 2 == 0 { one.clone() } else { other.clone() };
        writers.spawn(async move {
            let mut tries = 0u32;
            loop {
                tries += 1;
                let (last, epoch) = journal.last(&run()).await.expect("there");
                let event = cancel(&number.to_string());
                match journal.append(append(last, epoch, vec![event])).await {
                    Ok(_) => return,
                    Err(JournalError::Behind { .. }) => assert!(tries < 10_000),
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
    let all = one.read(&run(), 2, 100).await.expect("reads");
    let mut reasons: Vec<u32> = all
        .iter()
        .map(|entry| match &entry.event {
            Event::CancelAsked { reason, .. } => reason.parse().expect("a number"),
            other => panic!("{other:?}"),
        })
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_kept_fold_is_gone_on_from() {
    let folder = TempDir::new().expect("a folder");
    let journal = begun(folder.path()).await;
    let state = load(&journal, &run()).await.expect("loads");
    journal.keep_snapshot(&state).await.expect("kept");
    journal.append(append(2, 1, vec![cancel("a")])).await.expect("appended");
    let later = load(&journal, &run()).await.expect("loads");
    assert_eq!(later.sequence, 3);
    assert_eq!(journal.snapshot(&run()).await.expect("there").expect("kept").sequence, 2);
    let missing = load(&journal, &RunId::new("r9").expect("a run id")).await;
    assert!(matches!(missing, Err(JournalError::Unknown(_))));
}

/// Writes events until the log has several commits, and returns what each prefix of the log holds.
#[tokio::test]
async fn a_log_cut_anywhere_recovers_to_a_commit() {
    let folder = TempDir::new().expect("a folder");
    let journal = begun(folder.path()).await;
    for after in 2..6 {
        journal.append(append(after, 1, vec![cancel("x")])).await.expect("appended");
    }
    let copy = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let (main, log) = (copy("runs.db"), copy("runs.db-wal"));
    let mut seen = std::collections::BTreeSet::new();
    // Every byte of the last pages, and a sample of those before.
    let step = |cut: usize| if cut + 9_000 < log.len() { 997 } else { 61 };
    let mut cut = 0;
    while cut <= log.len() {
        let place = TempDir::new().expect("a folder");
        std::fs::write(place.path().join("runs.db"), &main).expect("written");
        std::fs::write(place.path().join("runs.db-wal"), &log[..cut]).expect("written");
        let journal = open(place.path());
        let events = match journal.last(&run()).await {
            Ok(_) => journal.read(&run(), 0, 100).await.expect("reads"),
            Err(JournalError::Unknown(_)) => Vec::new(),
            Err(other) => panic!("cut at {cut}: {other}"),
        };
        let numbers: Vec<u64> = events.iter().map(|entry| entry.sequence).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "cut at {cut}");
        if !events.is_empty() {
            load(&journal, &run()).await.expect("folds");
        }
        seen.insert(events.len());
        cut += step(cut);
    }
    assert!(seen.contains(&0) && seen.len() >= 4, "{seen:?}");
}

#[tokio::test]
async fn foreign_files_are_refused_and_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("runs.db");
    std::fs::write(&path, "this is no database, and has no magic number either").expect("written");
    let error = SqliteJournal::open(&path, Arc::new(NoCheckpoints)).err().expect("refused");
    assert!(
        matches!(error, JournalError::Storage(StorageError::Failed { damaged: true, .. })),
        "{error}"
    );
    assert!(std::fs::read_to_string(&path).expect("still there").starts_with("this is no"));

    let newer = folder.path().join("newer.db");
    let connection = rusqlite::Connection::open(&newer).expect("opens");
    connection.pragma_update(None, "user_version", 9).expect("set");
    drop(connection);
    let error = SqliteJournal::open(&newer, Arc::new(NoCheckpoints)).err().expect("refused");
    assert!(
        matches!(error, JournalError::Storage(StorageError::Newer { found: 9, known: 1, .. })),
        "{error}"
    );
}
