//! What is read from the tables.

use maestro_core::run::{Entry, Event, EventError, RunId, RunStatus};
use rusqlite::{Connection, OptionalExtension, params};

use super::SNAPSHOT_VERSION;
use crate::database::{signed, unreadable, unsigned};
use crate::journal::RunSummary;

/// A row of `events`.
pub struct EventRow {
    /// Its number.
    pub sequence: u64,
    epoch: u64,
    at_ms: u64,
    version: u32,
    body: String,
}

impl EventRow {
    /// The event, lifted to the present version.
    pub fn decode(self) -> Result<Entry, EventError> {
        let Self { sequence, epoch, at_ms, version, body } = self;
        Ok(Entry { sequence, epoch, at_ms, event: Event::decode(version, &body)? })
    }
}

/// The events of a run after number `after`.
pub fn events(
    connection: &Connection,
    run: &RunId,
    after: u64,
    most: usize,
) -> rusqlite::Result<Vec<EventRow>> {
    let mut select = connection.prepare_cached(
        "SELECT events.sequence, events.epoch, at_ms, version, body FROM events
         JOIN runs ON runs.number = events.run
         WHERE runs.run = ?1 AND events.sequence > ?2 ORDER BY events.sequence LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = select.query_map(params![run.as_str(), signed(after), most], |row| {
        Ok(EventRow {
            sequence: unsigned(row, 0)?,
            epoch: unsigned(row, 1)?,
            at_ms: unsigned(row, 2)?,
            version: row.get(3)?,
            body: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// The number of a run's last event, and its epoch.
pub fn last(connection: &Connection, run: &RunId) -> rusqlite::Result<Option<(u64, u64)>> {
    let mut select =
        connection.prepare_cached("SELECT sequence, epoch FROM runs WHERE run = ?1")?;
    select.query_row([run.as_str()], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?))).optional()
}

/// The stored fold of a run, where it is of the present version.
pub fn snapshot(connection: &Connection, run: &RunId) -> rusqlite::Result<Option<String>> {
    let mut select = connection.prepare_cached(
        "SELECT snapshots.body FROM snapshots JOIN runs ON runs.number = snapshots.run
         WHERE runs.run = ?1 AND snapshots.version = ?2",
    )?;
    select.query_row(params![run.as_str(), SNAPSHOT_VERSION], |row| row.get(0)).optional()
}

/// Tells each run with the number of its last event, until one cannot be read.
pub fn each_run(connection: &Connection, mut tell: impl FnMut(RunId, u64)) -> rusqlite::Result<()> {
    let mut select = connection.prepare("SELECT run, sequence FROM runs ORDER BY number")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        tell(RunId::new(&name).map_err(|e| unreadable(0, e))?, unsigned(row, 1)?);
    }
    Ok(())
}

/// Runs, the newest first.
pub fn list(connection: &Connection, most: usize) -> rusqlite::Result<Vec<RunSummary>> {
    let mut select = connection.prepare_cached(
        "SELECT run, template, status, initiator, created_ms, updated_ms, sequence FROM runs
         ORDER BY created_ms DESC, number DESC LIMIT ?1",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = select.query_map([most], |row| {
        let (name, status): (String, String) = (row.get(0)?, row.get(2)?);
        let run = RunId::new(&name).map_err(|e| unreadable(0, e))?;
        let status: RunStatus = serde_json::from_value(serde_json::Value::String(status))
            .map_err(|e| unreadable(2, e))?;
        Ok(RunSummary {
            run,
            template: row.get(1)?,
            status,
            initiator: row.get(3)?,
            created_ms: unsigned(row, 4)?,
            updated_ms: unsigned(row, 5)?,
            sequence: unsigned(row, 6)?,
        })
    })?;
    rows.collect()
}
