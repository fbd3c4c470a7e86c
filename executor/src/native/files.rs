//! Single files and composed trees: `write`, `expand-template`, `copy` and `tree`.

use std::collections::BTreeMap;

use maestro_core::limits;

use super::compose::{Composition, LinkRule};
use super::inputs::Found;
use super::{Made, NativeError, Step, request};

/// `write`: a file with constant text.
pub(super) fn write(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Write { content, executable } = step.request()?;
    let digest = step.store.put_bytes(content.as_bytes())?;
    Ok(Made::File { digest, executable })
}

/// `expand-template`: a file with some of its text replaced.
pub(super) fn expand_template(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::ExpandTemplate { template, substitutions, executable } = step.request()?;
    let (digest, _) = step.inputs.file("template", &template)?;
    if digest.size > limits::BLOB_IN_MEMORY_BYTES_MAX {
        let limit = limits::BLOB_IN_MEMORY_BYTES_MAX;
        return Err(NativeError::TooLarge { what: format!("the template `{template}`"), limit });
    }
    let substitutions = Substitutions::new(&substitutions)?;
    let expanded = substitutions.apply(&step.store.read(&digest)?)?;
    Ok(Made::File { digest: step.store.put_bytes(&expanded)?, executable })
}

/// `copy`: a file or tree at another path.
pub(super) fn copy(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Copy { from, executable } = step.request()?;
    match step.inputs.find("from", &from)? {
        Found::File { digest, executable: bit } => {
            Ok(Made::File { digest, executable: executable.unwrap_or(bit) })
        }
        Found::Tree { .. } if executable.is_some() => {
            Err(NativeError::field("executable", "only files have an execute bit to be set"))
        }
        Found::Tree { .. } => {
            // Through a composition, which checks the links of a part of a tree.
            let whole = request::Entry { path: ".".into(), from: Some(from), ..Default::default() };
            compose(step, &[whole])
        }
    }
}

/// `tree`: a tree composed of files, trees, links and folders.
pub(super) fn tree(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Tree { entries } = step.request()?;
    compose(step, &entries)
}

fn compose(step: &Step<'_>, entries: &[request::Entry]) -> Result<Made, NativeError> {
    let mut composition = Composition::new(step.store, LinkRule::Inside);
    composition.put_entries(&step.inputs, entries)?;
    Ok(Made::Tree { root: composition.finish()? })
}

/// Replacements by the first byte of what they replace, longest first.
struct Substitutions<'a> {
    by_first: BTreeMap<u8, Vec<Substitution<'a>>>,
}

/// What is replaced, and by what.
type Substitution<'a> = (&'a [u8], &'a [u8]);

impl<'a> Substitutions<'a> {
    fn new(pairs: &'a BTreeMap<String, String>) -> Result<Self, NativeError> {
        let mut by_first: BTreeMap<u8, Vec<Substitution<'a>>> = BTreeMap::new();
        for (from, to) in pairs {
            let first = from.bytes().next().ok_or_else(|| {
                NativeError::field("substitutions", "an empty text cannot be replaced")
            })?;
            by_first.entry(first).or_default().push((from.as_bytes(), to.as_bytes()));
        }
        for list in by_first.values_mut() {
            list.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        }
        Ok(Self { by_first })
    }

