//! What a tenant may spend: everything that one project, or several that share a name, asks for.
//!
//! The budget of a run is a part of its fold ([`crate::run::budget`]); a tenant's is shared by all
//! its runs and builds, so that its accounts are kept by a ledger outside any run. This module
//! decides what the accounts mean; it keeps nothing and reads no clock.
//!
//! ```text
//! reserve ──admit──► granted, perhaps with notices ──► the call ──► settle ──trip──► breaker
//!            └─────► denied: which cap, or why the breaker is open
//! ```
//!
//! - A day and a month are those of UTC. A call counts in the period in which it was reserved,
//!   whenever it ends, so that `settled + reserved <= cap` holds in each period at every instant.
//! - What a call cost is compared with two things: more than its reservation is an *overrun*, and
//!   more than the tenant's rate within the rate's minutes is a *spike*. Either opens the breaker.
//! - An open breaker grants nothing. After a spike it closes by itself, once the minutes of the
//!   rate have gone by; after an overrun only a person closes it, since prices or bounds are wrong.

mod calendar;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use calendar::{Period, Span, utc};

use crate::limits::TENANT_NAME_BYTES_MAX;
use crate::run::budget::{Amount, Cap, Notice, room_text, usd};

const MINUTE_MS: u64 = 60_000;

/// The name of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TenantName(String);

/// A text that names no tenant.
#[derive(Debug, thiserror::Error)]
#[error("`{}` names no tenant: a name has 1 to {TENANT_NAME_BYTES_MAX} bytes that can be printed", text.escape_debug())]
pub struct TenantNameError {
    /// The text.
    pub text: String,
}

impl TenantName {
    /// The name that `text` is.
    pub fn new(text: &str) -> Result<Self, TenantNameError> {
        let fits = !text.is_empty() && text.len() <= TENANT_NAME_BYTES_MAX;
        match fits && !text.contains(|c: char| c.is_control() || c == '`') {
            true => Ok(Self(text.to_owned())),
            false => Err(TenantNameError { text: text.to_owned() }),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How fast a tenant may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// More than this many micro-dollars …
    pub usd_micros: u64,
    /// … within so many minutes open the breaker.
    pub minutes: u32,
}

impl Rate {
    /// The length of the time that is looked at, in milliseconds.
    pub fn window_ms(self) -> u64 {
        u64::from(self.minutes) * MINUTE_MS
    }
}

/// What a tenant may spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantCaps {
    /// In a day.
    pub day: Cap,
    /// In a month.
    pub month: Cap,
    /// How fast.
    pub rate: Option<Rate>,
}

impl TenantCaps {
    /// The cap of a period.
    pub fn of(&self, period: Period) -> Cap {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

/// What was spent and is reserved in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// What calls have cost.
    pub settled: Amount,
    /// What calls under way, or whose end nobody saw, may cost.
    pub reserved: Amount,
}

/// The accounts of a tenant at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Of this day.
    pub day: Used,
    /// Of this month.
    pub month: Used,
    /// The breaker, where it is open.
    pub breaker: Option<Breaker>,
}

impl Accounts {
    /// What was used in a period.
    pub fn of(&self, period: Period) -> Used {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Cause {
    /// A call cost more than it had reserved.
    Overrun {
        /// What it had reserved.
        reserved: Amount,
        /// What it cost.
        spent: Amount,
    },
    /// The tenant spent faster than it may.
    Spike {
        /// Micro-dollars that were spent within the rate's minutes.
        spent_usd_micros: u64,
        /// The rate.
        rate: Rate,
    },
}

/// An open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Why it opened.
    pub cause: Cause,
    /// When, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it closes by itself; never, where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl Breaker {
    /// Whether it is open, if nobody closed it.
    pub fn is_open_at(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }

    /// One sentence for people: whose it is, why it opened, and what closes it.
    pub fn message(&self, tenant: &TenantName) -> String {
        let why = match self.cause {
            Cause::Overrun { reserved, spent } => format!(
                "a call had reserved {} USD and {} tokens, and took {} USD and {}",
                usd(reserved.usd_micros),
                reserved.tokens,
                usd(spent.usd_micros),
                spent.tokens
            ),
            Cause::Spike { spent_usd_micros, rate } => format!(
                "{} USD were spent within {} min, and {} may be",
                usd(spent_usd_micros),
                rate.minutes,
                usd(rate.usd_micros)
            ),
        };
        let until = match self.until_ms {
            // To the minute, and not before it is so.
            Some(until) => format!("it closes at {}", utc(until.saturating_add(MINUTE_MS - 1))),
            None => "it stays open until somebody closes it".to_owned(),
        };
        format!("the breaker of tenant `{tenant}` is open: {why}; {until}")
    }
}

/// Why a reservation is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// A cap does not leave room for it.
    Cap {
        /// Which.
        period: Period,
        /// The period that is meant.
        span: Span,
        /// The cap.
        cap: Cap,
        /// What has been spent and reserved.
        used: Used,
        /// What was asked for.
        asked: Amount,
    },
    /// The breaker is open.
    Open(Breaker),
}

impl Denial {
    /// One sentence for people.
    pub fn message(&self, tenant: &TenantName) -> String {
        match self {
            Self::Open(breaker) => breaker.message(tenant),
            Self::Cap { period, span, cap, used, asked } => {
                let room = room_text(*cap, (used.settled, used.reserved), *asked);
                let when = match asked.is_within(*cap) {
                    true => format!("it opens again at {}", utc(span.end_ms)),
                    false => "the whole of it is too little".to_owned(),
                };
                let which = period.label(*span);
                format!(
                    "the budget of tenant `{tenant}` for {which} leaves no room: {room}; {when}"
                )
            }
        }
    }

