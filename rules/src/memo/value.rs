//! Values of targets as bytes, and back.
//!
//! What a target gives to its dependents is a tree of providers, structs, lists and so on, parts
//! of which come from the values of its own dependencies. Such a part is not written again: large
//! parts are *records*, and whoever hands one on writes a reference to the target that made it.
//! So a chain of a hundred thousand targets takes bytes in proportion to its length.
//!
//! | value | stored as |
//! |---|---|
//! | none, bool, int up to 64 bits, float, string | itself |
//! | list, tuple, dict, struct, provider, runfiles, target | its parts |
//! | label | its parts |
//! | file | the id of the artifact, and the label of its owner |
//! | depset of files and texts | the id of the set in the graph: nothing is walked |
//! | other depset | its parts |
//! | anything else, such as a function | nothing: the value is [`Opaque`] |
//!
//! Each record has an imprint, which covers content alone: paths and imprints of sets instead of
//! ids, imprints of records instead of references. The imprint of a whole value covers those of
//! all its records, so that equal imprints mean that references to records hold as well.

use std::collections::{HashMap, HashSet};

use maestro_core::{Label, TargetId};
use starlark::values::dict::DictRef;
use starlark::values::float::StarlarkFloat;
use starlark::values::list::ListRef;
use starlark::values::structs::StructRef;
use starlark::values::tuple::TupleRef;
use starlark::values::{UnpackValue, Value, ValueIdentity, ValueLike};

use super::catalog::{Catalog, Reference, SetTrait, Surroundings, order_code};
use super::codec::Writer;
use super::imprint::Imprint;
use super::texts::TextTable;
use crate::values::depset::Depset;
use crate::values::entry::{EntryKind, EntryValue};
use crate::values::file::FileValue;
use crate::values::label::LabelValue;
use crate::values::provider::{ProviderInstance, ProviderType};
use crate::values::runfiles::Runfiles;
use crate::values::target::Target;

/// Parts whose content is longer than this, in bytes, become records.
const INLINE_BYTES_MAX: usize = 64;
/// Deepest nesting of a value that is stored.
const DEPTH_MAX: usize = 1_500;

/// A value that cannot be stored: the type that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opaque {
    pub(crate) kind: String,
}

/// A stored value; the last record is the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) records: Vec<(Imprint, Vec<u8>)>,
    /// The targets whose records it refers to.
    pub(crate) needs: Vec<TargetId>,
}

impl Archive {
    /// What the value comes to, parts that others may refer to included.
    pub(crate) fn imprint(&self) -> Imprint {
        let mut writer = Writer::default();
        for (imprint, _) in &self.records {
            writer.imprint(*imprint);
        }
        Imprint::of(&writer.bytes)
    }
}

/// What begins a part.
pub(super) mod tag {
    pub(in crate::memo) const NONE: u8 = 0;
    pub(in crate::memo) const FALSE: u8 = 1;
    pub(in crate::memo) const TRUE: u8 = 2;
    pub(in crate::memo) const INT: u8 = 3;
    pub(in crate::memo) const FLOAT: u8 = 4;
    pub(in crate::memo) const TEXT: u8 = 5;
    pub(in crate::memo) const LIST: u8 = 6;
    pub(in crate::memo) const TUPLE: u8 = 7;
    pub(in crate::memo) const DICT: u8 = 8;
    pub(in crate::memo) const STRUCT: u8 = 9;
    pub(in crate::memo) const LABEL: u8 = 10;
    pub(in crate::memo) const FILE: u8 = 11;
    pub(in crate::memo) const ENTRY: u8 = 12;
    pub(in crate::memo) const SET: u8 = 13;
    pub(in crate::memo) const PARTED_SET: u8 = 14;
    pub(in crate::memo) const PROVIDER: u8 = 15;
    pub(in crate::memo) const RUNFILES: u8 = 16;
    pub(in crate::memo) const TARGET: u8 = 17;
    pub(in crate::memo) const OWN_RECORD: u8 = 18;
    pub(in crate::memo) const RECORD: u8 = 19;
}

