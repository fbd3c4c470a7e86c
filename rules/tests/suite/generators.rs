//! Where targets of macros came from: in queries, in errors, and after a build that remembers.

use maestro_rules::{OutputOptions, QueryForm, QueryOptions, query};

use crate::memory::session::Session;
use crate::workspace::{Memory, errors_of, render};

const DEFS: &str = r#"load("@maestro//rules:basics.star", "filegroup")

def _inner(name, srcs):
    filegroup(name = name, srcs = srcs)

def pair(name, srcs = []):
    filegroup(name = name)
    _inner(name + "_more", srcs)

def each(names):
    [_inner(name, []) for name in names]
"#;

const PACKAGE: &str = r#"load(":defs.star", "pair", "each")
load("@maestro//rules:basics.star", "filegroup")
filegroup(name = "plain")
pair(
    name = "both",
    srcs = ["//lib:x"],
)
each(["a", "b"])
"#;

const LIB: &str = "load(\"@maestro//rules:basics.star\", \"filegroup\")
filegroup(name = \"x\", visibility = [\"//visibility:public\"])
";

fn files() -> [(&'static str, &'static str); 3] {
    [("app/defs.star", DEFS), ("app/maestro.star", PACKAGE), ("lib/maestro.star", LIB)]
}

fn written(expression: &str, form: QueryForm) -> String {
    let host = Memory::new(&files());
    let answer = query(QueryOptions::new(&host, expression, 1));
    let answer = answer.unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let mut out = Vec::new();
    answer.write(&OutputOptions::new(form), &mut out).expect("memory does not fail");
    String::from_utf8(out).expect("it is a text")
}

#[test]
fn declarations_show_the_calls_behind_them() {
    assert_eq!(
        written("//app:both_more", QueryForm::Build),
        r#"# app/maestro.star:4:1
filegroup(
  name = "both_more",
  srcs = ["//lib:x"],
  generator_name = "both",
  generator_function = "pair",
  generator_location = "app/maestro.star:4:1",
)
# Instantiation stack:
#   app/maestro.star:4:1 in <toplevel>
#   app/defs.star:8:5 in pair
#   app/defs.star:4:5 in _inner

"#
    );
    assert_eq!(
        written("//app:plain", QueryForm::Build),
        "# app/maestro.star:3:1\nfilegroup(\n  name = \"plain\",\n)\n\n"
    );
    assert_eq!(
        written("//app:b", QueryForm::Jsonl),
        "{\"label\":\"//app:b\",\"kind\":\"filegroup rule\",\"location\":\"app/maestro.star:8:1\",\
         \"generator_name\":\"b\",\"generator_function\":\"each\",\
         \"generator_location\":\"app/maestro.star:8:1\",\"instantiation_stack\":[\
         \"app/maestro.star:8:1 in <toplevel>\",\"app/defs.star:11:6 in each\",\
         \"app/defs.star:4:5 in _inner\"],\"deps\":[]}\n"
    );
    assert!(written("//app:both", QueryForm::JsonProto).contains("\"instantiationStack\""));
}

#[test]
fn queries_choose_by_macro() {
    let check = |expression: &str, expect: &str| {
        assert_eq!(written(expression, QueryForm::Label), expect, "{expression}");
    };
    check("attr(generator_function, pair, //app:all)", "//app:both\n//app:both_more\n");
    check("attr(generator_name, both, //app:all)", "//app:both\n//app:both_more\n");
    check("attr(generator_location, ':8:', //app:all)", "//app:a\n//app:b\n");
}

#[test]
fn errors_name_the_calls_below_the_package_file() {
    let private = LIB.replace("//visibility:public", "//visibility:private");
    let [defs, package, _] = files();
    let text =
        errors_of(&Memory::new(&[defs, package, ("lib/maestro.star", &private)]), &["//app:all"]);
    assert!(text.contains(" --> app/maestro.star:4:1\n"), "{text}");
    let trace =
        "\n  from app/defs.star:8:5 in macro `pair`\n  from app/defs.star:4:5 in macro `_inner`\n";
    assert!(text.contains(trace), "{text}");
    let twice = format!("{PACKAGE}filegroup(name = \"a\")\n");
    let text = errors_of(&Memory::new(&[defs, ("app/maestro.star", &twice)]), &["//app:all"]);
    assert!(text.contains("declared at app/maestro.star:8:1, by macro `each`"), "{text}");
}

#[test]
fn a_remembered_package_knows_its_macros() {
    let mut session = Session::new(&files(), &["//..."]);
    let private = LIB.replace("//visibility:public", "//visibility:private");
    // The package of the macro is not evaluated again, and the error is the same as if it were.
    let Err(text) = session.edit(&[("lib/maestro.star", Some(&private))]) else {
        panic!("it loads");
    };
    assert!(text.contains("from app/defs.star:8:5 in macro `pair`"), "{text}");
}
