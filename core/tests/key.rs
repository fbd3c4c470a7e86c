//! Keys and their explanations agree, whatever an action looks like.

use std::collections::HashMap;

use maestro_core::action::ExecutionHints;
use maestro_core::depset::Order;
use maestro_core::graph::Target;
use maestro_core::key::{Change, Resolved, SandboxProfile, explain, prepare};
use maestro_core::{
    ActionClass, ActionGraph, ActionSpec, Arg, ArtifactId, ArtifactKind, Digest, DigestFunction,
    How, Item, Label, Node, Output, ParamFileFormat, Prepared, RelPath, Sequence, Toolchain,
};
use proptest::prelude::*;

/// An action in few words; each field is a thing that a key may depend on.
#[derive(Clone, Debug, PartialEq)]
struct Small {
    argument: String,
    env: Vec<(String, String)>,
    platform: Vec<(String, String)>,
    inputs: Vec<(String, String, bool)>,
    toolchain: Option<String>,
    timeout_ms: Option<u64>,
    effect: bool,
    sandbox_none: bool,
    output: String,
    // Not keyed:
    mnemonic: String,
    test: bool,
    optional: bool,
    toolchain_name: String,
}

struct Contents(HashMap<ArtifactId, Node>);

impl Resolved for Contents {
    fn node(&self, artifact: ArtifactId) -> Option<Node> {
        self.0.get(&artifact).cloned()
    }

