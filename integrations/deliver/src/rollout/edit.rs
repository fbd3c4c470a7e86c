//! Changes of single values in a YAML or JSON file that leave every other byte as it is.
//!
//! A value is found by its path, through the events of a YAML parser, which reads JSON too. Only
//! the bytes of that scalar are replaced: comments, order, quotes and indentation of the file stay.
//! Anchors are not resolved, so a file cannot grow by being read.

use granit_parser::{Event, Parser, ScalarStyle, Span};
use maestro_core::run::Failure;
use serde_json::Value;

use crate::failures::{excerpt, hinted, user};

/// Deepest nesting of a file.
const NESTING_MAX: u32 = 100;

/// The file's text with the value at `path` replaced.
///
/// A path is names joined by dots, as in `image.tag`, with indices for lists; or, beginning with a
/// slash, a JSON pointer (RFC 6901), for names that hold dots. Of several documents in one file,
/// the only one that has the path is meant.
pub(super) fn set(text: &str, file: &str, path: &str, value: &Value) -> Result<String, Failure> {
    let wanted = segments(path)?;
    let place = only(find(text, file, &wanted)?, file, path)?;
    let Place::Scalar { start, end, style, .. } = place else {
        return Err(user(format!("`{path}` in `{file}` is {}, not a single value", place.shown())));
    };
    let json = file.ends_with(".json");
    let new = scalar(value, style, json)
        .ok_or_else(|| user(format!("the value for `{path}` is a list or a mapping")))?;
    let odd = || user(format!("`{path}` in `{file}` is written in a way that cannot be edited"));
    let (head, tail) = text.get(..start).zip(text.get(end..)).ok_or_else(odd)?;
    if start == end {
        return Err(hinted(odd(), "give it any value first, such as `\"\"`"));
    }
    let edited = format!("{head}{new}{tail}");
    // What was written is read back: quoting that this module gets wrong must not reach anyone.
    let expected = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match only(find(&edited, file, &wanted)?, file, path)? {
        Place::Scalar { text, .. } if text == expected => Ok(edited),
        _ => Err(odd()),
    }
}

/// What stands at a path.
enum Place {
    Scalar { start: usize, end: usize, style: ScalarStyle, text: String },
    Collection,
    Alias,
}

impl Place {
    fn shown(&self) -> &'static str {
        match self {
            Self::Scalar { .. } => "a value",
            Self::Collection => "a list or a mapping",
            Self::Alias => "an alias",
        }
    }
}

fn only(mut places: Vec<Place>, file: &str, path: &str) -> Result<Place, Failure> {
    match (places.pop(), places.len()) {
        (Some(place), 0) => Ok(place),
        (Some(_), more) => {
            let failure = user(format!("`{file}` has `{path}` {} times", more + 1));
            Err(hinted(failure, "keep each document in a file of its own"))
        }
        (None, _) => {
            let failure = user(format!("`{file}` has no `{path}`"));
            Err(hinted(failure, "`values` says which keys are set: `values: { image.tag: v1 }`"))
        }
    }
}

fn segments(path: &str) -> Result<Vec<String>, Failure> {
    let segments: Vec<String> = match path.strip_prefix('/') {
        Some(pointer) => {
            pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
        }
        None => path.split('.').map(str::to_owned).collect(),
    };
    if segments.iter().any(String::is_empty) || segments.len() > NESTING_MAX as usize {
        return Err(user(format!("`{}` is no path of a value", excerpt(path))));
    }
    Ok(segments)
}

/// A list or mapping that is open.
struct Open {
    /// Whether it is itself a key, and so has no value to be followed by.
    is_key: bool,
    at: At,
}

/// Where in an open list or mapping the next node stands.
enum At {
    Key,
    /// The value of this key; one that is no single value has no name.
    Value(Option<String>),
    Item(usize),
}

/// Walks through a file and notes what stands at the wanted path.
struct Walk<'a> {
    wanted: &'a [String],
    open: Vec<Open>,
    found: Vec<Place>,
}

fn find(text: &str, file: &str, wanted: &[String]) -> Result<Vec<Place>, Failure> {
    let mut options = granit_parser::Options::default();
    options.flow_nesting_limit = NESTING_MAX as _;
    options.block_nesting_limit = NESTING_MAX as _;
    let mut walk = Walk { wanted, open: Vec::new(), found: Vec::new() };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            user(format!("`{file}` is not YAML: {}", excerpt(&error.to_string())))
        })?;
        walk.feed(event, span);
    }
    Ok(walk.found)
}

