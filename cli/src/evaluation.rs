//! Evaluating build files, with what earlier evaluations remember.

use std::sync::OnceLock;

use anyhow::Result;
use maestro_core::event::{Event, EventSink};
use maestro_core::{ActionGraph, Target, TargetId};
use maestro_executor::workspace;
use maestro_executor::workspace::snapshot::{
    EvaluationBytes, RecentEvaluation, Snapshot, StoredBase, recent_evaluation,
};
use maestro_rules::{
    ChangedPaths, Loaded, Memory, PackageMemories, PackageMemory, Reevaluated, Reloaded, Remember,
    Remembered,
};

use crate::config::Config;
use crate::invocation::{Invocation, millis};
use crate::null_build::{keyed_options, maestro_build, snapshot_name};

/// The memory of the evaluation is written anew where its changes are this part of it.
const MEMORY_PART: usize = 4;

/// What became of a graph when build files were evaluated that saw a change.
pub struct Evaluated {
    /// The graph and what is asked for of it.
    pub loaded: Loaded,
    /// The targets that are not what they were, as they were; `None` where these are many.
    pub former: Option<Vec<(TargetId, Target)>>,
    /// What is remembered of it.
    pub bytes: EvaluationBytes,
}

impl Invocation {
    /// Evaluates build files.
    pub fn load(&self, patterns: &[String]) -> Result<Loaded> {
        Ok(self.reload(patterns, None, Remember::Nothing)?.loaded)
    }

    /// Evaluates build files, as far as they are not remembered.
    pub fn reload(
        &self,
        patterns: &[String],
        memory: Option<Memory<'_>>,
        remember: Remember,
    ) -> Result<Reloaded> {
        let options = &self.request.options.configuration;
        let configuration = crate::profiles::configuration(&self.config, options)?;
        let (config, host) = (&self.config, &self.host);
        let remembers = memory.is_some();
        let reloaded =
            crate::load::reload(config, host, patterns, configuration, memory, remember)?;
        let loaded = &reloaded.loaded;
        self.events.emit(Event::Analyzed {
            packages: u32::try_from(loaded.packages).unwrap_or(u32::MAX),
            targets: u32::try_from(loaded.graph.target_count()).unwrap_or(u32::MAX),
            at_ms: millis(self.started()),
        });
        if remembers {
            let Reevaluated { files, packages, targets } = reloaded.reevaluated.clone();
            self.events.emit(Event::Reevaluated { files, packages, targets });
        }
        Ok(reloaded)
    }

    /// Evaluates the build files that saw one of some paths; `None` where the memory of the
    /// evaluation cannot be read, or `graph` could not be continued: then its ids mean nothing any
    /// more, and what was seen for the parts that were remembered would have to be seen again.
    pub fn evaluate_changes(
        &self,
        snapshot: &Snapshot,
        paths: &[&String],
        graph: ActionGraph,
    ) -> Result<Option<Evaluated>> {
        let Some((base, delta)) = snapshot.open_evaluation().ok().flatten() else {
            return Ok(None);
        };
        let changed = ChangedPaths::These(paths.iter().map(|path| path.to_string()).collect());
        let remember = match delta.len() > base.get().len() / MEMORY_PART {
            true => Remember::Base,
            false => Remember::Delta,
        };
        let delta = (!delta.is_empty()).then_some(delta);
        let memory = Memory { base: base.get(), delta, graph: Some(graph), changed: &changed };
        let reloaded = self.reload(&self.request.patterns, Some(memory), remember)?;
        if reloaded.anew {
            return Ok(None);
        }
        let Reloaded { loaded, former, remembered, .. } = reloaded;
        let bytes = self.keep_evaluation(remembered)?;
        Ok(Some(Evaluated { loaded, former, bytes }))
    }

    /// Keeps the memory of an evaluation for the snapshot; what is large goes to disk at once.
    pub fn keep_evaluation(&self, remembered: Remembered) -> Result<EvaluationBytes> {
        let (base, delta) = match remembered {
            Remembered::Nothing => return Ok(EvaluationBytes::default()),
            Remembered::Delta(delta) => (None, delta),
            Remembered::Base(base) => (Some(base), Vec::new()),
        };
        let options = keyed_options(&self.config, &self.request);
        let name = snapshot_name(self.state_dir(), &options);
        let former = self.memory.as_ref().map(|memory| &*memory.snapshot);
        let base = base.map(|bytes| StoredBase::write(&name, former, &bytes)).transpose()?;
        Ok(EvaluationBytes { base, delta: Some(delta) })
    }
}

/// What builds remember of the packages of a workspace, for commands that build nothing.
pub struct KnownPackages<'c> {
    config: &'c Config,
    evaluation: OnceLock<Option<RecentEvaluation>>,
}

impl<'c> KnownPackages<'c> {
    /// That of the workspace of a configuration.
    pub fn of(config: &'c Config) -> Self {
        Self { config, evaluation: OnceLock::new() }
    }
}

impl PackageMemories for KnownPackages<'_> {
    fn packages(&self) -> Option<PackageMemory<'_>> {
        let evaluation = self.evaluation.get_or_init(|| {
            let Config { cache, workspace, .. } = self.config;
            let state_dir = workspace::state_dir(cache, workspace).ok()?;
            recent_evaluation(&state_dir, maestro_build())
        });
        let RecentEvaluation { base, delta } = evaluation.as_ref()?;
        let delta = (!delta.is_empty()).then_some(delta.as_slice());
        Some(PackageMemory { base: base.get(), delta })
    }
}
