//! Running other programs: said aloud, with their status turned into errors.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Prints a command, runs it, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    say(command);
    let status = command.status().with_context(|| format!("cannot run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// What a command that must succeed writes to its standard output. Nothing is printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}\n{}", line(command), output.status, errors.trim_end());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote something that is not UTF-8", line(command)))
}

/// Whether a command runs and succeeds; silent.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Prints a command, runs it, passes its standard output on and shows each line to `see`.
/// Answers whether the command succeeded.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    say(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    let pipe = child.stdout.take().context("the pipe of a child is gone")?;
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end();
        writeln!(std::io::stdout(), "{line}")?;
        see(line);
        bytes.clear();
    }
    Ok(child.wait()?.success())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words
        .map(|word| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect();
    words.join(" ")
}

fn say(command: &Command) {
    eprintln!("$ {}", line(command));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_as_a_shell_reads_them() {
        let check = |words: &[&str], expect: &str| {
            let mut command = Command::new("a");
            command.args(words);
            assert_eq!(line(&command), expect);
        };
        check(&["b", "--c=d/e.f"], "a b --c=d/e.f");
        check(&["x y", "", "it's"], r"a 'x y' '' 'it'\''s'");
    }

    #[test]
    fn failures_carry_the_errors_of_the_program() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]));
        let text = format!("{:#}", error.expect_err("it exits with 3"));
        assert!(text.contains("exit status: 3") && text.contains("broken"), "{text}");
    }

    #[test]
    fn watched_lines_are_seen_in_order() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "printf 'one\\ntwo'; exit 1"]);
        let success = watch(&mut command, |line| seen.push(line.to_owned())).expect("it runs");
        assert!(!success);
        assert_eq!(seen, ["one", "two"]);
    }
}
