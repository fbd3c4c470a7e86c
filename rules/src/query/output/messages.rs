//! Targets as the messages of Bazel's `src/main/protobuf/build.proto`, package `blaze_query`.
//!
//! Whether an attribute is *explicitly specified* is told by its value: one that is the default
//! counts as not specified.

use maestro_core::Label;

use super::{dependencies, place};
use crate::attr::configurable::Choice;
use crate::attr::{AttrKind, AttrSpec, AttrValue};
use crate::generator::Generator;
use crate::package::TargetDecl;
use crate::query::graph::{NodeId, TargetGraph, What};
use crate::query::proto::{Message, Value};
use crate::values::select::DEFAULT_CONDITION;

/// A `QueryResult`.
pub(super) fn result(graph: &TargetGraph, nodes: &[NodeId]) -> Message {
    Message::default().each(1, "target", nodes.iter().map(|id| target(graph, *id)))
}

/// A `Target`.
pub(super) fn target(graph: &TargetGraph, id: NodeId) -> Message {
    let node = graph.node(id);
    let name = node.label.to_string();
    let (type_name, number, field, body) = match &node.what {
        What::Rule(decl) => ("RULE", 1, "rule", rule(graph, id, decl)),
        What::Source(visibility) => {
            let visibility = visibility.as_ref().map(|v| v.entries()).unwrap_or_default();
            let file = Message::default()
                .with(1, "name", name)
                .with(2, "location", place(graph, id))
                .each(5, "visibilityLabel", visibility);
            ("SOURCE_FILE", 2, "sourceFile", file)
        }
        What::Output(decl) => {
            let file = Message::default()
                .with(1, "name", name)
                .with(2, "generatingRule", decl.label.to_string())
                .with(3, "location", place(graph, id));
            ("GENERATED_FILE", 3, "generatedFile", file)
        }
    };
    Message::default().with(1, "type", Value::Choice(type_name, number)).with(
        number + 1,
        field,
        body,
    )
}

fn rule(graph: &TargetGraph, id: NodeId, decl: &TargetDecl) -> Message {
    let public = decl.rule.attrs.iter().zip(&decl.attrs);
    let attributes = public.map(|((name, spec), value)| attribute(name, spec, value, decl));
    let generator = decl.generator();
    let attributes = attributes.chain(generator.iter().flat_map(generator_attributes));
    let outputs = decl
        .rule
        .attrs
        .iter()
        .zip(&decl.attrs)
        .filter(|((_, spec), _)| matches!(spec.kind, AttrKind::Output | AttrKind::OutputList));
    let outputs = outputs.flat_map(|(_, value)| value.labels());
    Message::default()
        .with(1, "name", decl.label.to_string())
        .with(2, "ruleClass", decl.rule.name())
        .with(3, "location", place(graph, id))
        .each(4, "attribute", attributes)
        .each(5, "ruleInput", texts(&dependencies(graph, id)))
        .each(6, "ruleOutput", outputs.map(Label::to_string))
        .each(13, "instantiationStack", generator.into_iter().flat_map(|g| g.instantiation_stack))
}

/// The attributes that Bazel gives to the targets of a macro.
fn generator_attributes(generator: &Generator) -> [Message; 3] {
    let Generator { generator_name, generator_function, generator_location, .. } = generator;
    let text = |name: &str, text: &str| {
        let message = Message::default().with(1, "name", name);
        let message = message.with(2, "type", discriminator(AttrKind::String));
        let message = message.with(13, "explicitlySpecified", false);
        with_value(message, &AttrValue::String(text.into()), &ATTRIBUTE)
    };
    [
        text("generator_name", generator_name),
        text("generator_function", generator_function),
        text("generator_location", generator_location),
    ]
}

fn attribute(name: &str, spec: &AttrSpec, value: &AttrValue, decl: &TargetDecl) -> Message {
    let is_sum = matches!(value, AttrValue::Configurable(_));
    let kind = if is_sum { SELECTOR_LIST } else { discriminator(spec.kind) };
    let message = Message::default().with(1, "name", name).with(2, "type", kind).with(
        13,
        "explicitlySpecified",
        name == "name" || *value != spec.default,
    );
    match (name, value) {
        ("name", _) => with_value(message, &AttrValue::String(decl.label.name.clone()), &ATTRIBUTE),
        ("visibility", _) => message.each(6, "stringListValue", decl.visibility.entries()),
        (_, AttrValue::Configurable(sum)) => {
            let list = Message::default().with(1, "type", discriminator(spec.kind)).each(
                2,
                "elements",
                sum.operands.iter().map(selector),
            );
            message.with(21, "selectorList", list)
        }
        _ => with_value(message, value, &ATTRIBUTE),
    }
}

