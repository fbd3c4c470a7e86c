//! Policies and inputs that mean harm: each ends soon, with a denial or an error.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maestro_core::policy::{Policy as _, failure};
use serde_json::json;

use super::{effect_with, errors, sources};
use crate::{LoadError, Policies, Sources};

/// Long enough for a slow machine, and nothing beside what these would take without bounds.
const SOON: Duration = Duration::from_secs(30);

fn codes(text: &str, limit_ms: u64) -> Vec<String> {
    let policies = Policies::load(&sources(&[text])).expect("it loads");
    let begin = Instant::now();
    let decision = policies.decide_within(&effect_with(&[]), limit_ms);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    decision.reasons().iter().map(|reason| reason.code.clone()).collect()
}

#[test]
fn endless_work_is_stopped() {
    let list = (0..1000).map(|n| n.to_string()).collect::<Vec<_>>().join(",\n");
    let text = format!(
        "package maestro.effect\nxs := [\n{list}\n]\n\
         deny contains \"x\" if count([1 | some a in xs; some b in xs; some c in xs; a + b + c < 0]) > 0\n"
    );
    assert_eq!(codes(&text, 200), [failure::TIMEOUT]);
}

#[test]
fn values_that_double_are_stopped() {
    for (start, join) in [("[1, 2, 3, 4, 5, 6, 7, 8]", "array.concat(A, A)"), ("99999999", "A * A")]
    {
        let mut text =
            format!("package maestro.effect\ndeny contains \"x\" if a40 == 1\na0 := {start}\n");
        for n in 0..40 {
            let joined = join.replace('A', &format!("a{n}"));
            text.push_str(&format!("a{} := {joined}\n", n + 1));
        }
        assert_eq!(codes(&text, 100), [failure::TIMEOUT], "{join}");
    }
}

#[test]
fn numbers_of_any_length_are_refused() {
    let rule =
        |condition: &str| format!("package maestro.effect\ndeny contains \"x\" if {condition}\n");
    for number in ["1e999999999", "1E+9999999", "1.5e-99999999", &"9".repeat(600)] {
        let found = errors(&rule(&format!("input.effect.generation == {number}")));
        assert_eq!(found, ["MAE0701 2:49 the number is too large"]);
        let text = rule(&format!("to_number(\"{number}\") == 1"));
        assert_eq!(codes(&text, 1_000), [failure::ERROR], "{number}");
    }
    assert_eq!(errors(&rule("input.effect.generation == 1.5e300")), [""; 0]);
    assert_eq!(codes(&rule("to_number(\"1e2\") == 100"), 1_000), ["denied"]);
    assert_eq!(codes(&rule("to_number(true) == 1"), 1_000), ["denied"]);
    assert_eq!(codes(&rule("to_number(\"x\") == 1"), 1_000), [failure::ERROR]);
}

#[test]
fn a_regex_that_explodes_is_refused() {
    let text = "package maestro.effect\n\
                deny contains \"x\" if regex.match(\"((a{1,1000}){1,1000}){1,1000}\", input.run.id)\n";
    assert_eq!(codes(text, 1_000), [failure::ERROR]);
    let text = "package maestro.effect\n\
                deny contains \"x\" if regex.match(\"^(a+)+$\", concat(\"\", [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa!\", input.run.id]))\n";
    assert_eq!(codes(text, 1_000), [""; 0]);
}

