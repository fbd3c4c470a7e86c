//! What is remembered of `.star` files: what each saw, what it loads, what it printed, and, if it
//! is a package file, what it declared.
//!
//! A file is *clean* if everything that it saw would still be seen and all files that it loads are
//! clean. A clean package file is not evaluated; its package is read from memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use maestro_core::Label;
use maestro_core::host::Host;

use super::codec::{Damaged, Reader, Writer};
use super::diagnostics::{read_diagnostic, write_diagnostic};
use super::imprint::Imprint;
use super::trace::{Changes, Observation};
use crate::diagnostic::Diagnostic;
use crate::library;
use crate::load::file::{path_of, read};
use crate::repos::file_path;

/// What an evaluated file depended on.
#[derive(Clone, Debug)]
pub(crate) struct FileTrace {
    /// The text of the file.
    pub(crate) text: Imprint,
    /// The text of the file and of all that it loads, directly or not.
    pub(crate) transitive: Imprint,
    /// The files that it loads.
    pub(crate) loads: Vec<Label>,
    pub(crate) observations: Vec<Observation>,
}

impl FileTrace {
    /// The trace of a file that loads files with these transitive imprints.
    pub(crate) fn new<'a>(
        text: Imprint,
        loads: impl Iterator<Item = (&'a Label, Imprint)>,
        observations: Vec<Observation>,
    ) -> Self {
        let loads: BTreeMap<&Label, Imprint> = loads.collect();
        let mut writer = Writer::default();
        writer.imprint(text);
        for (label, print) in &loads {
            write_name(&mut writer, label);
            writer.imprint(*print);
        }
        let transitive = Imprint::of(&writer.bytes);
        Self { text, transitive, loads: loads.into_keys().cloned().collect(), observations }
    }
}

/// One file as it is remembered.
#[derive(Clone, Debug)]
struct StoredFile<'m> {
    trace: FileTrace,
    remarks: Vec<Diagnostic>,
    /// The package that it declares, as `decls` writes it; empty if it declares none.
    package: &'m [u8],
    /// Whether it stands in the base, not in the delta.
    in_base: bool,
}

/// Every file that is remembered.
#[derive(Debug, Default)]
pub(crate) struct FileMemory<'m> {
    files: HashMap<Label, StoredFile<'m>>,
    /// Whether a file is clean, as far as that was asked.
    clean: HashMap<Label, bool>,
    /// Files of the base of which nothing is known any more.
    forgotten: BTreeSet<Label>,
}

impl<'m> FileMemory<'m> {
    /// Takes in what [`write`] wrote; what was known of the same file before is forgotten.
    pub(super) fn add(&mut self, reader: &mut Reader<'m>, in_base: bool) -> Result<(), Damaged> {
        for _ in 0..reader.count()? {
            let label = read_name(reader)?;
            let trace = FileTrace {
                text: reader.imprint()?,
                transitive: reader.imprint()?,
                loads: reader.list(read_name)?,
                observations: reader.list(Observation::read)?,
            };
            let remarks = reader.list(read_diagnostic)?;
            let package = reader.blob()?;
            self.files.insert(label, StoredFile { trace, remarks, package, in_base });
        }
        for label in reader.list(read_name)? {
            self.files.remove(&label);
            self.forgotten.insert(label);
        }
        Ok(())
    }

    /// Whether evaluating a file again would give what is remembered.
    pub(crate) fn is_clean(
        &mut self,
        file: &Label,
        host: &dyn Host,
        changed: &Changes<'_>,
    ) -> bool {
        if let Some(known) = self.clean.get(file) {
            return *known;
        }
        // Damaged memory could hold a circle; what is on it is not clean.
        self.clean.insert(file.clone(), false);
        let Some(stored) = self.files.get(file) else { return false };
        let own = match &*file.repo == library::REPO {
            true => library::read(&path_of(file))
                .is_some_and(|text| Imprint::of(text.as_bytes()) == stored.trace.text),
            false => stored.trace.observations.iter().all(|seen| seen.holds(host, changed)),
        };
        let loads = stored.trace.loads.clone();
        let clean = own && loads.iter().all(|load| self.is_clean(load, host, changed));
        self.clean.insert(file.clone(), clean);
        clean
    }

    /// Whether all that a file loads is clean, as far as it is not known that the file is not.
    pub(crate) fn may_be_clean(
        &mut self,
        file: &Label,
        host: &dyn Host,
        changed: &Changes<'_>,
    ) -> bool {
        if self.clean.get(file) == Some(&false) {
            return false;
        }
        let Some(stored) = self.files.get(file) else { return false };
        let loads = stored.trace.loads.clone();
        loads.iter().all(|load| self.is_clean(load, host, changed))
    }

    /// The text of a file that sees what it saw, whatever it loads. Asked from several threads.
    pub(crate) fn same_text(
        &self,
        file: &Label,
        host: &dyn Host,
        changed: &Changes<'_>,
    ) -> Option<String> {
        let FileTrace { text: before, observations, .. } = self.trace(file)?;
        let text = read(host, file).ok()??;
        let path = file_path(file);
        let mut beside = observations.iter().filter(|seen| !seen.is_content_of(&path));
        let same = Imprint::of(text.as_bytes()) == *before;
        (same && beside.all(|seen| seen.holds(host, changed))).then_some(text)
    }

