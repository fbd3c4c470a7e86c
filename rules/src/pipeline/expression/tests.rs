//! What expressions come to, what types they have, and how wrong ones are refused.

use std::collections::HashMap;

use serde_json::json;

use super::*;
use crate::pipeline::names::Names;
use crate::pipeline::report::Report;
use crate::pipeline::source::{Source, Sources};

fn read(text: &str) -> Result<Expr, String> {
    let mut sources = Sources::default();
    sources.add(Source::new("e", text));
    let offsets: Vec<u32> = (0..=text.len()).map(|at| at as u32).collect();
    let place = Place { file: 0, base: 0, offsets: &offsets };
    let mut report = Report::default();
    let found = bare(text, &place, &mut report);
    match (found, told(report, &sources)) {
        (Some(found), told) if told.is_empty() => Ok(found),
        (_, told) => Err(told),
    }
}

fn told(report: Report, sources: &Sources) -> String {
    let findings = report.finish(sources).into_iter().map(|finding| {
        let found = finding.diagnostic;
        let column = found.location.map(|place| place.column).unwrap_or_default();
        format!("{column} {}: {}", found.message, found.hints.join("; "))
    });
    findings.collect::<Vec<_>>().join("\n")
}

fn scope() -> Scope {
    Scope {
        params: json!({"env": "prod", "n": 3, "list": ["a", "b"], "on": true}),
        git: json!({"sha": "abc", "branch": "main"}),
        event: json!({"name": "push", "payload": {"a-b": [1, {"c": null}]}}),
        steps: HashMap::from([(
            "scrape-docs".to_owned(),
            json!({"status": "succeeded", "outputs": {"pages": 2, "text": "x"}}),
        )]),
        item: json!({"name": "i"}),
        index: 7,
        changed_files: vec!["src/a/b.rs".to_owned()],
        outcome: Outcome { failed: true, cancelled: false },
        ..Scope::default()
    }
}

#[test]
fn expressions_have_values() {
    let check = |text: &str, expect: Value| {
        let expr = read(text).unwrap_or_else(|told| panic!("{text}: {told}"));
        assert_eq!(eval(&expr, &scope()), Ok(expect), "{text}");
    };
    check("params.env == 'prod' && !(params.n < 3)", json!(true));
    check("params.env == 'x' || params.on", json!(true));
    check("params.n == 3.0", json!(true));
    check("params.n >= -1 && 1.5 < 2", json!(true));
    // Whole numbers are exact, however large.
    check("9007199254740993 == 9007199254740992", json!(false));
    check("9007199254740993 > 9007199254740992.0", json!(true));
    check("9223372036854775807 < 9223372036854775808.0 && 0.5 < 1", json!(true));
    check("'a' in params.list", json!(true));
    check("'ro' in params.env", json!(true));
    check("'env' in params", json!(true));
    check("params.list[1]", json!("b"));
    check("steps.scrape-docs.outputs.pages", json!(2));
    check("steps['scrape-docs'].status", json!("succeeded"));
    check("event.payload.a-b[1].c", json!(null));
    check("git.branch =~ '^(main|release/.*)$'", json!(true));
    check("default(event.payload.zzz, 'd')", json!("d"));
    check("default(event.payload.a-b[1].c, 5)", json!(5));
    check("join([1, 'x', true], '-')", json!("1-x-true"));
    check("length('äö')", json!(2));
    check("contains(params.list, 'a') && starts_with(git.sha, 'ab')", json!(true));
    check("json(item)", json!("{\"name\":\"i\"}"));
    check("files_changed('src/**', 'docs/**')", json!(true));
    check("files_changed('docs/**')", json!(false));
    check("index", json!(7));
    check("failure() && !success() && always()", json!(true));
    check("${{ params.env }}", json!("prod"));
    check("${{ params.n }}", json!(3));
    check("a-${{ params.env }}-${{ params.n }}", json!("a-prod-3"));
    check("${{ '${{' }}", json!("${{"));
    check("'it''s' == \"it's\"", json!(true));
    // The right side is not looked at.
    check("false && event.zzz", json!(false));
}

