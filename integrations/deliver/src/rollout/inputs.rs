//! The fields of `cd.rollout`, what must hold between them, and the request that they make.

use std::collections::BTreeMap;
use std::path::Path;

use maestro_core::limits::RUN_REQUEST_BYTES_MAX;
use maestro_core::run::Failure;
use maestro_executor::step::Reach;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::USES;
use super::git::{check_branch, check_path, remote};
use super::probe::{Question, Watch};
use super::repository::{Change, EDITS_MAX};
use super::traffic::Proxy;
use crate::failures::{hinted, user};
use crate::inputs::{Millis, far_side, http_url, read};

/// Most steps of a canary.
const WEIGHTS_MAX: usize = 100;
/// Longest name of an environment, in bytes.
const ENV_BYTES_MAX: usize = 200;

/// The `with` of a step, complete with its defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    subject: Option<Value>,
    env: String,
    strategy: Strategy,
    via: Through,
    repository: Option<String>,
    branch: String,
    path: Option<String>,
    gate: Option<String>,
    auth: Option<String>,
    traffic: Option<String>,
    proxy: Proxy,
    weights: Vec<u32>,
    pause: Millis,
    probe: Option<String>,
    probe_command: Option<Vec<String>>,
    max_error_rate: f64,
    rollback: Rollback,
    values: Option<BTreeMap<String, Value>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Strategy {
    AllAtOnce,
    Canary,
    BlueGreen,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Through {
    Gitops,
    Gate,
}

#[derive(PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rollback {
    Automatic,
    Manual,
}

/// All that is done, with the names of secrets and without their values.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) env: String,
    pub(super) subject: String,
    strategy: Strategy,
    pub(super) via: Via,
    pub(super) traffic: Option<Target>,
    /// Rising; the steps of the traffic.
    pub(super) weights: Vec<u32>,
    pub(super) watch: Option<Watch>,
    /// Whether a bad probe takes it back.
    pub(super) automatic: bool,
}

/// Which ledger.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Via {
    Gitops { repository: String, branch: String, change: Change, auth: Option<String> },
    Gate { url: String, values: BTreeMap<String, Value>, auth: Option<String> },
}

/// Which proxy.
#[derive(Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) proxy: Proxy,
    pub(super) url: String,
}

impl Request {
    /// The request that the inputs of a step mean, in a workspace.
    pub(super) fn of(inputs: &Value, folder: &Path) -> Result<Self, Failure> {
        let inputs: Inputs = read(USES, inputs)?;
        if inputs.env.trim().is_empty() || inputs.env.len() > ENV_BYTES_MAX {
            return Err(user("`env` is empty or too long"));
        }
        let target = target(&inputs)?;
        let weights = weights(&inputs)?;
        let watch = watch(&inputs)?;
        let subject = subject(inputs.subject.as_ref())?;
        let via = via(&inputs, &subject, folder)?;
        let request = Self {
            env: inputs.env,
            subject: subject.unwrap_or_default(),
            strategy: inputs.strategy,
            via,
            traffic: target,
            weights,
            watch,
            automatic: inputs.rollback == Rollback::Automatic,
        };
        let bytes = serde_json::to_vec(&request).map_or(usize::MAX, |text| text.len());
        if bytes > RUN_REQUEST_BYTES_MAX {
            return Err(user(format!("`values` make a request of {bytes} bytes")));
        }
        Ok(request)
    }

    /// The ledger, the proxy and the probe; what a command of a probe talks to is not known.
    pub(super) fn reach(&self) -> Reach {
        let (ledger, auth) = match &self.via {
            Via::Gitops { repository, auth, .. } => (repository, auth),
            Via::Gate { url, auth, .. } => (url, auth),
        };
        let probe = match self.watch.as_ref().and_then(|watch| watch.question.as_ref()) {
            Some(Question::Url(url)) => Some(url),
            Some(Question::Command(_)) | None => None,
        };
        let traffic = self.traffic.as_ref().map(|target| &target.url);
        let urls = [Some(ledger), traffic, probe].into_iter().flatten();
        let hosts = urls.filter_map(|url| far_side(&Url::parse(url).ok()?));
        Reach { hosts: hosts.collect(), secrets: auth.iter().cloned().collect() }
    }

