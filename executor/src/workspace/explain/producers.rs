//! Which action made which path, as the build log tells it.

use std::collections::HashMap;

use maestro_core::key::NATIVE_INPUTS;

use crate::workspace::build_log::ActionRecord;

/// Which action made which path.
pub(super) struct Producers(HashMap<String, usize>);

impl Producers {
    pub(super) fn of(records: &[ActionRecord]) -> Self {
        let outputs = records.iter().enumerate().flat_map(|(index, record)| {
            record.parts.outputs.iter().map(move |path| (path.clone(), index))
        });
        Self(outputs.collect())
    }

    pub(super) fn of_input(&self, record: &ActionRecord, path: &str) -> Option<usize> {
        // A file of a tree was made by whoever made the tree, unless it has a maker of its own.
        let mut above = Some(execution_path(record, path));
        while let Some(path) = above {
            if let Some(index) = self.0.get(path) {
                return Some(*index);
            }
            above = path.rsplit_once('/').map(|(parent, _)| parent);
        }
        None
    }
}

/// Native steps see their inputs below a folder of their own.
pub(super) fn execution_path<'a>(record: &ActionRecord, path: &'a str) -> &'a str {
    if !is_native(record) {
        return path;
    }
    let below = path.strip_prefix(NATIVE_INPUTS).and_then(|rest| rest.strip_prefix('/'));
    below.unwrap_or(path)
}

pub(super) fn is_native(record: &ActionRecord) -> bool {
    record.parts.arguments.first().is_some_and(|first| first.starts_with("@maestro//"))
}
