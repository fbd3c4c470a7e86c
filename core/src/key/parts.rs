//! What a key is made of, to be kept and compared: plain data, made of the messages that were
//! hashed, by [`super::prepare`] or by who reads them from a store.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::merkle::{InputTree, Node};
use crate::wire::{Action, Command};

/// What a key is made of. Stored in the build log; compared by [`super::explain`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyParts {
    /// `Command.arguments`.
    pub arguments: Vec<String>,
    /// `Command.environment_variables`.
    pub environment: Vec<(String, String)>,
    /// `Command.output_paths`.
    pub outputs: Vec<String>,
    /// `Command.platform` and `Action.platform`.
    pub platform: Vec<(String, String)>,
    /// `Action.timeout` in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `Action.do_not_cache`.
    pub do_not_cache: bool,
    /// `Action.salt` as text.
    pub salt: String,
    /// Paths and content of the input root; trees as one entry.
    pub inputs: Vec<(String, InputPart)>,
    /// Names and tree digests of toolchains; only the digests count.
    pub toolchains: Vec<(String, Digest)>,
}

impl KeyParts {
    pub(super) fn of(
        command: Command,
        action: Action,
        tree: &InputTree,
        toolchains: Vec<(String, Digest)>,
    ) -> Self {
        let inputs = tree.entries.iter().map(|(path, node)| {
            let part = match node {
                Node::File { digest, executable } => {
                    InputPart::File { digest: *digest, executable: *executable }
                }
                Node::Symlink { target } => InputPart::Symlink(target.clone()),
                Node::Tree { root } => InputPart::Tree(*root),
            };
            (path.to_string(), part)
        });
        Self::of_messages(command, action, inputs.collect(), toolchains)
    }

    /// What a key was made of whose messages are at hand, with the inputs below the input root.
    pub fn of_messages(
        command: Command,
        action: Action,
        inputs: Vec<(String, InputPart)>,
        toolchains: Vec<(String, Digest)>,
    ) -> Self {
        let Command { arguments, environment_variables, output_paths, platform } = command;
        let Action {
            command_digest: _,    // the fields above
            input_root_digest: _, // `inputs`
            timeout_ms,
            do_not_cache,
            salt,
            platform: _, // the same as the command's
        } = action;
        Self {
            arguments,
            environment: environment_variables,
            outputs: output_paths,
            platform,
            timeout_ms,
            do_not_cache,
            salt: String::from_utf8_lossy(&salt).into_owned(),
            inputs,
            toolchains,
        }
    }
}

/// [`KeyParts`] in little room: a build keeps those of all actions until it writes its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedParts {
    own: Box<[u8]>,
    common: Arc<[u8]>,
}

/// What many keys of a build have in common, each once: environment, platform, toolchains.
#[derive(Debug, Default)]
pub struct CommonParts(Mutex<HashSet<Arc<[u8]>>>);

impl PackedParts {
    /// Packs parts; what is `known` to be part of another key is shared with it.
    pub fn new(parts: &KeyParts, known: &CommonParts) -> Self {
        let KeyParts {
            arguments, environment, outputs, platform, timeout_ms, do_not_cache, ..
        } = parts;
        let KeyParts { salt, inputs, toolchains, .. } = parts;
        let common = (environment, platform, timeout_ms, do_not_cache, salt, toolchains);
        let own = pack(&(arguments, outputs, inputs)).into();
        Self { own, common: known.share(&pack(&common)) }
    }

    /// The parts.
    pub fn unpack(&self) -> KeyParts {
        let (arguments, outputs, inputs) = unpack(&self.own);
        let (environment, platform, timeout_ms, do_not_cache, salt, toolchains) =
            unpack(&self.common);
        KeyParts {
            arguments,
            environment,
            outputs,
            platform,
            timeout_ms,
            do_not_cache,
            salt,
            inputs,
            toolchains,
        }
    }
}

impl CommonParts {
    fn share(&self, bytes: &[u8]) -> Arc<[u8]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(bytes) {
            return same.clone();
        }
        let new: Arc<[u8]> = bytes.into();
        known.insert(new.clone());
        new
    }
}

fn pack(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data serializes")
}

fn unpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    postcard::from_bytes(bytes).expect("it holds what was packed")
}

/// The content of one input in [`KeyParts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputPart {
    /// A regular file.
    File {
        /// The content.
        digest: Digest,
        /// The execute bit.
        executable: bool,
    },
    /// A link and its text.
    Symlink(String),
    /// A tree and its root directory.
    Tree(Digest),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::DigestFunction;

    fn parts(output: &str, locale: &str) -> KeyParts {
        let digest = DigestFunction::Blake3.digest(output.as_bytes());
        KeyParts {
            arguments: vec!["sh".into(), output.into()],
            environment: vec![("LANG".into(), locale.into())],
            outputs: vec![output.into()],
            platform: vec![("OSFamily".into(), "linux".into())],
            timeout_ms: Some(7),
            do_not_cache: true,
            salt: "{}".into(),
            inputs: vec![("a".into(), InputPart::Tree(digest))],
            toolchains: vec![("base".into(), digest)],
        }
    }

    #[test]
    fn packed_parts_come_back_and_share_what_they_have_in_common() {
        let known = CommonParts::default();
        let all = [parts("x", "C"), parts("x", "C"), parts("x", "de")];
        let packed: Vec<PackedParts> =
            all.iter().map(|parts| PackedParts::new(parts, &known)).collect();
        for (packed, parts) in packed.iter().zip(&all) {
            assert_eq!(packed.unpack(), *parts);
        }
        assert!(Arc::ptr_eq(&packed[0].common, &packed[1].common));
        assert!(!Arc::ptr_eq(&packed[0].common, &packed[2].common));
    }
}
