//! What must be installed, and installing it.
//!
//! Debian 12 is what is supported. On other systems the commands that need something say what.
//! Nothing is asked of the network when everything is there already.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// What for: each purpose includes building.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Build Maestro and the golden product.
    Demo,
    /// Run the test suite.
    Test,
    /// Everything, benchmarks included.
    Everything,
}

/// What compiling and linking Maestro takes. RocksDB is Debian's: see docs/design/rocksdb.md.
const BUILD: &[&str] = &[
    "build-essential",
    "pkg-config",
    "libclang-dev",
    "librocksdb-dev",
    "libsnappy-dev",
    "liblz4-dev",
    "libbz2-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libgflags-dev",
];

/// The toolchains that the golden product declares.
const PRODUCT: &[&str] = &[
    "bash",
    "coreutils",
    "findutils",
    "sed",
    "grep",
    "gawk",
    "tar",
    "gzip",
    "diffutils",
    "g++",
    "python3.11",
    "python3-minimal",
    "nodejs",
];

/// Programs that the golden product is built with, and the packages that bring them where nothing
/// else has.
const PRODUCT_PROGRAMS: &[(&str, &[&str])] = &[("npm", &["npm"])];

/// Programs that tests run beside Maestro, and the toolchain with which it builds itself.
const TEST: &[&str] = &[
    "strace",
    "util-linux",
    "rustc-web",
    "cargo-web",
    "patch",
    "bazel-bootstrap",
    "bubblewrap",
    "protobuf-compiler",
    "libprotobuf-dev",
    "python3-protobuf",
    "chromium",
];

/// More programs of tests, with the packages that bring them where nothing else has.
const TEST_PROGRAMS: &[(&str, &[&str])] = &[
    ("git", &["git"]),
    ("openssl", &["openssl"]),
    ("npm", &["npm"]),
    ("pip3", &["python3-pip"]),
    ("python3", &["python3"]),
];

/// The build system that only benchmarks compare with.
const BENCH: &[&str] = &["ninja-build"];

/// Installs what is missing, or says how.
pub(crate) fn install(purpose: Purpose) -> Result<()> {
    if purpose != Purpose::Demo {
        check_rust()?;
    }
    let mut wanted = vec![BUILD, PRODUCT];
    match purpose {
        Purpose::Demo => {}
        Purpose::Test => wanted.push(TEST),
        Purpose::Everything => wanted.extend([TEST, BENCH]),
    }
    let programs = match purpose {
        Purpose::Demo => [PRODUCT_PROGRAMS, &[]],
        Purpose::Test | Purpose::Everything => [PRODUCT_PROGRAMS, TEST_PROGRAMS],
    };
    let absent = |program: &str| !process::succeeds(Command::new(program).arg("--version"));
    let programs = programs.into_iter().flatten().filter(|(program, _)| absent(program));
    wanted.extend(programs.map(|(_, packages)| *packages));
    let wanted: Vec<&str> = wanted.into_iter().flatten().copied().collect();
    if !process::succeeds(Command::new("dpkg-query").arg("--version")) {
        bail!(
            "this is not Debian: `dpkg-query` is missing\n\
             hint: Debian 12 is supported; elsewhere install the counterparts of: {}",
            wanted.join(" ")
        );
    }
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        eprintln!("all {} system packages are installed", wanted.len());
        return Ok(());
    }
    let root = process::output(Command::new("id").arg("-u"))?.trim() == "0";
    let sudo = process::succeeds(Command::new("sudo").args(["--non-interactive", "true"]));
    if !root && !sudo {
        bail!(
            "{} system packages are missing, and installing them takes root\n\
             hint: run `sudo apt-get install -y --no-install-recommends {}`",
            missing.len(),
            missing.join(" ")
        );
    }
    apt(root, &["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    apt(root, &arguments)
}

/// The packages out of `wanted` that are not installed, in order.
fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    // The exit status is not zero when any package is unknown, so only the text counts.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${binary:Package} ${db:Status-Status}\n"])
        .args(wanted)
        .output()
        .context("cannot run `dpkg-query`")?;
    let installed = installed(&String::from_utf8_lossy(&output.stdout));
    Ok(wanted.iter().copied().filter(|package| !installed.contains(*package)).collect())
}

/// Reads lines `name[:arch] status`.
fn installed(listing: &str) -> BTreeSet<String> {
    let lines = listing.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(_, status)| *status == "installed")
        .map(|(name, _)| name.split(':').next().unwrap_or(name).to_owned())
        .collect()
}

fn apt(root: bool, arguments: &[&str]) -> Result<()> {
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if !root {
        command.args(["--non-interactive", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
    process::run(&mut command)
}

/// Formatting and lints are checked by the tests, so their programs must be there.
fn check_rust() -> Result<()> {
    for (component, program) in [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")] {
        if !process::succeeds(Command::new(program).arg("--version")) {
            bail!("`{program}` is missing\nhint: run `rustup component add {component}`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listing = "bash installed\nlibbz2-dev:amd64 installed\ntar config-files\nodd\n";
        let names: Vec<String> = installed(listing).into_iter().collect();
        assert_eq!(names, ["bash", "libbz2-dev"]);
    }

    #[test]
    fn an_unknown_package_is_missing_and_a_known_one_is_not() {
        let found = missing(&["dpkg", "no-such-package-anywhere"]).expect("dpkg-query runs");
        assert_eq!(found, ["no-such-package-anywhere"]);
    }
}