impl Walk<'_> {
    fn feed(&mut self, event: Event<'_>, span: Span) {
        match event {
            Event::Scalar(text, style, ..) => {
                let name = text.to_string();
                if !self.take_key(Some(&name)) {
                    let at = |mark: granit_parser::Marker| mark.byte_offset().unwrap_or(0);
                    let (start, end) = (at(span.start), at(span.end));
                    self.node(|| Place::Scalar { start, end, style, text: name.clone() });
                }
            }
            Event::Alias(..) if !self.take_key(None) => self.node(|| Place::Alias),
            Event::SequenceStart(..) => self.enter(At::Item(0)),
            Event::MappingStart(..) => self.enter(At::Key),
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::DocumentStart(..) => self.open.clear(),
            _ => {}
        }
    }

    /// Takes a node as the key of the mapping that is open, if a key is due there.
    fn take_key(&mut self, name: Option<&str>) -> bool {
        match self.open.last_mut() {
            Some(Open { at: at @ At::Key, .. }) => {
                *at = At::Value(name.map(str::to_owned));
                true
            }
            _ => false,
        }
    }

    fn enter(&mut self, at: At) {
        let is_key = self.take_key(None);
        if !is_key {
            self.note(|| Place::Collection);
        }
        self.open.push(Open { is_key, at });
    }

    fn leave(&mut self) {
        if self.open.pop().is_some_and(|open| !open.is_key) {
            self.step();
        }
    }

    fn node(&mut self, place: impl FnOnce() -> Place) {
        self.note(place);
        self.step();
    }

    /// Notes what stands here, if here is the wanted path.
    fn note(&mut self, place: impl FnOnce() -> Place) {
        let here = self.open.len() == self.wanted.len()
            && self.open.iter().zip(self.wanted).all(|(open, wanted)| match &open.at {
                At::Key => false,
                At::Value(key) => !open.is_key && key.as_ref() == Some(wanted),
                At::Item(index) => !open.is_key && index.to_string() == *wanted,
            });
        if here {
            self.found.push(place());
        }
    }

    /// Goes on behind a value.
    fn step(&mut self) {
        match self.open.last_mut().map(|open| &mut open.at) {
            Some(At::Item(index)) => *index += 1,
            Some(at) => *at = At::Key,
            None => {}
        }
    }
}

/// A value as the file writes it: plain where it was plain and stays a text, quoted otherwise.
fn scalar(value: &Value, style: ScalarStyle, json: bool) -> Option<String> {
    match value {
        Value::String(text) if !json && style == ScalarStyle::Plain && is_plain(text) => {
            Some(text.clone())
        }
        Value::Array(_) | Value::Object(_) => None,
        other => serde_json::to_string(other).ok(),
    }
}

/// Whether a text without quotes is read as a text: not as a number, a bool, a date or nothing.
fn is_plain(text: &str) -> bool {
    let letter = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let body = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._/@:+-".contains(&b));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    letter && body && !word && !text.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(file: &str, text: &str, path: &str, value: Value, expected: Result<&str, &str>) {
        match (set(text, file, path, &value), expected) {
            (Ok(edited), Ok(expected)) => assert_eq!(edited, expected),
            (Err(failure), Err(part)) => {
                assert!(failure.message.contains(part), "{}", failure.message);
            }
            (other, _) => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn only_the_value_changes() {
        let yaml = "# web\nimage: a:1   # old\nlist:\n  - {tag: '1'}\n  - name: \"x\"\n";
        let new = json!("b@sha256:0f");
        check("a.yaml", yaml, "image", new.clone(), Ok(&yaml.replace("a:1", "b@sha256:0f")));
        check("a.yaml", yaml, "list.0.tag", json!("1.10"), Ok(&yaml.replace("'1'", "\"1.10\"")));
        check("a.yaml", yaml, "/list/1/name", json!("y"), Ok(&yaml.replace("\"x\"", "\"y\"")));
        check("a.yaml", yaml, "image", json!("1.10"), Ok(&yaml.replace("a:1", "\"1.10\"")));
        check("a.yaml", yaml, "image", json!("on"), Ok(&yaml.replace("a:1", "\"on\"")));
        check("a.yaml", yaml, "image", json!(3), Ok(&yaml.replace("a:1", "3")));
        check("a.yaml", "a.b: 1\n", "/a.b", json!(2), Ok("a.b: 2\n"));
        let two = "kind: A\n---\nkind: B\nspec: { image: x }\n";
        check("a.yaml", two, "spec.image", json!("z"), Ok(&two.replace("x }", "z }")));
        check(
            "a.json",
            "{\"a\": {\"b\":\t\"1\"}}",
            "a.b",
            json!("v2"),
            Ok("{\"a\": {\"b\":\t\"v2\"}}"),
        );
        check("a.json", "{\"a\": 1}", "a", json!("x"), Ok("{\"a\": \"x\"}"));
    }

    #[test]
    fn values_cannot_break_out_of_their_place() {
        let hostile = json!("x\nadmin: true # \" ' }");
        let edited = set("a: 1\nb: 2\n", "a.yaml", "a", &hostile).expect("quoted");
        assert_eq!(edited, "a: \"x\\nadmin: true # \\\" ' }\"\nb: 2\n");
    }

    #[test]
    fn what_cannot_be_edited_is_said() {
        check("a.yaml", "a: 1\n", "b", json!("x"), Err("has no `b`"));
        check("a.yaml", "a: {b: 1}\n", "a", json!("x"), Err("a list or a mapping"));
        check("a.yaml", "a: &x 1\nb: *x\n", "b", json!("x"), Err("an alias"));
        check("a.yaml", "a:\nb: 1\n", "a", json!("x"), Err("cannot be edited"));
        check("a.yaml", "a: 1\n---\na: 2\n", "a", json!("x"), Err("2 times"));
        check("a.yaml", "a: [\n", "a", json!("x"), Err("is not YAML"));
        check("a.yaml", "a: 1\n", "a", json!([1]), Err("is a list or a mapping"));
        check("a.yaml", "a: 1\n", "a..b", json!(1), Err("is no path"));
        check("a.yaml", "? [a, b]\n: 1\nc: 2\n", "c", json!(3), Ok("? [a, b]\n: 1\nc: 3\n"));
        check("a.yaml", "a: [[1, 2], {b: 3}]\n", "a.1.b", json!(4), Ok("a: [[1, 2], {b: 4}]\n"));
        let deep = "[".repeat(100_000);
        check("a.yaml", &deep, "0", json!(1), Err("is not YAML"));
    }
}
