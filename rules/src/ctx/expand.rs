//! Variables in commands: `$@`, `$<`, `$(SRCS)`, `$(location L)`, `$$`.
//!
//! Everything is replaced in one pass, so what is put in is never searched again. Paths are quoted
//! for a shell where that is needed.

use maestro_core::Label;
use maestro_core::key::shell_quote;

use crate::error::{Code, RuleError, did_you_mean};
use crate::values::file::FileValue;

/// What a variable stands for.
pub(crate) enum Variable {
    Text(String),
    Files(Vec<FileValue>),
}

/// Expands the texts of one attribute.
pub(crate) struct Expander<'a> {
    /// The target; relative labels start at its package.
    pub(crate) label: &'a Label,
    pub(crate) attribute: &'a str,
    /// What labels may name.
    pub(crate) targets: &'a [(Label, Vec<FileValue>)],
    /// Variables; where `None`, only locations are replaced and all else stays.
    pub(crate) variables: Option<&'a [(String, Variable)]>,
}

impl Expander<'_> {
    pub(crate) fn expand(&self, text: &str) -> Result<String, RuleError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = self.reference(after, &mut out)?;
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Replaces what follows a `$`; returns what is left.
    fn reference<'t>(&self, after: &'t str, out: &mut String) -> Result<&'t str, RuleError> {
        if let Some(inner) = after.strip_prefix('(') {
            let Some((body, rest)) = inner.split_once(')') else {
                return self.fail("`$(` is not closed".to_owned(), None);
            };
            match body.split_once(' ') {
                Some((function, label)) => match self.location(function, label.trim())? {
                    Some(paths) => out.push_str(&paths),
                    None if self.variables.is_none() => out.push_str(&format!("$({body})")),
                    None => {
                        let message = format!("`$({function} …)` is not known");
                        let functions = FUNCTIONS.iter().map(|(name, _)| *name);
                        return self.fail(message, did_you_mean(function, functions));
                    }
                },
                None if self.variables.is_none() => out.push_str(&format!("$({body})")),
                None => out.push_str(&self.variable(body, &format!("$({body})"))?),
            }
            return Ok(rest);
        }
        let Some(c) = after.chars().next() else {
            return match self.variables {
                None => {
                    out.push('$');
                    Ok(after)
                }
                Some(_) => self.fail("a single `$` ends the text".to_owned(), dollar_hint()),
            };
        };
        let rest = after.get(c.len_utf8()..).unwrap_or_default();
        if self.variables.is_none() {
            out.push('$');
            out.push(c);
        } else if c == '$' {
            out.push('$');
        } else {
            out.push_str(&self.variable(&c.to_string(), &format!("${c}"))?);
        }
        Ok(rest)
    }

    fn variable(&self, name: &str, shown: &str) -> Result<String, RuleError> {
        let variables = self.variables.unwrap_or_default();
        let found = variables.iter().find(|(own, _)| own == name);
        match found {
            Some((_, Variable::Text(text))) => Ok(text.clone()),
            Some((_, Variable::Files(files))) => {
                Ok(quoted(files.iter().map(|f| f.path().as_str())))
            }
            None => {
                let hint = match name {
                    "@" => Some("`$@` needs exactly one output; use `$(OUTS)`".to_owned()),
                    "<" => Some("`$<` needs exactly one source; use `$(SRCS)`".to_owned()),
                    _ => did_you_mean(name, variables.iter().map(|(own, _)| own.as_str()))
                        .or_else(dollar_hint),
                };
                self.fail(format!("variable `{shown}` is not defined"), hint)
            }
        }
    }

    /// The paths of a label's files, if `function` asks for that.
    fn location(&self, function: &str, text: &str) -> Result<Option<String>, RuleError> {
        let Some((_, style)) = FUNCTIONS.iter().find(|(name, _)| *name == function) else {
            return Ok(None);
        };
        let label = Label::parse(text, &self.label.repo, &self.label.package)
            .map_err(|e| self.error(e.to_string(), None))?;
        let Some((_, files)) = self.targets.iter().find(|(own, _)| *own == label) else {
            let known: Vec<String> = self.targets.iter().map(|(l, _)| l.to_string()).collect();
            let near = did_you_mean(&label.to_string(), known.iter().map(String::as_str));
            let hint = near.or_else(|| Some(format!("add `{label}` to `srcs` or `tools`")));
            return self.fail(format!("`{label}` is no dependency of this target"), hint);
        };
        if !style.many && files.len() != 1 {
            let message = format!("`$({function} {text})` stands for {} files", files.len());
            return self.fail(message, Some(format!("use `$({function}s {text})`")));
        }
        let path = |file: &FileValue| match style.short {
            true => file.short_path().to_owned(),
            false => file.path().to_string(),
        };
        let paths: Vec<String> = files.iter().map(path).collect();
        Ok(Some(quoted(paths.iter().map(String::as_str))))
    }

    fn error(&self, message: String, hint: Option<String>) -> RuleError {
        let message = format!("attribute `{}`: {message}", self.attribute);
        RuleError::new(Code::Attribute, message).hint_opt(hint)
    }

    fn fail<T>(&self, message: String, hint: Option<String>) -> Result<T, RuleError> {
        Err(self.error(message, hint))
    }
}

