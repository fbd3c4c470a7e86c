//! Memory between builds: what an evaluation found out, so that the next one only looks at what
//! changed.
//!
//! | remembered | holds as long as |
//! |---|---|
//! | a `.star` file: what it declared and printed | what it saw of the workspace is the same, and the files that it loads are |
//! | a target: its value, what it made in the graph | its declaration, the code of its rule, what its attributes lead to, and the values of what it depends on are the same |
//! | a request: what its patterns name | the folders that they walk and the names of packages are the same |
//!
//! What is the same is told by *imprints* of content, never by ids; ids lead from what is
//! remembered into the graph, which keeps them. What `select` and platforms read of a package is
//! not tracked by target: where such a definition changes, all targets are analyzed.
//!
//! Rules know nothing of disks, so memory is bytes that the caller keeps: a *base*, written when
//! much changed, and a *delta* over it, which is small. Bytes that are damaged, cut short, or of
//! another version are no error: what they would have told is evaluated.
//!
//! Invariant: an evaluation gives the same with memory and without.

pub(crate) mod catalog;
pub(crate) mod codec;
pub(crate) mod decls;
mod diagnostics;
pub(crate) mod files;
pub(crate) mod imprint;
pub(crate) mod request;
pub(crate) mod revive;
pub(crate) mod rows;
pub(crate) mod session;
pub(crate) mod summary;
pub(crate) mod targets;
pub(crate) mod texts;
pub(crate) mod trace;
pub(crate) mod value;

use std::collections::{BTreeMap, BTreeSet};

use maestro_core::{ActionGraph, Label};

use self::codec::{Reader, Writer};
use self::files::{FileMemory, FileRecord};
use self::request::RequestMemory;
use self::targets::{EntryDraft, TargetMemory};
use self::trace::Changes;
use crate::load::file::display;
use crate::load::packages::Packages;

pub use self::trace::ChangedPaths;

/// Tells remembered bytes from any others; the last two digits are the version.
const MAGIC: &[u8; 8] = b"MAEMEM03";

/// What is remembered of an earlier evaluation of the same request.
#[derive(Debug)]
pub struct Memory<'a> {
    /// The bytes of the last base.
    pub base: &'a [u8],
    /// The bytes of the last delta over it.
    pub delta: Option<&'a [u8]>,
    /// The graph as it was then; without it, all targets are analyzed.
    pub graph: Option<ActionGraph>,
    /// What changed in the workspace since then.
    pub changed: &'a ChangedPaths,
}

/// What is remembered of the packages of a workspace, whatever request found it out, and whatever
/// has changed since.
#[derive(Clone, Copy, Debug)]
pub struct PackageMemory<'a> {
    /// The bytes of the last base.
    pub base: &'a [u8],
    /// The bytes of the last delta over it, if there is one.
    pub delta: Option<&'a [u8]>,
}

/// Has what builds remember of packages. Getting it takes time, so it is asked for where it helps.
pub trait PackageMemories: Sync {
    /// What is remembered, if anything is.
    fn packages(&self) -> Option<PackageMemory<'_>>;
}

/// What is to be remembered of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remember {
    /// Nothing.
    Nothing,
    /// What differs from the base that was given; everything, where none was or it is damaged.
    Delta,
    /// Everything.
    Base,
}

/// What is remembered of this evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// Nothing was asked for.
    Nothing,
    /// It stands beside the base that was given and replaces the delta.
    Delta(Vec<u8>),
    /// It stands alone.
    Base(Vec<u8>),
}

/// What was evaluated rather than remembered, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reevaluated {
    /// `.star` files.
    pub files: Vec<String>,
    /// Packages whose file was evaluated.
    pub packages: Vec<String>,
    /// Targets whose rule's implementation ran.
    pub targets: Vec<String>,
}

/// Memory that was opened, and what changed since it was made.
#[derive(Debug)]
pub(crate) struct Recall<'m> {
    pub(crate) files: FileMemory<'m>,
    pub(crate) changed: Changes<'m>,
    pub(crate) request: Option<RequestMemory>,
    pub(crate) targets: TargetMemory<'m>,
}

