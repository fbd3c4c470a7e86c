//! What is remembered of analyzed targets, package by package.
//!
//! Everything that tells which targets an edit affects stands in rows, which are read when one of
//! their package is asked for. What it takes to use a target's value stands in the row's body,
//! which is read when something that depends on the target is analyzed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use maestro_core::{ArtifactId, Label, TargetId};

use super::codec::{Damaged, Reader, Writer};
use super::diagnostics::{read_diagnostic, write_diagnostic};
use super::imprint::Imprint;
use super::rows::Rows;
use super::summary::{Summary, read_setting, write_setting};
use super::texts::TextTable;
use crate::config::{SHARED_ROOT, Setting};
use crate::diagnostic::Diagnostic;
use crate::scope::Runnable;

/// Repository and folder of a package.
pub(crate) type PackageKey = (Arc<str>, Arc<str>);

/// The package of a label.
pub(crate) fn package_of(label: &Label) -> PackageKey {
    (label.repo.clone(), label.package.clone())
}

/// What is remembered of one target.
#[derive(Clone, Debug)]
pub(crate) struct Row<'m> {
    pub(crate) name: &'m str,
    pub(crate) id: TargetId,
    /// More than that of all targets that it depends on.
    pub(crate) rank: u32,
    /// The folder of its outputs, below that of all outputs.
    pub(crate) root: &'m str,
    /// Whether it is built for what was asked for, and not for something else only.
    pub(crate) main: bool,
    /// What it reads of the configuration, with all below it.
    pub(crate) reads: BTreeSet<Setting>,
    /// The declaration, its rule's code included, and what it is built for.
    pub(crate) decl: Imprint,
    /// What a target that depends on it must know besides its value.
    pub(crate) usage: Imprint,
    /// What its attributes lead to.
    pub(crate) edges: Imprint,
    /// Its value; `None` where that could not be stored.
    pub(crate) value: Option<Imprint>,
    /// The targets that it depends on, each once.
    pub(crate) deps: Vec<TargetId>,
    /// Other packages of whose sources it uses some.
    pub(crate) sources: Vec<PackageKey>,
    has_remarks: bool,
    has_runnable: bool,
    body: &'m [u8],
}

/// The rest of what is remembered of a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body<'m> {
    /// The program and how it is run.
    pub(crate) runnable: Option<(ArtifactId, Runnable)>,
    /// What resolving its attributes had to say.
    pub(crate) warnings: Vec<Diagnostic>,
    /// What its implementation printed.
    pub(crate) prints: Vec<Diagnostic>,
    /// Outputs that its attributes name.
    pub(crate) outputs: Vec<(&'m str, ArtifactId)>,
    /// Targets to whose records its value refers.
    pub(crate) needs: Vec<TargetId>,
    /// The records of its value.
    pub(crate) records: Vec<(Imprint, &'m [u8])>,
}

/// What is remembered of one package.
#[derive(Debug)]
pub(crate) struct Entry<'m> {
    pub(crate) summary: Summary,
    texts: &'m [u8],
    pub(crate) rows: Rows<'m>,
    in_base: bool,
}

/// A row under construction.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) label: Label,
    pub(crate) id: TargetId,
    pub(crate) rank: u32,
    pub(crate) root: Arc<str>,
    pub(crate) main: bool,
    pub(crate) reads: BTreeSet<Setting>,
    pub(crate) decl: Imprint,
    pub(crate) usage: Imprint,
    pub(crate) edges: Imprint,
    pub(crate) value: Option<Imprint>,
    pub(crate) deps: Box<[TargetId]>,
    pub(crate) sources: Box<[PackageKey]>,
    pub(crate) has_remarks: bool,
    pub(crate) has_runnable: bool,
    /// What its implementation printed, which stands in the body as well.
    pub(crate) prints: Box<[Diagnostic]>,
    pub(crate) body: Box<[u8]>,
}

