//! How an action becomes a cache key, and why a key changed.
//!
//! The key of an action is the digest of a REAPI `Action` message. What enters it, and by which
//! road:
//!
//! | fact | road |
//! |---|---|
//! | command line (expanded), constant and declared environment, output paths, platform | `Command` |
//! | content, mode and path of every input; content of param files | Merkle root of the inputs |
//! | toolchains: their tree digests, in order | file `.maestro/toolchains` in the input root |
//! | a native step's kind and semantics | `Command.arguments` = `[@maestro//KIND, SEMANTICS]` |
//! | a native step's parameters | file `request.json` in the input root |
//! | what a map does with a file: command line, outputs | `Command` of the part that it makes |
//! | a time limit that the rule declares | `Action.timeout` |
//! | class and sandbox profile | `Action.salt`, as RFC 8785 JSON |
//! | an effect's uniqueness | `Action.do_not_cache` |
//! | owner, mnemonic, progress text, scheduling hints, whether an output is optional | nowhere |
//!
//! [`prepare`] takes an [`ActionSpec`] apart exhaustively, so that a new field does not compile
//! until someone has put it on a road. What it makes are the very structs that are encoded and
//! hashed; [`KeyParts`] keeps those same structs, and [`explain`] compares them, again by
//! exhaustive destructuring. So the key and its explanation cannot disagree: two keys are equal
//! if and only if `explain` has nothing to say (a property test holds this).
//!
//! Worked example. `cc -c a.cc -o maestro-out/shared/p/a.o` with header `a.h`: the input root has
//! `p/a.cc`, `p/a.h` and `.maestro/toolchains` (one line, the digest of the C++ toolchain's tree);
//! the salt is `{"class":"pure","sandbox":"hermetic/1"}`. Editing `a.h` changes the root, hence
//! the Action, hence the key; `explain` says `Change::Input { path: "p/a.h", .. }`. If the
//! compiler then makes the same object file, everything after it keeps its key: early cutoff.

mod arguments;
mod builder;
mod changes;
mod parts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::arguments::shell_quote;
use self::builder::{Asked, Builder};
pub use self::changes::{Change, explain};
pub use self::parts::{CommonParts, InputPart, KeyParts, PackedParts};
use crate::action::{ActionClass, ActionSpec, How, Output};
use crate::digest::{Digest, DigestFunction};
use crate::graph::{ActionGraph, ArtifactId};
use crate::map::Map;
use crate::merkle::{InputTree, Node, PathClash, merkle};
use crate::path::RelPath;
use crate::record::{RecordError, canonical_json};
use crate::wire::{Action, Command};

/// Environment variables that every command action has unless it says otherwise.
pub const BASE_ENVIRONMENT: [(&str, &str); 6] = [
    ("HOME", "/nonexistent"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/bin:/bin"),
    ("SOURCE_DATE_EPOCH", "315532800"),
    ("TMPDIR", "/tmp"),
    ("TZ", "UTC"),
];

/// Where the list of toolchain digests stands in the input root of a command.
pub const TOOLCHAINS_FILE: &str = ".maestro/toolchains";
/// Where the parameters of a native step stand in its input root.
pub const REQUEST_FILE: &str = "request.json";
/// The folder of a native step's inputs in its input root.
pub const NATIVE_INPUTS: &str = "in";

/// The semantics of the native kind `write`, to which [`How::Params`] comes down.
pub const WRITE_SEMANTICS: u32 = 1;

/// The digest of an encoded REAPI `Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionKey(pub Digest);

/// How a command is confined; enters the key through the salt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SandboxProfile {
    /// Namespaces, a new root, no network: the only profile whose results may be shared.
    #[default]
    Hermetic,
    /// The user's explicit choice where namespaces are not permitted.
    None,
}

impl SandboxProfile {
    /// The name in the salt. The number is bumped when actions can tell the difference.
    fn salt_name(self) -> &'static str {
        match self {
            Self::Hermetic => "hermetic/1",
            Self::None => "none/1",
        }
    }
}

/// What is known about artifacts by the time a key is made.
pub trait Resolved {
    /// What stands at the artifact, or `None` if its producer left it out.
    fn node(&self, artifact: ArtifactId) -> Option<Node>;
    /// The relative paths of the files and links inside a tree, sorted.
    fn tree_files(&self, root: Digest) -> Option<Vec<String>>;
}

/// Everything that is needed to look an action up or to run it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The cache key.
    pub key: ActionKey,
    /// The digest of the `Command` message.
    pub command: Digest,
    /// The structs that were hashed, and the inputs.
    pub parts: KeyParts,
    /// The input root.
    pub tree: InputTree,
    /// Blobs that may be new: command and action, param files, requests. Not the directories of
    /// the input root, which are in `tree`: they follow from its entries, and only who sends an
    /// action elsewhere needs them as blobs.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

/// Why an action has no key.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// An input does not exist: its producer left an optional output out.
    #[error("input `{path}` does not exist")]
    MissingInput {
        /// The execution path.
        path: RelPath,
    },
    /// Two inputs want the same path.
    #[error(transparent)]
    Clash(#[from] PathClash),
    /// A request has no canonical form.
    #[error(transparent)]
    Request(#[from] RecordError),
    /// The command line is too long and nothing in it may move into a param file.
    #[error(
        "the command line has {bytes} bytes, the limit is {limit}; pass long lists with `args.use_param_file`"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit that it breaks.
        limit: usize,
    },
    /// A tree that an argument expands is not in the store.
    #[error("the tree {root} is not in the store")]
    LostTree {
        /// Its root directory.
        root: Digest,
    },
}