#[test]
fn deep_nesting_is_an_error() {
    let check = |text: &str| {
        let begin = Instant::now();
        assert!(!errors(text).is_empty());
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    };
    let nested = format!("{}1{}", "[\n".repeat(100_000), "]\n".repeat(100_000));
    check(&format!("package maestro.effect\ndeny contains \"x\" if {nested} == 1\n"));
    check(&format!("package maestro.effect\ndeny contains \"x\" if {}true\n", "not ".repeat(300)));
    // Functions that call others twice, sixty deep: two to the power of sixty ways.
    let mut text = "package maestro.effect\ndeny contains \"x\" if f0(input) == 1\n".to_owned();
    for n in 0..60 {
        text.push_str(&format!("f{n}(x) := f{0}([x]) + f{0}({{x}})\n", n + 1));
    }
    text.push_str("f60(x) := x.y\n");
    let begin = Instant::now();
    let _ = errors(&text);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn long_bodies_are_put_in_order_soon() {
    let count = 3_000;
    let mut text = "package maestro.effect\ndeny contains \"x\" if {\n".to_owned();
    for n in 0..count {
        text.push_str(&format!("x{n} := x{} + 1\n", n + 1));
    }
    text.push_str(&format!("x{count} := input.effect.generation\nx0 > 9000\n}}\n"));
    let begin = Instant::now();
    // The evaluator has a word of its own about it, once the checks are done.
    assert_eq!(errors(&text), ["MAE0711 3:7 var `x1` used before definition below"]);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn many_reasons_and_odd_ones_stay_readable() {
    let list = (0..500).map(|n| n.to_string()).collect::<Vec<_>>().join(",\n");
    let text = format!(
        "package maestro.effect\nxs := [\n{list}\n]\n\
         deny contains {{\"code\": sprintf(\"c%d\", [x]), \"msg\": \"m\"}} if some x in xs\n"
    );
    assert_eq!(codes(&text, 10_000).len(), maestro_core::limits::POLICY_REASONS_MAX);
    let text =
        "package maestro.effect\ndeny contains {\"code\": \"c\", \"msg\": input.run.params.env}\n";
    let policies = Policies::load(&sources(&[text])).expect("it loads");
    let shown = |text: &str| {
        let input = effect_with(&[("/run/params/env", json!(text))]);
        policies.decide(&input).reasons()[0].message.clone()
    };
    assert_eq!(shown("\u{1b}[2Jgone\n"), " [2Jgone ");
    assert!(shown(&"ä".repeat(100_000)).len() < 5_000);
}

#[test]
fn an_input_that_is_too_large_is_denied() {
    let text = "package maestro.effect\ndeny contains \"x\" if not input.effect.publishes\n";
    let policies = Policies::load(&sources(&[text])).expect("it loads");
    let ask = |size: usize| {
        let decision =
            policies.decide(&effect_with(&[("/run/params/env", json!("x".repeat(size)))]));
        decision.reasons().iter().map(|reason| reason.code.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ask(1_000_000), [""; 0]);
    assert_eq!(ask(17 * 1024 * 1024), [failure::INPUT]);
}

fn read(root: &Path, name: &str) -> Vec<String> {
    match Sources::read(root, &[PathBuf::from(name)]) {
        Ok(sources) => sources.modules.iter().map(|m| m.name.to_string()).collect(),
        Err(LoadError(findings)) => findings.iter().map(|f| f.message.clone()).collect(),
    }
}

#[test]
fn odd_files_do_not_hang_or_fill_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let write = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    };
    write("p/good.rego", b"package maestro.effect\n");
    write("p/.git/hidden.rego", b"package x\n");
    write("p/notes.txt", b"no policy\n");
    symlink("nowhere", root.join("p/notes")).expect("a link");
    symlink(root.join("p"), root.join("p/.hidden")).expect("a link");
    assert_eq!(read(root, "p"), ["p/good.rego"]);

    symlink(root.join("p"), root.join("p/loop")).expect("a link");
    symlink("/dev/zero", root.join("p/zero.rego")).expect("a link");
    let fifo = std::process::Command::new("mkfifo").arg(root.join("p/pipe.rego")).status();
    assert!(fifo.expect("mkfifo runs").success());
    assert_eq!(
        read(root, "p"),
        [
            "`p/loop` is a link, and links are not followed",
            "`p/pipe.rego` is no policy",
            "`p/zero.rego` is a link, and links are not followed",
        ]
    );

    assert_eq!(read(root, "p/pipe.rego"), ["`p/pipe.rego` is no policy"]);
    assert_eq!(read(root, "p/zero.rego"), ["`p/zero.rego` is no policy"]);
    assert_eq!(read(root, "p/notes.txt"), ["`p/notes.txt` is no policy"]);
    write("latin.rego", b"package x # \xe9\n");
    assert_eq!(read(root, "latin.rego"), ["`latin.rego` is not UTF-8, at byte 12"]);
    let huge = std::fs::File::create(root.join("huge.rego")).expect("a file");
    huge.set_len(100 * 1024 * 1024 * 1024).expect("a sparse file");
    assert_eq!(read(root, "huge.rego"), ["`huge.rego` is larger than 1048576 bytes"]);
    assert!(read(root, "none")[0].starts_with("cannot read `none`"));
}

/// What nobody reads looks like what nobody breaks.
#[test]
fn policies_that_are_not_read_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let check = |name: &str, make: &dyn Fn(&Path), expect: &str| {
        let top = root.join(name);
        std::fs::create_dir(&top).expect("a folder");
        make(&top);
        assert_eq!(read(root, name), [expect], "{name}");
    };
    let rego = |path: PathBuf| std::fs::write(path, "package maestro.effect\n").expect("written");
    check("empty", &|_| {}, "`empty` holds no policies");
    let other = |top: &Path| std::fs::write(top.join("deny.rego.txt"), "").expect("written");
    check("other", &other, "`other` holds no policies");
    let hidden = |top: &Path| {
        std::fs::create_dir(top.join(".off")).expect("a folder");
        rego(top.join(".off/deny.rego"));
    };
    check("hidden", &hidden, "`hidden` holds no policies");
    rego(root.join("deny.rego"));
    let dangling = |top: &Path| symlink("nowhere", top.join("deny.rego")).expect("a link");
    check("dangling", &dangling, "`dangling/deny.rego` is a link, and links are not followed");
    let data = |top: &Path| symlink("../deny.rego", top.join("data.json")).expect("a link");
    check("data", &data, "`data/data.json` is a link, and links are not followed");
    // Names that are not UTF-8 are read like others.
    let odd = |top: &Path| {
        rego(top.join(std::ffi::OsStr::from_bytes(b"d\xff.rego")));
    };
    check("odd", &odd, "odd/d\u{fffd}.rego");
    // What is named is meant, wherever it lies.
    symlink("deny.rego", root.join("named.rego")).expect("a link");
    assert_eq!(read(root, "named.rego"), ["named.rego"]);
}

