//! Errors that end a command: what the user reads, and the exit code.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use maestro_core::FailureKind;
pub use maestro_core::failure::chain;

/// An error whose origin is known, with advice.
#[derive(Debug)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// The message.
    pub message: String,
    /// Advice, one line each.
    pub hints: Vec<String>,
    /// Nothing is wrong; a policy or a budget does not allow it.
    pub denied: bool,
}

/// The exit code of what a policy or a budget does not allow.
pub const DENIED: u8 = 12;

impl Failure {
    /// What the user wrote is wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Input, message)
    }

    /// The machine is at fault.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Environment, message)
    }

    /// A policy does not allow it.
    pub fn denied(why: maestro_core::run::Failure) -> Self {
        Self { denied: true, ..Self::input(why.message) }.hints(why.hints)
    }

    /// An error of some kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hints: Vec::new(), denied: false }
    }

    /// Adds advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds several pieces of advice.
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the chain of an error once and says how the process ends.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let failure = error.downcast_ref::<Failure>();
    let kind = failure.map_or_else(|| kind_of(error), |failure| failure.kind);
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    eprintln!("{text}");
    for hint in failure.map_or_else(|| hints_of(error), |failure| failure.hints.clone()) {
        eprintln!("hint: {hint}");
    }
    if kind == FailureKind::Internal {
        eprintln!("hint: this is a bug in Maestro; please report it with the lines above");
    }
    let denied = failure.is_some_and(|failure| failure.denied);
    ExitCode::from(if denied { DENIED } else { kind.exit_code() })
}

/// Advice for errors that nobody gave any.
fn hints_of(error: &anyhow::Error) -> Vec<String> {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<maestro_cas::StoreError>() {
            return error.hint().into_iter().collect();
        }
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let advice = match kind {
            Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                "change its owner or permissions; `--cache DIR` names another cache"
            }
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                "free space, or run `maestro cache gc` with a smaller size"
            }
            _ => continue,
        };
        return vec![advice.to_owned()];
    }
    Vec::new()
}

/// Errors of the system are the machine's fault; the rest that nobody classified is ours.
fn kind_of(error: &anyhow::Error) -> FailureKind {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<maestro_cas::StoreError>() {
            return error.kind();
        }
        if cause.is::<std::io::Error>() {
            return FailureKind::Environment;
        }
    }
    FailureKind::Internal
}
