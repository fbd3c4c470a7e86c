//! Our encoder of REAPI messages against the protobuf library that everyone else uses.
//!
//! `maestro_core::wire` writes messages by hand. Here the same messages are built a second time
//! with the types generated from the REAPI's own definitions, and the bytes must be equal: then
//! keys made by Maestro are keys that any other tool computes.
//! The other way round, what that library writes must be read as what it was made from, and no
//! bytes at all may make a decoder panic.

use std::collections::BTreeMap;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::protobuf::Duration;
use maestro_core::digest::{Digest, DigestFunction};
use maestro_core::merkle::{self, Node};
use maestro_core::path::RelPath;
use maestro_core::wire;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::Config;

/// Names that sort differently by byte, by character and with `/` in between.
const NAME: &str = "[a-c.é\u{10ffff}_-]{1,3}";

fn config() -> Config {
    Config { failure_persistence: None, ..Config::with_cases(512) }
}

fn function() -> impl Strategy<Value = DigestFunction> {
    prop_oneof![Just(DigestFunction::Blake3), Just(DigestFunction::Sha256)]
}

fn digest(function: DigestFunction) -> impl Strategy<Value = Digest> {
    (any::<[u8; 32]>(), 0..i64::MAX.cast_unsigned()).prop_map(move |(hash, size)| Digest {
        function,
        hash,
        size,
    })
}

/// A single path segment.
fn name() -> impl Strategy<Value = String> {
    NAME.prop_filter("dots are not names", |name| !matches!(name.as_str(), "." | ".."))
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((any::<String>(), any::<String>()), 0..4)
}

// --- the same messages, twice

fn reapi_digest(digest: &Digest) -> Option<reapi::Digest> {
    Some(reapi::Digest { hash: digest.hex(), size_bytes: digest.size.cast_signed() })
}

fn reapi_duration(ms: u64) -> Duration {
    let nanos = i32::try_from(ms % 1000 * 1_000_000).expect("below one second");
    Duration { seconds: (ms / 1000).cast_signed(), nanos }
}

fn reapi_platform(properties: &[(String, String)]) -> Option<reapi::Platform> {
    let property = |(name, value): &(String, String)| reapi::platform::Property {
        name: name.clone(),
        value: value.clone(),
    };
    let properties: Vec<_> = properties.iter().map(property).collect();
    (!properties.is_empty()).then_some(reapi::Platform { properties })
}

fn reapi_action(action: &wire::Action) -> reapi::Action {
    reapi::Action {
        command_digest: reapi_digest(&action.command_digest),
        input_root_digest: reapi_digest(&action.input_root_digest),
        timeout: action.timeout_ms.map(reapi_duration),
        do_not_cache: action.do_not_cache,
        salt: action.salt.clone(),
        platform: reapi_platform(&action.platform),
    }
}

#[expect(deprecated, reason = "older REAPI has the platform in the command; we write both")]
fn reapi_command(command: &wire::Command) -> reapi::Command {
    let variable = |(name, value): &(String, String)| reapi::command::EnvironmentVariable {
        name: name.clone(),
        value: value.clone(),
    };
    reapi::Command {
        arguments: command.arguments.clone(),
        environment_variables: command.environment_variables.iter().map(variable).collect(),
        output_paths: command.output_paths.clone(),
        platform: reapi_platform(&command.platform),
        ..reapi::Command::default()
    }
}

fn reapi_directory(directory: &wire::Directory) -> reapi::Directory {
    let files = directory.files.iter().map(|file| reapi::FileNode {
        name: file.name.clone(),
        digest: reapi_digest(&file.digest),
        is_executable: file.is_executable,
        node_properties: None,
    });
    let directories = directory.directories.iter().map(|node| reapi::DirectoryNode {
        name: node.name.clone(),
        digest: reapi_digest(&node.digest),
    });
    let symlinks = directory.symlinks.iter().map(|link| reapi::SymlinkNode {
        name: link.name.clone(),
        target: link.target.clone(),
        node_properties: None,
    });
    reapi::Directory {
        files: files.collect(),
        directories: directories.collect(),
        symlinks: symlinks.collect(),
        node_properties: None,
    }
}

