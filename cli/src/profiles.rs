//! Profiles: flags under a name, in `[config.NAME]` of `maestro.toml`, taken by `--config NAME`.
//!
//! A profile can say what flags can say that change what is built or how, and flags win over it.

use std::collections::BTreeMap;

use anyhow::Result;
use maestro_rules::{ConfigurationRequest, HostMachine};
use serde::Deserialize;

use crate::args::{BuildOptions, ConfigurationOptions};
use crate::config::{Config, PROJECT_FILE};
use crate::exit::Failure;
use crate::remote::RemoteConfig;

/// One profile. Every key is optional.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Params and their values.
    #[serde(default)]
    pub params: BTreeMap<String, ParamText>,
    /// The platform that targets are built for.
    pub platform: Option<String>,
    /// Aspects that are put on what is asked for.
    #[serde(default)]
    pub aspects: Vec<String>,
    /// How many commands run at once, 1 to 1024.
    pub jobs: Option<u16>,
    /// Whether independent actions go on after a failure.
    pub keep_going: Option<bool>,
    /// Whether recorded results come from the lock alone.
    pub locked: Option<bool>,
    /// Whether the network is never used.
    pub offline: Option<bool>,
    /// The cache that results are shared through.
    #[serde(default)]
    pub remote: RemoteConfig,
}

/// The value of a param in a profile, as TOML has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum ParamText {
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

impl ParamText {
    /// The value as `--param` would have it.
    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Text(text) => text.clone(),
            Self::List(list) => list.join(","),
        }
    }
}

/// The profiles that flags name, in their order.
fn chosen<'c>(config: &'c Config, options: &ConfigurationOptions) -> Result<Vec<&'c Profile>> {
    let known = &config.project.profiles;
    let mut out = Vec::with_capacity(options.profiles.len());
    for name in &options.profiles {
        let Some(profile) = known.get(name) else {
            let failure = Failure::input(format!("there is no profile `{name}`"));
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let hint = match names.is_empty() {
                true => format!("declare it as `[config.{name}]` in `{PROJECT_FILE}`"),
                false => format!("`{PROJECT_FILE}` has: {}", names.join(", ")),
            };
            return Err(failure.hint(hint).into());
        };
        out.push(profile);
    }
    Ok(out)
}

/// The options of a build with what the profiles say where no flag does.
pub fn options(config: &Config, given: &BuildOptions) -> Result<BuildOptions> {
    let mut options = given.clone();
    for profile in chosen(config, &given.configuration)? {
        if given.jobs.is_none() {
            options.jobs = profile.jobs.or(options.jobs);
        }
        options.keep_going |= profile.keep_going.unwrap_or(false);
        options.locked |= profile.locked.unwrap_or(false);
        options.offline |= profile.offline.unwrap_or(false);
    }
    Ok(options)
}

/// What the profiles say of remote caches, in their order.
pub fn remotes<'c>(config: &'c Config, options: &BuildOptions) -> Result<Vec<&'c RemoteConfig>> {
    let chosen = chosen(config, &options.configuration)?;
    Ok(chosen.into_iter().map(|profile| &profile.remote).collect())
}

/// What is to be built for: the profiles in their order, then the flags.
pub fn configuration(
    config: &Config,
    options: &ConfigurationOptions,
) -> Result<ConfigurationRequest> {
    let mut request = ConfigurationRequest {
        short_names: config.project.params.clone(),
        toolchains: config.project.workspace.toolchains.clone(),
        execution_platforms: config.project.workspace.execution_platforms.clone(),
        host: host_machine(),
        package: config.package.clone(),
        ..ConfigurationRequest::default()
    };
    for profile in chosen(config, options)? {
        let params = profile.params.iter().map(|(name, value)| (name.clone(), value.text()));
        request.params.extend(params);
        if let Some(platform) = &profile.platform {
            request.platform = Some(platform.clone());
        }
        request.aspects.extend(profile.aspects.iter().cloned());
    }
    request.aspects.extend(options.aspects.iter().cloned());
    for text in &options.params {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Failure::input(format!("`--param {text}` has no value"))
                .hint(format!("write `--param {text}=VALUE`"))
                .into());
        };
        request.params.push((name.to_owned(), value.to_owned()));
    }
    if let Some(platform) = &options.platform {
        request.platform = Some(platform.clone());
    }
    Ok(request)
}

/// This machine, in the words of `@maestro//platforms/{os,cpu}`.
pub fn host_machine() -> HostMachine {
    let cpu = match std::env::consts::ARCH {
        "x86" => "x86_32",
        "powerpc64" => "ppc64le",
        other => other,
    };
    HostMachine { os: std::env::consts::OS.to_owned(), cpu: cpu.to_owned() }
}
