//! Reading messages that came from outside.
//!
//! Nothing here panics; unknown fields are skipped, and messages over
//! [`limits::MESSAGE_BYTES_MAX`] are refused. Messages nest by their type alone, so that depth is
//! bounded by construction, and all that is made is in proportion to the bytes that were read.
//! What the canonical encoder wrote comes back as it was; a [`Directory`] is also checked.

use super::fields::Reader;
use super::{
    Action, ActionResult, Command, DecodeError, Directory, DirectoryNode, FileNode,
    OutputDirectory, OutputFile, SymlinkNode, Tree,
};
use crate::digest::{Digest, DigestFunction};
use crate::limits;

impl Directory {
    /// Reads and checks a directory: names single segments, sorted, unique.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open("Directory", bytes)?;
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

impl Tree {
    /// Reads a tree and checks each directory of it, but not that they make one.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open("Tree", bytes)?;
        let mut out = Self::default();
        while let Some((field, value)) = reader.next()? {
            match field {
                1 => out.root = Directory::decode(function, reader.bytes(value)?)?,
                2 => out.children.push(Directory::decode(function, reader.bytes(value)?)?),
                _ => {}
            }
        }
        Ok(out)
    }
}

impl Command {
    /// Reads a command; unknown fields are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open("Command", bytes)?;
        let mut out = Self::default();
        while let Some((field, value)) = reader.next()? {
            match field {
                1 => out.arguments.push(reader.text(value)?),
                2 => out
                    .environment_variables
                    .push(decode_pair("EnvironmentVariable", reader.bytes(value)?)?),
                5 => out.platform = decode_platform(reader.bytes(value)?)?,
                7 => out.output_paths.push(reader.text(value)?),
                _ => {}
            }
            let lists = [out.arguments.len(), out.output_paths.len()];
            if lists.into_iter().any(|length| length > limits::COMMAND_ENTRIES_MAX) {
                return Err(reader.fail("too many entries"));
            }
        }
        Ok(out)
    }
}

impl Action {
    /// Reads an action; unknown fields are skipped.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open("Action", bytes)?;
        let (mut command, mut root) = (None, None);
        let (mut timeout_ms, mut do_not_cache) = (None, false);
        let (mut salt, mut platform) = (Vec::new(), Vec::new());
        while let Some((field, value)) = reader.next()? {
            match field {
                1 => command = Some(decode_digest(function, reader.bytes(value)?)?),
                2 => root = Some(decode_digest(function, reader.bytes(value)?)?),
                6 => timeout_ms = Some(decode_duration(reader.bytes(value)?)?),
                7 => do_not_cache = reader.number(value)? != 0,
                9 => salt = reader.bytes(value)?.to_vec(),
                10 => platform = decode_platform(reader.bytes(value)?)?,
                _ => {}
            }
        }
        let command_digest = command.ok_or(reader.fail("the command digest is missing"))?;
        let input_root_digest = root.ok_or(reader.fail("the input root digest is missing"))?;
        Ok(Self { command_digest, input_root_digest, timeout_ms, do_not_cache, salt, platform })
    }
}

impl ActionResult {
    /// Reads a result; unknown fields are skipped.
    pub fn decode(function: DigestFunction, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = open("ActionResult", bytes)?;
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
}

/// Begins a message that stands alone.
fn open<'a>(message: &'static str, bytes: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
    if bytes.len() as u64 > limits::MESSAGE_BYTES_MAX {
        return Err(DecodeError { message, why: "it is too large" });
    }
    Ok(Reader::new(message, bytes))
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
    let (name, target) = decode_pair("SymlinkNode", bytes)?;
    Ok(SymlinkNode { name, target })
}

/// A message of two texts, such as an environment variable.
fn decode_pair(message: &'static str, bytes: &[u8]) -> Result<(String, String), DecodeError> {
    let mut reader = Reader::new(message, bytes);
    let (mut name, mut text) = (String::new(), String::new());
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => name = reader.text(value)?,
            2 => text = reader.text(value)?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn decode_platform(bytes: &[u8]) -> Result<Vec<(String, String)>, DecodeError> {
    let mut reader = Reader::new("Platform", bytes);
    let mut out = Vec::new();
    while let Some((field, value)) = reader.next()? {
        if field == 1 {
            out.push(decode_pair("Property", reader.bytes(value)?)?);
        }
    }
    Ok(out)
}

/// A time span in milliseconds; what is below is cut off.
fn decode_duration(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new("Duration", bytes);
    let (mut seconds, mut nanos) = (0u64, 0u64);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => seconds = reader.number(value)?,
            2 => nanos = reader.number(value)?,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
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
            12 => out.execution_ms = decode_duration(reader.bytes(value)?)?,
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