fn reapi_result(result: &wire::ActionResult) -> reapi::ActionResult {
    let files = result.output_files.iter().map(|file| reapi::OutputFile {
        path: file.path.clone(),
        digest: reapi_digest(&file.digest),
        is_executable: file.is_executable,
        ..reapi::OutputFile::default()
    });
    let directories = result.output_directories.iter().map(|tree| reapi::OutputDirectory {
        path: tree.path.clone(),
        root_directory_digest: reapi_digest(&tree.root_directory_digest),
        ..reapi::OutputDirectory::default()
    });
    let ms = result.execution_ms;
    reapi::ActionResult {
        output_files: files.collect(),
        output_directories: directories.collect(),
        exit_code: result.exit_code,
        stdout_digest: result.stdout_digest.as_ref().and_then(reapi_digest),
        stderr_digest: result.stderr_digest.as_ref().and_then(reapi_digest),
        execution_metadata: Some(reapi::ExecutedActionMetadata {
            worker: result.worker.clone(),
            virtual_execution_duration: (ms > 0).then(|| reapi_duration(ms)),
            ..reapi::ExecutedActionMetadata::default()
        }),
        ..reapi::ActionResult::default()
    }
}

// --- messages at random

fn action(function: DigestFunction) -> impl Strategy<Value = wire::Action> {
    let parts = (
        digest(function),
        digest(function),
        option::of(0..u64::MAX / 1_000_000),
        any::<bool>(),
        any::<Vec<u8>>(),
        pairs(),
    );
    parts.prop_map(|(command, root, timeout_ms, do_not_cache, salt, platform)| wire::Action {
        command_digest: command,
        input_root_digest: root,
        timeout_ms,
        do_not_cache,
        salt,
        platform,
    })
}

fn command() -> impl Strategy<Value = wire::Command> {
    let texts = || vec(any::<String>(), 0..5);
    (texts(), pairs(), texts(), pairs()).prop_map(
        |(arguments, environment_variables, output_paths, platform)| wire::Command {
            arguments,
            environment_variables,
            output_paths,
            platform,
        },
    )
}

/// A directory that keeps the rules: names unique over all lists, each list sorted.
fn directory(function: DigestFunction) -> impl Strategy<Value = wire::Directory> {
    let node = (0..3u8, digest(function), any::<bool>(), any::<String>());
    btree_map(name(), node, 0..8).prop_map(|nodes| {
        let mut directory = wire::Directory::default();
        for (name, (kind, digest, is_executable, target)) in nodes {
            match kind {
                0 => directory.files.push(wire::FileNode { name, digest, is_executable }),
                1 => directory.directories.push(wire::DirectoryNode { name, digest }),
                _ => directory.symlinks.push(wire::SymlinkNode { name, target }),
            }
        }
        directory
    })
}

