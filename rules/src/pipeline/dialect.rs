//! Translates the older dialect of `.maestro/pipeline.yaml`.
//!
//! | there | here |
//! |---|---|
//! | `steps[{id, run, when}]` | `uses: run.command` with a shell, and `if` |
//! | `step_succeeded("x")`, `branch`, `event`, … in `when` | `steps.x.status == 'succeeded'`, `git.branch`, `event.name`, … |
//! | `budgets.hard_cap_usd`, `soft_cap_usd` | `budget` |
//! | `policies`, `freeze_windows`, and all else | a finding that says what to write instead |
//!
//! Nothing is left out silently: what has no counterpart is told with its place.

use std::collections::HashSet;

use super::document::{self, Kind, Node, Style};
use super::expression::{Expr, ExprKind, Place, Root, Value, bare};
use super::read::Reader;
use super::report::{Finding, Report};
use super::source::{Source, Sources, Spanned};
use super::template::Event;
use crate::error::Code;

/// What came of a file of the other dialect.
#[derive(Debug)]
pub struct Imported {
    /// The pipeline; none where the file cannot be read at all.
    pub text: Option<String>,
    /// What was not translated, and errors.
    pub findings: Vec<Finding>,
}

/// Words of conditions, and what they are here.
const WORDS: &[(&str, &str)] = &[
    ("branch", "git.branch"),
    ("tag", "git.tag"),
    ("sha", "git.sha"),
    ("commit", "git.sha"),
    ("event", "event.name"),
    ("actor", "run.actor"),
];

/// Translates a text; `fallback` is the name of a pipeline that has none.
pub fn import(file: &str, text: &str, fallback: &str) -> Imported {
    let source = Source::new(file, text);
    let mut sources = Sources::default();
    let number = sources.add(source.clone());
    let mut report = Report::default();
    let root = document::parse(&source, number, &mut report);
    let text = root.and_then(|root| {
        let reader = Reader { sources: &sources, file: number, report: &mut report };
        Import { reader, out: String::new(), ids: HashSet::new() }.all(&root, fallback)
    });
    Imported { text, findings: report.finish(&sources) }
}

struct Import<'a> {
    reader: Reader<'a>,
    out: String,
    ids: HashSet<String>,
}

