//! When a call is tried again, and when nobody tries any more. Pure: the time is given.
//!
//! Two things bound how much a server that is in trouble is troubled further. Retries are paid from
//! a budget that successful calls fill slowly, so that many calls that fail at once are not
//! multiplied. And once a call failed for good, no other is made for a while; then a single one
//! finds out whether the server is back.

use std::time::{Duration, Instant};

/// Most retries that a budget can hold.
const BUDGET_MAX: f64 = 20.0;
/// What a successful call adds to it.
const BUDGET_PER_SUCCESS: f64 = 0.2;
/// The pause before the first retry; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The longest pause that a server may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often one call is tried.
const ATTEMPTS_MAX: u32 = 4;
/// How long nothing is asked after a failure; each further one doubles it.
const REST_FIRST: Duration = Duration::from_secs(5);
/// The longest of these rests.
const REST_MAX: Duration = Duration::from_secs(80);

/// What is known of a server's health.
#[derive(Debug)]
pub(super) struct Health {
    budget: f64,
    /// Failures for good since the last answer.
    failures: u32,
    /// Nothing is asked before.
    rests_until: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { budget: BUDGET_MAX, failures: 0, rests_until: None }
    }
}

impl Health {
    /// Whether a call may be made. After a rest, the first one may, and the others wait for what
    /// becomes of it.
    pub(super) fn may_call(&mut self, now: Instant) -> bool {
        match self.rests_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.rests_until = Some(now + rest(self.failures));
                true
            }
        }
    }

    /// A call was answered; says whether the server was thought to be lost.
    pub(super) fn answered(&mut self) -> bool {
        self.budget = (self.budget + BUDGET_PER_SUCCESS).min(BUDGET_MAX);
        self.failures = 0;
        self.rests_until.take().is_some()
    }

    /// The pause before the next attempt of a call that failed `made` times, or `None` where it is
    /// given up. `jitter` is between 0 and 1.
    pub(super) fn pause(
        &mut self,
        made: u32,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Option<Duration> {
        // Whoever finds out whether a server is back does not insist.
        let probes = self.rests_until.is_some();
        if made >= ATTEMPTS_MAX || probes || self.budget < 1.0 {
            return None;
        }
        self.budget -= 1.0;
        let doubled = PAUSE_FIRST.saturating_mul(1 << made.saturating_sub(1).min(10));
        let own = doubled.min(PAUSE_MAX).mul_f64(0.5 + 0.5 * jitter);
        Some(asked.map_or(own, |asked| asked.min(ASKED_PAUSE_MAX).max(own)))
    }

    /// A call failed for good; says whether this is the first since the last answer.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest(self.failures));
        self.failures == 1
    }
}

fn rest(failures: u32) -> Duration {
    REST_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_server_is_left_alone_and_asked_once_in_a_while() {
        let (mut health, start) = (Health::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(health.may_call(at(0)));
        assert!(health.failed(at(0)), "the first failure is told");
        assert!(!health.failed(at(0)), "another call that was under way is not");
        assert!(!health.may_call(at(9)));
        assert!(health.may_call(at(10)), "one call finds out");
        assert!(!health.may_call(at(10)), "and only one");
        assert!(!health.failed(at(10)));
        assert!(!health.may_call(at(29)));
        assert!(health.may_call(at(30)));
        assert!(health.answered(), "it is back");
        assert!(health.may_call(at(30)));
        assert!(!health.answered());
        assert!(health.failed(at(31)), "and may be lost again");
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut health = Health::default();
        let pauses: Vec<_> = (1..=5).map(|made| health.pause(made, None, 1.0)).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [ms(100), ms(200), ms(400), None, None]);
        assert_eq!(health.pause(1, ms(3_000), 0.0), ms(3_000), "the server knows best");
        assert_eq!(health.pause(1, ms(3_600_000), 0.0), ms(10_000), "up to a bound");
    }

    #[test]
    fn many_failures_at_once_are_not_multiplied() {
        let mut health = Health::default();
        let tried = (0..1_000).filter(|_| health.pause(1, None, 0.5).is_some()).count();
        assert_eq!(tried, 20);
        for _ in 0..5 {
            health.answered();
        }
        assert!(health.pause(1, None, 0.5).is_some(), "successes pay for one more");
        assert!(health.pause(1, None, 0.5).is_none());
    }
}
