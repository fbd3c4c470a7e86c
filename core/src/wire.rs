//! The canonical protobuf encoding of REAPI v2 `Action`, `Command`, `Directory` and `ActionResult`.
//!
//! This is our own encoder, so that the lowest layer carries no protobuf dependency; a property
//! test compares it byte for byte with `bazel-remote-apis` (tests/tests/wire.rs).
//! Field numbers follow `build/bazel/remote/execution/v2/remote_execution.proto`.
//! Encoding is canonical: fields in ascending order, defaults left out, repeated fields in the
//! order that the REAPI demands, which the constructors of these messages keep.
//! Decoding takes bytes from outside: it never panics, skips unknown fields and bounds its work.

use crate::digest::{Digest, DigestFunction};
use crate::limits;

/// REAPI `Directory`: one level of a tree. Each list is sorted by name; names are unique over all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// Regular files.
    pub files: Vec<FileNode>,
    /// Subfolders.
    pub directories: Vec<DirectoryNode>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkNode>,
}

/// REAPI `FileNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// A single path segment.
    pub name: String,
    /// The content.
    pub digest: Digest,
    /// The owner's execute bit.
    pub is_executable: bool,
}

/// REAPI `DirectoryNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryNode {
    /// A single path segment.
    pub name: String,
    /// The digest of the encoded [`Directory`].
    pub digest: Digest,
}

/// REAPI `SymlinkNode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymlinkNode {
    /// A single path segment.
    pub name: String,
    /// The text of the link.
    pub target: String,
}

/// REAPI `Command`, as far as Maestro uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The command line.
    pub arguments: Vec<String>,
    /// Sorted by name.
    pub environment_variables: Vec<(String, String)>,
    /// Sorted paths of outputs, files and trees alike.
    pub output_paths: Vec<String>,
    /// Sorted by name, then value.
    pub platform: Vec<(String, String)>,
}

/// REAPI `Action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The digest of the encoded [`Command`].
    pub command_digest: Digest,
    /// The digest of the encoded root [`Directory`].
    pub input_root_digest: Digest,
    /// Time limit of the command in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the result must not be cached.
    pub do_not_cache: bool,
    /// Facts that separate keys without selecting a worker: see [`crate::key`].
    pub salt: Vec<u8>,
    /// Sorted by name, then value; the same as the command's.
    pub platform: Vec<(String, String)>,
}

/// REAPI `ActionResult`, as far as Maestro uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionResult {
    /// Files made, sorted by path.
    pub output_files: Vec<OutputFile>,
    /// Trees made, sorted by path.
    pub output_directories: Vec<OutputDirectory>,
    /// The exit code.
    pub exit_code: i32,
    /// Standard output, if any.
    pub stdout_digest: Option<Digest>,
    /// Standard error, if any.
    pub stderr_digest: Option<Digest>,
    /// Who ran it: `ExecutedActionMetadata.worker`. Keeps an otherwise empty result from encoding
    /// to nothing.
    pub worker: String,
    /// Wall time of the run in milliseconds: `virtual_execution_duration`.
    pub execution_ms: u64,
}

/// REAPI `OutputFile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// The path below the execution root.
    pub path: String,
    /// The content.
    pub digest: Digest,
    /// The owner's execute bit.
    pub is_executable: bool,
}

/// REAPI `OutputDirectory`, known by its root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputDirectory {
    /// The path below the execution root.
    pub path: String,
    /// The digest of the encoded root [`Directory`].
    pub root_directory_digest: Digest,
}

/// Why bytes are not the message they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message}: {why}")]
pub struct DecodeError {
    /// The REAPI message.
    pub message: &'static str,
    /// The reason.
    pub why: &'static str,
}

impl Directory {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for file in &self.files {
            out.message(1, |out| {
                out.text(1, &file.name);
                out.digest(2, &file.digest);
                out.boolean(4, file.is_executable);
            });
        }
        for directory in &self.directories {
            out.message(2, |out| {
                out.text(1, &directory.name);
                out.digest(2, &directory.digest);
            });
        }
        for symlink in &self.symlinks {
            out.message(3, |out| {
                out.text(1, &symlink.name);
                out.text(2, &symlink.target);
            });
        }
        out.0
    }

    /// Reads and checks a directory: names single segments, sorted, unique.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("Directory", bytes);
        let mut out = Self::default();
        while let Some((field, value)) = reader.next()? {
            match field {
                1 => out.files.push(decode_file(function, reader.bytes(value)?)?),
                2 => {
                    let (name, digest) = decode_named(function, reader.bytes(value)?)?;
                    out.directories.push(DirectoryNode { name, digest });
                }
                3 => out.symlinks.push(decode_symlink(reader.bytes(value)?)?),
                _ => {}
            }
        }
        out.check()?;
        Ok(out)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let fail = |why| Err(DecodeError { message: "Directory", why });
        let entries = self.files.len() + self.directories.len() + self.symlinks.len();
        if entries > limits::DIRECTORY_ENTRIES_MAX {
            return fail("too many entries");
        }
        let mut names = std::collections::HashSet::with_capacity(entries);
        let lists: [Vec<&str>; 3] = [
            self.files.iter().map(|n| n.name.as_str()).collect(),
            self.directories.iter().map(|n| n.name.as_str()).collect(),
            self.symlinks.iter().map(|n| n.name.as_str()).collect(),
        ];
        for list in &lists {
            if list.windows(2).any(|pair| pair.first() >= pair.last()) {
                return fail("names are not sorted");
            }
            for name in list {
                if matches!(*name, "" | "." | "..") || name.contains(['/', '\0']) {
                    return fail("a name is not a single path segment");
                }
                if !names.insert(*name) {
                    return fail("a name stands twice");
                }
            }
        }
        Ok(())
    }
}

