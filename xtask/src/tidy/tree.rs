//! Reads the text files of the repository.
//!
//! Git is not asked, so that an unpacked archive can be checked too; instead the folders that are
//! never committed are passed over by name.

use std::path::Path;

use anyhow::{Context, Result};

/// Folders that are made by building.
const MADE: [&str; 5] = [".git", "target", "node_modules", "maestro-out", "__pycache__"];

/// A text file of the repository.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// The path below the root, with `/`.
    pub(crate) path: String,
    /// The content.
    pub(crate) text: String,
}

impl SourceFile {
    /// Whether the name ends so: `.rs`.
    pub(crate) fn has_suffix(&self, suffix: &str) -> bool {
        self.path.ends_with(suffix)
    }

    /// Numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

/// All text files below `root`, sorted by path; what is not UTF-8 is left out.
pub(crate) fn read(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {}", path.display()))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let below = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().with_context(|| format!("cannot stat `{below}`"))?;
            if kind.is_dir() && !MADE.contains(&name.as_str()) {
                folders.push(below);
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())
                    .with_context(|| format!("cannot read `{below}`"))?;
                if let Ok(text) = String::from_utf8(bytes) {
                    files.push(SourceFile { path: below, text });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