    /// Notes whether a file is clean.
    pub(crate) fn note(&mut self, file: &Label, clean: bool) {
        self.clean.insert(file.clone(), clean);
    }

    /// What is remembered of a file's evaluation.
    pub(crate) fn trace(&self, file: &Label) -> Option<&FileTrace> {
        self.files.get(file).map(|stored| &stored.trace)
    }

    /// The package that a file declared, as bytes; `None` if it is not remembered.
    pub(crate) fn package(&self, file: &Label) -> Option<&'m [u8]> {
        self.files.get(file).map(|stored| stored.package).filter(|bytes| !bytes.is_empty())
    }

    /// What a file printed, and the files that it loads.
    pub(crate) fn said(&self, file: &Label) -> (&[Diagnostic], &[Label]) {
        let stored = self.files.get(file);
        stored.map_or((&[], &[]), |stored| (&stored.remarks, &stored.trace.loads))
    }

    /// What a file and those that it loads, directly or not, printed; `skip` says which of them
    /// are left out.
    pub(crate) fn remarks(
        &self,
        roots: impl Iterator<Item = Label>,
        skip: impl Fn(&Label) -> bool,
    ) -> Vec<Diagnostic> {
        let mut seen = std::collections::HashSet::new();
        let mut stack: Vec<Label> = roots.collect();
        let mut out = Vec::new();
        while let Some(file) = stack.pop() {
            if skip(&file) || !seen.insert(file.clone()) {
                continue;
            }
            let Some(stored) = self.files.get(&file) else { continue };
            out.extend(stored.remarks.iter().cloned());
            stack.extend(stored.trace.loads.iter().cloned());
        }
        out
    }
}

/// One file as it is written.
pub(super) struct FileRecord<'a> {
    pub(super) file: &'a Label,
    pub(super) trace: &'a FileTrace,
    pub(super) remarks: &'a [Diagnostic],
    pub(super) package: Cow<'a, [u8]>,
}

/// Writes files in the order of their labels, then those of which nothing is known any more.
pub(super) fn write<'a>(
    writer: &mut Writer,
    files: impl ExactSizeIterator<Item = FileRecord<'a>>,
    lost: &BTreeSet<&Label>,
) {
    writer.list(files, |writer, record| {
        let FileRecord { file, trace, remarks, package } = record;
        let FileTrace { text, transitive, loads, observations } = trace;
        write_name(writer, file);
        writer.imprint(*text);
        writer.imprint(*transitive);
        writer.list(loads.iter(), write_name);
        writer.list(observations.iter(), |writer, seen| seen.write(writer));
        writer.list(remarks.iter(), write_diagnostic);
        writer.blob(&package);
    });
    writer.list(lost.iter(), |writer, file| write_name(writer, file));
}

impl<'m> FileMemory<'m> {
    /// Whether what is remembered of a file will hold for the next build, which is not told what
    /// has changed for this one.
    fn stays(&self, file: &Label, stored: &StoredFile<'_>, changed: &Changes<'_>) -> bool {
        let is_library = &*file.repo == library::REPO;
        self.clean.get(file).copied().unwrap_or_else(|| {
            is_library || !stored.trace.observations.iter().any(|seen| seen.is_touched(changed))
        })
    }

    /// Files of the base that are to be forgotten, but for those that were evaluated now.
    pub(super) fn lost<'s>(
        &'s self,
        changed: &'s Changes<'_>,
        is_evaluated: impl Fn(&Label) -> bool + 's,
    ) -> impl Iterator<Item = &'s Label> {
        let stale = self.files.iter().filter(|(_, stored)| stored.in_base);
        let stale = stale.filter(|(file, stored)| !self.stays(file, stored, changed));
        let lost = stale.map(|(file, _)| file).chain(&self.forgotten);
        lost.filter(move |file| !is_evaluated(file))
    }

    /// What is remembered and stays, to be written again; that of the delta alone, or all.
    pub(super) fn records<'s>(
        &'s self,
        delta: bool,
        changed: &'s Changes<'_>,
    ) -> impl Iterator<Item = FileRecord<'s>> {
        let wanted = self.files.iter().filter(move |(_, stored)| !delta || !stored.in_base);
        let wanted = wanted.filter(|(file, stored)| self.stays(file, stored, changed));
        wanted.map(|(file, stored)| FileRecord {
            file,
            trace: &stored.trace,
            remarks: &stored.remarks,
            package: Cow::Borrowed(stored.package),
        })
    }
}

pub(super) fn write_name(writer: &mut Writer, label: &Label) {
    for text in [&label.repo, &label.package, &label.name] {
        writer.text(text);
    }
}

pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<Label, Damaged> {
    let mut text = || reader.text();
    Ok(Label { repo: text()?.into(), package: text()?.into(), name: text()?.into() })
}
