//! A real project in C: SQLite and Lua, from Debian's source packages, compiled file by file.
//!
//! ninja and Maestro get the same command lines. Maestro runs each in its sandbox, with every
//! header of the project declared as an input.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::Options;
use crate::measure::median;
use crate::tool::{Kind, Tool};

/// How often each tool builds it.
const RUNS: usize = 3;

/// Medians in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Project {
    /// How many files are compiled, and programs and archives made.
    pub(crate) actions: usize,
    pub(crate) maestro_ms: f64,
    pub(crate) ninja_ms: f64,
}

/// One command: what it reads, what it makes.
#[derive(Debug)]
struct Step {
    name: String,
    /// The command line; `gcc` and `ar` are those of `/usr/bin`.
    command: Vec<String>,
    inputs: Vec<String>,
    output: String,
    /// Whether it reads headers.
    compiles: bool,
}

/// A folder of the project, and how its files are compiled.
struct Part {
    folder: &'static str,
    flags: &'static [&'static str],
    archive: &'static str,
    program: &'static str,
    /// The file with `main`.
    main: &'static str,
    libraries: &'static [&'static str],
    /// Files that are no part of it: other programs, bindings, other systems.
    left_out: &'static [&'static str],
}

const PARTS: [Part; 2] = [
    Part {
        folder: "sqlite",
        flags: &["-O2", "-DSQLITE_THREADSAFE=1", "-DSQLITE_ENABLE_RTREE", "-DSQLITE_CORE"],
        archive: "libsqlite3.a",
        program: "sqlite3",
        main: "shell.c",
        libraries: &["-lm", "-lpthread", "-ldl"],
        left_out: &["tclsqlite.c", "geopoly.c"],
    },
    Part {
        folder: "lua",
        flags: &["-O2", "-Wall", "-DLUA_COMPAT_5_3", "-DLUA_USE_POSIX"],
        archive: "liblua.a",
        program: "lua",
        main: "lua.c",
        libraries: &["-lm"],
        left_out: &["luac.c"],
    },
];

/// Builds the project cold with both tools, in turn.
pub(crate) fn measure(options: &Options) -> Result<Project> {
    let work = options.work.join("project");
    let sources = fetch(&work.join("sources"))?;
    let tool = |kind| Tool::new(kind, &options.maestro, &work);
    let (maestro, ninja) = (tool(Kind::Maestro), tool(Kind::Ninja));
    let mut actions = 0;
    for tool in [&maestro, &ninja] {
        let steps = lay_out(&sources, &tool.workspace)?;
        actions = steps.len();
        match tool.kind {
            Kind::Ninja => write(&tool.workspace.join("build.ninja"), &ninja_file(&steps))?,
            _ => {
                write(&tool.workspace.join("step.star"), RULE)?;
                write(&tool.workspace.join("maestro.star"), &maestro_file(&steps))?;
            }
        }
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        eprintln!("SQLite and Lua, run {run} of {RUNS}");
        for (tool, times) in [(&maestro, &mut ours), (&ninja, &mut theirs)] {
            tool.forget()?;
            // The toolchain is copied into the cache once for a machine; that does not count.
            tool.prepare("//:toolchain")?;
            let timing = tool.build()?;
            if timing.executed.is_some_and(|executed| executed != actions as u64) {
                bail!("{} ran {:?} of {actions} steps", tool.kind.name(), timing.executed);
            }
            times.push(timing.ms);
        }
    }
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    let middle = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        median(&times).context("nothing was timed")
    };
    Ok(Project { actions, maestro_ms: middle(ours)?, ninja_ms: middle(theirs)? })
}

