//! Policies that come with Maestro, as text.
//!
//! The built-in ones are always asked, unless a project leaves them out; those of the library are
//! for copying, since their limits are the project's own.

use crate::sources::SourceFile;

/// A policy that comes with Maestro.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// The name by which `maestro policy show` knows it.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub about: &'static str,
    /// The text.
    pub text: &'static str,
    /// Its tests.
    pub tests: &'static str,
}

macro_rules! shipped {
    ($folder:literal, $($name:literal = $about:literal;)*) => {
        &[$(Shipped {
            name: $name,
            about: $about,
            text: include_str!(concat!("../", $folder, "/", $name, ".rego")),
            tests: include_str!(concat!("../", $folder, "/", $name, "_test.rego")),
        },)*]
    };
}

/// The built-in policies, one for each decision point.
pub const BUILTIN: &[Shipped] = shipped! {
    "builtin",
    "run_start" = "Changes from forks do not run in production.";
    "step_start" = "Pure steps reach nothing.";
    "effect" = "Effects follow checks that passed, and approvals of others that hold.";
    "approval" = "Nobody approves a run of their own, and production asks who they are.";
};

/// Policies to copy and to adapt.
pub const LIBRARY: &[Shipped] = shipped! {
    "library",
    "egress_allowlist" = "Steps talk to listed hosts only.";
    "production_approval" = "Effects in production need approvals.";
    "vulnerability_threshold" = "What leaves was scanned, and found to be good enough.";
    "release" = "A release needs two people and a list of evidence.";
};

/// The data that the policies of the library read, as an example.
pub const LIBRARY_DATA: &str = include_str!("../library/data.json");

impl Shipped {
    /// The module, under the name that messages show.
    pub fn module(&self) -> SourceFile {
        SourceFile::new(&format!("@maestro//policy:{}.rego", self.name), self.text)
    }

    /// Its tests, as a module.
    pub fn test_module(&self) -> SourceFile {
        SourceFile::new(&format!("@maestro//policy:{}_test.rego", self.name), self.tests)
    }
}
