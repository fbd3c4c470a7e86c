//! Where this repository, its build folder and its lasting caches are.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::tidy::tree::{self, SourceFile};

/// The folders that every command needs.
#[derive(Debug)]
pub(crate) struct Project {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder: outside the repository, so that it survives a fresh clone.
    pub(crate) target: PathBuf,
    /// Where peers of tests and benchmarks are kept between runs.
    pub(crate) peers: PathBuf,
}

impl Project {
    /// Finds the folders; nothing is made.
    pub(crate) fn find() -> Result<Self> {
        // As cargo tells it now: two checkouts may share a target folder, and so this program.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("the folder of xtask has no parent")?.to_path_buf();
        let home = std::env::var_os("HOME").map(PathBuf::from).context("`HOME` is not set")?;
        let cache = home.join(".cache/maestro-build");
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => std::path::absolute(folder).context("`CARGO_TARGET_DIR`")?,
            None => cache.join("target"),
        };
        Ok(Self { root, target, peers: cache.join("peers") })
    }

    /// A cargo command that runs in the root and builds in the target folder.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Builds a binary of a package as it is shipped, and says where it lies.
    pub(crate) fn build_release(&self, package: &str, binary: &str) -> Result<PathBuf> {
        let mut command = self.cargo();
        command.args(["build", "--locked", "--release", "--package", package, "--bin", binary]);
        process::run(&mut command)?;
        Ok(self.target.join("release").join(binary))
    }

    /// Has cargo compile again what has the path of its checkout within it, where another checkout
    /// built in the target folder last: cargo tells sources by their times alone.
    fn claim_target(&self) -> Result<()> {
        let note = self.target.join("checkout");
        let own = self.root.to_string_lossy().into_owned();
        if std::fs::read_to_string(&note).is_ok_and(|last| last == own) {
            return Ok(());
        }
        let has_path = |file: &SourceFile| {
            file.has_suffix(".rs") && file.text.contains("env!(\"CARGO_MANIFEST_DIR\")")
        };
        for file in tree::read(&self.root)?.into_iter().filter(has_path) {
            let source = std::fs::File::open(self.root.join(&file.path));
            source
                .and_then(|source| source.set_modified(std::time::SystemTime::now()))
                .with_context(|| format!("cannot touch `{}`", file.path))?;
        }
        std::fs::create_dir_all(&self.target)?;
        std::fs::write(&note, own).with_context(|| format!("cannot write {}", note.display()))
    }

    /// Builds everything that tests need, and says where the binary lies. All targets at once,
    /// so that dependencies are built with one set of features, which `cargo test` finds again.
    pub(crate) fn build_tests(&self) -> Result<PathBuf> {
        self.claim_target()?;
        process::run(self.cargo().args(["build", "--locked", "--workspace", "--all-targets"]))?;
        Ok(self.target.join("debug/maestro"))
    }
}