/// Gets the source packages with lists of its own, so that the machine's stay as they are, and
/// lets SQLite write the files that it generates.
fn fetch(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder.join("lists/partial"))?;
    std::fs::create_dir_all(folder.join("parts"))?;
    write(
        &folder.join("parts/source.sources"),
        "Types: deb-src\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
    )?;
    let apt = |arguments: &[&str]| {
        let place = folder.display();
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "Dir::Etc::SourceList=/dev/null"]);
        command.arg("-o").arg(format!("Dir::Etc::SourceParts={place}/parts"));
        command.arg("-o").arg(format!("Dir::State::Lists={place}/lists"));
        run(command.args(arguments), folder).map(drop)
    };
    apt(&["update"])?;
    apt(&["source", "sqlite3", "lua5.4"])?;
    let sqlite = folder.join(only(folder, "sqlite3-")?);
    run(Command::new("./configure").args(["--disable-readline", "--disable-tcl"]), &sqlite)?;
    run(Command::new("make").args([".target_source", "shell.c"]), &sqlite)?;
    std::fs::rename(sqlite.join("tsrc"), folder.join("sqlite"))?;
    for file in ["shell.c", "ext/rtree/sqlite3rtree.h"] {
        let name = file.rsplit('/').next().unwrap_or(file);
        std::fs::copy(sqlite.join(file), folder.join("sqlite").join(name))?;
    }
    let lua = folder.join("lua");
    std::fs::rename(folder.join(only(folder, "lua5.4-")?).join("src"), &lua)?;
    // The package's own rules write this header before they compile.
    let multiarch = run(Command::new("gcc").arg("-print-multiarch"), folder)?;
    let line = format!("#define DEB_HOST_MULTIARCH {:?}\n", multiarch.trim());
    write(&lua.join("lua5.4-deb-multiarch.h"), &line)?;
    Ok(folder.to_path_buf())
}

/// The one folder whose name starts so.
fn only(folder: &Path, start: &str) -> Result<String> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(start) && entry.file_type()?.is_dir() {
            return Ok(name);
        }
    }
    bail!("no folder `{start}…` came out of the source packages")
}

/// Runs a program, and gives what it prints.
fn run(command: &mut Command, folder: &Path) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Copies sources and headers into a workspace; the steps that make the programs.
fn lay_out(sources: &Path, workspace: &Path) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for part in &PARTS {
        let folder = workspace.join(part.folder);
        std::fs::create_dir_all(&folder)?;
        let mut files: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(sources.join(part.folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".c") || name.ends_with(".h") {
                std::fs::copy(sources.join(part.folder).join(&name), folder.join(&name))?;
                files.push(name);
            }
        }
        files.sort_unstable();
        files.retain(|name| name.ends_with(".c") && !part.left_out.contains(&name.as_str()));
        steps.extend(part_steps(part, &files));
    }
    Ok(steps)
}

/// Compiles each file, makes an archive of all but the main one, and links the program.
fn part_steps(part: &Part, files: &[String]) -> Vec<Step> {
    let folder = part.folder;
    let out = |name: &str| format!("OUT/{folder}/{name}");
    let mut steps = Vec::new();
    let mut objects = Vec::new();
    for file in files {
        let source = format!("{folder}/{file}");
        let output = out(&format!("{}.o", file.trim_end_matches(".c")));
        let mut command = vec!["gcc".to_owned(), format!("-I{folder}")];
        command.extend(part.flags.iter().map(|flag| (*flag).to_owned()));
        command.extend(["-c".to_owned(), source.clone(), "-o".to_owned(), output.clone()]);
        if *file != part.main {
            objects.push(output.clone());
        }
        let name = format!("{folder}_{}", file.trim_end_matches(".c"));
        steps.push(Step { name, command, inputs: vec![source], output, compiles: true });
    }
    let archive = out(part.archive);
    let mut command = vec!["ar".to_owned(), "rcsD".to_owned(), archive.clone()];
    command.extend(objects.iter().cloned());
    let name = format!("{folder}_archive");
    let step = Step { name, command, inputs: objects, output: archive.clone(), compiles: false };
    steps.push(step);
    let main = out(&format!("{}.o", part.main.trim_end_matches(".c")));
    let program = out(part.program);
    let mut command =
        vec!["gcc".to_owned(), main.clone(), archive.clone(), "-o".to_owned(), program.clone()];
    command.extend(part.libraries.iter().map(|flag| (*flag).to_owned()));
    let name = format!("{folder}_program");
    let inputs = vec![main, archive];
    steps.push(Step { name, command, inputs, output: program, compiles: false });
    steps
}

