//! Days and months of UTC, as arithmetic on milliseconds since 1970.
//!
//! The proleptic Gregorian calendar without leap seconds, as the clocks of computers have it.

use serde::{Deserialize, Serialize};

use crate::civil::civil;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// No month is longer.
const MONTH_DAYS_MAX: u64 = 31;

/// A stretch of time that has a cap of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// From midnight to midnight, UTC.
    Day,
    /// From the first of a month to the first of the next one, UTC.
    Month,
}

/// When a period begins and when the next one does, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first millisecond.
    pub start_ms: u64,
    /// The first millisecond after it.
    pub end_ms: u64,
}

impl Period {
    /// All of them, the shortest first.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// The word for it in configuration and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period that an instant is in.
    pub fn span(self, at_ms: u64) -> Span {
        let today = at_ms / DAY_MS;
        let (start, end) = match self {
            Self::Day => (today, today + 1),
            Self::Month => {
                let first = |day: u64| day + 1 - civil(day).2;
                let start = first(today);
                (start, first(start + MONTH_DAYS_MAX))
            }
        };
        Span { start_ms: start.saturating_mul(DAY_MS), end_ms: end.saturating_mul(DAY_MS) }
    }

    /// The name of one such period: `2026-11-23`, `2026-11`.
    pub fn label(self, span: Span) -> String {
        let (year, month, day) = civil(span.start_ms / DAY_MS);
        match self {
            Self::Day => format!("{year:04}-{month:02}-{day:02}"),
            Self::Month => format!("{year:04}-{month:02}"),
        }
    }
}

/// An instant for people, to the minute: `2026-11-24 00:00 UTC`.
pub fn utc(at_ms: u64) -> String {
    let (year, month, day) = civil(at_ms / DAY_MS);
    let minutes = at_ms % DAY_MS / 60_000;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_those_of_utc() {
        let check = |at_ms: u64, now: &str, day: &str, month: &str, next: &str| {
            let (today, this) = (Period::Day.span(at_ms), Period::Month.span(at_ms));
            assert_eq!(utc(at_ms), now);
            assert_eq!(Period::Day.label(today), day);
            assert_eq!(Period::Month.label(this), month);
            assert_eq!(utc(this.end_ms), next);
            assert_eq!(today.end_ms - today.start_ms, DAY_MS);
            assert!(this.start_ms <= today.start_ms && today.end_ms <= this.end_ms);
        };
        check(0, "1970-01-01 00:00 UTC", "1970-01-01", "1970-01", "1970-02-01 00:00 UTC");
        let leap = 1_709_251_199_999;
        check(leap, "2024-02-29 23:59 UTC", "2024-02-29", "2024-02", "2024-03-01 00:00 UTC");
        let eve = 1_798_761_599_999;
        check(eve, "2026-12-31 23:59 UTC", "2026-12-31", "2026-12", "2027-01-01 00:00 UTC");
        let common = 4_107_542_400_000;
        check(common, "2100-03-01 00:00 UTC", "2100-03-01", "2100-03", "2100-04-01 00:00 UTC");
    }

    #[test]
    fn months_follow_each_other_without_gaps() {
        let mut at_ms = 0;
        for month in 0..1_600 {
            let span = Period::Month.span(at_ms);
            let label = format!("{:04}-{:02}", 1970 + month / 12, month % 12 + 1);
            assert_eq!((span.start_ms, Period::Month.label(span)), (at_ms, label));
            assert_eq!(Period::Month.span(span.end_ms - 1), span);
            at_ms = span.end_ms;
        }
    }
}