impl Import<'_> {
    fn all(mut self, root: &Node, fallback: &str) -> Option<String> {
        let entries = self.reader.mapping(root, "a pipeline")?;
        let find = |key: &str| entries.iter().find(|(name, _)| name.value == key).map(|(_, n)| n);
        let name = find("name").and_then(|node| self.reader.text(node, "`name`"));
        let name = name.map_or(fallback.to_owned(), |name| name.value);
        self.out = format!("name: {}\n", identifier(&name));
        for (key, node) in entries.iter().filter(|(key, _)| key.value != "name") {
            match key.value.as_str() {
                "steps" => {}
                "budgets" => self.budgets(node),
                "description" => self.copied("description", node),
                "on" | "triggers" => self.triggers(key, node),
                "version" | "apiVersion" => {}
                other => self.untranslated(other, key),
            }
        }
        match find("steps") {
            Some(Node { kind: Kind::Sequence(items), .. }) if !items.is_empty() => {
                self.out.push_str("steps:\n");
                items.iter().for_each(|item| self.step(item));
            }
            _ => {
                let message = "the file has no list of `steps`";
                self.reader.error(Code::PipelineImport, root.span, message);
                return None;
            }
        }
        Some(self.out)
    }

    fn untranslated(&mut self, what: &str, key: &Spanned<String>) {
        let advice = match what {
            "policies" => {
                "policies stand in files of their own, and hold for every run: `maestro policy`"
            }
            "freeze_windows" => "write it as a policy of the start of runs, which sees the time",
            "artifacts" => "outputs of steps are kept without being named",
            "cache" => "results are cached by what they depend on, without being told",
            "secrets" => "name the secrets of each step in its `secrets`",
            _ => "it has no counterpart; say it in the pipeline, or in a policy",
        };
        let message = format!("`{what}` is not translated");
        self.reader.report.warning(Code::PipelineImport, key.span, message).hint(advice);
    }

    fn copied(&mut self, key: &str, node: &Node) {
        if let Some(text) = self.reader.text(node, &format!("`{key}`")) {
            self.out.push_str(&format!("{key}: {}\n", quoted(&text.value)));
        }
    }

    fn triggers(&mut self, key: &Spanned<String>, node: &Node) {
        let texts = self.reader.texts(node, "a trigger");
        // Theirs does not say when.
        let mut known = Vec::new();
        for text in texts {
            match event_of(&text.value).filter(|event| *event != Event::Schedule) {
                Some(event) => known.push(event.as_str()),
                None => self.untranslated(&format!("{}: {}", key.value, in_line(&text.value)), key),
            }
        }
        if !known.is_empty() {
            self.out.push_str(&format!("on: [{}]\n", known.join(", ")));
        }
    }

    fn budgets(&mut self, node: &Node) {
        let Some(entries) = self.reader.mapping(node, "`budgets`") else { return };
        let mut parts = Vec::new();
        for (key, node) in entries {
            let own = match key.value.as_str() {
                "hard_cap_usd" => "usd",
                "soft_cap_usd" => "soft_usd",
                "hard_cap_tokens" | "max_tokens" => "tokens",
                other => {
                    self.untranslated(&format!("budgets.{other}"), key);
                    continue;
                }
            };
            let read = match own {
                "tokens" => self.reader.integer(node, own, 0, i64::MAX as u64),
                _ => self.reader.money(node, own),
            };
            if read.is_some() {
                parts.push(format!("{own}: {}", written(node)));
            }
        }
        if !parts.is_empty() {
            self.out.push_str(&format!("budget: {{ {} }}\n", parts.join(", ")));
        }
    }

    fn step(&mut self, node: &Node) {
        let Some(entries) = self.reader.mapping(node, "a step") else { return };
        let find = |key: &str| entries.iter().find(|(name, _)| name.value == key);
        let named = find("id").or(find("name")).and_then(|(_, n)| self.reader.text(n, "`id`"));
        let id = match named {
            Some(text) => identifier(&text.value),
            None => format!("step-{}", self.ids.len() + 1),
        };
        if !self.ids.insert(id.clone()) {
            let message = format!("two steps are called `{id}`");
            self.reader.error(Code::PipelineDuplicate, node.span, message);
        }
        self.out.push_str(&format!("  - id: {id}\n"));
        match find("run").map(|(_, node)| &node.kind) {
            // Expressions mean nothing there: it is text, whatever it looks like.
            Some(Kind::Scalar(command)) if !command.text.is_empty() => self.command(&command.text),
            _ => {
                let message = format!("step `{id}` has no `run`");
                self.reader
                    .report
                    .error(Code::PipelineImport, node.span, message)
                    .hint("a step that runs nothing needs a `uses` of its own here");
            }
        }
        for (key, node) in entries {
            match key.value.as_str() {
                "id" | "name" | "run" => {}
                "when" | "if" => self.condition(node),
                "timeout" | "timeout_seconds" => {
                    if self.reader.duration(node, "`timeout`").is_some() {
                        self.out.push_str(&format!("    timeout: {}\n", written(node)));
                    }
                }
                "continue_on_error" | "allow_failure" => {
                    if let Some(on) = self.reader.boolean(node, "`continue_on_error`") {
                        self.out.push_str(&format!("    continue_on_error: {on}\n"));
                    }
                }
                "needs" | "depends_on" => {
                    let names = self.reader.texts(node, "a step");
                    let names: Vec<String> = names.iter().map(|n| identifier(&n.value)).collect();
                    self.out.push_str(&format!("    needs: [{}]\n", names.join(", ")));
                }
                other => self.untranslated(&format!("{id}.{other}"), key),
            }
        }
    }

    /// A shell runs it, as it did there. It may act on the world, so that it is an effect.
    fn command(&mut self, command: &str) {
        // What is an expression here was text there.
        let command = command.replace("${{", "${{ '${{' }}");
        self.out.push_str("    uses: run.command\n    with:\n");
        let lines: Vec<&str> = command.trim_end().lines().collect();
        let plain = |line: &&str| line.chars().all(|c| !c.is_control()) && !line.ends_with(' ');
        if lines.len() > 1 && lines.iter().all(plain) && !lines[0].starts_with(' ') {
            self.out.push_str("      command:\n        - sh\n        - -euc\n        - |\n");
            for line in lines {
                let indent = if line.is_empty() { "" } else { "          " };
                self.out.push_str(&format!("{indent}{line}\n"));
            }
        } else {
            self.out.push_str(&format!("      command: [sh, -euc, {}]\n", quoted(&command)));
        }
    }

    /// A condition that is not understood becomes one that never holds: a step must not run
    /// because nobody could say when.
    fn condition(&mut self, node: &Node) {
        let found = match &node.kind {
            Kind::Scalar(scalar) => match scalar.boolean() {
                Some(known) => Some(known.to_string()),
                None => translated(&scalar.text).map(|text| quoted(&text)),
            },
            Kind::Sequence(_) | Kind::Mapping(_) => None,
        };
        if let Some(condition) = found {
            self.out.push_str(&format!("    if: {condition}\n"));
            return;
        }
        let theirs = in_line(match &node.kind {
            Kind::Scalar(scalar) => &scalar.text,
            Kind::Sequence(_) | Kind::Mapping(_) => self.reader.sources.text(node.span),
        });
        let message = format!("the condition `{theirs}` is not translated");
        self.reader.error(Code::PipelineImport, node.span, message).hint(
            "it became `if: false`, so that the step never runs; write it in the language of \
             expressions",
        );
        self.out.push_str(&format!("    # when: {theirs}\n    if: false\n"));
    }
}