/// What the body of a row is made of.
pub(crate) struct BodyParts<'a> {
    pub(crate) runnable: Option<(ArtifactId, &'a Runnable)>,
    pub(crate) warnings: &'a [Diagnostic],
    pub(crate) prints: &'a [Diagnostic],
    pub(crate) outputs: &'a [(Arc<str>, ArtifactId)],
    pub(crate) needs: &'a [TargetId],
    pub(crate) records: &'a [(Imprint, Vec<u8>)],
}

pub(super) fn write_ids<T: Copy>(writer: &mut Writer, ids: &[T], index: impl Fn(T) -> usize) {
    writer.list(ids.iter(), |writer, id| writer.count(index(*id)));
}

pub(super) fn read_target(reader: &mut Reader<'_>) -> Result<TargetId, Damaged> {
    Ok(TargetId::from_index(reader.small()? as usize))
}

fn read_artifact(reader: &mut Reader<'_>) -> Result<ArtifactId, Damaged> {
    Ok(ArtifactId::from_index(reader.small()? as usize))
}

pub(super) fn read_key(reader: &mut Reader<'_>) -> Result<PackageKey, Damaged> {
    Ok((reader.text()?.into(), reader.text()?.into()))
}

pub(super) fn write_key(writer: &mut Writer, (repo, package): &PackageKey) {
    writer.text(repo);
    writer.text(package);
}

/// Writes the body of a row.
pub(crate) fn write_body(parts: &BodyParts<'_>) -> Vec<u8> {
    let BodyParts { runnable, warnings, prints, outputs, needs, records } = parts;
    let mut writer = Writer::default();
    writer.flag(runnable.is_some());
    if let Some((program, Runnable { runfiles, toolchains, env })) = runnable {
        writer.count(program.index());
        writer.count(runfiles.map_or(0, |id| id.index() + 1));
        write_ids(&mut writer, toolchains, ArtifactId::index);
        writer.list(env.iter(), |writer, (name, value)| {
            writer.text(name);
            writer.text(value);
        });
    }
    writer.list(warnings.iter(), write_diagnostic);
    writer.list(prints.iter(), write_diagnostic);
    writer.list(outputs.iter(), |writer, (name, id)| {
        writer.text(name);
        writer.count(id.index());
    });
    write_ids(&mut writer, needs, TargetId::index);
    writer.list(records.iter(), |writer, (imprint, bytes)| {
        writer.imprint(*imprint);
        writer.blob(bytes);
    });
    writer.bytes
}

impl<'m> Row<'m> {
    /// Reads the body.
    pub(crate) fn body(&self) -> Result<Body<'m>, Damaged> {
        let mut reader = Reader::new(self.body);
        let runnable = match reader.flag()? {
            false => None,
            true => {
                let program = read_artifact(&mut reader)?;
                let runfiles = (reader.small()? as usize).checked_sub(1);
                let runfiles = runfiles.map(ArtifactId::from_index);
                let toolchains = reader.list(read_artifact)?;
                let env = reader
                    .list(|reader| Ok((reader.text()?.to_owned(), reader.text()?.to_owned())))?;
                Some((program, Runnable { runfiles, toolchains, env }))
            }
        };
        Ok(Body {
            runnable,
            warnings: reader.list(read_diagnostic)?,
            prints: reader.list(read_diagnostic)?,
            outputs: reader.list(|reader| Ok((reader.text()?, read_artifact(reader)?)))?,
            needs: reader.list(read_target)?,
            records: reader.list(|reader| Ok((reader.imprint()?, reader.blob()?)))?,
        })
    }

    /// Whether there is something to say about the target.
    pub(crate) fn has_remarks(&self) -> bool {
        self.has_remarks
    }

    pub(super) fn read(reader: &mut Reader<'m>) -> Result<Self, Damaged> {
        let name = reader.text()?;
        let id = read_target(reader)?;
        let rank = reader.small()?;
        let flags = reader.byte()?;
        let root = if flags & HAS_ROOT != 0 { reader.text()? } else { SHARED_ROOT };
        let reads = reader.list(read_setting)?.into_iter().collect();
        let (decl, usage, edges) = (reader.imprint()?, reader.imprint()?, reader.imprint()?);
        Ok(Self {
            name,
            id,
            rank,
            root,
            main: flags & MAIN != 0,
            reads,
            decl,
            usage,
            edges,
            value: if flags & HAS_VALUE != 0 { Some(reader.imprint()?) } else { None },
            deps: reader.list(read_target)?,
            sources: reader.list(read_key)?,
            has_remarks: flags & HAS_REMARKS != 0,
            has_runnable: flags & HAS_RUNNABLE != 0,
            body: reader.blob()?,
        })
    }
}

