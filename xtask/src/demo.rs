//! `cargo xtask demo`: Maestro's main job on a fresh machine, told step by step.
//!
//! It builds Intelgraph, the golden product, from a copy of its workspace and with a cache of its
//! own: cold, again, after an edit of a line of C++, after an edit of what a model was asked
//! about. Every claim of the story is checked; the first that does not hold ends it.

mod edit;
mod maestro;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::machine::{self, Purpose};
use crate::packages;
use crate::process;
use crate::project::Project;
use edit::Edit;
use maestro::{Built, Maestro};

/// What is built.
const RELEASE: &str = "//intelgraph:release";

/// A line of C++ that ends up in the kernel's binary.
const CODE: Edit = Edit {
    file: "intelgraph/kernel/communities.cc",
    from: "constexpr int kPassesMax = 64;",
    to: "constexpr int kPassesMax = 65;",
};

/// A line of the patch that a model was asked to plan tests for.
const PATCH: Edit = Edit {
    file: "intelgraph/changes.patch",
    from: "+    // Nodes leave the queue in order of distance",
    to: "+    // Nodes leave the queue by distance",
};

/// Installs, builds and tells the story; `--maestro PROGRAM` names a binary that is built already.
pub(crate) fn run(project: &Project, arguments: &[String]) -> Result<ExitCode> {
    machine::install(Purpose::Demo)?;
    packages::download(project)?;
    let program = match arguments {
        [] => project.build_release("maestro-cli", "maestro")?,
        [flag, program] if flag == "--maestro" => std::path::absolute(program)?,
        _ => bail!("`demo` takes `--maestro PROGRAM` or nothing, see `cargo xtask help`"),
    };
    tell(project, &program)?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the story. Its folder is removed at the end, and kept where something went wrong.
pub(crate) fn tell(project: &Project, program: &Path) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("maestro-demo-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    story(project, program, &folder).with_context(|| {
        format!("the demo went wrong; its workspace and cache are left in {}", folder.display())
    })?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn story(project: &Project, program: &Path, folder: &Path) -> Result<()> {
    let workspace = folder.join("workspace");
    copy(&project.root.join("tests/golden/intelgraph"), &workspace)?;
    let mut maestro = Maestro::new(program.to_path_buf(), workspace.clone(), folder.join("cache"));
    let sandboxed = maestro.doctor()?;
    let confinement = if sandboxed {
        "every command runs in its own sandbox"
    } else {
        "NOT SANDBOXED: this machine does not permit namespaces, so commands run unconfined \
         (--sandbox=none)"
    };
    say(&format!("Maestro builds Intelgraph; {confinement}."));

    heading("1. The first build: the cache is empty");
    let cold = cold(&maestro)?;

    heading("2. The same again: nothing changed");
    let again = maestro.build(RELEASE)?;
    ensure!(again.executed() == 0, "{} actions ran although nothing changed", again.executed());
    say(&format!("Nothing ran; Maestro saw so in {}.", again.time()));

    heading("3. One line of C++ changes");
    after_code(&maestro, &workspace, &cold)?;

    heading("4. The patch changes that a model was asked about");
    after_patch(&maestro, &workspace)?;

    heading("5. Where the release comes from");
    provenance(&maestro, folder)?;

    say(&format!("\nThat was Maestro building Intelgraph; {confinement}."));
    Ok(())
}

/// Builds everything and checks that answers of models came from the lock.
fn cold(maestro: &Maestro) -> Result<Built> {
    let built = maestro.build(RELEASE)?;
    ensure!(built.executed() > 0, "no action ran although the cache was empty");
    ensure!(built.locked() > 0, "no answer of a model came from `maestro.lock`");
    ensure!(built.cost_usd_micros()? == 0, "the build has cost something");
    ensure!(!built.outputs()?.is_empty(), "the release has no outputs");
    say(&format!(
        "{} actions ran in {}, and {} answers of a model came from maestro.lock: no model was \
         called, it cost nothing.",
        built.executed(),
        built.time(),
        built.locked()
    ));
    say("The release:");
    for output in built.outputs()? {
        say(&format!("    {output}"));
    }
    Ok(built)
}

