//! The probe that decides whether a version is well.
//!
//! It is asked once a second for as long as a step is watched, and at least once. An answer is good
//! or bad, or, as JSON with an `error_rate` between 0 and 1, as bad as it says. What is neither
//! counts as bad: an answer that is late, broken, or a rate that is no rate.

use std::process::Stdio;
use std::time::Duration;

use maestro_core::run::Failure;
use maestro_executor::leftovers::KEY_VARIABLE;
use maestro_executor::process_group::ProcessGroup;
use maestro_executor::step::Stop;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use crate::DeliverOptions;
use crate::failures::{excerpt, user};
use crate::http::call;
use crate::inputs::http_url;

/// How often a probe is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a probe may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest watch of one step.
pub(super) const PAUSE_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// Who is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Question {
    /// A URL, by `GET`.
    Url(String),
    /// A command; its exit status answers.
    Command(Vec<String>),
}

/// How each step is watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Watch {
    /// How long, in milliseconds.
    pub(super) pause_ms: u64,
    /// Who is asked; nobody where it is only waited.
    pub(super) question: Option<Question>,
    /// The part of bad answers from which on a step is bad.
    pub(super) max_error_rate: f64,
}

/// What came of a watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Good,
    /// In words.
    Bad(String),
    /// The run was cancelled.
    Stopped,
}

/// Answers so far.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: u32,
    bad: f64,
}

impl Count {
    /// Whether it is bad if no more than `of` answers are counted.
    fn is_bad(self, of: u32, rate_max: f64) -> bool {
        self.bad > 0.0 && self.bad >= rate_max * f64::from(of)
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) env: &'a str,
    /// How much of the traffic meets the new version.
    pub(super) percent: u32,
    /// The key of the rollout.
    pub(super) key: &'a str,
}

impl Watch {
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !(0.0..=1.0).contains(&self.max_error_rate) {
            return Err(user("`max_error_rate` is not between 0 and 1"));
        }
        if self.pause_ms > PAUSE_MS_MAX {
            return Err(user(format!("`pause` is longer than {PAUSE_MS_MAX} ms")));
        }
        match &self.question {
            Some(Question::Url(url)) => http_url("probe", url).map(drop),
            Some(Question::Command(words)) if words.first().is_none_or(String::is_empty) => {
                Err(user("`probe_command` is empty"))
            }
            _ => Ok(()),
        }
    }

    /// Watches for as long as the pause, or until it is clear that it is bad.
    pub(super) async fn run(
        &self,
        http: &Client,
        options: &DeliverOptions,
        at: At<'_>,
        stop: &Stop,
    ) -> Verdict {
        let end = Instant::now() + Duration::from_millis(self.pause_ms);
        let Some(question) = &self.question else {
            return tokio::select! {
                () = tokio::time::sleep_until(end) => Verdict::Good,
                () = stop.cancelled() => Verdict::Stopped,
            };
        };
        let interval_ms = u64::try_from(INTERVAL.as_millis()).unwrap_or(1000);
        let planned = u32::try_from(self.pause_ms / interval_ms).unwrap_or(u32::MAX).max(1);
        let (mut count, mut last) = (Count::default(), String::new());
        loop {
            let next = Instant::now() + INTERVAL;
            let answer = tokio::select! {
                answer = question.ask(http, options, at) => answer,
                () = stop.cancelled() => return Verdict::Stopped,
            };
            count.asked += 1;
            if let Err((bad, why)) = answer {
                count.bad += bad;
                last = why;
            }
            let over = Instant::now().max(next) >= end;
            let of = if over { count.asked } else { planned.max(count.asked) };
            if count.is_bad(of, self.max_error_rate) {
                let (bad, asked) = (count.bad.ceil(), count.asked);
                return Verdict::Bad(format!(
                    "{bad} of {asked} answers were bad, the last: {last}"
                ));
            }
            if over {
                return Verdict::Good;
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = stop.cancelled() => return Verdict::Stopped,
            }
        }
    }
}

