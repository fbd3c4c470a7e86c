//! The pipelines of a workspace: finds their files, reads them with what they include and with the
//! project's defaults.
//!
//! A pipeline is a file `NAME.pipeline.yaml`, `.yml` or `.json`, wherever in the workspace.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maestro_core::{Label, RelPath};
use maestro_rules::pipeline::{self, Checked, Defaults, Step, Value, default_names};

use crate::config::{Config, PROJECT_FILE};
use crate::exit::Failure;
use crate::star_files::{FoundFile, find_files};

/// How files of pipelines end.
const ENDINGS: [&str; 3] = [".pipeline.yaml", ".pipeline.yml", ".pipeline.json"];

/// Whether a file of this name holds a pipeline.
pub fn is_pipeline(name: &str) -> bool {
    stem(name).is_some()
}

/// The name of a file without what all files of pipelines end with.
fn stem(name: &str) -> Option<&str> {
    ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))
}

/// The pipelines among some paths; those of the whole workspace where there are no paths.
pub fn find(config: &Config, paths: &[PathBuf]) -> Result<Vec<FoundFile>> {
    find_files(&config.workspace, paths, is_pipeline)
}

/// The one pipeline that a name or a path means.
pub fn resolve(config: &Config, what: &str) -> Result<FoundFile> {
    let path = Path::new(what);
    if what.contains('/') || is_pipeline(what) || path.is_file() {
        let found = find(config, &[path.to_owned()])?;
        return found.into_iter().next().with_context(|| format!("cannot read `{what}`"));
    }
    let all = find(config, &[])?;
    let mut fitting: Vec<&FoundFile> = all
        .iter()
        .filter(|file| {
            let name = file.name.rsplit('/').next().unwrap_or_default();
            stem(name) == Some(what)
        })
        .collect();
    if fitting.is_empty() {
        fitting = all.iter().filter(|file| is_called(config, file, what)).collect();
    }
    match fitting.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let names: Vec<&str> = all.iter().map(|file| file.name.as_str()).collect();
            let hint = match names.is_empty() {
                true => "there is no `*.pipeline.yaml` yet; `maestro template new` writes one"
                    .to_owned(),
                false => format!("there is `{}`", names.join("`, `")),
            };
            Err(Failure::input(format!("there is no pipeline `{what}`")).hint(hint).into())
        }
        several => {
            let names: Vec<&str> = several.iter().map(|file| file.name.as_str()).collect();
            Err(Failure::input(format!("`{what}` means several pipelines"))
                .hint(format!("name the file: `{}`", names.join("`, `")))
                .into())
        }
    }
}

/// Whether a file says that it is called so.
fn is_called(config: &Config, file: &FoundFile, name: &str) -> bool {
    let checked = load(config, file, &Defaults::new());
    let pipeline = checked.ok().and_then(|checked| checked.pipeline);
    pipeline.is_some_and(|pipeline| pipeline.template.name.value == name)
}

/// The labels of all steps of the pipelines of a workspace; `None` if one cannot be read.
pub fn step_labels(config: &Config) -> Result<Option<BTreeSet<Label>>> {
    let mut labels = BTreeSet::new();
    for file in find(config, &[])? {
        let Some(pipeline) = load(config, &file, &Defaults::new())?.pipeline else {
            return Ok(None);
        };
        let template = &pipeline.template;
        let step = |step: &Step| {
            Label::parse(&format!("//:{}.{}", template.name.value, step.id.value), "", "").ok()
        };
        labels.extend(template.all_steps().filter_map(step));
    }
    Ok(Some(labels))
}

/// Reads and checks a pipeline.
pub fn load(config: &Config, file: &FoundFile, defaults: &Defaults) -> Result<Checked> {
    let text = read(&file.path, &file.name)?;
    Ok(check(config, &file.name, &text, defaults))
}

/// Checks a text as the pipeline of a file.
pub fn check(config: &Config, name: &str, text: &str, defaults: &Defaults) -> Checked {
    pipeline::load(name, text, &|path| included(config, path), defaults)
}

/// The text of a file, which must be UTF-8.
pub fn read(path: &Path, name: &str) -> Result<String> {
    let refuse = |why: String| Failure::input(format!("cannot read `{name}`: {why}"));
    let bytes = bytes_of(path).map_err(|error| refuse(plain(&error)))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::input(format!("`{name}` is not UTF-8: byte {at} begins no character")).into()
    })
}

/// The text of a file that a pipeline includes.
pub fn included(config: &Config, path: &str) -> Result<String, String> {
    let below = RelPath::new(path).map_err(|error| error.to_string())?;
    let real = config.workspace.join(below.as_str());
    let real = real.canonicalize().map_err(|error| plain(&error))?;
    if !real.starts_with(&config.workspace) {
        return Err("it lies outside of the workspace".to_owned());
    }
    let bytes = bytes_of(&real).map_err(|error| plain(&error))?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

/// The bytes of a file. A pipe would be waited for, and a device may have no end.
fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::metadata(path)?.is_file() {
        true => std::fs::read(path),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    }
}

/// `[defaults]` of the project, by names such as `llm.model`.
pub fn defaults(config: &Config) -> Result<Defaults> {
    let known = default_names();
    let mut found = Defaults::new();
    for (name, value) in &config.project.defaults {
        flatten(name, value, &known, &mut found)?;
    }
    Ok(found)
}

fn flatten(name: &str, value: &toml::Value, known: &[&str], found: &mut Defaults) -> Result<()> {
    if let toml::Value::Table(entries) = value {
        for (key, value) in entries {
            flatten(&format!("{name}.{key}"), value, known, found)?;
        }
        return Ok(());
    }
    if !known.contains(&name) {
        return Err(Failure::input(format!(
            "`{PROJECT_FILE}` has a default `{name}` that no step takes"
        ))
        .hint(format!("there is `{}`", known.join("`, `")))
        .into());
    }
    found.insert(name.to_owned(), json(value));
    Ok(())
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.clone().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(truth) => (*truth).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(items) => items.iter().map(json).collect(),
        toml::Value::Table(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), json(value))).collect())
        }
    }
}