    fn tree_files(&self, _root: Digest) -> Option<Vec<String>> {
        Some(vec!["a/b".into(), "c".into()])
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a normal path")
}

fn owner(graph: &mut ActionGraph) -> maestro_core::TargetId {
    graph.add_target(Target {
        label: Label::parse("//p:t", "", "").expect("valid"),
        rule: "rule".into(),
        aspect: None,
        location: "p/maestro.star:1:1".into(),
        deps: vec![],
        files: vec![],
        groups: Vec::new(),
        executable: None,
        test: None,
        tags: vec![],
    })
}

fn key_of(small: &Small) -> Prepared {
    let mut graph = ActionGraph::default();
    let owner = owner(&mut graph);
    let mut contents = HashMap::new();
    let mut items = Vec::new();
    for (name, text, executable) in &small.inputs {
        let id = graph.source(path(&format!("p/{name}")));
        let digest = DigestFunction::Blake3.digest(text.as_bytes());
        contents.insert(id, Node::File { digest, executable: *executable });
        items.push(Item::Artifact(id));
    }
    let toolchains: Vec<ArtifactId> = small
        .toolchain
        .iter()
        .map(|content| {
            let id = graph.toolchain(Toolchain {
                name: small.toolchain_name.clone(),
                packages: vec![],
                exclude: vec![],
                exclude_paths: vec![],
            });
            let root = DigestFunction::Blake3.digest(content.as_bytes());
            contents.insert(id, Node::Tree { root });
            id
        })
        .collect();
    let output = graph
        .declare_output(path(&format!("out/{}", small.output)), ArtifactKind::File, owner)
        .expect("the only output");
    let spec = ActionSpec {
        owner,
        mnemonic: small.mnemonic.clone(),
        progress: small.mnemonic.clone(),
        class: if small.effect { ActionClass::Effect } else { ActionClass::Pure },
        how: How::Command {
            argv: vec![Arg::One(vec![Item::Text(small.argument.as_str().into())])],
        },
        inputs: graph.sets.add(Order::Postorder, items, vec![]),
        toolchains,
        outputs: vec![Output { artifact: output, optional: small.optional }],
        env: small.env.clone(),
        platform: small.platform.clone(),
        timeout_ms: small.timeout_ms,
        hints: ExecutionHints { test: small.test, ..ExecutionHints::default() },
    };
    let sandbox = if small.sandbox_none { SandboxProfile::None } else { SandboxProfile::Hermetic };
    let id = graph.add_action(spec).expect("well formed");
    let inputs = graph.inputs_of(id);
    let function = DigestFunction::Blake3;
    prepare(&graph, function, sandbox, &graph.action(id), &inputs, &Contents(contents))
        .expect("inputs are known")
}

fn small() -> impl Strategy<Value = Small> {
    let word = "[a-c]{1,2}";
    let pairs = || prop::collection::btree_map(word, word, 0..3);
    let inputs = prop::collection::btree_map(word, (word, any::<bool>()), 0..4);
    (
        (word, pairs(), pairs(), inputs, prop::option::of(word), prop::option::of(1u64..4)),
        (any::<bool>(), any::<bool>(), word, word, any::<bool>(), any::<bool>(), word),
    )
        .prop_map(|((argument, env, platform, inputs, toolchain, timeout_ms), rest)| {
            let (effect, sandbox_none, output, mnemonic, test, optional, toolchain_name) = rest;
            Small {
                argument,
                env: env.into_iter().collect(),
                platform: platform.into_iter().collect(),
                inputs: inputs.into_iter().map(|(n, (t, x))| (n, t, x)).collect(),
                toolchain,
                timeout_ms,
                effect,
                sandbox_none,
                output,
                mnemonic,
                test,
                optional,
                toolchain_name,
            }
        })
}

/// Forgets what must not matter.
fn keyed(small: &Small) -> Small {
    Small {
        mnemonic: String::new(),
        test: false,
        optional: false,
        toolchain_name: String::new(),
        ..small.clone()
    }
}

proptest! {
    #[test]
    fn key_and_explanation_agree(a in small(), b in small()) {
        let (x, y) = (key_of(&a), key_of(&b));
        let same = keyed(&a) == keyed(&b);
        prop_assert_eq!(x.key == y.key, same);
        prop_assert_eq!(explain(&x.parts, &y.parts).is_empty(), same);
    }

    #[test]
    fn every_named_blob_is_handed_over(a in small()) {
        let prepared = key_of(&a);
        for (digest, bytes) in &prepared.blobs {
            prop_assert_eq!(*digest, digest.function.digest(bytes));
        }
        let has = |digest: Digest| prepared.blobs.iter().any(|(d, _)| *d == digest);
        prop_assert!(has(prepared.key.0));
        let root = prepared.tree.directories.iter().find(|(d, _)| *d == prepared.tree.root);
        prop_assert!(root.is_some_and(|(d, bytes)| *d == d.function.digest(bytes)));
    }
}

#[test]
fn an_edit_is_named() {
    let before = Small {
        argument: "cc".into(),
        env: vec![],
        platform: vec![],
        inputs: vec![("a.h".into(), "1".into(), false)],
        toolchain: Some("gcc-12".into()),
        timeout_ms: None,
        effect: false,
        sandbox_none: false,
        output: "a.o".into(),
        mnemonic: "CppCompile".into(),
        test: false,
        optional: false,
        toolchain_name: "cc".into(),
    };
    let check = |after: &Small, expect: &str| {
        let changes = explain(&key_of(&before).parts, &key_of(after).parts);
        let [change] = changes.as_slice() else { panic!("one change, not {changes:?}") };
        let what = match change {
            Change::Input { path, .. } => format!("input {path}"),
            Change::Toolchain { name, .. } => format!("toolchain {name}"),
            Change::Argument { index, .. } => format!("argument {index}"),
            Change::Environment { name, .. } => format!("environment {name}"),
            other => format!("{other:?}"),
        };
        assert_eq!(what, expect);
    };
    let inputs = vec![("a.h".into(), "2".into(), false)];
    check(&Small { inputs, ..before.clone() }, "input p/a.h");
    check(&Small { toolchain: Some("gcc-13".into()), ..before.clone() }, "toolchain cc");
    check(&Small { argument: "c++".into(), ..before.clone() }, "argument 0");
    let env = vec![("A".into(), "b".into())];
    check(&Small { env, ..before.clone() }, "environment A");
}

/// Expands `argv` of an action that has one source `p/x` and one tree `p/t`.
fn expand(argv: impl FnOnce(ArtifactId, ArtifactId) -> Vec<Arg>) -> Prepared {
    let mut graph = ActionGraph::default();
    let owner = owner(&mut graph);
    let file = graph.source(path("p/x"));
    let tree = graph.source(path("p/t"));
    let digest = DigestFunction::Blake3.digest(b"x");
    let contents = HashMap::from([
        (file, Node::File { digest, executable: false }),
        (tree, Node::Tree { root: digest }),
    ]);
    let items = vec![Item::Artifact(file), Item::Artifact(tree)];
    let output =
        graph.declare_output(path("out/o"), ArtifactKind::File, owner).expect("the only output");
    let spec = ActionSpec {
        owner,
        mnemonic: "M".into(),
        progress: String::new(),
        class: ActionClass::Pure,
        how: How::Command { argv: argv(file, tree) },
        inputs: graph.sets.add(Order::Postorder, items, vec![]),
        toolchains: vec![],
        outputs: vec![Output { artifact: output, optional: false }],
        env: vec![],
        platform: vec![],
        timeout_ms: None,
        hints: ExecutionHints::default(),
    };
    let id = graph.add_action(spec).expect("well formed");
    let inputs = graph.inputs_of(id);
    let (function, sandbox) = (DigestFunction::Blake3, SandboxProfile::Hermetic);
    prepare(&graph, function, sandbox, &graph.action(id), &inputs, &Contents(contents))
        .expect("inputs are known")
}

#[test]
fn arguments_expand_lazily() {
    let text = |s: &str| Item::Text(s.into());
    let prepared = expand(|file, tree| {
        vec![
            Arg::One(vec![text("-o"), Item::Artifact(file)]),
            Arg::Many(Sequence {
                direct: vec![Item::Artifact(tree), text("z"), text("z")],
                format_each: Some("-I%s".into()),
                unique: true,
                ..Sequence::default()
            }),
            Arg::Many(Sequence {
                direct: vec![text("a"), text("b")],
                join_with: Some(":".into()),
                before_all: Some("--path".into()),
                ..Sequence::default()
            }),
            Arg::Many(Sequence {
                direct: vec![Item::Artifact(tree)],
                join_with: Some(",".into()),
                format_joined: Some("<%s>".into()),
                ..Sequence::default()
            }),
            Arg::Many(Sequence {
                direct: vec![text("a")],
                terminate_with: Some("--".into()),
                ..Sequence::default()
            }),
            Arg::Many(Sequence {
                before_all: Some("--none".into()),
                terminate_with: Some("--".into()),
                ..Sequence::default()
            }),
        ]
    });
    let expect =
        ["-op/x", "-Ip/t/a/b", "-Ip/t/c", "-Iz", "--path", "a:b", "<p/t/a/b,p/t/c>", "a", "--"];
    assert_eq!(prepared.parts.arguments, expect);
}

#[test]
fn long_command_lines_spill_into_param_files() {
    let long = |always, words: usize| {
        expand(move |_, _| {
            vec![Arg::ParamFile {
                args: vec![Arg::Many(Sequence {
                    direct: (0..words).map(|i| Item::Text(format!("w {i}").into())).collect(),
                    ..Sequence::default()
                })],
                flag: "@%s".into(),
                format: ParamFileFormat::Shell,
                always,
            }]
        })
    };
    assert_eq!(long(false, 3).parts.arguments, ["w 0", "w 1", "w 2"]);
    assert_eq!(long(true, 1).parts.arguments, ["@out/o-0.params"]);
    let spilled = long(false, 400_000);
    assert_eq!(spilled.parts.arguments, ["@out/o-0.params"]);
    let file = spilled.tree.entries.iter().find(|(p, _)| p.as_str() == "out/o-0.params");
    let Some((_, Node::File { digest, .. })) = file else { panic!("the file is an input") };
    let bytes = spilled.blobs.iter().find(|(d, _)| d == digest).map(|(_, b)| b.as_slice());
    assert!(bytes.expect("handed over").starts_with(b"'w 0'\n'w 1'\n"));
}

#[test]
fn param_files_have_the_format_that_was_asked_for() {
    let check = |format, words: &'static [&'static str], line: &[&str], file: &str| {
        let prepared = expand(move |_, _| {
            let word = |word: &&str| Arg::One(vec![Item::Text((*word).into())]);
            let args = words.iter().map(word).collect();
            vec![Arg::ParamFile { args, flag: "@%s".into(), format, always: true }]
        });
        assert_eq!(prepared.parts.arguments, line);
        let (_, bytes) = prepared.blobs.first().expect("the file comes first");
        assert_eq!(String::from_utf8_lossy(bytes), file);
    };
    let words = &["in", "--a", "1", "2", "--b=3", "rest", "--c", "--d", "it's"];
    let at = "@out/o-0.params";
    let lines = "in\n--a\n1\n2\n--b=3\nrest\n--c\n--d\nit's\n";
    check(ParamFileFormat::Multiline, words, &[at], lines);
    check(ParamFileFormat::Shell, words, &[at], &lines.replace("it's", "'it'\\''s'"));
    let flags = "--a=1 2\n--b=3\n--c\n--d=it's\n";
    check(ParamFileFormat::FlagPerLine, words, &[at, "in", "rest"], flags);
}

