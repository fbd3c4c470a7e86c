//! Configurations: what a target is built for.
//!
//! A configuration says which params differ from their defaults, and the target platform. It is
//! interned: a target of a hundred thousand holds four bytes. What a target depends on of it is
//! found out afterwards, by collecting what was read on the way down; the rest is trimmed, so that
//! two configurations that differ only in what a target does not read are one to it.
//!
//! What build files say about all this is read in `definitions`, what users ask for in `request`;
//! `choice` decides each `select`, and `reads` holds what was looked at.

pub(crate) mod choice;
pub(crate) mod definitions;
pub(crate) mod reads;
pub(crate) mod request;
pub(crate) mod toolchains;
pub(crate) mod transition;

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use maestro_core::{DigestFunction, Label};

use starlark::values::list::AllocList;
use starlark::values::{Heap, Value};

use crate::library;
use crate::values::label::LabelValue;

/// Something that a configuration has a value for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Setting {
    /// A param, by its label.
    Param(Label),
    /// What the target platform says about a constraint setting.
    Constraint(Label),
    /// The target platform itself.
    Platform,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(label) | Self::Constraint(label) => label.fmt(f),
            Self::Platform => f.write_str("platform"),
        }
    }
}

/// The value of a [`Setting`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SettingValue {
    /// No value: a constraint setting that the platform says nothing about.
    Unset,
    Bool(bool),
    Int(i32),
    String(Arc<str>),
    Strings(Vec<Arc<str>>),
    /// A constraint value or a platform.
    Label(Label),
}

impl SettingValue {
    /// The value for implementations.
    pub(crate) fn alloc<'v>(&self, heap: Heap<'v>) -> Value<'v> {
        match self {
            Self::Unset => Value::new_none(),
            Self::Bool(value) => Value::new_bool(*value),
            Self::Int(value) => heap.alloc(*value),
            Self::String(text) => heap.alloc(&**text),
            Self::Strings(list) => heap.alloc(AllocList(list.iter().map(|text| &**text))),
            Self::Label(label) => heap.alloc(LabelValue { label: label.clone() }),
        }
    }
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_str("(none)"),
            Self::Bool(value) => f.write_str(if *value { "true" } else { "false" }),
            Self::Int(value) => value.fmt(f),
            Self::String(text) => text.fmt(f),
            Self::Strings(list) => f.write_str(&list.join(",")),
            Self::Label(label) => label.fmt(f),
        }
    }
}

/// Names an interned configuration; the first one is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConfigId(u32);

impl ConfigId {
    /// Every param at its default, for the machine's own platform.
    pub(crate) const DEFAULT: Self = Self(0);
}

/// What targets are built for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Configuration {
    /// Params whose values are not their defaults.
    pub(crate) params: BTreeMap<Label, SettingValue>,
    /// The target platform.
    pub(crate) platform: Label,
}

/// Every configuration of a request, each once.
#[derive(Debug)]
pub(crate) struct Configurations {
    all: Vec<Arc<Configuration>>,
    ids: HashMap<Arc<Configuration>, ConfigId>,
}

impl Configurations {
    /// Knows the default configuration, whose platform is given.
    pub(crate) fn new(host_platform: Label) -> Self {
        let mut out = Self { all: Vec::new(), ids: HashMap::new() };
        out.intern(Configuration { params: BTreeMap::new(), platform: host_platform });
        out
    }

    /// The id of a configuration.
    pub(crate) fn intern(&mut self, configuration: Configuration) -> ConfigId {
        if let Some(id) = self.ids.get(&configuration) {
            return *id;
        }
        let id = ConfigId(u32::try_from(self.all.len()).expect("configurations fit in memory"));
        let configuration = Arc::new(configuration);
        self.all.push(configuration.clone());
        self.ids.insert(configuration, id);
        id
    }

    /// The configuration of an id.
    pub(crate) fn get(&self, id: ConfigId) -> &Arc<Configuration> {
        self.all.get(id.0 as usize).expect("an id comes from this table")
    }
}

/// Names an interned trimmed configuration; the first one is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TrimId(u32);

impl TrimId {
    /// Nothing that was read differs from its default.
    pub(crate) const SHARED: Self = Self(0);
}

/// A configuration as far as a target reads it and as it differs from the default.
#[derive(Clone, Debug)]
pub(crate) struct Trimmed {
    /// What was read and is not as by default, sorted.
    pub(crate) values: Vec<(Setting, SettingValue)>,
    /// The folder of the outputs below `maestro-out`: `shared`, or a short hash of `values`.
    pub(crate) root: Arc<str>,
}

/// Every trimmed configuration of a request, each once.
#[derive(Debug)]
pub(crate) struct TrimTable {
    all: Vec<Trimmed>,
    ids: HashMap<Vec<(Setting, SettingValue)>, TrimId>,
}

/// The platform of the machine that Maestro runs on.
pub(crate) fn host_platform() -> Label {
    Label::new(library::REPO, "platforms", "host").expect("a constant label is valid")
}

/// The folder of outputs that no configuration changes.
pub(crate) const SHARED_ROOT: &str = "shared";

impl TrimTable {
    /// Knows the empty one.
    pub(crate) fn new() -> Self {
        let mut out = Self { all: Vec::new(), ids: HashMap::new() };
        out.intern(Vec::new());
        out
    }

    /// The id of sorted values.
    pub(crate) fn intern(&mut self, values: Vec<(Setting, SettingValue)>) -> TrimId {
        if let Some(id) = self.ids.get(&values) {
            return *id;
        }
        let id = TrimId(u32::try_from(self.all.len()).expect("configurations fit in memory"));
        let root = root_of(&values);
        self.ids.insert(values.clone(), id);
        self.all.push(Trimmed { values, root });
        id
    }

    /// The trimmed configuration of an id.
    pub(crate) fn get(&self, id: TrimId) -> &Trimmed {
        self.all.get(id.0 as usize).expect("an id comes from this table")
    }
}

/// A short hash that depends on what was read and on nothing else.
fn root_of(values: &[(Setting, SettingValue)]) -> Arc<str> {
    if values.is_empty() {
        return SHARED_ROOT.into();
    }
    let mut text = String::new();
    for (setting, value) in values {
        // The type is part of the text: the string `1` is not the number 1.
        let _ = writeln!(text, "{setting:?} = {value:?}");
    }
    DigestFunction::Sha256.digest(text.as_bytes()).short().as_str().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_root_and_others_do_not() {
        let label = |text: &str| Label::parse(text, "", "").expect("valid");
        let mut table = TrimTable::new();
        let one = vec![(Setting::Param(label("//:a")), SettingValue::String("1".into()))];
        let two = vec![(Setting::Param(label("//:a")), SettingValue::Int(1))];
        let first = table.intern(one.clone());
        assert_eq!(table.intern(Vec::new()), TrimId::SHARED);
        assert_eq!(&*table.get(TrimId::SHARED).root, "shared");
        assert_eq!(table.intern(one), first);
        let second = table.intern(two);
        assert_ne!(table.get(first).root, table.get(second).root);
    }
}