/// Edits a source file: only its consequences run, and the answers of models still fit.
fn after_code(maestro: &Maestro, workspace: &Path, cold: &Built) -> Result<()> {
    CODE.apply(workspace)?;
    say(&format!("{}:\n    - {}\n    + {}", CODE.file, CODE.from, CODE.to));
    let built = maestro.build(RELEASE)?;
    let compiled = built.executed_of("CppCompile")?;
    ensure!(compiled == 1, "{compiled} files were compiled although one changed");
    ensure!(
        built.executed() < cold.executed(),
        "all {} actions ran although one line changed",
        built.executed()
    );
    ensure!(
        built.locked() == cold.locked(),
        "{} answers of a model came from the lock, {} before",
        built.locked(),
        cold.locked()
    );
    say(&format!("{} of {} actions ran, in {}:", built.executed(), built.total(), built.time()));
    for (mnemonic, label) in built.ran()? {
        say(&format!("    {mnemonic} of {label}"));
    }
    say("The answers of the model depend on none of this, so they still fit.");
    say(&format!("Why did these run? `maestro explain {RELEASE}` says:"));
    let explained = maestro.explain(RELEASE)?;
    ensure!(explained.contains(CODE.file), "the explanation does not name `{}`", CODE.file);
    say(&indented(&explained));
    Ok(())
}

/// Edits what a model was asked about: the build stops, and says what to do. Then takes it back.
fn after_patch(maestro: &Maestro, workspace: &Path) -> Result<()> {
    PATCH.apply(workspace)?;
    say(&format!("{}:\n    - {}\n    + {}", PATCH.file, PATCH.from, PATCH.to));
    let (code, text) = maestro.failing_build(RELEASE)?;
    ensure!(code == 1, "the build ended with exit code {code}, expected 1");
    for (what, piece) in [
        ("the step", "plan"),
        ("the changed file", "changes.patch"),
        ("the command that mends it", "maestro lock --update"),
    ] {
        ensure!(text.contains(piece), "the message does not name {what} (`{piece}`):\n{text}");
    }
    say(&format!("The recorded answer is to another question, so the build stops ({code}):"));
    say(&indented(&text));
    PATCH.revert(workspace)?;
    let built = maestro.build(RELEASE)?;
    ensure!(built.executed() == 0, "{} actions ran after taking it back", built.executed());
    say(&format!("Taken back, the release is whole again in {}; nothing ran.", built.time()));
    Ok(())
}

/// Asks for the statement of what the release was made from, and sums it up.
fn provenance(maestro: &Maestro, folder: &Path) -> Result<()> {
    let file = folder.join("provenance.json");
    maestro.provenance(RELEASE, &file)?;
    let text = std::fs::read_to_string(&file).context("cannot read the provenance")?;
    let statement: Value = serde_json::from_str(&text).context("the provenance is not JSON")?;
    let size = |path: &str| statement.pointer(path).and_then(Value::as_array).map_or(0, Vec::len);
    let subjects = size("/subject");
    let dependencies = size("/predicate/buildDefinition/resolvedDependencies");
    ensure!(subjects > 0 && dependencies > 0, "the provenance is empty:\n{text}");
    let kind = statement.pointer("/predicateType").and_then(Value::as_str);
    say(&format!(
        "`maestro provenance {RELEASE}` wrote a statement of type {}: {subjects} files of the \
         release, made from {dependencies} sources, toolchains and recorded answers.",
        kind.unwrap_or("unknown")
    ));
    Ok(())
}

/// Copies a workspace, without what was built in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("cp").arg("--archive").arg("--").arg(from).arg(to))?;
    let built = to.join("maestro-out");
    if built.exists() {
        std::fs::remove_dir_all(&built).context("cannot remove old outputs from the copy")?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

fn heading(text: &str) {
    say(&format!("\n{text}\n"));
}

fn say(text: &str) {
    println!("{text}");
}