pub(super) const MAIN: u8 = 1;
const HAS_VALUE: u8 = 2;
pub(super) const HAS_REMARKS: u8 = 4;
pub(super) const HAS_RUNNABLE: u8 = 8;
const HAS_ROOT: u8 = 16;

/// A row as it is written, whether it is new or not.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    name: &'a str,
    pub(super) id: TargetId,
    rank: u32,
    flags: [bool; 5],
    root: &'a str,
    reads: &'a BTreeSet<Setting>,
    imprints: [Imprint; 3],
    value: Option<Imprint>,
    deps: &'a [TargetId],
    pub(super) sources: &'a [PackageKey],
    body: &'a [u8],
}

impl<'a> Written<'a> {
    fn of_row(row: &'a Row<'_>) -> Self {
        let Row { name, id, rank, root, main, reads, decl, usage, edges, value, .. } = row;
        let has_root = *root != SHARED_ROOT;
        let flags = [*main, value.is_some(), row.has_remarks, row.has_runnable, has_root];
        let (imprints, deps, sources) = ([*decl, *usage, *edges], &row.deps, &row.sources);
        let (id, rank, value, body) = (*id, *rank, *value, row.body);
        Self { name, id, rank, flags, root, reads, imprints, value, deps, sources, body }
    }

    fn of_note(note: &'a Note) -> Self {
        let Note { label, id, rank, root, main, reads, decl, usage, edges, value, .. } = note;
        let has_root = **root != *SHARED_ROOT;
        let flags = [*main, value.is_some(), note.has_remarks, note.has_runnable, has_root];
        let (imprints, deps, sources) = ([*decl, *usage, *edges], &note.deps, &note.sources);
        let (id, rank, value, body) = (*id, *rank, *value, &*note.body);
        let name = &*label.name;
        Self { name, id, rank, flags, root, reads, imprints, value, deps, sources, body }
    }

    /// What is true of the target, a bit each.
    pub(super) fn flags(self) -> u8 {
        let bits = self.flags.iter().enumerate().map(|(at, flag)| u8::from(*flag) << at);
        bits.sum()
    }

    pub(super) fn write(self, writer: &mut Writer) {
        let Self { name, id, rank, flags: _, root, reads, .. } = self;
        let Self { imprints, value, deps, sources, body, .. } = self;
        writer.text(name);
        writer.count(id.index());
        writer.number(u64::from(rank));
        writer.byte(self.flags());
        if root != SHARED_ROOT {
            writer.text(root);
        }
        writer.list(reads.iter(), write_setting);
        imprints.into_iter().chain(value).for_each(|imprint| writer.imprint(imprint));
        write_ids(writer, deps, TargetId::index);
        writer.list(sources.iter(), write_key);
        writer.blob(body);
    }
}

/// A package as it is written.
pub(crate) struct EntryDraft<'a, 'm> {
    pub(crate) key: PackageKey,
    pub(crate) summary: Summary,
    pub(crate) texts: Option<&'a TextTable>,
    /// What was remembered; rows of which there is a note, or which are gone, are left out.
    pub(crate) before: Option<&'a Entry<'m>>,
    pub(crate) notes: Vec<&'a Note>,
    /// Rows that are gone.
    pub(crate) gone: &'a HashSet<TargetId>,
}

