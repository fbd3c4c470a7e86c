//! What the linter finds, and where.

use std::collections::BTreeMap;

use maestro_core::RelPath;
use maestro_core::host::{DirEntry, FileType, Host, HostError};

use super::{LINTS, fix, lint, lint_of};

/// Files in memory.
struct Files(BTreeMap<&'static str, &'static str>);

impl Host for Files {
    fn stat(&self, path: &RelPath) -> Result<Option<FileType>, HostError> {
        Ok(self.0.contains_key(path.as_str()).then_some(FileType::File))
    }

    fn read(&self, path: &RelPath) -> Result<Option<Vec<u8>>, HostError> {
        Ok(self.0.get(path.as_str()).map(|text| text.as_bytes().to_vec()))
    }

    fn list(&self, _: Option<&RelPath>) -> Result<Vec<DirEntry>, HostError> {
        Ok(Vec::new())
    }

    fn open_repository(&self, name: &str, from: &str) -> Result<String, HostError> {
        let (name, from) = (name.to_owned(), from.to_owned());
        Err(HostError::NoRepository { name, from, hints: Vec::new() })
    }
}

fn workspace() -> Files {
    Files(BTreeMap::from([
        ("a/maestro.star", ""),
        (
            "a/old.star",
            "def old(name):\n    \"\"\"Makes it.\n\n    Deprecated: Use `new`.\n    \"\"\"\n\n\
             r = rule(implementation = old, doc = \"A.\", attrs = {\"x\": attr.string(doc = \
             \"Deprecated: Use `y`.\")})\n",
        ),
    ]))
}

