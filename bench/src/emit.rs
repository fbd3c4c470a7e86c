//! Writes one graph as a workspace for each of the build systems.
//!
//! All three run the same program with the same arguments for each action: `/bin/sh -c` around
//! `sha256sum`. Maestro and Bazel get the same rule, in Starlark; ninja gets a command line.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::generator::Graph;
use crate::tool::Kind;

/// The script of every action, for tools that pass arguments: output, then inputs.
const SCRIPT: &str = "out=$1; shift; sha256sum \"$@\" > \"$out\"";

/// The part of the rule that Maestro and Bazel share.
const RULE: &str = "\
def _hash(ctx):
    out = ctx.actions.declare_file(ctx.label.name + \".sum\")
    args = ctx.actions.args()
    args.add(\"-c\")
    args.add(SCRIPT)
    args.add(\"sh\")
    args.add(out)
    args.add_all(ctx.files.srcs)
    ctx.actions.run(
        outputs = [out],
        inputs = ctx.files.srcs,
        executable = \"/bin/sh\",
        arguments = [args],
        mnemonic = \"Hash\",
        EXTRA
    )
    return [DefaultInfo(files = depset([out]))]
";

/// Writes sources and build files of `graph` below `folder`, which does not exist yet.
pub(crate) fn workspace(graph: &Graph, kind: Kind, folder: &Path) -> Result<()> {
    for package in 0..graph.packages() {
        let path = folder.join(Graph::folder(package));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        write(&path.join("shared.txt"), &format!("shared by package {package}\n"))?;
    }
    for index in 0..graph.actions.len() {
        write(&folder.join(own_source(graph, index)), &content(index, 0))?;
    }
    match kind {
        Kind::Ninja => write(&folder.join("build.ninja"), &ninja(graph)),
        Kind::Maestro => {
            write(&folder.join("maestro.star"), "")?;
            write(&folder.join("hash.star"), &maestro_rule())?;
            packages(graph, folder, "maestro.star", "//:hash.star")
        }
        Kind::Bazel => {
            write(&folder.join("WORKSPACE"), "")?;
            write(&folder.join("BUILD"), "")?;
            write(&folder.join("hash.bzl"), &bazel_rule())?;
            packages(graph, folder, "BUILD", "//:hash.bzl")
        }
    }
}

/// Changes the own source file of an action; each `turn` gives it other content.
pub(crate) fn edit(graph: &Graph, index: usize, turn: usize, folder: &Path) -> Result<()> {
    write(&folder.join(own_source(graph, index)), &content(index, turn))
}

/// Adds a comment to the build file of a package: it must be read again, and nothing must run.
pub(crate) fn edit_package(package: usize, turn: usize, kind: Kind, folder: &Path) -> Result<()> {
    let name = if kind == Kind::Bazel { "BUILD" } else { "maestro.star" };
    let path = folder.join(Graph::folder(package)).join(name);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    write(&path, &format!("{text}\n# turn {turn}\n"))
}

/// Writes a workspace whose only package has so many targets, each of which reads the one before.
pub(crate) fn one_package(targets: usize, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&folder.join("hash.star"), &maestro_rule())?;
    write(&folder.join("shared.txt"), "shared by all\n")?;
    let text = format!(
        "\"\"\"Many targets in one package.\"\"\"\n\nload(\":hash.star\", \"hash\")\n\n[\n    hash(\n        \
         name = \"t%d\" % i,\n        \
         srcs = [\"shared.txt\"] + ([\":t%d\" % (i - 1)] if i % 50 else []),\n    )\n    \
         for i in range({targets})\n]\n"
    );
    write(&folder.join("maestro.star"), &text)
}

/// Has the targets of a workspace declare no action, so that it is built in no time.
pub(crate) fn idle(folder: &Path) -> Result<()> {
    let text = "visibility([\"public\"])\n\ndef _idle(ctx):\n    return [DefaultInfo()]\n\n\
                hash = rule(\n    implementation = _idle,\n    attrs = {\"srcs\": \
                attr.label_list(allow_files = True)},\n)\n";
    write(&folder.join("hash.star"), text)
}

/// Writes a workspace in which there is next to nothing to do.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    one_package(1, folder)
}

fn content(index: usize, turn: usize) -> String {
    format!("source of action {index}, turn {turn}\n{}\n", "a line of text ".repeat(20))
}

fn own_source(graph: &Graph, index: usize) -> String {
    let action = graph.actions.get(index);
    let (package, sources) =
        action.map_or((0, &[][..]), |action| (action.package, action.sources.as_slice()));
    format!("{}/{}", Graph::folder(package), sources.first().map_or("", String::as_str))
}

fn script() -> String {
    SCRIPT.replace('"', "\\\"")
}

fn maestro_rule() -> String {
    let head = format!("visibility([\"public\"])\n\nSCRIPT = \"{}\"\n\n", script());
    let rule = RULE.replace("EXTRA", "toolchains = [ctx.attr._base[ToolchainInfo].toolchain],");
    let tail = "\nhash = rule(\n    implementation = _hash,\n    attrs = {\n        \
                \"srcs\": attr.label_list(allow_files = True),\n        \
                \"_base\": attr.label(\n            \
                default = \"@maestro//toolchains:base\",\n            \
                providers = [ToolchainInfo],\n        ),\n    },\n)\n";
    head + &rule + tail
}

fn bazel_rule() -> String {
    let head = format!("SCRIPT = \"{}\"\n\n", script());
    let rule = RULE.replace("        EXTRA\n", "");
    let tail = "\nhash = rule(\n    implementation = _hash,\n    attrs = {\n        \
                \"srcs\": attr.label_list(allow_files = True),\n    },\n)\n";
    head + &rule + tail
}

/// One build file for each package; all targets are public, as neighbours read them.
fn packages(graph: &Graph, folder: &Path, name: &str, rule: &str) -> Result<()> {
    let mut texts = vec![String::new(); graph.packages()];
    for (package, text) in texts.iter_mut().enumerate() {
        let _ = writeln!(text, "\"\"\"Package {package} of a generated graph.\"\"\"\n");
        let _ = writeln!(text, "load(\"{rule}\", \"hash\")\n");
        let _ = writeln!(text, "package(default_visibility = [\"//visibility:public\"])");
    }
    for (index, action) in graph.actions.iter().enumerate() {
        let mut sources: Vec<String> =
            action.sources.iter().map(|source| format!("\"{source}\"")).collect();
        for from in &action.from {
            let package = graph.actions.get(*from).map_or(0, |from| from.package);
            let name = Graph::name(*from);
            sources.push(if package == action.package {
                format!("\":{name}\"")
            } else {
                format!("\"//{}:{name}\"", Graph::folder(package))
            });
        }
        if let Some(text) = texts.get_mut(action.package) {
            let (name, sources) = (Graph::name(index), sources.join(", "));
            let _ = write!(text, "\nhash(\n    name = \"{name}\",\n    srcs = [{sources}],\n)\n");
        }
    }
    for (package, text) in texts.iter().enumerate() {
        write(&folder.join(Graph::folder(package)).join(name), text)?;
    }
    Ok(())
}

fn ninja(graph: &Graph) -> String {
    let mut text = String::from("rule hash\n  command = sha256sum $in > $out\n");
    for (index, action) in graph.actions.iter().enumerate() {
        let folder = Graph::folder(action.package);
        let _ = write!(text, "build out/{folder}/{}.sum: hash", Graph::name(index));
        for source in &action.sources {
            let _ = write!(text, " {folder}/{source}");
        }
        for from in &action.from {
            let package = graph.actions.get(*from).map_or(0, |from| from.package);
            let _ = write!(text, " out/{}/{}.sum", Graph::folder(package), Graph::name(*from));
        }
        text.push('\n');
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
    fn the_three_workspaces_say_the_same() {
        let graph = Graph::generate(60, 3);
        let folder = std::env::temp_dir().join(format!("bench-emit-{}", std::process::id()));
        let mut edges = Vec::new();
        for (kind, file) in [(Kind::Maestro, "maestro.star"), (Kind::Bazel, "BUILD")] {
            let place = folder.join(file);
            workspace(&graph, kind, &place).expect("a workspace");
            let text: String = (0..graph.packages())
                .map(|package| place.join(Graph::folder(package)).join(file))
                .map(|path| std::fs::read_to_string(path).expect("a build file"))
                .collect();
            assert_eq!(text.matches("\nhash(").count(), 60);
            edges.push(text.matches(".txt\"").count() + text.matches("\":t").count());
        }
        assert_eq!(edges.first(), edges.last());
        let text = ninja(&graph);
        assert_eq!(text.matches("\nbuild ").count(), 60);
        let sources: usize = graph.actions.iter().map(|action| action.sources.len()).sum();
        assert_eq!(text.matches(".txt").count(), sources);
        std::fs::remove_dir_all(&folder).expect("the temp folder goes away");
    }
}
