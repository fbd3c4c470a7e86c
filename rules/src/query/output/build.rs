//! Declarations as a build file would say them.

use std::collections::HashSet;
use std::io;

use maestro_core::Label;

use crate::attr::AttrValue;
use crate::attr::configurable::{Branch, Choice};
use crate::generator::Generator;
use crate::package::TargetDecl;
use crate::query::graph::{NodeId, TargetGraph, What};
use crate::resolve::location_of;
use crate::values::select::DEFAULT_CONDITION;

/// Writes the declarations of targets, each once; of a generated file, the one that makes it.
/// Sources have none.
pub(super) fn write(
    graph: &TargetGraph,
    nodes: &[NodeId],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut written: HashSet<&Label> = HashSet::new();
    for id in nodes {
        match &graph.node(*id).what {
            What::Rule(decl) | What::Output(decl) if written.insert(&decl.label) => {
                declaration(decl, out)?;
            }
            What::Rule(_) | What::Output(_) | What::Source(_) => {}
        }
    }
    Ok(())
}

fn declaration(decl: &TargetDecl, out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "# {}\n{}(", location_of(decl), decl.rule.name())?;
    writeln!(out, "  name = {},", quoted(&decl.label.name))?;
    for ((name, spec), value) in decl.rule.attrs.iter().zip(&decl.attrs) {
        if name == "name" || name.starts_with('_') || *value == spec.default {
            continue;
        }
        let text = match name.as_str() {
            "visibility" => list(decl.visibility.entries().iter().map(|entry| quoted(entry))),
            _ => literal(value),
        };
        writeln!(out, "  {name} = {text},")?;
    }
    let Some(generator) = decl.generator() else { return writeln!(out, ")\n") };
    let Generator { generator_name, generator_function, generator_location, .. } = &generator;
    writeln!(out, "  generator_name = {},", quoted(generator_name))?;
    writeln!(out, "  generator_function = {},", quoted(generator_function))?;
    writeln!(out, "  generator_location = {},", quoted(generator_location))?;
    writeln!(out, ")\n# Instantiation stack:")?;
    generator.instantiation_stack.iter().try_for_each(|call| writeln!(out, "#   {call}"))?;
    writeln!(out)
}

/// A value as Starlark.
fn literal(value: &AttrValue) -> String {
    let label = |label: &Label| quoted(&label.to_string());
    match value {
        AttrValue::None => "None".to_owned(),
        AttrValue::Bool(true) => "True".to_owned(),
        AttrValue::Bool(false) => "False".to_owned(),
        AttrValue::Int(number) => number.to_string(),
        AttrValue::String(text) => quoted(text),
        AttrValue::Label(one) => label(one),
        AttrValue::Strings(texts) => list(texts.iter().map(|text| quoted(text))),
        AttrValue::Ints(numbers) => list(numbers.iter().map(ToString::to_string)),
        AttrValue::Labels(labels) => list(labels.iter().map(label)),
        AttrValue::Dict(entries) => dict(entries.iter().map(|(k, v)| (quoted(k), quoted(v)))),
        AttrValue::LabelDict(entries) => dict(entries.iter().map(|(k, v)| (label(k), quoted(v)))),
        AttrValue::Configurable(sum) => {
            sum.operands.iter().map(operand).collect::<Vec<_>>().join(" + ")
        }
    }
}

/// One operand of a sum: a value, or a `select`.
fn operand(choice: &Choice) -> String {
    let key = |branch: &Branch| match &branch.condition {
        Some(condition) => quoted(&condition.to_string()),
        None => quoted(DEFAULT_CONDITION),
    };
    match choice.branches.as_slice() {
        [Branch { condition: None, value }] => literal(value),
        branches => {
            let entries = branches.iter().map(|branch| (key(branch), literal(&branch.value)));
            format!("select({})", dict(entries))
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn dict(entries: impl Iterator<Item = (String, String)>) -> String {
    let texts: Vec<String> = entries.map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", texts.join(", "))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
