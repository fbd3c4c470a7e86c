//! The tables of the journal, and their version.

use crate::database::Layout;

/// What a journal's file holds.
pub const LAYOUT: Layout = Layout { version: 1, tables: TABLES };

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
