//! What lies in the store is what REAPI says: the bytes behind a key are an `Action` that hashes to
//! it, and the command that it names is there and canonical.

use std::path::Path;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::DigestFunction;
use maestro_tests::{Workspace, keys, shell};
use prost::Message;
use serde_json::{Value, json};

/// The bytes of a blob, which must hash to its name.
fn blob(cache: &Path, hash: &str) -> Vec<u8> {
    let path = cache.join("cas").join(&hash[..2]).join(hash);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    assert_eq!(DigestFunction::Blake3.digest(&bytes).hex(), hash);
    bytes
}

/// A message of the store that encodes to the very bytes it was read from.
fn message<M: Message + Default>(cache: &Path, digest: Option<&reapi::Digest>) -> M {
    let digest = digest.expect("a digest");
    let bytes = blob(cache, &digest.hash);
    assert_eq!(i64::try_from(bytes.len()), Ok(digest.size_bytes));
    canonical(&bytes)
}

fn canonical<M: Message + Default>(bytes: &[u8]) -> M {
    let message = M::decode(bytes).expect("protobuf");
    assert_eq!(message.encode_to_vec(), bytes, "the encoding is canonical");
    message
}

/// Runs one action and returns the `Action` behind its key.
fn action_of(ws: &Workspace, action: &Value) -> reapi::Action {
    ws.write_graph(&json!({"actions": [action]}));
    let events = ws.outside().join("events.jsonl");
    ws.ok(&["exec", "graph.json", &format!("--events={}", events.display())]);
    let keys = keys(&events);
    let [key] = keys.as_slice() else { panic!("one action has one key: {keys:?}") };
    let hash = key.trim_matches('"').split([':', '/']).nth(1).expect("`blake3:HASH/SIZE`");
    canonical(&blob(&ws.cache, hash))
}

#[test]
fn a_command_is_stored_as_reapi_describes_it() {
    let ws = Workspace::new();
    ws.write("p/a.txt", "hello\n");
    let mut graph = shell("//t:a", "cat p/a.txt > out/a", &["p/a.txt"], &["out/a"]);
    graph["timeout_ms"] = json!(61_500);
    graph["env"] = json!({"GREETING": "hello"});
    let action = action_of(&ws, &graph);
    assert!(!action.do_not_cache);
    let timeout = action.timeout.expect("it was declared");
    assert_eq!((timeout.seconds, timeout.nanos), (61, 500_000_000));
    let salt: Value = serde_json::from_slice(&action.salt).expect("the salt is JSON");
    assert_eq!(salt, json!({"class": "pure", "sandbox": "hermetic/1"}));

    let command: reapi::Command = message(&ws.cache, action.command_digest.as_ref());
    assert_eq!(command.arguments, ["/bin/sh", "-c", "cat p/a.txt > out/a"]);
    assert_eq!(command.output_paths, ["out/a"]);
    let names: Vec<&str> =
        command.environment_variables.iter().map(|variable| variable.name.as_str()).collect();
    assert!(names.is_sorted() && names.contains(&"GREETING"), "{names:?}");
}

#[test]
fn a_native_step_is_stored_with_its_request_as_an_input() {
    let ws = Workspace::new();
    ws.write("a.txt", "hello\n");
    let action = action_of(
        &ws,
        &json!({
            "label": "//t:tar",
            "native": {"kind": "tar", "semantics": 1,
                       "request": {"entries": [{"path": "x", "from": "a.txt"}]}},
            "inputs": ["a.txt"],
            "outputs": ["out/a.tar"],
        }),
    );
    let command: reapi::Command = message(&ws.cache, action.command_digest.as_ref());
    assert_eq!(command.arguments, ["@maestro//tar", "1"]);
    assert!(command.environment_variables.is_empty() && action.platform.is_none());
    // The directories of an input root are not kept: they follow from the inputs.
    let folder = reapi::Directory { files: vec![file("a.txt", b"hello\n")], ..Default::default() };
    let request = br#"{"entries":[{"from":"a.txt","path":"x"}]}"#;
    let root = reapi::Directory {
        files: vec![file("request.json", request)],
        directories: vec![reapi::DirectoryNode {
            name: "in".into(),
            digest: Some(digest(&folder.encode_to_vec())),
        }],
        ..Default::default()
    };
    assert_eq!(action.input_root_digest, Some(digest(&root.encode_to_vec())));
    assert_eq!(blob(&ws.cache, &digest(request).hash), request);
}

fn digest(bytes: &[u8]) -> reapi::Digest {
    let digest = DigestFunction::Blake3.digest(bytes);
    reapi::Digest { hash: digest.hex(), size_bytes: digest.size.cast_signed() }
}

fn file(name: &str, bytes: &[u8]) -> reapi::FileNode {
    reapi::FileNode { name: name.into(), digest: Some(digest(bytes)), ..Default::default() }
}
