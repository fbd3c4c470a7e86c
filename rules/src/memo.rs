//! Memory between builds: what an evaluation found out, so that the next one only looks at what
//! changed.
//!
//! | remembered | holds as long as |
//! |---|---|
//! | a `.star` file: what it declared and printed | what it saw of the workspace is the same, and the files that it loads are |
//!
//! Rules know nothing of disks, so memory is bytes that the caller keeps: a *base*, written when
//! much changed, and a *delta* over it, which is small. Bytes that are damaged, cut short, or of
//! another version are no error: what they would have told is evaluated.
//!
//! Invariant: an evaluation gives the same with memory and without.

pub(crate) mod codec;
pub(crate) mod decls;
mod diagnostics;
pub(crate) mod files;
pub(crate) mod imprint;
pub(crate) mod trace;

use std::collections::BTreeMap;

use maestro_core::Label;

use self::codec::{Reader, Writer};
use self::files::{FileMemory, FileRecord};
use crate::load::file::display;
use crate::load::packages::Packages;

pub use self::trace::ChangedPaths;

/// Tells remembered bytes from any others; the last two digits are the version.
const MAGIC: &[u8; 8] = b"MAEMEM01";

/// What is remembered of an earlier evaluation of the same request.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// The bytes of the last base.
    pub base: &'a [u8],
    /// The bytes of the last delta over it.
    pub delta: Option<&'a [u8]>,
    /// What changed in the workspace since then.
    pub changed: &'a ChangedPaths,
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
}

/// Memory that was opened, and what changed since it was made.
#[derive(Debug)]
pub(crate) struct Recall<'m> {
    pub(crate) files: FileMemory<'m>,
    pub(crate) changed: &'m ChangedPaths,
}

impl<'m> Recall<'m> {
    /// Opens memory; `None` where it is damaged.
    pub(crate) fn open(memory: &Memory<'m>) -> Option<Self> {
        let mut files = FileMemory::default();
        for (bytes, in_base) in
            std::iter::once((memory.base, true)).chain(memory.delta.map(|delta| (delta, false)))
        {
            let mut reader = Reader::new(bytes.strip_prefix(MAGIC)?);
            files.add(&mut reader, in_base).ok()?;
            reader.is_done().then_some(())?;
        }
        Some(Self { files, changed: memory.changed })
    }
}

/// Writes what is to be remembered of packages that were loaded without an error.
pub(crate) fn write(packages: &Packages<'_>, remember: Remember) -> Remembered {
    let recall = packages.recall();
    let delta = match remember {
        Remember::Nothing => return Remembered::Nothing,
        Remember::Base => false,
        Remember::Delta => recall.is_some(),
    };
    let mut records: BTreeMap<&Label, FileRecord<'_>> = BTreeMap::new();
    if let Some(recall) = recall {
        records.extend(recall.files.records(delta).map(|record| (record.file, record)));
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
    files::write(&mut writer, records.into_values());
    match delta {
        true => Remembered::Delta(writer.bytes),
        false => Remembered::Base(writer.bytes),
    }
}

impl Reevaluated {
    /// What packages evaluated.
    pub(crate) fn of(packages: &Packages<'_>) -> Self {
        let mut out = Self::default();
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
