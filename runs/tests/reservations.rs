//! A thousand reservations against one cap, from several processes with several threads each.
//!
//! The processes are this program again, with what they are to do in their environment. They wait
//! for each other, so that all ask at once. What is asserted is the history that the ledger wrote,
//! in its order: at every entry, what is settled and reserved is within the cap.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use maestro_core::run::{Amount, Cap};
use maestro_core::tenant::{Period, TenantCaps, TenantName};
use maestro_executor::ledger::{ClaimKey, Ledger, LedgerEvent, Settlement};
use maestro_runs::NoCheckpoints;
use maestro_runs::driver::Clock;
use maestro_runs::ledger::SqliteLedger;
use tempfile::TempDir;

/// What a child is to do: `FOLDER NAME settle|keep`.
const CHILD: &str = "MAESTRO_TEST_RESERVATIONS_CHILD";
/// Together a thousand reservations.
const PROCESSES: usize = 4;
const THREADS: usize = 5;
const CALLS: u64 = 50;
/// About a third of what is asked for: amounts are from 1 to 9, five on average.
const CAP: u64 = 1_801;

/// A day without an end: nothing of the test happens at midnight.
struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let now_ms = u64::try_from(since.as_millis()).expect("before the year 500,000,000");
        Period::Day.span(now_ms).start_ms + 12 * 60 * 60 * 1000
    }
}

fn money(usd_micros: u64) -> Amount {
    Amount { usd_micros, tokens: 0 }
}

fn ledger(folder: &Path) -> SqliteLedger {
    let tenant = TenantName::new("shop").expect("a name");
    let day = Cap { usd_micros: Some(CAP), ..Cap::default() };
    let owner = (tenant, TenantCaps { day, ..TenantCaps::default() });
    let path = folder.join("budget.db");
    SqliteLedger::new(&path, owner, Arc::new(Noon), Arc::new(NoCheckpoints))
}

/// Waits for a line, asks from all threads, and prints each amount with what became of it.
fn child(order: &str) {
    let words: Vec<&str> = order.split(' ').collect();
    let [folder, name, end] = words.as_slice() else { panic!("`{order}` has three words") };
    let ledger = ledger(Path::new(folder));
    ledger.accounts().expect("opens");
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("a line");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let ledger = &ledger;
            scope.spawn(move || (0..CALLS).for_each(|call| ask(ledger, (name, thread, call), end)));
        }
    });
}

fn ask(ledger: &SqliteLedger, (name, thread, call): (&str, usize, u64), end: &str) {
    let (holder, asked) = (name.to_owned(), (call * 7 + thread as u64) % 9 + 1);
    let key = ClaimKey { holder, call: format!("{thread}.{call}"), serial: 0 };
    match ledger.reserve(&key, money(asked)).expect("works") {
        Ok(_) => println!("granted {asked}"),
        Err(_) => println!("denied {asked}"),
    }
    if end == "settle" {
        // The calls that were denied have nothing to settle, which is no error.
        let end = match call % 3 {
            0 => Settlement::Unseen,
            1 => Settlement::Unasked,
            _ => Settlement::Cost(money(asked / 2)),
        };
        ledger.settle(&key, end).expect("works");
    }
}

struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(folder: &Path, name: &str, end: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let order = format!("{} {name} {end}", folder.display());
        let mut command = Command::new(program);
        let command = command.env(CHILD, order).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, lines };
        assert_eq!(process.line().as_deref(), Some("ready"));
        process
    }

    fn go(&mut self) {
        let input = self.child.stdin.as_mut().expect("piped");
        input.write_all(b"go\n").expect("it listens");
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.lines.read_line(&mut line).expect("reads");
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// What it printed: the amounts that were granted, and those that were denied.
    fn end(mut self) -> (Vec<u64>, Vec<u64>) {
        let (mut granted, mut denied) = (Vec::new(), Vec::new());
        while let Some(line) = self.line() {
            let (what, amount) = line.split_once(' ').expect("two words");
            let list = if what == "granted" { &mut granted } else { &mut denied };
            list.push(amount.parse().expect("an amount"));
        }
        assert!(self.child.wait().expect("its status").success());
        (granted, denied)
    }
}

