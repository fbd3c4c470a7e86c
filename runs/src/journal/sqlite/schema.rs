//! The tables, their version, and how a connection is set up.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY, failed};
use crate::journal::JournalError;

/// The version of the tables below.
pub const SCHEMA_VERSION: u32 = 1;

const TABLES: &str = "
CREATE TABLE runs (
    number     INTEGER PRIMARY KEY,
    run        TEXT NOT NULL UNIQUE,
    template   TEXT NOT NULL,
    initiator  TEXT NOT NULL,
    status     TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    epoch      INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_by_time ON runs (created_ms);
CREATE TABLE events (
    run      INTEGER NOT NULL REFERENCES runs (number),
    sequence INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    body     TEXT NOT NULL,
    PRIMARY KEY (run, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
    run      INTEGER PRIMARY KEY REFERENCES runs (number),
    sequence INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT;
";

/// A connection whose tables are there and of a version that is known.
pub fn open(path: &Path) -> Result<Connection, JournalError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| JournalError::Storage {
            doing: "make the folder of",
            place: path.display().to_string(),
            why: e.to_string(),
            damaged: false,
        })?;
    }
    let mut connection = connect(path)?;
    let wrong = |e: rusqlite::Error| failed("open", path, &e);
    let version = |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get(0));
    let found: u32 = version(&connection).map_err(wrong)?;
    if found == 0 {
        // Another process may do the same: the version is read again inside the transaction.
        let change = connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(wrong)?;
        if version(&change).map_err(wrong)? == 0u32 {
            change.execute_batch(TABLES).map_err(wrong)?;
            change.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(wrong)?;
        }
        change.commit().map_err(wrong)?;
    }
    let found: u32 = version(&connection).map_err(wrong)?;
    match found == SCHEMA_VERSION {
        true => Ok(connection),
        false => Err(JournalError::Newer {
            place: path.display().to_string(),
            found,
            known: SCHEMA_VERSION,
        }),
    }
}

/// A connection to a file that need not have tables yet.
pub fn connect(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let set_up = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    };
    set_up().map_err(|e: rusqlite::Error| failed("open", path, &e))
}
