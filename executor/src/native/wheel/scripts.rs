//! Programs of a wheel: those that it brings, and those that it only declares.

/// A program that a package declares in `entry_points.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// The name of the program.
    pub(super) name: String,
    module: String,
    /// A path of attributes below the module.
    attribute: String,
}

/// The programs of the section `[console_scripts]`.
pub(super) fn declared(entry_points: &str) -> Result<Vec<Script>, String> {
    let mut scripts = Vec::new();
    let mut section = "";
    for line in entry_points.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            continue;
        }
        if section == "console_scripts" {
            let odd = || format!("`entry_points.txt` has the line `{}`", line.escape_debug());
            scripts.push(parse(line).ok_or_else(odd)?);
        }
    }
    Ok(scripts)
}

/// Reads `name = module:attribute [extra]`.
fn parse(line: &str) -> Option<Script> {
    let (name, target) = line.split_once('=')?;
    let target = target.split('[').next().unwrap_or_default();
    let (module, attribute) = target.split_once(':')?;
    let name = name.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let named = !name.is_empty() && !name.starts_with('.') && name.chars().all(fits);
    let dotted = |text: &str| {
        let word = |word: &str| {
            !word.is_empty()
                && !word.starts_with(|c: char| c.is_ascii_digit())
                && word.chars().all(|c| c.is_alphanumeric() || c == '_')
        };
        text.split('.').all(word)
    };
    let (module, attribute) = (module.trim(), attribute.trim());
    (named && dotted(module) && dotted(attribute)).then(|| Script {
        name: name.to_owned(),
        module: module.to_owned(),
        attribute: attribute.to_owned(),
    })
}

impl Script {
    /// The text of the program. It finds modules beside itself and on `PYTHONPATH`.
    pub(super) fn launcher(&self, interpreter: &str) -> String {
        let Self { name: _, module, attribute } = self;
        let first = attribute.split('.').next().unwrap_or(attribute);
        format!(
            "#!{interpreter}\n\
             import os\n\
             import sys\n\
             sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(\
             os.path.abspath(__file__))), \"lib\"))\n\
             from {module} import {first}\n\
             if __name__ == \"__main__\":\n    \
             sys.exit({attribute}())\n"
        )
    }
}

/// The content of a script whose first line leaves the interpreter open, with it filled in.
pub(super) fn with_interpreter(content: Vec<u8>, interpreter: &str) -> Vec<u8> {
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    match content.split_at_checked(end) {
        Some((b"#!python" | b"#!pythonw" | b"#!python\r" | b"#!pythonw\r", rest)) => {
            [format!("#!{interpreter}").as_bytes(), rest].concat()
        }
        _ => content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_console_scripts_are_programs() {
        let text =
            "# c\n[gui_scripts]\ng = m:f\n\n[console_scripts]\ntool = pkg.cli:App.main [x]\n";
        let found = declared(text).expect("it is well formed");
        assert_eq!(found.len(), 1);
        let launcher = found.first().map(|script| script.launcher("/usr/bin/python3"));
        let expect = "#!/usr/bin/python3\nimport os\nimport sys\nsys.path.insert(0, \
                      os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), \
                      \"lib\"))\nfrom pkg.cli import App\nif __name__ == \"__main__\":\n    \
                      sys.exit(App.main())\n";
        assert_eq!(launcher.as_deref(), Some(expect));
    }

    #[test]
    fn names_cannot_leave_their_folder_nor_hold_code() {
        for line in ["../x = m:f", "a/b = m:f", "x = m:f()", "x = os;evil:f", "x = m", ". = m:f"] {
            let text = format!("[console_scripts]\n{line}\n");
            assert!(declared(&text).is_err(), "{line}");
        }
    }

    #[test]
    fn open_first_lines_are_filled_in() {
        let check = |text: &str, expect: &str| {
            let made = with_interpreter(text.as_bytes().to_vec(), "/py");
            assert_eq!(String::from_utf8(made).expect("UTF-8"), expect);
        };
        check("#!python\nx\n", "#!/py\nx\n");
        check("#!pythonw\r\nx\n", "#!/py\nx\n");
        check("#!/bin/sh\nx\n", "#!/bin/sh\nx\n");
        check("#!python3.9\nx\n", "#!python3.9\nx\n");
        check("#!python", "#!/py");
    }
}