/// An action whose inputs are known.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What it is.
    pub spec: &'a ActionSpec,
    /// The artifacts that it reads, each once.
    pub inputs: &'a [ArtifactId],
    /// What it reads and makes beside artifacts.
    pub files: &'a Files,
}

/// Files that are no artifacts of the graph, since they stand in trees: those of a map.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// What is read.
    pub inputs: Vec<(RelPath, Node)>,
    /// What is made.
    pub outputs: Vec<RelPath>,
}

/// Makes the key of an action of the graph whose inputs are known.
pub fn prepare(
    graph: &ActionGraph,
    function: DigestFunction,
    sandbox: SandboxProfile,
    spec: &ActionSpec,
    inputs: &[ArtifactId],
    resolved: &dyn Resolved,
) -> Result<Prepared, PrepareError> {
    let subject = Subject { spec, inputs, files: &Files::default() };
    prepare_subject(graph, function, sandbox, &subject, resolved)
}

/// As [`prepare`], also for what a map consists of.
pub fn prepare_subject(
    graph: &ActionGraph,
    function: DigestFunction,
    sandbox: SandboxProfile,
    subject: &Subject<'_>,
    resolved: &dyn Resolved,
) -> Result<Prepared, PrepareError> {
    // Exhaustive on purpose: see the table above.
    let ActionSpec {
        owner: _,
        mnemonic: _,
        progress: _,
        class,
        how,
        inputs: _, // flattened by the caller into those of `subject`
        toolchains,
        outputs,
        env,
        platform,
        timeout_ms,
        hints: _,
    } = subject.spec;
    let mut builder = Builder { graph, function, resolved, entries: Vec::new(), blobs: Vec::new() };
    let toolchains = builder.toolchains(toolchains)?;
    let mut output_paths = output_paths(graph, outputs, subject.files);
    let Asked { arguments, environment, salt } = match how {
        // A map is never run as it stands. Its placeholders are shown, as it was declared.
        How::Command { argv } | How::Map(Map { argv, .. }) => {
            builder.inputs(subject, None)?;
            builder.toolchains_file(&toolchains);
            let arguments = builder.command_line(argv, output_paths.first())?;
            let salt = serde_json::json!({"class": class.name(), "sandbox": sandbox.salt_name()});
            Asked { arguments, environment: environment(env), salt }
        }
        How::Native { kind, semantics, request } => {
            builder.inputs(subject, Some(NATIVE_INPUTS))?;
            builder.native(*class, kind, *semantics, request)?
        }
        // The same key as that of a `write` with this text: the trees whose files are listed are
        // no inputs of it, so a change inside one of those files writes nothing again.
        How::Params { args, format, executable } => {
            let content = format.text(&builder.expand_all(args, "", false, &mut 0)?);
            let request = serde_json::json!({"content": content, "executable": executable});
            builder.native(*class, "write", WRITE_SEMANTICS, &request)?
        }
    };
    output_paths.sort_unstable();
    let mut platform = platform.clone();
    platform.sort_unstable();
    let environment_variables = environment;
    let command =
        Command { arguments, environment_variables, output_paths, platform: platform.clone() };
    let Builder { entries, mut blobs, .. } = builder;
    let tree = merkle(function, entries)?;
    let command_bytes = command.encode();
    let command_digest = function.digest(&command_bytes);
    blobs.push((command_digest, command_bytes));
    let action = Action {
        command_digest,
        input_root_digest: tree.root,
        timeout_ms: *timeout_ms,
        do_not_cache: *class == ActionClass::Effect,
        salt: canonical_json(&salt)?,
        platform,
    };
    Ok(Prepared::of(function, command, action, Gathered { tree, blobs, toolchains }))
}

/// What is made, in the order in which it is declared.
fn output_paths(graph: &ActionGraph, outputs: &[Output], files: &Files) -> Vec<String> {
    let declared = outputs.iter().map(|Output { artifact, optional: _ }| graph.artifact(*artifact));
    let paths = declared.map(|artifact| &artifact.path).chain(&files.outputs);
    paths.map(RelPath::to_string).collect()
}

/// The variables of a command, sorted by name.
fn environment(declared: &[(String, String)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> =
        BASE_ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    all.extend(declared.iter().cloned());
    all.into_iter().collect()
}

/// What is known of an action beside its two messages.
struct Gathered {
    tree: InputTree,
    blobs: Vec<(Digest, Vec<u8>)>,
    toolchains: Vec<(String, Digest)>,
}

impl Prepared {
    fn of(function: DigestFunction, command: Command, action: Action, gathered: Gathered) -> Self {
        let Gathered { tree, mut blobs, toolchains } = gathered;
        let action_bytes = action.encode();
        let key = function.digest(&action_bytes);
        blobs.push((key, action_bytes));
        let command_digest = action.command_digest;
        let parts = KeyParts::of(command, action, &tree, toolchains);
        Self { key: ActionKey(key), command: command_digest, parts, tree, blobs }
    }
}
