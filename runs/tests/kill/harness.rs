//! The process that kills: counts the points of a run, and kills at each of them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maestro_core::run::Amount;
use maestro_executor::ledger::Ledger as _;
use maestro_runs::NoCheckpoints;
use tempfile::TempDir;

use super::child::{self, BOUND, BUILDS, COST};
use super::far_side::FarSide;

/// The variable that makes this program the process to kill.
pub const CHILD: &str = "MAESTRO_TEST_KILL_CHILD";
/// Longest time that one process may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a process ended.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// By itself, having reached these points.
    Finished(Vec<String>),
    /// At the point where it was to be killed.
    Killed(String),
}

/// Runs the process in `folder`, and kills it at point number `kill_at`, counted from 1.
fn run(folder: &Path, kill_at: Option<usize>) -> End {
    let socket = folder.join("judge");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let program = std::env::current_exe().expect("this program");
    let mut child =
        Command::new(program).env(CHILD, folder).stdin(Stdio::null()).spawn().expect("a process");
    let (stream, _) = listener.accept().expect("the process asks");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let end = judge(stream, kill_at, &mut child);
    let status = wait(&mut child);
    match &end {
        End::Killed(point) => assert_eq!(status.signal(), Some(9), "killed at {point}"),
        End::Finished(points) => assert!(status.success(), "{status} after {points:?}"),
    }
    end
}

fn judge(stream: UnixStream, kill_at: Option<usize>, child: &mut Child) -> End {
    let mut answers = stream.try_clone().expect("a second end");
    let mut points = Vec::new();
    for line in BufReader::new(stream).lines() {
        let Ok(point) = line else { break };
        points.push(point.clone());
        if kill_at == Some(points.len()) {
            child.kill().expect("killed");
            return End::Killed(point);
        }
        if answers.write_all(b".").is_err() {
            break;
        }
    }
    End::Finished(points)
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its status") {
            return status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().expect("killed");
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder and a far side for one run.
struct Scene {
    folder: TempDir,
    far_side: FarSide,
}

impl Scene {
    fn new(deduplicates: bool) -> Self {
        let folder = TempDir::new().expect("a folder");
        let far_side = FarSide::start(deduplicates);
        let kind = if deduplicates { "idempotent" } else { "unknown" };
        let settings = format!("{} {kind}", far_side.port);
        std::fs::write(folder.path().join("settings"), settings).expect("written");
        Self { folder, far_side }
    }

    fn run(&self, kill_at: Option<usize>) -> End {
        run(self.folder.path(), kill_at)
    }

    fn status(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("status")).unwrap_or_default()
    }

    /// What the tenant has spent, in micro-dollars; nothing is reserved any more.
    fn spent(&self) -> u64 {
        let ledger = child::ledger(self.folder.path(), Arc::new(NoCheckpoints));
        let day = ledger.accounts().expect("they can be read").day;
        assert_eq!(day.reserved, Amount::ZERO, "every reservation has an end");
        day.settled.usd_micros
    }

    fn done(&self) -> Vec<String> {
        self.far_side.seen.lock().expect("unpoisoned").done.clone()
    }
}

/// Kills at every point of a run, and checks how the next process ends it.
fn enumerate(deduplicates: bool) {
    let whole = Scene::new(deduplicates);
    let End::Finished(points) = whole.run(None) else { panic!("nobody killed it") };
    assert_eq!(whole.status(), "succeeded");
    assert_eq!(whole.done(), ["deploy", "notify"]);
    let paid = BUILDS * COST.usd_micros;
    assert_eq!(whole.spent(), paid);
    let mut killed = Vec::new();
    let mut parked = 0;
    for number in 1..=points.len() {
        let scene = Scene::new(deduplicates);
        match scene.run(Some(number)) {
            End::Killed(point) => killed.push(point),
            End::Finished(points) => panic!("there is no point {number}: {points:?}"),
        }
        let begun = Instant::now();
        assert!(matches!(scene.run(None), End::Finished(_)));
        assert!(begun.elapsed() < PATIENCE);
        let (status, done) = (scene.status(), scene.done());
        let context = format!("killed at {number}, {}", points[number - 1]);
        // Killed once, at most one call has an end that nobody saw.
        let spent = scene.spent();
        let unseen = [0, COST.usd_micros, BOUND.usd_micros].map(|more| paid + more);
        assert!(unseen.contains(&spent), "{context}: {spent} are spent, and {paid} were to be");
        let mut distinct = done.clone();
        distinct.dedup();
        assert_eq!(done, distinct, "{context}: something was done twice");
        match (deduplicates, status.as_str()) {
            (_, "succeeded") => assert_eq!(done, ["deploy", "notify"], "{context}"),
            (false, "parked") => parked += 1,
            (_, other) => panic!("{context}: the run is {other}, having done {done:?}"),
        }
    }
    assert_eq!(killed, points, "the points of each run are those of the enumeration");
    let far_side = if deduplicates { "knows keys again" } else { "knows nothing again" };
    println!(
        "a far side that {far_side}: {} points enumerated, {} kills, {parked} runs parked",
        points.len(),
        killed.len()
    );
    let both_effects_in_flight = if deduplicates { 0 } else { 2 };
    assert!(parked >= both_effects_in_flight, "{parked} runs were parked");
}

/// Kills twice: at every point of a run, and then at every one of the process that goes on.
fn enumerate_pairs(step: usize) {
    let whole = Scene::new(true);
    let End::Finished(points) = whole.run(None) else { panic!("nobody killed it") };
    let mut pairs = 0;
    for first in (1..=points.len()).step_by(step) {
        for second in (1..=points.len()).step_by(step) {
            let scene = Scene::new(true);
            scene.run(Some(first));
            scene.run(Some(second));
            scene.run(None);
            assert_eq!(scene.status(), "succeeded", "killed at {first}, then at {second}");
            assert_eq!(scene.done(), ["deploy", "notify"], "killed at {first}, then at {second}");
            let most = (BUILDS + 2) * BOUND.usd_micros;
            let spent = scene.spent();
            assert!((BUILDS * COST.usd_micros..=most).contains(&spent), "{spent} are spent");
            pairs += 1;
        }
    }
    println!("{pairs} runs were killed twice");
}

/// All of it.
pub fn main() {
    enumerate(true);
    enumerate(false);
    enumerate_pairs(5);
}
