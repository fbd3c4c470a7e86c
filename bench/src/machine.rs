//! What the figures were taken on and with.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Facts about machine and programs, as `(what, value)`.
pub(crate) fn describe(maestro: &Path) -> Result<Vec<(&'static str, String)>> {
    let read =
        |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"));
    let processors = std::thread::available_parallelism()?.get();
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = field(&cpuinfo, "model name").unwrap_or("unknown").to_owned();
    let meminfo = read("/proc/meminfo")?;
    let memory = field(&meminfo, "MemTotal").unwrap_or("unknown").to_owned();
    let system = read("/etc/os-release")?;
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Ok(vec![
        ("processors", format!("{processors} × {model}")),
        ("memory", memory),
        ("system", system.unwrap_or("unknown").trim_matches('"').to_owned()),
        ("kernel", read("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("Maestro", version(Command::new(maestro).arg("--version"))),
        ("ninja", version(Command::new("ninja").arg("--version"))),
        ("Bazel", version(&mut bazel_version())),
    ])
}

/// Debian's build of Bazel does not know its version, its package does.
fn bazel_version() -> Command {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat", "${Version}", "bazel-bootstrap"]);
    command
}

fn version(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let text = output.ok().filter(|output| output.status.success());
    let text = text.and_then(|output| String::from_utf8(output.stdout).ok());
    let line = text.as_deref().and_then(|text| text.trim().lines().next());
    line.unwrap_or("not installed").to_owned()
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name"), Some("Some CPU"));
        assert_eq!(field(text, "cache"), None);
    }
}
