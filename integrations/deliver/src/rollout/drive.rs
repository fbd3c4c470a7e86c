//! How a rollout that began goes on to its end, from wherever it stands.
//!
//! Where it stands is read from the far side each time: the ledger says that it began, the proxy
//! at which weight it is. So it can be left and taken up at any line.
//!
//! | ledger | traffic | what is done |
//! |---|---|---|
//! | nothing | below the first step | `send` notes the beginning |
//! | began | as before | to the first step |
//! | began | at a step | the step is watched, from its beginning; then to the next one |
//! | began | at the last step | it is watched, and that is noted |
//! | began | anywhere else | somebody else moved it: a person decides |
//! | rolled back, denied or failed | at a step | back to what was before |
//! | rolled back, denied or failed | as before | nothing |
//! | rolled back, denied or failed | anywhere else | somebody else moved it: a person decides |
//!
//! No weight is set twice, none is set before the one below it was watched, and a kill costs at
//! most the watch of one step. When a probe is bad the ledger hears of it before the traffic moves
//! back, or else a rollout killed in between would look like one that is about to begin. A ledger
//! that does not answer within [`LEDGER_FIRST`] is told afterwards, at once and then every
//! [`LEDGER_WAIT`]: in that window a kill makes the rollout climb again when it is taken up.
//! All of a rollback fits into the grace that a cancelled step has ([`RUN_GRACE_MS`]).

use std::time::Duration;

use maestro_core::limits::RUN_GRACE_MS;
use maestro_core::run::Failure;
use maestro_core::run::event::Success;
use maestro_executor::step::Stop;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ledger::{Begun, Entry, Ledger, RolledBack, Trouble};
use super::probe::{At, Verdict, Watch};
use super::traffic::{Split, Traffic};
use crate::DeliverOptions;
use crate::failures::{cancelled, hinted, infrastructure, user};

/// How long the ledger may take to hear of a rollback, before traffic moves back without it: as
/// long do users meet the bad version once that is known.
const LEDGER_FIRST: Duration = Duration::from_secs(5);
/// How long the traffic may take to move back.
const TRAFFIC_BACK: Duration = Duration::from_secs(12);
/// How long the ledger is told of a rollback after that.
const LEDGER_LAST: Duration = Duration::from_secs(12);
const _: () = assert!(
    LEDGER_FIRST.as_millis() + TRAFFIC_BACK.as_millis() + LEDGER_LAST.as_millis()
        < RUN_GRACE_MS as u128
);
/// How long to wait between two of these tries.
const LEDGER_WAIT: Duration = Duration::from_secs(1);

/// All that a rollout deals with.
pub(super) struct Drive<'a> {
    pub(super) ledger: &'a dyn Ledger,
    pub(super) traffic: Option<Traffic<'a>>,
    pub(super) weights: &'a [u32],
    pub(super) watch: Option<&'a Watch>,
    pub(super) automatic: bool,
    pub(super) env: &'a str,
    pub(super) key: &'a str,
    pub(super) http: &'a Client,
    pub(super) options: &'a DeliverOptions,
}

/// How far a rollout came.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It ended well.
    Done(Success),
    /// It is not in effect, and will not be.
    Refused(Failure),
    /// It stays as it is until somebody goes on with it.
    Stands(Failure),
}

/// What a step on the way came to.
enum Step {
    Next,
    Last,
    End(Outcome),
}

