//! Sets of settings that were read, each kept once: most targets read nothing, and most others
//! read what their neighbours read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::Setting;

/// Names an interned set; the first one is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ReadsId(u32);

impl ReadsId {
    /// Nothing was read.
    pub(crate) const NONE: Self = Self(0);
}

/// Every set of a request.
#[derive(Debug)]
pub(crate) struct ReadsTable {
    all: Vec<Arc<BTreeSet<Setting>>>,
    ids: HashMap<Arc<BTreeSet<Setting>>, ReadsId>,
    unions: HashMap<(ReadsId, ReadsId), ReadsId>,
}

impl ReadsTable {
    /// Knows the empty set.
    pub(crate) fn new() -> Self {
        let mut out = Self { all: Vec::new(), ids: HashMap::new(), unions: HashMap::new() };
        out.intern(BTreeSet::new());
        out
    }

    /// The id of a set.
    pub(crate) fn intern(&mut self, set: BTreeSet<Setting>) -> ReadsId {
        if let Some(id) = self.ids.get(&set) {
            return *id;
        }
        let id = ReadsId(u32::try_from(self.all.len()).expect("sets of settings fit in memory"));
        let set = Arc::new(set);
        self.all.push(set.clone());
        self.ids.insert(set, id);
        id
    }

    /// The set of an id.
    pub(crate) fn get(&self, id: ReadsId) -> &Arc<BTreeSet<Setting>> {
        self.all.get(id.0 as usize).expect("an id comes from this table")
    }

    /// What is in one of two sets.
    pub(crate) fn union(&mut self, left: ReadsId, right: ReadsId) -> ReadsId {
        if left == right || right == ReadsId::NONE {
            return left;
        }
        if left == ReadsId::NONE {
            return right;
        }
        if let Some(known) = self.unions.get(&(left, right)) {
            return *known;
        }
        let both = self.get(left).union(self.get(right)).cloned().collect();
        let id = self.intern(both);
        self.unions.insert((left, right), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maestro_core::Label;

    #[test]
    fn equal_sets_are_one() {
        let setting = |name: &str| Setting::Param(Label::new("", "", name).expect("valid"));
        let mut table = ReadsTable::new();
        let a = table.intern(BTreeSet::from([setting("a")]));
        let b = table.intern(BTreeSet::from([setting("b")]));
        let both = table.union(a, b);
        assert_eq!(table.union(b, a), both);
        assert_eq!(table.union(both, a), both);
        assert_eq!(table.union(a, ReadsId::NONE), a);
        assert_eq!(table.get(both).len(), 2);
    }
}
