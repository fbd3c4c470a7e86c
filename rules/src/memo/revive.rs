//! Stored values of targets as values again.

use std::collections::HashMap;
use std::sync::Arc;

use maestro_core::depset::SetId;
use maestro_core::{ActionGraph, ArtifactId, Label, Origin, TargetId};
use starlark::environment::Module;
use starlark::values::dict::AllocDict;
use starlark::values::list::AllocList;
use starlark::values::structs::AllocStruct;
use starlark::values::tuple::{AllocTuple, TupleRef};
use starlark::values::{FrozenHeapName, FrozenValue, Heap, OwnedFrozenValue, Value};

use super::catalog::{Catalog, Reference, order_of};
use super::codec::{Damaged, Reader};
use super::imprint::Imprint;
use super::texts::TextTable;
use super::value::tag;
use crate::values::depset::Depset;
use crate::values::entry::{EntryKind, EntryValue};
use crate::values::file::{FileOrigin, FileValue};
use crate::values::label::LabelValue;
use crate::values::provider::{ProviderInstance, ProviderType};
use crate::values::runfiles::Runfiles;
use crate::values::target::Target;

/// A value that was revived, with the parts that others refer to.
#[derive(Clone)]
pub(crate) struct Revived {
    /// A tuple of all records; the last one is the whole.
    all: OwnedFrozenValue,
    imprints: Vec<Imprint>,
}

impl Revived {
    /// The whole value.
    pub(crate) fn whole(&self) -> Option<OwnedFrozenValue> {
        self.at(self.imprints.len().checked_sub(1)?)
    }

    /// The record with an imprint.
    fn record(&self, imprint: Imprint) -> Option<OwnedFrozenValue> {
        self.at(self.imprints.iter().position(|own| *own == imprint)?)
    }

    fn at(&self, index: usize) -> Option<OwnedFrozenValue> {
        let record = |all: FrozenValue| {
            let content = TupleRef::from_value(all.to_value())?.content();
            content.get(index)?.unpack_frozen()
        };
        self.all.try_map(|all| record(all).ok_or(())).ok()
    }
}

/// Revives values, those first that others refer to.
pub(crate) struct Reviver<'a> {
    pub(crate) graph: &'a ActionGraph,
    pub(crate) catalog: &'a mut Catalog,
    pub(crate) types: &'a mut HashMap<(String, String), Arc<ProviderType>>,
    /// Values that were revived before.
    pub(crate) others: &'a HashMap<TargetId, Revived>,
    pub(crate) texts: &'a TextTable,
}

