//! The tables of a ledger, and each change of them. Nothing here decides.

use maestro_core::run::{Amount, Notice};
use maestro_core::tenant::{Accounts, Breaker, Period, TenantCaps, TenantName, Used, trip};
use maestro_executor::ledger::{ClaimKey, LedgerEntry, LedgerEvent};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::de::DeserializeOwned;

use crate::database::{Layout, signed, unreadable, unsigned};

/// What a ledger's file holds.
pub const LAYOUT: Layout = Layout { version: 1, tables: TABLES };
/// The version of stored events and breakers.
const BODY_VERSION: u32 = 1;

const TABLES: &str = "
CREATE TABLE claims (
    number           INTEGER PRIMARY KEY,
    tenant           TEXT NOT NULL,
    holder           TEXT NOT NULL,
    call             TEXT NOT NULL,
    serial           INTEGER NOT NULL,
    at_ms            INTEGER NOT NULL,
    usd_micros       INTEGER NOT NULL,
    tokens           INTEGER NOT NULL,
    ended_ms         INTEGER,
    spent_usd_micros INTEGER NOT NULL DEFAULT 0,
    spent_tokens     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX claims_by_key ON claims (holder, call, serial);
CREATE UNIQUE INDEX claims_open ON claims (holder, call, serial) WHERE ended_ms IS NULL;
CREATE INDEX claims_by_end ON claims (tenant, ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE periods (
    tenant              TEXT NOT NULL,
    period              TEXT NOT NULL,
    start_ms            INTEGER NOT NULL,
    settled_usd_micros  INTEGER NOT NULL,
    settled_tokens      INTEGER NOT NULL,
    reserved_usd_micros INTEGER NOT NULL,
    reserved_tokens     INTEGER NOT NULL,
    PRIMARY KEY (tenant, period, start_ms)
) STRICT, WITHOUT ROWID;
CREATE TABLE breakers (
    tenant    TEXT PRIMARY KEY,
    version   INTEGER NOT NULL,
    body      TEXT NOT NULL,
    until_ms  INTEGER,
    closed_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms   INTEGER NOT NULL,
    tenant  TEXT NOT NULL,
    version INTEGER NOT NULL,
    body    TEXT NOT NULL
) STRICT;
CREATE INDEX history_by_tenant ON history (tenant, number);
";

/// A reservation.
pub struct Claim {
    number: i64,
    /// Whose.
    pub tenant: String,
    at_ms: u64,
    /// The most that its call can cost.
    pub reserved: Amount,
    /// What the call cost, once it has ended.
    pub spent: Amount,
    /// It has ended.
    pub ended: bool,
}

/// The tables inside one transaction.
pub struct Books<'a> {
    /// The transaction.
    pub change: &'a Transaction<'a>,
    /// When it is made.
    pub now_ms: u64,
}

impl Books<'_> {
    /// The reservation of a key that has no end.
    pub fn open_claim(&self, key: &ClaimKey) -> rusqlite::Result<Option<Claim>> {
        self.claim(key, "ended_ms IS NULL")
    }

    /// The reservation of a key that ended last.
    pub fn ended_claim(&self, key: &ClaimKey) -> rusqlite::Result<Option<Claim>> {
        self.claim(key, "ended_ms IS NOT NULL")
    }

    fn claim(&self, key: &ClaimKey, which: &str) -> rusqlite::Result<Option<Claim>> {
        let mut select = self.change.prepare_cached(&format!(
            "SELECT number, tenant, at_ms, usd_micros, tokens, spent_usd_micros, spent_tokens,
                    ended_ms IS NOT NULL
             FROM claims WHERE holder = ?1 AND call = ?2 AND serial = ?3 AND {which}
             ORDER BY number DESC LIMIT 1"
        ))?;
        let read = |row: &Row<'_>| {
            Ok(Claim {
                number: row.get(0)?,
                tenant: row.get(1)?,
                at_ms: unsigned(row, 2)?,
                reserved: amount(row, 3)?,
                spent: amount(row, 5)?,
                ended: row.get(7)?,
            })
        };
        select.query_row(params![key.holder, key.call, key.serial], read).optional()
    }

    /// The keys of a holder that have no end.
    pub fn open_claims(&self, holder: &str) -> rusqlite::Result<Vec<ClaimKey>> {
        let mut select = self.change.prepare_cached(
            "SELECT call, serial FROM claims WHERE holder = ?1 AND ended_ms IS NULL",
        )?;
        let rows = select.query_map([holder], |row| {
            Ok(ClaimKey { holder: holder.to_owned(), call: row.get(0)?, serial: row.get(1)? })
        })?;
        rows.collect()
    }

    /// Books a reservation.
    pub fn begin(
        &self,
        tenant: &TenantName,
        key: &ClaimKey,
        amount: Amount,
    ) -> rusqlite::Result<()> {
        let mut insert = self.change.prepare_cached(
            "INSERT INTO claims (tenant, holder, call, serial, at_ms, usd_micros, tokens)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            tenant.as_str(),
            key.holder,
            key.call,
            key.serial,
            signed(self.now_ms),
            signed(amount.usd_micros),
            signed(amount.tokens),
        ])?;
        self.account(tenant.as_str(), self.now_ms, |used| Used {
            reserved: used.reserved.plus(amount),
            ..used
        })?;
        self.note(tenant.as_str(), &LedgerEvent::Reserved { key: key.clone(), amount })
    }

    /// Books the end of a reservation, or of one that ended as costing less: so much is reserved
    /// no more, and `spent` is what it cost in all.
    pub fn settle(
        &self,
        key: &ClaimKey,
        claim: &Claim,
        (reserved, spent): (Amount, Amount),
    ) -> rusqlite::Result<()> {
        let mut update = self.change.prepare_cached(
            "UPDATE claims SET ended_ms = ?2, spent_usd_micros = ?3, spent_tokens = ?4
             WHERE number = ?1",
        )?;
        let (usd_micros, tokens) = (signed(spent.usd_micros), signed(spent.tokens));
        update.execute(params![claim.number, signed(self.now_ms), usd_micros, tokens])?;
        let more = spent.minus(claim.spent);
        self.account(&claim.tenant, claim.at_ms, |used| Used {
            settled: used.settled.plus(more),
            reserved: used.reserved.minus(reserved),
        })?;
        let key = key.clone();
        self.note(&claim.tenant, &LedgerEvent::Settled { key, reserved, spent: more })
    }

    /// The accounts of a tenant.
    pub fn accounts(&self, tenant: &TenantName) -> rusqlite::Result<Accounts> {
        let tenant = tenant.as_str();
        let day = self.used(tenant, Period::Day, self.now_ms)?;
        let month = self.used(tenant, Period::Month, self.now_ms)?;
        Ok(Accounts { day, month, breaker: self.breaker(tenant)? })
    }

    fn used(&self, tenant: &str, period: Period, at_ms: u64) -> rusqlite::Result<Used> {
        let mut select = self.change.prepare_cached(
            "SELECT settled_usd_micros, settled_tokens, reserved_usd_micros, reserved_tokens
             FROM periods WHERE tenant = ?1 AND period = ?2 AND start_ms = ?3",
        )?;
        let start = signed(period.span(at_ms).start_ms);
        let read = |row: &Row<'_>| Ok(Used { settled: amount(row, 0)?, reserved: amount(row, 2)? });
        let used = select.query_row(params![tenant, period.name(), start], read).optional()?;
        Ok(used.unwrap_or_default())
    }

    /// Changes what was used in each of the periods that an instant is in.
    fn account(
        &self,
        tenant: &str,
        at_ms: u64,
        change: impl Fn(Used) -> Used,
    ) -> rusqlite::Result<()> {
        for period in Period::ALL {
            let Used { settled, reserved } = change(self.used(tenant, period, at_ms)?);
            let mut upsert = self.change.prepare_cached(
                "INSERT INTO periods VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (tenant, period, start_ms) DO UPDATE SET
                     settled_usd_micros = ?4, settled_tokens = ?5,
                     reserved_usd_micros = ?6, reserved_tokens = ?7",
            )?;
            upsert.execute(params![
                tenant,
                period.name(),
                signed(period.span(at_ms).start_ms),
                signed(settled.usd_micros),
                signed(settled.tokens),
                signed(reserved.usd_micros),
                signed(reserved.tokens),
            ])?;
        }
        Ok(())
    }

    /// The breaker of a tenant, if it is open.
    pub fn breaker(&self, tenant: &str) -> rusqlite::Result<Option<Breaker>> {
        let mut select = self.change.prepare_cached(
            "SELECT version, body FROM breakers WHERE tenant = ?1 AND closed_ms IS NULL",
        )?;
        let found = select.query_row([tenant], |row| decode(row, 0)).optional()?;
        Ok(found.filter(|breaker: &Breaker| breaker.is_open_at(self.now_ms)))
    }

    /// Opens the breaker if the end of a call is a reason to; what people are to be told then.
    pub fn look_at_breaker(
        &self,
        tenant: &str,
        caps: &TenantCaps,
        ended: (Amount, Amount),
    ) -> rusqlite::Result<Option<Notice>> {
        let recent = match caps.rate {
            Some(rate) => self.spent_since(tenant, self.now_ms.saturating_sub(rate.window_ms()))?,
            None => 0,
        };
        let Some(breaker) = trip(caps, ended, recent, self.now_ms) else { return Ok(None) };
        let open = self.breaker(tenant)?;
        if open.is_some_and(|open| open.until_ms.is_none() || breaker.until_ms.is_some()) {
            return Ok(None);
        }
        let mut upsert = self.change.prepare_cached(
            "INSERT INTO breakers VALUES (?1, ?2, ?3, ?4, NULL) ON CONFLICT (tenant) DO UPDATE SET
                 version = ?2, body = ?3, until_ms = ?4, closed_ms = NULL",
        )?;
        let until_ms = breaker.until_ms.map(signed);
        upsert.execute(params![tenant, BODY_VERSION, encode(&breaker)?, until_ms])?;
        self.note(tenant, &LedgerEvent::BreakerOpened { breaker })?;
        let name = TenantName::new(tenant).map_err(|error| unreadable(0, error))?;
        let about = format!("{tenant}/breaker/{}", breaker.since_ms);
        Ok(Some(Notice { about, message: breaker.message(&name) }))
    }

    /// What calls have cost that ended after an instant, and after the breaker closed last.
    fn spent_since(&self, tenant: &str, at_ms: u64) -> rusqlite::Result<u64> {
        let mut closed = self.change.prepare_cached(
            "SELECT coalesce(closed_ms, until_ms) FROM breakers WHERE tenant = ?1",
        )?;
        let closed = closed.query_row([tenant], |row| row.get::<_, Option<i64>>(0)).optional()?;
        let now = signed(self.now_ms);
        let since = closed.flatten().filter(|closed| *closed <= now).unwrap_or(0);
        let mut sum = self.change.prepare_cached(
            "SELECT coalesce(sum(min(spent_usd_micros, ?3)), 0) FROM claims
             WHERE tenant = ?1 AND ended_ms > ?2",
        )?;
        // A call of more is taken for so much: a sum past the end of SQLite's integers is an error.
        const MICROS_SUMMED_MAX: i64 = 1 << 40;
        let since = since.max(signed(at_ms));
        sum.query_row(params![tenant, since, MICROS_SUMMED_MAX], |row| unsigned(row, 0))
    }

    /// Closes the breaker.
    pub fn close_breaker(&self, tenant: &str) -> rusqlite::Result<()> {
        let mut update =
            self.change.prepare_cached("UPDATE breakers SET closed_ms = ?2 WHERE tenant = ?1")?;
        update.execute(params![tenant, signed(self.now_ms)]).map(|_| ())
    }

    /// Writes down what happened.
    pub fn note(&self, tenant: &str, event: &LedgerEvent) -> rusqlite::Result<()> {
        let mut insert = self.change.prepare_cached(
            "INSERT INTO history (at_ms, tenant, version, body) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let at_ms = signed(self.now_ms);
        insert.execute(params![at_ms, tenant, BODY_VERSION, encode(event)?]).map(|_| ())
    }

    /// What happened to a tenant last, in its order.
    pub fn history(&self, tenant: &str, most: usize) -> rusqlite::Result<Vec<LedgerEntry>> {
        let mut select = self.change.prepare_cached(
            "SELECT number, at_ms, version, body FROM history
             WHERE tenant = ?1 ORDER BY number DESC LIMIT ?2",
        )?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = select.query_map(params![tenant, most], |row| {
            let (number, at_ms) = (unsigned(row, 0)?, unsigned(row, 1)?);
            Ok(LedgerEntry { number, at_ms, event: decode(row, 2)? })
        })?;
        let mut entries: Vec<LedgerEntry> = rows.collect::<Result<_, _>>()?;
        entries.reverse();
        Ok(entries)
    }
}

fn amount(row: &Row<'_>, column: usize) -> rusqlite::Result<Amount> {
    Ok(Amount { usd_micros: unsigned(row, column)?, tokens: unsigned(row, column + 1)? })
}

fn encode(body: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(body)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Reads a version, and in the next column a body. One of a later version is refused: what it means
/// is not known, and taking it for nothing could spend too much.
fn decode<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let version: u32 = row.get(column)?;
    if version != BODY_VERSION {
        return Err(rusqlite::Error::IntegralValueOutOfRange(column, i64::from(version)));
    }
    let body: String = row.get(column + 1)?;
    serde_json::from_str(&body).map_err(|error| unreadable(column + 1, error))
}