    /// Replaces in one pass from left to right; inserted text is not searched again.
    fn apply(&self, template: &[u8]) -> Result<Vec<u8>, NativeError> {
        let limit = limits::BLOB_IN_MEMORY_BYTES_MAX;
        let mut out = Vec::with_capacity(template.len());
        let mut rest = template;
        while let Some((first, tail)) = rest.split_first() {
            let hit = self.by_first.get(first).and_then(|list| {
                list.iter().find_map(|(from, to)| Some((rest.strip_prefix(*from)?, *to)))
            });
            match hit {
                Some((after, to)) => {
                    out.extend_from_slice(to);
                    rest = after;
                }
                None => {
                    out.push(*first);
                    rest = tail;
                }
            }
            if out.len() as u64 > limit {
                return Err(NativeError::TooLarge { what: "the expanded template".into(), limit });
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use maestro_core::ArtifactKind;
    use serde_json::{Value, json};

    use super::super::fixture::{Fixture, Thing};
    use super::*;

    #[test]
    fn files_are_written_and_copied() {
        let mut fixture = Fixture::new();
        fixture.file("p/a.txt", b"text", false);
        fixture.tree("p/t", &[("sub/x", Thing::Program(b"x")), ("sub/to-x", Thing::Link("x"))]);
        let check = |kind: &str, request: Value, bytes: &[u8], bit: bool| {
            let made = fixture.run(kind, request.clone()).expect("a good request");
            assert_eq!(fixture.bytes(made), bytes, "{request}");
            assert!(
                matches!(made, Made::File { executable, .. } if executable == bit),
                "{request}"
            );
        };
        check("write", json!({"content": "ü\n"}), "ü\n".as_bytes(), false);
        check("write", json!({"content": "", "executable": true}), b"", true);
        check("copy", json!({"from": "p/a.txt"}), b"text", false);
        check("copy", json!({"from": "p/a.txt", "executable": true}), b"text", true);
        check("copy", json!({"from": "p/t/sub/x"}), b"x", true);
        check("copy", json!({"from": "p/t/sub/to-x", "executable": null}), b"x", true);
        let template = json!({"template": "p/a.txt", "substitutions": {"ex": "EX"}});
        check("expand-template", template, b"tEXt", false);
    }

    #[test]
    fn trees_are_composed_in_any_order() {
        let mut fixture = Fixture::new();
        fixture.file("p/a.txt", b"a", false);
        fixture.tree("t", &[("bin/x", Thing::Program(b"x")), ("lib/l", Thing::Link("../bin/x"))]);
        fixture.tree("u", &[("bin/y", Thing::File(b"y")), ("bin/x", Thing::Program(b"x"))]);
        let entries = [
            json!({"path": ".", "from": "t"}),
            json!({"path": ".", "from": "u"}),
            json!({"path": "bin/a", "from": "p/a.txt", "executable": true}),
            json!({"path": "empty/deep", "folder": true}),
            json!({"path": "bin", "folder": true}),
            json!({"path": "etc/c", "content": "c"}),
            json!({"path": "etc/l", "link": "../bin/x"}),
            json!({"path": "just-bin", "from": "u/bin"}),
        ];
        let expect = "bin/a* a\nbin/x* x\nbin/y y\nempty/deep/\netc/c c\netc/l -> ../bin/x\n\
                      just-bin/x* x\njust-bin/y y\nlib/l -> ../bin/x\n";
        let forward = fixture.run("tree", json!({"entries": entries})).expect("no clash");
        assert_eq!(fixture.listing(forward), expect);
        let backward: Vec<Value> = entries.into_iter().rev().collect();
        let backward = fixture.run("tree", json!({"entries": backward})).expect("no clash");
        assert_eq!(forward, backward);
        let copy = fixture.run_to("copy", json!({"from": "t"}), ArtifactKind::Tree);
        assert_eq!(fixture.listing(copy.expect("a tree")), "bin/x* x\nlib/l -> ../bin/x\n");
    }

    #[test]
    fn bad_requests_say_what_is_wrong() {
        let mut fixture = Fixture::new();
        fixture.file("f", b"f", false);
        fixture.file("g", b"g", false);
        fixture.tree("t", &[("s/l", Thing::Link("../x")), ("x", Thing::File(b"x"))]);
        let check = |kind: &str, request: Value, expect: &str| {
            let error = fixture.run(kind, request).expect_err(expect);
            assert_eq!(error.to_string(), expect);
        };
        let entry = |entry: Value| json!({"entries": [{"path": "ok", "content": ""}, entry]});
        let one_of = "field `entries[1]`: exactly one of `from`, `link`, `content` and \
                      `folder: true` is needed";
        check("tree", entry(json!({"path": "a"})), one_of);
        check("tree", entry(json!({"path": "a", "link": "b", "from": "f"})), one_of);
        check("tree", entry(json!({"path": "a", "folder": false})), one_of);
        let path = "field `entries[1].path`: `../a` is not a normal relative path";
        check("tree", entry(json!({"path": "../a", "from": "f"})), path);
        let root =
            "field `entries[1].path`: the root is a folder, so only a folder can be put at `.`";
        check("tree", entry(json!({"path": ".", "from": "f"})), root);
        let input = "field `entries[1].from`: `h` is not an input of the action";
        check("tree", entry(json!({"path": "a", "from": "h"})), input);
        let inside = "field `entries[1].from`: `t` has no `y/z`";
        check("tree", entry(json!({"path": "a", "from": "t/y/z"})), inside);
        let bit = "field `entries[1].executable`: only files have an execute bit to be set";
        check("tree", entry(json!({"path": "a", "from": "t", "executable": true})), bit);
        let outside = |path: &str, target: &str| {
            format!("the link `{path}` -> `{target}` does not surely stay in the tree")
        };
        check("tree", entry(json!({"path": "a", "link": "../b"})), &outside("a", "../b"));
        check("tree", entry(json!({"path": "a", "link": "/b"})), &outside("a", "/b"));
        check("tree", entry(json!({"path": "a", "link": "b/../c"})), &outside("a", "b/../c"));
        check("tree", entry(json!({"path": ".", "from": "t/s"})), &outside("l", "../x"));
        let twice = |path: &str| format!("two different things are put at `{path}`");
        check("tree", entry(json!({"path": "ok", "from": "f"})), &twice("ok"));
        check("tree", entry(json!({"path": "ok/below", "from": "f"})), &twice("ok"));
        let shape = "internal error: the request of `write` has the wrong shape: \
                     unknown field `mode`, expected `content` or `executable`";
        check("write", json!({"content": "", "mode": 7}), shape);
        let folder = "field `template`: `t` is a folder, not a file";
        check("expand-template", json!({"template": "t", "substitutions": {}}), folder);
        let kind = "output `maestro-out/out` is declared as a file, the step made a folder";
        check("copy", json!({"from": "t"}), kind);
    }

    #[test]
    fn cancelled_steps_make_nothing() {
        let fixture = Fixture::new();
        fixture.cancel.cancel();
        let result = fixture.run("write", json!({"content": ""}));
        assert!(matches!(result, Err(crate::runner::RunError::Cancelled)));
    }

    #[test]
    fn templates_expand_once_and_longest_first() {
        let check = |template: &str, pairs: &[(&str, &str)], expect: &str| {
            let pairs: BTreeMap<String, String> =
                pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            let substitutions = Substitutions::new(&pairs).expect("no empty key");
            let out = substitutions.apply(template.as_bytes()).expect("small");
            assert_eq!(String::from_utf8_lossy(&out), expect, "{template}");
        };
        check("a @X@ b @X@", &[("@X@", "1")], "a 1 b 1");
        check("abc", &[("a", "1"), ("ab", "2"), ("abc", "3")], "3");
        check("ab", &[("a", "b"), ("b", "a")], "ba");
        check("aaa", &[("aa", "x")], "xa");
        check("", &[("a", "b")], "");
        check("ü%", &[("ü", "%"), ("%", "ü")], "%ü");
        check("$(X)", &[("$(X)", "$(X)$(X)")], "$(X)$(X)");
        let empty = BTreeMap::from([(String::new(), "x".to_owned())]);
        assert!(Substitutions::new(&empty).is_err());
    }
}