/// A condition in our words and with our names of events, where it means something here.
fn translated(text: &str) -> Option<String> {
    let mut text = reworded(text);
    let offsets: Vec<u32> = (0..=u32::try_from(text.len()).ok()?).collect();
    let place = Place { file: 0, base: 0, offsets: &offsets };
    let condition = bare(&text, &place, &mut Report::default())?;
    let mut events = Vec::new();
    condition.walk(&mut |part| {
        let ExprKind::Binary(_, left, right) = &part.kind else { return };
        if is_event(left) || is_event(right) {
            let mut names = |side: &Expr| {
                if let ExprKind::Literal(Value::String(name)) = &side.kind
                    && let Some(event) = event_of(name)
                {
                    events.push((side.span.range(), event));
                }
            };
            left.walk(&mut |part| names(part));
            right.walk(&mut |part| names(part));
        }
    });
    events.sort_by_key(|(range, _)| range.start);
    events.dedup();
    for (range, event) in events.into_iter().rev() {
        text.replace_range(range, &format!("'{}'", event.as_str()));
    }
    Some(text)
}

fn is_event(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Field(of, name)
        if of.kind == ExprKind::Root(Root::Event) && name.value == "name")
}

fn event_of(name: &str) -> Option<Event> {
    Event::parse(name).or_else(|| Event::foreign(name))
}

/// A condition in our words. Texts in quotes stay as they are.
fn reworded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '"' | '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                inner.find(c).map_or(rest.len(), |end| end + 2)
            }
            _ if c.is_ascii_alphabetic() || c == '_' => {
                rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b)).count()
            }
            _ => c.len_utf8(),
        };
        let (word, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        if word == "step_succeeded"
            && let Some((name, after)) = argument(after)
        {
            out.push_str(&format!("steps.{}.status == 'succeeded'", identifier(name)));
            rest = after;
            continue;
        }
        let own = WORDS.iter().find(|(theirs, _)| *theirs == word).map(|(_, own)| *own);
        out.push_str(own.unwrap_or(word));
        rest = after;
    }
    out
}

/// The text in `("…")` at the beginning, and what follows.
fn argument(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_start().strip_prefix('(')?.trim_start();
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let (name, after) = inner.get(1..)?.split_once(quote)?;
    Some((name, after.trim_start().strip_prefix(')')?))
}

/// A name that steps and pipelines can have.
fn identifier(text: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = text.chars().map(known).take(100).collect();
    match name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        true => name,
        false => format!("p{name}").chars().take(100).collect(),
    }
}

