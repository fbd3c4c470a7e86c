//! Wires those who run actions, and those who find toolchains, to this machine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use maestro_cas::Store;
use maestro_core::key::SandboxProfile;
use maestro_core::{Digest, Toolchain};
use maestro_executor::command::{CommandOptions, CommandRunner};
use maestro_executor::engine::resolve::{ToolchainFailure, Toolchains as FindToolchains};
use maestro_executor::native::NativeRunner;
use maestro_executor::runner::{Runner, ToolchainMount};
use maestro_executor::workspace::toolchain::{
    Copying, DpkgPaths, ResolvedToolchain, ToolchainError, Toolchains,
};
use maestro_fetch::{FetchOptions, FetchRunner, NpmOptions, ProxyOptions, Variables};

use crate::args::{BuildOptions, SandboxChoice};
use crate::config::{Config, VENDOR_FOLDER, cargo_downloads, non_empty, variables};
use crate::exit::chain;
use crate::invocation::Invocation;

/// The runners of one build.
pub struct Runners {
    command: Arc<CommandRunner>,
    list: Vec<Arc<dyn Runner>>,
}

impl Runners {
    /// Commands in the sandbox, native steps, pinned downloads, and live calls where the command
    /// makes them.
    pub fn new(invocation: &Invocation) -> Result<Self> {
        let options = &invocation.request.options;
        let program = std::env::current_exe().context("cannot find Maestro's own program")?;
        let command = Arc::new(CommandRunner::new(
            &invocation.store,
            CommandOptions {
                program,
                slots: invocation.config.jobs(options.jobs),
                profile: sandbox(options),
                host: Vec::new(),
                workspace: Some(invocation.config.workspace.clone()),
            },
        ));
        let fetch = fetch_runner(&invocation.config, options.offline);
        let mut list: Vec<Arc<dyn Runner>> =
            vec![command.clone(), Arc::new(NativeRunner), Arc::new(fetch)];
        list.extend(invocation.live.clone());
        Ok(Self { command, list })
    }

    /// All of them.
    pub fn list(&self) -> &[Arc<dyn Runner>] {
        &self.list
    }

    /// Gets ready for so many commands at once, which are sure to come.
    pub fn warm_up(&self, commands: usize) {
        self.command.warm_up(commands);
    }
}

/// The profile that a flag names.
pub fn sandbox(options: &BuildOptions) -> SandboxProfile {
    match options.sandbox {
        SandboxChoice::Hermetic => SandboxProfile::Hermetic,
        SandboxChoice::None => SandboxProfile::None,
    }
}

/// Makes downloads as the configuration says.
pub fn fetch_runner(config: &Config, offline: bool) -> FetchRunner {
    let variable = |names: [&str; 2]| names.into_iter().find_map(non_empty);
    FetchRunner::new(FetchOptions {
        offline,
        vendor_folder: Some(config.workspace.join(VENDOR_FOLDER)),
        mirror: config.mirror.clone(),
        crate_folders: cargo_downloads().into_iter().collect(),
        npm: NpmOptions {
            folder: Some(config.workspace.clone()),
            variables: Variables(variables()),
            ..NpmOptions::default()
        },
        proxy: ProxyOptions {
            http: variable(["http_proxy", "HTTP_PROXY"]),
            https: variable(["https_proxy", "HTTPS_PROXY"]),
            no_proxy: variable(["no_proxy", "NO_PROXY"]),
        },
        ..FetchOptions::default()
    })
}

/// Finds toolchains and remembers which were used.
pub struct ToolchainFinder {
    toolchains: Toolchains,
    used: Mutex<Vec<Arc<ResolvedToolchain>>>,
}

impl ToolchainFinder {
    /// A finder over this machine's packages.
    pub fn new(store: &Store, copying: Copying) -> Self {
        let toolchains = Toolchains::new(store.clone(), DpkgPaths::default());
        Self { toolchains: toolchains.with_copying(copying), used: Mutex::default() }
    }

    /// The list files and tree digests of what this build used.
    pub fn used(&self) -> Vec<(PathBuf, Digest)> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.iter().map(|t| (t.list_path().to_owned(), t.root)).collect()
    }

    fn find(&self, toolchain: &Toolchain, refresh: bool) -> Result<Digest, ToolchainError> {
        let resolved = if refresh {
            self.toolchains.restore(toolchain)?
        } else {
            self.toolchains.resolve(toolchain)?
        };
        let root = resolved.root;
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|other| other.declaration != *toolchain);
        used.push(resolved);
        Ok(root)
    }

    fn lay_out(&self, toolchain: &Toolchain) -> Result<ToolchainMount, ToolchainError> {
        self.toolchains.materialize(&*self.toolchains.resolve(toolchain)?)
    }
}

fn failure(toolchain: &Toolchain, error: &ToolchainError) -> ToolchainFailure {
    let (name, hints) = (toolchain.name.clone(), error.hints());
    ToolchainFailure { name, hints, message: chain(error) }
}

impl FindToolchains for ToolchainFinder {
    fn resolve(&self, toolchain: &Toolchain, refresh: bool) -> Result<Digest, ToolchainFailure> {
        self.find(toolchain, refresh).map_err(|error| failure(toolchain, &error))
    }

    fn lay_out(&self, toolchain: &Toolchain) -> Result<ToolchainMount, ToolchainFailure> {
        self.lay_out(toolchain).map_err(|error| failure(toolchain, &error))
    }
}

/// The packages that a toolchain needs and this machine lacks.
pub fn missing_packages(
    store: &Store,
    toolchain: &Toolchain,
) -> Result<Vec<String>, ToolchainError> {
    Toolchains::new(store.clone(), DpkgPaths::default()).missing(toolchain)
}
