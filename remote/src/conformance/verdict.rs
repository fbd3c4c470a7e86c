//! What a check says, and the few ways in which checks compare what they got with what is right.
//!
//! A check is a function that ends with `Ok(())` where the server does what the line says, and with
//! the verdict otherwise, so that `?` ends it at the first difference.

use std::fmt::Debug;

use maestro_core::DigestFunction;
use tonic::{Code, Status};

/// How a server did on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the protocol says.
    Passed,
    /// The server does not offer what the line is about.
    NotOffered {
        /// What it lacks.
        why: String,
    },
    /// The protocol leaves it to the server.
    Policy {
        /// What the server decided.
        decided: String,
    },
    /// Otherwise than the protocol says.
    Failed {
        /// What was expected, and what came.
        why: String,
    },
}

/// What a check ends with.
pub(super) type Outcome = Result<(), Verdict>;

impl Verdict {
    /// The name of the kind of verdict, as reports write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::NotOffered { .. } => "not-offered",
            Self::Policy { .. } => "policy",
            Self::Failed { .. } => "failed",
        }
    }

    /// What there is to say beyond the kind; empty where it passed.
    pub fn detail(&self) -> &str {
        match self {
            Self::Passed => "",
            Self::NotOffered { why } | Self::Failed { why } => why,
            Self::Policy { decided } => decided,
        }
    }

    /// Verdicts of a higher rank win over those of a lower one.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::NotOffered { .. } => 1,
            Self::Policy { .. } => 2,
            Self::Failed { .. } => 3,
        }
    }

    /// Says with which digest function a failure was found, where there are several.
    pub(super) fn with_function(self, function: DigestFunction, count: usize) -> Self {
        match self {
            Self::Failed { why } if count > 1 => {
                Self::Failed { why: format!("with {}: {why}", function.name()) }
            }
            other => other,
        }
    }
}

/// The server does otherwise than the protocol says.
pub(super) fn failed(why: impl Into<String>) -> Verdict {
    Verdict::Failed { why: why.into() }
}

/// The server may decide, and did.
pub(super) fn policy(decided: impl Into<String>) -> Verdict {
    Verdict::Policy { decided: decided.into() }
}

/// The server does not offer it.
pub(super) fn not_offered(why: impl Into<String>) -> Verdict {
    Verdict::NotOffered { why: why.into() }
}

/// Fails with a text where something does not hold.
pub(super) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(failed(why())) }
}

/// Two values must be the same.
pub(super) fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Outcome {
    ensure(got == expected, || format!("{what}: expected {expected:?}, got {got:?}"))
}

/// Two contents must be the same; they are told by their sizes, not their bytes.
pub(super) fn same_bytes(what: &str, got: &[u8], expected: &[u8]) -> Outcome {
    ensure(got == expected, || {
        let (got, expected) = (got.len(), expected.len());
        let other = if got == expected { "other bytes" } else { "another content" };
        format!("{what}: expected the {expected} bytes that were stored, got {other} ({got} bytes)")
    })
}

/// A call must succeed.
pub(super) fn good<T>(what: &str, result: Result<T, Status>) -> Result<T, Verdict> {
    result.map_err(|status| failed(format!("{what}: expected success, got {}", told(&status))))
}

/// A call must be refused with one of these codes.
pub(super) fn refused<T>(what: &str, codes: &[Code], result: Result<T, Status>) -> Outcome {
    let names = codes.iter().map(|code| name(*code)).collect::<Vec<_>>().join(" or ");
    match result {
        Ok(_) => Err(failed(format!("{what}: expected {names}, got success"))),
        Err(status) if codes.contains(&status.code()) => Ok(()),
        Err(status) => Err(failed(format!("{what}: expected {names}, got {}", told(&status)))),
    }
}

/// A status as reports write it: the code and the first words of the message.
pub(super) fn told(status: &Status) -> String {
    const CHARACTERS_MAX: usize = 160;
    let line = status.message().lines().next().unwrap_or_default();
    let short: String = line.chars().take(CHARACTERS_MAX).collect();
    let rest = if short.len() < line.len() { "…" } else { "" };
    match short.is_empty() {
        true => name(status.code()).to_owned(),
        false => format!("{} ({short}{rest})", name(status.code())),
    }
}

/// The name of a code, as the protocol writes it.
pub(super) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said() {
        let check = |outcome: Outcome, expect: &str| {
            let verdict = outcome.expect_err(expect);
            assert_eq!((verdict.kind(), verdict.detail()), ("failed", expect));
        };
        check(same("the size", &1, &2), "the size: expected 2, got 1");
        let bytes = "a read: expected the 2 bytes that were stored, got another content (1 bytes)";
        check(same_bytes("a read", b"a", b"ab"), bytes);
        let status = || Err::<(), _>(Status::not_found("gone\nsecond line"));
        check(good("a read", status()), "a read: expected success, got NOT_FOUND (gone)");
        let codes = [Code::InvalidArgument, Code::OutOfRange];
        let wanted = "a read: expected INVALID_ARGUMENT or OUT_OF_RANGE, got";
        check(refused("a read", &codes, status()), &format!("{wanted} NOT_FOUND (gone)"));
        check(refused("a read", &codes, Ok(())), &format!("{wanted} success"));
        assert_eq!(refused("a read", &[Code::NotFound], status()), Ok(()));
    }

    #[test]
    fn the_worst_verdict_wins_and_names_its_function() {
        let [worst, middle, least] = [failed("x"), policy("x"), not_offered("x")];
        assert!(worst.rank() > middle.rank() && middle.rank() > least.rank());
        assert!(least.rank() > Verdict::Passed.rank());
        let named = worst.clone().with_function(DigestFunction::Blake3, 2);
        assert_eq!(named.detail(), format!("with {}: x", DigestFunction::Blake3.name()));
        assert_eq!(worst.clone().with_function(DigestFunction::Blake3, 1), worst);
    }
}
