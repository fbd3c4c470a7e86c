//! Whose fault a failure is. Decides the exit code and whether a bug report is asked for.

/// The origin of an error, as every error enum of Maestro reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The build itself failed: a compiler error, a red test. Exit code 1.
    Build,
    /// What the user wrote is wrong: a build file, a flag, a lock. Exit code 2.
    Input,
    /// The machine is at fault: disk, permission, missing package. Exit code 3.
    Environment,
    /// Maestro is at fault. Exit code 70.
    Internal,
}

impl FailureKind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Input => 2,
            Self::Environment => 3,
            Self::Internal => 70,
        }
    }
}