    /// What can be done.
    pub fn hints(&self) -> Vec<String> {
        let look = "`maestro budget` shows the caps, and what was spent".to_owned();
        let close = "once you know why: `maestro budget reset --reason …`".to_owned();
        match self {
            Self::Cap { .. } => vec![look],
            Self::Open(_) => vec![look, close],
        }
    }
}

/// Whether the accounts leave room for `asked`, and what people are to be told of it.
pub fn admit(
    tenant: &TenantName,
    caps: &TenantCaps,
    accounts: &Accounts,
    asked: Amount,
    now_ms: u64,
) -> Result<Vec<Notice>, Denial> {
    if asked == Amount::ZERO {
        return Ok(Vec::new());
    }
    if let Some(breaker) = accounts.breaker.filter(|breaker| breaker.is_open_at(now_ms)) {
        return Err(Denial::Open(breaker));
    }
    let mut notices = Vec::new();
    for period in Period::ALL {
        let (cap, used, span) = (caps.of(period), accounts.of(period), period.span(now_ms));
        let total = used.settled.plus(used.reserved).plus(asked);
        if !total.is_within(cap) {
            return Err(Denial::Cap { period, span, cap, used, asked });
        }
        if cap.is_softly_passed(total) {
            let which = period.label(span);
            let room = room_text(cap.softly(), (used.settled, used.reserved), asked);
            let message =
                format!("the soft budget of tenant `{tenant}` for {which} is passed: {room}");
            notices.push(Notice { about: format!("{tenant}/{which}"), message });
        }
    }
    Ok(notices)
}

/// Whether the end of a call opens the breaker: by what it had reserved and cost, and by what was
/// spent within the minutes of the rate, it included.
pub fn trip(
    caps: &TenantCaps,
    (reserved, spent): (Amount, Amount),
    recent_usd_micros: u64,
    now_ms: u64,
) -> Option<Breaker> {
    if spent.exceeds(reserved) {
        let cause = Cause::Overrun { reserved, spent };
        return Some(Breaker { cause, since_ms: now_ms, until_ms: None });
    }
    let rate = caps.rate.filter(|rate| recent_usd_micros > rate.usd_micros)?;
    let cause = Cause::Spike { spent_usd_micros: recent_usd_micros, rate };
    let until_ms = Some(now_ms.saturating_add(rate.window_ms()));
    Some(Breaker { cause, since_ms: now_ms, until_ms })
}