    /// What a gate is told.
    pub(super) fn document(&self) -> Value {
        let values = match &self.via {
            Via::Gate { values, .. } => json!(values),
            Via::Gitops { .. } => json!({}),
        };
        json!({
            "env": self.env,
            "subject": self.subject,
            "strategy": self.strategy,
            "weights": self.weights,
            "values": values,
        })
    }
}

fn target(inputs: &Inputs) -> Result<Option<Target>, Failure> {
    let by_steps = inputs.strategy != Strategy::AllAtOnce;
    match &inputs.traffic {
        Some(_) if !by_steps => {
            let failure = user("`traffic` is for `canary` and `blue-green`");
            Err(hinted(failure, "say `strategy: canary`, or leave `traffic` out"))
        }
        Some(url) => {
            http_url("traffic", url)?;
            Ok(Some(Target { proxy: inputs.proxy, url: url.clone() }))
        }
        None if by_steps && matches!(inputs.via, Through::Gitops) => {
            let failure = user("a commit alone moves no traffic in steps");
            let hint = "name the proxy that splits it as `traffic`, or say `strategy: all-at-once`";
            Err(hinted(failure, hint))
        }
        None => Ok(None),
    }
}

fn weights(inputs: &Inputs) -> Result<Vec<u32>, Failure> {
    let weights = match inputs.strategy {
        Strategy::Canary => inputs.weights.clone(),
        Strategy::AllAtOnce | Strategy::BlueGreen => vec![100],
    };
    let rising = weights.windows(2).all(|pair| pair.first() < pair.last());
    let percent = weights.iter().all(|weight| (1..=100).contains(weight));
    if weights.is_empty() || weights.len() > WEIGHTS_MAX || !rising || !percent {
        return Err(user("`weights` do not rise from 1 to 100"));
    }
    Ok(weights)
}

fn watch(inputs: &Inputs) -> Result<Option<Watch>, Failure> {
    let question = match (&inputs.probe, &inputs.probe_command) {
        (Some(_), Some(_)) => return Err(user("`probe` and `probe_command` exclude each other")),
        (Some(url), None) => Some(Question::Url(url.clone())),
        (None, Some(words)) => Some(Question::Command(words.clone())),
        (None, None) => None,
    };
    let (pause_ms, max_error_rate) = (inputs.pause.0, inputs.max_error_rate);
    let watch = Watch { pause_ms, question, max_error_rate };
    watch.check()?;
    // Without a probe only steps of traffic are waited for.
    Ok((watch.question.is_some() || inputs.traffic.is_some()).then_some(watch))
}

fn subject(subject: Option<&Value>) -> Result<Option<String>, Failure> {
    match subject {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(user("`subject` is not the name or the digest of an artifact")),
    }
}

fn via(inputs: &Inputs, subject: &Option<String>, folder: &Path) -> Result<Via, Failure> {
    let values = inputs.values.clone().unwrap_or_default();
    let missing = |field: &str, via: &str| user(format!("`via: {via}` needs `{field}`"));
    let auth = inputs.auth.clone();
    match inputs.via {
        Through::Gate => {
            let url = inputs.gate.clone().ok_or_else(|| missing("gate", "gate"))?;
            http_url("gate", &url)?;
            Ok(Via::Gate { url, values, auth })
        }
        Through::Gitops => {
            let repository =
                inputs.repository.clone().ok_or_else(|| missing("repository", "gitops"))?;
            let path = inputs.path.clone().ok_or_else(|| missing("path", "gitops"))?;
            let repository = remote(&repository, folder)?.to_string();
            check_branch(&inputs.branch)?;
            check_path(&path)?;
            let change = Change { values: edits(&path, values, subject)?, path };
            Ok(Via::Gitops { repository, branch: inputs.branch.clone(), change, auth })
        }
    }
}

