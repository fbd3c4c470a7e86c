//! Shows a pipeline to people and tools: what follows what and why, and what was bound.
//!
//! Everything is printed in the order of the file, so that the same pipeline gives the same bytes.

mod svg;

use std::fmt::Write as _;

use serde_json::json;

use super::expression::{ExprKind, Value, named};
use super::template::{ParamKind, Repeat, Step, Uses};
use super::{EdgeKind, Pipeline, StepId};

named! {
    /// A form in which a pipeline is shown.
    GraphForm {
        /// Lines for people.
        Text = "text",
        /// For Graphviz.
        Dot = "dot",
        /// A picture.
        Svg = "svg",
        /// For programs.
        Json = "json",
    }
}

impl Pipeline {
    /// The pipeline in one of the forms.
    pub fn graph(&self, form: GraphForm) -> String {
        match form {
            GraphForm::Text => self.rows(),
            GraphForm::Dot => self.dot(),
            GraphForm::Svg => svg::draw(self),
            GraphForm::Json => format!("{:#}\n", self.to_json()),
        }
    }

    fn name(&self, id: StepId) -> &str {
        self.step(id).map_or("", |step| &step.id.value)
    }

    /// What a step follows, each with the reason.
    fn before(&self, id: StepId) -> impl Iterator<Item = (&str, EdgeKind)> {
        let first = self.edges.partition_point(|edge| edge.to < id);
        let rest = self.edges.get(first..).unwrap_or_default();
        rest.iter()
            .take_while(move |edge| edge.to == id)
            .map(|edge| (self.name(edge.from), edge.kind))
    }

    /// One line for each step: what it follows, and with `*` what it takes something from.
    fn rows(&self) -> String {
        let width = self.steps().iter().map(|step| step.id.value.chars().count()).max();
        let width = width.unwrap_or(0);
        let mut out = String::new();
        for (at, step) in self.steps().iter().enumerate() {
            let before = self.before(StepId::new(at)).map(|(name, kind)| match kind {
                EdgeKind::Data => format!("{name}*"),
                _ => name.to_owned(),
            });
            let before = before.collect::<Vec<_>>().join(", ");
            let row = format!(
                "{:<width$}  {}{before}",
                step.id.value,
                if before.is_empty() { "" } else { "<- " }
            );
            let _ = writeln!(out, "{}", row.trim_end());
        }
        out
    }

    /// What the pipeline does, step by step, with the reason of each place.
    pub fn overview(&self) -> String {
        let mut out = String::new();
        let template = &self.template;
        let _ = writeln!(out, "pipeline {}", template.name.value);
        if !template.triggers.is_empty() {
            let events: Vec<&str> = template.triggers.iter().map(|t| t.event.as_str()).collect();
            let _ = writeln!(out, "  on {}", events.join(", "));
        }
        for param in &template.params {
            let default = match &param.default {
                Some(value) => format!(", {value} where nothing is given"),
                None => ", must be given".to_owned(),
            };
            let _ =
                writeln!(out, "  param {}: {}{default}", param.name.value, kind_of(&param.kind));
        }
        for (at, step) in self.steps().iter().enumerate() {
            self.step_lines(StepId::new(at), step, &mut out);
        }
        out
    }

    fn step_lines(&self, id: StepId, step: &Step, out: &mut String) {
        let _ = writeln!(out, "\n{}  {} ({})", step.id.value, step.uses.name(), class_of(step));
        for (name, kind) in self.before(id) {
            let why = match kind {
                EdgeKind::Data => "takes from it",
                EdgeKind::Needs => "needs it",
                EdgeKind::Sequence => "stands below it",
                EdgeKind::Effect => "is an effect below it",
            };
            let _ = writeln!(out, "  after {name}: {why}");
        }
        for bound in self.bindings.iter().filter(|bound| bound.step == id) {
            let (maker, output) = (self.name(bound.maker), bound.output);
            let _ = writeln!(out, "  {} = steps.{maker}.outputs.{output}, bound", bound.field);
        }
        for missing in self.missing.iter().filter(|missing| missing.step == step.id.value) {
            let _ = writeln!(
                out,
                "  {} is not said; `{}` of the defaults would",
                missing.field, missing.key
            );
        }
        match &step.repeat {
            Repeat::Once => {}
            Repeat::Each { max, parallel, .. } => {
                let _ = writeln!(out, "  for each item, up to {max}, {parallel} at once");
            }
            Repeat::Matrix { axes, parallel, .. } => {
                let names: Vec<&str> = axes.iter().map(|(name, _)| name.value.as_str()).collect();
                let _ = writeln!(out, "  for each of {}, {parallel} at once", names.join(" × "));
            }
            Repeat::Until { max, .. } => {
                let _ = writeln!(out, "  until it holds, up to {max} rounds");
            }
        }
        if let Some(approval) = &step.approval {
            let roles: Vec<&str> = approval.roles.iter().map(|role| role.value.as_str()).collect();
            let of =
                if roles.is_empty() { String::new() } else { format!(" of {}", roles.join(", ")) };
            let _ = writeln!(out, "  waits for {} to approve{of}", approval.count);
        }
    }

