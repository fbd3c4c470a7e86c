//! What a run may spend: amounts are reserved before a call, and settled after it.
//!
//! A reservation is the most that a call can cost. At every instant
//! `settled + reserved <= cap`, so spending never passes a hard cap, however many calls are under
//! way. A call whose end nobody saw settles at its reservation, never back to zero.
//! A call that cost more than it had reserved is an *overrun*: it is counted as it was, and
//! nothing else is reserved in that scope until a person raises the cap.
//!
//! What all runs and builds of a tenant may spend together is [`crate::tenant`]'s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::plan::StepIndex;
use super::task::TaskId;

/// Money in micro-dollars, and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Micro-dollars.
    #[serde(default)]
    pub usd_micros: u64,
    /// Tokens, of prompts and answers together.
    #[serde(default)]
    pub tokens: u64,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { usd_micros: 0, tokens: 0 };

    /// Adds what else was spent.
    pub fn add(&mut self, other: Self) {
        *self = self.plus(other);
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            usd_micros: self.usd_micros.saturating_add(other.usd_micros),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// What is left of it.
    pub fn minus(self, other: Self) -> Self {
        Self {
            usd_micros: self.usd_micros.saturating_sub(other.usd_micros),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }

    /// Whether it is more in money or in tokens.
    pub fn exceeds(self, other: Self) -> bool {
        self.usd_micros > other.usd_micros || self.tokens > other.tokens
    }

    /// Whether it passes no hard bound.
    pub fn is_within(self, cap: Cap) -> bool {
        let usd_micros = cap.usd_micros.unwrap_or(u64::MAX);
        !self.exceeds(Self { usd_micros, tokens: cap.tokens.unwrap_or(u64::MAX) })
    }
}

/// Bounds of what may be spent; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// Micro-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd_micros: Option<u64>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// A soft bound in micro-dollars: passing it is said, and stops nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_usd_micros: Option<u64>,
    /// The same in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_tokens: Option<u64>,
}

impl Cap {
    /// Whether a soft bound is passed.
    pub fn is_softly_passed(&self, spent: Amount) -> bool {
        self.soft_usd_micros.is_some_and(|cap| spent.usd_micros > cap)
            || self.soft_tokens.is_some_and(|cap| spent.tokens > cap)
    }

    /// The soft bounds as if they were hard ones.
    pub(crate) fn softly(&self) -> Self {
        let (usd_micros, tokens) = (self.soft_usd_micros, self.soft_tokens);
        Self { usd_micros, tokens, ..Self::default() }
    }
}

/// What was spent and what is reserved in one scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// What calls have cost.
    pub settled: Amount,
    /// What calls under way may cost.
    pub reserved: Amount,
    /// Some call cost more than it had reserved.
    pub overrun: bool,
}

/// Which cap stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of the run.
    Run,
    /// That of a step.
    Step(StepIndex),
}

/// A cap does not leave room for a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose cap it is.
    pub scope: Scope,
    /// The cap.
    pub cap: Cap,
    /// What has been spent and reserved in that scope.
    pub spending: Spending,
    /// What was asked for.
    pub asked: Amount,
}

impl Exceeded {
    /// One sentence for people: the cap, what is spent and reserved, and what was asked.
    pub fn message(&self) -> String {
        let whose = match self.scope {
            Scope::Run => "the run",
            Scope::Step(_) => "the step",
        };
        let Spending { settled, reserved, overrun } = self.spending;
        if overrun {
            return format!(
                "a call of {whose} cost more than it had reserved, which closed its budget"
            );
        }
        let room = room_text(self.cap, (settled, reserved), self.asked);
        format!("the budget of {whose} leaves no room: {room}")
    }
}

/// A cap beside what is spent, reserved and asked, in the units that the cap has.
pub fn room_text(cap: Cap, (settled, reserved): (Amount, Amount), asked: Amount) -> String {
    let mut parts = Vec::new();
    if let Some(cap) = cap.usd_micros {
        parts.push(format!(
            "{} of {} USD spent, {} reserved, {} asked",
            usd(settled.usd_micros),
            usd(cap),
            usd(reserved.usd_micros),
            usd(asked.usd_micros)
        ));
    }
    if let Some(cap) = cap.tokens {
        parts.push(format!(
            "{} of {cap} tokens spent, {} reserved, {} asked",
            settled.tokens, reserved.tokens, asked.tokens
        ));
    }
    parts.join("; ")
}

/// What people are told about a budget, once in a run for each `about`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which budget, and when.
    pub about: String,
    /// One sentence without a final period.
    pub message: String,
}

/// Micro-dollars as dollars, without a loss.
pub fn usd(micros: u64) -> String {
    let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
    let digits = format!("{rest:06}");
    let digits = digits.trim_end_matches('0');
    match digits.len() {
        0 => format!("{whole}.00"),
        1 => format!("{whole}.{digits}0"),
        _ => format!("{whole}.{digits}"),
    }
}

/// The ledger of one run, a part of its fold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    run: Spending,
    steps: BTreeMap<StepIndex, Spending>,
    open: BTreeMap<TaskId, Amount>,
    /// How many reservations were taken for each task.
    taken: BTreeMap<TaskId, u32>,
    /// What people were told.
    told: BTreeSet<String>,
}

impl Ledger {
    /// What the whole run has spent and reserved.
    pub fn run(&self) -> Spending {
        self.run
    }