/// What is set in the file: `values`, or else its `image`, or else all of it.
fn edits(
    path: &str,
    values: BTreeMap<String, Value>,
    subject: &Option<String>,
) -> Result<Vec<(String, Value)>, Failure> {
    let keyed = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
    let no_subject = || {
        let failure = user("nothing says what is rolled out");
        hinted(failure, "give `subject`, or `values` with the keys to set")
    };
    if !keyed && !values.is_empty() {
        let failure = user(format!("`{path}` has no keys that `values` could set"));
        return Err(hinted(failure, "keys are set in `.yaml`, `.yml` and `.json`"));
    }
    if values.len() > EDITS_MAX {
        return Err(user(format!("`values` has more than {EDITS_MAX} keys")));
    }
    if !values.is_empty() {
        return Ok(values.into_iter().collect());
    }
    let subject = subject.clone().ok_or_else(no_subject)?;
    Ok(match keyed {
        true => vec![("image".to_owned(), json!(subject))],
        false => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(changes: Value) -> Value {
        let mut inputs = json!({
            "subject": "app@sha256:0f", "env": "prod", "strategy": "canary", "via": "gitops",
            "repository": "https://h.example/a.git", "branch": "main", "path": "app.yaml",
            "traffic": "http://127.0.0.1:1/w", "proxy": "http", "weights": [5, 25, 50, 100],
            "pause": "1m", "max_error_rate": 0.01, "rollback": "automatic",
        });
        for (name, value) in changes.as_object().expect("an object") {
            inputs[name] = value.clone();
        }
        inputs
    }

    #[test]
    fn the_image_is_set_where_no_values_say_otherwise() {
        let check = |changes: Value, expected: Value| {
            let request = Request::of(&inputs(changes), Path::new("/work")).expect("a request");
            let Via::Gitops { change, .. } = request.via else { panic!("gitops") };
            assert_eq!(json!(change.values), expected);
        };
        check(json!({}), json!([["image", "app@sha256:0f"]]));
        check(json!({"values": {"a.tag": 1}}), json!([["a.tag", 1]]));
        check(json!({"path": "VERSION"}), json!([]));
    }

    #[test]
    fn all_far_sides_are_told() {
        let check = |changes: Value, hosts: &[(&str, u16)], secrets: &[&str]| {
            let request = Request::of(&inputs(changes), Path::new("/work")).expect("a request");
            let reach = request.reach();
            let told: Vec<(&str, u16)> =
                reach.hosts.iter().map(|(h, p)| (h.as_str(), *p)).collect();
            assert_eq!(told, hosts);
            assert_eq!(reach.secrets.iter().map(String::as_str).collect::<Vec<_>>(), secrets);
        };
        check(json!({}), &[("127.0.0.1", 1), ("h.example", 443)], &[]);
        check(
            json!({"repository": "ssh://git@Git.Example/a", "probe": "http://p.example/", "auth": "t"}),
            &[("127.0.0.1", 1), ("git.example", 22), ("p.example", 80)],
            &["t"],
        );
        check(json!({"repository": "./a.git"}), &[("127.0.0.1", 1)], &[]);
        check(
            json!({"via": "gate", "gate": "https://g.example:8443/", "probe_command": ["x"]}),
            &[("127.0.0.1", 1), ("g.example", 8443)],
            &[],
        );
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let check = |changes: Value, part: &str| {
            let shown = changes.to_string();
            let failure = Request::of(&inputs(changes), Path::new("/work")).err().expect(&shown);
            assert!(failure.message.contains(part), "{shown}: {}", failure.message);
        };
        check(json!({"traffic": null}), "moves no traffic");
        check(json!({"strategy": "all-at-once"}), "`traffic` is for");
        check(json!({"weights": []}), "do not rise");
        check(json!({"weights": [50, 25]}), "do not rise");
        check(json!({"weights": [5, 5]}), "do not rise");
        check(json!({"weights": [0, 5]}), "do not rise");
        check(json!({"weights": [101]}), "do not rise");
        check(json!({"max_error_rate": 2.0}), "max_error_rate");
        check(json!({"max_error_rate": "NaN"}), "do not fit");
        check(json!({"pause": "soon"}), "do not fit");
        check(json!({"probe": "http://h/", "probe_command": ["x"]}), "exclude");
        check(json!({"probe_command": []}), "empty");
        check(json!({"env": " "}), "`env`");
        check(json!({"branch": "--upload-pack=x"}), "is no branch");
        check(json!({"path": "../x"}), "is no path");
        check(json!({"path": null}), "needs `path`");
        check(json!({"repository": "-x"}), "`repository`");
        check(json!({"path": "VERSION", "values": {"a": 1}}), "has no keys");
        check(json!({"subject": null}), "nothing says");
        check(json!({"subject": {"a": 1}}), "`subject`");
        check(json!({"via": "gate"}), "needs `gate`");
        check(json!({"surprise": 1}), "unknown field");
    }
}