#[test]
fn arguments_written_to_a_file_have_the_key_of_that_text() {
    let text = |s: &str| Arg::One(vec![Item::Text(s.into())]);
    let args = vec![text("a"), text("b c")];
    let format = ParamFileFormat::Multiline;
    let lazy = key_of_how(How::Params { args, format, executable: false });
    let request = serde_json::json!({"content": "a\nb c\n", "executable": false});
    assert_eq!(lazy, key_of_how(How::Native { kind: "write".into(), semantics: 1, request }));
}

/// The key of an action without inputs that does this.
fn key_of_how(how: How) -> maestro_core::ActionKey {
    let mut graph = ActionGraph::default();
    let owner = owner(&mut graph);
    let output = graph.declare_output(path("out/o"), ArtifactKind::File, owner).expect("the first");
    let spec = ActionSpec {
        owner,
        mnemonic: "M".into(),
        progress: String::new(),
        class: ActionClass::Pure,
        how,
        inputs: graph.sets.add(Order::Postorder, vec![], vec![]),
        toolchains: vec![],
        outputs: vec![Output { artifact: output, optional: false }],
        env: vec![],
        platform: vec![],
        timeout_ms: None,
        hints: ExecutionHints::default(),
    };
    let id = graph.add_action(spec).expect("well formed");
    let (function, sandbox) = (DigestFunction::Blake3, SandboxProfile::Hermetic);
    let nothing = Contents(Default::default());
    prepare(&graph, function, sandbox, &graph.action(id), &[], &nothing).expect("no inputs").key
}
