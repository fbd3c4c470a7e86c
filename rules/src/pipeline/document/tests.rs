//! What documents come to, and how malformed ones are refused.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::pipeline::source::Sources;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let source = Source::new("a.yaml", text);
    let mut report = Report::default();
    let mut sources = Sources::default();
    sources.add(source.clone());
    let node = parse(&source, 0, &mut report);
    let told = report.finish(&sources).into_iter().map(|finding| {
        let found = finding.diagnostic;
        let place = found.location.map(|place| place.to_string()).unwrap_or_default();
        format!("{place} {} {}", found.code, found.message)
    });
    (node, told.collect())
}

fn render(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.clone(),
        Kind::Scalar(scalar) => format!("{:?}", scalar.text),
        Kind::Sequence(items) => {
            format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(", "))
        }
        Kind::Mapping(entries) => {
            let entries =
                entries.iter().map(|(key, value)| format!("{}: {}", key.value, render(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn documents_become_trees() {
    let check = |text: &str, expect: &str| {
        let (node, errors) = read(text);
        assert_eq!(errors, Vec::<String>::new(), "{text:?}");
        assert_eq!(node.as_ref().map(render).unwrap_or_default(), expect, "{text:?}");
    };
    check("", "");
    check("on: [push, yes]", "{on: [push, yes]}");
    check("{\"a\": [1, \"b\"]}", "{a: [1, \"b\"]}");
    check("a: { env: ${{ params.env }}, s: c }", "{a: {env: ${{ params.env }}, s: c}}");
    check("a: ${{ x ? {} }}-${{ y, z }}", "{a: ${{ x ? {} }}-${{ y, z }}}");
    check("a: b\n  ${{ ü }} c\n  ${{ d: e }}", "{a: b ${{ ü }} c ${{ d: e }}}");
    check("a: \"${{ b == \\\"c\\\" }}\"", "{a: \"${{ b == \\\"c\\\" }}\"}");
    check("a: >-\n  ${{ b\n  && c }}\n", "{a: \"${{ b && c }}\"}");
    check("a: !!str 1", "{a: \"1\"}");
    check("a: &x {b: c}\nd: *x", "{a: {b: c}, d: {b: c}}");
    check("# ${{ nothing\na: b", "{a: b}");
}

#[test]
fn malformed_documents_are_refused_with_their_place() {
    let check = |text: &str, expect: &[&str]| {
        let (_, errors) = read(text);
        assert_eq!(errors, expect, "{text:?}");
    };
    check("a: b\na: c", &["a.yaml:2:1 MAE0602 the key `a` stands twice"]);
    check("a: { b: ${{ c, d: e }", &["a.yaml:1:9 MAE0600 `${{` has no `}}` on its line"]);
    check("a: &x [*x]", &["a.yaml:1:8 MAE0600 this alias stands within what it stands for"]);
    check("a: 1\n---\nb: 2", &["a.yaml:2:1 MAE0600 a second document begins here"]);
    check("a: !foo 1", &["a.yaml:1:9 MAE0600 the tag `!foo` means nothing here"]);
    check("? [a]\n: b", &["a.yaml:1:3 MAE0600 a key is a text, not a list or a mapping"]);
    let (_, errors) = read("a: [1");
    assert!(errors[0].starts_with("a.yaml:1:4 MAE0600 this is not YAML"), "{errors:?}");
    let deep = format!("a: {}", "[".repeat(200));
    let (_, errors) = read(&deep);
    assert!(errors[0].contains("MAE0601"), "{errors:?}");
}

#[test]
fn few_lines_do_not_become_a_huge_tree() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = level - 1;
        let aliases = vec![format!("*a{last}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let start = Instant::now();
    let (_, errors) = read(&text);
    assert!(errors[0].contains("MAE0601 the file has more than"), "{errors:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn places_in_values_are_places_in_the_text() {
    let check = |raw: &str, value: &str, style: Style, part: &str, expect: usize| {
        let offsets = offsets(raw, value, style);
        let at = value.find(part).expect("it is there");
        assert_eq!(offsets[at] as usize, expect, "{raw:?}");
    };
    check("a b", "a b", Style::Plain, "b", 2);
    check("\"a\\\"b\\u00e4c\"", "a\"bäc", Style::Double, "c", 11);
    check("\"a\n   b\"", "a b", Style::Double, "b", 6);
    check("\"a \\\n   b\"", "a b", Style::Double, "b", 8);
    check("'it''s'", "it's", Style::Single, "s", 5);
    check("a\n  b\n\n  c\n", "a\nb\n\nc\n", Style::Block, "c", 9);
}

proptest! {
    #[test]
    fn any_text_is_a_document_or_an_error_at_a_place_of_it(
        text in "([ -~\\n]|\\$\\{\\{ a \\}\\}|[\"'|>#:,ä{}&*-]|\n  |- ){0,50}"
    ) {
        let source = Source::new("a.yaml", &text);
        let mut report = Report::default();
        let node = parse(&source, 0, &mut report);
        let mut stack: Vec<&Node> = node.iter().collect();
        while let Some(node) = stack.pop() {
            prop_assert!(text.get(node.span.range()).is_some(), "{:?}", node.span);
            match &node.kind {
                Kind::Scalar(scalar) => {
                    let raw = &text[node.span.range()];
                    let found = offsets(raw, &scalar.text, scalar.style);
                    prop_assert_eq!(found.len(), scalar.text.len() + 1);
                    prop_assert!(found.is_sorted());
                    prop_assert!(found.iter().all(|at| *at as usize <= raw.len()));
                    prop_assert!(!scalar.text.contains("xxxxxxxx"));
                }
                Kind::Sequence(items) => stack.extend(items),
                Kind::Mapping(entries) => stack.extend(entries.iter().map(|(_, value)| value)),
            }
        }
        let mut sources = Sources::default();
        sources.add(source);
        for finding in report.finish(&sources) {
            prop_assert!(!finding.diagnostic.to_string().is_empty());
        }
    }
}
