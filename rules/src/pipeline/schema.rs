//! The JSON Schema of pipelines, for editors, made from the definitions of steps.
//!
//! Editors complete and check with it while somebody types; lint knows more: names, types of
//! expressions, order. Wherever a value may be an expression the schema takes a text with `${{`.

use serde_json::{Value, json};

use super::definitions::{ALL, FieldDefinition, FieldKind, Presence, StepDefinition};
use super::read::{OUTPUT_TYPES, STEP_KEYS, TEMPLATE_KEYS};
use super::template::{Event, FailureClass};

/// The schema, as text.
pub fn schema() -> String {
    let root = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",

        "title": "Maestro pipeline",
        "type": "object",
        "required": ["name", "steps"],
        "additionalProperties": false,
        "properties": object(TEMPLATE_KEYS.iter().map(|key| (*key, template_key(key)))),
        "$defs": definitions(),
    });
    format!("{root:#}\n")
}

fn object(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn described(mut schema: Value, about: &str) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), about.into());
    }
    schema
}

fn one_or_list(item: Value) -> Value {
    json!({"anyOf": [item, {"type": "array", "items": item}]})
}

fn template_key(key: &str) -> Value {
    match key {
        "name" => described(reference("name"), "The name of the pipeline."),
        "description" => described(json!({"type": "string"}), "What it is for."),
        "on" => described(reference("triggers"), "What begins a run."),
        "params" => described(reference("params"), "What a run can be given."),
        "env" => described(reference("texts"), "Environment of every step."),
        "steps" => described(
            json!({"type": "array", "minItems": 1, "items": reference("step")}),
            "The steps, in order.",
        ),
        "outputs" => {
            described(reference("texts"), "What a pipeline that includes this one can take.")
        }
        other => step_key(other),
    }
}

fn step_key(key: &str) -> Value {
    let (schema, about) = match key {
        "id" => (reference("name"), "The name of the step."),
        "uses" => (reference("uses"), "A kind of step, or the label of a target."),
        "include" => (json!({"type": "string"}), "Another pipeline, by its path in the workspace."),
        "description" => (json!({"type": "string"}), "What it is for."),
        "with" => (json!({"type": "object"}), "What the step is given."),
        "needs" => (
            one_or_list(json!({"type": "string"})),
            "Steps that come first; nothing else does then.",
        ),
        "if" => (json!({"type": ["string", "boolean"]}), "When the step runs; else it is skipped."),
        "foreach" => (
            json!({"anyOf": [{"type": "array"}, reference("expression")]}),
            "A list; the step runs for each `item` of it.",
        ),
        "until" => (json!({"type": ["string", "boolean"]}), "Runs again until this holds."),
        "matrix" => {
            (json!({"type": "object"}), "Lists by names; the step runs for each combination.")
        }
        "max" => (json!({"type": "integer", "minimum": 1}), "The most items or rounds."),
        "parallel" => (json!({"type": "integer", "minimum": 1}), "How many instances run at once."),
        "delay" => (reference("duration"), "The time between rounds."),
        "timeout" => (reference("duration"), "How long it may take."),
        "retry" => (reference("retry"), "What happens after a failure."),
        "budget" => (reference("budget"), "What it may spend."),
        "continue_on_error" => {
            (json!({"type": "boolean"}), "Whether the run goes on after its failure.")
        }
        "concurrency" => (reference("concurrency"), "What must not run beside it."),
        "outputs" => (reference("outputs"), "Further outputs, by their paths in the result."),
        "env" => (reference("texts"), "Its environment."),
        "secrets" => (
            json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, reference("texts")]}),
            "Secrets that it sees.",
        ),
        "egress" => (one_or_list(json!({"type": "string"})), "Hosts that it may talk to."),
        "resources" => (reference("resources"), "What it takes of a machine."),
        "approval" => (reference("approval"), "Who must agree before it begins."),
        "on_failure" => (reference("handlers"), "Steps that run where it failed."),
        "on_cancel" => (reference("handlers"), "Steps that run where it was cancelled."),
        _ => (json!({}), ""),
    };
    described(schema, about)
}

