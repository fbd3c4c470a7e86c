//! What the tenant's ledger grants, denies and remembers of the tasks of a run.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use maestro_core::tenant::{Rate, TenantName, Used};
use maestro_executor::ledger::Ledger as _;

use super::*;
use crate::ledger::SqliteLedger;

/// The ledger of a folder.
pub fn ledger(folder: &Path, caps: TenantCaps) -> SqliteLedger {
    let tenant = TenantName::new("shop").expect("a name");
    let (clock, checkpoints) = (Arc::new(RealClock), Arc::new(NoCheckpoints));
    SqliteLedger::new(&folder.join("budget.db"), (tenant, caps), clock, checkpoints)
}

const BOUND: u64 = 10;

/// Work that reserves 10 and costs what is set.
struct Costly {
    cost: AtomicU64,
    calls: AtomicU64,
}

#[async_trait]
impl Worker for Costly {
    fn costs(&self) -> bool {
        true
    }
    async fn bound(&self, _: &Value) -> Result<Option<Amount>, Failure> {
        Ok(Some(money(BOUND)))
    }
    async fn run(&self, _: &Value, _: Amount, _: &Stop) -> Result<Success, WorkFailure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let spent = money(self.cost.load(Ordering::SeqCst));
        Ok(Success { spent, ..Success::default() })
    }
}

fn money(usd_micros: u64) -> Amount {
    Amount { usd_micros, tokens: 0 }
}

fn costly(id: &str, after: &[u32]) -> StepPlan {
    StepPlan { uses: "ask".into(), ..work(id, after) }
}

/// Drives the steps with these caps; the failures by step, what people were told, the calls, and
/// what the tenant used.
async fn spend(
    caps: TenantCaps,
    (cost, policy): (u64, Rules),
    steps: Vec<StepPlan>,
) -> (Vec<String>, Vec<String>, u64, Used) {
    let mut bench = Bench::new(World::default());
    let worker = Arc::new(Costly { cost: cost.into(), calls: 0.into() });
    let ledger = Arc::new(ledger(bench._folder.path(), caps));
    bench.tools.registry = bench.tools.registry.clone().worker("ask", worker.clone());
    bench.tools.ledger = ledger.clone();
    bench.tools.policy = Arc::new(policy);
    let state = bench.begin(steps).await;
    let end = bench.drive(state).await;
    let entries = bench.tools.journal.read(&end.created.run, 0, 1_000).await.expect("reads");
    let failures = end.tasks.values().filter_map(|task| task.failure.clone());
    let failures = failures.map(|failure| format!("{}: {}", failure.class.name(), failure.message));
    let told = entries.into_iter().filter_map(|entry| match entry.event {
        Event::BudgetNoticed(notice) => Some(notice.message),
        _ => None,
    });
    let calls = worker.calls.load(Ordering::SeqCst);
    (failures.collect(), told.collect(), calls, ledger.accounts().expect("reads").day)
}

#[tokio::test]
async fn a_run_spends_what_the_tenant_may_and_no_more() {
    let day = Cap { usd_micros: Some(25), soft_usd_micros: Some(12), ..Cap::default() };
    let caps = TenantCaps { day, ..TenantCaps::default() };
    let steps = (0..5).map(|n| costly(&format!("ask{n}"), &[n].map(|n: u32| n.saturating_sub(1))));
    let mut steps: Vec<StepPlan> = steps.collect();
    steps[0].after.clear();
    let (failures, told, calls, used) = spend(caps, (6, Rules::default()), steps).await;
    // 6 + 6 + 10 fits, and leaves 18 spent: another 10 does not fit.
    assert_eq!((calls, used), (3, Used { settled: money(18), reserved: Amount::ZERO }));
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    assert!(failure.starts_with("budget: the budget of tenant `shop` for "), "{failure}");
    let room = "leaves no room: 0.000018 of 0.000025 USD spent, 0.00 reserved, 0.00001 asked";
    assert!(failure.contains(room) && failure.contains("it opens again at "), "{failure}");
    let [warning] = told.as_slice() else { panic!("told once: {told:?}") };
    assert!(warning.starts_with("the soft budget of tenant `shop` for "), "{warning}");
}

#[tokio::test]
async fn the_end_of_a_call_can_open_the_breaker() {
    let check = async |cost: u64, rate: Option<Rate>, why: &str| {
        let caps = TenantCaps { rate, ..TenantCaps::default() };
        let steps = vec![costly("one", &[]), costly("two", &[0])];
        let (failures, told, calls, _) = spend(caps, (cost, Rules::default()), steps).await;
        assert_eq!((calls, told.len(), failures.len()), (1, 1, 1), "{told:?} {failures:?}");
        assert!(told[0].contains(why), "{told:?}");
        assert!(failures[0].starts_with("budget: "), "{failures:?}");
        failures[0] == format!("budget: {}", told[0])
    };
    let own = check(BOUND + 1, None, "it stays open until somebody closes it").await;
    assert!(!own, "an overrun closes the budget of the run, too, which says so first");
    let rate = Rate { usd_micros: 5, minutes: 7 };
    let why = "0.000006 USD were spent within 7 min, and 0.000005 may be";
    assert!(check(6, Some(rate), why).await, "the failure says why the breaker is open");
}

#[tokio::test]
async fn what_policy_denies_is_given_back() {
    // Asked before the price is, and again when the call is to begin.
    let asked = AtomicU64::new(0);
    let second = move |_: &Input| match asked.fetch_add(1, Ordering::SeqCst) {
        1 => vec![Reason::new("no", "not now")],
        _ => Vec::new(),
    };
    let denied = Rules { deny: Some(Box::new(second)), ..Rules::default() };
    let steps = vec![costly("one", &[])];
    let (failures, _, calls, used) = spend(TenantCaps::default(), (1, denied), steps).await;
    assert_eq!((failures.len(), calls, used), (1, 0, Used::default()));
}
