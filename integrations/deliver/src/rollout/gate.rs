//! The ledger of an HTTP deployment gate, as docs/reference/deployment-gate.md describes it.
//!
//! The gate's word is `status`, Maestro's is `outcome`. A deployment is a resource under its key,
//! so each request can be sent again, and a `GET` tells what a lost answer would have told.

use std::time::Duration;

use async_trait::async_trait;
use maestro_core::run::{Failure, FailureClass};
use maestro_executor::step::Stop;
use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::{Begun, Entry, Ledger, RolledBack, Trouble};
use crate::failures::{excerpt, infrastructure, user};
use crate::http::{Answer, Silence, call};
use crate::secrets::Secret;

/// Longest call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The first wait between two looks at a pending deployment; it doubles.
const POLL: Duration = Duration::from_millis(250);
/// The longest such wait.
const POLL_MAX: Duration = Duration::from_secs(15);
/// The longest wait that a gate may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a gate is waited for; the time limit of the step comes earlier, mostly.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// One deployment at a gate.
pub(super) struct Gate<'a> {
    pub(super) http: &'a Client,
    pub(super) url: Url,
    pub(super) key: &'a str,
    pub(super) auth: Option<Secret>,
    /// What the gate is told.
    pub(super) document: Value,
    /// Whether Maestro moves the traffic once the gate approves; else the gate deploys by itself.
    pub(super) moves_traffic: bool,
    /// Whether Maestro looks after it once it is deployed.
    pub(super) watches: bool,
}

/// A deployment as the gate tells it.
#[derive(Debug, Deserialize)]
struct Deployment {
    status: Status,
    outcome: Option<Outcome>,
    revision: Option<String>,
    previous: Option<String>,
    reason: Option<String>,
    former: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Pending,
    Approved,
    Denied,
    Deployed,
    Failed,
    RolledBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Deployed,
    RolledBack,
}

impl Deployment {
    fn begun(&self, key: &str) -> Begun {
        Begun {
            revision: self.revision.clone().unwrap_or_else(|| key.to_owned()),
            previous: self.previous.clone().unwrap_or_default(),
            former: self.former.clone(),
        }
    }

    fn reason(&self) -> String {
        excerpt(self.reason.as_deref().unwrap_or("it gives no reason"))
    }
}

#[async_trait]
impl Ledger for Gate<'_> {
    async fn look(&self, stop: &Stop) -> Result<Entry, Trouble> {
        let answer = self.ask(self.http.get(self.place()), stop).await?;
        if answer.status == 404 {
            return Ok(Entry::Absent);
        }
        let deployment = read(&answer)?;
        let begun = deployment.begun(self.key);
        let deploys = !self.moves_traffic && !self.watches;
        Ok(match (deployment.status, deployment.outcome) {
            (Status::RolledBack, _) | (_, Some(Outcome::RolledBack)) => {
                Entry::RolledBack(rolled_back(begun, deployment.reason()))
            }
            (_, Some(Outcome::Deployed)) => Entry::Finished(begun),
            (Status::Deployed, None) if deploys => Entry::Finished(begun),
            _ => Entry::Begun(begun),
        })
    }

    async fn begin(&self, former: Option<&Value>, stop: &Stop) -> Result<Begun, Trouble> {
        let mut document = self.document.clone();
        if let (Some(former), Value::Object(fields)) = (former, &mut document) {
            fields.insert("former".into(), former.clone());
        }
        let request = self.http.put(self.place()).header("Idempotency-Key", self.key);
        let answer = self.ask(request.json(&document), stop).await?;
        let begun = read(&answer)?.begun(self.key);
        if former.is_some() && begun.former.as_ref() != former {
            let failure = user("the gate does not give `former` back as it was given");
            return Err(Trouble::Unclear(failure));
        }
        Ok(begun)
    }

    async fn ready(&self, _begun: Begun, stop: &Stop) -> Result<Begun, Trouble> {
        let end = Instant::now() + WAIT_MAX;
        let mut wait = POLL;
        loop {
            let asked = self.ask(self.http.get(self.place()), stop).await;
            let asked = asked.and_then(|answer| Ok((read(&answer)?, answer.retry_after_ms())));
            let pause = match asked.map_err(Trouble::failure) {
                Ok((deployment, _)) if self.decided(&deployment)? => {
                    return Ok(deployment.begun(self.key));
                }
                Ok((_, asked_ms)) => asked_ms.map_or(wait, Duration::from_millis),
                // A gate that is away for a while is asked again: it has the deployment.
                Err(failure) if is_passing(failure.class) => {
                    failure.retry_after_ms.map_or(wait, Duration::from_millis)
                }
                Err(failure) => return Err(Trouble::Unclear(failure)),
            };
            let pause = pause.clamp(POLL, RETRY_AFTER_MAX);
            if Instant::now() + pause > end {
                let hours = WAIT_MAX.as_secs() / 3600;
                let failure = infrastructure(format!("the gate did not decide within {hours} h"));
                return Err(Trouble::Unclear(failure));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            wait = (wait * 2).min(POLL_MAX);
        }
    }

    async fn roll_back(
        &self,
        begun: &Begun,
        why: &str,
        stop: &Stop,
    ) -> Result<RolledBack, Trouble> {
        self.tell(&json!({ "result": "rolled-back", "reason": why }), stop).await?;
        Ok(rolled_back(begun.clone(), why.to_owned()))
    }

    async fn finish(&self, _begun: &Begun, stop: &Stop) -> Result<(), Trouble> {
        if !self.moves_traffic && !self.watches {
            return Ok(());
        }
        self.tell(&json!({ "result": "deployed" }), stop).await
    }
}