fn definitions() -> Value {
    let names: Vec<&str> = ALL.iter().map(|step| step.name).collect();
    let scalars = [
        (
            "name",
            json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$", "maxLength": 100}),
        ),
        ("expression", json!({"type": "string", "pattern": "\\$\\{\\{"})),
        (
            "duration",
            json!({"anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+$|^([0-9]+(ms|s|m|min|h|d))+$"},
            ]}),
        ),
        ("money", json!({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]})),
        (
            "texts",
            json!({
                "type": "object",
                "additionalProperties": {"type": ["string", "number", "boolean"]},
            }),
        ),
        ("uses", json!({"anyOf": [{"enum": names}, {"type": "string", "pattern": "^(//|:|@)"}]})),
    ];
    let wholes = [
        ("triggers", triggers()),
        ("params", params()),
        ("outputs", outputs()),
        ("handlers", json!({"type": "array", "items": reference("step")})),
        ("step", step()),
    ];
    object(scalars.into_iter().chain(settings()).chain(wholes))
}

/// What surrounds a step.
fn settings() -> [(&'static str, Value); 5] {
    let classes: Vec<&str> = FailureClass::ALL.iter().map(|class| class.as_str()).collect();
    let count = || json!({"type": "integer", "minimum": 0});
    let retry = json!({
        "max": {"type": "integer", "minimum": 0, "maximum": 100},
        "on": one_or_list(json!({"enum": classes})),
        "backoff": reference("duration"),
        "backoff_max": reference("duration"),
        "jitter": {"type": "boolean"},
    });
    let budget = json!({
        "usd": reference("money"),
        "tokens": count(),
        "soft_usd": reference("money"),
        "soft_tokens": count(),
    });
    let concurrency = json!({
        "group": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1},
        "cancel_running": {"type": "boolean"},
    });
    let resources = json!({
        "cpu": {"type": "number", "exclusiveMinimum": 0},
        "memory": {"type": ["string", "integer"]},
        "disk": {"type": ["string", "integer"]},
        "gpus": count(),
    });
    let approval = json!({
        "count": {"type": "integer", "minimum": 1, "maximum": 100},
        "roles": one_or_list(json!({"type": "string"})),
        "expires": reference("duration"),
    });
    [
        ("retry", closed(retry, &["max"], Some(count()))),
        ("budget", closed(budget, &[], Some(reference("money")))),
        ("concurrency", closed(concurrency, &["group"], Some(json!({"type": "string"})))),
        ("resources", closed(resources, &[], None)),
        ("approval", closed(approval, &[], Some(json!({"type": ["integer", "boolean"]})))),
    ]
}

fn outputs() -> Value {
    let path = json!({"type": "string", "pattern": "^\\$"});
    let long = json!({"path": path, "type": {"enum": OUTPUT_TYPES}});
    json!({"type": "object", "additionalProperties": closed(long, &["path"], Some(path))})
}

/// A mapping with these keys only, or a short form.
fn closed(properties: Value, required: &[&str], short: Option<Value>) -> Value {
    let long = json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    });
    match short {
        Some(short) => json!({"anyOf": [short, long]}),
        None => long,
    }
}

fn triggers() -> Value {
    let events: Vec<&str> = Event::ALL.iter().map(|event| event.as_str()).collect();
    let filter = json!({"anyOf": [{"type": "null"}, closed(json!({
        "branches": one_or_list(json!({"type": "string"})),
        "tags": one_or_list(json!({"type": "string"})),
        "paths": one_or_list(json!({"type": "string"})),
        "cron": {"type": "string"},
    }), &[], None)]});
    json!({"anyOf": [
        {"enum": events},
        {"type": "array", "items": {"enum": events}},
        {
            "type": "object",
            "additionalProperties": false,
            "properties": object(events.iter().map(|event| (*event, filter.clone()))),
        },
    ]})
}

fn params() -> Value {
    let param = closed(
        json!({
            "type": {"enum": ["string", "int", "bool", "enum", "list", "secret"]},
            "default": {},
            "description": {"type": "string"},
            "enum": {"type": "array", "items": {"type": "string"}},
            "pattern": {"type": "string"},
            "min": {"type": "integer"},
            "max": {"type": "integer"},
            "items": {},
        }),
        &[],
        Some(json!({"type": ["string", "integer", "boolean"]})),
    );
    json!({"type": "object", "additionalProperties": param})
}

fn step() -> Value {
    let kinds: Vec<Value> = ALL.iter().map(|definition| kind(definition)).collect();
    json!({
        "type": "object",
        "required": ["id"],
        "additionalProperties": false,
        "oneOf": [{"required": ["uses"]}, {"required": ["include"]}],
        "properties": object(STEP_KEYS.iter().map(|key| (*key, step_key(key)))),
        "allOf": kinds,
    })
}

