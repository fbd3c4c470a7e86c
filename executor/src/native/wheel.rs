//! `wheel`: a package of Python, installed as the binary distribution format says (PEP 427).
//!
//! The tree has modules in `lib`, programs in `bin`, and whatever else the wheel spreads. The list
//! `RECORD` must name every file with the SHA-256 that it has, and no other file. Nothing of the
//! package is run, and no byte code is written, so that the tree depends on the wheel alone.

mod record;
mod scripts;

use maestro_core::merkle::Node;
use maestro_core::path::RelPath;
use maestro_core::{Digest, limits};

use super::compose::{Composition, LinkRule, Place};
use super::scratch::sha256;
use super::{Made, NativeError, Step, request, unpack};
use record::Record;

/// Where modules are put.
const LIBRARY: &str = "lib";
/// Where programs are put.
const PROGRAMS: &str = "bin";

/// `wheel`: see the module.
pub(super) fn wheel(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::Wheel { archive, interpreter, sha256: pinned } = step.request()?;
    let (blob, _) = step.inputs.file("archive", &archive)?;
    let actual = sha256(step.store, &blob, step.cancel)?.hex();
    if !pinned.contains(&actual) {
        let why = format!("its SHA-256 is {actual}, which is not pinned");
        return Err(NativeError::Archive { archive, why });
    }
    let root = unpack::zip_tree(step, &archive, &blob)?;
    let files = step.store.tree_files(&root)?;
    let fail = |why: String| NativeError::Archive { archive: archive.clone(), why };
    if let Some(link) = files.iter().find(|entry| matches!(entry.node, Node::Symlink { .. })) {
        return Err(fail(format!("entry `{}`: a wheel has no links", link.path)));
    }
    let info = info_folder(files.iter().map(|entry| entry.path.as_str())).map_err(fail)?;
    let mut install = Install {
        step,
        archive: &archive,
        interpreter: &interpreter,
        data: format!("{}.data", info.trim_end_matches(".dist-info")),
        tree: Composition::new(step.store, LinkRule::Inside),
    };
    let text = |name: &str| install.text(&files, &format!("{info}/{name}"));
    let wheel = text("WHEEL")?.ok_or_else(|| fail(format!("it has no `{info}/WHEEL`")))?;
    check_version(&wheel).map_err(fail)?;
    let record = text("RECORD")?.ok_or_else(|| fail(format!("it has no `{info}/RECORD`")))?;
    let entry_points = text("entry_points.txt")?.unwrap_or_default();
    let mut record = Record::parse(&record, &info).map_err(fail)?;
    for entry in &files {
        let Node::File { digest, executable } = entry.node else { continue };
        if step.cancel.is_cancelled() {
            return Err(NativeError::Cancelled);
        }
        record.check(&entry.path, || sha256(step.store, &digest, step.cancel))?.map_err(fail)?;
        install.place(&entry.path, digest, executable)?;
    }
    record.finish().map_err(fail)?;
    install.programs(&entry_points)?;
    Ok(Made::Tree { root: install.tree.finish()? })
}

/// The one folder at the top whose name ends with `.dist-info`.
fn info_folder<'a>(paths: impl Iterator<Item = &'a str>) -> Result<String, String> {
    let mut found: Option<&str> = None;
    for path in paths {
        let Some((top, _)) = path.split_once('/') else { continue };
        match found {
            _ if !top.ends_with(".dist-info") => {}
            Some(other) if other != top => {
                return Err(format!("it has both `{other}` and `{top}`"));
            }
            _ => found = Some(top),
        }
    }
    let found = found.ok_or("it has no folder `NAME-VERSION.dist-info`, so it is no wheel")?;
    Ok(found.to_owned())
}

fn check_version(wheel: &str) -> Result<(), String> {
    let version = wheel.lines().find_map(|line| line.strip_prefix("Wheel-Version:"));
    let version = version.ok_or("`WHEEL` does not say its version")?.trim();
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(format!("its format has the version `{version}`; supported is 1")),
    }
}

/// A package on its way into a tree.
struct Install<'a, 'b> {
    step: &'a Step<'b>,
    archive: &'a str,
    interpreter: &'a str,
    /// The folder whose content is spread.
    data: String,
    tree: Composition<'b>,
}

impl Install<'_, '_> {
    fn fail(&self, why: impl Into<String>) -> NativeError {
        NativeError::Archive { archive: self.archive.to_owned(), why: why.into() }
    }

    /// A small text of the wheel.
    fn text(
        &self,
        files: &[maestro_cas::TreeEntry],
        path: &str,
    ) -> Result<Option<String>, NativeError> {
        let Some(entry) = files.iter().find(|entry| entry.path == path) else { return Ok(None) };
        let Node::File { digest, .. } = entry.node else { return Ok(None) };
        self.read(path, &digest).map(Some)
    }

    fn read(&self, path: &str, digest: &Digest) -> Result<String, NativeError> {
        if digest.size > limits::BLOB_IN_MEMORY_BYTES_MAX {
            let limit = limits::BLOB_IN_MEMORY_BYTES_MAX;
            return Err(NativeError::TooLarge { what: format!("`{path}`"), limit });
        }
        let bytes = self.step.store.read(digest)?;
        String::from_utf8(bytes).map_err(|_| self.fail(format!("`{path}` is not UTF-8")))
    }

    /// Puts a file where the format says.
    fn place(&mut self, path: &str, digest: Digest, executable: bool) -> Result<(), NativeError> {
        let inside = path.strip_prefix(&self.data).and_then(|rest| rest.strip_prefix('/'));
        let Some(inside) = inside else {
            return self.put(&format!("{LIBRARY}/{path}"), digest, executable);
        };
        let odd = || format!("entry `{path}`: `{inside}` is in no known part of `{}`", self.data);
        let (part, rest) = inside.split_once('/').ok_or_else(|| self.fail(odd()))?;
        match part {
            "purelib" | "platlib" => self.put(&format!("{LIBRARY}/{rest}"), digest, executable),
            "headers" => self.put(&format!("include/{rest}"), digest, executable),
            "data" => self.put(rest, digest, executable),
            "scripts" => {
                let content = self.step.store.read(&digest)?;
                let content = scripts::with_interpreter(content, self.interpreter);
                let digest = self.step.store.put_bytes(&content)?;
                self.put(&format!("{PROGRAMS}/{rest}"), digest, true)
            }
            _ => Err(self.fail(odd())),
        }
    }

    /// Writes the programs that the package declares instead of bringing them.
    fn programs(&mut self, entry_points: &str) -> Result<(), NativeError> {
        for script in scripts::declared(entry_points).map_err(|why| self.fail(why))? {
            let text = script.launcher(self.interpreter);
            let digest = self.step.store.put_bytes(text.as_bytes())?;
            self.put(&format!("{PROGRAMS}/{}", script.name), digest, true)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &str, digest: Digest, executable: bool) -> Result<(), NativeError> {
        let path = RelPath::new(path).map_err(|error| self.fail(error.to_string()))?;
        self.tree.put(Some(&path), Place::File { digest, executable })
    }
}

#[cfg(test)]
mod tests;