#[test]
fn data_is_an_object_without_contradictions() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let check = |files: &[(&str, &str)], expect: Result<serde_json::Value, &str>| {
        let top = root.join("d");
        let _ = std::fs::remove_dir_all(&top);
        for (name, text) in files {
            let path = top.join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        match (Sources::read(root, &[PathBuf::from("d")]), expect) {
            (Ok(sources), Ok(expect)) => assert_eq!(json!(sources.data), expect),
            (Err(LoadError(findings)), Err(part)) => {
                assert!(findings[0].message.contains(part), "{}", findings[0].message);
            }
            (got, expect) => panic!("{files:?}: {got:?} instead of {expect:?}"),
        }
    };
    check(&[("data.json", "{\"a\": 1}")], Ok(json!({"a": 1})));
    check(
        &[("data.json", "{\"a\": {\"x\": 1}}"), ("a/data.json", "{\"y\": 2}")],
        Ok(json!({"a": {"x": 1, "y": 2}})),
    );
    check(&[("data.json", "{}"), ("other.json", "{\"a\": 1}")], Ok(json!({})));
    check(&[("data.json", "{\"a\": 1}"), ("a/data.json", "{\"y\": 2}")], Err("`data.a`"));
    check(&[("data.json", "[1]")], Err("it is no object"));
    check(&[("data.json", "{\"a\": 1")], Err("EOF"));
    check(&[("data.json", "{\"maestro\": {}}")], Err("where policies stand"));
    check(&[("maestro/data.json", "{\"effect\": {}}")], Err("where policies stand"));
    check(&[("data.json", "{\"a\": 12345678901234567890}")], Err("larger than 2^53"));
    check(&[("data.json", "{\"a\": 1e999999999}")], Err("no canonical JSON form"));
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    check(&[("data.json", &deep)], Err("recursion limit"));
}