struct Style {
    many: bool,
    short: bool,
}

const FUNCTIONS: [(&str, Style); 6] = [
    ("location", Style { many: false, short: false }),
    ("locations", Style { many: true, short: false }),
    ("execpath", Style { many: false, short: false }),
    ("execpaths", Style { many: true, short: false }),
    ("rootpath", Style { many: false, short: true }),
    ("rootpaths", Style { many: true, short: true }),
];

fn dollar_hint() -> Option<String> {
    Some("write `$$` for a dollar sign of the shell".to_owned())
}

fn quoted<'a>(paths: impl Iterator<Item = &'a str>) -> String {
    paths.map(shell_quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::file::FileOrigin;
    use maestro_core::{ActionGraph, ArtifactKind, RelPath};

    fn file(graph: &mut ActionGraph, path: &str) -> FileValue {
        let path = RelPath::new(path).expect("valid");
        let label = Label::parse("//p:x", "", "").expect("valid");
        let id = graph.source(path.clone());
        FileValue::new(id, path, ArtifactKind::File, FileOrigin::Source, label)
    }

    #[test]
    fn commands_expand_in_one_pass() {
        let mut graph = ActionGraph::default();
        let label = Label::parse("//p:t", "", "").expect("valid");
        let a = file(&mut graph, "p/a b");
        let out = file(&mut graph, "maestro-out/shared/p/out");
        let named = |name: &str| Label::parse(name, "", "p").expect("valid");
        let targets = [
            (named("a"), vec![a.clone()]),
            (named("two"), vec![a.clone(), out.clone()]),
            (named("none"), vec![]),
        ];
        let variables = [
            ("@".to_owned(), Variable::Files(vec![out.clone()])),
            ("SRCS".to_owned(), Variable::Files(vec![a.clone()])),
            ("X".to_owned(), Variable::Text("$(location a)".to_owned())),
        ];
        let check = |text: &str, expect: Result<&str, &str>| {
            let expander = Expander {
                label: &label,
                attribute: "cmd",
                targets: &targets,
                variables: Some(&variables),
            };
            let got = expander.expand(text).map_err(|e| e.message);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{text}");
        };
        check("cp $(SRCS) $@", Ok("cp 'p/a b' maestro-out/shared/p/out"));
        check("echo $$HOME $X", Ok("echo $HOME $(location a)"));
        check("$(locations two)", Ok("'p/a b' maestro-out/shared/p/out"));
        check("$(rootpath a)", Ok("'p/a b'"));
        check("$(locations none)|", Ok("|"));
        check("$(location two)", Err("attribute `cmd`: `$(location two)` stands for 2 files"));
        check("$(location b)", Err("attribute `cmd`: `//p:b` is no dependency of this target"));
        check("$(SRC)", Err("attribute `cmd`: variable `$(SRC)` is not defined"));
        check("$<", Err("attribute `cmd`: variable `$<` is not defined"));
        check("$(SRCS", Err("attribute `cmd`: `$(` is not closed"));
        check("100$", Err("attribute `cmd`: a single `$` ends the text"));
    }

    #[test]
    fn locations_alone_leave_the_rest() {
        let mut graph = ActionGraph::default();
        let label = Label::parse("//p:t", "", "").expect("valid");
        let targets = [(label.clone(), vec![file(&mut graph, "p/a")])];
        let expander =
            Expander { label: &label, attribute: "args", targets: &targets, variables: None };
        let got = expander.expand("$HOME $(FOO) $(location :t) $(wc -l) $").expect("expands");
        assert_eq!(got, "$HOME $(FOO) p/a $(wc -l) $");
    }
}
