//! Protobuf fields, written canonically and walked defensively.
//!
//! Nothing here knows a message. A [`Reader`] borrows all that it gives, never reads past its
//! bytes, and takes work in proportion to them.

use super::DecodeError;
use crate::digest::Digest;

/// Appends protobuf fields. Defaults are left out, as canonical encoders do.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    pub(super) fn integer(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, 0);
            self.varint(value);
        }
    }

    pub(super) fn boolean(&mut self, field: u32, value: bool) {
        self.integer(field, u64::from(value));
    }

    pub(super) fn blob(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.encoded(field, value);
        }
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.blob(field, value.as_bytes());
    }

    /// An element of a repeated string field, which is written even when empty.
    pub(super) fn element(&mut self, field: u32, value: &str) {
        self.encoded(field, value.as_bytes());
    }

    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.encoded(field, &inner.0);
    }

    /// A message whose bytes are known; written even when empty.
    pub(super) fn encoded(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn digest(&mut self, field: u32, digest: &Digest) {
        self.message(field, |out| {
            out.text(1, &digest.hex());
            out.integer(2, digest.size);
        });
    }

    pub(super) fn duration(&mut self, field: u32, ms: u64) {
        self.message(field, |out| {
            out.integer(1, ms / 1000);
            out.integer(2, ms % 1000 * 1_000_000);
        });
    }

    pub(super) fn platform(&mut self, field: u32, properties: &[(String, String)]) {
        if properties.is_empty() {
            return;
        }
        self.message(field, |out| {
            for (name, value) in properties {
                out.message(1, |out| {
                    out.text(1, name);
                    out.text(2, value);
                });
            }
        });
    }
}

/// Walks the fields of a message that came from outside.
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'static str, bytes: &'a [u8]) -> Self {
        Self { message, rest: bytes }
    }

    pub(super) fn fail(&self, why: &'static str) -> DecodeError {
        DecodeError { message: self.message, why }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field =
            u32::try_from(tag >> 3).map_err(|_| self.fail("a field number is too large"))?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                let length = usize::try_from(length).map_err(|_| self.fail("it is cut off"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(self.fail("a wire type is unknown")),
        };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(self.fail("it is cut off")) };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fail("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(self.fail("it is cut off"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn bytes(&self, value: Value<'a>) -> Result<&'a [u8], DecodeError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err(self.fail("a field has the wrong type")),
        }
    }

    pub(super) fn number(&self, value: Value<'a>) -> Result<u64, DecodeError> {
        match value {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) => Err(self.fail("a field has the wrong type")),
        }
    }

    pub(super) fn text(&self, value: Value<'a>) -> Result<String, DecodeError> {
        let bytes = self.bytes(value)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.fail("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }
}
