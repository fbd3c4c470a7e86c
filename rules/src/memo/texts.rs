//! A table of texts that come up in many values, so that each is written once.

use std::collections::HashMap;

use super::codec::{Damaged, Reader, Writer};

/// Texts with their numbers, which never change: new ones come at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextTable {
    texts: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32>,
}

impl TextTable {
    /// The number of a text.
    pub(crate) fn id(&mut self, text: &str) -> u32 {
        if let Some(known) = self.numbers.get(text) {
            return *known;
        }
        let id = u32::try_from(self.texts.len()).expect("fewer than 2^32 texts fit in memory");
        self.texts.push(text.into());
        self.numbers.insert(text.into(), id);
        id
    }

    /// The text of a number.
    pub(crate) fn get(&self, id: u32) -> Result<&str, Damaged> {
        self.texts.get(id as usize).map(|text| &**text).ok_or(Damaged)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.list(self.texts.iter(), |writer, text| writer.text(text));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut table = Self::default();
        for _ in 0..reader.count()? {
            table.id(reader.text()?);
        }
        Ok(table)
    }
}
