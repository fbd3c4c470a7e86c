//! The packages of npm that the golden product is built with, downloaded by npm itself.
//!
//! Maestro takes them out of npm's cache, so that a build after this asks no registry. Nothing of
//! the packages is run, and what npm installs is thrown away.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::project::Project;

/// Where the product's lock file is.
const CLIENT: &str = "tests/golden/intelgraph/intelgraph/client";

/// Fills npm's cache with what the lock file pins.
pub(crate) fn download(project: &Project) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("maestro-packages-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let installed = install(&project.root.join(CLIENT), &folder);
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;
    installed
}

fn install(sources: &Path, folder: &Path) -> Result<()> {
    for name in ["package.json", "package-lock.json"] {
        let from = sources.join(name);
        std::fs::copy(&from, folder.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // Not `npm ci`: it insists on packages for other systems, which not every registry carries.
    process::run(
        Command::new("npm")
            .current_dir(folder)
            .args(["install", "--no-save", "--ignore-scripts", "--prefer-offline"])
            .args(["--no-audit", "--no-fund", "--no-update-notifier"]),
    )
}
