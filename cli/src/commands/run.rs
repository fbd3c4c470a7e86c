//! `maestro run LABEL -- ARGS`: builds a target, then becomes its program. Pipelines go to
//! `runs.rs`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use maestro_core::TargetId;

use crate::args::{Global, RunArgs};
use crate::config::Config;
use crate::exit::Failure;
use crate::invocation::{Invocation, Request};
use crate::output_groups::OutputGroups;

/// Runs the command.
pub fn run(global: &Global, args: &RunArgs) -> Result<ExitCode> {
    let Some(label) = &args.target else {
        return super::runs::run(global, args);
    };
    let config = Config::load(global)?.with_daemon(args.daemon);
    let options = crate::profiles::options(&config, &args.options)?;
    let patterns = vec![label.clone()];
    let request = Request::plain("run", patterns, options);
    let invocation = Invocation::start_over(global, config, request, None)?;
    let mut work = invocation.work()?;
    let is_target = |id: &TargetId| work.graph.target(*id).aspect.is_none();
    let targets: Vec<TargetId> = work.requested.iter().copied().filter(is_target).collect();
    let [id] = *targets.as_slice() else {
        return Err(Failure::input(format!(
            "`{label}` names {} targets; `run` takes one",
            targets.len()
        ))
        .into());
    };
    let mut want = super::build::wanted(&mut work.graph, id, None, &OutputGroups::parse(&[]))?;
    let Some(executable) = work.graph.target(id).executable.clone() else {
        let target = work.graph.target(id);
        return Err(Failure::input(format!(
            "`{}` cannot be run: rule `{}` makes no program",
            target.label, target.rule
        ))
        .hint(format!("`maestro build {}` builds it", target.label))
        .into());
    };
    want.artifacts.push(executable.file);
    want.artifacts.extend(executable.runfiles);
    let built = invocation.build(work, vec![want])?;
    let program = built.executables.first().cloned().flatten().map(|(_, path)| path);
    let success = built.report.success();
    let files: Vec<String> = built.files.iter().flatten().map(|file| file.path.clone()).collect();
    let workspace = invocation.config.workspace.clone();
    let code = invocation.conclude(built)?;
    let Some(program) = program.filter(|_| success) else { return Ok(code) };
    let mut command = Command::new(&program);
    command
        .args(&executable.args)
        .args(&args.arguments)
        .envs(executable.env.iter().map(|(name, value)| (name, value)))
        .env("BUILD_WORKSPACE_DIRECTORY", &workspace)
        .env(
            "BUILD_WORKING_DIRECTORY",
            std::env::current_dir().unwrap_or_else(|_| workspace.clone()),
        );
    if executable.runfiles.is_some() {
        let folder = beside(&program, ".runfiles");
        let manifest = write_manifest(&workspace, &program, &files)?;
        command.env("RUNFILES_DIR", folder).env("RUNFILES_MANIFEST_FILE", manifest);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run `{}`", program.display()))
}

/// Writes Bazel's manifest of runfiles: a line for each, with its path in the tree and its place
/// on disk. Programs that look files up find them by either this or `RUNFILES_DIR`.
fn write_manifest(workspace: &Path, program: &Path, files: &[String]) -> Result<PathBuf> {
    let folder = beside(program, ".runfiles");
    let mut lines = Vec::new();
    for file in files {
        let path = workspace.join(file);
        if let Some(inside) = path.strip_prefix(&folder).ok().and_then(Path::to_str) {
            lines.push(manifest_line(inside, &path.display().to_string()));
        }
    }
    lines.sort_unstable();
    let manifest = beside(program, ".runfiles_manifest");
    std::fs::write(&manifest, lines.concat())
        .with_context(|| format!("cannot write `{}`", manifest.display()))?;
    Ok(manifest)
}

/// As Bazel escapes them: a line with odd characters begins with a space.
fn manifest_line(inside: &str, place: &str) -> String {
    if !inside.contains([' ', '\n', '\\']) && !place.contains(['\n', '\\']) {
        return format!("{inside} {place}\n");
    }
    let escape = |text: &str| text.replace('\\', "\\b").replace('\n', "\\n");
    format!(" {} {}\n", escape(inside).replace(' ', "\\s"), escape(place))
}

fn beside(program: &Path, end: &str) -> PathBuf {
    let mut name = program.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_escaped_in_manifests() {
        assert_eq!(manifest_line("main/a", "/w/a b"), "main/a /w/a b\n");
        assert_eq!(manifest_line("main/a b", "/w/a b"), " main/a\\sb /w/a b\n");
        assert_eq!(manifest_line("main/a\\b", "/w/x"), " main/a\\bb /w/x\n");
    }
}
