//! What a key is made of, to be kept and compared: plain data, made of the messages that were
//! hashed, by [`super::prepare`] or by who reads them from a store.

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

/// [`KeyParts`] in a third of the room: a build keeps those of all actions until it writes its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedParts(Box<[u8]>);

impl PackedParts {
    /// Packs parts.
    pub fn new(parts: &KeyParts) -> Self {
        Self(postcard::to_stdvec(parts).expect("plain data serializes").into())
    }

    /// The parts.
    pub fn unpack(&self) -> KeyParts {
        postcard::from_bytes(&self.0).expect("it holds what was packed")
    }
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
