//! Every kind of step, as data: what it takes, what it makes, and how it deals with the world.
//!
//! This table is the one place that knows steps. Lint checks against it; the JSON Schema for
//! editors and the reference of steps are printed from it; binding asks it what a step works on.
//! To add a step, add an entry to a file of `definitions/`, or a file to [`ALL`].

mod api;
mod build;
mod deliver;
mod evidence;
mod gates;
mod llm;
mod sources;
mod web;

use std::sync::LazyLock;

use maestro_core::ActionClass;
use serde_json::Value;

use super::expression::{Type, named};

/// The kind of step that waits for people.
pub const GATE: &str = "gate.approval";

/// Kinds of steps on whose verdict the effects behind them rely.
pub const EVIDENCE: &[&str] = &["security.scan", "supplychain.sign", "supplychain.attest"];

/// A kind of step.
#[derive(Debug)]
pub struct StepDefinition {
    /// What `uses` says.
    pub name: &'static str,
    /// How its result may be reused, and how a crash is dealt with.
    pub class: ActionClass,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// What `with` may hold.
    pub fields: &'static [FieldDefinition],
    /// What other steps can take from it.
    pub outputs: &'static [OutputDefinition],
    /// What holds between its fields.
    pub rules: &'static [FieldRule],
    /// For an effect: what the far side offers against doing it twice.
    pub far_side: Option<FarSide>,
}

/// What some values of fields mean for other fields.
#[derive(Debug)]
pub struct FieldRule {
    /// Fields, each with the values of which it has one, as JSON.
    pub when: &'static [(&'static str, &'static [&'static str])],
    /// Fields that must be there then.
    pub needs: &'static [&'static str],
    /// Fields that mean nothing then.
    pub excludes: &'static [&'static str],
}

impl StepDefinition {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&'static FieldDefinition> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Why these cannot be values of its fields, if so. None of them needs to be there.
    pub fn refuses(&self, values: &serde_json::Map<String, Value>) -> Option<String> {
        values.iter().find_map(|(name, value)| {
            let Some(field) = self.field(name) else {
                let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
                let names = names.join("`, `");
                return Some(format!("`{}` takes no `{name}`, but `{names}`", self.name));
            };
            let told = || {
                let found = match value {
                    Value::Number(number) => number.to_string(),
                    other => Type::of(other).to_string(),
                };
                let kind = field.kind.describe();
                format!("`{name}` of `{}` is {kind}, and this is {found}", self.name)
            };
            (!field.kind.takes(value)).then(told)
        })
    }

    /// Whether it acts on the world.
    pub fn is_effect(&self) -> bool {
        self.class == ActionClass::Effect
    }
}

/// A field of `with`.
#[derive(Debug)]
pub struct FieldDefinition {
    /// Its name.
    pub name: &'static str,
    /// What its value can be.
    pub kind: FieldKind,
    /// What holds where it is left out.
    pub presence: Presence,
    /// What it means, in one sentence.
    pub about: &'static str,
}

