//! Answers that the cache remembers beyond the lock, so that a call that was paid for once on
//! this machine is not paid for again.
//!
//! An answer lies in the action cache under a key derived from its record request; its result
//! names two blobs: the answer and the record as JSON. The derived key cannot meet that of a real
//! action, since an encoded `Action` does not begin with [`DOMAIN`].

use maestro_cas::Store;
use maestro_core::ActionKey;
use maestro_core::wire::{ActionResult, OutputFile};

use super::lock::Record;
use super::miss::FindError;
use super::request::Question;

const DOMAIN: &[u8] = b"maestro record 1\n";
const ANSWER: &str = "answer";
const RECORD: &str = "record.json";

/// Finds the answer to a question.
pub(super) fn recall(
    store: &Store,
    question: &Question,
    identity: &str,
) -> Result<Option<(Record, Vec<u8>)>, FindError> {
    let failed = |source| FindError::Store { source };
    let Some(result) = store.action_result(&key(store, question, identity)?).map_err(failed)?
    else {
        return Ok(None);
    };
    let blob = |name: &str| result.output_files.iter().find(|file| file.path == name);
    let (Some(answer), Some(record)) = (blob(ANSWER), blob(RECORD)) else { return Ok(None) };
    let record = store.read(&record.digest).map_err(failed)?;
    let answer = store.read(&answer.digest).map_err(failed)?;
    // A record of another version of Maestro is no error; the call is made again.
    let record: Option<Record> = serde_json::from_slice(&record).ok();
    Ok(record.filter(|r| r.identity == identity).map(|r| (r, answer)))
}

/// Remembers the answer to a question.
pub(super) fn remember(
    store: &Store,
    question: &Question,
    record: &Record,
    answer: &[u8],
) -> Result<(), FindError> {
    let failed = |source| FindError::Store { source };
    let key = key(store, question, &record.identity)?;
    let json = serde_json::to_vec(record).expect("a record has only text keys");
    let file = |path: &str, bytes: &[u8]| {
        let digest = store.put_bytes(bytes).map_err(failed)?;
        Ok::<_, FindError>(OutputFile { path: path.to_owned(), digest, is_executable: false })
    };
    let output_files = vec![file(ANSWER, answer)?, file(RECORD, &json)?];
    let result =
        ActionResult { output_files, worker: "record".to_owned(), ..ActionResult::default() };
    store.put_action_result(&key, &result).map_err(failed)
}

fn key(store: &Store, question: &Question, identity: &str) -> Result<ActionKey, FindError> {
    let request = question.record_request(identity);
    let canonical = request.canonical().map_err(|e| FindError::Question(e.into()))?;
    let mut hasher = store.function().hasher();
    hasher.update(DOMAIN);
    hasher.update(&canonical);
    Ok(ActionKey(hasher.finish()))
}
