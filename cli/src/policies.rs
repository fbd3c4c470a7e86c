//! Policies of a workspace as text: those of its project, and those of Maestro beside them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use maestro_core::FailureKind;
use maestro_policy::{BUILTIN, LoadError, Shipped, Sources};

use crate::exit::Failure;

/// Policies of the user, and those of Maestro that decide along with them.
pub struct Chosen {
    /// The user's alone.
    pub own: Sources,
    /// All.
    pub all: Sources,
}

impl Chosen {
    /// What the paths below a folder name, with the built-in ones where they are wanted.
    pub fn read(root: &Path, paths: &[PathBuf], builtin: bool) -> Result<Self> {
        let own = Sources::read(root, paths).map_err(failed)?;
        let modules = BUILTIN.iter().filter(|_| builtin).map(Shipped::module);
        Ok(Self { all: own.clone().with(modules), own })
    }
}

/// Prints what is wrong with policies, and makes an error of it.
pub fn failed(LoadError(findings): LoadError) -> anyhow::Error {
    for finding in &findings {
        eprintln!("{finding}");
    }
    let kind = findings.iter().map(|finding| finding.kind);
    let environment = kind.clone().count() > 0 && kind.clone().all(|k| k != FailureKind::Input);
    let kind = if environment { FailureKind::Environment } else { FailureKind::Input };
    let count = match findings.len() {
        1 => "1 error keeps".to_owned(),
        count => format!("{count} errors keep"),
    };
    Failure::new(kind, format!("{count} the policies from being loaded")).into()
}
