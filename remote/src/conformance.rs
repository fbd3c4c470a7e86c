//! A conformance suite for servers of REAPI v2: one check for each line of the protocol that a
//! client can see from outside.
//!
//! | family | of what | module |
//! |---|---|---|
//! | `C` | blobs: names, streams, compressors, batches, trees, chunks | [`byte_stream`], [`compressed`], [`batch`], [`tree`], [`chunks`] |
//! | `A` | results of actions | [`action_cache`] |
//! | `K` | what the server says of itself | [`capabilities`] |
//! | `E` | execution | [`execution`] |
//!
//! A check makes its own content, at random, and needs no other check: a server may be shared, and
//! asked as often as one likes. Where the protocol leaves something to the server, the verdict says
//! what the server decided. No check hangs: every call has a deadline, and a lost connection is a
//! failure of the check that lost it.

mod action_cache;
mod batch;
mod byte_stream;
mod capabilities;
mod catalogue;
mod chunks;
mod compressed;
mod content;
mod execution;
mod peer;
mod tree;
mod verdict;

use std::time::Duration;

use maestro_core::DigestFunction;
use maestro_core::limits;

pub use self::catalogue::{Area, LINES, Line};
pub use self::peer::{ConnectError, EndpointError, Target};
pub use self::verdict::Verdict;

use self::catalogue::Scope;
use self::peer::Peer;
use self::verdict::{Outcome, failed};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The line of the protocol that it is about.
    pub line: &'static Line,
    /// How the server did.
    pub verdict: Verdict,
}

/// What all checks found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The server that was asked.
    pub endpoint: String,
    /// The versions of the protocol that it says it speaks, such as `2.0 to 2.12`.
    pub versions: String,
    /// The digest functions that were checked.
    pub functions: Vec<DigestFunction>,
    /// One for each line that was asked for, in the order of [`LINES`].
    pub checks: Vec<Check>,
}

impl Report {
    /// How many checks have a verdict of the same kind as this one.
    pub fn count(&self, kind: &str) -> usize {
        self.checks.iter().filter(|check| check.verdict.kind() == kind).count()
    }
}

/// Runs the checks of the lines whose ids `wanted` takes; `each` hears of every check as it ends.
pub async fn run(
    target: Target,
    wanted: impl Fn(&Line) -> bool,
    mut each: impl FnMut(&Check),
) -> Result<Report, ConnectError> {
    let peer = Peer::connect(target).await?;
    let functions = peer.functions();
    let mut checks = Vec::new();
    for line in LINES.iter().filter(|line| wanted(line)) {
        let verdict = match line.scope {
            Scope::Server => check(line, peer.clone()).await,
            Scope::EachFunction => check_each(line, &peer, &functions).await,
        };
        let check = Check { line, verdict };
        each(&check);
        checks.push(check);
    }
    Ok(Report {
        endpoint: peer.endpoint().to_owned(),
        versions: peer.versions(),
        functions,
        checks,
    })
}

/// Checks a line with every digest function, and gives the worst that was found.
async fn check_each(line: &'static Line, peer: &Peer, functions: &[DigestFunction]) -> Verdict {
    let mut worst = Verdict::Passed;
    for function in functions {
        let found = check(line, peer.with(*function)).await;
        if found.rank() > worst.rank() {
            worst = found.with_function(*function, functions.len());
        }
    }
    worst
}

async fn check(line: &'static Line, peer: Peer) -> Verdict {
    let limit = Duration::from_millis(limits::CONFORMANCE_CHECK_MS_MAX);
    let outcome: Outcome = match tokio::time::timeout(limit, (line.check)(peer)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failed(format!("expected an end within {limit:?}, got none"))),
    };
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(verdict) => verdict,
    }
}
