//! One ledger, whose clock a test moves.

use std::sync::atomic::{AtomicU64, Ordering};

use maestro_core::run::Cap;
use maestro_core::tenant::{Period, Rate, Used};
use maestro_executor::storage::StorageError;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::NoCheckpoints;

/// 2026-11-30 23:50 UTC.
const LATE: u64 = 1_796_082_600_000;
const MINUTE: u64 = 60_000;

struct Moved(AtomicU64);

impl Clock for Moved {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Bench {
    folder: TempDir,
    clock: Arc<Moved>,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        Self { folder, clock: Arc::new(Moved(LATE.into())) }
    }

    fn ledger(&self, tenant: &str, caps: TenantCaps) -> SqliteLedger {
        let owner = (TenantName::new(tenant).expect("a name"), caps);
        let path = self.folder.path().join("budget.db");
        SqliteLedger::new(&path, owner, self.clock.clone(), Arc::new(NoCheckpoints))
    }

    fn pass(&self, minutes: u64) {
        self.clock.0.fetch_add(minutes * MINUTE, Ordering::SeqCst);
    }
}

fn money(usd_micros: u64) -> Amount {
    Amount { usd_micros, tokens: 1 }
}

fn key(call: &str, serial: u32) -> ClaimKey {
    ClaimKey { holder: "run r1".into(), call: call.into(), serial }
}

fn day(usd_micros: u64) -> TenantCaps {
    let day = Cap { usd_micros: Some(usd_micros), ..Cap::default() };
    TenantCaps { day, ..TenantCaps::default() }
}

/// What is settled and reserved in this day, in micro-dollars.
fn used(ledger: &SqliteLedger) -> (u64, u64) {
    let Used { settled, reserved } = ledger.accounts().expect("reads").day;
    (settled.usd_micros, reserved.usd_micros)
}

fn granted(ledger: &SqliteLedger, key: &ClaimKey, amount: u64) -> bool {
    ledger.reserve(key, money(amount)).expect("works").is_ok()
}

fn settle(ledger: &SqliteLedger, key: &ClaimKey, end: Settlement) -> usize {
    ledger.settle(key, end).expect("works").len()
}

#[test]
fn a_reservation_that_is_replayed_is_not_taken_twice() {
    let bench = Bench::new();
    let ledger = bench.ledger("shop", day(10));
    assert!(granted(&ledger, &key("a", 0), 6));
    // The process died before its journal knew; the one that goes on asks for more.
    let again = bench.ledger("shop", day(10));
    assert!(granted(&again, &key("a", 0), 9));
    assert_eq!(used(&again), (0, 9));
    assert!(!granted(&again, &key("a", 0), 11), "and not for more than there is");
    assert_eq!(used(&again), (0, 0), "having called nobody");
    assert!(granted(&again, &key("a", 0), 10));
    assert!(!granted(&again, &key("a", 1), 1));
    assert_eq!(again.open_claims("run r1").expect("reads"), [key("a", 0)]);
}

#[test]
fn the_first_end_stands_and_a_later_one_only_raises() {
    let cost = |usd_micros| Settlement::Cost(money(usd_micros));
    let check = |ends: &[Settlement], settled: u64| {
        let bench = Bench::new();
        let ledger = bench.ledger("shop", day(100));
        assert!(granted(&ledger, &key("a", 0), 10));
        for end in ends {
            settle(&ledger, &key("a", 0), *end);
        }
        assert_eq!(used(&ledger), (settled, 0), "{ends:?}");
        assert_eq!(ledger.open_claims("run r1").expect("reads"), []);
    };
    check(&[cost(4), cost(4)], 4);
    check(&[cost(4), cost(3), Settlement::Unasked, Settlement::Unseen], 4);
    check(&[Settlement::Unseen, cost(4)], 10);
    check(&[Settlement::Unseen, cost(12)], 12);
    check(&[Settlement::Unasked, Settlement::Unseen], 0);
    check(&[Settlement::Unasked, cost(4)], 4);
    let bench = Bench::new();
    let ledger = bench.ledger("shop", day(100));
    assert_eq!(settle(&ledger, &key("never", 0), cost(4)), 0);
    assert_eq!(used(&ledger), (0, 0));
}

#[test]
fn a_call_counts_in_the_day_and_month_in_which_it_was_reserved() {
    let bench = Bench::new();
    let ledger = bench.ledger("shop", day(10));
    assert!(granted(&ledger, &key("a", 0), 10));
    bench.pass(20);
    assert!(granted(&ledger, &key("b", 0), 10), "it is another day");
    settle(&ledger, &key("a", 0), Settlement::Cost(money(7)));
    assert_eq!(used(&ledger), (0, 10));
    bench.clock.0.store(LATE, Ordering::SeqCst);
    assert_eq!(used(&ledger), (7, 0));
    let accounts = ledger.accounts().expect("reads");
    assert_eq!(accounts.of(Period::Month), accounts.of(Period::Day), "and another month");
}