impl Question {
    /// Asks once; an error is how bad it is, up to 1, and why.
    async fn ask(
        &self,
        http: &Client,
        options: &DeliverOptions,
        at: At<'_>,
    ) -> Result<(), (f64, String)> {
        match self {
            Self::Url(url) => ask_url(http, url).await,
            Self::Command(words) => run(words, options, at).await.map_err(|w| (1.0, w)),
        }
    }
}

async fn ask_url(http: &Client, url: &str) -> Result<(), (f64, String)> {
    let url = http_url("probe", url).map_err(|failure| (1.0, failure.message))?;
    let answer = call(http.get(url), ANSWER_TIMEOUT, &Stop::new())
        .await
        .map_err(|silence| (1.0, silence.failure("the probe").message))?;
    let object = answer.body.as_ref().is_ok_and(|body| body.trim_ascii_start().starts_with(b"{"));
    if !answer.is_success() || answer.body.is_err() {
        return Err((1.0, answer.shown()));
    }
    // Any text will do, but what looks like JSON and is none may be a rate: `{"error_rate": NaN}`.
    let told = match answer.json() {
        Err(why) if object => return Err((1.0, why)),
        told => told.ok(),
    };
    let Some(rate) = told.as_ref().and_then(|told| told.get("error_rate")) else { return Ok(()) };
    match rate.as_f64() {
        Some(0.0) => Ok(()),
        Some(rate) if rate > 0.0 && rate <= 1.0 => Err((rate, format!("error rate {rate}"))),
        _ => Err((1.0, format!("`{}` is no error rate", excerpt(&rate.to_string())))),
    }
}

async fn run(words: &[String], options: &DeliverOptions, at: At<'_>) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("there is no command")?;
    // A path is meant in the workspace, a bare name in `PATH`.
    let path = match program.contains('/') {
        true => options.folder.join(program),
        false => program.into(),
    };
    let mut child = Command::new(path)
        .args(args)
        .current_dir(&options.folder)
        .env_clear()
        .envs(options.environment.iter().map(|(name, value)| (name, value)))
        .env("MAESTRO_ENV", at.env)
        .env("MAESTRO_WEIGHT", at.percent.to_string())
        .env(KEY_VARIABLE, at.key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("`{}` does not start: {error}", excerpt(program)))?;
    // Ends what the command began as well, however this function is left.
    let _group = ProcessGroup::of(child.id());
    match tokio::time::timeout(ANSWER_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("`{}` ended with {status}", excerpt(program))),
        Ok(Err(error)) => Err(format!("`{}`: {error}", excerpt(program))),
        Err(_) => {
            let limit = ANSWER_TIMEOUT.as_secs();
            Err(format!("`{}` took longer than {limit} s", excerpt(program)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_is_from_the_rate_on_and_never_without_a_bad_answer() {
        let check = |bad: f64, of: u32, rate_max: f64, expected: bool| {
            let count = Count { asked: of, bad };
            assert_eq!(count.is_bad(of, rate_max), expected, "{bad} of {of}, {rate_max}");
        };
        check(0.0, 10, 0.0, false);
        check(1.0, 10, 0.0, true);
        check(1.0, 100, 0.01, true);
        check(1.0, 101, 0.01, false);
        check(0.5, 10, 0.05, true);
        check(10.0, 10, 1.0, true);
        check(9.0, 10, 1.0, false);
    }

    #[test]
    fn watches_that_mean_nothing_are_refused() {
        let check = |pause_ms, question, max_error_rate, part: &str| {
            let failure = Watch { pause_ms, question, max_error_rate }.check().expect_err("bad");
            assert!(failure.message.contains(part), "{}", failure.message);
        };
        for rate in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            check(0, None, rate, "max_error_rate");
        }
        check(u64::MAX, None, 0.1, "pause");
        check(0, Some(Question::Command(Vec::new())), 0.1, "empty");
        check(0, Some(Question::Url("file:///etc/passwd".into())), 0.1, "probe");
    }
}
