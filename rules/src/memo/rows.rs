//! The rows of one package: few of many packages are of interest after an edit, so they are read
//! when one of them is asked for.
//!
//! What has to be known of all packages stands before the rows: which targets they are of, and
//! whether there is anything about them that someone who looks at all rows would look for.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};

use maestro_core::TargetId;

use super::codec::{Damaged, Reader, Writer};
use super::targets::{
    HAS_REMARKS, HAS_RUNNABLE, MAIN, PackageKey, Row, Written, read_key, read_target, write_ids,
    write_key,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Rows<'m> {
    ids: Vec<TargetId>,
    /// The flags that some row has.
    some: u8,
    /// The flags that all rows have.
    all: u8,
    sources: Vec<PackageKey>,
    bytes: &'m [u8],
    rows: OnceCell<Result<Vec<Row<'m>>, Damaged>>,
}

impl<'m> Rows<'m> {
    pub(super) fn read(reader: &mut Reader<'m>) -> Result<Self, Damaged> {
        Ok(Self {
            ids: reader.list(read_target)?,
            some: reader.byte()?,
            all: reader.byte()?,
            sources: reader.list(read_key)?,
            bytes: reader.blob()?,
            rows: OnceCell::new(),
        })
    }

    /// Writes rows in the order of their names.
    pub(super) fn write(writer: &mut Writer, rows: &[Written<'_>]) {
        let ids: Vec<TargetId> = rows.iter().map(|row| row.id).collect();
        write_ids(writer, &ids, TargetId::index);
        writer.byte(rows.iter().fold(0, |flags, row| flags | row.flags()));
        writer.byte(rows.iter().fold(u8::MAX, |flags, row| flags & row.flags()));
        let sources: BTreeSet<&PackageKey> = rows.iter().flat_map(|row| row.sources).collect();
        writer.list(sources.into_iter(), write_key);
        let mut own = Writer::default();
        rows.iter().for_each(|row| row.write(&mut own));
        writer.blob(&own.bytes);
    }

    /// The rows in the order of their names; none where they are damaged.
    pub(crate) fn get(&self) -> &[Row<'m>] {
        let rows = self.rows.get_or_init(|| {
            let mut reader = Reader::new(self.bytes);
            let mut rows = Vec::with_capacity(self.ids.len());
            for id in &self.ids {
                let row = Row::read(&mut reader)?;
                (row.id == *id).then_some(()).ok_or(Damaged)?;
                rows.push(row);
            }
            if reader.is_done() { Ok(rows) } else { Err(Damaged) }
        });
        rows.as_deref().unwrap_or_default()
    }

    /// The row of a target.
    pub(super) fn of(&self, id: TargetId) -> Option<&Row<'m>> {
        self.get().get(self.ids.iter().position(|own| *own == id)?)
    }

    /// The targets that rows are of.
    pub(crate) fn ids(&self) -> &[TargetId] {
        &self.ids
    }

    /// Other packages of whose sources some target uses some.
    pub(crate) fn sources(&self) -> &[PackageKey] {
        &self.sources
    }

    /// Whether some target is built for something else only than what was asked for.
    pub(super) fn has_elsewhere(&self) -> bool {
        !self.ids.is_empty() && self.all & MAIN == 0
    }

    /// Whether there is something to say about some target.
    pub(super) fn has_remarks(&self) -> bool {
        self.some & HAS_REMARKS != 0
    }

    /// Whether some target is a program.
    pub(super) fn has_runnable(&self) -> bool {
        self.some & HAS_RUNNABLE != 0
    }

    /// Whether rows were asked for that make no sense.
    pub(super) fn are_damaged(&self) -> bool {
        matches!(self.rows.get(), Some(Err(Damaged)))
    }

    /// Forgets targets.
    pub(super) fn remove(&mut self, gone: &HashSet<TargetId>) {
        if !self.ids.iter().any(|id| gone.contains(id)) {
            return;
        }
        self.get();
        if let Some(Ok(rows)) = self.rows.get_mut() {
            rows.retain(|row| !gone.contains(&row.id));
        }
        self.ids.retain(|id| !gone.contains(id));
    }
}
