//! Messages in the shape of protocol buffers, written as bytes or as their JSON form.
//!
//! One description of a message serves both forms. Only what `output` and `actions` need is here:
//! it is no general library, and nothing is ever read.

use std::io;

/// A message: fields in the order in which they were added; repeated ones lie beside each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    number: u32,
    /// The name in JSON, in lower camel case.
    name: &'static str,
    repeated: bool,
    value: Value,
}

/// What a field holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `string`.
    Text(String),
    /// `int32` and `uint32`.
    Number(i64),
    /// `bool`.
    Truth(bool),
    /// An enumeration, by name and number.
    Choice(&'static str, u32),
    /// A message.
    Message(Message),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<Message> for Value {
    fn from(message: Message) -> Self {
        Self::Message(message)
    }
}

impl Message {
    /// Adds a field.
    pub(crate) fn with(mut self, number: u32, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push(Field { number, name, repeated: false, value: value.into() });
        self
    }

    /// Adds a repeated field; one without values is left out.
    pub(crate) fn each<V: Into<Value>>(
        mut self,
        number: u32,
        name: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.fields.extend(values.into_iter().map(|value| Field {
            number,
            name,
            repeated: true,
            value: value.into(),
        }));
        self
    }

    /// The bytes of the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for Field { number, name: _, repeated: _, value } in &self.fields {
            let number = u64::from(*number);
            let mut delimited = |bytes: &[u8]| {
                varint(&mut out, number << 3 | 2);
                varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            };
            let plain = match value {
                Value::Text(text) => {
                    delimited(text.as_bytes());
                    continue;
                }
                Value::Message(message) => {
                    delimited(&message.encode());
                    continue;
                }
                // Negative numbers are written as 64 bits in two's complement.
                Value::Number(value) => value.cast_unsigned(),
                Value::Truth(value) => u64::from(*value),
                Value::Choice(_, value) => u64::from(*value),
            };
            varint(&mut out, number << 3);
            varint(&mut out, plain);
        }
        out
    }

    /// Writes the bytes of the message after their length.
    pub(crate) fn write_delimited(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let bytes = self.encode();
        let mut length = Vec::new();
        varint(&mut length, bytes.len() as u64);
        out.write_all(&length)?;
        out.write_all(&bytes)
    }

    /// Writes the JSON form, without spaces.
    pub(crate) fn write_json(&self, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(b"{")?;
        let mut before: Option<&Field> = None;
        for field in &self.fields {
            let continues =
                field.repeated && before.is_some_and(|b| b.repeated && b.name == field.name);
            if before.is_some_and(|before| before.repeated) && !continues {
                out.write_all(b"]")?;
            }
            if before.is_some() {
                out.write_all(b",")?;
            }
            if !continues {
                write!(out, "\"{}\":{}", field.name, if field.repeated { "[" } else { "" })?;
            }
            match &field.value {
                Value::Text(text) => serde_json::to_writer(&mut *out, text)?,
                Value::Number(number) => write!(out, "{number}")?,
                Value::Truth(truth) => write!(out, "{truth}")?,
                Value::Choice(name, _) => write!(out, "\"{name}\"")?,
                Value::Message(message) => message.write_json(out)?,
            }
            before = Some(field);
        }
        out.write_all(if before.is_some_and(|before| before.repeated) { b"]}" } else { b"}" })
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_has_two_forms() {
        let inner = Message::default().with(1, "key", "a\"b").with(2, "big", 300_i64);
        let message = Message::default()
            .with(1, "type", Value::Choice("RULE", 1))
            .each(2, "entry", [inner, Message::default()])
            .each(3, "none", Vec::<String>::new())
            .with(5, "yes", true)
            .each(16, "last", ["x", "y"]);
        let mut json = Vec::new();
        message.write_json(&mut json).expect("memory does not fail");
        assert_eq!(
            String::from_utf8_lossy(&json),
            r#"{"type":"RULE","entry":[{"key":"a\"b","big":300},{}],"yes":true,"last":["x","y"]}"#
        );
        let bytes = [
            &[0x08, 1, 0x12, 8, 0x0a, 3][..],
            b"a\"b",
            &[0x10, 0xac, 0x02, 0x12, 0, 0x28, 1, 0x82, 0x01, 1, b'x', 0x82, 0x01, 1, b'y'],
        ];
        assert_eq!(message.encode(), bytes.concat());
        let negative = Message::default().with(3, "n", -1_i64).encode();
        assert_eq!(negative, [0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }
}