/// What holds for a step of a kind.
fn kind(definition: &StepDefinition) -> Value {
    let required: Vec<&str> = definition
        .fields
        .iter()
        .filter(|field| field.presence == Presence::Required)
        .map(|field| field.name)
        .collect();
    let mut then = json!({"properties": {"with": {
        "description": definition.about,
        "additionalProperties": false,
        "required": required,
        "properties": object(definition.fields.iter().map(|field| (field.name, field_schema(field)))),
    }}});
    if !required.is_empty() {
        then["required"] = json!(["with"]);
    }
    json!({
        "if": {"properties": {"uses": {"const": definition.name}}, "required": ["uses"]},
        "then": then,
    })
}

fn field_schema(field: &FieldDefinition) -> Value {
    let mut schema = described(value_schema(field.kind), field.about);
    if let Presence::Default(json) = field.presence {
        schema["default"] = serde_json::from_str(json).unwrap_or(Value::Null);
    }
    schema
}

/// What a value can be, or an expression in its place.
fn value_schema(kind: FieldKind) -> Value {
    let own = match kind {
        FieldKind::Text
        | FieldKind::Path
        | FieldKind::Url
        | FieldKind::Artifact
        | FieldKind::Secret => {
            return json!({"type": "string"});
        }
        FieldKind::Any => return json!({}),
        FieldKind::Int(low, high) => json!({"type": "integer", "minimum": low, "maximum": high}),
        FieldKind::Number(low, high) => json!({"type": "number", "minimum": low, "maximum": high}),
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::Choice(texts) => json!({"enum": texts}),
        FieldKind::Duration => reference("duration"),
        FieldKind::List(of) => json!({"type": "array", "items": value_schema(*of)}),
        FieldKind::Map(of) => json!({"type": "object", "additionalProperties": value_schema(*of)}),
        FieldKind::Steps => return one_or_list(json!({"type": "string"})),
    };
    json!({"anyOf": [own, reference("expression")]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::STARTERS;
    use crate::pipeline::document::{self, Kind, Node};
    use crate::pipeline::read::Reader;
    use crate::pipeline::report::Report;
    use crate::pipeline::source::{Source, Sources};

    fn value(text: &str) -> Value {
        let source = Source::new("p.yaml", text);
        let mut sources = Sources::default();
        sources.add(source.clone());
        let mut report = Report::default();
        let root = document::parse(&source, 0, &mut report).expect("YAML");
        json_of(&root, &mut Reader { sources: &sources, file: 0, report: &mut report })
    }

    fn json_of(node: &Node, reader: &mut Reader<'_>) -> Value {
        match &node.kind {
            Kind::Scalar(scalar) => reader.literal(scalar, node.span).expect("a value"),
            Kind::Sequence(items) => items.iter().map(|item| json_of(item, reader)).collect(),
            Kind::Mapping(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, item)| (key.value.clone(), json_of(item, reader)))
                    .collect(),
            ),
        }
    }

    #[test]
    fn the_schema_takes_what_lint_takes_and_refuses_what_it_refuses() {
        let schema: Value = serde_json::from_str(&schema()).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let check = |text: &str, expect: bool| {
            let value = value(text);
            let errors: Vec<String> =
                validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert_eq!(errors.is_empty(), expect, "{text}: {errors:?}");
        };
        check(include_str!("../../../docs/examples/intelgraph-build.pipeline.yaml"), true);
        for starter in STARTERS {
            check(&starter.filled("mine", &|question| question.default.to_owned()), true);
        }
        let step = |rest: &str| format!("name: p\nsteps:\n- {{ id: a, uses: web.scrape{rest} }}");
        check(&step(", with: { urls: [x] }"), true);
        check(&step(", with: { urls: \"${{ params.u }}\", rate: \"${{ params.r }}\" }"), true);
        check(
            &step(
                ", retry: 3, budget: 5usd, timeout: 5m, approval: { count: 2 }, with: { urls: [] }",
            ),
            true,
        );
        check(&step(""), false);
        check(&step(", with: { urls: [x], mode: fast }"), false);
        check(&step(", with: { url: x }"), false);
        check(&step(", with: { urls: [x] }, timeout: soon"), false);
        check("name: p\nsteps: [{ id: a, uses: nothing }]", false);
        check("name: p\nsteps: [{ id: a, uses: //a:b }]\non: { push: { branches: main } }", true);
        check("steps: []", false);
    }
}