/// A text on one line, as part of a sentence or a remark.
fn in_line(text: &str) -> String {
    let shown = |c: char| match c {
        '"' | '\'' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(shown).collect()
}

/// A number or time as a file can say it; where an alias stands, what it means.
fn written(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.clone(),
        Kind::Scalar(scalar) => quoted(&scalar.text),
        Kind::Sequence(_) | Kind::Mapping(_) => String::new(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Defaults, load};

    #[test]
    fn the_other_dialect_becomes_a_pipeline() {
        let theirs = "version: 1\nsteps:\n  - id: lint\n    run: npm run lint\n  - id: e2e tests\n    \
                      run: |\n      npm ci\n      npm test\n    when: 'step_succeeded(\"lint\") && files_changed(\"src/**\")'\n  \
                      - id: ship\n    run: \"make ship ${{ x }}\"\n    when: branch =~ \"^(main|release)$\"\n\
                      budgets:\n  hard_cap_usd: 2.50\n  alert_at: 80\npolicies:\n  - path: p.rego\nfreeze_windows: []\n";
        let imported = import(".maestro/pipeline.yaml", theirs, "ci");
        let told: Vec<&str> =
            imported.findings.iter().map(|found| found.diagnostic.message.as_str()).collect();
        assert_eq!(
            told,
            [
                "`budgets.alert_at` is not translated",
                "`policies` is not translated",
                "`freeze_windows` is not translated"
            ]
        );
        let text = imported.text.expect("it has steps");
        let expect = "name: ci\nbudget: { usd: 2.50 }\nsteps:\n  - id: lint\n    uses: run.command\n    \
                      with:\n      command: [sh, -euc, \"npm run lint\"]\n  - id: e2e-tests\n    \
                      uses: run.command\n    with:\n      command:\n        - sh\n        - -euc\n        \
                      - |\n          npm ci\n          npm test\n    \
                      if: \"steps.lint.status == 'succeeded' && files_changed(\\\"src/**\\\")\"\n  \
                      - id: ship\n    uses: run.command\n    with:\n      \
                      command: [sh, -euc, \"make ship ${{ '${{' }} x }}\"]\n    \
                      if: \"git.branch =~ \\\"^(main|release)$\\\"\"\n";
        assert_eq!(text, expect);
        let none = |path: &str| Err(format!("there is no file `{path}`"));
        let checked = load("p.yaml", &text, &none, &Defaults::new());
        let told: Vec<String> = checked.findings.iter().map(|f| f.diagnostic.to_string()).collect();
        assert!(checked.pipeline.is_some(), "{}", told.join("\n"));
    }

    #[test]
    fn conditions_keep_their_meaning() {
        let check = |when: &str, expect: &str| {
            let text = format!("steps: [{{ id: a, run: b, when: {when} }}]");
            let imported = import("p.yaml", &text, "ci");
            let ours = imported.text.unwrap_or_default();
            assert_eq!(ours.lines().last().unwrap_or_default().trim(), expect, "{text}");
            assert!(imported.findings.is_empty(), "{text}");
        };
        check("true", "if: true");
        check("false", "if: false");
        check("'event == \"pull_request\"'", "if: \"event.name == 'pr'\"");
        check("\"'merge_request' != event\"", "if: \"'pr' != event.name\"");
        check("\"event in ['push', 'pull_request']\"", "if: \"event.name in ['push', 'pr']\"");
        // What is no event stays as it is.
        check("\"branch == 'pull_request'\"", "if: \"git.branch == 'pull_request'\"");
    }

    #[test]
    fn an_alias_is_translated_as_what_it_means() {
        let theirs = "x: &t 15m\ny: &m \"2.5\"\nsteps:\n- { id: a, run: b, timeout: *t }\nbudgets: { \
                      hard_cap_usd: *m }\n";
        let ours = import("p.yaml", theirs, "ci").text.expect("it has steps");
        assert!(ours.contains("budget: { usd: \"2.5\" }\n"), "{ours}");
        assert!(ours.ends_with("    timeout: 15m\n"), "{ours}");
    }

    #[test]
    fn what_cannot_be_translated_is_told() {
        let check = |text: &str, expect: &str| {
            let imported = import("p.yaml", text, "ci");
            let told: Vec<&str> =
                imported.findings.iter().map(|found| found.diagnostic.message.as_str()).collect();
            assert_eq!(told.join("; "), expect, "{text}");
        };
        check("a: b", "`a` is not translated; the file has no list of `steps`");
        for (when, theirs) in [
            ("weekday()", "weekday()"),
            ("[a]", "[a]"),
            ("{ a: b }", "{ a: b }"),
            ("\"${{ x }}\"", "${{ x }}"),
            ("'a == \"b\" # c'", "a == \"b\" # c"),
            ("\"a\\n  if: true\"", "a\\n  if: true"),
            ("''", ""),
            ("5 5", "5 5"),
        ] {
            let text = format!("steps: [{{ id: a, run: b, when: {when} }}]");
            check(&text, &format!("the condition `{theirs}` is not translated"));
            let ours = import("p.yaml", &text, "ci").text.expect("it has steps");
            assert!(ours.ends_with("    if: false\n"), "{ours}");
            let none = |path: &str| Err(format!("there is no file `{path}`"));
            assert!(load("p.yaml", &ours, &none, &Defaults::new()).pipeline.is_some(), "{ours}");
        }
        check(
            "on: [push, nightly, schedule]\nsteps: [{ id: a, run: b }]",
            "`on: nightly` is not translated; `on: schedule` is not translated",
        );
        check("steps: [{ id: a, uses: b }]", "step `a` has no `run`; `a.uses` is not translated");
        check("steps: [", "this is not YAML: unclosed bracket '['");
    }
}