/// What a value can be, with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldKind {
    /// A text.
    Text,
    /// A file or folder below the workspace.
    Path,
    /// An `http://` or `https://` URL.
    Url,
    /// A whole number between two others, both allowed.
    Int(i64, i64),
    /// A number between two others, both allowed.
    Number(f64, f64),
    /// True or false.
    Bool,
    /// One of some texts.
    Choice(&'static [&'static str]),
    /// A time: `90s`, `15m`, `2h`, `7d`, or seconds.
    Duration,
    /// A list.
    List(&'static FieldKind),
    /// A mapping with keys of any name.
    Map(&'static FieldKind),
    /// Names of steps whose outputs are taken; they become dependencies.
    Steps,
    /// Something that a step above made, as `${{ steps.NAME.outputs.NAME }}`, or its digest.
    Artifact,
    /// The name of a secret, or a param of type `secret`.
    Secret,
    /// Any value.
    Any,
}

/// What holds where a field is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Presence {
    /// It must be there.
    Required,
    /// Nothing.
    Optional,
    /// This value, as JSON.
    Default(&'static str),
    /// The project's default of this name, such as `llm.model`.
    Project(&'static str),
    /// The project's default of this name, and nothing where there is none.
    ProjectIfAny(&'static str),
    /// The nearest artifact above of one of these kinds.
    Bound(&'static [Artifact]),
    /// As [`Self::Bound`], and nothing where there is no such artifact.
    BoundIfAny(&'static [Artifact]),
}

/// What an output is.
#[derive(Debug)]
pub struct OutputDefinition {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: FieldKind,
    /// The kind of artifact, where other steps can work on it.
    pub artifact: Option<Artifact>,
    /// What it holds, in one sentence.
    pub about: &'static str,
}

named! {
    /// A kind of thing that steps work on.
    Artifact {
        /// Files.
        Files = "files",
        /// A container image that was built.
        Image = "image",
        /// A container image in a registry, by digest.
        Published = "published image",
        /// A bill of materials.
        Sbom = "bill of materials",
        /// What a scan found.
        Report = "report",
        /// A change of the sources.
        Patch = "patch",
    }
}

named! {
    /// What the far side of an effect offers against doing it twice.
    FarSide {
        /// It takes a key, and does nothing the second time.
        Idempotent = "idempotent",
        /// It changes something only from a state that is named.
        Conditional = "conditional",
        /// It can be asked whether it was done.
        Queryable = "queryable",
        /// Doing it again does no harm.
        Repeatable = "repeatable",
        /// Nothing: where an outcome is unknown, a person decides.
        Opaque = "opaque",
    }
}

/// The tables, in the order of the reference.
const TABLES: &[&[StepDefinition]] = &[
    llm::STEPS,
    web::STEPS,
    api::STEPS,
    build::STEPS,
    sources::STEPS,
    evidence::STEPS,
    deliver::STEPS,
    gates::STEPS,
];

/// Every kind of step.
pub static ALL: LazyLock<Vec<&'static StepDefinition>> =
    LazyLock::new(|| TABLES.iter().flat_map(|table| table.iter()).collect());

/// The kind of step that `uses` names.
pub fn definition(name: &str) -> Option<&'static StepDefinition> {
    ALL.iter().copied().find(|step| step.name == name)
}

/// The names of all defaults that a project can set, such as `llm.model`, in order.
pub fn default_names() -> Vec<&'static str> {
    let fields = ALL.iter().flat_map(|step| step.fields);
    let mut names: Vec<&str> = fields
        .filter_map(|field| match field.presence {
            Presence::Project(name) | Presence::ProjectIfAny(name) => Some(name),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What a step makes that builds a target of the workspace.
pub const TARGET_OUTPUTS: &[OutputDefinition] = &[
    artifact("files", FieldKind::List(&FieldKind::Path), Artifact::Files, "Its outputs, as paths."),
    output("digest", FieldKind::Text, "The digest of all its outputs."),
];

impl FieldKind {
    /// Whether it can be this value; null stands for what is left out.
    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null)
            | (Self::Any, _)
            | (Self::Secret | Self::Duration, Value::String(_)) => true,
            (Self::Duration, value) => value.is_number(),
            (Self::Choice(texts), Value::String(text)) => texts.contains(&text.as_str()),
            (Self::List(of), Value::Array(items)) => items.iter().all(|item| of.takes(item)),
            (Self::Map(of), Value::Object(fields)) => fields.values().all(|value| of.takes(value)),
            (Self::Int(low, high), value) => {
                value.as_i64().is_some_and(|number| (low..=high).contains(&number))
            }
            (Self::Number(low, high), value) => {
                value.as_f64().is_some_and(|number| (low..=high).contains(&number))
            }
            (kind, value) => Type::of(value).fits(&kind.value_type()),
        }
    }

    /// The type that expressions see.
    pub(crate) fn value_type(self) -> Type {
        match self {
            Self::Text | Self::Path | Self::Url | Self::Artifact => Type::String,
            Self::Int(..) => Type::Int,
            Self::Number(..) => Type::Number,
            Self::Bool => Type::Bool,
            Self::Choice(texts) => Type::choice(texts.iter().copied()),
            Self::List(of) => Type::list(of.value_type()),
            Self::Map(of) => Type::map(of.value_type()),
            Self::Steps => Type::list(Type::String),
            Self::Secret => Type::Secret,
            // A time is a text with a unit, or a number.
            Self::Duration | Self::Any => Type::Any,
        }
    }

    /// What it is, for messages and the reference.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Text => "a text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Url => "a URL".to_owned(),
            Self::Int(low, high) => format!("an int from {low} to {high}"),
            Self::Number(low, high) => format!("a number from {low} to {high}"),
            Self::Bool => "a bool".to_owned(),
            Self::Choice(texts) => format!("one of `{}`", texts.join("`, `")),
            Self::Duration => "a time such as `90s`, `15m` or `2h`".to_owned(),
            Self::List(of) => format!("a list, each item {}", of.describe()),
            Self::Map(of) => format!("a mapping, each value {}", of.describe()),
            Self::Steps => "a list of steps".to_owned(),
            Self::Artifact => "something that a step made".to_owned(),
            Self::Secret => "the name of a secret".to_owned(),
            Self::Any => "any value".to_owned(),
        }
    }
}

const fn field(
    name: &'static str,
    kind: FieldKind,
    presence: Presence,
    about: &'static str,
) -> FieldDefinition {
    FieldDefinition { name, kind, presence, about }
}

const fn output(name: &'static str, kind: FieldKind, about: &'static str) -> OutputDefinition {
    OutputDefinition { name, kind, artifact: None, about }
}

const fn artifact(
    name: &'static str,
    kind: FieldKind,
    artifact: Artifact,
    about: &'static str,
) -> OutputDefinition {
    OutputDefinition { name, kind, artifact: Some(artifact), about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_itself() {
        let mut names: Vec<&str> = ALL.iter().map(|step| step.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "a name stands twice");
        for step in ALL.iter() {
            let name = step.name;
            assert_eq!(step.far_side.is_some(), step.is_effect(), "{name}: far side");
            assert!(step.about.ends_with('.'), "{name}");
            for rule in step.rules {
                let named = rule.when.iter().map(|(field, _)| field);
                let mut named = named.chain(rule.needs).chain(rule.excludes);
                assert!(named.all(|field| step.field(field).is_some()), "{name}: {rule:?}");
                let values = rule.when.iter().flat_map(|(_, values)| *values);
                for value in values {
                    assert!(serde_json::from_str::<serde_json::Value>(value).is_ok(), "{value}");
                }
            }
            let mut fields: Vec<&str> = step.fields.iter().map(|field| field.name).collect();
            fields.sort_unstable();
            assert!(fields.windows(2).all(|pair| pair[0] != pair[1]), "{name}: {fields:?}");
            for field in step.fields {
                assert!(field.about.ends_with('.'), "{name}.{}", field.name);
                if let Presence::Default(json) = field.presence {
                    let value: serde_json::Value = serde_json::from_str(json)
                        .unwrap_or_else(|_| panic!("{name}.{}: `{json}` is no JSON", field.name));
                    let (found, expected) = (Type::of(&value), field.kind.value_type());
                    assert!(found.fits(&expected), "{name}.{}: {found}", field.name);
                }
            }
        }
    }

    #[test]
    fn what_is_bound_is_made_by_some_step() {
        let made = |kind: Artifact| {
            let outputs = ALL.iter().flat_map(|step| step.outputs).chain(TARGET_OUTPUTS);
            outputs.into_iter().any(|output| output.artifact == Some(kind))
        };
        for step in ALL.iter() {
            for field in step.fields {
                if let Presence::Bound(kinds) | Presence::BoundIfAny(kinds) = field.presence {
                    assert!(kinds.iter().all(|kind| made(*kind)), "{}.{}", step.name, field.name);
                }
            }
        }
    }
}
