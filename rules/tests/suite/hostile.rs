//! Files that mean harm, or grew out of hand: each is refused, and nothing else happens.

use maestro_core::TargetPattern;
use maestro_rules::{EvaluationLimits, LoadOptions, load_within};

use crate::workspace::{Memory, errors_of, load_memory, loaded, render, requested};

fn starts(files: &[(&str, &str)], expect: &str) {
    let got = errors_of(&Memory::new(files), &["//..."]);
    assert!(got.starts_with(expect), "{got}");
}

/// Errors under limits that a test can reach quickly.
fn limited(files: &[(&str, &str)]) -> String {
    let host = Memory::new(files);
    let patterns = vec![(false, TargetPattern::parse("//...", "").expect("a pattern"))];
    let limits =
        EvaluationLimits { ticks: 100_000, heap_bytes: 8 << 20, ..EvaluationLimits::default() };
    match load_within(LoadOptions::new(&host, patterns, 1), limits) {
        Ok(_) => panic!("it loads"),
        Err(errors) => render(&errors),
    }
}

#[test]
fn endless_loops_hit_the_step_limit() {
    let body = "def f():\n    for i in range(100000000):\n        pass\n";
    let got = limited(&[("maestro.star", &format!("{body}f()\n"))]);
    assert!(got.starts_with("error[MAE0103]: execution duration limit of 100000 ticks"), "{got}");
    let rules = format!("{body}def _impl(ctx):\n    f()\nr = rule(implementation = _impl)\n");
    let package = "load(\":defs.star\", \"r\")\nr(name = \"x\")\n";
    let got = limited(&[("defs.star", &rules), ("maestro.star", package)]);
    assert!(got.starts_with("error[MAE0103]: execution duration limit of 100000 ticks"), "{got}");
    assert!(got.contains(" --> maestro.star:2:1"), "{got}");
}

#[test]
fn huge_lists_hit_the_heap_limit() {
    let got = limited(&[("maestro.star", "x = [\"%d\" % i * 1000 for i in range(90000)]\n")]);
    assert!(got.starts_with("error[MAE0103]: heap memory limit of 8388608 bytes"), "{got}");
}

#[test]
fn huge_products_are_refused_before_they_are_made() {
    for text in ["x = \"x\" * 1000000000\n", "x = 1000000000 * [0]\n", "x = (0,) * 2147483647\n"] {
        let expect = "error[MAE0103]: ";
        let got = errors_of(&Memory::new(&[("maestro.star", text)]), &["//..."]);
        assert!(got.starts_with(expect), "{text}: {got}");
        assert!(got.contains("is more than 67108864 bytes"), "{text}: {got}");
        assert!(got.contains(" --> maestro.star:1:"), "{text}: {got}");
    }
    let fine = "def f(x, y = 2 * 3):\n    return x * y\nif f(\"ab\") * 2 != \"ab\" * 12 or 2 * 3 * 4 != 24 or [1] * -1 != [] or 1.5 * 2 != 3:\n    fail(\"wrong\")\n";
    let loaded = load_memory(&Memory::new(&[("maestro.star", fine)]), &["//..."]);
    assert!(loaded.is_ok(), "{}", render(&loaded.err().unwrap_or_default()));
    starts(
        &[("maestro.star", "x = \"a\" * \"b\"\n")],
        "error[MAE0101]: operation `*` not supported",
    );
}

#[test]
fn ranges_are_bounded_and_else_as_everywhere() {
    for text in
        ["list(range(1000000000))", "range(-2147483648, 2147483647)", "range(2147483647, 0, -1)"]
    {
        let text = format!("x = {text}\n");
        starts(&[("maestro.star", &text)], "error[MAE0103]: a range of ");
    }
    let fine = "if list(range(3)) != [0, 1, 2] or list(range(1, 3)) != [1, 2] or list(range(5, 0, -2)) != [5, 3, 1] or len(range(2147483647, 0)) != 0:\n    fail(\"wrong\")\n";
    let loaded = load_memory(&Memory::new(&[("maestro.star", fine)]), &["//..."]);
    assert!(loaded.is_ok(), "{}", render(&loaded.err().unwrap_or_default()));
    starts(&[("maestro.star", "range()\n")], "error[MAE0101]: ");
    starts(&[("maestro.star", "range(1, 2, 0)\n")], "error[MAE0101]: ");
}

