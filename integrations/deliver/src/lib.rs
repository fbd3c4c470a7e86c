//! Effects that reach the world: signed webhooks, and rollouts that a probe decides.
//!
//! Both implement [`Effect`](maestro_executor::step::Effect). They keep no journal and remember
//! nothing between calls: what was done is read back from the far side, so that a process can die
//! at any line. They read no environment: programs, variables and secrets are handed in.
//!
//! | module | what it owns |
//! |---|---|
//! | [`webhook`] | `notify.webhook`: one signed request, and what each answer to it means |
//! | [`rollout`] | `cd.rollout`: ledger, traffic, probe, and how they make a canary |
//! | [`secrets`] | where secrets come from, and values that do not print themselves |
//! | `http` | one bounded call, and whether it may have been heard |
//! | `inputs` | the `with` of a step read into types, and requests in their stored form |
//! | `failures` | failures by class, and texts of others made fit to print |
//!
//! | input | defence |
//! |---|---|
//! | an answer without end, or one that trickles | a bound of bytes and of time for the whole call |
//! | a redirect | none is followed: neither body nor secrets reach a host that nobody named |
//! | line breaks in headers | headers are checked when the request is made |
//! | a branch or repository that looks like an option | checked, and always part of a full name |
//! | a symbolic link in a repository | no file of a repository is ever checked out |

mod failures;
mod http;
mod inputs;
pub mod rollout;
pub mod secrets;
mod signature;
pub mod webhook;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use maestro_executor::step::Registry;

pub use inputs::{holds_credentials, without_credentials};
pub use rollout::Rollout;
pub use secrets::{Secret, SecretError, Secrets};
pub use webhook::Webhook;

/// What effects need of the machine.
#[derive(Clone, Debug)]
pub struct DeliverOptions {
    /// The program `git`, 2.38 or later.
    pub git: PathBuf,
    /// All variables that git and commands of probes see, such as `PATH`, `HOME` and
    /// `SSH_AUTH_SOCK`.
    pub environment: Vec<(OsString, OsString)>,
    /// Where commands of probes run, and what paths of repositories are relative to: the workspace.
    pub folder: PathBuf,
    /// A folder on a disk with room for repositories; what is made there is removed again.
    pub scratch: PathBuf,
    /// The name in commits.
    pub author: String,
    /// The mail address in commits.
    pub email: String,
}

/// Why effects cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// TLS or the resolver of names does not start.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Adds `notify.webhook` and `cd.rollout` to what a run can do.
pub fn register(
    registry: Registry,
    options: DeliverOptions,
    secrets: Arc<dyn Secrets>,
) -> Result<Registry, DeliverError> {
    let webhook = Webhook::new(secrets.clone())?;
    let rollout = Rollout::new(options, secrets)?;
    Ok(registry.effect(webhook::USES, Arc::new(webhook)).effect(rollout::USES, Arc::new(rollout)))
}
