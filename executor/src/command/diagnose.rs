//! What to tell a user about a command that failed: signals in words, inputs that were forgotten.
//!
//! Only text and the graph are looked at; what this says changes nothing but a hint.

use std::collections::HashSet;
use std::path::Path;

use maestro_core::graph::ArtifactId;
use maestro_core::{Origin, RelPath};

use crate::runner::Job;

/// Phrases with which programs say that a file is not there.
const ABSENT: [&str; 8] = [
    "No such file",
    "not found",
    "cannot open",
    "can't open",
    "cannot find",
    "can't find",
    "does not exist",
    "No module named",
];
/// How much of the end of an error log is looked at, in bytes.
const LOG_BYTES_MAX: usize = 64 * 1024;
/// Most hints of this kind that are given.
const HINTS_MAX: usize = 3;

/// How a program ended, in words: "exited with code 2".
pub(super) fn ending(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("the command exited with code {code}"),
        (_, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("the command was killed by {name} (signal {signal})"),
            None => format!("the command was killed by signal {signal}"),
        },
        _ => "the command ended in an unknown way".to_owned(),
    }
}

/// Hints that follow from how a program ended and what it wrote to standard error.
pub(super) fn hints(
    job: &Job<'_>,
    workspace: Option<&Path>,
    signal: Option<i32>,
    stderr: &[u8],
) -> Vec<String> {
    let mut out = Vec::new();
    if signal == Some(libc::SIGKILL) {
        out.push("the kernel kills programs when memory runs out; run fewer jobs".to_owned());
    }
    let tail = stderr.get(stderr.len().saturating_sub(LOG_BYTES_MAX)..).unwrap_or_default();
    let text = String::from_utf8_lossy(tail);
    if text.contains("No space left on device") {
        out.push("in the sandbox `/tmp` is memory and bounded; write large files elsewhere".into());
    }
    let inputs: HashSet<&str> =
        job.prepared.tree.entries.iter().map(|(path, _)| path.as_str()).collect();
    let package = job.graph.target(job.spec.owner).label.package_dir();
    let mut named = HashSet::new();
    for candidate in candidates(&text) {
        let Some(path) = existing(job, workspace, &package, &candidate) else { continue };
        let is_input = inputs.contains(path.as_str())
            || RelPath::new(&path).is_ok_and(|path| {
                job.prepared.tree.entries.iter().any(|(above, _)| path.starts_with(above))
            });
        if !is_input && named.len() < HINTS_MAX && named.insert(path.clone()) {
            out.push(format!(
                "`{path}` is not a declared input of this action; \
                 add it to `srcs`, `hdrs` or `deps`"
            ));
        }
    }
    out
}

/// Texts in lines that complain about absence which may be paths.
fn candidates(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in text.lines().filter(|line| ABSENT.iter().any(|phrase| line.contains(phrase))) {
        let breaks = |c: char| c.is_whitespace() || "'\"`:;,()<>[]‘’“”".contains(c);
        for word in line.split(breaks) {
            let word = word.trim_start_matches("/build/").trim_start_matches("./");
            let word = word.trim_end_matches('.');
            if word.contains(['.', '/']) && !word.starts_with('/') && RelPath::new(word).is_ok() {
                out.push(word.to_owned());
            }
        }
        if let Some((_, module)) = line.split_once("No module named ") {
            let module = module.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
            out.push(format!("{}.py", module.replace('.', "/")));
        }
    }
    out.dedup();
    out
}

/// The execution path of something that exists and that `candidate` may mean.
fn existing(
    job: &Job<'_>,
    workspace: Option<&Path>,
    package: &str,
    candidate: &str,
) -> Option<String> {
    let beside =
        if package.is_empty() { candidate.to_owned() } else { format!("{package}/{candidate}") };
    for path in [candidate, &beside] {
        let path = RelPath::new(path).ok()?;
        let known = job.graph.artifact_at(&path).is_some();
        let on_disk = || workspace.is_some_and(|root| root.join(path.as_str()).is_file());
        if known || on_disk() {
            return Some(path.as_str().to_owned());
        }
    }
    // An include path may hide the folder; the end of a file that the graph knows will do.
    let ending = format!("/{candidate}");
    (0..job.graph.artifact_count())
        .map(|index| job.graph.artifact(ArtifactId::from_index(index)))
        .filter(|artifact| !matches!(artifact.origin, Origin::Toolchain(_)))
        .find(|artifact| artifact.path.as_str().ends_with(&ending))
        .map(|artifact| artifact.path.as_str().to_owned())
}

/// The file among `made` that most likely should have been `wanted`.
pub(super) fn nearest<'a>(wanted: &RelPath, made: &'a [String]) -> Option<&'a str> {
    let same_name = |path: &&String| path.rsplit('/').next() == Some(wanted.name());
    if let Some(found) = made.iter().find(same_name) {
        return Some(found);
    }
    made.iter()
        .map(|path| (strsim::damerau_levenshtein(path, wanted.as_str()), path))
        .filter(|(distance, _)| *distance <= 2 + wanted.name().len() / 3)
        .min()
        .map(|(_, path)| path.as_str())
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_worded() {
        let check = |code, signal, expect: &str| assert_eq!(ending(code, signal), expect);
        check(Some(2), None, "the command exited with code 2");
        check(None, Some(11), "the command was killed by SIGSEGV (signal 11)");
        check(None, Some(40), "the command was killed by signal 40");
    }

    #[test]
    fn finds_paths_in_complaints() {
        let check = |line: &str, expect: &[&str]| assert_eq!(candidates(line), expect, "{line}");
        check(
            "a.cc:3:10: fatal error: graph/graph.h: No such file or directory",
            &["a.cc", "graph/graph.h"],
        );
        check("sh: 1: ./tools/gen.sh: not found", &["tools/gen.sh"]);
        check("cat: /build/p/x.txt: No such file or directory", &["p/x.txt"]);
        check("ModuleNotFoundError: No module named 'a.b'", &["a.b", "a/b.py"]);
        check(
            "python3: can't open file '/build/p/run.py': [Errno 2] No such file or directory",
            &["p/run.py"],
        );
        check("error: 3.5 is not a number", &[]);
        check("cat: /etc/shadow: No such file or directory", &[]);
    }

    #[test]
    fn finds_what_was_meant() {
        let check = |wanted: &str, made: &[&str], expect: Option<&str>| {
            let wanted = RelPath::new(wanted).expect("valid");
            let made: Vec<String> = made.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(nearest(&wanted, &made), expect, "{wanted}");
        };
        check("out/p/a.txt", &["b", "p/a.txt"], Some("p/a.txt"));
        check("out/p/a.txt", &["out/p/a.text", "zzz"], Some("out/p/a.text"));
        check("out/p/a.txt", &["something/else"], None);
        check("out/p/a.txt", &[], None);
    }
}
