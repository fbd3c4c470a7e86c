//! Everything that a query has named so far, package by package.
//!
//! A number stands for each label. Labels of one package are looked up and sorted among each
//! other, by name alone: that is most of what a query over many targets does.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use maestro_core::Label;

use super::graph::What;
use crate::config::definitions::PackageKey;
use crate::package::Package;

/// The number of a label, in the order in which labels were met.
pub(super) type DraftId = usize;

/// A label that was named.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) label: Label,
    /// What it is, once its package is loaded.
    pub(super) what: Option<What>,
    /// Where its dependencies lie, once they are known.
    pub(super) ends: Option<Range<usize>>,
    /// The place of its package.
    home: usize,
}

/// What was named of a package.
#[derive(Debug)]
struct Home {
    key: PackageKey,
    ids: HashMap<Arc<str>, DraftId>,
    state: HomeState,
}

/// How far a package is known.
#[derive(Clone, Debug)]
pub(super) enum HomeState {
    /// Nobody asked for it yet.
    New,
    /// It was asked for, but there is none without an error.
    Broken,
    /// It is loaded.
    Loaded(Arc<Package>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    drafts: Vec<Draft>,
    homes: Vec<Home>,
    places: HashMap<PackageKey, usize>,
    /// The package of the label that was looked up last; the next one is often of the same.
    last: usize,
}

impl Names {
    /// The number of a label; what it is becomes known once.
    pub(super) fn add(&mut self, label: &Label, what: Option<What>) -> DraftId {
        let place = self.place(label);
        let new = self.drafts.len();
        let Some(home) = self.homes.get_mut(place) else { return new };
        if let Some(id) = home.ids.get(&label.name) {
            if let Some(draft) = self.drafts.get_mut(*id)
                && draft.what.is_none()
            {
                draft.what = what;
            }
            return *id;
        }
        home.ids.insert(label.name.clone(), new);
        self.drafts.push(Draft { label: label.clone(), what, ends: None, home: place });
        new
    }

    /// The number of a label that was named.
    pub(super) fn find(&self, label: &Label) -> Option<DraftId> {
        let home = self.homes.get(self.place_of(label)?)?;
        home.ids.get(&label.name).copied()
    }

    /// What was named as a number.
    pub(super) fn get(&self, id: DraftId) -> Option<&Draft> {
        self.drafts.get(id)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: DraftId) -> Option<&mut Draft> {
        self.drafts.get_mut(id)
    }

    /// How many labels were named.
    pub(super) fn len(&self) -> usize {
        self.drafts.len()
    }

    /// The packages of all labels, sorted.
    pub(super) fn packages(&self) -> Vec<PackageKey> {
        let mut keys: Vec<PackageKey> = self.homes.iter().map(|home| home.key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// How far the package of a label is known.
    pub(super) fn home(&self, id: DraftId) -> &HomeState {
        let home = self.drafts.get(id).and_then(|draft| self.homes.get(draft.home));
        home.map_or(&HomeState::New, |home| &home.state)
    }

    /// Says how far packages are known that were not before.
    pub(super) fn settle(&mut self, state: impl Fn(&PackageKey) -> HomeState) {
        for home in &mut self.homes {
            if matches!(home.state, HomeState::New) {
                home.state = state(&home.key);
            }
        }
    }

    /// All that is known for what it is, in the order of labels.
    pub(super) fn sorted(&self) -> Vec<DraftId> {
        let mut homes: Vec<&Home> = self.homes.iter().collect();
        homes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut order = Vec::with_capacity(self.drafts.len());
        for home in homes {
            let known = |id: &DraftId| self.drafts.get(*id).is_some_and(|d| d.what.is_some());
            let own = home.ids.iter().filter(|(_, id)| known(id));
            let mut own: Vec<(&str, DraftId)> = own.map(|(name, id)| (&**name, *id)).collect();
            own.sort_unstable();
            order.extend(own.into_iter().map(|(_, id)| id));
        }
        order
    }

    /// The place of the package of a label; it is made where there is none.
    fn place(&mut self, label: &Label) -> usize {
        if let Some(place) = self.place_of(label) {
            self.last = place;
            return place;
        }
        let key = (label.repo.clone(), label.package.clone());
        self.last = self.homes.len();
        self.places.insert(key.clone(), self.last);
        self.homes.push(Home { key, ids: HashMap::new(), state: HomeState::New });
        self.last
    }

    fn place_of(&self, label: &Label) -> Option<usize> {
        let Label { repo, package, .. } = label;
        let last = self.homes.get(self.last).map(|home| &home.key);
        if last.is_some_and(|last| Arc::ptr_eq(&last.0, repo) && Arc::ptr_eq(&last.1, package)) {
            return Some(self.last);
        }
        self.places.get(&(repo.clone(), package.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_one_number_each_and_sort_by_package_first() {
        let mut names = Names::default();
        let label = |text: &str| Label::parse(text, "", "").expect("a label");
        let texts = ["//b:y", "//b:x", "//b/c:a", "@r//a:z", "//a:z", "//b:x", "//b-c:a", "//b:u"];
        let ids: Vec<DraftId> = texts
            .map(|text| names.add(&label(text), (text != "//b:u").then_some(What::Source(None))))
            .into();
        assert_eq!(ids, [0, 1, 2, 3, 4, 1, 5, 6]);
        let shown = |id: &DraftId| names.get(*id).map(|draft| draft.label.to_string());
        let sorted: Vec<String> = names.sorted().iter().filter_map(shown).collect();
        let mut expect: Vec<Label> = texts[..7].iter().map(|text| label(text)).collect();
        expect.sort();
        expect.dedup();
        let expect: Vec<String> = expect.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, expect);
        assert_eq!(names.find(&label("//a:z")), Some(4));
        assert_eq!(names.find(&label("//a:y")), None);
        assert_eq!(names.find(&label("//z:z")), None);
    }
}
