//! What a key is made of, to be kept and compared: plain data, made by [`super::prepare`] alone.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

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