/// A `Selector`: one operand of a sum.
fn selector(choice: &Choice) -> Message {
    let entries = choice.branches.iter().map(|branch| {
        let label = branch.condition.as_ref().map(ToString::to_string);
        let entry = Message::default().with(
            1,
            "label",
            label.unwrap_or_else(|| DEFAULT_CONDITION.to_owned()),
        );
        match &branch.value {
            AttrValue::None => entry.with(16, "isDefaultValue", true),
            value => with_value(entry, value, &SELECTOR_ENTRY),
        }
    });
    let message = Message::default().each(1, "entries", entries).with(
        2,
        "hasDefaultValue",
        choice.branches.iter().any(|b| b.condition.is_none()),
    );
    match &*choice.no_match_error {
        "" => message,
        text => message.with(3, "noMatchError", text),
    }
}

/// `Attribute.Discriminator.SELECTOR_LIST`.
const SELECTOR_LIST: Value = Value::Choice("SELECTOR_LIST", 20);

/// The numbers of the fields for values, which differ between messages.
struct Numbers {
    int: u32,
    string: u32,
    boolean: u32,
    strings: u32,
    dict: u32,
    ints: u32,
    label_dict: u32,
}

const ATTRIBUTE: Numbers =
    Numbers { int: 3, string: 5, boolean: 14, strings: 6, dict: 8, ints: 17, label_dict: 22 };
const SELECTOR_ENTRY: Numbers =
    Numbers { int: 2, string: 3, boolean: 4, strings: 6, dict: 8, ints: 13, label_dict: 17 };

fn with_value(message: Message, value: &AttrValue, at: &Numbers) -> Message {
    match value {
        // A sum stands in a message of its own.
        AttrValue::None | AttrValue::Configurable(_) => message,
        AttrValue::Bool(truth) => message
            .with(at.int, "intValue", i64::from(*truth))
            .with(at.string, "stringValue", truth.to_string())
            .with(at.boolean, "booleanValue", *truth),
        AttrValue::Int(number) => message.with(at.int, "intValue", i64::from(*number)),
        AttrValue::String(text) => message.with(at.string, "stringValue", &**text),
        AttrValue::Label(label) => message.with(at.string, "stringValue", label.to_string()),
        AttrValue::Strings(list) => {
            message.each(at.strings, "stringListValue", list.iter().map(|text| &**text))
        }
        AttrValue::Labels(list) => message.each(at.strings, "stringListValue", texts(list)),
        AttrValue::Ints(list) => {
            message.each(at.ints, "intListValue", list.iter().map(|number| i64::from(*number)))
        }
        AttrValue::Dict(entries) => {
            let entries = entries.iter().map(|(k, v)| entry(k.to_string(), v));
            message.each(at.dict, "stringDictValue", entries)
        }
        AttrValue::LabelDict(entries) => {
            let entries = entries.iter().map(|(k, v)| entry(k.to_string(), v));
            message.each(at.label_dict, "labelKeyedStringDictValue", entries)
        }
    }
}

fn entry(key: String, value: &str) -> Message {
    Message::default().with(1, "key", key).with(2, "value", value)
}

fn texts<'a>(labels: impl IntoIterator<Item = &'a Label>) -> Vec<String> {
    labels.into_iter().map(ToString::to_string).collect()
}

/// `Attribute.Discriminator`.
fn discriminator(kind: AttrKind) -> Value {
    let (name, number) = match kind {
        AttrKind::Int => ("INTEGER", 1),
        AttrKind::String => ("STRING", 2),
        AttrKind::Label => ("LABEL", 3),
        AttrKind::Output => ("OUTPUT", 4),
        AttrKind::StringList => ("STRING_LIST", 5),
        AttrKind::LabelList => ("LABEL_LIST", 6),
        AttrKind::OutputList => ("OUTPUT_LIST", 7),
        AttrKind::StringDict => ("STRING_DICT", 10),
        AttrKind::Bool => ("BOOLEAN", 14),
        AttrKind::IntList => ("INTEGER_LIST", 16),
        AttrKind::LabelKeyedStringDict => ("LABEL_KEYED_STRING_DICT", 21),
    };
    Value::Choice(name, number)
}