impl Reviver<'_> {
    /// Revives the value of `owner` from its records.
    pub(crate) fn revive(
        mut self,
        owner: TargetId,
        label: &Label,
        records: &[(Imprint, &[u8])],
    ) -> Result<Revived, Damaged> {
        let mut failed = false;
        let frozen = Module::with_temp_heap(|module| {
            match self.records(records, module.heap()) {
                Ok(all) => module.set_extra_value(all),
                Err(Damaged) => failed = true,
            }
            module.freeze_named(FrozenHeapName::User(Box::new(label.to_string())))
        });
        if failed {
            return Err(Damaged);
        }
        let all = frozen.map_err(|_| Damaged)?.owned_extra_value().ok_or(Damaged)?;
        let imprints: Vec<Imprint> = records.iter().map(|(imprint, _)| *imprint).collect();
        let revived = Revived { all, imprints };
        for (index, imprint) in revived.imprints.iter().enumerate() {
            let record = revived.at(index).ok_or(Damaged)?;
            let value = record.value().unpack_frozen().ok_or(Damaged)?.to_value();
            self.catalog.recorded.insert(value.identity(), Reference { owner, imprint: *imprint });
        }
        Ok(revived)
    }

    fn records<'v>(
        &mut self,
        records: &[(Imprint, &[u8])],
        heap: Heap<'v>,
    ) -> Result<Value<'v>, Damaged> {
        let mut made: Vec<Value<'v>> = Vec::with_capacity(records.len());
        for (_, bytes) in records {
            let mut reader = Reader::new(bytes);
            let value = self.value(&mut reader, &made, heap)?;
            if !reader.is_done() {
                return Err(Damaged);
            }
            made.push(value);
        }
        Ok(heap.alloc(AllocTuple(made)))
    }

    fn value<'v>(
        &mut self,
        reader: &mut Reader<'_>,
        made: &[Value<'v>],
        heap: Heap<'v>,
    ) -> Result<Value<'v>, Damaged> {
        Ok(match reader.byte()? {
            tag::NONE => Value::new_none(),
            tag::FALSE => Value::new_bool(false),
            tag::TRUE => Value::new_bool(true),
            tag::INT => heap.alloc(reader.signed()?),
            tag::FLOAT => {
                let bits = reader.take(8)?.try_into().map_err(|_| Damaged)?;
                heap.alloc(f64::from_bits(u64::from_le_bytes(bits)))
            }
            tag::TEXT => heap.alloc(reader.text()?),
            tag::LABEL => heap.alloc(LabelValue { label: self.label(reader)? }),
            tag::FILE => heap.alloc(self.file(reader)?),
            tag::OWN_RECORD => {
                let number = usize::try_from(reader.number()?).map_err(|_| Damaged)?;
                made.get(number).copied().ok_or(Damaged)?
            }
            tag::RECORD => {
                let owner = TargetId::from_index(reader.small()? as usize);
                let imprint = reader.imprint()?;
                let record = self.others.get(&owner).and_then(|own| own.record(imprint));
                heap.access_owned_frozen_value(&record.ok_or(Damaged)?)
            }
            kind => self.compound(kind, reader, made, heap)?,
        })
    }

    fn compound<'v>(
        &mut self,
        kind: u8,
        reader: &mut Reader<'_>,
        made: &[Value<'v>],
        heap: Heap<'v>,
    ) -> Result<Value<'v>, Damaged> {
        Ok(match kind {
            tag::LIST => heap.alloc(AllocList(self.values(reader, made, heap)?)),
            tag::TUPLE => heap.alloc(AllocTuple(self.values(reader, made, heap)?)),
            tag::DICT => {
                let flat = self.values(reader, made, heap)?;
                let (pairs, []) = flat.as_chunks::<2>() else { return Err(Damaged) };
                heap.alloc(AllocDict(pairs.iter().map(|[key, value]| (*key, *value))))
            }
            tag::STRUCT => {
                let fields = self.fields(reader, made, heap)?;
                heap.alloc(AllocStruct(fields))
            }
            tag::PROVIDER => {
                let ty = self.provider_type(reader)?;
                let fields = self.fields(reader, made, heap)?;
                heap.alloc(ProviderInstance::recall(ty, fields))
            }
            tag::SET => {
                let order = order_of(reader.byte()?).ok_or(Damaged)?;
                let holds_something = reader.flag()?;
                let set = SetId::from_index(reader.small()? as usize);
                self.catalog.recall_set(set, reader.imprint()?);
                if set.index() >= self.graph.sets.count() {
                    return Err(Damaged);
                }
                let parts = (!holds_something).then(Default::default);
                Depset::recall(order, parts, Some(set), heap)
            }
            tag::PARTED_SET => {
                let order = order_of(reader.byte()?).ok_or(Damaged)?;
                let set = reader.small()?.checked_sub(1);
                let set = set.map(|set| SetId::from_index(set as usize));
                let direct = self.values(reader, made, heap)?;
                let transitive = self.values(reader, made, heap)?;
                Depset::recall(order, Some((direct, transitive)), set, heap)
            }
            tag::RUNFILES => {
                let files = self.value(reader, made, heap)?;
                let links =
                    reader.list(|reader| Ok((reader.text()?.to_owned(), self.file(reader)?)))?;
                heap.alloc(Runfiles::new(files, links))
            }
            tag::TARGET => {
                let label = self.label(reader)?;
                let instances = self.values(reader, made, heap)?;
                let ty = |value: &Value<'v>| Some(ProviderInstance::from_value(*value)?.ty.clone());
                let types: Option<Vec<_>> = instances.iter().map(ty).collect();
                heap.alloc(Target { label, types: types.ok_or(Damaged)?, instances })
            }
            tag::ENTRY => heap.alloc(self.entry(reader)?),
            _ => return Err(Damaged),
        })
    }

    fn values<'v>(
        &mut self,
        reader: &mut Reader<'_>,
        made: &[Value<'v>],
        heap: Heap<'v>,
    ) -> Result<Vec<Value<'v>>, Damaged> {
        reader.list(|reader| self.value(reader, made, heap))
    }

    fn fields<'v>(
        &mut self,
        reader: &mut Reader<'_>,
        made: &[Value<'v>],
        heap: Heap<'v>,
    ) -> Result<Vec<(String, Value<'v>)>, Damaged> {
        reader.list(|reader| {
            let name = self.common(reader)?.to_owned();
            Ok((name, self.value(reader, made, heap)?))
        })
    }

    fn common(&self, reader: &mut Reader<'_>) -> Result<&str, Damaged> {
        self.texts.get(reader.small()?)
    }

    fn label(&self, reader: &mut Reader<'_>) -> Result<Label, Damaged> {
        let (repo, package) = (self.common(reader)?.into(), self.common(reader)?.into());
        Ok(Label { repo, package, name: reader.text()?.into() })
    }

    fn artifact(&self, reader: &mut Reader<'_>) -> Result<ArtifactId, Damaged> {
        let index = reader.small()? as usize;
        let known = index < self.graph.artifact_count();
        known.then(|| ArtifactId::from_index(index)).ok_or(Damaged)
    }

    fn file(&self, reader: &mut Reader<'_>) -> Result<FileValue, Damaged> {
        let id = self.artifact(reader)?;
        let owner = self.label(reader)?;
        let artifact = self.graph.artifact(id);
        let origin = match &artifact.origin {
            Origin::Source | Origin::Builtin(_) => FileOrigin::Source,
            Origin::Action(_) => FileOrigin::Output,
            Origin::Toolchain(_) => FileOrigin::Toolchain,
        };
        Ok(FileValue::new(id, artifact.path.clone(), artifact.kind, origin, owner))
    }

    fn entry(&self, reader: &mut Reader<'_>) -> Result<EntryValue, Damaged> {
        let path = reader.text()?.to_owned();
        let what = match reader.byte()? {
            0 => EntryKind::From {
                input: self.artifact(reader)?,
                from: reader.text()?.to_owned(),
                executable: match reader.byte()? {
                    0 => Some(false),
                    1 => Some(true),
                    2 => None,
                    _ => return Err(Damaged),
                },
            },
            1 => EntryKind::Link(reader.text()?.to_owned()),
            2 => EntryKind::Content { text: reader.text()?.to_owned(), executable: reader.flag()? },
            3 => EntryKind::Folder,
            _ => return Err(Damaged),
        };
        Ok(EntryValue { path, what })
    }

    fn provider_type(&mut self, reader: &mut Reader<'_>) -> Result<Arc<ProviderType>, Damaged> {
        let key = (self.common(reader)?.to_owned(), self.common(reader)?.to_owned());
        let has_fields = reader.flag()?;
        let fields = reader.list(|reader| Ok(self.common(reader)?.to_owned()))?;
        let new = || {
            let fields = has_fields.then_some(fields);
            Arc::new(ProviderType::recall(&key.0, &key.1, fields))
        };
        Ok(match self.types.get(&key) {
            Some(known) => known.clone(),
            None => {
                let new = new();
                self.types.insert(key, new.clone());
                new
            }
        })
    }
}
