//! Reads the text of `maestro.lock`. Every error says where and how to mend it.
//!
//! Nothing of the text is trusted: it may come from a merge, an editor or another person.
//! The order of blocks does not matter here; the printer restores it.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use maestro_core::{Digest, DigestFunction, Label, limits};
use serde::Deserialize;
use toml::Spanned;

use super::{CONTENT_DIR, ContextFile, LOCK_FILE, LOCK_VERSION, Lock, ModelPin, Record, RecordKey};

/// Longest lock that is read, in bytes.
pub const LOCK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a text is not a lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LOCK_FILE}:{line}:{column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong; one sentence without a final period.
    pub message: String,
    /// How to mend it.
    pub hint: String,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLock {
    #[serde(rename = "version")]
    _version: i64,
    #[serde(default)]
    models: BTreeMap<Spanned<String>, ModelPin>,
    #[serde(default, rename = "record")]
    records: Vec<RawRecord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecord {
    label: Spanned<String>,
    step: Spanned<String>,
    sample: u32,
    key: Spanned<RecordKey>,
    kind: String,
    model: String,
    identity: String,
    #[serde(default)]
    seed: Option<i64>,
    prompt_tokens: u64,
    completion_tokens: u64,
    finish_reason: String,
    cost_usd_micros: u64,
    date: Spanned<String>,
    content: Spanned<String>,
    #[serde(default)]
    content_file: Option<Spanned<String>>,
    context: Vec<Spanned<String>>,
    recorder: String,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    edited: bool,
}

/// Reads a lock.
pub fn parse(text: &str) -> Result<Lock, ParseError> {
    let at = Positions { text };
    at.refuse_conflicts()?;
    let head: Head = toml::from_str(text).map_err(|e| at.syntax(&e))?;
    let version = *head.version.get_ref();
    if version != LOCK_VERSION {
        let hint = if version > LOCK_VERSION {
            "it was written by a newer Maestro: install that version"
        } else {
            "versions begin at 1: take the file from version control again"
        };
        let message = format!("version {version} is not one that this Maestro reads (it reads 1)");
        return Err(at.error(head.version.span().start, message, hint));
    }
    let raw: RawLock = toml::from_str(text).map_err(|e| at.syntax(&e))?;
    let mut models = BTreeMap::new();
    for (name, pin) in raw.models {
        let start = name.span().start;
        if pin.identity().is_none() {
            let message = format!("model `{}` has neither `sha256` nor `name`", name.get_ref());
            let hint = "add the hash of the weights, or the provider's dated name";
            return Err(at.error(start, message, hint));
        }
        if pin.sha256.is_some() && pin.name.is_some() {
            let message = format!("model `{}` has both `sha256` and `name`", name.get_ref());
            return Err(at.error(start, message, "keep the one that the endpoint can prove"));
        }
        models.insert(name.into_inner(), pin);
    }
    let mut seen = Seen::default();
    let mut records = Vec::with_capacity(raw.records.len());
    for raw in raw.records {
        let start = raw.key.span().start;
        let record = at.record(raw)?;
        seen.admit(&at, start, &record)?;
        records.push(record);
    }
    Ok(Lock { models, records })
}

/// Finds records that stand twice.
#[derive(Default)]
struct Seen {
    blocks: HashMap<(Label, String, u32, RecordKey), usize>,
    answers: HashMap<RecordKey, (Digest, usize)>,
}

impl Seen {
    fn admit(
        &mut self,
        at: &Positions<'_>,
        start: usize,
        record: &Record,
    ) -> Result<(), ParseError> {
        let block = (record.label.clone(), record.step.clone(), record.sample, record.key);
        if let Some(first) = self.blocks.insert(block, start) {
            let message = format!(
                "this record of `{}` stands twice, first in line {}",
                record.label,
                at.line_column(first).0
            );
            return Err(at.error(start, message, "delete one of the two blocks"));
        }
        let (content, first) = *self.answers.entry(record.key).or_insert((record.content, start));
        if content != record.content {
            let message = format!(
                "this record and the one in line {} answer the same request differently",
                at.line_column(first).0
            );
            let hint = "keep one of the two blocks, or run `maestro lock --update` on the label";
            return Err(at.error(start, message, hint));
        }
        Ok(())
    }
}

struct Positions<'a> {
    text: &'a str,
}

impl Positions<'_> {
    fn refuse_conflicts(&self) -> Result<(), ParseError> {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let marks = ["<<<<<<< ", ">>>>>>> ", "||||||| "];
            let bare = line.trim_end();
            if marks.iter().any(|m| line.starts_with(m)) || bare == "=======" {
                let message = format!("a merge left a conflict marker: `{bare}`");
                let hint = "keep the blocks of both sides without the markers (each block is \
                            independent), then run `maestro lock --check`";
                return Err(self.error(start, message, hint));
            }
            start += line.len();
        }
        Ok(())
    }

    fn syntax(&self, error: &toml::de::Error) -> ParseError {
        let start = error.span().map_or(0, |span| span.start);
        let message = error.message().lines().next().unwrap_or("not TOML").to_owned();
        let hint = "the file is written by `maestro lock`: take it from version control again, \
                    or delete the damaged block and run `maestro lock --update`";
        self.error(start, message, hint)
    }

    fn error(&self, start: usize, message: impl Into<String>, hint: &str) -> ParseError {
        let (line, column) = self.line_column(start);
        ParseError { line, column, message: message.into(), hint: hint.to_owned() }
    }

    fn line_column(&self, start: usize) -> (usize, usize) {
        let before = self.text.get(..start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let last = before.rsplit('\n').next().unwrap_or_default();
        (line, last.chars().count() + 1)
    }

    fn record(&self, raw: RawRecord) -> Result<Record, ParseError> {
        let label = self.field(&raw.label, |text| Label::parse(text, "", ""))?;
        let date = self.field(&raw.date, |text| text.parse::<Date>())?;
        let content = self.field(&raw.content, |text| text.parse::<Digest>())?;
        if content.function != DigestFunction::Sha256 {
            let message = format!("`{content}` is not a SHA-256 digest");
            return Err(self.error(raw.content.span().start, message, DAMAGED));
        }
        if raw.step.get_ref().is_empty() {
            return Err(self.error(raw.step.span().start, "the step is empty", DAMAGED));
        }
        let content_file = match &raw.content_file {
            None => None,
            Some(path) => Some(self.content_file(path, &content)?),
        };
        let context = raw.context.iter().map(|c| self.context(c)).collect::<Result<_, _>>()?;
        Ok(Record {
            label,
            step: raw.step.into_inner(),
            sample: raw.sample,
            key: raw.key.into_inner(),
            kind: raw.kind,
            model: raw.model,
            identity: raw.identity,
            seed: raw.seed,
            prompt_tokens: raw.prompt_tokens,
            completion_tokens: raw.completion_tokens,
            finish_reason: raw.finish_reason,
            cost_usd_micros: raw.cost_usd_micros,
            date,
            content,
            content_file,
            context,
            recorder: raw.recorder,
            signature: raw.signature,
            edited: raw.edited,
        })
    }

    fn field<T, E: std::fmt::Display>(
        &self,
        text: &Spanned<String>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ParseError> {
        read(text.get_ref()).map_err(|e| self.error(text.span().start, e.to_string(), DAMAGED))
    }

    /// Only a plain name in the one folder: a lock must not make Maestro read other files.
    fn content_file(&self, path: &Spanned<String>, content: &Digest) -> Result<String, ParseError> {
        let start = path.span().start;
        let name = path
            .get_ref()
            .strip_prefix(CONTENT_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|name| is_plain(name));
        let Some(name) = name else {
            let message = format!("`{}` is not a plain name in `{CONTENT_DIR}`", path.get_ref());
            return Err(self.error(start, message, DAMAGED));
        };
        if content.size > limits::LOCK_TEXT_BYTES_MAX as u64 {
            let message = format!(
                "an answer of {} bytes cannot stand in `{CONTENT_DIR}`, the limit is {}",
                content.size,
                limits::LOCK_TEXT_BYTES_MAX
            );
            return Err(self.error(start, message, DAMAGED));
        }
        Ok(name.to_owned())
    }

    fn context(&self, text: &Spanned<String>) -> Result<ContextFile, ParseError> {
        let parsed = text.get_ref().rsplit_once(" sha256:").and_then(|(path, hash)| {
            Some(ContextFile { path: path.to_owned(), sha256: hash.parse().ok()? })
        });
        parsed.ok_or_else(|| {
            let message = format!("`{}` is not of the form `PATH sha256:HASH`", text.get_ref());
            self.error(text.span().start, message, DAMAGED)
        })
    }
}

const DAMAGED: &str = "take the block from version control again, or delete it and run \
                       `maestro lock --update` on its label";

fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
    const HASH: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn block(label: &str, sample: u32, key: &str) -> String {
        format!(
            "\n[[record]]\nlabel = \"{label}\"\nstep = \"plan\"\nsample = {sample}\n\
             key = \"{key}\"\nkind = \"llm\"\nmodel = \"m\"\nidentity = \"name:m-2026-01-01\"\n\
             seed = 42\nprompt_tokens = 10\ncompletion_tokens = 5\nfinish_reason = \"stop\"\n\
             cost_usd_micros = 7\ndate = \"2026-11-23\"\ncontent = \"{HASH}/12\"\n\
             content_file = \"maestro.lock.d/aaaaaaaaaaaaaaaa.json\"\n\
             context = [\"p/with space \\\"q\\\" {HASH}\"]\nrecorder = \"unsigned\"\n"
        )
    }

    fn whole() -> String {
        let head = "# What the outside world answered. Written by `maestro lock`; commit it.\n\
                    version = 1\n\n[models.\"m\"]\nname = \"m-2026-01-01\"\n";
        let (b, a) = (block("//b:b", 0, OTHER), block("//a:a", 1, KEY));
        format!("{head}{a}{b}")
    }

    #[test]
    fn printing_and_parsing_are_inverse_and_sorted() {
        let text = whole();
        let lock = parse(&text).expect("valid");
        assert_eq!(lock.print(), text);
        let mut shuffled = lock.clone();
        shuffled.records.reverse();
        assert_eq!(shuffled.print(), text);
        assert_eq!(lock.records[0].context[0].path, "p/with space \"q\"");
        assert_eq!(parse(&Lock::default().print()).expect("valid"), Lock::default());
        assert_eq!(parse(&text.replace('\n', "\r\n")).expect("an editor's line ends"), lock);
    }

    #[test]
    fn damage_is_found_where_it_is() {
        let check = |from: &str, to: &str, expect: &str| {
            let text = whole().replacen(from, to, 1);
            assert_ne!(text, whole(), "{from} is not there");
            let error = parse(&text).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error}\ndoes not say\n{expect}");
        };
        check("version = 1", "version = 2", "maestro.lock:2:11: version 2 is not one that");
        check("version = 1\n", "", "missing field `version`");
        check("seed = 42", "seeds = 42", "unknown field `seeds`");
        check("seed = 42", "seed = \"x\"", "maestro.lock:15:8: invalid type");
        check("sample = 1", "sample = -1", "maestro.lock:10:10");
        check("label = \"//a:a\"", "label = \"a//a\"", "maestro.lock:8:9: ");
        check(
            &format!("key = \"{KEY}\""),
            "key = \"sha256:12\"",
            "maestro.lock:11:7: `12` is not a SHA-256",
        );
        check("2026-11-23", "2026-13-23", "maestro.lock:20:8: ");
        check("/12\"", "/-1\"", "maestro.lock:21:11: ");
        check(&format!("{HASH}/12"), &format!("blake3:{}/12", &HASH[7..]), "not a SHA-256 digest");
        check("maestro.lock.d/a", "maestro.lock.d/../a", "is not a plain name");
        check("maestro.lock.d/a", "/etc/a", "is not a plain name");
        check(&format!("{HASH}/12"), &format!("{HASH}/70000"), "the limit is 65536");
        check("[\"p/with", "[\"no hash\", \"p/with", "`no hash` is not of the form");
        check("name = \"m-2026-01-01\"", "size = 3", "maestro.lock:4:9: model `m` has neither");
        check("[[record]]", "[[records]]", "unknown field `records`");
        check("//b:b", "//a:a\"\nlabel = \"//b:b", "duplicate key");
        check("step = \"plan\"", "step = \"plan", "maestro.lock:9:");
        check("//b:b", "//b:b\n", "maestro.lock:28:");
    }

    #[test]
    fn merges_are_judged() {
        let (head, tail) = whole()
            .split_once("\n[[record]]")
            .map(|(a, b)| (a.to_owned(), format!("\n[[record]]{b}")))
            .expect("has a record");
        let conflict = format!("{head}\n<<<<<<< HEAD{tail}=======\n>>>>>>> topic\n");
        let error = parse(&conflict).expect_err("a conflict");
        assert_eq!((error.line, error.column), (7, 1));
        assert!(error.message.contains("conflict marker: `<<<<<<< HEAD`"), "{error}");
        assert!(error.hint.contains("keep the blocks of both sides"), "{}", error.hint);

        let twice = format!("{}{}", whole(), block("//a:a", 1, KEY));
        let error = parse(&twice).expect_err("twice").to_string();
        assert!(error.contains("record of `//a:a` stands twice, first in line 11"), "{error}");
        let same_key = format!("{}{}", whole(), block("//z:z", 0, KEY));
        assert_eq!(parse(&same_key).expect("two who ask the same").records.len(), 3);
        let differs = same_key.replacen(&format!("{HASH}/12"), &format!("{HASH}/13"), 1);
        let error = parse(&differs).expect_err("one request, two answers").to_string();
        assert!(error.contains("answer the same request differently"), "{error}");
        let two_inputs = format!("{}{}", whole(), block("//a:a", 1, OTHER));
        assert_eq!(parse(&two_inputs).expect("each its own input").records.len(), 3);
    }

    #[test]
    fn every_prefix_is_an_error_or_a_lock() {
        let text = whole();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let _ = parse(&text[..end]);
        }
        for byte in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[byte] ^= 1;
            if let Ok(damaged) = String::from_utf8(damaged) {
                let _ = parse(&damaged);
            }
        }
    }
}