/// Writes packages.
pub(crate) fn write<'a, 'm: 'a>(
    writer: &mut Writer,
    entries: impl ExactSizeIterator<Item = EntryDraft<'a, 'm>>,
) {
    writer.list(entries, |writer, draft| {
        let EntryDraft { key: (repo, package), summary, texts, before, notes, gone } = draft;
        writer.text(&repo);
        writer.text(&package);
        summary.write(writer);
        match (texts, before) {
            (Some(texts), _) => {
                let mut table = Writer::default();
                texts.write(&mut table);
                writer.blob(&table.bytes);
            }
            (None, Some(before)) => writer.blob(before.texts),
            (None, None) => writer.blob(&[]),
        }
        let mut rows: Vec<Written<'_>> = notes.into_iter().map(Written::of_note).collect();
        let noted: HashSet<TargetId> = rows.iter().map(|row| row.id).collect();
        let kept = before.iter().flat_map(|before| before.rows.get());
        let kept = kept.filter(|row| !noted.contains(&row.id) && !gone.contains(&row.id));
        rows.extend(kept.map(Written::of_row));
        rows.sort_by(|a, b| (a.name, a.id).cmp(&(b.name, b.id)));
        Rows::write(writer, &rows);
    });
}

/// Everything that is remembered of targets.
#[derive(Debug, Default)]
pub(crate) struct TargetMemory<'m> {
    pub(crate) entries: HashMap<PackageKey, Entry<'m>>,
    /// Packages in some order, and the place among them of that of each target, or nothing.
    keys: Vec<PackageKey>,
    places: Vec<Option<u32>>,
}

impl<'m> TargetMemory<'m> {
    /// Takes in what [`write`] wrote; what was known of the same package before is forgotten.
    pub(super) fn add(&mut self, reader: &mut Reader<'m>, in_base: bool) -> Result<(), Damaged> {
        for _ in 0..reader.count()? {
            let key = read_key(reader)?;
            let summary = Summary::read(reader)?;
            let texts = reader.blob()?;
            let rows = Rows::read(reader)?;
            self.entries.insert(key, Entry { summary, texts, rows, in_base });
        }
        Ok(())
    }

    /// Makes rows known by the ids of their targets, once all are taken in; there are `targets`.
    pub(crate) fn index(&mut self, targets: usize) {
        self.places = vec![None; targets];
        self.keys = self.entries.keys().cloned().collect();
        for (place, key) in (0..).zip(&self.keys) {
            let ids = self.entries.get(key).into_iter().flat_map(|entry| entry.rows.ids());
            for id in ids {
                if let Some(slot) = self.places.get_mut(id.index()) {
                    *slot = Some(place);
                }
            }
        }
    }

    /// The row of a target, and its package.
    pub(crate) fn row(&self, id: TargetId) -> Option<(&PackageKey, &Row<'m>)> {
        let place = self.places.get(id.index()).copied().flatten()?;
        let key = self.keys.get(place as usize)?;
        Some((key, self.entries.get(key)?.rows.of(id)?))
    }

    /// Whether something was asked for that makes no sense.
    pub(crate) fn is_damaged(&self) -> bool {
        self.entries.values().any(|entry| entry.rows.are_damaged())
    }

    /// Forgets targets.
    pub(crate) fn remove(&mut self, ids: &[TargetId]) {
        let gone: HashSet<TargetId> = ids.iter().copied().collect();
        if gone.is_empty() {
            return;
        }
        for entry in self.entries.values_mut() {
            entry.rows.remove(&gone);
        }
        for id in ids {
            if let Some(slot) = self.places.get_mut(id.index()) {
                *slot = None;
            }
        }
    }