impl Command {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for argument in &self.arguments {
            out.element(1, argument);
        }
        for (name, value) in &self.environment_variables {
            out.message(2, |out| {
                out.text(1, name);
                out.text(2, value);
            });
        }
        out.platform(5, &self.platform);
        for path in &self.output_paths {
            out.element(7, path);
        }
        out.0
    }
}

impl Action {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.digest(1, &self.command_digest);
        out.digest(2, &self.input_root_digest);
        if let Some(ms) = self.timeout_ms {
            out.duration(6, ms);
        }
        out.boolean(7, self.do_not_cache);
        out.blob(9, &self.salt);
        out.platform(10, &self.platform);
        out.0
    }
}

impl ActionResult {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        for file in &self.output_files {
            out.message(2, |out| {
                out.text(1, &file.path);
                out.digest(2, &file.digest);
                out.boolean(4, file.is_executable);
            });
        }
        for directory in &self.output_directories {
            out.message(3, |out| {
                out.text(1, &directory.path);
                out.digest(5, &directory.root_directory_digest);
            });
        }
        out.integer(4, i64::from(self.exit_code) as u64);
        if let Some(digest) = &self.stdout_digest {
            out.digest(6, digest);
        }
        if let Some(digest) = &self.stderr_digest {
            out.digest(8, digest);
        }
        out.message(9, |out| {
            out.text(1, &self.worker);
            if self.execution_ms > 0 {
                out.duration(12, self.execution_ms);
            }
        });
        out.0
    }

    /// Reads a result; unknown fields are skipped.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("ActionResult", bytes);
        let mut out = Self::default();
        while let Some((field, value)) = reader.next()? {
            match field {
                2 => {
                    let file = decode_file(function, reader.bytes(value)?)?;
                    let FileNode { name: path, digest, is_executable } = file;
                    out.output_files.push(OutputFile { path, digest, is_executable });
                }
                3 => out
                    .output_directories
                    .push(decode_output_directory(function, reader.bytes(value)?)?),
                4 => out.exit_code = reader.number(value)? as i32,
                6 => out.stdout_digest = Some(decode_digest(function, reader.bytes(value)?)?),
                8 => out.stderr_digest = Some(decode_digest(function, reader.bytes(value)?)?),
                9 => decode_metadata(&mut out, reader.bytes(value)?)?,
                _ => {}
            }
        }
        Ok(out)
    }

    /// Every blob that the result names; trees by their root directory only.
    pub fn blobs(&self) -> impl Iterator<Item = Digest> + '_ {
        let files = self.output_files.iter().map(|file| file.digest);
        let trees = self.output_directories.iter().map(|tree| tree.root_directory_digest);
        files.chain(trees).chain(self.stdout_digest).chain(self.stderr_digest)
    }
}

fn decode_file(function: DigestFunction, bytes: &[u8]) -> Result<FileNode, DecodeError> {
    let mut reader = Reader::new("FileNode", bytes);
    let (mut name, mut digest, mut is_executable) = (String::new(), None, false);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => name = reader.text(value)?,
            2 => digest = Some(decode_digest(function, reader.bytes(value)?)?),
            4 => is_executable = reader.number(value)? != 0,
            _ => {}
        }
    }
    let digest = digest.ok_or(reader.fail("the digest is missing"))?;
    Ok(FileNode { name, digest, is_executable })
}

fn decode_named(function: DigestFunction, bytes: &[u8]) -> Result<(String, Digest), DecodeError> {
    let FileNode { name, digest, .. } = decode_file(function, bytes)?;
    Ok((name, digest))
}

fn decode_symlink(bytes: &[u8]) -> Result<SymlinkNode, DecodeError> {
    let mut reader = Reader::new("SymlinkNode", bytes);
    let (mut name, mut target) = (String::new(), String::new());
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => name = reader.text(value)?,
            2 => target = reader.text(value)?,
            _ => {}
        }
    }
    Ok(SymlinkNode { name, target })
}

fn decode_output_directory(
    function: DigestFunction,
    bytes: &[u8],
) -> Result<OutputDirectory, DecodeError> {
    let mut reader = Reader::new("OutputDirectory", bytes);
    let (mut path, mut root) = (String::new(), None);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => path = reader.text(value)?,
            5 => root = Some(decode_digest(function, reader.bytes(value)?)?),
            _ => {}
        }
    }
    let root_directory_digest = root.ok_or(reader.fail("the root directory digest is missing"))?;
    Ok(OutputDirectory { path, root_directory_digest })
}