/// Values that were frozen before a target was analyzed: those of its dependencies and constants
/// of files. They are found before the target's own value is frozen, when they can be told apart.
#[derive(Default)]
pub(crate) struct Foreign(HashSet<ValueIdentity<'static>>);

impl Foreign {
    /// The frozen values at the border of one that is not frozen yet.
    pub(crate) fn of<'v>(root: Value<'v>) -> Self {
        let mut found = HashSet::new();
        let mut seen: HashSet<ValueIdentity<'v>> = HashSet::new();
        let mut stack = vec![root];
        while let Some(value) = stack.pop() {
            if is_plain(value) {
                continue;
            }
            match value.unpack_frozen() {
                Some(frozen) => drop(found.insert(frozen.to_value().identity())),
                None if seen.insert(value.identity()) => parts(value, &mut stack),
                None => {}
            }
        }
        Self(found)
    }
}

/// Whether a value is written where it stands, whoever made it.
fn is_plain(value: Value<'_>) -> bool {
    value.is_none() || matches!(value.get_type(), "bool" | "int" | "float" | "string" | "Label")
}

/// What a value holds.
fn parts<'v>(value: Value<'v>, out: &mut Vec<Value<'v>>) {
    if let Some(list) = ListRef::from_value(value) {
        out.extend(list.content());
    } else if let Some(tuple) = TupleRef::from_value(value) {
        out.extend(tuple.content());
    } else if let Some(dict) = DictRef::from_value(value) {
        out.extend(dict.iter().flat_map(|(key, value)| [key, value]));
    } else if let Some(record) = StructRef::from_value(value) {
        out.extend(record.iter().map(|(_, value)| value));
    } else if let Some(instance) = ProviderInstance::from_value(value) {
        out.extend(instance.fields().map(|(_, value)| value));
    } else if let Some(set) = Depset::from_value(value) {
        out.extend(set.parts());
    } else if let Some(runfiles) = Runfiles::from_value(value) {
        out.push(runfiles.file_set());
    } else if let Some(target) = Target::from_value(value) {
        out.extend(&target.instances);
    }
}

/// Writes the value of one target.
pub(crate) struct Archivist<'a> {
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) around: Surroundings<'a>,
    pub(crate) texts: &'a mut TextTable,
    pub(crate) owner: TargetId,
    pub(crate) foreign: &'a Foreign,
}

impl Archivist<'_> {
    /// Stores a frozen value.
    pub(crate) fn archive(self, value: Value<'static>) -> Result<Archive, Opaque> {
        let Self { catalog, around, texts, owner, foreign } = self;
        let mut pen = Pen {
            catalog,
            around,
            texts,
            foreign,
            stored: Writer::default(),
            covered: Writer::default(),
            archive: Archive::default(),
            own: HashMap::new(),
            constant: 0,
            depth: 0,
        };
        pen.compound(value)?;
        let Pen { catalog, stored, covered, mut archive, own, .. } = pen;
        let whole = Imprint::of(&covered.bytes);
        archive.records.push((whole, stored.bytes));
        for (identity, own) in own.into_iter().filter(|(_, own)| own.made_here) {
            catalog.recorded.insert(identity, Reference { owner, imprint: own.imprint });
        }
        catalog.recorded.insert(value.identity(), Reference { owner, imprint: whole });
        Ok(archive)
    }
}

/// A record of the value that is written.
#[derive(Clone, Copy)]
struct OwnRecord {
    number: usize,
    imprint: Imprint,
    /// Whether the target made it; a constant of a file is written by each target that has it.
    made_here: bool,
}

/// Writes two streams at once: what is stored, and what imprints cover.
struct Pen<'a> {
    catalog: &'a mut Catalog,
    around: Surroundings<'a>,
    texts: &'a mut TextTable,
    foreign: &'a Foreign,
    stored: Writer,
    covered: Writer,
    archive: Archive,
    own: HashMap<ValueIdentity<'static>, OwnRecord>,
    /// How many constants of files surround what is written.
    constant: usize,
    depth: usize,
}

