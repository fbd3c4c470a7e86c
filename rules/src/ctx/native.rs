//! Steps that Maestro implements itself, as functions of `ctx.actions`.
//!
//! Each function builds the request that `docs/design/native-steps.md` and `docs/design/lock.md`
//! define. A field is always written in the same manner, since the request is part of the key.

use std::collections::BTreeMap;

use maestro_core::{ActionClass, Arg, ArtifactId, Item};
use serde_json::{Map, Value as Json, json};
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::none::NoneType;

use super::actions::Actions;
use super::draft::{Draft, expect_file};
use super::{string_dict, strings};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::args::Args;
use crate::values::entry::{EntryKind, EntryValue};
use crate::values::file::FileValue;
use crate::values::{expect_sequence, wrong_type};

fn output<'v>(value: Value<'v>, tree: bool) -> Result<&'v FileValue, RuleError> {
    let file = expect_file(value, "output")?;
    if file.is_tree() == tree {
        return Ok(file);
    }
    let (is, make) = match tree {
        true => ("a file", "declare_directory"),
        false => ("a tree", "declare_file"),
    };
    let message = format!("output `{}` is {is}, which this action does not make", file.path());
    Err(RuleError::new(Code::Action, message).hint(format!("declare it with `ctx.actions.{make}`")))
}

/// Adds a native action with inputs named by id.
fn add(
    eval: &Evaluator<'_, '_, '_>,
    kind: &str,
    request: Json,
    output: &FileValue,
    inputs: Vec<ArtifactId>,
) -> starlark::Result<NoneType> {
    let scope = RuleScope::of(eval)?;
    let mut draft = Draft::native(kind, request, output);
    draft.direct = inputs;
    draft.add(scope)?;
    Ok(NoneType)
}

fn entries(value: Value<'_>) -> Result<(Json, Vec<ArtifactId>), RuleError> {
    let mut json = Vec::new();
    let mut inputs = Vec::new();
    for item in expect_sequence(value, "entries")? {
        let Some(entry) = EntryValue::from_value(*item) else {
            return Err(wrong_type("entries", "a list of `ctx.actions.entry(…)`", *item));
        };
        json.push(entry.to_json());
        inputs.extend(entry.input());
    }
    Ok((Json::Array(json), inputs))
}