#[test]
fn tenants_do_not_see_each_other() {
    let bench = Bench::new();
    let (shop, bank) = (bench.ledger("shop", day(10)), bench.ledger("bank", day(10)));
    assert!(granted(&shop, &key("a", 0), 10));
    assert!(granted(&bank, &ClaimKey { holder: "run r2".into(), ..key("a", 0) }, 10));
    assert!(!granted(&shop, &key("b", 0), 1));
    // A run whose project has another tenant today ends what it began for the old one.
    settle(&bank, &key("a", 0), Settlement::Cost(money(3)));
    assert_eq!((used(&shop), used(&bank)), ((3, 0), (0, 10)));
    assert_eq!(shop.history(10).expect("reads").len(), 2);
    assert_eq!(bank.history(10).expect("reads").len(), 1);
}

#[test]
fn an_overrun_closes_the_budget_until_a_person_opens_it() {
    let bench = Bench::new();
    let ledger = bench.ledger("shop", TenantCaps::default());
    assert!(granted(&ledger, &key("a", 0), 5));
    assert_eq!(settle(&ledger, &key("a", 0), Settlement::Cost(money(6))), 1);
    bench.pass(100_000);
    let denied = ledger.reserve(&key("b", 0), money(1)).expect("works").expect_err("closed");
    assert!(denied.message.contains("it stays open until somebody closes it"), "{denied:?}");
    assert!(ledger.close_breaker("ann@local", "the price was old").expect("works"));
    assert!(!ledger.close_breaker("ann@local", "twice").expect("works"));
    assert!(granted(&ledger, &key("b", 0), 1));
    let events = ledger.history(100).expect("reads");
    let named = |entry: &LedgerEntry| {
        serde_json::to_value(&entry.event).expect("JSON")["type"].as_str().map(str::to_owned)
    };
    let kinds: Vec<String> = events.iter().filter_map(named).collect();
    let expect = ["reserved", "settled", "breaker-opened", "breaker-closed", "reserved"];
    assert_eq!(kinds, expect);
}

#[test]
fn a_spike_closes_the_budget_for_its_minutes() {
    let bench = Bench::new();
    let rate = Some(Rate { usd_micros: 10, minutes: 5 });
    let ledger = bench.ledger("shop", TenantCaps { rate, ..TenantCaps::default() });
    let spend = |call: &str, amount: u64| {
        assert!(granted(&ledger, &key(call, 0), amount), "{call}");
        settle(&ledger, &key(call, 0), Settlement::Cost(money(amount)))
    };
    assert_eq!(spend("a", 10), 0, "so much may be spent");
    bench.pass(5);
    assert_eq!(spend("b", 10), 0, "and so much again, later");
    assert!(granted(&ledger, &key("under way", 0), 4));
    assert_eq!(spend("c", 1), 1);
    assert!(!granted(&ledger, &key("d", 0), 1));
    assert_eq!(settle(&ledger, &key("under way", 0), Settlement::Unseen), 0, "it is open");
    bench.pass(4);
    assert!(!granted(&ledger, &key("d", 0), 1));
    bench.pass(1);
    bench.clock.0.fetch_add(1, Ordering::SeqCst);
    assert_eq!(spend("d", 10), 0, "what was spent before counts no more");
    assert_eq!(spend("e", 1), 1);
    assert!(ledger.close_breaker("ann@local", "it was a test").expect("works"));
    assert_eq!(spend("f", 10), 0, "and what was spent before somebody closed it");
}

#[test]
fn damaged_and_newer_files_are_refused_and_left_alone() {
    let bench = Bench::new();
    let path = bench.folder.path().join("budget.db");
    std::fs::write(&path, "this is no database, and has no magic number either").expect("written");
    let error = bench.ledger("shop", day(1)).accounts().expect_err("refused");
    assert!(matches!(error, StorageError::Failed { damaged: true, .. }), "{error}");
    std::fs::remove_file(&path).expect("removed");
    let connection = Connection::open(&path).expect("opens");
    connection.pragma_update(None, "user_version", 9).expect("set");
    drop(connection);
    let error = bench.ledger("shop", day(1)).accounts().expect_err("refused");
    assert!(matches!(error, StorageError::Newer { found: 9, known: 1, .. }), "{error}");
}
