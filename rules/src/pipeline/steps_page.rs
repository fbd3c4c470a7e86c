//! The reference of steps as a page, made from their definitions.

use std::fmt::Write as _;

use super::definitions::{ALL, Artifact, FieldDefinition, FieldRule, Presence, StepDefinition};
use super::show::class_name;

/// The page, as Markdown.
pub fn steps_page() -> String {
    let mut out =
        "# Steps\n\nEvery kind of step that `uses` can name, with what `with` may hold.\n\
                   Made from `rules/src/pipeline/definitions/` by `cargo xtask bless`.\n\
                   [Pipelines](pipelines.md) says what all steps have in common.\n\n\
                   | step | class | what it does |\n|---|---|---|\n"
            .to_owned();
    for step in ALL.iter() {
        let anchor = step.name.replace('.', "");
        let class = class_name(step.class);
        let _ = writeln!(out, "| [`{}`](#{anchor}) | {class} | {} |", step.name, step.about);
    }
    for step in ALL.iter() {
        section(step, &mut out);
    }
    out
}

fn section(step: &StepDefinition, out: &mut String) {
    let _ = write!(out, "\n## {}\n\n{}\n", step.name, step.about);
    let _ = write!(out, "Class: {}.", class_name(step.class));
    if let Some(far) = step.far_side {
        let _ = write!(out, " The far side is {}.", far.as_str());
    }
    out.push_str("\n\n| field | value | left out | meaning |\n|---|---|---|---|\n");
    for field in step.fields {
        let (value, absent) = (cell(&field.kind.describe()), cell(&absent(field)));
        let _ = writeln!(out, "| `{}` | {value} | {absent} | {} |", field.name, cell(field.about));
    }
    for rule in step.rules {
        let _ = write!(out, "\n{}\n", sentence(rule));
    }
    out.push_str("\n| output | value | meaning |\n|---|---|---|\n");
    for output in step.outputs {
        let mut value = output.kind.describe();
        if let Some(artifact) = output.artifact {
            let _ = write!(value, "; artifact: {}", artifact.as_str());
        }
        let _ = writeln!(out, "| `{}` | {} | {} |", output.name, cell(&value), cell(output.about));
    }
}

/// What a rule between fields says.
fn sentence(rule: &FieldRule) -> String {
    let names = |names: &[&str]| {
        names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
    };
    let when = rule.when.iter().map(|(field, values)| {
        let values = values.iter().map(|value| format!("`{}`", value.trim_matches('"')));
        format!("`{field}` is {}", values.collect::<Vec<_>>().join(" or "))
    });
    let when = when.collect::<Vec<_>>().join(" and ");
    let mut says = Vec::new();
    if !rule.needs.is_empty() {
        says.push(format!("{} must be there", names(rule.needs)));
    }
    if !rule.excludes.is_empty() {
        says.push(format!("{} must not", names(rule.excludes)));
    }
    format!("Where {when}, {}.", says.join(", and "))
}

/// What holds where a field is left out.
fn absent(field: &FieldDefinition) -> String {
    let kinds = |kinds: &[Artifact]| {
        kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ")
    };
    match field.presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => String::new(),
        Presence::Default(json) => format!("`{json}`"),
        Presence::Project(key) => format!("`{key}` of the project's defaults"),
        Presence::ProjectIfAny(key) => format!("`{key}` of the project's defaults, if it is there"),
        Presence::Bound(of) => format!("the nearest {} above", kinds(of)),
        Presence::BoundIfAny(of) => format!("the nearest {} above, if there is one", kinds(of)),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