    /// Who depends on a target.
    pub(crate) fn users(&self) -> HashMap<TargetId, Vec<TargetId>> {
        let mut users: HashMap<TargetId, Vec<TargetId>> = HashMap::new();
        for row in self.rows() {
            for dep in &row.deps {
                users.entry(*dep).or_default().push(row.id);
            }
        }
        users
    }

    /// The targets among and above `ids` that are not built for what was asked for, up to those
    /// whose users all are.
    pub(crate) fn users_elsewhere(&self, ids: Vec<TargetId>) -> HashSet<TargetId> {
        let users = self.users();
        let mut seen = HashSet::new();
        let mut stack = ids;
        while let Some(id) = stack.pop() {
            if self.row(id).is_some_and(|(_, row)| !row.main) && seen.insert(id) {
                stack.extend(users.get(&id).into_iter().flatten());
            }
        }
        seen
    }

    /// The row of a label, built for what was asked for.
    pub(crate) fn find(&self, label: &Label) -> Option<&Row<'m>> {
        self.named(label).find(|row| row.main)
    }

    /// The row of a label with a folder of outputs.
    pub(crate) fn find_at(&self, label: &Label, root: &str) -> Option<&Row<'m>> {
        self.named(label).find(|row| row.root == root)
    }

    fn named(&self, label: &Label) -> impl Iterator<Item = &Row<'m>> {
        let rows = self.entries.get(&package_of(label)).map_or(&[][..], |entry| entry.rows.get());
        let first = rows.partition_point(|row| *row.name < *label.name);
        let name = label.name.clone();
        rows.get(first..).unwrap_or_default().iter().take_while(move |row| *row.name == *name)
    }

    /// The label of a target.
    pub(crate) fn label(&self, id: TargetId) -> Option<Label> {
        let ((repo, package), row) = self.row(id)?;
        Some(Label { repo: repo.clone(), package: package.clone(), name: row.name.into() })
    }

    /// All rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row<'m>> {
        self.entries.values().flat_map(|entry| entry.rows.get())
    }

    /// The targets of all rows.
    pub(crate) fn ids(&self) -> impl Iterator<Item = TargetId> + '_ {
        self.entries.values().flat_map(|entry| entry.rows.ids()).copied()
    }

    /// The rows of packages that some test holds for.
    fn rows_of(&self, test: impl Fn(&Rows<'m>) -> bool) -> impl Iterator<Item = &Row<'m>> {
        let entries = self.entries.values().filter(move |entry| test(&entry.rows));
        entries.flat_map(|entry| entry.rows.get())
    }

    /// The rows of targets that are built for something else only than what was asked for.
    pub(crate) fn rows_elsewhere(&self) -> impl Iterator<Item = &Row<'m>> {
        self.rows_of(Rows::has_elsewhere).filter(|row| !row.main)
    }

    /// The rows of targets about which there is something to say.
    pub(crate) fn rows_with_remarks(&self) -> impl Iterator<Item = &Row<'m>> {
        self.rows_of(Rows::has_remarks).filter(|row| row.has_remarks)
    }

    /// The texts that the values of a package share.
    pub(crate) fn texts(&self, key: &PackageKey) -> Result<TextTable, Damaged> {
        match self.entries.get(key).map(|entry| entry.texts) {
            None | Some([]) => Ok(TextTable::default()),
            Some(bytes) => TextTable::read(&mut Reader::new(bytes)),
        }
    }

    /// Every program that a rule made, and how it is run.
    pub(crate) fn runnables(&self) -> Result<HashMap<ArtifactId, Runnable>, Damaged> {
        let rows = self.rows_of(Rows::has_runnable).filter(|row| row.has_runnable);
        rows.filter_map(|row| row.body().map(|body| body.runnable).transpose()).collect()
    }
}

impl Entry<'_> {
    /// Whether it stands in the base, not in the delta.
    pub(crate) fn is_in_base(&self) -> bool {
        self.in_base
    }
}