/// The text of an `args()`, one argument a line; trees cannot be expanded here.
fn args_text(args: &Args, scope: &RuleScope) -> Result<String, RuleError> {
    let graph = scope.graph.borrow();
    let item = |item: &Item| match item {
        Item::Text(text) => text.to_string(),
        Item::Artifact(id) => graph.artifact(*id).path.to_string(),
    };
    let mut out = String::new();
    for arg in args.to_args() {
        let lines: Vec<String> = match &arg {
            Arg::One(parts) => vec![parts.iter().map(item).collect()],
            Arg::Many(many) => {
                let set = many.set.map(|set| graph.sets.flatten(set)).unwrap_or_default();
                let values = many.direct.iter().chain(set).map(item);
                let format = many.format_each.as_deref().unwrap_or("%s");
                let values: Vec<String> =
                    values.map(|value| format.replacen("%s", &value, 1)).collect();
                match &many.join_with {
                    Some(separator) => vec![values.join(separator)],
                    None => values,
                }
            }
            Arg::ParamFile { .. } => {
                let message = "`content` cannot use a param file";
                return Err(RuleError::new(Code::Action, message));
            }
        };
        for line in lines {
            out.push_str(&line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn optional_text(value: &str) -> Json {
    if value.is_empty() { Json::Null } else { Json::from(value) }
}

/// A dict as a JSON object with sorted keys.
fn object(value: Option<Value<'_>>, parameter: &str) -> Result<Json, RuleError> {
    let pairs = match value {
        None => Vec::new(),
        Some(value) => string_dict(value, parameter)?,
    };
    let sorted: BTreeMap<String, String> = pairs.into_iter().collect();
    Ok(json!(sorted))
}

fn list(value: Option<Value<'_>>, parameter: &str) -> Result<Vec<String>, RuleError> {
    value.map_or(Ok(Vec::new()), |value| strings(value, parameter))
}

#[starlark_module]
pub(crate) fn native_methods(builder: &mut MethodsBuilder) {
    /// Writes a small file.
    ///
    /// Args:
    ///   output: the file.
    ///   content: its text, or `args()`, of which each argument becomes a line.
    ///   is_executable: whether it is a program.
    fn write<'v>(
        this: &Actions,
        output: Value<'v>,
        content: Value<'v>,
        #[starlark(default = false)] is_executable: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        let content = match (content.unpack_str(), Args::from_value(content)) {
            (Some(text), _) => text.to_owned(),
            (None, Some(args)) => args_text(args, RuleScope::of(eval)?)?,
            (None, None) => return wrong_type("content", "a string or `args()`", content).raise(),
        };
        add(eval, "write", json!({"content": content, "executable": is_executable}), output, vec![])
    }

    /// Copies a template, with texts replaced in one pass; the longest match wins.
    ///
    /// Args:
    ///   template: the template.
    ///   output: the file.
    ///   substitutions: a dict from texts to what replaces them.
    ///   is_executable: whether it is a program.
    fn expand_template<'v>(
        this: &Actions,
        #[starlark(require = named)] template: Value<'v>,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] substitutions: Value<'v>,
        #[starlark(require = named, default = false)] is_executable: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        let template = expect_file(template, "template")?;
        let substitutions = object(Some(substitutions), "substitutions")?;
        let request = json!({
            "template": template.path(),
            "substitutions": substitutions,
            "executable": is_executable,
        });
        add(eval, "expand-template", request, output, vec![template.artifact()])
    }

    /// Makes a file or tree that is the same as another. No bytes are copied.
    ///
    /// Args:
    ///   output: the copy.
    ///   source: what is copied.
    ///   executable: whether the copy is a program; as the source where `None`.
    ///   path: what is copied out of `source`, if that is a tree.
    fn copy<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] source: Value<'v>,
        #[starlark(require = named)] executable: Option<Value<'v>>,
        #[starlark(require = named, default = "")] path: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        copy_action(eval, output, source, executable, path)
    }

    /// As `copy`, under the name that Bazel has.
    fn symlink<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] target_file: Value<'v>,
        #[starlark(require = named, default = false)] is_executable: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let executable = is_executable.then(|| Value::new_bool(true));
        copy_action(eval, output, target_file, executable, "")
    }

    /// As `copy`, for trees.
    fn copy_tree<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] source: Value<'v>,
        #[starlark(require = named, default = "")] path: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        crate::ctx::native::output(output, true)?;
        copy_action(eval, output, source, None, path)
    }

    /// A member of a tree or archive: exactly one of `file`, `link`, `content`, `folder`.
    ///
    /// Args:
    ///   path: where it stands; `.` is the root, for trees.
    ///   file: a file or tree.
    ///   inside: what is taken out of `file`, if that is a tree.
    ///   link: the text of a symbolic link.
    ///   content: a small text.
    ///   folder: `True` for a folder, which may stay empty.
    ///   executable: whether a file is a program; as the file where `None`.
    fn entry<'v>(
        this: &Actions,
        #[starlark(require = pos)] path: &str,
        #[starlark(require = named)] file: Option<Value<'v>>,
        #[starlark(require = named, default = "")] inside: &str,
        #[starlark(require = named)] link: Option<String>,
        #[starlark(require = named)] content: Option<String>,
        #[starlark(require = named, default = false)] folder: bool,
        #[starlark(require = named)] executable: Option<bool>,
    ) -> starlark::Result<EntryValue> {
        let _ = this;
        let what = match (file, link, content, folder) {
            (Some(file), None, None, false) => {
                let file = expect_file(file, "file")?;
                let from = match inside {
                    "" => file.path().to_string(),
                    _ => format!("{}/{inside}", file.path()),
                };
                EntryKind::From { input: file.artifact(), from, executable }
            }
            (None, Some(text), None, false) => EntryKind::Link(text),
            (None, None, Some(text), false) => {
                EntryKind::Content { text, executable: executable.unwrap_or(false) }
            }
            (None, None, None, true) => EntryKind::Folder,
            _ => {
                let message = "an entry has exactly one of `file`, `link`, `content`, `folder`";
                return RuleError::new(Code::Action, message).raise();
            }
        };
        Ok(EntryValue { path: path.to_owned(), what })
    }

    /// Composes a tree out of entries. No bytes are copied.
    fn tree<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] entries: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, true)?;
        let (entries, inputs) = crate::ctx::native::entries(entries)?;
        add(eval, "tree", json!({"entries": entries}), output, inputs)
    }

    /// Makes an archive out of entries; its bytes depend on them alone.
    ///
    /// Args:
    ///   output: the file.
    ///   entries: a list of `entry(…)`.
    ///   compression: `none` or `gzip`.
    ///   mtime: the time of every member, in seconds since 1970.
    ///   uid: the owner of every member.
    ///   gid: the group of every member.
    fn tar<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] entries: Value<'v>,
        #[starlark(require = named, default = "none")] compression: &str,
        #[starlark(require = named, default = 0)] mtime: i32,
        #[starlark(require = named, default = 0)] uid: i32,
        #[starlark(require = named, default = 0)] gid: i32,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        if !matches!(compression, "none" | "gzip") {
            let message = format!("`{}` is no compression", compression.escape_debug());
            return RuleError::new(Code::Action, message).hint("use `none` or `gzip`").raise();
        }
        if mtime < 0 || uid < 0 || gid < 0 {
            let message = "`mtime`, `uid` and `gid` are not negative";
            return RuleError::new(Code::Action, message).raise();
        }
        let (entries, inputs) = crate::ctx::native::entries(entries)?;
        let request = json!({
            "entries": entries,
            "compression": compression,
            "mtime": mtime,
            "uid": uid,
            "gid": gid,
        });
        add(eval, "tar", request, output, inputs)
    }

    /// Assembles a container image as a tree in the OCI image layout.
    ///
    /// Args:
    ///   output: the tree.
    ///   layers: trees, toolchains and tar archives, bottom first.
    ///   base: another layout, or `None`.
    fn oci_image<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] layers: Value<'v>,
        #[starlark(require = named)] base: Option<Value<'v>>,
        #[starlark(require = named, default = "linux")] os: &str,
        #[starlark(require = named, default = "amd64")] architecture: &str,
        #[starlark(require = named)] entrypoint: Option<Value<'v>>,
        #[starlark(require = named)] cmd: Option<Value<'v>>,
        #[starlark(require = named)] env: Option<Value<'v>>,
        #[starlark(require = named, default = "")] workdir: &str,
        #[starlark(require = named, default = "")] user: &str,
        #[starlark(require = named)] labels: Option<Value<'v>>,
        #[starlark(require = named)] exposed_ports: Option<Value<'v>>,
        #[starlark(require = named, default = "latest")] reference: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, true)?;
        let mut inputs = Vec::new();
        let mut paths = Vec::new();
        for layer in expect_sequence(layers, "layers")? {
            let layer = expect_file(*layer, "layers")?;
            inputs.push(layer.artifact());
            paths.push(layer.path().to_string());
        }
        let mut request = json!({
            "layers": paths,
            "platform": {"os": os, "architecture": architecture},
            "config": image_config(entrypoint, cmd, env, labels, exposed_ports, workdir, user)?,
            "created": 0,
            "reference": reference,
        });
        if let Some(base) = base.filter(|value| !value.is_none()) {
            let base = expect_file(base, "base")?;
            inputs.push(base.artifact());
            if let Some(fields) = request.as_object_mut() {
                fields.insert("base".to_owned(), json!(base.path()));
            }
        }
        add(eval, "oci-image", request, output, inputs)
    }

    /// Unpacks an archive into a tree.
    ///
    /// Args:
    ///   output: the tree.
    ///   archive: the archive.
    ///   format: `auto`, `tar`, `tar.gz` or `zip`.
    ///   strip_prefix: folders at the front of every path that are left out.
    fn unpack<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] archive: Value<'v>,
        #[starlark(require = named, default = "auto")] format: &str,
        #[starlark(require = named, default = "")] strip_prefix: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, true)?;
        let archive = expect_file(archive, "archive")?;
        let request = json!({
            "archive": archive.path(),
            "format": format,
            "strip_prefix": strip_prefix.trim_matches('/'),
        });
        add(eval, "unpack", request, output, vec![archive.artifact()])
    }

    /// Fetches a file whose digest is known.
    ///
    /// Args:
    ///   output: the file.
    ///   urls: where it is, in order of preference.
    ///   sha256: its digest, 64 hexadecimal digits; or
    ///   integrity: its digest as `sha256-BASE64`.
    ///   executable: whether it is a program.
    fn fetch<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] urls: Value<'v>,
        #[starlark(require = named, default = "")] sha256: &str,
        #[starlark(require = named, default = "")] integrity: &str,
        #[starlark(require = named, default = false)] executable: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        let urls = strings(urls, "urls")?;
        check_pin(&urls, sha256, integrity)?;
        let request = json!({
            "urls": urls,
            "sha256": optional_text(sha256),
            "integrity": optional_text(integrity),
            "executable": executable,
        });
        add(eval, "fetch", request, output, vec![])
    }

    /// Lists files with their sizes and SHA-256 digests.
    ///
    /// Args:
    ///   output: the list.
    ///   files: a dict from names to files and trees.
    ///   format: `json`, or `sha256sums` as `sha256sum --check` reads.
    fn manifest<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] files: Value<'v>,
        #[starlark(require = named, default = "json")] format: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        let wrong = || wrong_type("files", "a dict from names to files", files);
        let dict = DictRef::from_value(files).ok_or_else(wrong)?;
        let mut inputs = Vec::new();
        let mut sorted = BTreeMap::new();
        for (name, file) in dict.iter() {
            let name = name.unpack_str().ok_or_else(wrong)?;
            let file = expect_file(file, "files")?;
            inputs.push(file.artifact());
            sorted.insert(name.to_owned(), file.path().to_string());
        }
        let files: Vec<Json> =
            sorted.iter().map(|(name, from)| json!({"name": name, "from": from})).collect();
        add(eval, "manifest", json!({"format": format, "files": files}), output, inputs)
    }

    /// Asks a language model; the answer is a record.
    ///
    /// Args:
    ///   output: the answer.
    ///   model: the model's name.
    ///   messages: a list of dicts with `role` and `content`, a list of strings and files.
    ///   sampling: a dict with `max_tokens` and perhaps `seed`, `temperature`, `top_p`.
    ///   step: what the record is called.
    ///   schema: a JSON Schema as Starlark values, or `None`.
    ///   sample: tells apart several answers to one request.
    ///   progress_message: one line for people.
    fn llm<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] model: &str,
        #[starlark(require = named)] messages: Value<'v>,
        #[starlark(require = named)] sampling: Value<'v>,
        #[starlark(require = named)] step: &str,
        #[starlark(require = named)] schema: Option<Value<'v>>,
        #[starlark(require = named, default = 0)] sample: i32,
        #[starlark(require = named, default = "")] progress_message: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = crate::ctx::native::output(output, false)?;
        let mut inputs = Vec::new();
        let messages = llm_messages(messages, &mut inputs)?;
        let sample = u32::try_from(sample)
            .map_err(|_| RuleError::new(Code::Action, "`sample` is not negative"))?;
        let schema = match schema {
            None => Json::Null,
            Some(value) => to_json(value, "schema")?,
        };
        let request = json!({
            "model": model,
            "messages": messages,
            "schema": schema,
            "sampling": to_json(sampling, "sampling")?,
            "step": step,
            "sample": sample,
        });
        let scope = RuleScope::of(eval)?;
        let mut draft = Draft::native("llm", request, output);
        draft.class = ActionClass::Recorded;
        draft.direct = inputs;
        draft.progress = progress_message.to_owned();
        draft.add(scope)?;
        Ok(NoneType)
    }
}