fn result(function: DigestFunction) -> impl Strategy<Value = wire::ActionResult> {
    let file = (any::<String>(), digest(function), any::<bool>())
        .prop_map(|(path, digest, is_executable)| wire::OutputFile { path, digest, is_executable });
    let tree = (any::<String>(), digest(function)).prop_map(|(path, root_directory_digest)| {
        wire::OutputDirectory { path, root_directory_digest }
    });
    let parts = (
        vec(file, 0..4),
        vec(tree, 0..4),
        any::<i32>(),
        option::of(digest(function)),
        option::of(digest(function)),
        any::<String>(),
        0..u64::MAX / 1_000_000,
    );
    parts.prop_map(|(files, trees, exit_code, stdout, stderr, worker, execution_ms)| {
        wire::ActionResult {
            output_files: files,
            output_directories: trees,
            exit_code,
            stdout_digest: stdout,
            stderr_digest: stderr,
            worker,
            execution_ms,
        }
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn actions_have_the_bytes_of_protobuf_and_come_back(
        (function, action) in function().prop_flat_map(|f| (Just(f), action(f)))
    ) {
        let bytes = encoded(&reapi_action(&action));
        prop_assert_eq!(action.encode(), bytes.clone());
        prop_assert_eq!(wire::Action::decode(function, &bytes), Ok(action));
    }

    #[test]
    fn commands_have_the_bytes_of_protobuf_and_come_back(command in command()) {
        let bytes = encoded(&reapi_command(&command));
        prop_assert_eq!(command.encode(), bytes.clone());
        prop_assert_eq!(wire::Command::decode(&bytes), Ok(command));
    }

    #[test]
    fn trees_have_the_bytes_of_protobuf_and_come_back(
        root in directory(DigestFunction::Blake3),
        children in vec(directory(DigestFunction::Blake3), 0..4),
    ) {
        let theirs = reapi::Tree {
            root: Some(reapi_directory(&root)),
            children: children.iter().map(reapi_directory).collect(),
        };
        let (bytes, tree) = (encoded(&theirs), wire::Tree { root, children });
        prop_assert_eq!(tree.encode(), bytes.clone());
        prop_assert_eq!(wire::Tree::decode(DigestFunction::Blake3, &bytes), Ok(tree));
    }

    #[test]
    fn directories_have_the_bytes_of_protobuf_and_come_back(
        (function, directory) in function().prop_flat_map(|f| (Just(f), directory(f)))
    ) {
        let bytes = encoded(&reapi_directory(&directory));
        prop_assert_eq!(directory.encode(), bytes.clone());
        prop_assert_eq!(wire::Directory::decode(function, &bytes), Ok(directory));
    }

    #[test]
    fn results_have_the_bytes_of_protobuf_and_come_back(
        (function, result) in function().prop_flat_map(|f| (Just(f), result(f)))
    ) {
        let bytes = encoded(&reapi_result(&result));
        prop_assert_eq!(result.encode(), bytes.clone());
        prop_assert_eq!(wire::ActionResult::decode(function, &bytes), Ok(result));
    }

    /// Servers send fields that we do not use; they must not disturb those that we do.
    #[test]
    fn fields_that_we_do_not_use_are_passed_over(
        result in result(DigestFunction::Sha256),
        raw in any::<Vec<u8>>(),
        target in any::<String>(),
    ) {
        let mut theirs = reapi_result(&result);
        theirs.stdout_raw = raw.clone();
        theirs.output_symlinks.push(reapi::OutputSymlink { target, ..Default::default() });
        if let Some(metadata) = &mut theirs.execution_metadata {
            metadata.queued_timestamp = Some(Default::default());
        }
        for file in &mut theirs.output_files {
            file.contents = raw.clone();
            file.node_properties = Some(reapi::NodeProperties::default());
        }
        let bytes = encoded(&theirs);
        prop_assert_eq!(wire::ActionResult::decode(DigestFunction::Sha256, &bytes), Ok(result));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(function in function(), bytes in any::<Vec<u8>>()) {
        let _ = wire::Directory::decode(function, &bytes);
        let _ = wire::Tree::decode(function, &bytes);
        let _ = wire::Command::decode(&bytes);
        let _ = wire::Action::decode(function, &bytes);
        let _ = wire::ActionResult::decode(function, &bytes);
    }

    /// A message with a few bytes changed is refused, or read as one that encodes canonically.
    #[test]
    fn damaged_directories_are_refused_or_sound(
        directory in directory(DigestFunction::Blake3),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = directory.encode();
        prop_assume!(!bytes.is_empty());
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        if let Ok(read) = wire::Directory::decode(DigestFunction::Blake3, &bytes) {
            let again = wire::Directory::decode(DigestFunction::Blake3, &read.encode());
            prop_assert_eq!(again, Ok(read));
        }
    }

    #[test]
    fn damaged_actions_and_commands_are_refused_or_sound(
        action in action(DigestFunction::Blake3),
        command in command(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let [mut action, mut command] = [action.encode(), command.encode()];
        for bytes in [&mut action, &mut command].into_iter().filter(|bytes| !bytes.is_empty()) {
            for (index, byte) in &damage {
                *index.get_mut(bytes) = *byte;
            }
        }
        if let Ok(read) = wire::Action::decode(DigestFunction::Blake3, &action) {
            let again = wire::Action::decode(DigestFunction::Blake3, &read.encode());
            prop_assert_eq!(again, Ok(read));
        }
        if let Ok(read) = wire::Command::decode(&command) {
            prop_assert_eq!(wire::Command::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn trees_are_those_of_a_naive_builder(
        function in function(),
        entries in vec((vec(name(), 1..4), node()), 0..12),
    ) {
        let paths = entries.iter().map(|(segments, node)| {
            (RelPath::new(&segments.join("/")).expect("segments are names"), node.clone())
        });
        let ours = merkle::merkle(function, paths.collect());
        let mut naive = Naive::default();
        let mut clash = false;
        for (segments, node) in &entries {
            clash |= !naive.insert(segments, node);
        }
        prop_assert_eq!(ours.is_err(), clash);
        if let Ok(tree) = ours {
            let mut expected = BTreeMap::new();
            prop_assert_eq!(tree.root, naive.encode(function, &mut expected));
            let made = tree.directories.iter();
            let found: BTreeMap<String, Vec<u8>> =
                made.map(|(digest, bytes)| (digest.hex(), bytes.clone())).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

fn encoded(message: &impl prost::Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Few distinct nodes, so that the same path often gets the same node twice.
fn node() -> impl Strategy<Value = Node> {
    let content = |byte: u8| DigestFunction::Blake3.digest(&[byte]);
    prop_oneof![
        (0..2u8, any::<bool>())
            .prop_map(move |(byte, executable)| Node::File { digest: content(byte), executable }),
        "[ab]".prop_map(|target| Node::Symlink { target }),
        (0..2u8).prop_map(move |byte| Node::Tree { root: content(byte) }),
    ]
}

/// A tree as one would first write it: maps in maps.
#[derive(Default)]
struct Naive(BTreeMap<String, Place>);

enum Place {
    Leaf(Node),
    Folder(Naive),
}

impl Naive {
    /// Whether the place was free, or held the same.
    fn insert(&mut self, segments: &[String], node: &Node) -> bool {
        let Some((first, rest)) = segments.split_first() else { return false };
        if rest.is_empty() {
            let place = self.0.entry(first.clone()).or_insert_with(|| Place::Leaf(node.clone()));
            return matches!(place, Place::Leaf(held) if held == node);
        }
        let place = self.0.entry(first.clone()).or_insert_with(|| Place::Folder(Self::default()));
        match place {
            Place::Leaf(_) => false,
            Place::Folder(folder) => folder.insert(rest, node),
        }
    }

    fn encode(&self, function: DigestFunction, made: &mut BTreeMap<String, Vec<u8>>) -> Digest {
        let mut message = reapi::Directory::default();
        for (name, place) in &self.0 {
            let name = name.clone();
            match place {
                Place::Leaf(Node::File { digest, executable }) => {
                    message.files.push(reapi::FileNode {
                        name,
                        digest: reapi_digest(digest),
                        is_executable: *executable,
                        node_properties: None,
                    });
                }
                Place::Leaf(Node::Symlink { target }) => {
                    let target = target.clone();
                    message.symlinks.push(reapi::SymlinkNode {
                        name,
                        target,
                        node_properties: None,
                    });
                }
                Place::Leaf(Node::Tree { root }) => {
                    let digest = reapi_digest(root);
                    message.directories.push(reapi::DirectoryNode { name, digest });
                }
                Place::Folder(folder) => {
                    let digest = reapi_digest(&folder.encode(function, made));
                    message.directories.push(reapi::DirectoryNode { name, digest });
                }
            }
        }
        let bytes = encoded(&message);
        let digest = function.digest(&bytes);
        made.insert(digest.hex(), bytes);
        digest
    }
}
