//! What there is to know of a package besides its analyzed targets, and what targets read of a
//! configuration.

use super::codec::{Damaged, Reader, Writer};
use super::decls;
use super::files::{read_name, write_name};
use super::imprint::Imprint;
use crate::config::Setting;
use crate::package::Package;

/// What there is to know of a package besides its analyzed targets.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// What its names stand for.
    pub(crate) surface: Imprint,
    /// What it says about configurations, which others read without depending on it.
    pub(crate) definitions: Imprint,
    /// The targets that patterns name, sorted.
    pub(crate) listed: Vec<Box<str>>,
}

impl Summary {
    /// That of a package.
    pub(crate) fn of(package: &Package) -> Self {
        let manual = |tags: Vec<String>| tags.iter().any(|tag| tag == "manual");
        let listed = package.targets.values().filter(|target| !manual(target.strings("tags")));
        Self {
            surface: decls::surface(package),
            definitions: decls::definitions(package),
            listed: listed.map(|target| target.label.name.as_ref().into()).collect(),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { surface, definitions, listed } = self;
        writer.imprint(*surface);
        writer.imprint(*definitions);
        writer.list(listed.iter(), |writer, name| writer.text(name));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            surface: reader.imprint()?,
            definitions: reader.imprint()?,
            listed: reader.list(|reader| Ok(reader.text()?.into()))?,
        })
    }
}

pub(super) fn write_setting(writer: &mut Writer, setting: &Setting) {
    match setting {
        Setting::Param(label) => {
            writer.byte(1);
            write_name(writer, label);
        }
        Setting::Constraint(label) => {
            writer.byte(2);
            write_name(writer, label);
        }
        Setting::Platform => writer.byte(3),
    }
}

pub(super) fn read_setting(reader: &mut Reader<'_>) -> Result<Setting, Damaged> {
    match reader.byte()? {
        1 => Ok(Setting::Param(read_name(reader)?)),
        2 => Ok(Setting::Constraint(read_name(reader)?)),
        3 => Ok(Setting::Platform),
        _ => Err(Damaged),
    }
}