fn copy_action<'v>(
    eval: &Evaluator<'v, '_, '_>,
    output: Value<'v>,
    source: Value<'v>,
    executable: Option<Value<'v>>,
    path: &str,
) -> starlark::Result<NoneType> {
    let output = expect_file(output, "output")?;
    let source = expect_file(source, "source")?;
    if path.is_empty() && output.is_tree() != source.is_tree() {
        let what = |tree: bool| if tree { "a tree" } else { "a file" };
        let message = format!(
            "`{}` is {}, but `{}` is {}",
            output.path(),
            what(output.is_tree()),
            source.path(),
            what(source.is_tree()),
        );
        return RuleError::new(Code::Action, message).raise();
    }
    let from = match path {
        "" => source.path().to_string(),
        _ => format!("{}/{path}", source.path()),
    };
    let bit = executable.filter(|value| !value.is_none());
    let bit = match bit.map(|value| value.unpack_bool().ok_or(value)) {
        None => Json::Null,
        Some(Ok(bit)) => Json::Bool(bit),
        Some(Err(value)) => return wrong_type("executable", "a bool or `None`", value).raise(),
    };
    let request = json!({"from": from, "executable": bit});
    add(eval, "copy", request, output, vec![source.artifact()])
}

fn image_config(
    entrypoint: Option<Value<'_>>,
    cmd: Option<Value<'_>>,
    env: Option<Value<'_>>,
    labels: Option<Value<'_>>,
    exposed_ports: Option<Value<'_>>,
    workdir: &str,
    user: &str,
) -> Result<Json, RuleError> {
    let mut config = Map::new();
    let mut put = |name: &str, value: Json| {
        let empty = match &value {
            Json::Array(items) => items.is_empty(),
            Json::Object(fields) => fields.is_empty(),
            Json::String(text) => text.is_empty(),
            _ => false,
        };
        if !empty {
            config.insert(name.to_owned(), value);
        }
    };
    put("entrypoint", json!(list(entrypoint, "entrypoint")?));
    put("cmd", json!(list(cmd, "cmd")?));
    put("env", object(env, "env")?);
    put("labels", object(labels, "labels")?);
    put("exposed_ports", json!(list(exposed_ports, "exposed_ports")?));
    put("workdir", json!(workdir));
    put("user", json!(user));
    Ok(Json::Object(config))
}

