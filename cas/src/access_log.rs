//! What a process tells the derived index: blobs and results that it wrote or used.
//!
//! Records gather in memory and leave as whole segments below `$CACHE/log/`, each by one rename,
//! so that there is no torn record and nobody waits for a lock. Whoever does maintenance folds the
//! segments into the index and removes them. A segment that is lost, with its process or by hand,
//! loses nothing: the files' own times and contents are the truth, and maintenance compares.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use maestro_core::Digest;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::layout::{LOG, Layout};
use crate::{clock, scan};

/// Records of one segment.
const SEGMENT_RECORDS_MAX: usize = 16 * 1024;
/// Segments that wait to be folded; beyond these the oldest are dropped.
const SEGMENTS_MAX: usize = 1024;
/// Changes with the shape of [`Record`]; segments of another version are dropped.
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 32;

/// One fact about a blob or result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A blob was written or used.
    Blob { digest: Digest, at_ns: i64 },
    /// A result was written or used.
    Result { key: Digest, at_ns: i64 },
}

/// The records of one process that are not written yet.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    pending: Mutex<Vec<Record>>,
    next: AtomicU64,
}

impl AccessLog {
    /// Notes a record. Never fails: the log is an aid.
    pub(crate) fn note(&self, layout: &Layout, record: Record) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.push(record);
        if pending.len() >= SEGMENT_RECORDS_MAX {
            let full = std::mem::take(&mut *pending);
            drop(pending);
            self.write(layout, &full);
        }
    }

    /// Writes what is pending.
    pub(crate) fn flush(&self, layout: &Layout) {
        let pending = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *pending)
        };
        if !pending.is_empty() {
            self.write(layout, &pending);
        }
    }

    fn write(&self, layout: &Layout, records: &[Record]) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (process, now) = (std::process::id(), clock::now_ns());
        let name = format!("{now}-{process}-{number}");
        if let Err(error) = write_segment(layout, &name, records) {
            tracing::debug!(%error, "access log segment is lost");
        }
    }
}

fn write_segment(layout: &Layout, name: &str, records: &[Record]) -> Result<(), StoreError> {
    let Ok(payload) = postcard::to_allocvec(records) else { return Ok(()) };
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(blake3::hash(&payload).as_bytes());
    bytes.extend_from_slice(&payload);
    let temp = format!("{LOG}/.{name}");
    let path = layout.absolute(&temp);
    if let Err(error) = std::fs::write(&path, bytes) {
        // What was written of it must not stay.
        layout.unlink(&temp)?;
        return Err(StoreError::io(path, error));
    }
    layout.rename(&temp, &format!("{LOG}/{name}"))?;
    let names = scan::names(layout, LOG)?;
    for old in names.iter().take(names.len().saturating_sub(SEGMENTS_MAX)) {
        layout.unlink(&format!("{LOG}/{old}"))?;
    }
    Ok(())
}

/// The paths of segments, oldest first; leftovers of killed processes are removed.
pub(crate) fn segments(layout: &Layout) -> Result<Vec<String>, StoreError> {
    let mut segments = Vec::new();
    for name in scan::names(layout, LOG)? {
        let path = format!("{LOG}/{name}");
        if name.starts_with('.') {
            layout.unlink(&path)?;
        } else {
            segments.push(path);
        }
    }
    Ok(segments)
}

/// The records of a segment; none where it is gone or damaged.
pub(crate) fn read_segment(layout: &Layout, path: &str) -> Vec<Record> {
    let bytes = std::fs::read(layout.absolute(path)).unwrap_or_default();
    let Some(rest) = bytes.strip_prefix(&[VERSION]) else { return Vec::new() };
    let Some((sum, payload)) = rest.split_at_checked(CHECKSUM_BYTES) else { return Vec::new() };
    if blake3::hash(payload).as_bytes() != sum {
        tracing::debug!(path, "access log segment is damaged and ignored");
        return Vec::new();
    }
    postcard::from_bytes(payload).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_core::DigestFunction;

    #[test]
    fn segments_are_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::open(dir.path()).expect("opens");
        let digest = DigestFunction::Sha256.digest(b"x");
        let records = [Record::Blob { digest, at_ns: 1 }, Record::Result { key: digest, at_ns: 2 }];
        let log = AccessLog::default();
        log.flush(&layout);
        assert!(segments(&layout).expect("listed").is_empty(), "nothing makes no segment");
        for record in &records {
            log.note(&layout, record.clone());
        }
        log.flush(&layout);
        std::fs::write(dir.path().join("log/.left"), "").expect("written");
        let [segment] = &segments(&layout).expect("listed")[..] else { panic!("one segment") };
        assert_eq!(read_segment(&layout, segment), records);
        assert!(!dir.path().join("log/.left").exists());
        let path = layout.absolute(segment);
        let bytes = std::fs::read(&path).expect("read");
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).expect("written");
            assert!(read_segment(&layout, segment).is_empty(), "cut at {cut}");
        }
        assert!(read_segment(&layout, "log/none").is_empty());
    }
}