    fn dot(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let mut out =
            format!("digraph \"{}\" {{\n  node [shape=box];\n", quoted(&self.template.name.value));
        for step in self.steps() {
            let shape = if step.uses.is_effect() { ", peripheries=2" } else { "" };
            let (id, uses) = (quoted(&step.id.value), quoted(&step.uses.name()));
            let _ = writeln!(out, "  \"{id}\" [label=\"{id}\\n{uses}\"{shape}];");
        }
        for edge in &self.edges {
            let style = if edge.kind == EdgeKind::Data { "solid" } else { "dashed" };
            let (from, to) = (quoted(self.name(edge.from)), quoted(self.name(edge.to)));
            let _ = writeln!(out, "  \"{from}\" -> \"{to}\" [style={style}];");
        }
        out.push_str("}\n");
        out
    }

    /// The pipeline as JSON: steps, edges, bindings, and what is missing.
    pub fn to_json(&self) -> Value {
        let steps = self.steps().iter().map(|step| {
            json!({
                "id": step.id.value,
                "uses": step.uses.name(),
                "class": class_of(step),
                "repeat": repeat_of(step),
                "approval": step.approval.as_ref().map(|approval| approval.count),
            })
        });
        let edges = self.edges.iter().map(|edge| {
            json!({"from": self.name(edge.from), "to": self.name(edge.to), "kind": edge.kind.as_str()})
        });
        let bindings = self.bindings.iter().map(|bound| {
            json!({
                "step": self.name(bound.step),
                "field": bound.field,
                "maker": self.name(bound.maker),
                "output": bound.output,
            })
        });
        let missing = self
            .missing
            .iter()
            .map(|one| json!({"step": one.step, "field": one.field, "default": one.key}));
        let params = self.template.params.iter().map(|param| {
            json!({
                "name": param.name.value,
                "type": kind_of(&param.kind),
                "default": param.default,
                "description": param.description,
            })
        });
        json!({
            "name": self.template.name.value,
            "description": self.template.description,
            "on": self.template.triggers.iter().map(|t| t.event.as_str()).collect::<Vec<_>>(),
            "params": params.collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "edges": edges.collect::<Vec<_>>(),
            "bindings": bindings.collect::<Vec<_>>(),
            "missing": missing.collect::<Vec<_>>(),
        })
    }
}

fn class_of(step: &Step) -> &'static str {
    match &step.uses {
        Uses::Step(definition) => class_name(definition.class),
        Uses::Target(_) => "target",
    }
}

/// How a class is called.
pub(crate) fn class_name(class: maestro_core::ActionClass) -> &'static str {
    match class {
        maestro_core::ActionClass::Pure => "pure",
        maestro_core::ActionClass::Recorded => "recorded",
        maestro_core::ActionClass::Effect => "effect",
    }
}

fn repeat_of(step: &Step) -> Value {
    match &step.repeat {
        Repeat::Once => Value::Null,
        Repeat::Each { items, max, parallel } => {
            let known = match &items.kind {
                ExprKind::List(items) => Some(items.len()),
                _ => None,
            };
            json!({"kind": "foreach", "max": max, "parallel": parallel, "items": known})
        }
        Repeat::Matrix { axes, parallel, .. } => {
            let names: Vec<&str> = axes.iter().map(|(name, _)| name.value.as_str()).collect();
            json!({"kind": "matrix", "axes": names, "parallel": parallel})
        }
        Repeat::Until { max, delay_ms, .. } => {
            json!({"kind": "until", "max": max, "delay_ms": delay_ms})
        }
    }
}

fn kind_of(kind: &ParamKind) -> String {
    match kind {
        ParamKind::String { choices, .. } if !choices.is_empty() => {
            format!("one of {}", choices.join(", "))
        }
        ParamKind::String { .. } => "string".to_owned(),
        ParamKind::Int { .. } => "int".to_owned(),
        ParamKind::Bool => "bool".to_owned(),
        ParamKind::List { item, .. } => format!("list of {}", kind_of(item)),
        ParamKind::Secret => "secret".to_owned(),
    }
}
