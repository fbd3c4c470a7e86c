//! The steps that ask a model, as this machine makes them: where it is asked, what it is told of
//! the workspace, and where answers are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::civil::Date;
use maestro_cas::{Store, StoreOptions};
use maestro_core::run::{FailureClass, Plan};
use maestro_core::{DigestFunction, limits};
use maestro_executor::records::{Answers, Records};
use maestro_executor::step::Registry;
use maestro_llm::steps::{ContextFiles, LlmSteps};
use maestro_llm::{LlmClient, LlmOptions};
use maestro_rules::glob_matcher;

use crate::config::{non_empty, read_project};
use crate::exit::{Failure, chain};
use crate::star_files::find_files;

/// The limit of one call.
const TIMEOUT: Duration = Duration::from_millis(limits::LLM_CALL_TIMEOUT_MS);

/// Adds the steps that ask a model, if the plan has one: only then the cache is opened.
pub fn register(
    registry: Registry,
    plan: &Plan,
    workspace: &Path,
    cache: &Path,
) -> Result<Registry> {
    if !plan.steps.iter().any(|step| step.uses.starts_with("llm.")) {
        return Ok(registry);
    }
    let root = cache.to_owned();
    let store = Store::open(StoreOptions { root, function: DigestFunction::Blake3 })?;
    let records = Records::load(workspace)
        .map_err(|error| Failure::new(error.kind(), chain(&error)).hints(error.hints()))?;
    let steps = LlmSteps {
        client: client(workspace)?,
        answers: Answers::new(records, store, today),
        files: Box::new(WorkspaceFiles { workspace: workspace.to_owned() }),
        workspace: workspace.to_owned(),
    };
    Ok(maestro_llm::steps::register(registry, steps))
}

fn client(workspace: &Path) -> Result<Option<LlmClient>> {
    let configured = non_empty("MAESTRO_LLM_ENDPOINT");
    let Some(endpoint) = configured.or(read_project(workspace)?.llm_endpoint) else {
        return Ok(None);
    };
    let mut options = LlmOptions::new(endpoint);
    options.api_key = non_empty("MAESTRO_LLM_API_KEY");
    options.timeout = TIMEOUT;
    // The run decides about further attempts, and reserves for each of them.
    options.attempts = 1;
    Ok(Some(LlmClient::new(options).map_err(|error| Failure::environment(chain(&error)))?))
}

/// Today, in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// The files of a workspace, as globs name them.
struct WorkspaceFiles {
    workspace: PathBuf,
}

impl ContextFiles for WorkspaceFiles {
    fn read(&self, globs: &[String]) -> Result<Vec<(String, String)>, maestro_core::run::Failure> {
        let user = |message: String| maestro_core::run::Failure::new(FailureClass::User, message);
        if globs.is_empty() {
            return Ok(Vec::new());
        }
        let matches = glob_matcher(globs).map_err(user)?;
        let files = find_files(&self.workspace, &[], |_| true);
        let files = files.map_err(|error| user(format!("{error:#}")))?;
        let wanted = files.into_iter().filter(|file| matches(&file.name));
        let read = |file: crate::star_files::FoundFile| {
            let bytes = std::fs::read(&file.path);
            let bytes = bytes.map_err(|error| user(format!("`{}`: {error}", file.name)))?;
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| user(format!("`{}` is not UTF-8 text", file.name)))?;
            Ok((file.name, text))
        };
        let texts: Vec<(String, String)> = wanted.map(read).collect::<Result<_, _>>()?;
        match texts.is_empty() {
            true => Err(user(format!("`{}` matches no file of the workspace", globs.join("`, `")))),
            false => Ok(texts),
        }
    }
}