fn ninja_file(steps: &[Step]) -> String {
    let mut text = String::from("rule run\n  command = /usr/bin/$line\n");
    for step in steps {
        let local = |path: &String| path.replace("OUT/", "out/");
        let inputs: Vec<String> = step.inputs.iter().map(local).collect();
        let line: Vec<String> = step.command.iter().map(local).collect();
        let _ = writeln!(text, "build {}: run {}", local(&step.output), inputs.join(" "));
        let _ = writeln!(text, "  line = {}", line.join(" "));
    }
    text
}

/// Runs one command line; words that start with `OUT/` are outputs, of this step or of others.
const RULE: &str = r#"
def _step(ctx):
    out = ctx.actions.declare_file(ctx.attr.out)
    root = ctx.out_root + "/"
    args = ctx.actions.args()
    args.add_all([word.replace("OUT/", root) for word in ctx.attr.command[1:]])
    ctx.actions.run(
        executable = "/usr/bin/" + ctx.attr.command[0],
        arguments = [args],
        inputs = depset(ctx.files.srcs + ctx.files.hdrs),
        outputs = [out],
        mnemonic = "Step",
        toolchains = [ctx.attr._cc[ToolchainInfo].toolchain],
    )
    return [DefaultInfo(files = depset([out]))]

step = rule(
    implementation = _step,
    attrs = {
        "command": attr.string_list(mandatory = True),
        "out": attr.string(mandatory = True),
        "srcs": attr.label_list(allow_files = True),
        "hdrs": attr.label_list(allow_files = True),
        "_cc": attr.label(default = "@maestro//toolchains:cc", providers = [ToolchainInfo]),
    },
)
"#;

/// A step that needs the toolchain and nothing else.
const TOOLCHAIN: &str = r#"step(
    name = "toolchain",
    out = "toolchain.o",
    command = ["gcc", "-x", "c", "-c", "/dev/null", "-o", "OUT/toolchain.o"],
)
"#;

fn maestro_file(steps: &[Step]) -> String {
    let mut text = String::from("load(\":step.star\", \"step\")\n");
    text.push_str(TOOLCHAIN);
    for part in &PARTS {
        let folder = part.folder;
        let _ = writeln!(text, "{folder}_headers = glob([\"{folder}/*.h\"])");
    }
    for step in steps {
        let quoted = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
            format!("[{}]", texts.join(", "))
        };
        let made = |path: &String| steps.iter().find(|step| step.output == *path);
        let inputs: Vec<String> = step
            .inputs
            .iter()
            .map(|path| made(path).map_or_else(|| path.clone(), |step| format!(":{}", step.name)))
            .collect();
        let folder = step.name.split('_').next().unwrap_or_default();
        let headers = if step.compiles { format!("{folder}_headers") } else { "[]".to_owned() };
        let _ = writeln!(
            text,
            "step(name = {:?}, out = {:?}, command = {}, srcs = {}, hdrs = {headers})",
            step.name,
            step.output.trim_start_matches("OUT/"),
            quoted(&step.command),
            quoted(&inputs),
        );
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tools_get_the_same_commands() {
        let files = ["a.c", "lua.c"].map(str::to_owned);
        let lua = PARTS.iter().find(|part| part.folder == "lua").expect("it is a part");
        let steps = part_steps(lua, &files);
        let outputs: Vec<&str> = steps.iter().map(|step| step.output.as_str()).collect();
        assert_eq!(outputs, ["OUT/lua/a.o", "OUT/lua/lua.o", "OUT/lua/liblua.a", "OUT/lua/lua"]);
        let ninja = ninja_file(&steps);
        assert!(ninja.contains("build out/lua/lua: run out/lua/lua.o out/lua/liblua.a\n"));
        assert!(ninja.contains("  line = ar rcsD out/lua/liblua.a out/lua/a.o\n"), "{ninja}");
        let ours = maestro_file(&steps);
        let archive = "step(name = \"lua_archive\", out = \"lua/liblua.a\", \
                       command = [\"ar\", \"rcsD\", \"OUT/lua/liblua.a\", \"OUT/lua/a.o\"], \
                       srcs = [\":lua_a\"], hdrs = [])\n";
        assert!(ours.contains(archive), "{ours}");
    }
}