#[test]
fn globs_without_end_are_refused() {
    let text = "def f():\n    for i in range(100000000):\n        glob([\"*\"], allow_empty = True)\nf()\n";
    let files: Vec<String> = (0..5000).map(|n| format!("f{n}.c")).collect();
    let mut all: Vec<(&str, &str)> = files.iter().map(|name| (name.as_str(), "")).collect();
    all.push(("maestro.star", text));
    starts(&all, "error[MAE0103]: the globs of this file look at more than 10000000 entries");
    let text = "glob([\"x%d\" % i for i in range(20000)], allow_empty = True)\n";
    starts(&[("maestro.star", text)], "error[MAE0103]: the glob has more than 10000 patterns");
}

#[test]
fn endless_recursion_is_stopped() {
    starts(
        &[("maestro.star", "def f(n):\n    return f(n + 1)\nf(0)\n")],
        "error[MAE0103]: calls nest too deeply",
    );
}

#[test]
fn towers_of_brackets_are_refused() {
    let text = format!("x = {}1\n", "[".repeat(100_000));
    starts(&[("maestro.star", &text)], "error[MAE0103]: line 1 nests deeper than");
    let text = format!("x = {}1\n", "-".repeat(1_000_000));
    starts(&[("maestro.star", &text)], "error[MAE0103]: line 1 nests deeper than");
}

#[test]
fn values_that_nest_too_deeply_are_refused() {
    let text = "def f():\n    x = []\n    for i in range(1000000):\n        x = [x]\n    return x\ny = f()\n";
    starts(&[("maestro.star", text)], "error[MAE0103]: variable `y`: values nest deeper than");
    let text = text.replace("y = f()", "_y = f()");
    starts(&[("maestro.star", &text)], "error[MAE0103]: variable `_y`: values nest deeper than");
}

#[test]
fn files_that_are_no_text_are_refused() {
    let host = Memory::new(&[]).bytes("maestro.star", b"x = 1\ny = '\xff'\n");
    let got = errors_of(&host, &["//..."]);
    assert!(
        got.starts_with("error[MAE0104]: `maestro.star` is not UTF-8: line 2 has an invalid byte"),
        "{got}"
    );
}

#[test]
fn files_of_five_megabytes_are_refused() {
    let text = "# comment\n".repeat(500_000);
    starts(&[("maestro.star", &text)], "error[MAE0103]: `maestro.star` has 5000000 bytes");
}

#[test]
fn odd_names_are_refused_only_where_they_match() {
    let text = "load(\"@maestro//rules:basics.star\", \"filegroup\")\nfilegroup(name = \"x\", srcs = glob([\"*.txt\"]))\n";
    let files = [("maestro.star", text), ("a.txt", "")];
    let host = Memory::new(&files).odd("", "new\\nline.txt");
    let got = errors_of(&host, &["//:x"]);
    assert!(got.starts_with("error[MAE0112]: the name `"), "{got}");
    assert!(got.contains("in folder `.` cannot stand in a build"), "{got}");
    let host = Memory::new(&files).odd("", "new\\nline.c");
    let loaded = load_memory(&host, &["//:x"]).expect("it does not match");
    assert_eq!(requested(&loaded), ["//:x"]);
}

#[test]
fn nothing_of_the_machine_can_be_seen() {
    for name in ["open", "getenv", "os", "time", "breakpoint", "call_stack", "environ"] {
        starts(&[("maestro.star", &format!("x = {name}\n"))], "error[MAE0101]: variable");
    }
}

#[test]
fn a_long_chain_of_targets_is_no_problem() {
    let mut text = String::from("load(\"@maestro//rules:basics.star\", \"filegroup\")\n");
    text.push_str("filegroup(name = \"t0\")\n");
    text.push_str(
        "[filegroup(name = \"t%d\" % i, srcs = [\":t%d\" % (i - 1)]) for i in range(1, 2000)]\n",
    );
    let loaded = loaded(&[("maestro.star", &text)], &["//:t1999"]);
    assert_eq!(loaded.graph.targets().count(), 2000);
}

#[test]
fn what_a_rule_receives_cannot_be_changed() {
    let rules = "
Info = provider(fields = [\"items\"])
def _a(ctx):
    return [Info(items = [1])]
a = rule(implementation = _a)
def _b(ctx):
    ctx.attr.dep[Info].items.append(2)
b = rule(implementation = _b, attrs = {\"dep\": attr.label()})
";
    let package =
        "load(\":defs.star\", \"a\", \"b\")\na(name = \"a\")\nb(name = \"b\", dep = \":a\")\n";
    starts(&[("defs.star", rules), ("maestro.star", package)], "error[MAE0101]: immutable");
}