impl Drive<'_> {
    /// Notes the beginning; an error says that nothing was begun, or may have been.
    pub(super) async fn begin(&self, stop: &Stop) -> Result<Begun, Trouble> {
        let Some(traffic) = &self.traffic else { return self.ledger.begin(None, stop).await };
        // Nothing was sent yet, whatever goes wrong.
        let split = traffic.read(stop).await.map_err(|t| Trouble::Refused(t.failure()))?;
        if !self.weights.first().is_some_and(|first| split.is_below(*first)) {
            let message = format!("{} % of the traffic are there already", split.percent());
            let hint = "another rollout is under way, or one ended here: when the version that \
                        stays is the new one, take its share back to 0 %";
            return Err(Trouble::Refused(hinted(user(message), hint)));
        }
        self.ledger.begin(Some(&split.raw), stop).await
    }

    /// Goes on from where it stands.
    pub(super) async fn go_on(&self, entry: Entry, stop: &Stop) -> Outcome {
        match entry {
            Entry::Finished(begun) => Outcome::Done(self.success(&begun)),
            Entry::RolledBack(back) => self.complete_rollback(&back).await,
            Entry::Begun(begun) => {
                let begun = match self.ledger.ready(begun.clone(), stop).await {
                    Ok(begun) => begun,
                    Err(Trouble::Refused(failure)) => return self.refused(&begun, failure).await,
                    Err(Trouble::Unclear(failure)) => return Outcome::Stands(failure),
                };
                match &self.traffic {
                    Some(traffic) => self.climb(&begun, traffic, stop).await,
                    None => match self.watched(&begun, 100, stop).await {
                        Step::End(outcome) => outcome,
                        Step::Next | Step::Last => self.finish(&begun, stop).await,
                    },
                }
            }
            Entry::Absent => Outcome::Refused(user("the rollout has not begun")),
        }
    }

    /// From step to step.
    async fn climb(&self, begun: &Begun, traffic: &Traffic<'_>, stop: &Stop) -> Outcome {
        // Each round ends one step higher, or ends it all.
        for _ in 0..=self.weights.len() {
            match self.ascend(begun, traffic, stop).await {
                Ok(Step::Next) => {}
                Ok(Step::Last) => return self.finish(begun, stop).await,
                Ok(Step::End(outcome)) => return outcome,
                Err(trouble) => return Outcome::Stands(trouble.failure()),
            }
        }
        Outcome::Stands(user("the proxy does not keep the weight that it is given"))
    }

    /// Watches the step at which the traffic is, and moves it to the next one.
    async fn ascend(
        &self,
        begun: &Begun,
        traffic: &Traffic<'_>,
        stop: &Stop,
    ) -> Result<Step, Trouble> {
        let split = traffic.read(stop).await?;
        let Some((from, next)) = self.position(&split, begun) else {
            let message = format!("the traffic is at {} %, which is no step", split.percent());
            let hint = "somebody else moved it; set it to a step, or back to what it was before";
            return Ok(Step::End(Outcome::Stands(hinted(user(message), hint))));
        };
        if let Some(percent) = from {
            match self.watched(begun, percent, stop).await {
                Step::Next => {}
                end => return Ok(end),
            }
        }
        match next {
            None => Ok(Step::Last),
            Some(percent) => {
                let still = |now: &Split| match from {
                    Some(from) => now.is_at(from),
                    None => Some(&now.raw) == begun.former.as_ref(),
                };
                traffic.move_to(percent, still, stop).await?;
                Ok(Step::Next)
            }
        }
    }

    /// The step at which the traffic is, if it has left where it began, and the one after it.
    fn position(&self, split: &Split, begun: &Begun) -> Option<(Option<u32>, Option<u32>)> {
        match self.weights.iter().position(|weight| split.is_at(*weight)) {
            Some(index) => {
                Some((self.weights.get(index).copied(), self.weights.get(index + 1).copied()))
            }
            None if begun.former.as_ref() == Some(&split.raw) => {
                Some((None, self.weights.first().copied()))
            }
            None => None,
        }
    }

    async fn watched(&self, begun: &Begun, percent: u32, stop: &Stop) -> Step {
        let Some(watch) = self.watch else { return Step::Next };
        match watch
            .run(self.http, self.options, At { env: self.env, percent, key: self.key }, stop)
            .await
        {
            Verdict::Good => Step::Next,
            Verdict::Stopped => {
                let message = format!("cancelled while {percent} % were watched; it stays there");
                Step::End(Outcome::Stands(cancelled(message)))
            }
            Verdict::Bad(why) => {
                let why = format!("at {percent} %, {why}");
                Step::End(match self.automatic {
                    true => self.roll_back(begun, &why).await,
                    false => {
                        let failure = user(format!("{why}; it stays at {percent} %"));
                        Outcome::Stands(hinted(failure, "`rollback: automatic` takes it back"))
                    }
                })
            }
        }
    }

    /// Takes it back. What was begun is ended, also when the run is cancelled meanwhile.
    async fn roll_back(&self, begun: &Begun, why: &str) -> Outcome {
        let stop = Stop::new();
        let first = self.ledger.roll_back(begun, why, &stop);
        let mut noted = within(LEDGER_FIRST, "the ledger", first).await;
        let moved = self.traffic_back(begun).await;
        let end = Instant::now() + LEDGER_LAST;
        while noted.is_err() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let again = self.ledger.roll_back(begun, why, &stop);
            noted = within(left, "the ledger", again).await;
            if noted.is_err() {
                let left = end.saturating_duration_since(Instant::now());
                tokio::time::sleep(LEDGER_WAIT.min(left)).await;
            }
        }
        match (moved, noted) {
            (Ok(()), Ok(back)) => Outcome::Refused(rolled_back(&back)),
            (moved, noted) => {
                let troubles = [moved.err(), noted.err()].into_iter().flatten();
                let said: Vec<String> = troubles.map(|t| t.failure().message).collect();
                let failure =
                    user(format!("{why}; it is rolled back in part: {}", said.join("; ")));
                Outcome::Stands(hinted(failure, "look at the weights and at the version by hand"))
            }
        }
    }

    /// Ends a rollback that the ledger knows of.
    async fn complete_rollback(&self, back: &RolledBack) -> Outcome {
        match self.traffic_back(&back.begun).await {
            Ok(()) => Outcome::Refused(rolled_back(back)),
            Err(trouble) => Outcome::Stands(trouble.failure()),
        }
    }

    /// Ends what the ledger will not let go on: what it has let pass before is taken back first.
    async fn refused(&self, begun: &Begun, why: Failure) -> Outcome {
        match self.traffic_back(begun).await {
            Ok(()) => Outcome::Refused(why),
            Err(trouble) => {
                let (why, trouble) = (why.message, trouble.failure());
                let failure = user(format!("{why}; the traffic is not back: {}", trouble.message));
                Outcome::Stands(hinted(failure, "look at the weights by hand"))
            }
        }
    }

    /// Puts the traffic back, if this rollout has moved it.
    async fn traffic_back(&self, begun: &Begun) -> Result<(), Trouble> {
        let (Some(traffic), Some(former)) = (&self.traffic, &begun.former) else {
            return Ok(());
        };
        let stop = Stop::new();
        let ours = |now: &Split| self.weights.iter().any(|weight| now.is_at(*weight));
        within(TRAFFIC_BACK, "the proxy", traffic.restore(former, ours, &stop)).await
    }

    async fn finish(&self, begun: &Begun, stop: &Stop) -> Outcome {
        match self.ledger.finish(begun, stop).await {
            Ok(()) => Outcome::Done(self.success(begun)),
            Err(trouble) => Outcome::Stands(trouble.failure()),
        }
    }

    fn success(&self, begun: &Begun) -> Success {
        let weight = match self.traffic {
            Some(_) => self.weights.last().copied().unwrap_or(100),
            None => 100,
        };
        let outputs: [(&str, Value); 4] = [
            ("revision", json!(begun.revision)),
            ("previous", json!(begun.previous)),
            ("result", json!("deployed")),
            ("weight", json!(weight)),
        ];
        let outputs = outputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Success { outputs, ..Success::default() }
    }
}

/// Waits for something, but not longer than that.
async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    let late = |_| Err(Trouble::Unclear(infrastructure(format!("{what} takes too long"))));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

fn rolled_back(back: &RolledBack) -> Failure {
    let RolledBack { why, revision, .. } = back;
    match revision.as_str() {
        "" => user(format!("rolled back: {why}")),
        revision => user(format!("rolled back to what was before, as `{revision}`: {why}")),
    }
}