#[test]
fn values_do_not_outgrow_their_bound() {
    let mut scope = scope();
    scope.params =
        json!({"big": "x".repeat(1 << 20), "many": vec![0; 1 << 20], "q": "\"".repeat(6 << 20)});
    let check = |text: &str| {
        let found = eval(&read(text).expect("it is well-formed"), &scope);
        let told = found.map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(told, Err("the value is larger than 16777216 bytes".to_owned()));
    };
    let sixteen = ["params.big"; 16].join(", ");
    check(&format!("[{sixteen}]"));
    check(&format!("[[{sixteen}]]"));
    check(&format!("length([{sixteen}]) == 16"));
    check(&"${{ params.big }}".repeat(17));
    // As long as all of them together, over and over.
    check("join(params.many, params.big)");
    check("json(json([params.q]))");
    check("default([params.q, params.q], 1)");
    let large = Expr::literal(json!({"a": ["x".repeat(1 << 24)]}), Span::default());
    assert!(matches!(eval(&large, &scope), Err(EvalError::Large { .. })));
    assert_eq!(eval(&read("length(params.many)").expect("good"), &scope), Ok(json!(1 << 20)));
}

#[test]
fn malformed_expressions_are_refused_at_their_column() {
    let check = |text: &str, expect: &str| {
        let told = read(text).expect_err(text);
        assert_eq!(told, expect, "{text}");
    };
    check("", "1 a value is missing here: ");
    check("params.env = 'x'", "12 `=` means nothing here: equality is `==`");
    check("a ==", "1 there is no name `a`: a text stands in single quotes");
    check("param.x", "1 there is no name `param`: did you mean `params`?");
    check("lenght('a')", "1 there is no function `lenght`: did you mean `length`?");
    check("length()", "1 `length` takes 1 arguments, not 0: ");
    check("(1 == 2", "8 `)` is missing here: ");
    check(
        "1 == 2 == 3",
        "8 the expression should end here: comparisons do not chain; join two with `&&`",
    );
    check("git.sha =~ '('", "12 this is no regular expression: unclosed group: ");
    check("'abc", "1 the text has no end: ");
    check("x${{ 1 + 1 }}", "8 `+` means nothing here: there is no arithmetic; a step can compute");
    check("success", "1 `success` is a function: call it, with `()` behind its name");
    check("${{ git.sha", "1 `${{` has no `}}`: a text with `${{` itself is written `${{ '${{' }}`");
    let deep = format!("{}1{}", "(".repeat(100), ")".repeat(100));
    assert!(read(&deep).expect_err("deep").contains("nests deeper than"));
    let long = vec!["true"; 500].join(" && ");
    assert_eq!(eval(&read(&long).expect("long, not deep"), &scope()), Ok(json!(true)));
}

fn check_types(text: &str) -> Result<Type, String> {
    let expr = read(text)?;
    let params = Type::record([
        ("env", Type::choice(["staging", "prod"])),
        ("n", Type::Int),
        ("list", Type::list(Type::String)),
        ("key", Type::Secret),
        ("keys", Type::list(Type::Secret)),
    ]);
    let outputs = Type::record([("pages", Type::Int), ("data", Type::Any)]);
    let status = Type::choice(["succeeded", "failed"]);
    let step = Type::record([("status", status), ("outputs", outputs)]);
    let steps = HashMap::from([("scrape".to_owned(), step)]);
    let names = Names::among(["scrape"]);
    let roots = HashMap::from([(Root::Git, Type::record([("sha", Type::String)]))]);
    let env = Environment {
        params: &params,
        steps: &steps,
        names: &names,
        roots: &roots,
        repeated: &Loop::None,
        outcome: false,
        no_steps: None,
    };
    let mut report = Report::default();
    let found = type_of(&expr, &env, &mut report);
    let mut sources = Sources::default();
    sources.add(Source::new("e", text));
    match told(report, &sources) {
        told if told.is_empty() => Ok(found),
        told => Err(told),
    }
}

