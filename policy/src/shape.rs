//! What values look like: the JSON Schema of a decision point as a tree of fields.
//!
//! Shapes are interned, so that equal ones are the same number. [`Shapes::UNKNOWN`] is a value of
//! which nothing is known; every path into it is allowed. A field that an object of the schema does
//! not have is an error of whoever reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use maestro_core::policy::{DecisionPoint, EVERY_STATE};
use serde_json::Value;

/// The number of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShapeId(u32);

/// What a value looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// Nothing is known.
    Unknown,
    /// A value without parts, with the word for it.
    Scalar(&'static str),
    /// A value without parts that is one of these words.
    Words(BTreeSet<String>),
    /// An object of the schema: no other fields.
    Object(BTreeMap<String, ShapeId>),
    /// An object that a policy made: other fields may be there.
    Open(BTreeMap<String, ShapeId>),
    /// An object with any keys.
    Map(ShapeId),
    /// A list or a set.
    Sequence(ShapeId),
    /// One of several.
    Union(BTreeSet<ShapeId>),
    /// One of several, each of which a policy has to look at.
    Facts(BTreeSet<ShapeId>),
}

/// All shapes.
pub(crate) struct Shapes {
    all: Vec<Shape>,
    ids: HashMap<Shape, ShapeId>,
}

/// What a step into a shape comes to.
pub(crate) enum Field {
    /// There may be such a field.
    Shape(ShapeId),
    /// There is none; these are.
    Missing(BTreeSet<String>),
    /// There are no fields: the value is of this kind.
    Scalar(&'static str),
}

impl Shapes {
    /// A value of which nothing is known.
    pub const UNKNOWN: ShapeId = ShapeId(0);

    /// Only what is always there.
    pub fn new() -> Self {
        let mut shapes = Self { all: Vec::new(), ids: HashMap::new() };
        shapes.id(Shape::Unknown);
        shapes
    }

    /// The input of a decision point.
    pub fn of_point(&mut self, point: DecisionPoint) -> ShapeId {
        let schema = point.schema();
        self.of_schema(&schema, &schema)
    }

    /// The shape of a number.
    pub fn get(&self, id: ShapeId) -> &Shape {
        self.all.get(id.0 as usize).unwrap_or(&Shape::Unknown)
    }

