//! Guides that are run: their files are written and their commands called, from top to bottom.
//!
//! | in the guide | is |
//! |---|---|
//! | a block after a line that ends in `` Write `FILE`: `` | a file |
//! | an indented line | a command for a shell, in the workspace; it must succeed |
//! | a block after a line that ends in `prints:` | the standard output of the command before it |
//! | a block after a line that ends in `in short:` | shown only |
//!
//! A fenced block after any other line is refused, since nobody would run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Run, Workspace, maestro_bin};

/// One thing that a guide asks its reader to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file gets this text.
    Write {
        /// Its path.
        path: String,
        /// The text.
        text: String,
    },
    /// A command is called.
    Run {
        /// The line.
        line: String,
        /// What it prints, where the guide says so.
        prints: Option<String>,
    },
}

/// Where a page of the documentation lies.
pub fn page(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(path)
}

/// The steps of a guide of `docs/guides`.
///
/// # Panics
/// Where the guide is not of the form above.
pub fn steps(guide: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(page("guides").join(guide)).expect("the guide is there");
    let mut steps: Vec<Step> = Vec::new();
    let mut before = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(command) = line.strip_prefix("    ") {
            steps.push(Step::Run { line: command.to_owned(), prints: None });
        } else if line.starts_with("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let text = format!("{}\n", body.join("\n"));
            let file = before.strip_suffix("`:").and_then(|line| line.rsplit_once("Write `"));
            match (file, steps.last_mut()) {
                (Some((_, path)), _) => steps.push(Step::Write { path: path.to_owned(), text }),
                (None, Some(Step::Run { prints, .. })) if before.ends_with("prints:") => {
                    *prints = Some(text);
                }
                _ if before.ends_with("in short:") => {}
                _ => panic!("{guide}: what is the block after `{before}`?"),
            }
        }
        if !line.is_empty() {
            before = line;
        }
    }
    steps
}

/// Does what a guide asks for, and says what each command came to.
pub fn follow(ws: &Workspace, steps: &[Step]) -> Vec<Run> {
    let bin = ws.outside().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).expect("a folder can be made");
        std::os::unix::fs::symlink(maestro_bin(), bin.join("maestro")).expect("a link can be made");
    }
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut runs = Vec::new();
    for step in steps {
        match step {
            Step::Write { path, text } => ws.write(path, text),
            Step::Run { line, prints } => {
                let mut command = Command::new("/bin/sh");
                command.current_dir(&ws.root).args(["-euc", line]).env("PATH", &path);
                command.env("MAESTRO_CACHE", &ws.cache).env_remove("CI");
                command.env("MAESTRO_STATE", ws.outside().join("state"));
                command.envs(ws.env());
                let run = Run::of(command.output().expect("a shell"));
                assert_eq!(run.code, 0, "`{line}`:\n{}{}", run.stdout, run.stderr);
                if let Some(prints) = prints {
                    assert_eq!(&run.stdout, prints, "`{line}`");
                }
                runs.push(run);
            }
        }
    }
    runs
}