impl Pen<'_> {
    fn tag(&mut self, tag: u8) {
        self.stored.byte(tag);
        self.covered.byte(tag);
    }

    fn count(&mut self, count: usize) {
        self.stored.count(count);
        self.covered.count(count);
    }

    fn text(&mut self, text: &str) {
        self.stored.text(text);
        self.covered.text(text);
    }

    /// A text that comes up in many values of a package.
    fn common(&mut self, text: &str) {
        self.stored.number(u64::from(self.texts.id(text)));
        self.covered.text(text);
    }

    fn value(&mut self, value: Value<'static>) -> Result<(), Opaque> {
        if self.atom(value)? {
            return Ok(());
        }
        let identity = value.identity();
        if let Some(own) = self.own.get(&identity).copied() {
            self.refer(own);
            return Ok(());
        }
        if let Some(Reference { owner, imprint }) = self.catalog.recorded.get(&identity).copied() {
            self.tag(tag::RECORD);
            self.stored.number(owner.index() as u64);
            self.stored.imprint(imprint);
            self.covered.imprint(imprint);
            if !self.archive.needs.contains(&owner) {
                self.archive.needs.push(owner);
            }
            return Ok(());
        }
        let constant = usize::from(self.foreign.0.contains(&identity));
        self.constant += constant;
        let (stored, covered) = (self.stored.bytes.len(), self.covered.bytes.len());
        self.compound(value)?;
        let made_here = self.constant == 0;
        self.constant -= constant;
        if self.covered.bytes.len() - covered > INLINE_BYTES_MAX {
            let bytes = self.stored.bytes.split_off(stored);
            let imprint = Imprint::of(&self.covered.bytes.split_off(covered));
            let own = OwnRecord { number: self.archive.records.len(), imprint, made_here };
            self.archive.records.push((imprint, bytes));
            self.own.insert(identity, own);
            self.refer(own);
        }
        Ok(())
    }

    /// Refers to a record of this value; what is covered is what any reference to it covers.
    fn refer(&mut self, own: OwnRecord) {
        self.stored.byte(tag::OWN_RECORD);
        self.stored.count(own.number);
        self.covered.byte(tag::RECORD);
        self.covered.imprint(own.imprint);
    }

    /// Writes a value that holds no other; says whether it is one.
    fn atom(&mut self, value: Value<'static>) -> Result<bool, Opaque> {
        if value.is_none() {
            self.tag(tag::NONE);
        } else if let Some(flag) = value.unpack_bool() {
            self.tag(if flag { tag::TRUE } else { tag::FALSE });
        } else if let Some(text) = value.unpack_str() {
            self.tag(tag::TEXT);
            self.text(text);
        } else if value.get_type() == "int" {
            let number = i64::unpack_value(value).ok().flatten().ok_or_else(|| opaque(value))?;
            self.tag(tag::INT);
            self.stored.signed(number);
            self.covered.signed(number);
        } else if let Some(StarlarkFloat(number)) = value.downcast_ref::<StarlarkFloat>() {
            self.tag(tag::FLOAT);
            self.stored.bytes.extend_from_slice(&number.to_bits().to_le_bytes());
            self.covered.bytes.extend_from_slice(&number.to_bits().to_le_bytes());
        } else if let Some(label) = LabelValue::from_value(value) {
            self.tag(tag::LABEL);
            self.label(&label.label);
        } else if let Some(file) = FileValue::from_value(value) {
            self.tag(tag::FILE);
            self.file(file);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes a value that holds others.
    fn compound(&mut self, value: Value<'static>) -> Result<(), Opaque> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Opaque { kind: "deeply nested value".to_owned() });
        }
        if let Some(list) = ListRef::from_value(value) {
            self.tag(tag::LIST);
            self.values(list.content().iter().copied())?;
        } else if let Some(tuple) = TupleRef::from_value(value) {
            self.tag(tag::TUPLE);
            self.values(tuple.content().iter().copied())?;
        } else if let Some(dict) = DictRef::from_value(value) {
            self.tag(tag::DICT);
            let pairs: Vec<Value<'static>> = dict.iter().flat_map(|(k, v)| [k, v]).collect();
            self.values(pairs.into_iter())?;
        } else if let Some(record) = StructRef::from_value(value) {
            self.tag(tag::STRUCT);
            self.count(record.iter().len());
            for (name, value) in record.iter() {
                self.common(name.as_str());
                self.value(value)?;
            }
        } else if let Some(instance) = ProviderInstance::from_value(value) {
            self.tag(tag::PROVIDER);
            self.provider_type(&instance.ty)?;
            self.count(instance.fields().len());
            for (name, value) in instance.fields() {
                self.common(name);
                self.value(value)?;
            }
        } else if let Some(set) = Depset::from_value(value) {
            self.set(set, value)?;
        } else if let Some(runfiles) = Runfiles::from_value(value) {
            self.tag(tag::RUNFILES);
            self.value(runfiles.file_set())?;
            self.count(runfiles.symlinks().len());
            for (path, file) in runfiles.symlinks() {
                self.text(path);
                self.file(file);
            }
        } else if let Some(target) = Target::from_value(value) {
            self.tag(tag::TARGET);
            self.label(&target.label);
            self.values(target.instances.iter().copied())?;
        } else if let Some(entry) = EntryValue::from_value(value) {
            self.tag(tag::ENTRY);
            self.entry(entry);
        } else {
            return Err(opaque(value));
        }
        self.depth -= 1;
        Ok(())
    }

    fn values(
        &mut self,
        values: impl ExactSizeIterator<Item = Value<'static>>,
    ) -> Result<(), Opaque> {
        self.count(values.len());
        for value in values {
            self.value(value)?;
        }
        Ok(())
    }

    fn set(&mut self, set: &Depset<'static>, value: Value<'static>) -> Result<(), Opaque> {
        let order = order_code(set.order());
        if let Some(id) = set.in_arena() {
            let SetTrait { imprint, plain } = self.catalog.set(id, self.around);
            if plain {
                self.tag(tag::SET);
                self.tag(order);
                self.tag(u8::from(value.to_bool()));
                self.stored.number(id.index() as u64);
                self.stored.imprint(imprint);
                self.covered.imprint(imprint);
                return Ok(());
            }
        }
        let (direct, transitive) = set.shape().ok_or_else(|| opaque(value))?;
        self.tag(tag::PARTED_SET);
        self.tag(order);
        self.stored.number(set.in_arena().map_or(0, |id| id.index() as u64 + 1));
        self.values(direct.iter().copied())?;
        self.values(transitive.iter().copied())
    }

    fn label(&mut self, label: &Label) {
        self.common(&label.repo);
        self.common(&label.package);
        self.text(&label.name);
    }

    fn file(&mut self, file: &FileValue) {
        self.stored.number(file.artifact().index() as u64);
        let imprint = self.catalog.artifact(file.artifact(), self.around);
        self.covered.imprint(imprint);
        self.label(file.owner());
    }

    fn entry(&mut self, entry: &EntryValue) {
        self.text(&entry.path);
        match &entry.what {
            EntryKind::From { input, from, executable } => {
                self.tag(0);
                self.stored.number(input.index() as u64);
                let imprint = self.catalog.artifact(*input, self.around);
                self.covered.imprint(imprint);
                self.text(from);
                self.tag(executable.map_or(2, u8::from));
            }
            EntryKind::Link(text) => {
                self.tag(1);
                self.text(text);
            }
            EntryKind::Content { text, executable } => {
                self.tag(2);
                self.text(text);
                self.tag(u8::from(*executable));
            }
            EntryKind::Folder => self.tag(3),
        }
    }

    fn provider_type(&mut self, ty: &ProviderType) -> Result<(), Opaque> {
        let name = ty.exported_name();
        let name = name.ok_or_else(|| Opaque { kind: "nameless provider".to_owned() })?;
        self.common(ty.file());
        self.common(name);
        let fields = ty.fields();
        self.tag(u8::from(fields.is_some()));
        self.count(fields.map_or(0, <[String]>::len));
        for field in fields.unwrap_or_default() {
            self.common(field);
        }
        Ok(())
    }
}

fn opaque(value: Value<'_>) -> Opaque {
    Opaque { kind: value.get_type().to_owned() }
}