fn check_pin(urls: &[String], sha256: &str, integrity: &str) -> Result<(), RuleError> {
    if let Some(odd) = urls.iter().find(|u| !u.starts_with("https://") && !u.starts_with("http://"))
    {
        let message = format!("`{}` is no `http:` or `https:` URL", odd.escape_debug());
        return Err(RuleError::new(Code::Action, message));
    }
    let Some(first) = urls.first() else {
        return Err(RuleError::new(Code::Action, "a download needs at least one URL"));
    };
    match (sha256, integrity) {
        ("", "") => Err(RuleError::new(Code::Unpinned, format!("`{first}` is not pinned"))
            .hint("add `sha256 = \"…\"`, as `sha256sum` prints it for the file that you trust")),
        ("", text) if text.starts_with("sha256-") => Ok(()),
        ("", text) => Err(RuleError::new(
            Code::Unpinned,
            format!("`integrity` is `sha256-BASE64`, not `{}`", text.escape_debug()),
        )),
        (hex, "") => {
            let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if hex.len() == 64 && hex.chars().all(digit) {
                return Ok(());
            }
            let message =
                format!("`sha256` is 64 small hexadecimal digits, not `{}`", hex.escape_debug());
            Err(RuleError::new(Code::Unpinned, message))
        }
        _ => Err(RuleError::new(Code::Unpinned, "give `sha256` or `integrity`, not both")),
    }
}