/// Nobody looked at what has changed.
static NOT_KNOWN: ChangedPaths = ChangedPaths::Unknown;

impl<'m> Recall<'m> {
    /// Opens what is remembered of packages; `None` where it is damaged.
    pub(crate) fn of_packages(memory: PackageMemory<'m>) -> Option<Self> {
        let mut files = FileMemory::default();
        for (bytes, in_base) in
            std::iter::once((memory.base, true)).chain(memory.delta.map(|delta| (delta, false)))
        {
            files.add(&mut Reader::new(bytes.strip_prefix(MAGIC)?), in_base).ok()?;
        }
        let changed = Changes::new(&NOT_KNOWN);
        Some(Self { files, changed, request: None, targets: TargetMemory::default() })
    }

    /// Opens memory; `None` where it is damaged.
    pub(crate) fn open(memory: &Memory<'m>) -> Option<Self> {
        let mut files = FileMemory::default();
        let mut targets = TargetMemory::default();
        let mut request = None;
        for (bytes, in_base) in
            std::iter::once((memory.base, true)).chain(memory.delta.map(|delta| (delta, false)))
        {
            let mut reader = Reader::new(bytes.strip_prefix(MAGIC)?);
            files.add(&mut reader, in_base).ok()?;
            request = match reader.flag().ok()? {
                true => Some(RequestMemory::read(&mut reader).ok()?),
                false => None,
            };
            targets.add(&mut reader, in_base).ok()?;
            reader.is_done().then_some(())?;
        }
        Some(Self { files, changed: Changes::new(memory.changed), request, targets })
    }
}

/// What is to be remembered of targets.
pub(crate) struct TargetRecord<'a, 'm> {
    pub(crate) request: RequestMemory,
    pub(crate) entries: Vec<EntryDraft<'a, 'm>>,
}

/// Writes what is to be remembered of an evaluation that had no error; over a base where `delta`.
pub(crate) fn write(
    packages: &Packages<'_>,
    targets: Option<TargetRecord<'_, '_>>,
    delta: bool,
) -> Remembered {
    let mut records: BTreeMap<&Label, FileRecord<'_>> = BTreeMap::new();
    let mut lost = BTreeSet::new();
    if let Some(recall) = packages.recall() {
        let before = recall.files.records(delta, &recall.changed);
        records.extend(before.map(|record| (record.file, record)));
        if delta {
            lost.extend(recall.files.lost(&recall.changed, |file| packages.is_evaluated(file)));
        }
    }
    for (file, evaluated) in packages.evaluated() {
        let package = evaluated.package.as_ref().and_then(|own| decls::write_package(own, file));
        let record = FileRecord {
            file,
            trace: &evaluated.trace,
            remarks: &evaluated.remarks,
            package: package.unwrap_or_default().into(),
        };
        records.insert(file, record);
    }
    let mut writer = Writer { bytes: MAGIC.to_vec() };
    files::write(&mut writer, records.into_values(), &lost);
    writer.flag(targets.is_some());
    if let Some(TargetRecord { request, .. }) = &targets {
        request.write(&mut writer);
    }
    let entries = targets.map(|record| record.entries).unwrap_or_default();
    targets::write(&mut writer, entries.into_iter());
    match delta {
        true => Remembered::Delta(writer.bytes),
        false => Remembered::Base(writer.bytes),
    }
}

impl Reevaluated {
    /// What packages evaluated, and targets.
    pub(crate) fn of(packages: &Packages<'_>, targets: Vec<String>) -> Self {
        let mut out = Self { targets, ..Self::default() };
        for (file, evaluated) in packages.evaluated() {
            out.files.push(display(file));
            if evaluated.package.is_some() {
                out.packages.push(package_text(file));
            }
        }
        out.files.sort_unstable();
        out.packages.sort_unstable();
        out
    }
}

fn package_text(file: &Label) -> String {
    match file.repo.is_empty() {
        true => format!("//{}", file.package),
        false => format!("@{}//{}", file.repo, file.package),
    }
}