impl Gate<'_> {
    fn place(&self) -> Url {
        self.below(&["deployments", self.key])
    }

    fn below(&self, parts: &[&str]) -> Url {
        let mut url = self.url.clone();
        // URLs of HTTP have a path; `http_url` lets no other through.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Whether the gate has said what is waited for.
    fn decided(&self, deployment: &Deployment) -> Result<bool, Trouble> {
        let refused = |class, what: &str| {
            let message = format!("the gate {what}: {}", deployment.reason());
            Err(Trouble::Refused(Failure::new(class, message)))
        };
        match deployment.status {
            Status::Deployed => Ok(true),
            Status::Approved => Ok(self.moves_traffic),
            Status::Pending => Ok(false),
            Status::Denied => refused(FailureClass::Policy, "denies it"),
            Status::Failed => refused(FailureClass::User, "could not deploy it"),
            Status::RolledBack => refused(FailureClass::User, "has rolled it back"),
        }
    }

    async fn tell(&self, outcome: &Value, stop: &Stop) -> Result<(), Trouble> {
        let url = self.below(&["deployments", self.key, "outcome"]);
        let request = self.http.put(url).header("Idempotency-Key", self.key).json(outcome);
        self.ask(request, stop).await.and_then(|answer| match answer.is_success() {
            true => Ok(()),
            false => Err(trouble(&answer)),
        })
    }

    async fn ask(&self, request: RequestBuilder, stop: &Stop) -> Result<Answer, Trouble> {
        let request = match &self.auth {
            None => request,
            Some(secret) => request.bearer_auth(String::from_utf8_lossy(secret.reveal())),
        };
        call(request, CALL_TIMEOUT, stop).await.map_err(|silence| {
            let failure = silence.failure("the gate");
            match silence {
                Silence::NotHeard(_) => Trouble::Refused(failure),
                Silence::Lost(_) | Silence::Stopped => Trouble::Unclear(failure),
            }
        })
    }
}

fn rolled_back(begun: Begun, why: String) -> RolledBack {
    let revision = begun.previous.clone();
    RolledBack { begun, why, revision }
}

fn is_passing(class: FailureClass) -> bool {
    matches!(class, FailureClass::Infrastructure | FailureClass::RateLimit)
}

/// The deployment in an answer.
fn read(answer: &Answer) -> Result<Deployment, Trouble> {
    if !answer.is_success() {
        return Err(trouble(answer));
    }
    let odd = |why: String| {
        Trouble::Unclear(user(format!("the gate does not speak the protocol: {}", excerpt(&why))))
    };
    let value = answer.json().map_err(odd)?;
    Deployment::deserialize(value).map_err(|error| odd(error.to_string()))
}

/// What an answer other than success means.
fn trouble(answer: &Answer) -> Trouble {
    let failure = |class| Failure {
        retry_after_ms: answer.retry_after_ms(),
        ..Failure::new(class, format!("the gate does not take it ({})", answer.shown()))
    };
    match answer.status {
        408 => Trouble::Refused(failure(FailureClass::Infrastructure)),
        425 | 429 => Trouble::Refused(failure(FailureClass::RateLimit)),
        409 => Trouble::Unclear(failure(FailureClass::Infrastructure)),
        300..=499 => Trouble::Refused(failure(FailureClass::User)),
        _ => Trouble::Unclear(failure(FailureClass::Infrastructure)),
    }
}