    /// What one step has spent and reserved.
    pub fn step(&self, step: StepIndex) -> Spending {
        self.steps.get(&step).copied().unwrap_or_default()
    }

    /// What the call under way of one task may cost.
    pub fn reserved(&self, task: TaskId) -> Amount {
        self.open.get(&task).copied().unwrap_or_default()
    }

    /// How many reservations were taken for a task so far; the number of the next one.
    pub fn taken(&self, task: TaskId) -> u32 {
        self.taken.get(&task).copied().unwrap_or_default()
    }

    /// Whether people were told of this.
    pub fn has_told(&self, notice: &Notice) -> bool {
        self.told.contains(&notice.about)
    }

    /// Whether the caps leave room for `asked` on behalf of `step`.
    pub fn room(
        &self,
        step: StepIndex,
        asked: Amount,
        (run_cap, step_cap): (Cap, Cap),
    ) -> Result<(), Exceeded> {
        let scopes =
            [(Scope::Run, run_cap, self.run), (Scope::Step(step), step_cap, self.step(step))];
        for (scope, cap, spending) in scopes {
            let total = spending.settled.plus(spending.reserved).plus(asked);
            let closed = spending.overrun && asked != Amount::ZERO;
            if closed || !total.is_within(cap) {
                return Err(Exceeded { scope, cap, spending, asked });
            }
        }
        Ok(())
    }

    /// Notes a reservation. One that is open for the same task already ended unseen: it is spent.
    pub(super) fn reserve(&mut self, task: TaskId, amount: Amount) {
        self.lose(task);
        self.open.insert(task, amount);
        let taken = self.taken.entry(task).or_default();
        *taken = taken.saturating_add(1);
        self.each(task.step, |spending| spending.reserved = spending.reserved.plus(amount));
    }

    /// Notes what a task cost; its reservation, if any, is over.
    pub(super) fn settle(&mut self, task: TaskId, spent: Amount) {
        let reserved = self.open.remove(&task);
        self.each(task.step, |spending| {
            spending.reserved = spending.reserved.minus(reserved.unwrap_or_default());
            spending.settled = spending.settled.plus(spent);
            spending.overrun |= reserved.is_some_and(|reserved| spent.exceeds(reserved));
        });
    }

    /// Settles a reservation whose end nobody saw at its full amount.
    pub(super) fn lose(&mut self, task: TaskId) {
        if let Some(amount) = self.open.get(&task).copied() {
            self.settle(task, amount);
        }
    }

    /// Notes what people were told.
    pub(super) fn tell(&mut self, notice: &Notice) {
        self.told.insert(notice.about.clone());
    }

    fn each(&mut self, step: StepIndex, change: impl Fn(&mut Spending)) {
        change(&mut self.run);
        change(self.steps.entry(step).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: StepIndex = StepIndex(0);

    fn money(usd_micros: u64) -> Amount {
        Amount { usd_micros, tokens: 0 }
    }

    fn cap(usd_micros: u64) -> Cap {
        Cap { usd_micros: Some(usd_micros), ..Cap::default() }
    }

    fn task(item: u32) -> TaskId {
        TaskId { item, ..TaskId::first(STEP) }
    }

    #[test]
    fn reservations_count_until_they_settle() {
        let mut ledger = Ledger::default();
        let caps = (cap(10), Cap::default());
        assert!(ledger.room(STEP, money(6), caps).is_ok());
        ledger.reserve(task(0), money(6));
        let denied = ledger.room(STEP, money(6), caps).expect_err("6 + 6 > 10");
        assert_eq!((denied.scope, denied.spending.reserved), (Scope::Run, money(6)));
        ledger.settle(task(0), money(2));
        assert!(ledger.room(STEP, money(6), caps).is_ok());
        assert_eq!(ledger.run(), Spending { settled: money(2), ..Spending::default() });
    }

    #[test]
    fn an_end_that_nobody_saw_is_spent_in_full() {
        let mut ledger = Ledger::default();
        ledger.reserve(task(0), money(5));
        ledger.reserve(task(0), money(5));
        assert_eq!(ledger.run().settled, money(5));
        assert_eq!(ledger.run().reserved, money(5));
        ledger.lose(task(0));
        ledger.lose(task(0));
        assert_eq!(ledger.step(STEP).settled, money(10));
    }

    #[test]
    fn a_step_has_a_cap_of_its_own_and_an_overrun_closes() {
        let mut ledger = Ledger::default();
        let caps = (cap(100), cap(5));
        let denied = ledger.room(STEP, money(6), caps).expect_err("above the step's cap");
        assert_eq!(denied.scope, Scope::Step(STEP));
        ledger.reserve(task(0), money(5));
        ledger.settle(task(0), money(7));
        assert!(ledger.run().overrun);
        assert!(ledger.room(STEP, money(1), (cap(100), Cap::default())).is_err());
        assert!(ledger.room(STEP, Amount::ZERO, (cap(100), Cap::default())).is_ok());
    }

    #[test]
    fn amounts_are_shown_exactly() {
        for (micros, text) in [
            (0, "0.00"),
            (5_000_000, "5.00"),
            (1_500_000, "1.50"),
            (1, "0.000001"),
            (10, "0.00001"),
        ] {
            assert_eq!(usd(micros), text);
        }
    }
}