#[test]
fn expressions_have_types() {
    let check = |text: &str, expect: &str| {
        let found = check_types(text).map(|found| found.to_string());
        assert_eq!(found.unwrap_or_else(|told| told), expect, "{text}");
    };
    check("params.n", "an int");
    check("params.env == 'prod'", "a bool");
    check("steps.scrape.outputs.data.x.y", "anything");
    check("default(steps.scrape.outputs.data.x, 3)", "an int");
    check("params.key", "a secret");
    check("x-${{ params.n }}", "a text");
    check("params.env == 'prd'", "15 this is never `prd`: did you mean `prod`?");
    check("params.n == 'a'", "1 an int and a text are never equal, nor in an order: ");
    check("params.evn", "8 there is no `evn` here: did you mean `env`?");
    check("steps.scarpe.status", "7 there is no step `scarpe`: did you mean `scrape`?");
    check("steps['scarpe'].status", "8 there is no step `scarpe`: did you mean `scrape`?");
    check("steps.scrape.outputs.page", "22 there is no `page` here: did you mean `pages`?");
    check("!params.n", "2 `!` takes a bool, and this is an int: ");
    check(
        "x${{ params.list }}",
        "6 a list, each item a text cannot be part of a text: `json(…)` makes a text of it, `join(…, ', ')` one of a list",
    );
    check("item", "1 `item` exists only in a step with `foreach`: ");
    check("success()", "1 `success` means something only in `if`: ");
    check(
        "'${{ params.key }}'",
        "6 a secret cannot become part of another value: hand it on as a whole: in `secrets`, or in a field that takes a secret",
    );
    check(
        "params.key == 'x'",
        "1 a secret cannot become part of another value: hand it on as a whole: in `secrets`, or in a field that takes a secret",
    );
}

#[test]
fn a_secret_is_one_wherever_it_is_put() {
    let check = |text: &str, expect: &str| {
        let told = check_types(text).map(|found| found.to_string());
        let told =
            told.unwrap_or_else(|told| told.split(':').next().unwrap_or_default().to_owned());
        assert_eq!(told, expect, "{text}");
    };
    let refused = |column: usize| format!("{column} a secret cannot become part of another value");
    check("params.keys", "a list, each item a secret");
    check("params.keys[0]", "a secret");
    check("[params.key, params.keys[1]]", "a list, each item a secret");
    check("[params.key, 'x']", "a list, each item something with a secret in it");
    check("[params.key, steps.scrape.outputs.data][0]", "something with a secret in it");
    check("params[steps.scrape.outputs.data]", "something with a secret in it");
    for (text, column) in [
        ("json(params)", 6),
        ("json([params.key])", 6),
        ("default(params.key, 'x')", 9),
        ("default(steps.scrape.outputs.data, params.key)", 36),
        ("join(params.keys, ',')", 6),
        ("length(params.keys)", 8),
        ("contains(params.keys, 'x')", 10),
        ("'x' in params.keys", 8),
        ("params.keys == ['x']", 1),
        ("'${{ params.keys }}'", 6),
        ("params.keys[0].x", 16),
        ("params.keys[0][0]", 16),
        ("params[git.sha].x", 17),
    ] {
        check(text, &refused(column));
    }
}

#[test]
fn patterns_of_params_fit_whole_texts() {
    let check = |pattern: &str, text: &str, expect: Option<bool>| {
        let found = Pattern::whole(pattern).ok().map(|pattern| pattern.is_match(text));
        assert_eq!(found, expect, "{pattern} {text}");
    };
    check("[a-z]+", "abc", Some(true));
    check("[a-z]+", "abc\n", Some(false));
    check("a|b", "ab", Some(false));
    check("", "", Some(true));
    // It closes no group but its own.
    check("a)|(?:b", "axx", None);
    check("(?x) a # remark", "a", None);
}