/// Goes through the history; the most that was settled and reserved at any entry, and what is so
/// at the end. At no entry it is above the cap.
fn check_history(folder: &Path) -> (u64, (u64, u64)) {
    let ledger = ledger(folder);
    let (mut settled, mut reserved, mut most) = (0u64, 0u64, 0);
    let history = ledger.history(usize::MAX).expect("reads");
    for entry in &history {
        match &entry.event {
            LedgerEvent::Reserved { amount, .. } => reserved += amount.usd_micros,
            LedgerEvent::Settled { reserved: free, spent, .. } => {
                reserved = reserved.checked_sub(free.usd_micros).expect("it was reserved");
                settled += spent.usd_micros;
            }
            other => panic!("entry {}: {other:?}", entry.number),
        }
        most = most.max(settled + reserved);
        assert!(settled + reserved <= CAP, "entry {}: {settled} + {reserved}", entry.number);
    }
    let day = ledger.accounts().expect("reads").day;
    let end = (day.settled.usd_micros, day.reserved.usd_micros);
    assert_eq!(end, (settled, reserved), "the accounts are the sum of the history");
    (most, end)
}

fn ask_at_once(folder: &Path, end: &str) -> (Vec<u64>, Vec<u64>) {
    let start = |number: usize| Process::start(folder, &format!("process{number}"), end);
    let mut processes: Vec<Process> = (0..PROCESSES).map(start).collect();
    processes.iter_mut().for_each(Process::go);
    let (mut granted, mut denied) = (Vec::new(), Vec::new());
    for (yes, no) in processes.into_iter().map(Process::end) {
        granted.extend(yes);
        denied.extend(no);
    }
    assert_eq!((granted.len() + denied.len()) as u64, (PROCESSES * THREADS) as u64 * CALLS);
    (granted, denied)
}

/// Nothing is settled: the cap is filled as far as what was asked for can fill it.
fn a_thousand_reservations_fill_the_cap() {
    let folder = TempDir::new().expect("a folder");
    let (granted, denied) = ask_at_once(folder.path(), "keep");
    let (most, (settled, reserved)) = check_history(folder.path());
    let sum: u64 = granted.iter().sum();
    assert_eq!((settled, reserved, most), (0, sum, sum));
    let least = denied.iter().min().expect("not all fit");
    assert!(CAP - sum < *least, "{least} was denied, and {} is left", CAP - sum);
    println!("kept: {} granted, {} denied, {sum} of {CAP} reserved", granted.len(), denied.len());
}

/// Calls end while others ask: room that comes back is given out again, and never twice.
fn a_thousand_calls_share_what_comes_back() {
    let folder = TempDir::new().expect("a folder");
    let (granted, denied) = ask_at_once(folder.path(), "settle");
    let (most, (settled, reserved)) = check_history(folder.path());
    let sum: u64 = granted.iter().sum();
    assert_eq!(reserved, 0, "every call has an end");
    assert!(settled < sum, "{settled} of {sum}");
    println!(
        "settled: {} granted, {} denied, at most {most} of {CAP} at once, {settled} spent",
        granted.len(),
        denied.len()
    );
}

/// A process that is killed leaves what it had reserved, and nothing half done.
fn a_process_that_is_killed_keeps_what_it_reserved() {
    let folder = TempDir::new().expect("a folder");
    let mut process = Process::start(folder.path(), "killed", "keep");
    process.go();
    let heard: Vec<String> = (0..40).map_while(|_| process.line()).collect();
    process.child.kill().expect("killed");
    process.child.wait().expect("its status");
    let (_, (settled, reserved)) = check_history(folder.path());
    let open = ledger(folder.path()).open_claims("killed").expect("reads");
    assert!(heard.len() == 40 && open.len() >= 40, "{} heard, {} open", heard.len(), open.len());
    let heard = heard.iter().filter_map(|line| line.strip_prefix("granted ")?.parse::<u64>().ok());
    assert!(settled == 0 && reserved >= heard.sum(), "{reserved} are reserved");
    println!("killed: {} reservations stand", open.len());
}

fn main() {
    match std::env::var(CHILD) {
        Ok(order) => child(&order),
        Err(_) => {
            a_thousand_reservations_fill_the_cap();
            a_thousand_calls_share_what_comes_back();
            a_process_that_is_killed_keeps_what_it_reserved();
        }
    }
}
