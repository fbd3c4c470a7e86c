//! `cargo xtask crates`: the list of crates from which Maestro builds its own core.
//!
//! Cargo itself decides which packages of `Cargo.lock` the core needs: the lock is reduced to a
//! workspace in which the core is the only member. The list is a build file, since build files
//! cannot read `Cargo.lock`; a test here and, harder, cargo in the sandbox check that they agree.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process;
use crate::project::Project;

/// The members that `maestro.star` names.
const MEMBERS: [&str; 1] = ["core"];
/// The list, below the root of the repository.
const LIST: &str = "third_party/crates.star";

const HEAD: &str = r#""""The crates that `//core` needs, each with the SHA-256 of `Cargo.lock`.

Written by `cargo xtask crates`; edits are lost.
"""

visibility(["//:__pkg__"])

CRATES = {
"#;

/// Writes the list.
pub(crate) fn write(project: &Project) -> Result<()> {
    let path = project.root.join(LIST);
    let text = list(project)?;
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// The text of the list.
fn list(project: &Project) -> Result<String> {
    let scratch = Scratch::new()?;
    let read = |path: PathBuf| {
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let save = |path: &str, text: &str| scratch.save(path, text);
    save("Cargo.toml", &reduced(&read(project.root.join("Cargo.toml"))?)?)?;
    save("Cargo.lock", &read(project.root.join("Cargo.lock"))?)?;
    for member in MEMBERS {
        let manifest = format!("{member}/Cargo.toml");
        save(&manifest, &read(project.root.join(&manifest))?)?;
        save(&format!("{member}/src/lib.rs"), "")?;
    }
    let mut cargo = project.cargo();
    cargo.current_dir(&scratch.0).args(["update", "--quiet", "--workspace", "--offline"]);
    process::output(&mut cargo)?;
    Ok(render(&read(scratch.0.join("Cargo.lock"))?))
}

/// The manifest of the workspace with fewer members.
fn reduced(manifest: &str) -> Result<String> {
    let start = manifest.find("\nmembers = [").context("`Cargo.toml` has no `members`")?;
    let (head, rest) = manifest.split_at(start);
    let (_, tail) = rest.split_once(']').context("`members` of `Cargo.toml` has no end")?;
    Ok(format!("{head}\nmembers = {MEMBERS:?}{tail}"))
}

/// The list out of a lock file, whose packages are sorted by name and version.
fn render(lock: &str) -> String {
    let mut text = HEAD.to_owned();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(" = \"")?.strip_suffix('"')
        };
        // Members have no checksum.
        if let (Some(name), Some(version), Some(sha256)) =
            (field("name"), field("version"), field("checksum"))
        {
            let _ = writeln!(text, "    \"{name} {version}\": \"{sha256}\","); // a String takes all
        }
    }
    text + "}\n"
}

/// A folder of this process, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("maestro-crates-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
        Ok(Self(path))
    }

    fn save(&self, path: &str, text: &str) -> Result<()> {
        let path = self.0.join(path);
        let error = || format!("cannot write `{}`", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&self.0)).with_context(error)?;
        fs::write(&path, text).with_context(error)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // a temporary folder that is left over harms nobody
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_step_with_the_lock() {
        let project = Project::find().expect("the repository is found");
        let kept = fs::read_to_string(project.root.join(LIST)).expect("the list is there");
        let fresh = list(&project).expect("cargo reduces the lock");
        assert!(kept == fresh, "`{LIST}` is out of step: run `cargo xtask crates`");
    }

    #[test]
    fn only_the_members_change_in_the_manifest() {
        let manifest = "[workspace]\nmembers = [\n    \"a\",\n    \"b\",\n]\n[profile.dev]\n";
        let expect = "[workspace]\nmembers = [\"core\"]\n[profile.dev]\n";
        assert_eq!(reduced(manifest).expect("it has members"), expect);
        assert!(reduced("[package]\n").is_err());
    }

    #[test]
    fn packages_with_a_checksum_are_listed() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\
                    checksum = \"0b\"\n\n[[package]]\nname = \"me\"\nversion = \"0.1.0\"\n";
        assert_eq!(render(lock), format!("{HEAD}    \"a 1.0.0\": \"0b\",\n}}\n"));
    }
}
