//! Actions and artifacts: what a step is, before anything has run.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::depset::SetId;
use crate::graph::{ActionId, ArtifactId, TargetId};
use crate::map::Map;
use crate::path::RelPath;

/// How the result of an action may be reused. Part of the action's definition, never guessed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionClass {
    /// Same key, same output: compile, test, image, a download pinned by digest.
    #[default]
    Pure,
    /// The recorded result is the result: a model's answer, a scraped page.
    Recorded,
    /// Changes the outside world; never cached.
    Effect,
}

impl ActionClass {
    /// The name used in keys and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Recorded => "recorded",
            Self::Effect => "effect",
        }
    }
}

/// A file or tree that actions read or make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it stands below the execution root. Toolchains have a display path instead.
    pub path: RelPath,
    /// One file or a whole tree.
    pub kind: ArtifactKind,
    /// Where it comes from.
    pub origin: Origin,
}

/// The shape of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// One regular file.
    File,
    /// A directory whose content is known only after its action ran.
    Tree,
}

/// Where an artifact comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// A file of the workspace, read from `<workspace>/<path>`.
    Source,
    /// Bytes that ship inside Maestro (the built-in rule library).
    Builtin(Arc<[u8]>),
    /// An output of an action. `None` until the action is added to the graph.
    Action(Option<ActionId>),
    /// A tree of files of this machine, declared as a toolchain.
    Toolchain(Arc<Toolchain>),
}

/// A declared set of host files that actions see at their absolute paths.
///
/// The tree holds the files of the named packages and, unless excluded, of the packages they
/// depend on; it is copied into the cache once and known by its digest from then on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Toolchain {
    /// The name for people, such as `cc`.
    pub name: String,
    /// Names of Debian packages.
    pub packages: Vec<String>,
    /// Packages that are left out although others depend on them.
    pub exclude: Vec<String>,
    /// Prefixes of absolute paths that are left out, such as `/usr/share/doc`.
    pub exclude_paths: Vec<String>,
}

/// What an argument list or set is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Item {
    /// Text that is used as it is.
    Text(Arc<str>),
    /// The path of an artifact; a tree expands to its files where asked.
    Artifact(ArtifactId),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Artifact(id) => write!(f, "{id:?}"),
        }
    }
}

/// One part of a command line, expanded when the action's inputs are known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Arg {
    /// One argument: the concatenation of its parts, where artifacts become their paths.
    One(Vec<Item>),
    /// Zero or more arguments made from a list or set.
    Many(Sequence),
    /// Further arguments that may move into a file.
    ParamFile {
        /// The arguments that move.
        args: Vec<Arg>,
        /// How the file is named on the command line; `%s` is its path.
        flag: String,
        /// How the arguments are written into the file.
        format: ParamFileFormat,
        /// Whether they move even where they would fit on the command line.
        always: bool,
    },
}

/// How arguments are written into a param file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParamFileFormat {
    /// One argument a line, as it is.
    Multiline,
    /// One argument a line, quoted for a POSIX shell.
    Shell,
    /// One flag (`--name`) a line, with `=` and its values; what is no flag stays on the command
    /// line, as for the flags library of Abseil.
    FlagPerLine,
}

/// Arguments made from items, in the manner of Starlark's `args.add_all` and `add_joined`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sequence {
    /// Items that come first.
    pub direct: Vec<Item>,
    /// A set that comes after them.
    pub set: Option<SetId>,
    /// A template with one `%s` for each item.
    pub format_each: Option<String>,
    /// An argument before each item.
    pub before_each: Option<String>,
    /// One argument before all items, where there is any.
    pub before_all: Option<String>,
    /// Joins the items into one argument.
    pub join_with: Option<String>,
    /// A template with one `%s` for the join.
    pub format_joined: Option<String>,
    /// One argument after all items, where there is any.
    pub terminate_with: Option<String>,
    /// Drops items that came before.
    pub unique: bool,
    /// Replaces trees by the files in them.
    pub expand_trees: bool,
    /// Whether a join of no items makes no argument (else an empty one).
    pub omit_if_empty: bool,
}

impl Default for Sequence {
    fn default() -> Self {
        Self {
            direct: Vec::new(),
            set: None,
            format_each: None,
            before_each: None,
            before_all: None,
            join_with: None,
            format_joined: None,
            terminate_with: None,
            unique: false,
            expand_trees: true,
            omit_if_empty: true,
        }
    }
}

/// What an action does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum How {
    /// Runs a program in the sandbox.
    Command {
        /// The command line; the first argument is the program.
        argv: Vec<Arg>,
    },
    /// Runs a step that Maestro implements, in process: see `docs/concepts/keys.md`.
    Native {
        /// The kind, such as `write`, `tar`, `oci-image` or `llm`.
        kind: String,
        /// The number that is bumped when the output bytes of this kind change.
        semantics: u32,
        /// The parameters; a closed object whose shape the kind defines.
        /// Paths in it are execution paths of inputs and outputs.
        #[serde(with = "json_text")]
        request: serde_json::Value,
    },
    /// Writes arguments into a file: the native kind `write` with a text that is known only when
    /// the inputs are, since trees in the arguments expand.
    Params {
        /// The arguments; none of them moves into another file.
        args: Vec<Arg>,
        /// How they are written.
        format: ParamFileFormat,
        /// Whether the file is a program.
        executable: bool,
    },
    /// Runs a command for each file of a tree, and makes a tree of what they make.
    Map(Map),
}

/// An output that an action declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The artifact, whose kind says file or tree.
    pub artifact: ArtifactId,
    /// Whether the action may leave it out (a test's XML result, for instance).
    pub optional: bool,
}

/// Scheduling data of an action; does not change its bytes and is not keyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionHints {
    /// Processors, in thousandths.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whether the action is a test: a fresh network namespace, its log shown on failure.
    pub test: bool,
    /// How often it is tried before it has failed; more than once only for tests that say so.
    pub attempts: u32,
    /// Whether no other command may run beside it.
    pub exclusive: bool,
}

impl Default for ExecutionHints {
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory_bytes: 256 << 20,
            test: false,
            attempts: 1,
            exclusive: false,
        }
    }
}

/// A whole action. Its first fields are those of [`crate::graph::ActionHead`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActionSpec {
    /// The target that declared it.
    pub owner: TargetId,
    /// A short CamelCase word for people, such as `CppCompile`.
    pub mnemonic: String,
    /// One line for people, such as `Compiling kernel/graph.cc`; may be empty.
    pub progress: String,
    /// How its result may be reused.
    pub class: ActionClass,
    /// What it does.
    pub how: How,
    /// The artifacts it reads; flattened only to make the key.
    pub inputs: SetId,
    /// Toolchains, visible at their absolute paths.
    pub toolchains: Vec<ArtifactId>,
    /// What it must make.
    pub outputs: Vec<Output>,
    /// Environment variables beyond the constant ones of [`crate::key::BASE_ENVIRONMENT`].
    pub env: Vec<(String, String)>,
    /// REAPI platform properties.
    pub platform: Vec<(String, String)>,
    /// Time limit; [`crate::limits::ACTION_TIMEOUT_MS_DEFAULT`] where absent.
    pub timeout_ms: Option<u64>,
    /// Scheduling data.
    pub hints: ExecutionHints,
}

/// JSON as text, for formats that cannot tell what they read without being told.
mod json_text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &serde_json::Value,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<serde_json::Value, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}
