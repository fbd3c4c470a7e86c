//! Command lines: what arguments come to once their trees are known, and where they are written.
//!
//! Nothing here knows keys; what it makes enters them through `Command.arguments` and the files
//! of the input root.

use super::{Builder, PrepareError};
use crate::action::{Arg, Item, ParamFileFormat, Sequence};
use crate::limits;
use crate::merkle::Node;

impl Builder<'_> {
    /// Expands the command line; param files become inputs beside the first output.
    pub(super) fn command_line(
        &mut self,
        argv: &[Arg],
        output: Option<&String>,
    ) -> Result<Vec<String>, PrepareError> {
        let stem = output.map_or(".maestro/params", String::as_str);
        let flat = self.expand_all(argv, stem, false, &mut 0)?;
        if too_long(&flat).is_none() {
            return Ok(flat);
        }
        let spilled = self.expand_all(argv, stem, true, &mut 0)?;
        match too_long(&spilled) {
            None => Ok(spilled),
            Some((bytes, limit)) => Err(PrepareError::TooLong { bytes, limit }),
        }
    }

    pub(super) fn expand_all(
        &mut self,
        args: &[Arg],
        stem: &str,
        spill: bool,
        count: &mut u32,
    ) -> Result<Vec<String>, PrepareError> {
        let mut out = Vec::new();
        for arg in args {
            match arg {
                Arg::One(items) => out.push(items.iter().map(|i| self.text(i)).collect()),
                Arg::Many(sequence) => out.extend(self.sequence(sequence)?),
                Arg::ParamFile { args, flag, format, always } => {
                    let inner = self.expand_all(args, stem, false, count)?;
                    if !(*always || spill) {
                        out.extend(inner);
                        continue;
                    }
                    let path = format!("{stem}-{count}.params");
                    *count += 1;
                    let (inside, beside) = format.split(inner);
                    self.file(&path, format.text(&inside).into_bytes());
                    out.push(flag.replacen("%s", &path, 1));
                    out.extend(beside);
                }
            }
        }
        Ok(out)
    }

    fn text(&self, item: &Item) -> String {
        match item {
            Item::Text(text) => text.to_string(),
            Item::Artifact(id) => self.graph.artifact(*id).path.to_string(),
        }
    }

    fn sequence(&self, sequence: &Sequence) -> Result<Vec<String>, PrepareError> {
        let Sequence {
            direct,
            set,
            format_each,
            before_each,
            before_all,
            join_with,
            format_joined,
            terminate_with,
            unique,
            expand_trees,
            omit_if_empty,
        } = sequence;
        let from_set = set.map(|set| self.graph.sets.flatten(set)).unwrap_or_default();
        let mut values = Vec::new();
        for item in direct.iter().chain(from_set) {
            match item {
                Item::Artifact(id) if *expand_trees => match self.resolved.node(*id) {
                    Some(Node::Tree { root }) => {
                        let files = self
                            .resolved
                            .tree_files(root)
                            .ok_or(PrepareError::LostTree { root })?;
                        let path = &self.graph.artifact(*id).path;
                        values.extend(files.into_iter().map(|file| format!("{path}/{file}")));
                    }
                    _ => values.push(self.text(item)),
                },
                _ => values.push(self.text(item)),
            }
        }
        if let Some(format) = format_each {
            for value in &mut values {
                *value = format.replacen("%s", value, 1);
            }
        }
        if *unique {
            let mut seen = std::collections::HashSet::new();
            values.retain(|value| seen.insert(value.clone()));
        }
        if values.is_empty() && *omit_if_empty {
            return Ok(Vec::new());
        }
        let mut out: Vec<String> = before_all.iter().cloned().collect();
        if let Some(separator) = join_with {
            let joined = values.join(separator);
            out.push(match format_joined {
                Some(format) => format.replacen("%s", &joined, 1),
                None => joined,
            });
            return Ok(out);
        }
        for value in values {
            out.extend(before_each.iter().cloned());
            out.push(value);
        }
        out.extend(terminate_with.iter().cloned());
        Ok(out)
    }
}

impl ParamFileFormat {
    /// What goes into the file, and what stays on the command line.
    fn split(self, arguments: Vec<String>) -> (Vec<String>, Vec<String>) {
        if self != Self::FlagPerLine {
            return (arguments, Vec::new());
        }
        let (mut inside, mut beside): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        // Whether a value may follow: nothing yet, the first one, or a further one.
        let mut separator = None;
        for argument in arguments {
            match (argument.starts_with("--"), separator, inside.last_mut()) {
                (true, ..) => {
                    separator = (!argument.contains('=')).then_some('=');
                    inside.push(argument);
                }
                (false, Some(between), Some(line)) => {
                    line.push(between);
                    line.push_str(&argument);
                    separator = Some(' ');
                }
                (false, ..) => beside.push(argument),
            }
        }
        (inside, beside)
    }

    pub(super) fn text(self, arguments: &[String]) -> String {
        let mut out = String::new();
        for argument in arguments {
            match self {
                Self::Multiline | Self::FlagPerLine => out.push_str(argument),
                Self::Shell => out.push_str(&shell_quote(argument)),
            }
            out.push('\n');
        }
        out
    }
}

/// The length of a command line that the kernel would not take, and the limit that it breaks.
fn too_long(arguments: &[String]) -> Option<(usize, usize)> {
    let longest = arguments.iter().map(String::len).max().unwrap_or(0);
    if longest >= limits::ARGUMENT_BYTES_MAX {
        return Some((longest, limits::ARGUMENT_BYTES_MAX));
    }
    // The kernel counts the byte that ends each argument, and a pointer to it.
    let total: usize = arguments.iter().map(|a| a.len() + 1 + size_of::<u64>()).sum();
    (total >= limits::ARGUMENTS_BYTES_MAX).then_some((total, limits::ARGUMENTS_BYTES_MAX))
}

/// `argument` as one word of a POSIX shell.
pub fn shell_quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
