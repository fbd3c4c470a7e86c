//! How a build ends: what it remembers, what it stops, what it says.
//!
//! What it needs no more is ended by a thread of its own, while the rest is remembered.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use maestro_cas::StoreError;
use maestro_core::event::{Event, EventSink, Severity};
use maestro_executor::baselines;
use maestro_executor::engine::outputs::WrittenFile;
use maestro_executor::engine::{FinishedAction, Report};
use maestro_executor::remote_cache::RemoteCache as _;
use maestro_remote::client::{Client, Traffic};

use super::{Built, Invocation, Made, executable, millis, print_summary};
use crate::increment::{Ended, Work};
use crate::report::{OutputSummary, RemoteSummary, Summary, TargetSummary};
use crate::request::{Goal, Wanted};
use crate::runners::Runners;
use crate::verdicts::write_merged;

/// How long results are waited for until the user is told, or asked whether it is enough.
const FLUSH_STEP: Duration = Duration::from_millis(500);

impl Invocation {
    /// Remembers what was made, for the next build and for whoever asks.
    pub(super) fn remember(&self, mut work: Work, goal: Goal, made: Made) -> Result<Built> {
        let Goal { targets, count, artifacts: requested, wanted } = goal;
        let Made { mut report, plan, written, started_over } = made;
        let exit = self.exit_code(&report);
        let log_bytes = crate::memory::remember(self, &work, &mut report, exit)?;
        if work.known.is_none() {
            crate::allocator::give_back();
        }
        if let (Some(_), Some(memory)) = (&work.known, &self.memory) {
            crate::counts::count_known(&mut report, &work, memory, &plan, &requested);
        }
        let (tests, logs) = self.test_verdicts(&work, &wanted, &report, &plan);
        if let Some(flags) = &self.request.tests {
            write_merged(flags, &self.config.workspace, &tests)?;
        }
        let (graph, known) = (&work.graph, work.known.as_ref());
        let named = if self.names_targets(count) { wanted.as_slice() } else { &[] };
        let executables = named.iter().map(|want| executable(&self.config, graph, want)).collect();
        let files: Vec<Vec<OutputSummary>> =
            named.iter().map(|want| self.files_of(graph, known, want, &written)).collect();
        let summary = self.summary(&report, named, &files);
        if self.remembers && !started_over {
            let written = written.into_values().flatten().chain(logs);
            let written: Vec<WrittenFile> = written.collect();
            self.leave(Ended {
                work: &mut work,
                plan,
                report: &mut report,
                targets: &targets,
                count,
                requested: &requested,
                summary: &summary,
                tests: &tests,
                files: written,
                log_bytes,
            })?;
        }
        Ok(Built { report, targets: count, summary, files, executables })
    }

    /// Ends what a build needs no more, and what it wrote to the store, while the rest is
    /// remembered.
    pub(super) fn close(&self, runners: Runners) -> Result<(), StoreError> {
        drop(runners);
        finish_baselines(&self.baselines);
        if let Some(remote) = &self.remote {
            remote.keep_found()?;
            self.wait_until_left(remote);
        }
        if self.store.was_written() {
            self.store.leave_epoch()?;
        }
        Ok(())
    }

    /// Waits for results that are on their way to others, as long as they get there.
    fn wait_until_left(&self, remote: &Client) {
        let mut told = false;
        while !remote.flush(FLUSH_STEP) && !self.cancel.is_cancelled() {
            if !told {
                let (results, url) = (remote.pending(), remote.url());
                let text = format!("{results} results are still on their way to `{url}`");
                self.events.emit(Event::Message { severity: Severity::Info, text });
            }
            told = true;
        }
        let mut news = remote.news();
        let Traffic { lost_results, .. } = remote.traffic();
        if lost_results > 0 {
            let url = remote.url();
            news.push(format!("{lost_results} results could not be left at `{url}`"));
        }
        for text in news {
            self.events.emit(Event::Message { severity: Severity::Warning, text });
        }
    }

    /// Waits until explanations know all that was run.
    pub fn finish_baselines(&self) {
        finish_baselines(&self.baselines);
    }

    /// Reports, and says how the process ends.
    pub fn conclude(self, built: Built) -> Result<ExitCode> {
        let Built { report, targets, mut summary, files: _, executables: _ } = built;
        summary.wall_ms = millis(self.started);
        summary.remote = self.remote.as_ref().map(|remote| {
            let Traffic { fetched_bytes, sent_bytes, left_results, .. } = remote.traffic();
            RemoteSummary { fetched_bytes, sent_bytes, left_results }
        });
        let exit = self.exit_code(&report);
        self.events.emit(Event::InvocationFinished {
            success: summary.success,
            exit_code: exit,
            actions: summary.actions,
            critical_path_ms: summary.critical_path_ms,
            wall_ms: summary.wall_ms,
        });
        for problem in self.events.finish() {
            eprintln!("warning: {problem}");
        }
        if report.cancelled {
            eprintln!("error: cancelled");
        }
        print_summary(self.output, &summary, targets, &self.request, false)?;
        Ok(ExitCode::from(exit))
    }

    fn summary(&self, report: &Report, wanted: &[Wanted], files: &[Vec<OutputSummary>]) -> Summary {
        let targets = wanted.iter().zip(files).map(|(want, files)| TargetSummary {
            label: want.label.to_string(),
            aspect: want.aspect.clone(),
            outputs: files.clone(),
        });
        let cost = |f: &FinishedAction| f.cost_usd_micros;
        let saved = |f: &FinishedAction| f.saved_usd_micros;
        Summary {
            success: report.success(),
            targets: targets.collect(),
            actions: report.counts,
            critical_path_ms: report.critical_path_ms,
            wall_ms: millis(self.started),
            cost_usd_micros: report.finished.iter().map(cost).sum(),
            saved_usd_micros: report.finished.iter().map(saved).sum(),
            remote: None,
            invocation_id: self.id().to_owned(),
        }
    }
}

/// A build does not fail for want of an explanation.
fn finish_baselines(baselines: &baselines::Writer) {
    if let Err(error) = baselines.finish() {
        tracing::warn!(%error, "what was run is not remembered for explanations");
    }
}
