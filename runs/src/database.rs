//! How a file of SQLite is opened: with a write-ahead log, synced commits, and tables of a known
//! version.
//!
//! `PRAGMA user_version` is the version of a file's tables. A file of a later one is refused, and
//! left as it is.

use std::path::Path;
use std::time::Duration;

use maestro_executor::storage::StorageError;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior};

/// How long a process waits for another one's transaction.
const BUSY: Duration = Duration::from_secs(30);

/// What is kept in a file.
pub struct Layout {
    /// The version of the tables, above 0.
    pub version: u32,
    /// The statements that make them.
    pub tables: &'static str,
}

/// An error of SQLite with the file that it is about.
pub fn failure(doing: &'static str, path: &Path, error: &rusqlite::Error) -> StorageError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let damaged = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
    let place = path.display().to_string();
    StorageError::Failed { doing, place, why: error.to_string(), damaged }
}

/// A text in a row that is not what it should be.
pub fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

/// A connection whose tables are there and of the version that is known. Makes the file and its
/// folder, where they are missing.
pub fn open(path: &Path, layout: &Layout) -> Result<Connection, StorageError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|e| StorageError::failed("make the folder of", path.display(), e))?;
    }
    let mut connection = connect(path)?;
    let wrong = |e: rusqlite::Error| failure("open", path, &e);
    let version = |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get(0));
    let found: u32 = version(&connection).map_err(wrong)?;
    if found == 0 {
        // Another process may do the same: the version is read again inside the transaction.
        let change =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        if version(&change).map_err(wrong)? == 0u32 {
            change.execute_batch(layout.tables).map_err(wrong)?;
            change.pragma_update(None, "user_version", layout.version).map_err(wrong)?;
        }
        change.commit().map_err(wrong)?;
    }
    let found: u32 = version(&connection).map_err(wrong)?;
    match found == layout.version {
        true => Ok(connection),
        false => {
            let place = path.display().to_string();
            Err(StorageError::Newer { place, found, known: layout.version })
        }
    }
}

/// A connection to a file that need not have tables yet.
pub fn connect(path: &Path) -> Result<Connection, StorageError> {
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
    set_up().map_err(|e: rusqlite::Error| failure("open", path, &e))
}

/// SQLite's integers are signed; a number past their end is taken for their end.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The other way round; a negative number in the file is 0.
pub fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}
