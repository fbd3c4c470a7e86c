//! An edit of one line, as a user makes it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Replaces one piece of a file, which stands there exactly once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    /// The file, below the workspace.
    pub(super) file: &'static str,
    /// What stands there.
    pub(super) from: &'static str,
    /// What comes in its place.
    pub(super) to: &'static str,
}

impl Edit {
    /// Makes the edit.
    pub(super) fn apply(self, workspace: &Path) -> Result<()> {
        replace(&workspace.join(self.file), self.from, self.to)
    }

    /// Takes it back.
    pub(super) fn revert(self, workspace: &Path) -> Result<()> {
        replace(&workspace.join(self.file), self.to, self.from)
    }
}

fn replace(path: &Path, from: &str, to: &str) -> Result<()> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let count = text.matches(from).count();
    ensure!(count == 1, "`{from}` stands {count} times in {}, expected once", path.display());
    std::fs::write(path, text.replacen(from, to, 1))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_fit_the_golden_product_and_can_be_taken_back() {
        let golden =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/intelgraph/intelgraph");
        let folder = std::env::temp_dir().join(format!("demo-edit-{}", std::process::id()));
        for edit in [super::super::CODE, super::super::PATCH] {
            let name = edit.file.strip_prefix("intelgraph/").expect("it is in the package");
            let original = std::fs::read_to_string(golden.join(name)).expect("the file exists");
            let copy = folder.join(edit.file);
            std::fs::create_dir_all(copy.parent().expect("in a folder")).expect("a temp folder");
            std::fs::write(&copy, &original).expect("a temp file");
            edit.apply(&folder).expect("the line is there once");
            assert_ne!(std::fs::read_to_string(&copy).expect("readable"), original);
            edit.revert(&folder).expect("the new line is there once");
            assert_eq!(std::fs::read_to_string(&copy).expect("readable"), original);
        }
        std::fs::remove_dir_all(&folder).expect("the temp folder goes away");
    }
}
