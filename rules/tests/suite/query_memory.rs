//! Queries with what builds remember of packages: the same answers, and what is evaluated for them.

use maestro_rules::{
    LoadOptions, OutputOptions, PackageMemories, PackageMemory, QueryAnswer, QueryForm,
    QueryOptions, Remember, Remembered, cquery, query, reload,
};

use crate::workspace::{Memory, patterns, render};

/// So many packages that memory is worth opening.
const PACKAGES: usize = 40;

const RULES: &str = "
visibility([\"//...\"])
def _lib(ctx):
    return [DefaultInfo(files = depset(ctx.files.srcs))]
lib = rule(_lib, attrs = {
    \"srcs\": attr.label_list(allow_files = True),
    \"deps\": attr.label_list(),
    \"a_long_list_of_names\": attr.string_list(),
    \"z\": attr.string(),
})
";

fn files() -> Vec<(String, String)> {
    let mut out = vec![
        ("build/maestro.star".to_owned(), String::new()),
        ("build/rules.star".to_owned(), RULES.to_owned()),
        ("build/names.star".to_owned(), "visibility([\"//...\"])\nZ = \"z\"\n".to_owned()),
    ];
    for number in 0..PACKAGES {
        let before = match number.checked_sub(1) {
            Some(before) => format!("deps = [\"//p{before:02}\"], "),
            None => String::new(),
        };
        let loads = "load(\"//build:rules.star\", \"lib\")\nload(\"//build:names.star\", \"Z\")\n";
        let text = format!(
            "{loads}load(\"@maestro//rules:basics.star\", \"genrule\")\nprint(\"p{number:02}\")\n\
             lib(name = \"p{number:02}\", srcs = glob([\"*.txt\"]), {before}z = Z, \
             visibility = [\"//visibility:public\"])\n\
             genrule(name = \"made\", outs = [\"m\"], srcs = [\"a.txt\"], cmd = \"cp $< $@\")\n"
        );
        out.push((format!("p{number:02}/maestro.star"), text));
        out.push((format!("p{number:02}/a.txt"), String::new()));
    }
    out
}

fn host(files: &[(String, String)]) -> Memory {
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    Memory::new(&files)
}

struct Known(Vec<u8>);

impl PackageMemories for Known {
    fn packages(&self) -> Option<PackageMemory<'_>> {
        Some(PackageMemory { base: &self.0, delta: None })
    }
}

/// What a build of everything remembers.
fn known(files: &[(String, String)]) -> Known {
    let host = host(files);
    let options = LoadOptions::new(&host, patterns(&["//..."]), 2);
    match reload(options, None, Remember::Base).map(|done| done.remembered) {
        Ok(Remembered::Base(bytes)) => Known(bytes),
        other => panic!("{other:?}"),
    }
}

/// The answer in a form that says much, what was printed, and what was evaluated.
fn told(answer: Result<QueryAnswer, String>) -> (String, Vec<String>) {
    match answer {
        Ok(answer) => {
            let mut out = Vec::new();
            let jsonl = OutputOptions::new(QueryForm::Jsonl);
            answer.write(&jsonl, &mut out).expect("a vector takes all");
            let mut remarks: Vec<String> = answer.remarks.iter().map(ToString::to_string).collect();
            remarks.sort_unstable();
            let text = String::from_utf8(out).expect("labels are text") + &remarks.concat();
            (text, answer.evaluated)
        }
        Err(errors) => (errors, Vec::new()),
    }
}

/// What is evaluated for a query after edits; the answer is the same as without memory.
fn check(edits: &[(&str, Option<&str>)], expression: &str, expect: &[&str]) {
    let before = files();
    let known = known(&before);
    let mut now = before;
    for (path, text) in edits {
        now.retain(|(own, _)| own != path);
        now.extend(text.map(|text| ((*path).to_owned(), text.to_owned())));
    }
    let host = host(&now);
    for ask in [query, cquery] {
        let plain = QueryOptions::new(&host, expression, 2);
        let options = QueryOptions { memory: Some(&known), ..plain.clone() };
        let errors = |errors: Vec<_>| render(&errors);
        let (with, evaluated) = told(ask(options).map_err(errors));
        assert_eq!(with, told(ask(plain).map_err(errors)).0, "{expression} after {edits:?}");
        assert_eq!(evaluated, expect, "{expression} after {edits:?}");
    }
}

#[test]
fn only_what_changed_is_evaluated() {
    let rules = "build/rules.star";
    let names = "build/names.star";
    let own = "load(\"//build:rules.star\", \"lib\")\nlib(name = \"p07\", z = \"new\")\n";
    check(&[], "deps(//...)", &[rules]);
    // One package is evaluated sooner than memory is opened.
    check(&[], "//p00/...", &[names, rules, "p00/maestro.star"]);
    check(&[("p39/maestro.star", Some(own))], "//...", &[rules, "p39/maestro.star"]);
    check(&[("p39/maestro.star", None)], "deps(//...)", &[rules]);
    let bare = ("q/maestro.star", Some("print(\"new\")\n"));
    check(&[bare], "//...", &[rules, "q/maestro.star"]);
    let all: Vec<String> = (0..PACKAGES).map(|n| format!("p{n:02}/maestro.star")).collect();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    all.splice(0..0, [names, rules]);
    check(&[(names, Some("visibility([\"//...\"])\nZ = \"y\"\n"))], "deps(//...)", &all);
}

#[test]
fn errors_are_those_of_a_query_without_memory() {
    check(&[("p07/maestro.star", Some("nonsense\n"))], "deps(//...)", &[]);
    check(&[("p39/a.txt", None), ("p07/maestro.star", None)], "deps(//p39/...)", &[]);
}

#[test]
fn damaged_memory_is_as_good_as_none() {
    let files = files();
    let Known(bytes) = known(&files);
    let host = host(&files);
    let plain = || QueryOptions::new(&host, "deps(//...)", 2);
    let (expect, _) = told(query(plain()).map_err(|errors| render(&errors)));
    let step = bytes.len() / 8;
    let cuts = (0..8).map(|at| bytes.get(..at * step).unwrap_or_default().to_vec());
    for bytes in cuts {
        let known = Known(bytes);
        let options = QueryOptions { memory: Some(&known), ..plain() };
        assert_eq!(told(query(options).map_err(|errors| render(&errors))).0, expect);
    }
}
