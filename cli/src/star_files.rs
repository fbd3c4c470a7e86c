//! Finds the files that `fmt`, `lint` and `template` speak about: `.star` files, and pipelines.
//!
//! Folders are searched without following links. Hidden folders, `maestro-out` and workspaces
//! inside this one are left out, unless they are named.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::PROJECT_FILE;
use crate::exit::Failure;

/// A `.star` file.
pub type StarFile = FoundFile;

/// A file of the workspace, or one that was named.
#[derive(Clone, Debug)]
pub struct FoundFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is called in messages: below the workspace where it lies there.
    pub name: String,
}

/// The files that `paths` name; a folder, or `//folder/...`, stands for all files below it, and
/// `//folder` for those in it.
pub fn find(workspace: &Path, paths: &[PathBuf]) -> Result<Vec<StarFile>> {
    find_files(workspace, paths, |name| name.ends_with(".star"))
}

/// As [`find`], for files whose names are wanted; one that is named itself is always taken.
pub fn find_files(
    workspace: &Path,
    paths: &[PathBuf],
    wanted: fn(&str) -> bool,
) -> Result<Vec<FoundFile>> {
    let whole = [workspace.to_owned()];
    let paths = if paths.is_empty() { whole.as_slice() } else { paths };
    let mut files = Vec::new();
    for path in paths {
        if let Some(pattern) = path.to_str().and_then(|text| text.strip_prefix("//")) {
            package(workspace, pattern, wanted, &mut files)?;
            continue;
        }
        let kind = std::fs::metadata(path)
            .with_context(|| format!("cannot read `{}`", path.display()))
            .map_err(|error| Failure::input(format!("{error:#}")))?;
        match kind.is_dir() {
            true => search(path, wanted, &mut files)?,
            false => files.push(path.clone()),
        }
    }
    let mut found: Vec<FoundFile> = files.into_iter().map(|path| named(workspace, path)).collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found.dedup_by(|left, right| left.path == right.path);
    Ok(found)
}

/// The files of a package, or of all below a folder.
fn package(
    workspace: &Path,
    pattern: &str,
    wanted: fn(&str) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let below = pattern.strip_suffix("...").map(|folder| folder.trim_end_matches('/'));
    let folder = below.unwrap_or_else(|| pattern.split(':').next().unwrap_or_default());
    let path = workspace.join(folder);
    if !path.is_dir() {
        let hint = "a pattern is `//folder`, `//folder:all` or `//folder/...`";
        return Err(Failure::input(format!("there is no folder `{folder}`")).hint(hint).into());
    }
    let before = files.len();
    search(&path, wanted, files)?;
    if below.is_none() {
        let inner = files.split_off(before);
        files.extend(inner.into_iter().filter(|file| file.parent() == Some(&path)));
    }
    Ok(())
}

fn named(workspace: &Path, path: PathBuf) -> FoundFile {
    let whole = path.canonicalize().unwrap_or_else(|_| path.clone());
    let name = match whole.strip_prefix(workspace) {
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    FoundFile { path, name }
}

fn search(top: &Path, wanted: fn(&str) -> bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read `{}`", folder.display()))?;
            let kind = entry.file_type()?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_file() && wanted(&name) {
                files.push(path);
            } else if kind.is_dir() && !name.starts_with('.') && name != "maestro-out" {
                let inner = path.join(PROJECT_FILE).exists();
                if !inner {
                    folders.push(path);
                }
            }
        }
    }
    Ok(())
}

/// Replaces a file's text at once; its permissions stay.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let refused = || format!("cannot write `{}`", path.display());
    // A link stays one: what it names is replaced.
    let path = path.canonicalize().with_context(refused)?;
    let permissions = std::fs::metadata(&path).with_context(refused)?.permissions();
    let mut temp = path.clone().into_os_string();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    std::fs::write(&temp, text).with_context(refused)?;
    std::fs::set_permissions(&temp, permissions).with_context(refused)?;
    std::fs::rename(&temp, &path).with_context(refused)
}
