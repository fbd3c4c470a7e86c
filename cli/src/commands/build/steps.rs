//! `maestro build //:PIPELINE.STEP`: makes a step of a pipeline with all that it waits for, as a
//! run would, and keeps no run.
//!
//! It changes nothing in the world: steps behind an effect or a gate are refused. It spends
//! nothing: what models have answered is found in the lock or the cache, and nobody asks them.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use maestro_core::run::{Cap, Command, FailureClass, RunState, Success};
use maestro_rules::pipeline::template::Step;
use maestro_runs::{NoCheckpoints, driver};
use serde_json::{Value, json};

use crate::args::{BuildArgs, Global, OutputFormat};
use crate::commands::runs::{
    Follower, drive_with_lines, flag_of_targets, on_runtime, signalled, wish_for,
};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::open_store;
use crate::pipelines;
use crate::runs::start::{self, Wishes};
use crate::runs::state::State;
use crate::runs::{SystemClock, view};

/// How a program ends that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Steps of one pipeline.
pub struct Steps {
    file: String,
    pipeline: String,
    steps: Vec<String>,
}

/// The steps that patterns name; none where the first of them names none. A target that is called
/// like a step is hidden by it.
pub fn named(config: &Config, patterns: &[String]) -> Result<Option<Steps>> {
    let mut patterns = patterns.iter();
    let first = patterns.next().and_then(|pattern| step_of(config, pattern));
    let Some(mut all) = first else { return Ok(None) };
    for pattern in patterns {
        match step_of(config, pattern) {
            Some(one) if all.file == one.file => all.steps.extend(one.steps),
            _ => {
                let (pipeline, step) = (&all.pipeline, &all.steps[0]);
                return Err(Failure::input(format!(
                    "`{pattern}` is no step of `{pipeline}`, as `{step}` is"
                ))
                .hint("build steps of one pipeline at a time, and targets apart from them")
                .into());
            }
        }
    }
    Ok(Some(all))
}

fn step_of(config: &Config, pattern: &str) -> Option<Steps> {
    let name = match pattern.strip_prefix("//:") {
        Some(name) => name,
        None => pattern.strip_prefix(':').filter(|_| config.package.is_empty())?,
    };
    let defaults = pipelines::defaults(config).ok()?;
    name.match_indices('.').find_map(|(place, _)| {
        let (pipeline, step) = (name.get(..place)?, name.get(place + 1..)?);
        let file = pipelines::resolve(config, pipeline).ok()?;
        let checked = pipelines::load(config, &file, &defaults).ok()?;
        // A pipeline with errors is named, too, so that they are told.
        let has = |own: &Step| own.id.value == step;
        checked.pipeline.is_none_or(|pipeline| pipeline.template.all_steps().any(has)).then(|| {
            Steps { file: file.name, pipeline: pipeline.to_owned(), steps: vec![step.to_owned()] }
        })
    })
}

impl Steps {
    /// Makes them.
    pub fn build(self, global: &Global, config: &Config, args: &BuildArgs) -> Result<ExitCode> {
        let given = [
            ("--daemon", args.daemon.flag().is_some()),
            ("--watch", args.watch),
            ("--output-groups", !args.output_groups.is_empty()),
        ];
        let given = given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag);
        if let Some(flag) = given.or_else(|| flag_of_targets(&args.options)) {
            return Err(Failure::input(format!(
                "`{flag}` says nothing about a step of a pipeline"
            ))
            .hint("it takes `--param NAME=VALUE` for the params of the pipeline")
            .into());
        }
        // The state goes with the store, and whatever a process leaves that is killed is swept.
        let store = open_store(config)?;
        let folder = store.scratch_dir();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        on_runtime(async {
            let state = State::at(folder, Arc::new(NoCheckpoints))?;
            let ended = self.drive(&state, config, args).await?;
            Ok(self.report(global, &ended))
        })
    }

    async fn drive(&self, state: &State, config: &Config, args: &BuildArgs) -> Result<RunState> {
        let wishes = Wishes {
            params: &args.options.configuration.params,
            budget: None,
            keep_going: args.options.keep_going,
            git: None,
            steps: &self.steps,
        };
        let mut created = start::create(config, &self.file, &wishes, state.principal()?)?;
        created.plan.cap = Cap { usd_micros: Some(0), tokens: Some(0), ..Cap::default() };
        let run = created.run.clone();
        let now_ms = driver::Clock::now_ms(&SystemClock);
        let begun = driver::begin(&*state.journal, created, Vec::new(), now_ms).await;
        let begun = begun.map_err(start::drive_failure)?;
        let points = Arc::new(NoCheckpoints);
        let owned = start::own(state, begun, &config.cache, points, (false, false)).await?;
        let (driver, _locks) = owned;
        let driving = drive_with_lines(Follower::of_steps(state, &run), driver);
        tokio::pin!(driving);
        tokio::select! {
            ended = &mut driving => ended,
            signal = signalled() => {
                signal?;
                let (by, reason) = (state.principal()?, "interrupted".to_owned());
                let wish =
                    |_: &RunState| Ok(Command::Cancel { by: by.clone(), reason: reason.clone() });
                wish_for(state, &run, wish).await?;
                driving.await
            }
        }
    }

    /// Tells what was made: values on standard output.
    fn report(&self, global: &Global, ended: &RunState) -> ExitCode {
        let made: Vec<Value> = self.steps.iter().map(|step| self.made(ended, step)).collect();
        let code = match ended.cancelled {
            Some(_) => INTERRUPTED,
            None => view::exit_code(ended),
        };
        if global.output == OutputFormat::Json {
            println!("{}", json!({"success": code == 0, "steps": made}));
        } else {
            for step in &made {
                println!("{}  {}", text(&step["label"]), text(&step["verdict"]));
                for (name, value) in step["outputs"].as_object().into_iter().flatten() {
                    println!("  {name}: {value}");
                }
            }
        }
        let mut failures = ended.tasks.values().filter_map(|task| task.failure.as_ref());
        if failures.any(|failure| failure.class == FailureClass::Budget) {
            let pipeline = &self.pipeline;
            eprintln!("hint: a build asks no model; `maestro run --template {pipeline}` may");
        }
        ExitCode::from(code)
    }

    fn made(&self, ended: &RunState, id: &str) -> Value {
        let found = ended.plan().find(id);
        let step = found.and_then(|index| ended.step(index));
        let verdict = step.and_then(|(_, step)| step.verdict()).map(|verdict| verdict.name());
        let tasks = found.into_iter().flat_map(|index| ended.tasks_of(index));
        let successes: Vec<&Success> =
            tasks.filter_map(|(_, task)| task.success.as_ref()).collect();
        let outputs = match successes.as_slice() {
            [one] => json!(one.outputs),
            several => several.iter().map(|own| json!(own.outputs)).collect(),
        };
        let cached = !successes.is_empty() && successes.iter().all(|own| own.cached);
        let label = format!("//:{}.{id}", self.pipeline);
        json!({"label": label, "verdict": verdict, "cached": cached, "outputs": outputs})
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unfinished")
}
