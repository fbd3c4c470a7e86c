//! What is remembered of a request: what its patterns came to, and which folders they walked.

use std::collections::BTreeMap;

use maestro_core::{Label, TargetId};

use super::codec::{Damaged, Reader, Writer};
use super::files::{read_name, write_name};
use super::imprint::Imprint;

/// A folder that a pattern walked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Whether it is a package.
    pub(crate) is_package: bool,
    /// The folders in it, by name.
    pub(crate) inner: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestMemory {
    /// What was asked for.
    pub(crate) asked: Imprint,
    /// How many targets the graph had.
    pub(crate) target_count: usize,
    /// What the patterns name, in their order.
    pub(crate) requested: Vec<TargetId>,
    /// Files among that, with the targets that stand for them.
    pub(crate) files: Vec<(Label, TargetId)>,
    /// Targets that were needed once and no longer are.
    pub(crate) gone: Vec<TargetId>,
    /// Folders by their path in their repository's tree.
    pub(crate) folders: BTreeMap<String, Folder>,
}

impl RequestMemory {
    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { asked, target_count, requested, files, gone, folders } = self;
        writer.imprint(*asked);
        writer.count(*target_count);
        writer.list(requested.iter(), |writer, id| writer.count(id.index()));
        writer.list(files.iter(), |writer, (label, id)| {
            write_name(writer, label);
            writer.count(id.index());
        });
        writer.list(gone.iter(), |writer, id| writer.count(id.index()));
        writer.list(folders.iter(), |writer, (path, Folder { is_package, inner })| {
            writer.text(path);
            writer.flag(*is_package);
            writer.list(inner.iter(), |writer, name| writer.text(name));
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let id = |reader: &mut Reader<'_>| Ok(TargetId::from_index(reader.small()? as usize));
        Ok(Self {
            asked: reader.imprint()?,
            target_count: reader.small()? as usize,
            requested: reader.list(id)?,
            files: reader.list(|reader| Ok((read_name(reader)?, id(reader)?)))?,
            gone: reader.list(id)?,
            folders: reader
                .list(|reader| {
                    let path = reader.text()?.to_owned();
                    let is_package = reader.flag()?;
                    let inner = reader.list(|reader| Ok(reader.text()?.to_owned()))?;
                    Ok((path, Folder { is_package, inner }))
                })?
                .into_iter()
                .collect(),
        })
    }
}