fn decode_metadata(out: &mut ActionResult, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new("ExecutedActionMetadata", bytes);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => out.worker = reader.text(value)?,
            12 => {
                let mut duration = Reader::new("Duration", reader.bytes(value)?);
                let (mut seconds, mut nanos) = (0u64, 0u64);
                while let Some((field, value)) = duration.next()? {
                    match field {
                        1 => seconds = duration.number(value)?,
                        2 => nanos = duration.number(value)?,
                        _ => {}
                    }
                }
                out.execution_ms = seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000);
            }
            _ => {}
        }
    }
    Ok(())
}

fn decode_digest(function: DigestFunction, bytes: &[u8]) -> Result<Digest, DecodeError> {
    let mut reader = Reader::new("Digest", bytes);
    let (mut hash, mut size) = (String::new(), 0);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => hash = reader.text(value)?,
            2 => size = reader.number(value)?,
            _ => {}
        }
    }
    Digest::from_hex(function, &hash, size)
        .map_err(|_| reader.fail("the hash is not 64 hex digits"))
}

/// Appends protobuf fields. Defaults are left out, as canonical encoders do.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn integer(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, 0);
            self.varint(value);
        }
    }

    fn boolean(&mut self, field: u32, value: bool) {
        self.integer(field, u64::from(value));
    }

    fn blob(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.tag(field, 2);
            self.varint(value.len() as u64);
            self.0.extend_from_slice(value);
        }
    }

    fn text(&mut self, field: u32, value: &str) {
        self.blob(field, value.as_bytes());
    }

    /// An element of a repeated string field, which is written even when empty.
    fn element(&mut self, field: u32, value: &str) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.tag(field, 2);
        self.varint(inner.0.len() as u64);
        self.0.extend_from_slice(&inner.0);
    }

    fn digest(&mut self, field: u32, digest: &Digest) {
        self.message(field, |out| {
            out.text(1, &digest.hex());
            out.integer(2, digest.size);
        });
    }

    fn duration(&mut self, field: u32, ms: u64) {
        self.message(field, |out| {
            out.integer(1, ms / 1000);
            out.integer(2, ms % 1000 * 1_000_000);
        });
    }

    fn platform(&mut self, field: u32, properties: &[(String, String)]) {
        if properties.is_empty() {
            return;
        }
        self.message(field, |out| {
            for (name, value) in properties {
                out.message(1, |out| {
                    out.text(1, name);
                    out.text(2, value);
                });
            }
        });
    }
}

/// Walks the fields of a message that came from outside.
struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Reader<'a> {
    fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    fn fail(&self, why: &'static str) -> DecodeError {
        DecodeError { message: self.message, why }
    }

    fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field =
            u32::try_from(tag >> 3).map_err(|_| self.fail("a field number is too large"))?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| self.fail("it is cut off"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(self.fail("a wire type is unknown")),
        };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(self.fail("it is cut off")) };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fail("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(self.fail("it is cut off"))?;
        self.rest = rest;
        Ok(head)
    }

    fn bytes(&self, value: Value<'a>) -> Result<&'a [u8], DecodeError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(self.fail("a field has the wrong type")),
        }
    }

    fn number(&self, value: Value<'a>) -> Result<u64, DecodeError> {
        match value {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) => Err(self.fail("a field has the wrong type")),
        }
    }

    fn text(&self, value: Value<'a>) -> Result<String, DecodeError> {
        let bytes = self.bytes(value)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.fail("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_round_trip() {
        let digest = DigestFunction::Blake3.digest(b"x");
        let result = ActionResult {
            output_files: vec![OutputFile { path: "a".into(), digest, is_executable: true }],
            output_directories: vec![OutputDirectory {
                path: "t".into(),
                root_directory_digest: digest,
            }],
            exit_code: 3,
            stdout_digest: Some(digest),
            stderr_digest: None,
            worker: "local".into(),
            execution_ms: 61_234,
        };
        let bytes = result.encode();
        assert_eq!(ActionResult::decode(DigestFunction::Blake3, &bytes), Ok(result));
    }

    #[test]
    fn cut_or_odd_bytes_are_errors_never_panics() {
        let digest = DigestFunction::Sha256.digest(b"x");
        let file = FileNode { name: "f".into(), digest, is_executable: false };
        let bytes = Directory { files: vec![file.clone()], ..Directory::default() }.encode();
        for cut in 1..bytes.len() {
            let head = bytes.get(..cut).expect("in range");
            assert!(Directory::decode(DigestFunction::Sha256, head).is_err());
        }
        let twice = Directory { files: vec![file.clone(), file], ..Directory::default() };
        assert!(Directory::decode(DigestFunction::Sha256, &twice.encode()).is_err());
        for name in ["", ".", "..", "a/b"] {
            let bad = FileNode { name: name.into(), digest, is_executable: false };
            let bad = Directory { files: vec![bad], ..Directory::default() }.encode();
            assert!(Directory::decode(DigestFunction::Sha256, &bad).is_err(), "{name}");
        }
    }
}