/// Compares findings of `text` as `line:column name`, or all of a message where `want` has one.
fn check(path: &str, text: &str, want: &[&str]) {
    let found = lint(&workspace(), path, text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let got: Vec<String> = found
        .iter()
        .map(|finding| {
            let name = lint_of(finding.code).expect("a known code").name;
            let place = finding.location.as_ref().expect("a place");
            assert!(!finding.hints.is_empty() && !finding.snippet.is_empty());
            format!("{}:{} {name}: {}", place.line, place.column, finding.message)
        })
        .collect();
    let same = got.len() == want.len() && got.iter().zip(want).all(|(g, w)| g.starts_with(w));
    assert!(same, "{text}\ngot {got:#?}\nwant {want:#?}");
}

fn library(text: &str, want: &[&str]) {
    check("a/lib.star", &format!("\"\"\"Doc.\"\"\"\n{text}"), want);
}

fn package(text: &str, want: &[&str]) {
    check("a/maestro.star", text, want);
}

#[test]
fn loads() {
    package(
        "load(\":b.star\", \"b\", \"c\")\nb(name = \"x\")\n",
        &["1:22 unused-load: unused `load` of `c`"],
    );
    package(
        "load(\":z.star\", \"z\")\nload(\"//:a.star\", \"a\")\nload(\":z.star\", \"y\")\nz(n = a, m = y)\n",
        &[
            "2:6 unsorted-loads: the load of `//:a.star` belongs before that of `:z.star`",
            "3:6 duplicate-load",
        ],
    );
    package("X = 1\nload(\":b.star\", \"b\")\nb(name = X)\n", &["2:1 load-not-on-top"]);
}

#[test]
fn flow_and_names() {
    library("def _f(x):\n    return\n    x()\n\nY = _f(1)\n", &["4:5 unreachable"]);
    library("def _f(x):\n    y = 1\n    return x\n\nY = _f(1)\n", &["3:5 unused-variable"]);
    library("def _f(x):\n    if x:\n        return 1\n\nY = _f(1)\n", &["2:1 missing-return"]);
    library("X = nothing\n", &["2:5 undefined-name"]);
    library("X = {\"a\": 1, \"a\": 2}\n", &["2:"]);
    library("def _f(ctx):\n    pass\n\nY = _f\n", &[]);
    library(
        "def _f(x):\n    glob = x\n    len = glob\n    return len\n\nselect = _f(1)\n",
        &["4:5 shadowed-builtin: `len`", "7:1 shadowed-builtin: `select`"],
    );
}

#[test]
fn loops_that_copy() {
    library(
        "def _f(xs):\n    a = []\n    d = depset()\n    for x in xs:\n        a = a + [x] + [x]\n        d = depset([x], transitive = [d])\n        b = a + []\n        a += b\n    return a, d\n\nY = _f\n",
        &["6:9 growth-in-loop", "7:9 growth-in-loop: depset `d`"],
    );
}

#[test]
fn documentation() {
    check(
        "a/lib.star",
        "def f():\n    pass\n",
        &["1:1 missing-docs: the file", "1:5 missing-docs: function `f`"],
    );
    library(
        "def _i(ctx):\n    pass\n\nr = rule(implementation = _i, attrs = {\"a\": attr.int(), \"_b\": attr.int(), \"c\": attr.int(doc = \"C.\")})\nP = provider(doc = \"\")\nQ = provider(\"Q.\")\n",
        &[
            "5:1 missing-docs: rule `r`",
            "5:40 missing-docs: attribute `a`",
            "6:1 missing-docs: provider `P`",
        ],
    );
}

#[test]
fn targets_and_globs() {
    package(
        "load(\":b.star\", \"b\")\nexports_files([\"x\"])\nb(\"x\", srcs = glob([\"**\", \"*.c\"]))\n",
        &["3:3 positional-argument", "3:21 wide-glob"],
    );
    package(
        "load(\":old.star\", \"old\", \"r\")\nold(name = \"a\")\nr(name = \"b\", x = \"c\")\n",
        &[
            "2:1 deprecated: `old` is deprecated: Use `new`",
            "3:15 deprecated: attribute `x` of `r`",
        ],
    );
}

#[test]
fn comments_silence() {
    package("load(\":b.star\", \"b\")  # maestro-lint: disable=unused-load\n", &[]);
    package("# maestro-lint: disable=MAE0501, wide-glob\nload(\":b.star\", \"b\")\n", &[]);
    package("# maestro-lint: disable=wide-glob\nload(\":b.star\", \"b\")\n", &["2:17 unused-load"]);
    package("load(\":b.star\", \"b\")\n# maestro-lint: disable-file=unused-load\n", &[]);
    package(
        "X = \"# maestro-lint: disable-file=all\"\nload(\":b.star\", \"b\")\n",
        &["2:1 load-not-on-top", "2:17 unused-load"],
    );
}

#[test]
fn fixes_remove_what_nothing_uses_and_keep_the_rest() {
    let fixed = |text: &str| fix(&workspace(), "a/maestro.star", text).expect("it parses");
    assert_eq!(
        fixed("load(':z.star', 'z', 'y')\nload('//:a.star', 'a')\n\nz(name = 'x')\n"),
        "load(\":z.star\", \"z\")\n\nz(name = \"x\")\n"
    );
    assert_eq!(fixed("load(':z.star', 'z')\n"), "");
    assert_eq!(
        fixed("load(':z.star', 'y', 'x', w = 'v')\n\nx(name = 'x')\n"),
        "load(\":z.star\", \"x\")\n\nx(name = \"x\")\n"
    );
    let silenced = "load(\":z.star\", \"z\")  # maestro-lint: disable=unused-load\n";
    assert_eq!(fixed(silenced), silenced);
}

#[test]
fn what_does_not_parse_is_an_error() {
    assert_eq!(lint(&workspace(), "a.star", "x = (").expect_err("no text").code, "MAE0100");
}

#[test]
fn codes_are_unique_and_in_order() {
    assert!(LINTS.is_sorted_by(|a, b| a.code < b.code));
    let mut names: Vec<&str> = LINTS.iter().map(|lint| lint.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LINTS.len());
    let guide = include_str!("../../../docs/guides/format-and-lint.md");
    for lint in LINTS {
        let row = format!("| {} | `{}` | {} |", lint.code, lint.name, lint.about);
        assert!(guide.contains(&row), "the guide lacks `{row}`");
    }
}