fn llm_messages(value: Value<'_>, inputs: &mut Vec<ArtifactId>) -> Result<Json, RuleError> {
    let wrong = |value| wrong_type("messages", "a list of dicts with `role` and `content`", value);
    let mut out = Vec::new();
    for message in expect_sequence(value, "messages")? {
        let dict = DictRef::from_value(*message).ok_or_else(|| wrong(*message))?;
        let role = dict.get_str("role").and_then(|v| v.unpack_str());
        let parts = dict.get_str("content");
        let (Some(role), Some(parts)) = (role, parts) else { return Err(wrong(*message)) };
        let mut content = Vec::new();
        for part in expect_sequence(parts, "content")? {
            match (part.unpack_str(), FileValue::from_value(*part)) {
                (Some(text), _) => content.push(json!({"text": text})),
                (None, Some(file)) if !file.is_tree() => {
                    inputs.push(file.artifact());
                    content.push(json!({"context": file.path()}));
                }
                _ => return Err(wrong_type("content", "a list of strings and files", *part)),
            }
        }
        out.push(json!({"role": role, "content": content}));
    }
    Ok(Json::Array(out))
}

/// A value as JSON; objects keep their order, which the key's canonical form does not see.
fn to_json(value: Value<'_>, parameter: &str) -> Result<Json, RuleError> {
    value
        .to_json_value()
        .map_err(|e| RuleError::new(Code::Action, format!("`{parameter}` has no JSON form: {e}")))
}