    /// The number of a shape.
    pub fn id(&mut self, shape: Shape) -> ShapeId {
        if let Some(id) = self.ids.get(&shape) {
            return *id;
        }
        let id = ShapeId(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.all.push(shape.clone());
        self.ids.insert(shape, id);
        id
    }

    /// One of several shapes.
    pub fn union(&mut self, ids: impl IntoIterator<Item = ShapeId>) -> ShapeId {
        let mut members = BTreeSet::new();
        for id in ids {
            match self.get(id) {
                Shape::Union(inner) => members.extend(inner.iter().copied()),
                _ => {
                    members.insert(id);
                }
            }
        }
        match (members.len(), members.first()) {
            (0, _) => Self::UNKNOWN,
            (1, Some(only)) => *only,
            _ if members.contains(&Self::UNKNOWN) => Self::UNKNOWN,
            _ => self.id(Shape::Union(members)),
        }
    }

    /// The shapes that a value may have.
    pub fn members(&self, id: ShapeId) -> Vec<ShapeId> {
        match self.get(id) {
            Shape::Union(members) => {
                members.iter().flat_map(|member| self.members(*member)).collect()
            }
            Shape::Facts(members) => members.iter().copied().collect(),
            _ => vec![id],
        }
    }

    /// A step into a field.
    pub fn field(&mut self, of: ShapeId, name: &str) -> Field {
        let (mut found, mut known, mut scalar) = (Vec::new(), BTreeSet::new(), None);
        for member in self.members(of) {
            match self.get(member) {
                Shape::Unknown => return Field::Shape(Self::UNKNOWN),
                Shape::Scalar(kind) => scalar = Some(*kind),
                Shape::Words(_) => scalar = Some("a word"),
                Shape::Object(fields) => {
                    found.extend(fields.get(name).copied());
                    known.extend(fields.keys().cloned());
                }
                Shape::Open(fields) => {
                    found.push(fields.get(name).copied().unwrap_or(Self::UNKNOWN));
                }
                Shape::Map(value) => found.push(*value),
                Shape::Sequence(item) => found.push(*item),
                Shape::Union(_) | Shape::Facts(_) => {}
            }
        }
        match (found.is_empty(), known.is_empty(), scalar) {
            (false, ..) => Field::Shape(self.union(found)),
            (true, false, _) => Field::Missing(known),
            (true, true, Some(kind)) => Field::Scalar(kind),
            (true, true, None) => Field::Shape(Self::UNKNOWN),
        }
    }

    /// Any part of a value, as `[_]` and `some x in` give it.
    pub fn element(&mut self, of: ShapeId) -> ShapeId {
        let mut parts = Vec::new();
        for member in self.members(of) {
            match self.get(member) {
                Shape::Unknown => return Self::UNKNOWN,
                Shape::Scalar(_) | Shape::Words(_) | Shape::Union(_) | Shape::Facts(_) => {}
                Shape::Object(fields) | Shape::Open(fields) => parts.extend(fields.values()),
                Shape::Map(part) | Shape::Sequence(part) => parts.push(*part),
            }
        }
        self.union(parts)
    }

    /// The words by which the members of a sum type are told apart, with the field that has them;
    /// `None` if it is none.
    pub fn tag(&self, of: ShapeId) -> Option<(String, BTreeMap<String, ShapeId>)> {
        let members = self.members(of);
        let (mut tag, mut variants) = (None, BTreeMap::new());
        for member in &members {
            let Shape::Object(fields) = self.get(*member) else { return None };
            let (name, word) = fields.iter().find_map(|(name, shape)| match self.get(*shape) {
                Shape::Words(words) if words.len() == 1 => Some((name, words.first()?)),
                _ => None,
            })?;
            if *tag.get_or_insert(name) != name {
                return None;
            }
            variants.insert(word.clone(), *member);
        }
        (members.len() > 1).then_some((tag?.clone(), variants))
    }

    fn of_schema(&mut self, schema: &Value, root: &Value) -> ShapeId {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        if let Some(pointer) = text("$ref").and_then(|target| target.strip_prefix('#')) {
            let target = root.pointer(pointer).unwrap_or(&Value::Null);
            return self.of_schema(target, root);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(members) = schema.get(key).and_then(Value::as_array) {
                let members: Vec<ShapeId> =
                    members.iter().map(|member| self.of_schema(member, root)).collect();
                return match schema.get(EVERY_STATE) {
                    Some(_) => self.id(Shape::Facts(members.into_iter().collect())),
                    None => self.merged_words(members),
                };
            }
        }
        if let Some(word) = text("const") {
            return self.id(Shape::Words([word.to_owned()].into()));
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            let words = words.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            return self.id(Shape::Words(words));
        }
        match text("type") {
            Some("object") => self.of_object(schema, root),
            Some("array") => {
                let item = self.of_schema(schema.get("items").unwrap_or(&Value::Null), root);
                self.id(Shape::Sequence(item))
            }
            Some("string") => self.id(Shape::Scalar("a text")),
            Some("integer" | "number") => self.id(Shape::Scalar("a number")),
            Some("boolean") => self.id(Shape::Scalar("a boolean")),
            _ => Self::UNKNOWN,
        }
    }

    fn of_object(&mut self, schema: &Value, root: &Value) -> ShapeId {
        if let Some(value) = schema.get("additionalProperties").filter(|value| value.is_object()) {
            let value = self.of_schema(value, root);
            return self.id(Shape::Map(value));
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let mut fields = BTreeMap::new();
        for (name, property) in properties.into_iter().flatten() {
            fields.insert(name.clone(), self.of_schema(property, root));
        }
        self.id(Shape::Object(fields))
    }

    /// A union in which words that are alternatives become one set of words.
    fn merged_words(&mut self, members: Vec<ShapeId>) -> ShapeId {
        let (mut words, mut others) = (BTreeSet::new(), Vec::new());
        for member in members {
            match self.get(member) {
                Shape::Words(more) => words.extend(more.iter().cloned()),
                _ => others.push(member),
            }
        }
        if !words.is_empty() {
            others.push(self.id(Shape::Words(words)));
        }
        self.union(others)
    }
}
