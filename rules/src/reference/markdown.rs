//! References as Markdown.

use std::fmt::Write as _;

use super::{AspectReference, Attribute, FileReference, Function, Provider, RuleReference};

impl FileReference {
    /// The page of a file.
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# `{}`\n", self.file);
        paragraph(&mut out, &self.doc);
        for rule in &self.rules {
            rule_section(&mut out, rule);
        }
        for of in &self.macros {
            let _ = write!(out, "\n## `{}`\n", of.name);
            paragraph(&mut out, &of.doc);
            paragraph(&mut out, "A macro: it declares targets that are named after its `name`.");
            attribute_table(&mut out, &of.attributes);
        }
        for aspect in &self.aspects {
            aspect_section(&mut out, aspect);
        }
        for provider in &self.providers {
            provider_section(&mut out, provider);
        }
        for function in &self.functions {
            function_section(&mut out, "##", function);
        }
        out
    }
}

/// Begins a section of the language: fields and, after it, functions.
pub(super) fn section(out: &mut String, name: &str, doc: &str, fields: &[(String, String)]) {
    let _ = write!(out, "\n## {name}\n");
    paragraph(out, doc);
    if !fields.is_empty() {
        out.push_str("\n| field | meaning |\n|---|---|\n");
    }
    for (name, doc) in fields {
        let _ = writeln!(out, "| `{name}` | {} |", cell(doc));
    }
}

fn paragraph(out: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, "\n{text}\n");
    }
}

fn rule_section(out: &mut String, rule: &RuleReference) {
    let _ = write!(out, "\n## `{}`\n", rule.name);
    if let Some(other) = &rule.alias_of {
        let _ = write!(out, "\nAnother name of `{other}`.\n");
        return;
    }
    paragraph(out, &rule.doc);
    let kind = match (rule.test, rule.executable) {
        (true, _) => "A test: it has `args`, `env`, `size` and `timeout`, too.",
        (false, true) => "A program: it has `args` and `env`, too.",
        (false, false) => "",
    };
    paragraph(out, kind);
    if !rule.provides.is_empty() {
        let _ = write!(out, "\nProvides {}.\n", codes(&rule.provides));
    }
    attribute_table(out, &rule.attributes);
}

fn aspect_section(out: &mut String, aspect: &AspectReference) {
    let _ = write!(out, "\n## `{}`\n", aspect.name);
    paragraph(out, &aspect.doc);
    let way = match aspect.attr_aspects.is_empty() {
        true => "An aspect on single targets.".to_owned(),
        false => format!("An aspect along {}.", codes(&aspect.attr_aspects)),
    };
    paragraph(out, &way);
    if !aspect.provides.is_empty() {
        let _ = write!(out, "\nProvides {}.\n", codes(&aspect.provides));
    }
    attribute_table(out, &aspect.attributes);
}

fn attribute_table(out: &mut String, attributes: &[Attribute]) {
    if attributes.is_empty() {
        return;
    }
    out.push_str("\n| attribute | type | default | meaning |\n|---|---|---|---|\n");
    for attribute in attributes {
        let default = match &attribute.default {
            Some(default) => format!("`{}`", cell(default)),
            None => "mandatory".to_owned(),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            attribute.name,
            attribute.kind,
            meaning(attribute)
        );
    }
}

fn meaning(attribute: &Attribute) -> String {
    let mut parts = vec![cell(&attribute.doc)];
    if !attribute.values.is_empty() {
        parts.push(format!("One of {}.", codes(&attribute.values)));
    }
    let any = attribute.files.first().is_some_and(|first| first == "any");
    if !attribute.files.is_empty() && !any {
        parts.push(format!("Files: {}.", codes(&attribute.files)));
    }
    if any {
        parts.push("Any file.".to_owned());
    }
    if attribute.single_file {
        parts.push("Exactly one file.".to_owned());
    }
    if attribute.executable {
        parts.push("A program.".to_owned());
    }
    let providers: Vec<String> = attribute.providers.iter().map(|list| codes(list)).collect();
    if !providers.is_empty() {
        parts.push(format!("Targets with {}.", providers.join(" or with ")));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn provider_section(out: &mut String, provider: &Provider) {
    let _ = write!(out, "\n## `{}`\n", provider.name);
    paragraph(out, &provider.doc);
    if !provider.fields.is_empty() {
        out.push_str("\n| field | meaning |\n|---|---|\n");
    }
    for field in &provider.fields {
        let _ = writeln!(out, "| `{}` | {} |", field.name, cell(&field.doc));
    }
}

/// A function, with a heading of that level.
pub(super) fn function_section(out: &mut String, level: &str, function: &Function) {
    let signature: Vec<String> = function
        .parameters
        .iter()
        .map(|parameter| match &parameter.default {
            Some(default) => format!("{} = {default}", parameter.name),
            None => parameter.name.clone(),
        })
        .collect();
    let _ = write!(out, "\n{level} `{}({})`\n", function.name, signature.join(", "));
    paragraph(out, &function.doc);
    let documented: Vec<_> = function.parameters.iter().filter(|p| !p.doc.is_empty()).collect();
    if !documented.is_empty() {
        out.push_str("\n| parameter | meaning |\n|---|---|\n");
    }
    for parameter in documented {
        let _ = writeln!(out, "| `{}` | {} |", parameter.name, cell(&parameter.doc));
    }
}

fn codes(names: &[String]) -> String {
    names.iter().map(|name| format!("`{}`", cell(name))).collect::<Vec<_>>().join(", ")
}

/// A text that stands in a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
